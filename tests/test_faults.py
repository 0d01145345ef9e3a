"Full disks, two runs in one folder, a folder that disappears, and processes that are killed"
import errno, json, os, socket, subprocess, sys, time
from pathlib import Path
import pytest
from clsnb.apis.fit import fit
from clsnb.cli import main
from clsnb.core.errors import ConfigError
from clsnb.core.io import atomic_write
from clsnb.runs.lock import HeldFile
from clsnb.train.progress import write_progress

TINY = 'resnet18-tiny_1xb16_photos'
quick = ['data.workers_per_gpu=0', 'results=False', 'log_config.interval=1']

def command(work, *words, epochs=1):
    "The words of a training run in another process"
    options = [*quick, f'runner.max_epochs={epochs}']
    return [sys.executable, '-m', 'clsnb', 'train', TINY, '--work-dir', str(work), *words, '--cfg-options', *options]

def start(work, *words, **kwargs):
    return subprocess.Popen(
        command(work, *words, **kwargs), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=dict(os.environ, OMP_NUM_THREADS='1'),
    )

def wait_for(what, seconds=60):
    end = time.time()+seconds
    while time.time()<end:
        if found := what(): return found
        time.sleep(.1)
    pytest.fail('waited in vain')

# ---- Two runs in one folder

def test_a_second_run_is_refused_and_a_killed_one_resumes_at_once(tmp_path, capsys):
    first = start(tmp_path, epochs=200)
    try:
        wait_for(lambda: list(tmp_path.glob('epoch_*.pth')))
        with pytest.raises(SystemExit) as e: main(command(tmp_path)[3:])
        err = capsys.readouterr().err
        assert e.value.code==2 and f'a run (pid {first.pid}, host {socket.gethostname()}) is training' in err
        assert len(list(tmp_path.glob('*.log.json')))==1
    finally:
        first.kill()
        first.communicate()
    second = start(tmp_path, '--resume-from', 'auto', epochs=1)
    out = second.communicate(timeout=120)[0]
    assert second.returncode==0 and 'Traceback' not in out, out[-2000:]
    assert not (tmp_path/'.running.json').exists()

def test_runs_one_after_the_other_in_one_process(tmp_path):
    options = {'data.workers_per_gpu': 0, 'runner.max_epochs': 1, 'results': False}
    for _ in range(2): fit(TINY, tmp_path, options)
    assert not (tmp_path/'.running.json').exists()

def test_a_damaged_lock_is_no_lock(tmp_path):
    for text in (b'', b'\xff\0', b'[]', b'{"pid": "x"}', json.dumps(dict(pid=os.getpid(), host='x')).encode()):
        file = HeldFile(tmp_path/'lock')
        file.path.write_bytes(text)
        assert file.hold() and file.holder()['pid']==os.getpid()
        file.release()

def test_a_run_on_another_machine(tmp_path):
    facts = dict(state='running', by_epoch=True, epoch=1, epochs_done=0, max_epochs=2, iter=3, max_iters=8, host='gpu-07')
    write_progress(tmp_path/'progress.json', facts)
    beat = subprocess.Popen([sys.executable, '-c', (
        'import sys, time; from pathlib import Path; from clsnb.train.progress import write_progress\n'
        f'while True: write_progress(Path(sys.argv[1]), {facts}); time.sleep(.5)'
    ), str(tmp_path/'progress.json')])
    from clsnb.runs.lock import work_dir_held
    try:
        with pytest.raises(ConfigError, match='host gpu-07'), work_dir_held(tmp_path, 60.): pass
    finally:
        beat.kill()
        beat.wait()
    with work_dir_held(tmp_path, 2.) as held: assert held.path.exists()  # it writes no more

# ---- A full disk

def full_disk(*names):
    "Files whose name contains one of these cannot be written beyond their first bytes"
    class Full:
        def __init__(self, file): self.file = file
        def __getattr__(self, name): return getattr(self.file, name)
        def __enter__(self): return self
        def __exit__(self, *error): self.file.close()
        def write(self, data): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    real = os.fdopen
    def fdopen(number, *args, **kwargs):
        file = real(number, *args, **kwargs)
        return Full(file) if any(o in os.readlink(f'/proc/self/fd/{number}') for o in names) else file
    return fdopen

@pytest.mark.skipif(sys.platform!='linux', reason='reads /proc')
def test_a_run_that_saves_nothing_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, 'fdopen', full_disk('.pth'))
    with pytest.raises(SystemExit) as e: main(command(tmp_path)[3:])
    out = capsys.readouterr().out
    assert e.value.code==1 and not list(tmp_path.glob('*.pth'))
    assert 'the disk is full' in out and 'There is no earlier one' in out
    assert 'epoch_1.pth, the last checkpoint of this run, could not be written' in out and 'enforce fail' not in out
    assert not list(tmp_path.glob('.*'))

@pytest.mark.skipif(sys.platform!='linux', reason='reads /proc')
def test_a_disk_that_is_full_from_the_start(tmp_path, monkeypatch, capsys):
    def full(self, *args, **kwargs): raise OSError(errno.ENOSPC, 'No space left on device', str(self))
    monkeypatch.setattr(Path, 'write_text', full)
    with pytest.raises(SystemExit) as e: main(command(tmp_path)[3:])
    err = capsys.readouterr().err
    assert e.value.code==2 and err.endswith('the disk is full\n') and err.count('\n')==1

def test_limits_of_file_size(tmp_path):
    "The system's own refusal, in a process that may write 40 kB into a file"
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000)); from clsnb.cli import main; "
    p = subprocess.run(
        [sys.executable, '-c', limit+f"main({command(tmp_path)[3:]})"], capture_output=True, text=True, timeout=200
    )
    assert p.returncode==1 and 'Traceback' not in p.stderr+p.stdout, p.stderr[-2000:]
    assert 'could not be written' in p.stdout and not list(tmp_path.glob('.*'))

def test_progress_leaves_no_half_file(tmp_path, monkeypatch):
    def full(self, text): raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(Path, 'write_text', full)
    with pytest.raises(OSError): write_progress(tmp_path/'progress.json', dict(state='running'))
    assert not list(tmp_path.iterdir())

def test_devices_are_written_and_not_replaced(tmp_path):
    os.mkfifo(tmp_path/'pipe')
    reader = os.open(tmp_path/'pipe', os.O_RDONLY | os.O_NONBLOCK)
    with atomic_write(tmp_path/'pipe') as f: f.write(b'abc')
    assert os.read(reader, 10)==b'abc' and (tmp_path/'pipe').is_fifo()
    os.close(reader)

# ---- A folder that disappears

def test_a_work_folder_that_is_deleted_is_told(tmp_path):
    work = tmp_path/'work'
    run = start(work, epochs=30)
    wait_for(lambda: list(work.glob('epoch_*.pth')))
    os.rename(work, tmp_path/'moved')
    out = run.communicate(timeout=200)[0]
    assert run.returncode==1 and 'was deleted or moved during the run' in out, out[-2000:]
    assert 'Traceback' not in out, out[-3000:]

# ---- Killed processes

orphan = '''
import multiprocessing, os, signal, sys
from clsnb.data.feed.workers import start_worker
def work(alive):
    start_worker(0)
    if not alive: os.kill(os.getppid(), signal.SIGKILL)
    try: raise ConnectionResetError('the other end is gone')
    except ConnectionResetError: sys.excepthook(*sys.exc_info())
p = multiprocessing.get_context('fork').Process(target=work, args=(len(sys.argv)>1,))
p.start()
p.join()
'''

@pytest.mark.parametrize('words', [[], ['alive']])
def test_an_orphan_is_quiet_and_others_are_not(words):
    p = subprocess.run([sys.executable, '-c', orphan, *words], stderr=subprocess.PIPE, text=True, timeout=100)
    assert ('ConnectionResetError' in p.stderr)==bool(words), p.stderr

def test_workers_of_a_killed_run_end_quietly(tmp_path):
    words = command(tmp_path, epochs=200)
    words[words.index('data.workers_per_gpu=0')] = 'data.workers_per_gpu=2'
    with open(tmp_path/'out', 'w') as out:
        run = subprocess.Popen(words, stdout=out, stderr=out, start_new_session=True)
        wait_for(lambda: list(tmp_path.glob('epoch_*.pth')))
        workers = Path(f'/proc/{run.pid}/task/{run.pid}/children').read_text().split()
        run.kill()
        run.wait()
    assert len(workers)>=2
    wait_for(lambda: not any(Path('/proc', pid).exists() for pid in workers), 30)
    said = (tmp_path/'out').read_text()
    assert 'Traceback' not in said and 'Error' not in said, said[-2000:]
