"The monitor in a live JupyterLab: it follows a log, and its buttons and curves work by mouse and key"
import json, os, socket, time

import pytest

from clsnb.core.work_dir import WorkFiles

pytestmark = pytest.mark.browser
DRAWN = '.jp-OutputArea .cvs[data-draws]'

def shoot(nb, name):
    if folder := os.environ.get('CLSNB_SHOTS'): nb.page.screenshot(path=f'{folder}/{name}.png')

class WrittenRun:
    "A run of the notebook's process, as far as its work folder says"
    def __init__(self, nb, folder):
        folder.mkdir()
        self.folder, self.steps = folder, 0
        code = 'import os\nfrom clsnb.train.progress import process_born\nprint(os.getpid(), process_born(os.getpid()))'
        self.pid, self.born = nb.py(code).split()
    def train(self, steps):
        "Write lines of training, ten to an epoch, and an evaluation after each epoch"
        lines = []
        for i in range(self.steps+1, self.steps+steps+1):
            epoch, inner = divmod(i-1, 10)
            at = dict(epoch=epoch+1, iter=inner+1)
            speed = dict(lr=.1/(1+epoch), time=.2, data_time=.02)
            lines.append(dict(mode='train', loss=2/(1+i/20)+.2*(i%3)) | at | speed)
            if inner==9: lines.append(dict(mode='val', accuracy=90-60/(epoch+1), loss=2/(1+i/18)) | at)
        with open(self.folder/'20260101_000000.log.json', 'a') as log: log.write('\n'.join(map(json.dumps, lines))+'\n')
        self.steps += steps
        self.leave()
    def leave(self, **changes):
        epoch = self.steps//10
        facts = dict(
            state='running', by_epoch=True, epoch=epoch+1, epochs_done=epoch, max_epochs=30, iter=self.steps,
            max_iters=300,
            lr=.01, loss=.4, wait=.1, speed=812., memory=1.4, left=600-self.steps, written=time.time(),
            pid=int(self.pid), born=self.born, host=socket.gethostname(),
            losses=[2/(1+i/20) for i in range(self.steps)],
        )
        new = self.folder/'new'
        new.write_text(json.dumps(facts | changes))
        os.replace(new, self.folder/WorkFiles.progress)

@pytest.fixture
def run(nb, tmp_path):
    run = WrittenRun(nb, tmp_path/'photos')
    run.train(40)
    return run

def open_monitor(nb, *runs, options='', ready=DRAWN):
    names = [str(run.folder) for run in runs]
    nb.run(f"from clsnb.all import TrainingMonitor\nw = TrainingMonitor({names!r}, every=.5{options})\nw", ready)

def test_curves_grow_with_the_log(nb, run):
    open_monitor(nb, run)
    nb.text('.clsnb-status', 'epoch 5 of 30')
    nb.page.wait_for_function("() => document.querySelectorAll('.cvs').length === 6")
    run.train(20)
    nb.text('.clsnb-status', 'epoch 7 of 30')
    nb.text('.clsnb-cards', r'best accuracy 80 at 6')
    nb.text('.clsnb-cards', r'9:00 left')
    box = nb.page.locator('.cvs-stage').first.bounding_box()
    nb.page.mouse.move(box['x']+box['width']-14, box['y']+80)
    nb.text('.cvs-note', r'epoch 6: train 0\.\d+, val 0\.\d+')
    shoot(nb, 'monitor-light')
    run.leave(state='finished', epochs_done=6)
    nb.text('.clsnb-status', 'finished after 6 epochs')
    nb.py("assert not w.errors, w.errors")

def test_zoom_stays_while_the_log_grows(nb, run):
    open_monitor(nb, run)
    stage = nb.page.locator('.cvs-stage').first
    stage.focus()
    for _ in range(3): nb.page.keyboard.press('+')
    def read(end):
        box = stage.bounding_box()
        nb.page.mouse.move(box['x']+(66 if end==0 else box['width']-14), box['y']+60)
        nb.page.wait_for_timeout(100)
        return nb.page.locator('.cvs-note').first.text_content().split(':')[0]
    before = read(0), read(1)
    run.train(30)
    nb.text('.clsnb-status', 'epoch 8 of 30')
    nb.page.wait_for_timeout(100)
    nb.page.mouse.move(0, 0)
    assert (read(0), read(1))==before!=('epoch 0.1', 'epoch 4')

def test_stop_by_mouse_and_continue_by_key(nb, run):
    open_monitor(nb, run)
    assert nb.page.locator('.clsnb-continue').is_disabled()
    nb.page.locator('.clsnb-stop').click()
    nb.text('.clsnb-cards', 'asked to stop after this step')
    assert (run.folder/WorkFiles.stop_request).is_file() and nb.page.locator('.clsnb-stop').is_disabled()
    run.leave(state='interrupted', why='request')
    nb.text('.clsnb-status', 'interrupted after 40 iterations: request')
    nb.page.locator('.clsnb-continue:not([disabled])').focus()
    nb.page.keyboard.press('Enter')
    nb.text('.clsnb-status', r'⚠ DataError: .*there is no config of a run in this folder')
    nb.py("assert len(w.errors)==1")

def test_several_runs_panels_and_smoothing(nb, run, tmp_path):
    other = WrittenRun(nb, tmp_path/'longer')
    other.train(60)
    open_monitor(nb, run, other)
    nb.text('.clsnb-cards', r'photos(.|\n)*longer')
    nb.page.locator('.clsnb-panel select').select_option('loss')
    nb.page.wait_for_function("() => [...document.querySelectorAll('.cvs')].filter(o => o.offsetWidth).length === 1")
    nb.slide('.clsnb-smoothing', 8)
    nb.text('.cvs-legend', r'photos train.*photos val.*longer train.*longer val')
    nb.py("assert w.smoothing==8 and len(w.lines['loss'].lines)==6 and not w.errors, w.errors")
    nb.page.locator('.clsnb-run select').select_option('longer')
    nb.page.locator('.clsnb-stop').click()
    nb.text('.clsnb-cards', 'longer.*asked to stop')
    assert not (run.folder/WorkFiles.stop_request).exists()
    shoot(nb, 'monitor-two-runs')

def test_narrow_dark_and_without_canvas(nb, run):
    change = "name => jupyterapp.commands.execute('apputils:change-theme', {theme: name})"
    def theme(name): nb.page.evaluate(change, name)
    try:
        theme('JupyterLab Dark')
        nb.page.set_viewport_size(dict(width=480, height=900))
        nb.page.evaluate("jupyterapp.shell.collapseLeft()")
        open_monitor(nb, run)
        nb.text('.clsnb-cards', 'images/s')
        shoot(nb, 'monitor-dark-480')
        wide = "() => [...document.querySelectorAll('.clsnb-explorer')].every(o => o.scrollWidth <= o.clientWidth+1)"
        assert nb.page.evaluate(wide)
        nb.py("from clsnb.widgets.canvas import use_canvas\nuse_canvas(False)")
        open_monitor(nb, run, options=", panel='loss', smoothing=5", ready='.clsnb-picture img')
        nb.page.wait_for_function("() => document.querySelector('.clsnb-picture img').naturalWidth > 200")
        assert not nb.page.locator('.cvs').count()
    finally:
        nb.py("from clsnb.widgets.canvas import use_canvas\nuse_canvas(None)")
        nb.page.set_viewport_size(dict(width=1280, height=900))
        nb.page.evaluate("jupyterapp.shell.expandLeft()")
        theme('JupyterLab Light')
