"""Stopped anywhere and continued, a run ends as if nothing had happened, bit for bit.

CLSNB_KILLS=30 kills that many runs at random moments instead of 4 (about a second each).
"""
import json, os, random, select, signal, subprocess, sys, time
from pathlib import Path

import pytest, torch

script = '''
import os, signal, sys, time
import torch
from torch import nn
from clsnb.core.registry import HOOKS
from clsnb.core.seed import set_seed
from clsnb.train.hooks import Hook
from clsnb.train.loop import IterBasedRunner, Runner
from clsnb.train.checkpoint_hook import latest_checkpoint
from clsnb.train.optim import build_optimizer
import clsnb.core.io, clsnb.core.checkpoint

class Data:
    "Enough of a data set for EvalHook"
    def __len__(self): return 24
    def get_gt_labels(self): return list(range(24))
    def evaluate(self, scores, logger=None, **kw): return dict(fit=float(sum(o.sum() for o in scores)))

class Batch(dict): index = ()
def batch(i):
    g = torch.Generator().manual_seed(i); x = torch.randn(8, 6, generator=g); b = Batch(x=x, y=x[:, :1]*2-1); b.index = list(range(i%3*8, i%3*8+8)); return b

class Loader:
    dataset,batch_size,epoch,start = Data(),8,0,0
    def __init__(self, n, train=True): self.n,self.train = n,train
    def __len__(self): return self.n
    def set_epoch(self, epoch, start=0): self.epoch,self.start = epoch,start
    def __iter__(self):
        for i in range(self.start, self.n): time.sleep(.002); yield batch(1000*self.epoch*self.train + i)

class Net(nn.Module):
    def __init__(self): super().__init__(); self.f = nn.Sequential(nn.Linear(6, 32), nn.BatchNorm1d(32), nn.Dropout(.2), nn.Linear(32, 1))
    def train_step(self, b, opt):
        loss = (self.f(b['x'])-b['y']).square().mean(); return dict(loss=loss, log_vars=dict(loss=loss.detach()), num_samples=len(b['x']))
    def val_step(self, b, opt): return self.train_step(b, opt)
    def forward(self, x, return_loss=False, **kw): return list((self.f(x)/9).detach().numpy())

@HOOKS.register
class Watch(Hook):
    "Kill at a given moment, counted over everything that happens; note the losses"
    priority = 'LOWEST'
    def __init__(self): self.total = 0.
    def after_train_iter(self, run): self.total += float(run.outputs['loss'].detach())
    def state_dict(self): return dict(total=self.total)
    def load_state_dict(self, s): self.total = s['total']

def build(work_dir, kind, opts=()):
    set_seed(1); net = Net(); opt = build_optimizer(net, dict(type='AdamW', lr=.01))
    R = IterBasedRunner if 'iter' in kind else Runner
    run = R(net, opt, work_dir=work_dir, meta=dict(config='a = 1'), **(dict(max_iters=66) if 'iter' in kind else dict(max_epochs=4)))
    by = dict(by_epoch='iter' not in kind)
    hooks = [dict(type='LrUpdaterHook', policy='CosineAnnealing', min_lr=0, by_epoch=False, warmup='linear', warmup_iters=9), dict(type='AverageLossHook'),
             dict(type='GradientCumulativeFp16OptimizerHook' if 'amp' in kind else 'GradientCumulativeOptimizerHook', cumulative_iters=3, **(dict(loss_scale=dict(init_scale=64., growth_interval=4)) if 'amp' in kind else {})),
             dict(type='CheckpointHook', interval=7, by_epoch=False, max_keep_ckpts=2), dict(type='CheckpointHook'), dict(type='IterTimerHook'),
             dict(type='EvalHook', dataloader=Loader(3, False), save_best='auto', interval=11 if 'iter' in kind else 1, **by),
             dict(type='TextLoggerHook', interval=5, **by), dict(type='ClearLogHook'), dict(type='InterruptHook'), dict(type='Watch')]
    if 'ema' in kind: hooks.append(dict(type='EMAHook', momentum=.05, priority='ABOVE_NORMAL'))
    if 'seed' in kind: hooks.append(dict(type='SeedHook', seed=3))
    for h in hooks: run.register_hook(h)
    return run

def go(work_dir, kind, before=None):
    run = build(work_dir, kind)
    if before: before(run)
    if c := latest_checkpoint(work_dir): run.resume(c)
    train = Loader(20)
    run.run([train, Loader(3, False)], [('train', 1 if 'iter' not in kind else 15), ('val', 1)]) if 'val' in kind else run.run([train])
    return run

def final(run):
    "All that must be equal"
    ev = run.evaluation; w = next(h for h in run.hooks if hasattr(h, 'total'))
    return dict(model=run.model.state_dict(), opt=run.optimizer.state_dict(), best=ev.best, best_file=ev.best_file, total=w.total, draw=torch.rand(4),
                place=(run.epoch, run.iter, run.position.batch), scaler=[h.scaler.state_dict() for h in run.hooks if hasattr(h, 'scaler')])

if __name__ == '__main__':
    torch.set_num_threads(1)
    work_dir,kind,out = sys.argv[1:4]
    run = go(work_dir, kind)
    if run.stop: sys.exit(3)
    torch.save(final(run), out+'.tmp'); os.replace(out+'.tmp', out)
'''
namespace = {'__name__': 'resume_script'}
exec(compile(script, 'resume_script', 'exec'), namespace)
go, final, Hook = (namespace[k] for k in ('go', 'final', 'Hook'))

def same(a, b):
    if torch.is_tensor(a): return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys()==b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a)==len(b) and all(same(x, y) for x,y in zip(a, b))
    return a==b

def rows(work_dir): # without what a clock says
    from clsnb.core.io import read_json_lines
    out = {}
    for p in sorted(Path(work_dir).glob('*.log.json'), key=lambda p: p.stat().st_mtime_ns):
        for r in read_json_lines(p):
            if 'mode' in r:
                out[r['mode'], r['epoch'], r['iter']] = {
                    k: v
                    for k,v in r.items()
                    if k not in ('time', 'data_time', 'memory')
                }
    return out

kinds = [
    'epoch', 'epoch seed', 'epoch amp', 'epoch val', 'iter', 'iter val', 'epoch ema', 'iter ema amp seed'
]
reference = {}

@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    def get(kind):
        if kind not in reference:
            d = tmp_path_factory.mktemp('whole')
            reference[kind] = final(go(d, kind)),rows(d)
        return reference[kind]
    return get

class Boom(BaseException): pass

@pytest.mark.parametrize('kind', kinds)
def test_broken_off_anywhere(kind, whole, tmp_path, caplog):
    """Broken off in hooks, steps, evaluations and the writing of checkpoints: at several moments of one run, until it
    gets through"""
    rng,end = random.Random(kind),whole(kind)
    for attempt in range(40):
        left = rng.randrange(20, 450) if attempt<5 else 10**9
        def trace(run):
            class Fuse:
                def __init__(self, answer): self.answer = answer
                def __call__(self, *a, **kw):
                    nonlocal left
                    left -= 1
                    if left<=0: raise Boom
                    return self.answer(*a, **kw)
            run.step = Fuse(run.step)
            for h in run.hooks:
                for e in (
                    'before_train_iter', 'after_train_iter', 'after_train_epoch', 'before_train_epoch',
                    'state_dict', 'after_val_iter'
                ):
                    if hasattr(h, e) and getattr(type(h), e) is not getattr(Hook, e, None):
                        setattr(h, e, Fuse(getattr(h, e)))
        try:
            run = go(tmp_path, kind, trace)
            break
        except Boom: pass
    assert attempt>=3
    mine = final(run)
    bad = [k for k in end[0] if not same(mine[k], end[0][k])]
    assert not bad, (bad, mine, end[0]) if 'model' not in bad else bad
    got = rows(tmp_path)
    assert got.keys()==end[1].keys()
    assert all(got[k]==v for k,v in end[1].items())

def run_script(tmp_path, kind, name='out'):
    (tmp_path/'s.py').write_text(script)
    env = dict(os.environ, OMP_NUM_THREADS='1')
    return subprocess.Popen(
        [sys.executable, tmp_path/'s.py', tmp_path/'work', kind, tmp_path/name],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )

# Starting Python and torch takes ten times as long as a run: so a process that has imported everything, and
# computed nothing, forks one for each run.

server = r"""
import io, json, os, sys, time, traceback
from pathlib import Path
import torch, torch._dynamo
torch.set_num_threads(1)
g = {'__name__': 'resume_script'}; exec(compile(Path(sys.argv[1]).read_text(), 's.py', 'exec'), g)
out = os.dup(1); os.dup2(2, 1)
def say(*o): os.write(out, (json.dumps(o)+'\n').encode())

def stop_at(pause):
    "Say so, and do nothing more, at number `pause` of the moments around the writing of checkpoints"
    left,save,replace = [pause],torch.save,os.replace
    def moment(what):
        left[0] -= 1
        if not left[0]: say('paused', what); time.sleep(1e6)
    def in_halves(o, f, **kw):
        b = io.BytesIO(); save(o, b, **kw); b = b.getvalue(); f.write(b[:len(b)//2]); f.flush(); moment('half written'); f.write(b[len(b)//2:])
    def named(a, b, **kw):
        b = Path(b); kind = b.suffix if b.name!='latest.pth' else 'link'
        if kind in ('.pth', '.sha256', 'link'): moment(f'before {kind}'); replace(a, b, **kw); moment(f'after {kind}')
        else: replace(a, b, **kw)
    torch.save,os.replace = in_halves,named

def child(work, kind, result, pause):
    "A run from its start or its last checkpoint to its end"
    log = open(result+'.log', 'w'); os.dup2(log.fileno(), 1); os.dup2(log.fileno(), 2); save,replace = torch.save,os.replace; stop_at(pause)
    end = g['final'](g['go'](work, kind)); save(end, result+'.tmp'); replace(result+'.tmp', result)

for line in sys.stdin:
    pid = os.fork()
    if not pid:
        try: child(*json.loads(line)); os._exit(0)
        except BaseException: traceback.print_exc(); sys.stderr.flush()
        os._exit(1)
    say('pid', pid); say('ended', os.waitpid(pid, 0)[1])
"""

class Runs:
    "One run at a time, forked from a process that is ready; `wait` hears what it says"
    def __init__(self, folder):
        (folder/'s.py').write_text(script)
        (folder/'server.py').write_text(server)
        self.text = b''
        self.folder = folder
        self.pid = None
        self.p = subprocess.Popen(
            [sys.executable, folder/'server.py', folder/'s.py'],
            env=dict(os.environ, OMP_NUM_THREADS='1'),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
    def start(self, kind, pause=0):
        self.p.stdin.write((
            json.dumps([str(self.folder/'work'), kind, str(self.folder/'out'), pause])+'\n'
        ).encode())
        self.p.stdin.flush()
        self.pid = self.wait('pid', seconds=120)[1]
    def wait(self, *what, seconds):
        "The next message of one of these kinds; None when the time is over"
        end = time.monotonic()+seconds
        while True:
            while b'\n' in self.text:
                line,self.text = self.text.split(b'\n', 1)
                m = json.loads(line)
                if m[0]=='ended': self.pid = None
                if m[0] in what: return m
            if not select.select(
                [self.p.stdout], [], [], max(end-time.monotonic(), 0)
            )[0]:
                return None
            new = os.read(self.p.stdout.fileno(), 4096)
            assert new, 'the server has died'
            self.text += new
    def kill(self):
        "SIGKILL; False if it was too late"
        self.signal()
        return self.wait('ended', seconds=60)[1]==signal.SIGKILL
    def signal(self):
        try: os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError: pass
    def error(self):
        p = self.folder/'out.log'
        return p.read_text()[-2000:] if p.exists() else ''
    def close(self):
        if self.wait('ended', seconds=0) is None and self.pid: self.signal()
        self.p.stdin.close()
        self.p.wait(60)
        self.p.stdout.close()

@pytest.fixture
def runs(tmp_path):
    r = Runs(tmp_path)
    yield r
    r.close()

kills = int(os.environ.get('CLSNB_KILLS', 4))
killed_kinds = ['epoch amp seed', 'iter ema amp seed', 'epoch val'][:max(1, min(3, kills//10))]

@pytest.mark.parametrize('kind', killed_kinds)
def test_kill_9(kind, whole, tmp_path, runs):
    "SIGKILL at random moments of a run and of its continuations, every other one in the middle of writing a checkpoint"
    rng = random.Random(kind)
    end = whole(kind)[0]
    moments = []
    done = 0
    while done < -(-kills//len(killed_kinds)):
        inside = done%2
        runs.start(kind, rng.randrange(1, 22) if inside else 0)
        if inside: m = runs.wait('paused', 'ended', seconds=120)
        else: m = runs.wait('ended', seconds=rng.random()*.6) # anything from its first line on
        if m and m[0]=='ended' or not m and not runs.kill(): # it got through: compare, and begin anew
            assert (tmp_path/'out').exists(), runs.error()
            assert same(torch.load(tmp_path/'out'), end)
            for f in [*(tmp_path/'work').iterdir(), tmp_path/'out']:
                f.unlink()
            continue
        if m: assert runs.kill()
        moments.append(m[1] if m else 'anywhere')
        done += 1
    runs.start(kind)
    assert runs.wait('ended', seconds=120)[1]==0, runs.error()
    assert same(torch.load(tmp_path/'out'), end)
    assert len(moments)==done and moments.count('anywhere')*2 in (done, done+1)
    print(moments)

def test_kill_9_with_fresh_interpreters(whole, tmp_path):
    "The same once more as a user would see it: the killed run and its continuation are processes of their own"
    p = run_script(tmp_path, 'epoch seed')
    while p.poll() is None and not list((tmp_path/'work').glob('*.pth')):
        time.sleep(.001)
    p.kill()
    p.communicate()
    assert not (tmp_path/'out').exists()
    p = run_script(tmp_path, 'epoch seed')
    _,err = p.communicate(timeout=120)
    assert p.returncode==0, err[-2000:]
    assert same(torch.load(tmp_path/'out'), whole('epoch seed')[0])

def test_sigterm_saves_and_stops(whole, tmp_path):
    p = run_script(tmp_path, 'epoch')
    while not list((tmp_path/'work').glob('*.pth')) and p.poll() is None:
        time.sleep(.002)
    time.sleep(.05)
    p.send_signal(signal.SIGTERM)
    _,err = p.communicate(timeout=60)
    assert p.returncode==3 and 'SIGTERM' in err.decode(), err[-2000:]
    assert same(final(go(tmp_path/'work', 'epoch')), whole('epoch')[0])

@pytest.mark.parametrize('sig', ['SIGUSR1', 'SIGINT'])
def test_signal_saves_and_stops(sig, whole, tmp_path):
    class Send(Hook):
        def before_train_iter(self, run):
            if run.iter==33: os.kill(os.getpid(), getattr(signal, sig))
    run = go(tmp_path, 'epoch', lambda r: r.register_hook(Send()))
    assert run.stop==sig and run.iter==34 and (tmp_path/'iter_34.pth').exists()
    assert same(final(go(tmp_path, 'epoch')), whole('epoch')[0])

def test_interrupt_in_evaluation_and_twice(whole, tmp_path):
    "An evaluation is left and done again; a second interrupt breaks off"
    net = namespace['Net']
    forward = net.forward
    times = []
    def interrupted(self, *a, **kw):
        times.append(1)
        if len(times)==5: os.kill(os.getpid(), signal.SIGINT)
        return forward(self, *a, **kw)
    net.forward = interrupted
    try: run = go(tmp_path, 'epoch')
    finally: net.forward = forward
    assert run.stop=='SIGINT'
    assert len(times)==5
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    run = go(tmp_path, 'epoch')
    assert same(final(run), whole('epoch')[0])
    class Twice(Hook):
        def before_train_iter(self, run):
            if run.iter==3:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(.01)
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(.01)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path/'new', 'epoch', lambda r: r.register_hook(Twice()))

def test_damaged_newest_is_named_and_resume_says_what_differs(whole, tmp_path, capsys):
    from clsnb.train.checkpoint_hook import latest_checkpoint
    run = go(tmp_path, 'epoch')
    newest = latest_checkpoint(tmp_path)
    data = newest.read_bytes()
    newest.write_bytes(data[:len(data)//2])
    capsys.readouterr()
    second = latest_checkpoint(tmp_path)
    said = capsys.readouterr().out
    assert second is not None and second!=newest and newest.name in said
    run = namespace['build'](tmp_path, 'epoch')
    run.meta['config'] = 'a = 2'
    run.resume(second)
    said = capsys.readouterr().out
    for o in ('weights', 'optimizer', 'generators', 'EvalHook', 'a: 1 → 2'):
        assert o in said, said

def test_full_disk(tmp_path, monkeypatch, capsys):
    "The run says so, keeps the last good checkpoint, and goes on; or stops"
    import errno
    from clsnb.core.errors import CheckpointError
    save,n = torch.save,[0]
    def full(o, f, **kw):
        n[0] += 1
        if n[0]>3:
            f.write(b'x'*100)
            raise OSError(errno.ENOSPC, 'No space left on device')
        return save(o, f, **kw)
    monkeypatch.setattr(torch, 'save', full)
    run = go(tmp_path, 'epoch')
    said = capsys.readouterr().out
    assert run.epoch==4 and 'the disk is full' in said
    from clsnb.train.checkpoint_hook import latest_checkpoint
    assert latest_checkpoint(tmp_path) and not list(tmp_path.glob('.*.pth.*'))
    n[0] = 9
    with pytest.raises(CheckpointError, match='the disk is full'):
        go(
            tmp_path/'b',
            'epoch',
            lambda r: [setattr(h, 'on_error', 'raise') for h in r.hooks if hasattr(h, 'on_error')],
        )
