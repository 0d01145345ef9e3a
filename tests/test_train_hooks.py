"Loggers of other packages, where they are installed; a profiler's trace; several processes"
import json, os
import pytest, torch
from torch import nn

from clsnb.train.core_hooks import AverageLossHook, CheckpointHook, IterTimerHook, OptimizerHook
from clsnb.train.loggers import ClearLogHook
from clsnb.train.runner import Hook, IterBasedRunner, Runner
from clsnb.core.registry import HOOKS

class Line(nn.Module):
    def __init__(self): super().__init__(); self.w = nn.Parameter(torch.zeros(2)); self.CLASSES = ('a', 'b')
    def train_step(self, batch, optimizer):
        loss = (self.w[0]*batch['x'] + self.w[1] - batch['y']).square().mean()
        return dict(loss=loss, log_vars=dict(loss=loss.detach()), num_samples=len(batch['x']))

x = torch.linspace(-1, 1, 16)
class Judge(Hook):
    "Stands for EvalHook"
    priority = 'LOW'
    def after_train_epoch(self, run): run.log_buffer.output = dict(accuracy=50.+run.epoch, eval_iter_num=3); run.log_buffer.ready = True

def train(work_dir, *hooks, make=Runner, **kw):
    line = Line(); run = make(line, torch.optim.SGD(line.parameters(), lr=.3, momentum=.5), work_dir=str(work_dir), **(kw or dict(max_epochs=2)))
    for h in (OptimizerHook(), IterTimerHook(), AverageLossHook(), CheckpointHook(max_keep_ckpts=2), Judge(), *hooks, ClearLogHook()): run.register_hook(h)
    run.run([[dict(x=x, y=3*x+1)]*10]); return run

def test_tensorboard(tmp_path):
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    train(tmp_path, dict(type='TensorboardLoggerHook', interval=5))
    acc = EventAccumulator(str(tmp_path/'tf_logs')); acc.Reload()
    assert {'train/loss', 'val/accuracy', 'learning_rate', 'momentum'} <= set(acc.Tags()['scalars'])
    assert [e.step for e in acc.Scalars('train/loss')]==[5, 10, 15, 20] and [(e.step, e.value) for e in acc.Scalars('val/accuracy')]==[(1, 50.), (2, 51.)]

@pytest.mark.parametrize('name', ['WandbLoggerHook', 'MMClsWandbHook'])
def test_wandb_offline(tmp_path, name, monkeypatch):
    pytest.importorskip('wandb'); monkeypatch.setenv('WANDB_SILENT', 'true'); monkeypatch.setenv('WANDB_MODE', 'offline')
    (tmp_path/'a.log').write_text('x')
    try: train(tmp_path, dict(type=name, interval=5, init_kwargs=dict(mode='offline', project='p')))
    except Exception as e:
        if 'wandb-core' in str(e) or 'start' in str(e).lower() and 'service' in str(e).lower(): pytest.skip(f'wandb cannot start here: {e}')
        raise
    assert list(tmp_path.glob('wandb/offline-run-*/run-*.wandb'))

def test_mlflow_local(tmp_path, monkeypatch):
    mlflow = pytest.importorskip('mlflow'); monkeypatch.chdir(tmp_path); monkeypatch.setenv('MLFLOW_ALLOW_FILE_STORE', 'true')
    mlflow.set_tracking_uri((tmp_path/'store').as_uri())
    train(tmp_path, dict(type='MlflowLoggerHook', interval=5, exp_name='e', params=dict(lr=.3)))
    files = {p.name for p in (tmp_path/'store').rglob('*') if p.is_file()}
    assert {'loss', 'accuracy', 'learning_rate', 'lr'} <= files and 'epoch_2.pth' in files

def test_dvclive(tmp_path, monkeypatch):
    pytest.importorskip('dvclive'); monkeypatch.chdir(tmp_path); monkeypatch.setenv('DVC_NO_ANALYTICS', '1')
    train(tmp_path, dict(type='DvcliveLoggerHook', interval=5, dvclive=dict(dir='live', save_dvc_exp=False, dvcyaml=None)))
    assert abs(json.loads((tmp_path/'live/metrics.json').read_text())['val']['accuracy']-51)<1e-6

def test_json_lines_of_an_iteration_runner(tmp_path):
    run = train(tmp_path, dict(type='TextLoggerHook', interval=5, by_epoch=False), make=IterBasedRunner, max_iters=25)
    rows = [json.loads(o) for o in (tmp_path/f'{run.timestamp}.log.json').read_text().splitlines()][1:]
    assert [(r['mode'], r['iter']) for r in rows if r['mode']=='train']==[('train', i) for i in (5, 10, 15, 20, 25)]
    assert [r['accuracy'] for r in rows if r['mode']=='val']==[50., 51.]

def test_profiler(tmp_path):
    train(tmp_path, dict(type='ProfilerHook', by_epoch=False, profile_iters=2, json_trace_path=tmp_path/'trace.json'))
    assert 'Optimizer.step#SGD.step' in {e.get('name') for e in json.loads((tmp_path/'trace.json').read_text())['traceEvents']}

def test_every_hook_of_mmcls_has_its_name():
    for o in '''LrUpdaterHook MomentumUpdaterHook OptimizerHook Fp16OptimizerHook GradientCumulativeOptimizerHook GradientCumulativeFp16OptimizerHook CheckpointHook
                EvalHook DistEvalHook EMAHook PreciseBNHook SyncBuffersHook EmptyCacheHook ProfilerHook ClassNumCheckHook DistSamplerSeedHook IterTimerHook TextLoggerHook
                TensorboardLoggerHook WandbLoggerHook MMClsWandbHook MlflowLoggerHook DvcliveLoggerHook NeptuneLoggerHook'''.split(): assert o in HOOKS, o

def test_memory_stays_flat(tmp_path):
    "Ten thousand steps (a tenth of them in the plain run: CLSNB_STEPS=10000 for all)"
    def rss(): return int(open('/proc/self/statm').read().split()[1])*os.sysconf('SC_PAGE_SIZE')/2**20
    if not os.path.exists('/proc/self/statm'): pytest.skip('no /proc')
    n,seen = int(os.environ.get('CLSNB_STEPS', 1000)),[]
    class Look(Hook):
        def after_train_epoch(self, run): seen.append(rss())
    train(tmp_path, Look(), dict(type='TextLoggerHook'), dict(type='SeedHook'), max_epochs=n//10)
    assert seen[-1]-seen[len(seen)//3] < 8, seen[::max(1, len(seen)//10)]

def two_ranks(work_dir):
    "What `launch` runs: accumulation with one all-reduce per step, an evaluation of 13 samples, a signal that one process hears"
    import os, signal, time, torch, torch.distributed as dist
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel as DDP
    from clsnb.core.dist import gather_by_index
    from clsnb.train.core_hooks import GradientCumulativeOptimizerHook
    from clsnb.train.interrupt import InterruptHook
    from clsnb.train.runner import Hook, Runner, TrainStep
    rank,world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    class Net(nn.Module):
        def __init__(self): super().__init__(); torch.manual_seed(0); self.f = nn.Linear(3, 1)
        def train_step(self, b, opt): loss = (self.f(b['x'])-1).square().mean(); return dict(loss=loss, log_vars=dict(loss=loss.detach()), num_samples=len(b['x']))
    g = torch.Generator().manual_seed(1); data = torch.randn(20, 8, 3, generator=g); loader = [dict(x=o[rank*8//world:(rank+1)*8//world]) for o in data]
    def train(d, *hooks, epochs=2, k=3):
        net = Net(); run = Runner(net, torch.optim.SGD(net.parameters(), lr=.1), work_dir=d, max_epochs=epochs); calls = []
        if world>1:
            from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
            def counted(state, bucket:dist.GradBucket)->torch.futures.Future[torch.Tensor]: calls.append(1); return allreduce_hook(None, bucket)
            run.train_step = DDP(TrainStep(net)); run.train_step.register_comm_hook(None, counted)
        for h in (GradientCumulativeOptimizerHook(cumulative_iters=k), *hooks): run.register_hook(h)
        run.run([loader]); return run,len(calls)
    run,calls = train(None)
    index = range(rank, 13, world); scores = gather_by_index(list(index), torch.tensor([[i*1.] for i in index]), size=13)[0]
    class Hear(Hook):
        def before_train_iter(self, r):
            time.sleep(.02)
            if rank==world-1 and r.iter==7: os.kill(os.getpid(), signal.SIGTERM)
    cut,_ = train(work_dir, Hear(), InterruptHook(every=.05), epochs=10, k=1)
    return dict(w=run.model.f.weight.tolist(), calls=calls, scores=scores.flatten().tolist(), stop=str(cut.stop), at=cut.iter, saved=sorted(p for p in os.listdir(work_dir)))

def test_two_processes(tmp_path):
    from clsnb.apis.launch import launch
    (tmp_path/'one').mkdir(); (tmp_path/'two').mkdir()
    a,b = launch(two_ranks, 2, str(tmp_path/'two')); one = two_ranks(str(tmp_path/'one'))
    torch.testing.assert_close(torch.tensor(a['w']), torch.tensor(one['w'])); assert a['w']==b['w']
    assert a['calls']==14 # windows of three in 20 iterations are seven steps an epoch
    assert a['scores']==b['scores']==one['scores']==list(range(13))
    assert a['stop']==b['stop']==one['stop']=='SIGTERM' and a['at']==b['at']<200 and one['at']==8
    assert f"iter_{a['at']}.pth" in a['saved']

def test_two_jobs_at_once_and_a_death(tmp_path):
    import threading, time
    from clsnb.apis.launch import launch
    from clsnb.core.errors import ClsnbError
    out = {}
    def job(name):
        t = time.monotonic()
        try: out[name] = launch(ranks_or_die, 2, name=='dies', grace=2.)
        except ClsnbError as e: out[name] = str(e),time.monotonic()-t
    jobs = [threading.Thread(target=job, args=(n,)) for n in ('lives', 'dies')]
    for j in jobs: j.start()
    for j in jobs: j.join(100)
    assert out['lives']==[1, 1]
    assert 'rank 1' in out['dies'][0] and 'SIGKILL' in out['dies'][0]

def ranks_or_die(die):
    import os, torch, torch.distributed as dist
    t = torch.tensor([dist.get_rank()]); dist.all_reduce(t)
    if die and dist.get_rank()==1: os.kill(os.getpid(), 9)
    dist.barrier(); return int(t)
