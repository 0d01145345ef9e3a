"""Several processes: split models, nodes, launchers, hangs, deaths, interrupts. gloo on the CPU; every wait has its
limit"""
import json, os, shutil, signal, socket, subprocess, sys, time
from pathlib import Path
import pytest, torch

from clsnb.apis.launch import launch
from clsnb.apis.fit import fit
from clsnb.core.dist import first_host, job_port, launcher_env
from clsnb.core.errors import ClsnbError, ConfigError
from clsnb.core.registry import HOOKS
from clsnb.train.hooks import Hook

ours = 'SLURM OMPI PMI MASTER_ TORCHELASTIC RANK LOCAL_ WORLD_SIZE GROUP_'.split()
env = (
    {k: v for k,v in os.environ.items() if not k.startswith(tuple(ours))}
    | dict(
        OMP_NUM_THREADS='1',
        MPLBACKEND='agg',
        PYTHONPATH=os.pathsep.join([str(Path(__file__).parent), os.environ.get('PYTHONPATH', '')]),
    )
)
limit = 200 # seconds for any one wait: many times what a free machine needs

@HOOKS.register
class Trouble(Hook):
    "What one process does at one step"
    def __init__(self, kind, at=10, who=1, once=None):
        self.kind = kind
        self.at = at
        self.who = who
        self.once = once
    def before_train_iter(self, run):
        if self.kind=='tell': time.sleep(.15) # signals are exchanged about once a second
        if run.rank!=self.who or run.iter!=self.at or self.once and os.path.exists(self.once):
            return
        if self.once: Path(self.once).write_text(str(time.time()))
        if self.kind=='die': os.kill(os.getpid(), signal.SIGKILL)
        if self.kind=='hang': time.sleep(10*limit)
        if self.kind=='tell': os.kill(os.getppid(), signal.SIGINT) # the notebook

def options(samples=16, **kw):
    "Twenty steps on digits, two evaluations, three checkpoints"
    return {
        'data.samples_per_gpu': samples,
        'data.workers_per_gpu': 0,
        'runner': dict(type='IterBasedRunner', max_iters=20),
        'results': False,
        'evaluation': dict(interval=10),
        'checkpoint_config': dict(interval=7, max_keep_ckpts=-1),
        'log_config': dict(interval=20, hooks=[dict(type='TextLoggerHook')]),
        **kw,
    }

def train(work_dir, opts, **kw):
    "What each process does; its facts"
    run = fit('lenet5_1xb32_digits', str(work_dir), opts, launcher=kw.pop('launcher', 'pytorch'), **kw).runner
    return dict(
        iter=run.iter,
        stop=run.stop and str(run.stop),
        shards=sum(
            p.to_local().numel() if hasattr(p, 'to_local') else p.numel()
            for p in run.model.parameters()
        ),
    )

def saved(path): return torch.load(path, weights_only=True)
def val(work_dir):
    return [
        r
        for p in sorted(Path(work_dir).glob('*.log.json'))
        for r in map(json.loads, p.read_text().splitlines())
        if r.get('mode')=='val'
    ][-1]
def close(a, b, **kw):
    for k in a:
        torch.testing.assert_close(a[k], b[k], **kw)
def equal(a, b):
    if torch.is_tensor(a): return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys()==b.keys() and all(equal(a[k], b[k]) for k in a)
    return a==b

# ---- Models that do not fit

def split_and_resumed(d):
    "A run with everything that touches parameters; again from a checkpoint between two steps of the optimiser"
    out = train(f'{d}/split', split_options())
    if torch.distributed.get_rank()==0:
        os.makedirs(f'{d}/again')
        shutil.copy(f'{d}/split/iter_7.pth', f'{d}/again')
    torch.distributed.barrier()
    train(f'{d}/again', split_options(), resume_from='auto')
    return out

def split_options(samples=16, **kw):
    return options(
        samples,
        optimizer_config=dict(grad_clip=dict(max_norm=.5), cumulative_iters=2),
        custom_hooks=[dict(type='EMAHook', momentum=.05)],
        fsdp=dict(min_params=1000),
        evaluation=dict(interval=10, save_best=None),
        **kw,
    )

def test_split_model(tmp_path):
    a,b = launch(split_and_resumed, 2, str(tmp_path), timeout=limit)
    one = train(tmp_path/'one', split_options(32), launcher='none')
    assert a['iter']==b['iter']==20
    assert a['shards']+b['shards']==one['shards']
    assert .4 < a['shards']/one['shards'] < .6
    x,y,z = (saved(tmp_path/k/'iter_20.pth') for k in ('split', 'one', 'again'))
    close(x['state_dict'], y['state_dict'], rtol=1e-3, atol=1e-5)
    assert list(x['state_dict'])==list(y['state_dict'])
    assert x['optimizer']['param_groups'][0]['params']==y['optimizer']['param_groups'][0]['params']
    for i,s in y['optimizer']['state'].items():
        close(s, x['optimizer']['state'][i], rtol=1e-3, atol=1e-6)
    close(y['loop']['EMAHook']['weights'], x['loop']['EMAHook']['weights'], rtol=1e-3, atol=1e-5)
    # bit for bit
    assert equal(x['state_dict'], z['state_dict'])
    assert equal(x['optimizer'], z['optimizer'])
    assert equal(x['loop']['EMAHook'], z['loop']['EMAHook'])
    from clsnb.apis.test import evaluate_config # one process, whole weights, the same number
    res = evaluate_config('lenet5_1xb32_digits', str(tmp_path/'split/iter_20.pth'), 'val')[0]
    row = val(tmp_path/'split')
    assert abs(res['accuracy_top-1']-row['accuracy_top-1'])<1e-4 and abs(res['loss']-row['loss'])<1e-5
    shutil.copytree(
        tmp_path/'split', tmp_path/'fewer', ignore=shutil.ignore_patterns('iter_14*', 'iter_20*', 'latest*')
    )
    train(tmp_path/'fewer', split_options(32), launcher='none', resume_from='auto') # another number of processes
    close(x['state_dict'], saved(tmp_path/'fewer/iter_20.pth')['state_dict'], rtol=1e-3, atol=1e-5)

# ---- Nodes and restarts

@pytest.fixture(scope='module')
def two(tmp_path_factory):
    "A run of two processes that nothing happens to"
    d = tmp_path_factory.mktemp('two')
    launch(train, 2, str(d), options(), timeout=limit)
    return d

def torchrun(*args, work_dir, opts, **kw):
    code = f"from test_distributed import train; train({str(work_dir)!r}, {opts!r}, resume_from='auto')"
    script = Path(work_dir).parent/f'{Path(work_dir).name}.py'
    script.write_text(code)
    return subprocess.Popen(
        [sys.executable, '-m', 'torch.distributed.run', *args, str(script)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **kw,
    )

def finish(*procs):
    try: return [p.communicate(timeout=limit)[0] for p in procs]
    finally:
        for p in procs:
            if p.poll() is None: os.killpg(p.pid, signal.SIGKILL)

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

def test_two_nodes(two, tmp_path):
    "Two nodes of one process meet at an address, and get the number of one node of two"
    meet = [
        '--nnodes=2',
        '--nproc-per-node=1',
        '--rdzv-backend=c10d',
        f'--rdzv-endpoint=localhost:{free_port()}',
        '--rdzv-id=nodes',
        '--local-addr=localhost',
    ]
    nodes = [torchrun(*meet, work_dir=tmp_path/'run', opts=options()) for _ in range(2)]
    said = finish(*nodes)
    assert [p.returncode for p in nodes]==[0, 0], said
    assert val(tmp_path/'run')['accuracy_top-1']==val(two)['accuracy_top-1']
    assert equal(saved(tmp_path/'run/iter_20.pth')['state_dict'], saved(two/'iter_20.pth')['state_dict'])

def test_elastic_restart(two, tmp_path):
    "A process is killed; torchrun starts all again, and the run ends as if nothing had happened"
    opts = options(custom_hooks=[dict(type='Trouble', kind='die', once=str(tmp_path/'died'))])
    p = torchrun('--standalone', '--nproc-per-node=2', '--max-restarts=1', work_dir=tmp_path/'run', opts=opts)
    said, = finish(p)
    assert p.returncode==0 and (tmp_path/'died').exists() and 'Resumed from' in said, said[-3000:]
    assert equal(saved(tmp_path/'run/iter_20.pth')['state_dict'], saved(two/'iter_20.pth')['state_dict'])

# ---- Those that hang or die

def test_hang(tmp_path):
    "Ends within the stated time, and says who, at which step, and in which line"
    opts = options(custom_hooks=[dict(type='Trouble', kind='hang', once=str(tmp_path/'at'))])
    with pytest.raises(ClsnbError) as e:
        launch(train, 2, str(tmp_path/'run'), opts, timeout=12)
    took = time.time()-float((tmp_path/'at').read_text())
    said = str(e.value)
    for o in ('Process 1 of 2', 'iteration 11', 'before_train_iter', 'time.sleep', 'Waiting for it: 0'):
        assert o in said, said
    # the margin is for a busy machine
    assert took<12+20 and 'in before_train_iter' in (tmp_path/'run/stalled_1.txt').read_text(), took

def stuck(kind):
    "Without a run: an exchange that one process does not join"
    import torch.distributed as dist
    dist.barrier()
    if dist.get_rank()==1: time.sleep(10*limit)
    dist.barrier()

def test_function_that_hangs():
    with pytest.raises(ClsnbError) as e:
        launch(stuck, 2, 'x', timeout=5, grace=1.)
    assert (
        'Process 0 of 2' in str(e.value)
        and 'Process 1 did not end by itself; it was in test_distributed.py' in str(e.value)
        and 'stuck' in str(e.value)
    ), str(e.value)

# ---- Launchers

def rank_of(launcher): # a script
    return (
        "import sys, torch, torch.distributed as d\nfrom clsnb.core.dist import init_dist\nimport os\n"
        f"init_dist({launcher!r}, timeout={limit}); t = torch.tensor([d.get_rank()+1, "
        "int(sys.argv[1])]); d.all_reduce(t); d.barrier()\n"
        "print('ranks', d.get_rank(), d.get_world_size(), t.tolist(), os.environ['LOCAL_RANK'], "
        "os.environ['MASTER_PORT']); d.destroy_process_group()"
    )

def slurm_env(r, step):
    return dict(
        SLURM_PROCID=str(r), SLURM_NTASKS='2', SLURM_LOCALID=str(r), SLURM_JOB_ID='4711',
        SLURM_STEP_ID=str(step), SLURM_NODELIST='localhost', SLURM_STEP_NUM_NODES='1', RANK='7'
    )
def mpi_env(r):
    return dict(
        OMPI_COMM_WORLD_RANK=str(r),
        OMPI_COMM_WORLD_SIZE='2',
        OMPI_COMM_WORLD_LOCAL_RANK=str(r),
        OMPI_COMM_WORLD_LOCAL_SIZE='2',
    )
def pmi_env(r): return dict(PMI_RANK=str(r), PMI_SIZE='2', PMI_JOBID='kvs_17')

def test_launchers():
    "Four jobs of two processes at once on this machine: two steps of one Slurm job, and two MPIs"
    jobs = [
        ('slurm', lambda r: slurm_env(r, 0)),
        ('slurm', lambda r: slurm_env(r, 1)),
        ('mpi', mpi_env),
        ('mpi', pmi_env),
    ]
    procs = [
        subprocess.Popen(
            [sys.executable, '-c', rank_of(k), str(10**j)],
            env=env|f(r),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        for j,(k, f) in enumerate(jobs)
        for r in range(2)
    ]
    said = finish(*procs)
    lines = [
        next(
            (o.split(' ', 1)[1] for o in s.splitlines() if o.startswith('ranks')), s
        )
        for s in said
    ]
    for i,line in enumerate(lines):
        assert line.startswith(f'{i%2} 2 [3, {2*10**(i//2)}] {i%2} '), (i, line)
    ports = [line.split()[-1] for line in lines]
    assert ports[::2]==ports[1::2] and len(set(ports))==4

def test_what_launchers_say():
    assert (
        [first_host(o) for o in ('n1', 'n[01-3],m2', 'a,b', 'r[1-2]n[05,7]', 'x[3]-ib')]
        == ['n1', 'n01', 'a', 'r1n05', 'x3-ib']
    )
    out = launcher_env(
        'slurm',
        dict(
            SLURM_PROCID='5', SLURM_NTASKS='9', SLURM_STEP_NUM_TASKS='8', SLURM_LOCALID='1',
            SLURM_STEP_NODELIST='gpu[2-3]', SLURM_NODELIST='gpu[0-3]', SLURM_JOB_ID='3'
        ),
    )
    assert out==dict(
        RANK='5', WORLD_SIZE='8', LOCAL_RANK='1', MASTER_ADDR='gpu2', MASTER_PORT=str(job_port('3.0'))
    )
    assert 20000<=job_port('3.0')<32000
    kept = launcher_env('slurm', dict(slurm_env(0, 0), MASTER_PORT='29501', MASTER_ADDR='here'))
    assert (kept['MASTER_ADDR'], kept['MASTER_PORT'])==('here', '29501')
    assert launcher_env('slurm', slurm_env(0, 0), port=5)['MASTER_PORT']=='5'
    with pytest.raises(ConfigError, match='MASTER_ADDR'):
        launcher_env('mpi', mpi_env(0)|dict(OMPI_COMM_WORLD_LOCAL_SIZE='1'))
    with pytest.raises(ConfigError, match='mpirun'): launcher_env('mpi', {})

def test_a_port_that_is_taken():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        s.listen()
        r = subprocess.run(
            [
                sys.executable,
                '-c',
                "from clsnb.core.dist import init_dist\nfrom clsnb.core.errors import ConfigError\ntry: "
                "init_dist('slurm', timeout=20)\nexcept ConfigError as e: print(e)",
            ],
            env=env|slurm_env(0, 0)|dict(MASTER_PORT=str(s.getsockname()[1])),
            capture_output=True,
            text=True,
            timeout=limit,
        )
    assert 'another program has that port' in r.stdout and 'MASTER_PORT' in r.stdout, r.stdout+r.stderr

# ---- From a notebook

notebook = "import json, sys\nfrom clsnb.apis.launch import launch\nfrom test_distributed import *\n"

def test_interrupt(tmp_path):
    "Ctrl-C in the notebook: the step is finished, the run saved, and the facts come back"
    opts = options(
        evaluation=dict(interval=99),
        custom_hooks=[dict(type='Trouble', kind='tell', at=5, who=0, once=str(tmp_path/'told'))],
    )
    code = (
        notebook
        + f"print('facts', json.dumps(launch(train, 2, {str(tmp_path/'run')!r}, {opts!r}, timeout={limit})))"
    )
    p = subprocess.Popen(
        [sys.executable, '-c', code], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    said, = finish(p)
    assert p.returncode==0, said
    a,b = json.loads(next(o for o in said.splitlines() if o.startswith('facts'))[6:])
    assert (
        a['stop']==b['stop']=='SIGINT'
        and a['iter']==b['iter']
        and 5<a['iter']<20
        and (tmp_path/f"run/iter_{a['iter']}.pth").exists()
    ), said

def deaf(d):
    "Hears no interrupt"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Path(d, os.environ['RANK']).write_text(str(os.getpid()))
    time.sleep(10*limit)

def wait_for(f):
    end = time.monotonic()+limit
    while not (res := f()):
        assert time.monotonic()<end
        time.sleep(.05)
    return res

def alive(pid):
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]!='Z'
    except OSError: return False

@pytest.mark.skipif(not os.path.exists('/proc'), reason='no /proc')
@pytest.mark.parametrize('how', ['twice', 'killed'])
def test_nobody_stays_behind(how, tmp_path):
    "A second interrupt ends processes that hear none; so does the end of the notebook"
    p = subprocess.Popen(
        [sys.executable, '-c', notebook+f"launch(deaf, 2, {str(tmp_path)!r})"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        pids = wait_for(
            lambda: (
                len(o := [f.read_text() for f in tmp_path.glob('[01]') if f.read_text()])==2
                and list(map(int, o))
            )
        )
        if how=='killed':
            p.kill()
        else:
            p.send_signal(signal.SIGINT)
            time.sleep(1)
            assert p.poll() is None and all(map(alive, pids))
            p.send_signal(signal.SIGINT)
        finish(p)
        wait_for(lambda: not any(map(alive, pids)))
        assert p.returncode
    finally: p.kill()

# ---- Evaluation

def numbers(sizes):
    "Scores and metrics of a model over so many digits"
    from clsnb.core.dist import get_dist_info
    from clsnb.data.feed.loader import build_dataloader
    from clsnb.data.sets.packaged import Digits
    from clsnb.data.sets.wrappers import SubsetDataset
    from clsnb.train.evaluation import evaluate_scores, predict_loader
    steps = [
        dict(type='Normalize', mean=[128.], std=[64.], to_rgb=False),
        dict(type='ImageToTensor', keys=['img']),
        dict(type='ToTensor', keys=['gt_label']),
        dict(type='Collect', keys=['img', 'gt_label']),
    ]
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.f = torch.nn.Linear(64, 10)
        def forward(self, img, return_loss=False, **kw): # one by one: sums do not depend on the batch
            return [self.f(o.flatten()).softmax(0).numpy() for o in img]
    out = []
    for n in sizes:
        ds = SubsetDataset(Digits('val', steps, test_mode=True), list(range(n)))
        scores = predict_loader(
            Net(), build_dataloader(ds, 4, dist=get_dist_info()[1]>1, shuffle=False, round_up=False), 'cpu'
        )
        out.append((scores.tolist(), evaluate_scores(scores, ds, metric=['accuracy', 'f1_score'])))
    return out

def test_evaluation_at_any_number_of_processes():
    "Sizes that do not divide, and fewer samples than processes: the same numbers to the last bit"
    sizes = [13, 25, 2]
    one = numbers(sizes)
    for n in (2, 3):
        assert launch(numbers, n, sizes, timeout=limit)==[one]*n

# ---- What `launch` is given, and what comes back

def returns_a_lock(where):
    "Its result cannot be pickled"
    import threading
    from pathlib import Path
    Path(where, f"done{os.environ['RANK']}").touch()
    return threading.Lock()

def test_a_result_that_cannot_be_sent_is_none(tmp_path, capsys):
    assert launch(returns_a_lock, 2, str(tmp_path))==[None, None]
    assert (tmp_path/'done0').exists() and (tmp_path/'done1').exists()
    assert 'its result, a lock, cannot be sent' in capsys.readouterr().out

def test_fit_can_be_launched(tmp_path):
    opts = {'data.workers_per_gpu': 0, 'data.samples_per_gpu': 128, 'runner.max_epochs': 1, 'results': False}
    runs = launch(fit, 2, 'lenet5_1xb32_digits', tmp_path, opts, device='cpu', launcher='pytorch')
    assert all(run.latest for run in runs)

STOP_ONE = '''import os, signal
from clsnb.all import *
@HOOKS.register
class StopOne(Hook):
    def before_train_iter(self, run):
        if run.rank==1 and run.iter==3: os.kill(os.getpid(), signal.SIGSTOP)
'''

@pytest.mark.parametrize('how', ['config', 'words'])
def test_a_stopped_process_ends_the_run_within_the_timeout_of_its_config(how, tmp_path):
    "One process gets SIGSTOP; dist_params.timeout holds under launch and dist-train"
    (tmp_path/'stop_one.py').write_text(STOP_ONE)
    opts = {'data.workers_per_gpu': 0, 'runner.max_epochs': 9, 'results': False, 'dist_params': dict(timeout=10),
            'custom_imports': dict(imports=['stop_one']), 'custom_hooks': [dict(type='StopOne')]}
    sys.path.insert(0, str(tmp_path))
    start = time.time()
    try:
        with pytest.raises(ClsnbError, match='Process 1 of 2 does not respond'):
            if how=='config': launch('lenet5_1xb32_digits', 2, work_dir=tmp_path/'run', options=opts, device='cpu', trust=True)
            else:
                cfg = "_base_ = 'lenet5_1xb32_digits'\n" + '\n'.join(f"{k} = {v!r}" for k, v in opts.items() if '.' not in k)
                (tmp_path/'cfg.py').write_text(cfg + "\ndata = dict(workers_per_gpu=0)\n")
                launch(['train', str(tmp_path/'cfg.py'), f"--work-dir={tmp_path/'run'}", '--device=cpu', '--trust'], 2)
    finally: sys.path.remove(str(tmp_path))
    assert time.time()-start<60
