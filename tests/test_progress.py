"What a run shows: in a notebook, on a terminal, in a file; and what can be seen of it from outside"
import fcntl, json, os, pty, re, signal, socket, struct, subprocess, sys, termios, time
from pathlib import Path

import pytest, torch
from torch import nn

from clsnb.analysis.attach import Follower, attach, live_page
from clsnb.core.errors import DataError
from clsnb.runs.folder import Run, run_state, run_text
from clsnb.runs.logs import LiveLog, read_log
from clsnb.train import progress
from clsnb.train.core_hooks import AverageLossHook, IterTimerHook
from clsnb.train.optimizer_hook import OptimizerHook
from clsnb.train.evaluation import EvalProgress
from clsnb.train.interrupt import InterruptHook
from clsnb.train.loggers import ClearLogHook, TextLoggerHook
from clsnb.train.progress import ProgressHook, progress_html, progress_text
from clsnb.train.hooks import Hook
from clsnb.train.loop import IterBasedRunner, Runner

env = dict(os.environ, OMP_NUM_THREADS='1', MPLBACKEND='agg')

class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2))
    def train_step(self, batch, optimizer):
        loss = (self.w[0]*batch['x'] + self.w[1] - batch['y']).square().mean()
        return dict(loss=loss, log_vars=dict(loss=loss.detach()), num_samples=len(batch['x']))
    val_step = train_step

x = torch.linspace(-1, 1, 16)
batch = dict(x=x, y=3*x+1)

class Screen:
    "Stands for a display: remembers what it was given"
    def __init__(self, f):
        self.seen,self.ended = [],None
        screens.append(self)
    def show(self, f):
        self.seen.append((time.perf_counter(), json.loads(json.dumps(f))))
        assert progress_text(f)
        assert progress_html(f)
    def close(self, f):
        self.ended = json.loads(json.dumps(f))
        assert progress_text(f) and progress_html(f)
screens = []

@pytest.fixture
def screen(monkeypatch):
    "In a notebook, as far as the hook knows"
    screens.clear()
    monkeypatch.setattr(progress, 'in_notebook', lambda: True)
    monkeypatch.setattr(progress, '_HtmlBar', Screen)
    return screens

def train(work_dir, *hooks, make=Runner, batches=None, flow=(('train', 1),), **kw):
    line = Line()
    run = make(
        line,
        torch.optim.SGD(line.parameters(), lr=.3, momentum=.5),
        work_dir=work_dir and str(work_dir),
        **(kw or dict(max_epochs=2)),
    )
    for h in (
        OptimizerHook(),
        IterTimerHook(),
        AverageLossHook(),
        TextLoggerHook(interval=5, by_epoch=run.by_epoch),
        *hooks,
        ClearLogHook(),
    ):
        run.register_hook(h)
    loader = [batch]*10 if batches is None else batches
    run.run([loader]*len(flow), flow)
    return run

class Slow(Hook):
    def __init__(self, s): self.s = s
    def before_train_iter(self, run): time.sleep(self.s)

# ---- What is shown

def test_at_most_twice_a_second_and_all_facts(screen, tmp_path):
    class Wait: # a loader that keeps us waiting half of the time
        def __len__(self): return 100
        def __iter__(self):
            for _ in range(100):
                time.sleep(.006)
                yield batch
    t = time.perf_counter()
    train(tmp_path, Slow(.006), ProgressHook(), batches=Wait(), max_epochs=3)
    took = time.perf_counter()-t
    s, = screen
    times = [t for t,_ in s.seen]
    assert 2<=len(s.seen)<=2+2*took
    assert all(b-a>=.5 for a,b in zip(times, times[1:]))
    last = s.seen[-1][1]
    assert {'loss', 'lr', 'wait', 'speed', 'memory', 'left', 'losses'} <= set(last)
    assert .25<last['wait']<.75
    assert last['speed']<16/.012
    assert 0<last['left']<took
    assert re.search(
        r'epoch \d of 3  loss \S+  lr 0.3  data wait \d+ %  images/s \d+(,\d+)?\S*  '
        r'\w*\s?memory .* GB  0:0\d left',
        progress_text(last),
    ), progress_text(last)
    assert s.ended['state']=='finished' and s.ended['iter']==300 and s.ended['epochs_done']==3

def test_nothing_is_read_from_the_device_per_step(screen, monkeypatch, tmp_path):
    "Two thousand steps with a display: the loss is read when it is drawn or logged, not at each step"
    read = [0]
    item = torch.Tensor.__float__
    def counted(self):
        read[0] += 1
        return item(self)
    monkeypatch.setattr(torch.Tensor, '__float__', counted)
    monkeypatch.setattr(torch.Tensor, 'item', lambda self: pytest.fail('item() in the loop'))
    line = Line()
    run = Runner(
        line, torch.optim.SGD(line.parameters(), lr=.3), work_dir=str(tmp_path), max_epochs=1
    )
    for h in (OptimizerHook(), AverageLossHook(), ProgressHook(), ClearLogHook()):
        run.register_hook(h)
    t = time.perf_counter()
    run.run([[batch]*2000])
    took = time.perf_counter()-t
    assert read[0]<=1+2*took

def test_a_step_costs_microseconds(screen):
    hook = ProgressHook(every=1e9)
    run = Runner(Line(), torch.optim.SGD([torch.zeros(1)], lr=.1), max_epochs=1)
    run.outputs,run.max_iters,run.max_epochs = dict(num_samples=3),10,1
    hook.before_run(run)
    hook.before_train_epoch(run)
    best = 1e9
    for _ in range(5):
        t = time.perf_counter()
        for _ in range(2000): hook.after_train_iter(run)
        best = min(best, (time.perf_counter()-t)/2000)
    print(f'{1e6*best:.2f} microseconds a step')
    assert best<2e-5

def test_evaluation_and_validation_phases(screen, tmp_path):
    class Judge(Hook):
        priority = 'LOW'
        def tested(self, run, n):
            time.sleep(.06)
            run.testing = EvalProgress(20, samples=n)
            run.call_hook('after_test_iter')
        def after_train_epoch(self, run):
            for n in (10, 20): self.tested(run, n)
            run.log_buffer.show({'accuracy_top-1': 50.+run.epoch, 'loss': .7}, 3)
    class SlowVal(Hook):
        def before_val_iter(self, run): time.sleep(.02)
    train(
        tmp_path,
        Judge(),
        SlowVal(),
        ProgressHook(every=.05, save_every=0.),
        flow=[('train', 1), ('val', 1)],
        max_epochs=2,
    )
    s, = screen
    texts = [progress_text(f) for _,f in s.seen]
    assert any('epoch 1 of 2, evaluation 10 of 20' in t for t in texts)
    assert any(', validation ' in t for t in texts)
    assert any(
        f['metrics']=={'accuracy_top-1': 50., 'loss': .7}
        for _,f in s.seen
        if f.get('metrics')
    )
    assert set(s.ended['metrics'])=={'loss'} and 'val loss' in progress_text(s.ended) # that of the last phase

@pytest.mark.parametrize('how', ['fails', 'interrupted', 'stopped', 'nan'])
def test_every_end_is_told(how, screen, tmp_path):
    class End(Hook):
        def before_train_iter(self, run):
            if run.iter!=13: return
            if how=='fails': raise ValueError('this <b>went</b> wrong\nand more')
            if how=='interrupted': os.kill(os.getpid(), signal.SIGINT)
            if how=='stopped': run.stop = 'enough'
            if how=='nan': run.model.w.data.fill_(float('nan'))
    try: train(tmp_path, End(), ProgressHook(), InterruptHook())
    except ValueError: pass
    f = json.loads((tmp_path/'progress.json').read_text())
    text = progress_text(screen[0].ended)
    assert f['state']==dict(fails='failed', nan='finished').get(how, how)
    assert text.startswith(
        dict(
            fails='failed after 13 iterations: ValueError: this <b>went</b> wrong',
            interrupted='interrupted after 14 iterations: SIGINT',
            stopped='stopped after 1 epoch: enough',
            nan='finished after 2 epochs  loss nan',
        )[how]
    ), text
    assert '<b>' not in progress_html(f) and ' left<' not in progress_html(f)

def test_iterations_and_many_epochs(screen, tmp_path):
    train(tmp_path, ProgressHook(every=0.), make=IterBasedRunner, max_iters=25)
    assert progress_text(screen[0].seen[-1][1]).startswith('iteration 25 of 25')
    train(tmp_path, ProgressHook(every=.01), batches=[batch], max_epochs=600)
    assert len(screen[1].ended['losses'])<=240 and len(progress_html(screen[1].ended))<4000

def test_a_full_disk_or_a_broken_display_does_not_end_the_run(screen, monkeypatch, tmp_path):
    replace = os.replace
    def full(a, b):
        raise OSError(28, 'No space left on device') if 'progress' in str(b) else replace(a, b)
    monkeypatch.setattr(os, 'replace', full)
    monkeypatch.setattr(Screen, 'show', lambda *a: 1/0)
    assert train(tmp_path, ProgressHook(every=0., save_every=0.)).iter==20
    assert not (tmp_path/'progress.json').exists()

# ---- Where it is shown

script = '''
import sys, time, torch
sys.path.insert(0, {tests!r})
from test_progress import *
train({work!r}, Slow(.01), ProgressHook(every=.1), max_epochs=6)
'''

def test_file_and_terminal(tmp_path):
    "Into a file: the log's lines, no bar. On a terminal: one line, and last words"
    code = script.format(tests=str(Path(__file__).parent), work=str(tmp_path/'w'))
    r = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True, timeout=120)
    assert r.returncode==0, r.stderr
    assert r.stderr=='' and r.stdout.count('Epoch [')==12 and '\r' not in r.stdout
    a,b = pty.openpty()
    fcntl.ioctl(b, termios.TIOCSWINSZ, struct.pack('HHHH', 30, 120, 0, 0))
    p = subprocess.Popen(
        [sys.executable, '-c', code],
        env=dict(env, TERM='xterm', COLUMNS='120'),
        stdout=subprocess.PIPE,
        stderr=b,
        text=True,
    )
    os.close(b)
    said = b''
    try:
        while part := os.read(a, 10000): said += part
    except OSError: pass # the other end is closed
    out,_ = p.communicate(timeout=60)
    said = said.decode()
    assert (
        'Epoch [' not in out
        and said.count('\r')>3
        and 'epoch 3 of 6' in said
        and said.rstrip().split('\r')[-1].split('\x1b[K')[-1].startswith('finished after 6 epochs  loss')
    ), said[-500:]

def test_a_notebook_gets_one_output(tmp_path):
    """Forty epochs with evaluations, run by nbclient as nbconvert does: one display, changed in place, at most twice a
    second"""
    nbformat,nbclient = pytest.importorskip('nbformat'),pytest.importorskip('nbclient')
    cells = [
        f'import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom test_progress import *\nfrom '
        'IPython.display import DisplayHandle\n'
        'old,n = DisplayHandle.update,[]\ndef update(self, *a, **k): n.append(time.time()); '
        'return old(self, *a, **k)\nDisplayHandle.update = update',
        f't = time.time(); run = train({str(tmp_path/"w")!r}, Slow(.005), ProgressHook(), max_epochs=40)',
        'assert 2<len(n)<=3+2*(time.time()-t), len(n)\nlen(n)',
    ]
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(o) for o in cells])
    os.environ['JUPYTER_PLATFORM_DIRS'] = '1'
    nbclient.NotebookClient(nb, timeout=120, kernel_name='python3').execute()
    out, = nb.cells[1].outputs
    assert out.output_type=='display_data'
    assert 'finished after 40 epochs' in out.data['text/plain']
    assert 'clsnb-progress' in out.data['text/html']
    # nothing that differs from one run to the next
    assert not re.search(r'\d:\d\d|GB|images/s', re.sub('<[^>]*>', ' ', out.data['text/html']))
    assert len(read_log(tmp_path/'w'))==80

# ---- From outside

def wait_for(what, seconds=60):
    t = time.time()
    while not (got := what()) and time.time()-t<seconds:
        time.sleep(.05)
    return got

digits = (
    "from clsnb.all import fit; fit('lenet5_1xb32_digits', {work!r}, {{'runner.max_epochs': {n}, 'results': "
    "False, 'log_config.interval': 5, 'data.workers_per_gpu': 0, 'log_level': 'ERROR'}})"
)

@pytest.mark.slow
def test_attach_to_a_run_of_another_process(tmp_path):
    "While it goes on, to its end; then to one that is killed"
    seen = []
    def follow(work):
        def look(a):
            seen.append(
                (run_text(a.run), len(a.log.table()), live_page(a.run, a.log))
            )
        return Follower(Run(work), .2, look)
    p = subprocess.Popen(
        [sys.executable, '-c', digits.format(work=str(tmp_path/'a'), n=4)],
        env=env,
        stdout=subprocess.DEVNULL,
    )
    a = follow(tmp_path/'a')
    a.thread.start()
    try:
        assert a.wait(150)=='finished' and p.wait(60)==0 and not a.errors, (
            a.state, a.errors
        )
    finally:
        a.stop()
        p.kill()
    texts,rows,pages = zip(*seen)
    assert texts[0].startswith('a: waiting for a run')
    assert any(re.match(r'epoch \d of 4', t) for t in texts)
    assert texts[-1].startswith('finished after 4 epochs  loss')
    assert list(rows)==sorted(rows)
    assert len(set(rows))>3
    assert rows[-1]==len(read_log(tmp_path/'a'))
    assert 'finished after 4 epochs' in pages[-1]
    assert 'last written' in pages[-1]
    assert 'data:image/png' in pages[-1]
    assert all(len(o)<200_000 for o in pages)
    seen.clear()
    p = subprocess.Popen(
        [sys.executable, '-c', digits.format(work=str(tmp_path/'b'), n=200)],
        env=env,
        stdout=subprocess.DEVNULL,
    )
    a = follow(tmp_path/'b')
    a.thread.start()
    try:
        assert wait_for(lambda: a.state=='running')
        p.kill()
        assert a.wait(60)=='died', a.errors
    finally:
        a.stop()
        p.kill()
        p.wait()
    assert 'its process is gone' in seen[-1][0] and 'last written' in seen[-1][0]
    fig = Run(tmp_path/'b').plot()
    assert 'died after' in fig.alt and fig.image_bytes()[:4]==b'\x89PNG'

def test_a_process_that_is_no_more_but_whose_parent_sleeps(tmp_path):
    p = subprocess.Popen([sys.executable, '-c', ''])
    f = dict(
        state='running',
        by_epoch=True,
        epoch=1,
        epochs_done=0,
        max_epochs=2,
        iter=3,
        max_iters=8,
        pid=p.pid,
        born=progress.process_born(p.pid),
        host=socket.gethostname(),
        written=time.time(),
    )
    (tmp_path/'progress.json').write_text(json.dumps(f))
    time.sleep(.5)
    assert run_state(tmp_path)['state']=='died'
    p.wait()

def row(epoch, i, **kw):
    return (
        json.dumps(dict(
            dict(
                mode='train', epoch=epoch, iter=i, lr=.1, loss=1/(epoch+i/100), time=.1
            ),
            **kw,
        ))
        + '\n'
    )

def test_growing_log_is_what_read_log_reads(tmp_path):
    "Written a few bytes at a time, resumed in the middle of an epoch, resumed from the beginning of one"
    watch = LiveLog(tmp_path)
    def write(name, text):
        for i in range(0, len(text), 61):
            with open(tmp_path/name, 'a') as f:
                f.write(text[i:i+61])
            watch.read()
    for name,epochs,first in [
        ('1.log.json', range(1, 7), 10),
        ('2.log.json', range(6, 10), 50),
        ('3.log.json', range(8, 12), 10),
    ]:
        write(
            name,
            '{"seed": 1}\n' + ''.join(
                row(e, i)
                for e in epochs
                for i in range(10, 101, 10)
                if (e, i)>=(epochs[0], first)
            ),
        )
        write(name, row(epochs[-1], 4, mode='val', loss=.5, **{'accuracy_top-1': 80.}))
        a,b = watch.table(),read_log(tmp_path)
        assert a.attrs['unit']==b.attrs['unit']
        assert a['at'].tolist()==b['at'].tolist()
        assert a['loss'].tolist()==b['loss'].tolist()

def test_a_long_log_is_read_once(tmp_path):
    "Two hundred thousand lines: the second look reads what was added, draws quickly and keeps little"
    p = tmp_path/'1.log.json'
    p.write_text(''.join(row(1+i//1000, 1+i%1000) for i in range(200_000)))
    watch = LiveLog(tmp_path)
    t = time.perf_counter()
    watch.read()
    first = time.perf_counter()-t
    log = watch.logs['1.log.json']
    with open(p, 'a') as f:
        f.write(row(201, 1)*10)
    at = log.position
    t = time.perf_counter()
    watch.read()
    second = time.perf_counter()-t
    t = time.perf_counter()
    df = watch.table()
    drawn = time.perf_counter()-t
    print(
        f'{p.stat().st_size/1e6:.0f} MB: first look {first:.2f} s, '
        f'second {1000*second:.1f} ms, table {1000*drawn:.0f} ms of {len(df)} lines'
    )
    assert log.position-at==10*len(row(201, 1))
    assert second<first/20
    assert len(log.rows)<=8001
    assert abs(df['at'].iloc[-1]-200.001)<.01
    assert df['at'].is_monotonic_increasing
    assert abs(
        float(df.loss.mean())
        - sum(1/(1+i//1000+(1+i%1000)/100) for i in range(200_000))/200_000
    )<.01

def test_attach_again_and_errors(tmp_path, capsys, monkeypatch):
    "A log of mmcls without progress.json; a terminal; a log that cannot be read now and then"
    (tmp_path/'old.log.json').write_text(row(1, 10)+row(1, 20))
    fig = Run(tmp_path).plot()
    assert 'a log without progress.json' in fig.alt
    assert 'last written' in fig.alt
    assert 'waiting for a run' in Run(tmp_path/'nowhere').plot().alt
    train(tmp_path, ProgressHook())
    capsys.readouterr()
    assert attach(tmp_path, every=0).follower.state=='finished'
    assert capsys.readouterr().out.startswith('finished after 2 epochs  loss')
    with pytest.raises(DataError, match='is a file'): attach(tmp_path/'old.log.json')
    a = Follower(Run(tmp_path), .01, lambda a: 1/0)
    a.thread.start()
    a.thread.join(20)
    assert a.state=='finished' and a.errors

# ---- In a browser

@pytest.mark.browser
def test_live_page(nb, tmp_path):
    "Training in a page, and looking on from a page while another process writes"
    tests = str(Path(__file__).parent)
    work = str(tmp_path/'w')
    nb.run(
        f'import sys; sys.path.insert(0, {tests!r})\nfrom test_progress import *\nrun = train({work!r}, '
        'Slow(.01), ProgressHook(every=.1), max_epochs=20)',
        '.clsnb-progress',
    )
    nb.text('.clsnb-progress', r'finished after 20 epochs.*loss')
    assert nb.page.locator('.clsnb-progress').count()==1
    facts = json.loads(Path(work, 'progress.json').read_text())
    facts.update(
        state='running',
        written=time.time(),
        pid=os.getpid(),
        born=progress.process_born(os.getpid()),
        left=75.,
    )
    def write(**kw):
        facts.update(kw)
        Path(work, 'new').write_text(json.dumps(facts))
        os.replace(Path(work, 'new'), Path(work, 'progress.json'))
    write(epoch=7)
    nb.run(f'from clsnb.all import attach\na = attach({work!r}, every=.5)', '.clsnb-progress')
    nb.text('.clsnb-progress', r'epoch 7 of 20.*1:15 left')
    write(epoch=8, written=time.time())
    nb.text('.clsnb-progress', r'epoch 8 of 20')
    picture = nb.page.locator('img[alt*="Curves of loss"]').first
    assert picture.evaluate('o => o.complete && o.naturalWidth>300')
    write(state='finished', epochs_done=20, written=time.time())
    nb.text('.clsnb-progress', r'finished after 20 epochs')
    nb.py("assert a.follower.wait(10) == 'finished' and not a.follower.errors")
    assert nb.page.locator('.clsnb-progress').count()==1
