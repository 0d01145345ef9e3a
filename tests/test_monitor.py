"A run that is stopped, continued and watched from outside its process"
import json, os, socket, subprocess, sys, threading, time
from pathlib import Path

import pytest

from clsnb.analysis.run_curves import plot_training
from clsnb.apis.continue_run import continue_in_background, continue_run
from clsnb.cli import main
from clsnb.core.errors import ConfigError, DataError
from clsnb.core.work_dir import WorkFiles
from clsnb.runs.folder import Run
from clsnb.runs.stop import request_stop
from clsnb.runs.watched import WatchedRun, run_folder, watch_runs
from clsnb.train.progress import process_born
from clsnb.widgets.explore import explore
from clsnb.widgets.monitor import TrainingMonitor

ENV = dict(os.environ, OMP_NUM_THREADS='1', MPLBACKEND='agg')
OPTIONS = [
    'runner.max_epochs=400', 'results=False', 'data.workers_per_gpu=0', 'checkpoint_config.interval=400',
    'evaluation.interval=2', 'log_config.interval=2',
]
LONG = ['train', 'lenet5_1xb32_digits', '--device', 'cpu', '--cfg-options', *OPTIONS]
START = [sys.executable, '-m', 'clsnb', *LONG]

def start(words, work_dir):
    "A training run of another process that has made its first steps"
    process = subprocess.Popen(words, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    end = time.time()+120
    while time.time()<end and process.poll() is None:
        if any('loss' in path.read_text() for path in Path(work_dir).glob('*.log.json')): return process
        time.sleep(.2)
    process.kill()
    raise AssertionError(process.communicate()[0][-2000:])

def start_long(work_dir): return start([*START, '--work-dir', str(work_dir)], work_dir)

def leave(folder, **changes):
    "The `progress.json` of a run that this process seems to train"
    facts = dict(
        state='running', by_epoch=True, epoch=3, epochs_done=2, max_epochs=9, iter=24, max_iters=90, lr=.01, left=120,
        written=time.time(), host=socket.gethostname(), pid=os.getpid(), born=process_born(os.getpid()),
    )
    (Path(folder)/WorkFiles.progress).write_text(json.dumps(facts | changes))

def status_of(*words):
    "Exit status of a command line"
    try: main([str(word) for word in words])
    except SystemExit as e: return e.code
    return 0

# ---- Stop

def test_stop_a_run_of_another_process(tmp_path, capsys):
    process = start_long(tmp_path)
    assert status_of('stop', tmp_path, '--json')==0
    record = json.loads(capsys.readouterr().out)
    said = process.communicate(timeout=60)[0]
    assert (record['state'], process.returncode)==('interrupted', 130), said
    assert f"Stopped by request after {record['iteration']} iterations" in said
    assert Path(record['checkpoint']).name==f"iter_{record['iteration']}.pth" and Path(record['checkpoint']).is_file()
    assert not (tmp_path/WorkFiles.stop_request).exists()

def test_stop_a_run_of_two_processes(tmp_path):
    words = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2', '-m', 'clsnb']
    process = start([*words, *LONG, 'data.samples_per_gpu=16', '--launcher', 'pytorch', '--work-dir', str(tmp_path)], tmp_path)
    facts = request_stop(tmp_path)
    said = process.communicate(timeout=60)[0]
    assert (facts['state'], facts['world_size'])==('interrupted', 2), said
    assert said.count('Stopped by request')==1 and (tmp_path/f"iter_{facts['iter']}.pth").is_file()

def test_an_old_request_stops_no_new_run(tmp_path):
    from clsnb.apis.fit import fit
    (tmp_path/WorkFiles.stop_request).write_text('{"pid": 1')
    options = {'data.workers_per_gpu': 0, 'data.samples_per_gpu': 64, 'runner.max_epochs': 2, 'results': False}
    run = fit('lenet5_1xb32_digits', tmp_path, options | {'log_level': 'ERROR'}, device='cpu')
    assert run.progress['state']=='finished' and not (tmp_path/WorkFiles.stop_request).exists()

def test_nobody_to_stop(tmp_path, capsys):
    with pytest.raises(DataError, match='no such folder'): request_stop(tmp_path/'nowhere')
    with pytest.raises(DataError, match='no run has begun'): request_stop(tmp_path)
    (tmp_path/WorkFiles.progress).write_text('{"state": "runn')
    with pytest.raises(DataError, match='no run has begun'): request_stop(tmp_path)
    leave(tmp_path, state='finished', epochs_done=9)
    with pytest.raises(DataError, match='finished after 9 epochs'): request_stop(Run(tmp_path))
    leave(tmp_path, born='1')
    assert status_of('stop', tmp_path)==2
    assert 'died after 24 iterations' in capsys.readouterr().err
    assert not (tmp_path/WorkFiles.stop_request).exists()

def test_a_run_that_does_not_answer(tmp_path, capsys):
    leave(tmp_path)
    assert status_of('stop', tmp_path, '--wait', .2)==1
    assert 'has not answered yet' in capsys.readouterr().out
    assert (tmp_path/WorkFiles.stop_request).is_file()

# ---- Continue

def wait_until(condition, seconds=90.):
    end = time.time()+seconds
    while not condition():
        assert time.time()<end, 'it did not happen in time'
        time.sleep(.1)

def test_a_killed_run_continues_in_the_background(tmp_path):
    process = start([*START, 'checkpoint_config.interval=1', '--work-dir', str(tmp_path)], tmp_path)
    wait_until(lambda: Run(tmp_path).latest)
    process.kill()
    process.communicate()
    assert Run(tmp_path).progress['state']=='died'
    done = int(Run(tmp_path).latest.stem.split('_')[1])
    child = continue_in_background(tmp_path)
    wait_until(lambda: (Run(tmp_path).progress or {}).get('state')=='running' or child.poll() is not None)
    with pytest.raises(DataError, match='is training'): continue_run(tmp_path)
    wait_until(lambda: Run(tmp_path).progress['epochs_done']>done)
    facts = request_stop(tmp_path)
    assert (child.wait(60), facts['state'], facts['device'])==(130, 'interrupted', 'cpu')
    assert f'epoch_{done}.pth' in (tmp_path/WorkFiles.continued).read_text()
    log = Run(tmp_path).log
    assert not log[log['mode']=='train'].duplicated(['epoch', 'iter']).any()

def test_nothing_to_continue(tmp_path, capsys):
    with pytest.raises(DataError, match='no such folder'): continue_run(tmp_path/'nowhere')
    with pytest.raises(DataError, match='no config'): continue_in_background(tmp_path)
    (tmp_path/'mine.py').write_text("model = dict(type='ImageClassifier')")
    leave(tmp_path, state='failed', why='ValueError: no')
    with pytest.raises(DataError, match='no usable checkpoint'): continue_run(tmp_path)
    leave(tmp_path, state='finished', epochs_done=9)
    assert status_of('continue', tmp_path)==2
    assert 'nothing to continue; this run finished after 9 epochs' in capsys.readouterr().err
    leave(tmp_path, state='stopped', epochs_done=4, why='accuracy has not improved for 3 evaluations')
    with pytest.raises(DataError, match='not improved for 3'): continue_run(tmp_path)

def test_a_run_of_two_processes_continues_in_two(tmp_path):
    words = [*START, 'data.samples_per_gpu=16', 'checkpoint_config.interval=1', '--work-dir', str(tmp_path)]
    process = start(words, tmp_path)
    request_stop(tmp_path)
    process.communicate(timeout=60)
    child = continue_in_background(tmp_path, nprocs=2)
    wait_until(lambda: Run(tmp_path).progress.get('world_size')==2 or child.poll() is not None)
    assert request_stop(tmp_path)['state']=='interrupted'
    assert child.wait(60)==130, (tmp_path/WorkFiles.continued).read_text()

# ---- Watch

def leave_log(folder, epochs=3, steps=8, **last):
    "A log of training and evaluation"
    lines = [dict(mode='train', epoch=e, iter=i, loss=1/(e+i), lr=.1/e, time=.2, data_time=.05)
             for e in range(1, epochs+1) for i in range(1, steps+1)]
    lines += [dict(mode='val', epoch=e, iter=4, accuracy=10.*min(e, 2), loss=1/e) for e in range(1, epochs+1)]
    lines.sort(key=lambda o: (o['epoch'], o['mode']=='val'))
    file = Path(folder)/'20260101_000000.log.json'
    file.write_text('\n'.join(map(json.dumps, lines))+'\n')
    return file

def test_a_row_for_each_run(tmp_path):
    for name in 'ab':
        (tmp_path/name).mkdir()
        leave_log(tmp_path/name)
    leave(tmp_path/'a', wait=.25, speed=120.)
    rows = watch_runs([tmp_path/'a', Run(tmp_path/'b'), tmp_path/'c'])
    assert list(rows.index)==['a', 'b', 'c'] and list(rows.state)==['running', 'unknown', 'waiting']
    assert rows.loc['a', ['data_wait', 'images_per_second', 'seconds_left']].tolist()==[.25, 120., 120]
    assert rows.loc['b', ['metric', 'best', 'best_at']].tolist()==['accuracy', 20., 3] # of equal ones the lower loss
    assert rows.loc['c', 'problems']=='there is no such folder yet'

def test_the_status_of_runs(tmp_path, capsys):
    leave_log(tmp_path)
    leave(tmp_path)
    assert status_of('status', tmp_path, tmp_path/'nowhere')==0
    mine, other = capsys.readouterr().out.splitlines()
    assert mine.endswith(': running, iteration 24 of 90, best accuracy 20 at 3, 2 min left')
    assert other=='nowhere: waiting, there is no such folder yet'
    assert status_of('status', tmp_path, '--json')==0
    row, = json.loads(capsys.readouterr().out)['runs']
    assert (row['state'], row['best'], row['loss'])==('running', 20., None)

@pytest.mark.parametrize('damage, problem', [
    (b'{"mode": "train", "ep', 'the log ends in half a line'),
    (b'\x00\xff\n{"mode": 3}\n', '2 damaged lines of the log left out'),
])
def test_a_damaged_log_is_named(damage, problem, tmp_path):
    file = leave_log(tmp_path)
    watched = WatchedRun(tmp_path)
    watched.read()
    rows = len(watched.table)
    with open(file, 'ab') as opened: opened.write(damage)
    assert watched.read() and watched.problems==[problem] and len(watched.table)==rows
    (tmp_path/WorkFiles.progress).write_text('{')
    assert watched.read() and watched.problems==[problem, 'progress.json is damaged']
    file.write_bytes(b'')
    (tmp_path/WorkFiles.progress).unlink()
    watched.read()
    assert watched.problems==[] and not watched.read()

def test_a_log_that_vanishes(tmp_path):
    file = leave_log(tmp_path)
    watched = WatchedRun(file)
    assert watched.read() and len(watched.table)
    file.unlink()
    watched.read()
    assert 'cannot be read' in watched.problems[0]
    leave_log(tmp_path, epochs=1)
    assert watched.read() and watched.problems==[] and watched.table.epoch.max()==1

def test_what_is_no_run(tmp_path, monkeypatch):
    for wrong in (3, None, [None], []):
        with pytest.raises(DataError): watch_runs(wrong)
    with pytest.raises(ConfigError, match="Did you mean 'loss'"): plot_training(tmp_path, ['los'])
    with pytest.raises(ConfigError, match='smooth'): plot_training(tmp_path, smooth=-1)
    monkeypatch.chdir(tmp_path)
    Path('work_dirs/mine').mkdir(parents=True)
    (tmp_path/'mine.py').write_text('a = 1')
    assert {run_folder('mine'), run_folder('mine.py'), run_folder(Path('work_dirs/mine'))}=={Path('work_dirs/mine')}

def test_a_figure_of_runs_in_any_state(tmp_path):
    (tmp_path/'a').mkdir()
    leave_log(tmp_path/'a')
    axes = plot_training([tmp_path/'a', tmp_path/'nowhere'], smooth=3).axes
    assert [ax.get_title(loc='left') for ax in axes][:2]==['Loss', 'accuracy']
    assert len(axes[0].lines)==3 and len(axes[2].lines)==1 and not axes[5].lines # values behind the smoothed loss

# ---- The monitor

def open_monitor(runs, **options): return TrainingMonitor(runs, live=False, **options)

def test_buttons_follow_the_state(tmp_path):
    leave_log(tmp_path)
    monitor = open_monitor(tmp_path)
    enabled = {}
    for state in ('running', 'interrupted', 'finished', 'failed', 'died'):
        leave(tmp_path, state=state.replace('died', 'running'), born='1' if state=='died' else process_born(os.getpid()))
        monitor.look()
        enabled[state] = not monitor.stop_button.disabled, not monitor.continue_button.disabled
        assert state in monitor.cards.value or state=='running'
    stops, continues = (True, False), (False, True)
    assert enabled==dict(running=stops, interrupted=continues, finished=(False, False), failed=continues, died=continues)
    assert not monitor.errors
    monitor.close()

def test_a_click_asks_the_run_to_stop(tmp_path):
    leave_log(tmp_path)
    leave(tmp_path)
    monitor = open_monitor(tmp_path)
    monitor.stop_button.click()
    assert (tmp_path/WorkFiles.stop_request).is_file() and monitor.stop_button.disabled
    assert 'asked to stop after this step' in monitor.cards.value
    leave(tmp_path, state='interrupted', why='request')
    monitor.look()
    assert 'asked to stop' not in monitor.cards.value and not monitor.continue_button.disabled
    monitor.continue_button.click() # there is no checkpoint
    assert 'no config' in str(monitor.errors[-1]) and 'no config' in monitor._status.value
    monitor.close()

def test_a_process_that_cannot_continue_is_named(tmp_path):
    from clsnb.apis.fit import fit
    options = {'data.workers_per_gpu': 0, 'data.samples_per_gpu': 256, 'runner.max_epochs': 1, 'results': False}
    run = fit('lenet5_1xb32_digits', tmp_path, options | {'log_level': 'ERROR'}, device='cpu')
    text = run.config_file.read_text()
    leave(tmp_path, state='interrupted', why='request')
    monitor = open_monitor(tmp_path)
    run.config_file.write_text(text.replace('LeNet5', 'LeNet6'))
    monitor.continue_button.click()
    assert 'a new process is starting' in monitor.cards.value and monitor.continue_button.disabled, monitor.errors
    monitor.chosen.process.wait(60)
    monitor.look()
    assert 'LeNet6' in monitor.cards.value and not monitor.continue_button.disabled and not monitor.errors
    monitor.close()

def test_the_monitor_of_odd_places(tmp_path):
    monitor = open_monitor([tmp_path/'nowhere', tmp_path], run=tmp_path.name)
    assert 'no such folder yet' in monitor.cards.value and 'waiting for a run' in repr(monitor) and not monitor.errors
    monitor.stop_button.click()
    assert 'no run has begun' in str(monitor.errors[-1])
    monitor.panel, monitor.log_scale, monitor.smoothing = 'memory', True, 30
    assert len(monitor.errors)==1 and monitor.snapshot().jpeg
    monitor.close()
    with pytest.raises(DataError): TrainingMonitor(3)
    assert type(explore(Run(tmp_path))) is TrainingMonitor
    assert TrainingMonitor.accepts(Run(tmp_path)) and not TrainingMonitor.accepts(tmp_path)

def test_a_monitor_looks_at_most_twice_a_second(tmp_path):
    leave_log(tmp_path)
    leave(tmp_path)
    monitor = TrainingMonitor(tmp_path, every=.01, live=True)
    drawn, end, i = monitor.drawn, time.time()+2.2, 0
    while time.time()<end:
        i += 1
        leave(tmp_path, iter=24+i)
        time.sleep(.02)
    assert 1<=monitor.drawn-drawn<=5
    monitor.close()
    drawn = monitor.drawn
    leave(tmp_path, iter=1)
    time.sleep(.8)
    assert monitor.drawn==drawn

def test_monitors_leave_nothing_behind(tmp_path):
    import gc, weakref
    from ipywidgets.widgets.widget import _instances
    leave_log(tmp_path)
    count, threads, dead = len(_instances), threading.active_count(), []
    for i in range(100):
        monitor = TrainingMonitor(tmp_path, live=i<3)
        dead.append(weakref.ref(monitor))
        monitor.close()
    del monitor
    gc.collect()
    wait_until(lambda: threading.active_count()<=threads, 5)
    gc.collect()
    assert len(_instances)==count and not any(ref() for ref in dead)

def test_the_monitor_of_a_real_run_stops_and_continues_it(tmp_path):
    process = start([*START, 'checkpoint_config.interval=1', '--work-dir', str(tmp_path)], tmp_path)
    monitor = open_monitor(tmp_path, smoothing=5)
    monitor.stop_button.click()
    def looked(state): return monitor.look() or monitor.runs[0].state==state
    wait_until(lambda: looked('interrupted'))
    assert process.wait(60)==130
    rows = len(monitor.runs[0].table)
    monitor.continue_button.click()
    wait_until(lambda: looked('running'))
    monitor.stop_button.click()
    wait_until(lambda: looked('interrupted'))
    assert monitor.chosen.process.wait(60)==130 and len(monitor.runs[0].table)>rows and not monitor.errors
    monitor.close()
