"What is no number ends a run, is never saved, never the best, and never a class"
import json, logging, math
from pathlib import Path
from types import SimpleNamespace

import pytest, torch

from clsnb.apis.fit import fit
from clsnb.core.errors import CheckpointError, ClsnbError, ConfigError
from clsnb.core.registry import LOSSES
from clsnb.train.checkpoint_hook import latest_checkpoint
from clsnb.train.evaluation import improves
from clsnb.train.watchdogs import EarlyStopHook, StopOnNanHook

PHOTOS = 'resnet18-tiny_1xb16_photos'
QUICK = {
    'data.workers_per_gpu': 0, 'data.samples_per_gpu': 32, 'runner.max_epochs': 4, 'results': False,
    'log_level': 'ERROR', 'checkpoint_config.interval': 1}

@LOSSES.register(force=True)
class BadAtSteps(torch.nn.Module):
    "Cross entropy that is NaN (or infinite) at some calls, counted from 1"
    def __init__(self, steps, value=math.nan):
        super().__init__()
        self.steps, self.value, self.calls = steps, value, 0
    def forward(self, score, label, **kwargs):
        loss = torch.nn.functional.cross_entropy(score, label)
        if not self.training: return loss
        self.calls += 1
        return loss*self.value if self.calls in self.steps else loss

def bad_at(*steps, **options):
    loss = dict(type='BadAtSteps', steps=list(steps), **options)
    return QUICK | {'model.head.loss': dict(loss, _delete_=True)}

def finite(path):
    weights = torch.load(path, weights_only=True)['state_dict']
    return all(value.isfinite().all() for value in weights.values() if value.is_floating_point())

@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_a_run_with_nan_stops_and_keeps_the_last_good_checkpoint(tmp_path, value):
    with pytest.raises(ClsnbError, match='the first non-finite value, at iteration 6, is in .*nan_batch_rank0.pth') as e:
        fit(PHOTOS, tmp_path, bad_at(6, value=value))
    assert 'The loss is nan at iteration 8' in str(e.value)
    assert finite(tmp_path/'latest.pth') and (tmp_path/'latest.pth').resolve().name=='epoch_1.pth'
    assert [path.name for path in tmp_path.glob('epoch_*.pth')]==['epoch_1.pth']
    kept = torch.load(tmp_path/'nan_batch_rank0.pth')
    assert len(kept['samples'])==len(kept['img']) and all(name.endswith('.jpg') for name in kept['samples'])
    state = json.loads((tmp_path/'progress.json').read_text())
    assert state['state']=='failed' and 'loss is nan' in state['why']

def test_one_bad_step_that_leaves_the_weights_alone_is_no_reason_to_stop(tmp_path):
    "Under float16 the gradient scaler leaves the step out"
    options = bad_at(2, 4, 5, 6, 7) | {'fp16': dict(loss_scale=1.), 'runner.max_epochs': 2}
    run = fit(PHOTOS, tmp_path, options)
    assert run.runner.iter==run.runner.max_iters and finite(tmp_path/'latest.pth')

def test_the_check_can_be_switched_off_and_still_nothing_bad_is_saved(tmp_path):
    run = fit(PHOTOS, tmp_path, bad_at(6) | {'stop_on_nan': None, 'evaluation.save_best': 'auto'})
    assert run.runner.epoch==4 and (tmp_path/'latest.pth').resolve().name=='epoch_1.pth'
    assert [path.name for path in tmp_path.glob('epoch_*.pth')]==['epoch_1.pth']
    assert all(map(finite, tmp_path.glob('best_*.pth')))

def test_a_hook_of_the_config_takes_the_place_of_the_default(tmp_path):
    with pytest.raises(ClsnbError, match='The loss is nan at iteration 6'):
        fit(PHOTOS, tmp_path, bad_at(6) | {'custom_hooks': [dict(type='CheckInvalidLossHook', interval=1)]})

def test_a_checkpoint_with_nan_is_not_resumed(tmp_path):
    fit(PHOTOS, tmp_path, QUICK | {'runner.max_epochs': 2})
    newest = tmp_path/'epoch_2.pth'
    checkpoint = torch.load(newest, weights_only=True)
    checkpoint['state_dict']['backbone.layer1.0.conv1.weight'][0] = math.nan
    torch.save(checkpoint, newest)
    Path(f'{newest}.sha256').unlink()
    assert latest_checkpoint(tmp_path).name=='epoch_1.pth'
    with pytest.raises(CheckpointError, match='epoch_2.pth cannot be used: its weight backbone.layer1.0.conv1.weight'):
        fit(PHOTOS, tmp_path/'again', QUICK, resume_from=newest)
    with pytest.raises(CheckpointError, match='cannot be used'):
        fit(PHOTOS, tmp_path/'again', QUICK, load_from=newest)

def stops_after(values, **options):
    "After how many evaluations a run is stopped early; None: never"
    hook = EarlyStopHook(monitor='value', **options)
    runner = SimpleNamespace(stop=None, logger=logging.getLogger('quiet'), evaluation=SimpleNamespace(metrics={}))
    for i, value in enumerate(values):
        runner.evaluation.metrics = dict(value=value)
        hook.after_test(runner)
        if runner.stop: return i+1

@pytest.mark.parametrize('nothing', [math.nan, math.inf, -math.inf])
def test_early_stopping_does_not_take_nan_for_the_best(nothing):
    assert stops_after([nothing, 1., 2., 3., 4.], patience=2) is None
    assert stops_after([nothing, 4., 3., 2., 1.], patience=2, rule='less') is None
    assert stops_after([1., nothing, nothing], patience=2)==3
    assert stops_after([nothing, nothing, nothing], patience=3)==3

@pytest.mark.parametrize('options, message', [
    (dict(rule='max'), "no rule 'max'"), (dict(rule='lesser'), "Did you mean 'less'"), (dict(patience=0), 'patience'),
    (dict(patience=-1), 'patience'), (dict(patience=1.5), 'patience'), (dict(min_delta=-.1), 'min_delta'),
    (dict(min_delta=math.nan), 'min_delta')])
def test_settings_of_early_stopping_are_checked(options, message):
    with pytest.raises(ConfigError, match=message): EarlyStopHook(**options)

def test_nan_never_improves():
    assert not improves('accuracy', math.nan, None) and not improves('loss', math.nan, 1.)
    assert improves('accuracy', 1., None)

def test_nothing_waits_for_the_device_between_two_looks():
    "Off the CPU, losses are read every `interval` steps alone"
    class Loss:
        device, reads = torch.device('cuda'), 0
        def detach(self): return self
        def item(self):
            Loss.reads += 1
            return 1.
    hook = StopOnNanHook(interval=5, patience=3)
    for i in range(20): hook.after_train_iter(SimpleNamespace(outputs=dict(loss=Loss()), iter=i))
    assert Loss.reads==4
