"A closed terminal saves like SIGTERM, exit statuses name the signal, and nothing half written stays behind"
import os, signal, subprocess, sys, time
from pathlib import Path

import pytest

from clsnb.apis.fit import fit
from clsnb.verbs.training import show_demo
from clsnb.demo import result_line

ENV = dict(os.environ, OMP_NUM_THREADS='1', MPLBACKEND='agg')
LONG = ['train', 'lenet5_1xb32_digits', '--device', 'cpu', '--cfg-options', 'runner.max_epochs=500', 'results=False',
        'data.workers_per_gpu=1', 'checkpoint_config.interval=500']

def started(words, work_dir, **options):
    "A command that is under way: its first steps are made"
    process = subprocess.Popen(
        [sys.executable, '-m', 'clsnb', *words], env=ENV, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    end = time.time()+120
    while time.time()<end and process.poll() is None:
        if any('loss' in path.read_text() for path in Path(work_dir).rglob('*.log.json')): return process
        time.sleep(.2)
    process.kill()
    raise AssertionError(process.communicate()[0][-2000:])

@pytest.mark.parametrize('name', ['SIGHUP', 'SIGTERM'])
def test_a_signal_saves_the_run(name, tmp_path):
    process = started([*LONG, '--work-dir', str(tmp_path)], tmp_path)
    process.send_signal(getattr(signal, name))
    said = process.communicate(timeout=90)[0]
    assert process.returncode==128+getattr(signal, name), said
    assert list(tmp_path.glob('iter_*.pth')) and f'Stopped by {name}' in said

def test_a_run_under_nohup_goes_on(tmp_path):
    ignore = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
    process = started([*LONG, '--work-dir', str(tmp_path)], tmp_path, preexec_fn=ignore)
    process.send_signal(signal.SIGHUP)
    time.sleep(3)
    assert process.poll() is None
    process.terminate()
    process.communicate(timeout=90)
    assert process.returncode==143

def test_a_demo_that_is_stopped_says_so(tmp_path):
    process = started(['demo', '--epochs', '500', '--work-dir', str(tmp_path)], tmp_path)
    process.terminate()
    said = process.communicate(timeout=90)[0]
    assert process.returncode==143 and 'scratch: stopped by SIGTERM, not finished' in said, said
    assert not (tmp_path/'pretrained').exists()

def test_the_status_of_a_demo():
    assert show_demo(dict(scratch=dict(stopped='SIGINT', work_dir='x'))).status==130
    assert show_demo(dict(scratch=dict(accuracy=50.))).status==0
    assert 'not finished' in result_line('scratch', dict(stopped='SIGINT', work_dir='x'))

def test_unfinished_files_of_dead_runs_go(tmp_path):
    names = ['.iter_14.pth.x5jt9kl8', '.latest.pth', '.progress.json.new', '.epoch_1.pth.sha256.abcd1234']
    kept = ['.notes', '.my.pth', 'old.pth']
    for name in names+kept: (tmp_path/name).write_text('half')
    options = {'data.workers_per_gpu': 0, 'data.samples_per_gpu': 256, 'runner.max_epochs': 1, 'results': False}
    fit('lenet5_1xb32_digits', tmp_path, options | {'log_level': 'ERROR'})
    assert not any((tmp_path/name).exists() for name in names)
    assert all((tmp_path/name).exists() for name in kept)
