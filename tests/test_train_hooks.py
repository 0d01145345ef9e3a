"Loggers of other packages, where they are installed; a profiler's trace; several processes"
import json, os, subprocess, sys
import pytest, torch
from torch import nn

from clsnb.train.checkpoint_hook import CheckpointHook
from clsnb.train.core_hooks import AverageLossHook, IterTimerHook
from clsnb.train.optimizer_hook import OptimizerHook
from clsnb.train.loggers import ClearLogHook
from clsnb.train.hooks import Hook
from clsnb.train.loop import IterBasedRunner, Runner
from clsnb.core.registry import HOOKS

class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2))
        self.CLASSES = ('a', 'b')
    def train_step(self, batch, optimizer):
        loss = (self.w[0]*batch['x'] + self.w[1] - batch['y']).square().mean()
        return dict(loss=loss, log_vars=dict(loss=loss.detach()), num_samples=len(batch['x']))

x = torch.linspace(-1, 1, 16)
class Judge(Hook):
    "Stands for EvalHook"
    priority = 'LOW'
    def after_train_epoch(self, run):
        run.log_buffer.output = dict(accuracy=50.+run.epoch, eval_iter_num=3)
        run.log_buffer.ready = True

def train(work_dir, *hooks, make=Runner, resume=None, **kw):
    line = Line()
    run = make(
        line,
        torch.optim.SGD(line.parameters(), lr=.3, momentum=.5),
        work_dir=str(work_dir),
        **(kw or dict(max_epochs=2)),
    )
    for h in (
        OptimizerHook(),
        IterTimerHook(),
        AverageLossHook(),
        CheckpointHook(max_keep_ckpts=2),
        Judge(),
        *hooks,
        ClearLogHook(),
    ):
        run.register_hook(h)
    if resume: run.resume(resume)
    run.run([[dict(x=x, y=3*x+1)]*10])
    return run

def test_tensorboard(tmp_path):
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    train(tmp_path, dict(type='TensorboardLoggerHook', interval=5))
    acc = EventAccumulator(str(tmp_path/'tf_logs'))
    acc.Reload()
    assert {'train/loss', 'val/accuracy', 'learning_rate', 'momentum'} <= set(acc.Tags()['scalars'])
    assert [e.step for e in acc.Scalars('train/loss')]==[5, 10, 15, 20]
    assert (
        [(e.step, e.value) for e in acc.Scalars('val/accuracy')]
        == [(1, 50.), (2, 51.)]
    )

@pytest.mark.parametrize('name', ['WandbLoggerHook', 'MMClsWandbHook'])
def test_wandb_offline(tmp_path, name, monkeypatch):
    pytest.importorskip('wandb')
    monkeypatch.setenv('WANDB_SILENT', 'true')
    monkeypatch.setenv('WANDB_MODE', 'offline')
    (tmp_path/'a.log').write_text('x')
    try:
        train(tmp_path, dict(type=name, interval=5, init_kwargs=dict(mode='offline', project='p')))
    except Exception as e:
        if 'wandb-core' in str(e) or 'start' in str(e).lower() and 'service' in str(e).lower():
            pytest.skip(f'wandb cannot start here: {e}')
        raise
    assert list(tmp_path.glob('wandb/offline-run-*/run-*.wandb'))

def test_mlflow_local(tmp_path, monkeypatch):
    mlflow = pytest.importorskip('mlflow')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('MLFLOW_ALLOW_FILE_STORE', 'true')
    mlflow.set_tracking_uri((tmp_path/'store').as_uri())
    train(tmp_path, dict(type='MlflowLoggerHook', interval=5, exp_name='e', params=dict(lr=.3)))
    files = {p.name for p in (tmp_path/'store').rglob('*') if p.is_file()}
    assert {'loss', 'accuracy', 'learning_rate', 'lr'} <= files and 'epoch_2.pth' in files

def test_dvclive(tmp_path, monkeypatch):
    pytest.importorskip('dvclive')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('DVC_NO_ANALYTICS', '1')
    train(
        tmp_path,
        dict(
            type='DvcliveLoggerHook', interval=5, dvclive=dict(dir='live', save_dvc_exp=False, dvcyaml=None)
        ),
    )
    assert abs(json.loads((tmp_path/'live/metrics.json').read_text())['val']['accuracy']-51)<1e-6

def test_trackio_local(tmp_path, monkeypatch):
    "A database in a folder, without a network; a run that resumes continues its curves"
    monkeypatch.setenv('TRACKIO_DIR', str(tmp_path/'store'))  # read when trackio is imported
    pytest.importorskip('trackio')
    from trackio.sqlite_storage import SQLiteStorage
    def rows(name): return [(o['step'], name) for o in SQLiteStorage.get_logs('clsnb', 'mine') if name in o]
    tracker = dict(type='TrackioLoggerHook', interval=5, init_kwargs=dict(auto_log_cpu=False, auto_log_gpu=False))
    train(tmp_path/'mine', tracker)
    assert list((tmp_path/'store').glob('clsnb*.db'))
    assert rows('train/loss')==[(step, 'train/loss') for step in (5, 10, 15, 20)]
    assert rows('val/accuracy')==[(10, 'val/accuracy'), (20, 'val/accuracy')]
    train(tmp_path/'mine', tracker, max_epochs=3, resume=str(tmp_path/'mine/epoch_2.pth'))
    assert [step for step, _ in rows('train/loss')]==[5, 10, 15, 20, 25, 30]
    assert len(SQLiteStorage.get_runs('clsnb'))==1

def test_neptune_says_that_it_has_ended(tmp_path, capsys):
    run = train(tmp_path, dict(type='NeptuneLoggerHook', init_kwargs=dict(project='a/b'), interval=5, with_step=False))
    assert run.epoch==2
    said, = [line for line in capsys.readouterr().out.splitlines() if 'Neptune' in line]
    assert 'TrackioLoggerHook' in said

def test_json_lines_of_an_iteration_runner(tmp_path):
    run = train(
        tmp_path, dict(type='TextLoggerHook', interval=5, by_epoch=False), make=IterBasedRunner, max_iters=25
    )
    rows = [json.loads(o) for o in (tmp_path/f'{run.timestamp}.log.json').read_text().splitlines()][1:]
    assert (
        [(r['mode'], r['iter']) for r in rows if r['mode']=='train']
        == [('train', i) for i in (5, 10, 15, 20, 25)]
    )
    assert [r['accuracy'] for r in rows if r['mode']=='val']==[50., 51.]

def test_profiler(tmp_path):
    train(
        tmp_path,
        dict(type='ProfilerHook', by_epoch=False, profile_iters=2, json_trace_path=tmp_path/'trace.json'),
    )
    assert (
        'Optimizer.step#SGD.step' in {
            e.get('name')
            for e in json.loads((tmp_path/'trace.json').read_text())['traceEvents']
        }
    )

def test_every_hook_of_mmcls_has_its_name():
    for o in '''LrUpdaterHook MomentumUpdaterHook OptimizerHook Fp16OptimizerHook GradientCumulativeOptimizerHook GradientCumulativeFp16OptimizerHook CheckpointHook
                EvalHook DistEvalHook EMAHook PreciseBNHook SyncBuffersHook EmptyCacheHook ProfilerHook ClassNumCheckHook DistSamplerSeedHook IterTimerHook TextLoggerHook
                TensorboardLoggerHook WandbLoggerHook MMClsWandbHook MlflowLoggerHook DvcliveLoggerHook NeptuneLoggerHook
                TrackioLoggerHook'''.split():
        assert o in HOOKS, o

def test_memory_stays_flat(tmp_path):
    "Ten thousand steps (a tenth of them in the plain run: CLSNB_STEPS=10000 for all)"
    def rss():
        return int(open('/proc/self/statm').read().split()[1])*os.sysconf('SC_PAGE_SIZE')/2**20
    if not os.path.exists('/proc/self/statm'): pytest.skip('no /proc')
    n = int(os.environ.get('CLSNB_STEPS', 1000))
    seen = []
    class Look(Hook):
        def after_train_epoch(self, run): seen.append(rss())
    train(
        tmp_path,
        Look(),
        dict(type='TextLoggerHook'),
        dict(type='SeedHook'),
        dict(type='ProgressHook', every=.05, save_every=.1),
        dict(type='BrokenFilesHook'),
        max_epochs=n//10,
    )
    print(
        f'{n} steps: {seen[0]:.1f} MB after the first epoch, '
        f'{seen[len(seen)//3]:.1f} after a third, {seen[-1]:.1f} at the end'
    )
    assert seen[-1]-seen[len(seen)//3] < 8, seen[::max(1, len(seen)//10)]

def two_ranks(work_dir):
    """What `launch` runs: accumulation with one all-reduce per step, an evaluation of 13 samples, a signal that one
    process hears"""
    import os, signal, time, torch, torch.distributed as dist
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel as DDP
    from clsnb.core.dist import gather_by_index
    from clsnb.train.optimizer_hook import GradientCumulativeOptimizerHook
    from clsnb.train.interrupt import InterruptHook
    from clsnb.train.hooks import Hook
    from clsnb.train.loop import Runner
    from clsnb.train.run_state import TrainStep
    rank,world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.f = nn.Linear(3, 1)
        def train_step(self, b, opt):
            loss = (self.f(b['x'])-1).square().mean()
            return dict(loss=loss, log_vars=dict(loss=loss.detach()), num_samples=len(b['x']))
    g = torch.Generator().manual_seed(1)
    data = torch.randn(20, 8, 3, generator=g)
    loader = [dict(x=o[rank*8//world:(rank+1)*8//world]) for o in data]
    def train(d, *hooks, epochs=2, k=3):
        net = Net()
        run = Runner(net, torch.optim.SGD(net.parameters(), lr=.1), work_dir=d, max_epochs=epochs)
        calls = []
        if world>1:
            from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
            def counted(state, bucket:dist.GradBucket)->torch.futures.Future[torch.Tensor]:
                calls.append(1)
                return allreduce_hook(None, bucket)
            run.train_step = DDP(TrainStep(net))
            run.train_step.register_comm_hook(None, counted)
        for h in (GradientCumulativeOptimizerHook(cumulative_iters=k), *hooks):
            run.register_hook(h)
        run.run([loader])
        return run,len(calls)
    run,calls = train(None)
    index = range(rank, 13, world)
    scores = gather_by_index(
        list(index), torch.tensor([[i*1.] for i in index]), size=13
    )[0]
    class Hear(Hook):
        def before_train_iter(self, r):
            time.sleep(.02)
            if rank==world-1 and r.iter==7:
                os.kill(os.getpid(), signal.SIGTERM)
    cut,_ = train(work_dir, Hear(), InterruptHook(every=.05), epochs=10, k=1)
    return dict(
        w=run.model.f.weight.tolist(),
        calls=calls,
        scores=scores.flatten().tolist(),
        stop=str(cut.stop),
        at=cut.iter,
        saved=sorted(p for p in os.listdir(work_dir)),
    )

def test_two_processes(tmp_path):
    from clsnb.apis.launch import launch
    (tmp_path/'one').mkdir()
    (tmp_path/'two').mkdir()
    a,b = launch(two_ranks, 2, str(tmp_path/'two'))
    one = two_ranks(str(tmp_path/'one'))
    torch.testing.assert_close(torch.tensor(a['w']), torch.tensor(one['w']))
    assert a['w']==b['w']
    assert a['calls']==14 # windows of three in 20 iterations are seven steps an epoch
    assert a['scores']==b['scores']==one['scores']==list(range(13))
    assert a['stop']==b['stop']==one['stop']=='SIGTERM'
    assert a['at']==b['at']<200
    assert one['at']==8
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
    t = torch.tensor([dist.get_rank()])
    dist.all_reduce(t)
    if die and dist.get_rank()==1: os.kill(os.getpid(), 9)
    dist.barrier()
    return int(t)

# ---- A plain script, CUDA

def test_ten_steps_equal_a_plain_script(tmp_path):
    "The same data and first weights through torch alone: every weight, every moment of the optimiser, to the last bit"
    import math
    from clsnb.all import Config, MODELS, build_dataloader, build_dataset, fit, set_seed
    from clsnb.core.seed import mix
    opts = {
        'runner': dict(type='IterBasedRunner', max_iters=10),
        'data.samples_per_gpu': 16,
        'data.workers_per_gpu': 0,
        'optimizer_config': dict(grad_clip=dict(max_norm=.5)),
        'lr_config.warmup_iters': 4,
        'lr_config.warmup_by_epoch': False,
        'log_level': 'ERROR',
        'channels_last': False,
    }
    run = fit('resnet18-tiny_1xb16_photos', tmp_path, opts, validate=False).runner

    cfg = Config.fromfile('resnet18-tiny_1xb16_photos')
    set_seed(mix(0))
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.train()
    # as the config says
    loader = build_dataloader(build_dataset(cfg.data.train), samples_per_gpu=16, seed=0, drop_last=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=.05)
    step = 0
    for epoch in range(2):
        loader.set_epoch(epoch)
        for batch in loader:
            if step==10: break
            lr = 1e-5 + .5*(2e-3-1e-5)*(1+math.cos(math.pi*step/10))
            if step<4: lr *= 1-(1-step/4)*(1-.1)
            for group in optimizer.param_groups: group['lr'] = lr
            loss = model(batch['img'], return_loss=True, gt_label=batch['gt_label'])['loss']
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), .5)
            optimizer.step()
            step += 1
    assert run.iter==step==10
    for (k,a),(_,b) in zip(
        run.model.state_dict().items(), model.state_dict().items()
    ):
        assert torch.equal(a, b), k
    for a,b in zip(
        run.optimizer.state_dict()['state'].values(), optimizer.state_dict()['state'].values()
    ):
        assert all(torch.equal(a[k], b[k]) for k in b)
    assert float(run.outputs['loss'].detach())==float(loss.detach())

def test_no_import_initialises_cuda():
    "Every module of the package, in an interpreter in which touching CUDA is an error"

    code = """import importlib, pkgutil, sys, torch
def touched(*a, **k): raise AssertionError('CUDA was touched')
torch.cuda._lazy_init = torch._C._cuda_init = touched
import clsnb.all
names = [o.name for o in pkgutil.walk_packages(clsnb.__path__, 'clsnb.') if not o.name.startswith(('clsnb.configs', 'clsnb.__main__'))]
for n in names: importlib.import_module(n)
from clsnb.core.registry import HOOKS, MODELS, DATASETS
assert len(HOOKS)>30 and len(MODELS)>60 and len(DATASETS)>5 and not torch.cuda.is_initialized()
try: torch.zeros(1, device='cuda')
except (AssertionError, RuntimeError): print(len(names))"""
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=300)
    assert r.returncode==0 and int(r.stdout)>100, r.stdout+r.stderr[-3000:]

# ---- Going on

@pytest.mark.parametrize('where', ['step', 'evaluation'])
@pytest.mark.parametrize(
    'kind', ['epoch', 'epoch amp', 'epoch val', 'iter', 'iter val', 'epoch ema', 'iter ema amp seed']
)
def test_the_same_runner_goes_on(kind, where, tmp_path):
    """Interrupted three times, in steps or in evaluations, `run` is called again: the end is that of an uninterrupted
    run"""
    import signal
    from test_resume import final, namespace, same
    def loaders():
        L = namespace['Loader']
        return (
            (
                [L(20), L(3, False)],
                [('train', 1 if 'iter' not in kind else 15), ('val', 1)],
            )
            if 'val' in kind
            else ([L(20)],)
        )
    whole = namespace['build'](tmp_path/'a', kind)
    whole.run(*loaders())
    whole = final(whole)
    net,n = namespace['Net'],[0]
    forward = net.forward
    def interrupted(self, *a, **k):
        n[0] += 1
        if n[0] in (2, 5):
            os.kill(os.getpid(), signal.SIGINT)
        return forward(self, *a, **k)
    class Press(Hook):
        def before_train_iter(self, run):
            if run.iter in (3, 19, 31) and run.iter not in pressed:
                pressed.add(run.iter)
                os.kill(os.getpid(), signal.SIGINT)
    pressed,times = set(),0
    run = namespace['build'](tmp_path/'b', kind)
    if where=='step': run.register_hook(Press())
    else: net.forward = interrupted
    try:
        while True:
            run.run(*loaders())
            if not run.stop: break
            times += 1
            torch.rand(7)
            assert run.stop=='SIGINT' and times<9
    finally: net.forward = forward
    assert times==(3 if where=='step' else 2)
    mine = final(run)
    bad = [k for k in whole if not same(mine[k], whole[k])]
    assert not bad, bad

def digits(work_dir, press=None, **kw):
    import signal
    from clsnb.all import fit
    class PressCtrlC(Hook):
        def before_train_iter(self, run):
            if run.iter==press: os.kill(os.getpid(), signal.SIGINT)
    HOOKS.register(PressCtrlC, force=True)
    return fit(
        'lenet5_1xb32_digits',
        str(work_dir),
        {
            'runner.max_epochs': 2,
            'data.workers_per_gpu': 0,
            'results': False,
            'custom_hooks': [dict(type='PressCtrlC')],
            **kw.pop('options', {}),
        },
        **kw,
    ).runner

def test_fit_goes_on_in_the_same_notebook(tmp_path, capsys):
    whole = digits(tmp_path/'a')
    cut = digits(tmp_path/'b', press=50)
    assert cut.stop=='SIGINT' and cut.iter==51 and 'the current step is finished' in capsys.readouterr().err
    other = digits(tmp_path/'b', options={'optimizer.lr': 1e-3, 'runner.max_epochs': 1})
    said = capsys.readouterr().out
    assert "another config. Set resume_from='auto' to resume it" in said
    assert other.optimizer.param_groups[0]['initial_lr']==1e-3
    assert other.epoch==1
    digits(tmp_path/'b', press=50)
    capsys.readouterr()
    rest = digits(tmp_path/'b')
    said = capsys.readouterr().out # the same call again
    assert 'Resumes the interrupted run' in said
    assert 'Resumed from' in said
    assert 'iter_51.pth' in said
    assert rest.stop is None
    for k,v in whole.model.state_dict().items():
        assert torch.equal(v, rest.model.state_dict()[k]), k
    digits(tmp_path/'b', press=50)
    capsys.readouterr()
    new = digits(tmp_path/'b', press=60, resume_from=False)
    assert 'Resumed' not in capsys.readouterr().out and new.iter==61
    ended = digits(tmp_path/'b')
    assert ended.iter==whole.iter
    capsys.readouterr()
    again = digits(tmp_path/'b') # a run that has ended begins anew
    assert 'Resumed' not in capsys.readouterr().out and again.iter==whole.iter

# ---- Memory after a failure

fails = '''
import gc, os, signal, sys, weakref, torch
from torch import nn
from clsnb.all import *
kept = {{}}
@MODELS.register
class Heavy(Backbone):
    "Fails in its third step, with a large activation in a local variable"
    def __init__(self): super().__init__(); self.f = nn.Conv2d(1, 3, 1); self.n = 0
    def forward(self, x):
        self.n += 1; big = torch.zeros(1000, 1000); y = self.f(x.float()).mean((2, 3)); kept.update(model=weakref.ref(self), activation=weakref.ref(big), batch=weakref.ref(x), graph=weakref.ref(y))
        if self.n==3 and {how!r}=='forward': raise RuntimeError('out of memory, as it were')
        if self.n==3 and {how!r}=='attribute': return y.colour
        if self.n==3 and {how!r}=='interrupts': os.kill(os.getpid(), signal.SIGINT); os.kill(os.getpid(), signal.SIGINT); [0 for _ in range(10**6)]
        if self.n==3 and {how!r}=='chained':
            try: return y.colour
            except AttributeError as e: raise ValueError('instead') from e
        return (y,)
@HOOKS.register
class Fails(Hook):
    def after_train_iter(self, run):
        kept.update(optimizer=weakref.ref(run.optimizer), runner=weakref.ref(run))
        if run.iter==2 and {how!r}=='hook': loss = run.outputs['loss']; raise KeyError('hook')
cfg = dict(model=dict(type='ImageClassifier', backbone=dict(type='Heavy'), head=dict(type='LinearClsHead', in_channels=3, num_classes=10)),
           data=dict(samples_per_gpu=8, workers_per_gpu={workers}, train=dict(type='Digits', pipeline=[dict(type='ImageToTensor', keys=['img']), dict(type='Collect', keys=['img', 'gt_label'])])),
           optimizer=dict(type='SGD', lr=.1, momentum=.9), runner=dict(type='EpochBasedRunner', max_epochs=1), custom_hooks=[dict(type='Fails')], log_level='ERROR')
'''
left = (
    "alive = [k for k,r in kept.items() if r() is not None]; import multiprocessing; "
    "alive += multiprocessing.active_children(); assert kept and not alive, alive; print('nothing stays')"
)

@pytest.mark.parametrize('how', ['forward', 'attribute', 'hook', 'chained', 'interrupts'])
def test_memory_comes_back_after_a_failure(how, tmp_path, monkeypatch):
    """Somebody keeps the error, as a notebook does; model, batch, activations, optimiser and workers are gone all the
    same"""
    space = {'__name__': 'failing'}
    exec(fails.format(how=how, workers=0), space)
    try:
        space['fit'](space['cfg'], tmp_path/'a', validate=False)
        pytest.fail('it should fail')
    except BaseException as e: keep = e
    assert type(keep).__name__==dict(
        forward='RuntimeError', attribute='AttributeError', hook='KeyError', chained='ValueError',
        interrupts='KeyboardInterrupt'
    )[how]
    assert len(space['kept'])==6
    exec(left, space)
    assert keep.__traceback__.tb_next is not None
    monkeypatch.setenv('CLSNB_DEBUG', '1')
    try: space['fit'](space['cfg'], tmp_path/'b', validate=False)
    except BaseException as e: keep = e # for %debug everything stays
    if how!='attribute': assert space['kept']['runner']() is not None

def test_memory_comes_back_in_a_real_notebook(tmp_path):
    nbformat,nbclient = pytest.importorskip('nbformat'),pytest.importorskip('nbclient')
    os.environ['JUPYTER_PLATFORM_DIRS'] = '1'
    cells = [
        fails.format(how='forward', workers=2),
        f'fit(cfg, {str(tmp_path)!r}, validate=False)',
        f'import sys; assert isinstance(sys.last_value, RuntimeError); {left}',
    ]
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(o) for o in cells])
    nb.cells[1].metadata['tags'] = ['raises-exception']
    nbclient.NotebookClient(nb, timeout=120, kernel_name='python3').execute()
    assert nb.cells[1].outputs[-1].ename=='RuntimeError'
    assert nb.cells[2].outputs[-1].text=='nothing stays\n'
    assert 'failed after 2 iterations: RuntimeError: out of memory' in str(nb.cells[1].outputs)

# ---- Schedules and broken files

def test_schedules_written_for_mmcv(tmp_path):
    "Found by their policy's name, by epoch and by iteration, warmed up, several groups; the rate and the momentum"
    from clsnb.all import fit
    from clsnb.train.schedule_hooks import LrUpdaterHook, MomentumUpdaterHook
    asked = []
    @HOOKS.register_module(force=True)
    class SawLrUpdaterHook(LrUpdaterHook):
        def __init__(self, teeth, **kwargs):
            self.teeth = teeth
            super().__init__(**kwargs)
        def get_lr(self, runner, base_lr):
            now,end = (runner.epoch, runner.max_epochs) if self.by_epoch else (runner.iter, runner.max_iters)
            asked.append((runner.epoch, runner.iter, base_lr))
            return base_lr*(1 - now*self.teeth/end%1)
    @HOOKS.register_module(force=True)
    class SawMomentumUpdaterHook(MomentumUpdaterHook):
        def __init__(self, low, **kwargs):
            self.low = low
            super().__init__(**kwargs)
        def get_momentum(self, runner, base_momentum):
            return self.low if runner.iter%2 else base_momentum
    seen = []
    @HOOKS.register(force=True)
    class See(Hook):
        priority = 'LOWEST'
        def before_train_iter(self, run):
            seen.append(
                (
                    run.optimizer.param_groups[0]['lr'],
                    run.optimizer.param_groups[-1]['lr'],
                    run.optimizer.param_groups[0]['betas'][0],
                )
            )
    def go(d, **lr):
        seen.clear()
        asked.clear()
        fit(
            'lenet5_1xb32_digits',
            tmp_path/d,
            {
                'runner.max_epochs': 2,
                'data.samples_per_gpu': 128,
                'data.workers_per_gpu': 0,
                'log_level': 'ERROR',
                'custom_hooks': [dict(type='See')],
                'lr_config': dict(_delete_=True, **lr),
                'momentum_config': dict(policy='Saw', low=.5, by_epoch=False),
                'optimizer': dict(_delete_=True, type='AdamW', lr=.01, paramwise_cfg=dict(bias_lr_mult=2.)),
            },
            validate=False,
        )
        return list(seen)
    rows = go('a', policy='Saw', teeth=4, by_epoch=False, warmup='linear', warmup_iters=4, warmup_ratio=.5)
    n = len(rows)
    want = [
        .01*(1-i*4/n%1)*(1-(1-i/4)*.5 if i<4 else 1)
        for i in range(n)
    ]
    assert (
        [a for a,_,_ in rows]==pytest.approx([2*w for w in want])
        or [a for a,_,_ in rows]==pytest.approx(want)
    )
    assert all(
        max(a, b)==pytest.approx(2*min(a, b)) or a==b==0
        for a,b,_ in rows
    )
    assert [m for _,_,m in rows]==[.5 if i%2 else .9 for i in range(n)]
    rows = go('b', policy='saw', teeth=1) # by epoch; a name in lower case is the class with a capital
    # asked once for each rate in each epoch
    assert len(asked)==4
    assert len({a for a,_,_ in rows})==2
    assert max(rows[n//2][:2])==pytest.approx(.01)

def cracked(n):
    "Digits of which sample 7 and those from 1000 on, three of them, are broken"
    from clsnb.all import Digits
    from clsnb.data.pixels.loading import BrokenPicture
    class Cracked(Digits):
        def __getitem__(self, i):
            if i==7 or 1000<=i<1000+n: raise BrokenPicture(f'Cannot decode picture {i}.')
            return super().__getitem__(i)
    return Cracked(
        'train', [dict(type='ImageToTensor', keys=['img']), dict(type='Collect', keys=['img', 'gt_label'])]
    )

class Still(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))
        self.seen = set()
    def train_step(self, batch, optimizer):
        return dict(loss=self.w.sum(), log_vars={}, num_samples=1)

def test_the_schedule_reaches_groups_that_come_later():
    "A state that is loaded, or a group that is added, in the middle of a run"
    line,more,seen = Line(),nn.Parameter(torch.zeros(1)),[]
    opt = torch.optim.SGD(line.parameters(), lr=.4)
    class Change(Hook):
        priority = 'HIGHEST'
        def before_train_iter(self, run):
            if run.iter==1: opt.load_state_dict(opt.state_dict()) # torch makes new groups of it
            if run.iter==2: opt.add_param_group(dict(params=[more], lr=.1))
    class See(Hook):
        def before_train_iter(self, run): seen.append([g['lr'] for g in opt.param_groups])
    run = Runner(line, opt, max_epochs=1)
    for h in (
        Change(),
        HOOKS.build(dict(type='LrUpdaterHook', policy='poly', by_epoch=False)),
        OptimizerHook(),
        See(),
    ):
        run.register_hook(h)
    run.run([[dict(x=x, y=3*x+1)]*4])
    assert seen==[pytest.approx(o) for o in ([.4], [.3], [.2,.05], [.1,.025])]

@pytest.mark.parametrize('workers', [0, 2])
def test_broken_files_are_said_and_listed(workers, tmp_path, capsys):
    import warnings
    from clsnb.all import build_dataloader, get_logger
    warnings.simplefilter('ignore')
    get_logger(log_file=tmp_path/'all.log', log_level='INFO')
    def go(n, epochs, resume=None, work_dir=tmp_path):
        m = Still()
        run = Runner(
            m, torch.optim.SGD(m.parameters(), lr=.1), work_dir=work_dir and str(work_dir), max_epochs=epochs
        )
        for h in (
            (OptimizerHook(), CheckpointHook(), dict(type='BrokenFilesHook')) if work_dir
            else (OptimizerHook(), dict(type='BrokenFilesHook'))
        ):
            run.register_hook(h)
        if resume: run.resume(resume)
        run.run([build_dataloader(cracked(n), 64, workers, seed=0)])
        return capsys.readouterr().out
    screen = go(2, 2)
    said = [o for o in (tmp_path/'all.log').read_text().splitlines() if 'Broken files' in o]
    assert screen.count('Broken files')==1 # on the screen only when there are new ones
    assert len(said)==2
    assert 'left out so far: 3, 3 of them new' in said[0]
    assert 'so far: 3, 0 of them new' in said[1]
    assert 'broken_files.json' in said[0]
    rows = json.loads((tmp_path/'broken_files.json').read_text())
    assert [o['index'] for o in rows]==[7, 1000, 1001]
    assert rows[0]['why']=='Cannot decode picture 7.'
    assert rows[0]['file']
    said = go(4, 3, tmp_path/'epoch_2.pth')
    assert 'so far: 5, 2 of them new' in said
    assert len(json.loads((tmp_path/'broken_files.json').read_text()))==5
    assert 'so far: 3, 3 of them new.' in go(2, 1, work_dir=None)

def broken_ranks(work_dir):
    import json, os, torch, torch.distributed as dist
    from clsnb.train.loop import Runner
    rank = dist.get_rank()
    class Pictures(list):
        broken,dataset = {rank: f'found by rank {rank}', 7: 'found by both'},None
    m = torch.nn.Linear(1, 1)
    run = Runner(m, torch.optim.SGD(m.parameters(), lr=.1), work_dir=work_dir, max_epochs=1)
    run.step = lambda: None
    run.register_hook(dict(type='BrokenFilesHook'))
    run.run([Pictures([{}])])
    dist.barrier()
    return [o['why'] for o in json.load(open(os.path.join(work_dir, 'broken_files.json')))]

def test_broken_files_of_all_processes_are_listed(tmp_path):
    from clsnb.apis.launch import launch
    assert launch(broken_ranks, 2, str(tmp_path))==[['found by rank 0', 'found by rank 1', 'found by both']]*2

@pytest.mark.skipif(not hasattr(os, 'fork'), reason='no fork')
def test_loading_processes_keep_quiet_about_signals():
    """A terminal sends Ctrl-C to all processes: one line is enough, and a batch under way is finished; a stuck one can
    still be ended"""
    code = '''
import os, signal
from types import SimpleNamespace
from clsnb.train.interrupt import InterruptHook
InterruptHook().before_run(SimpleNamespace())
pid = os.fork()
if not pid:
    for s in ('SIGINT', 'SIGINT', 'SIGUSR1'): os.kill(os.getpid(), getattr(signal, s))
    os.write(1, b'going on;'); os.kill(os.getpid(), signal.SIGTERM); os.write(1, b'still there'); os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True); os.kill(os.getpid(), signal.SIGINT)
try: os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt: print('second')
'''
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    assert r.stdout=='going on;143\nsecond\n' and r.stderr.count('finished and the run is saved')==1, (
        r.stdout, r.stderr
    )
