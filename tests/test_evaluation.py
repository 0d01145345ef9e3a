"""An evaluation is a moment of a run with one result, and hooks of a user's own are never taken for ours."""
import os, signal
from pathlib import Path
from types import SimpleNamespace

import clsnb
import numpy as np
import pytest
import torch

from clsnb.apis.finetune import finetune
from clsnb.apis.fit import fit
from clsnb.apis.launch import train_config
from clsnb.apis.test import evaluate_config
from clsnb.config.config import Config
from clsnb.core.checkpoint import read_checkpoint
from clsnb.core.errors import ClsnbError, ConfigError
from clsnb.core.registry import HOOKS, MODELS
from clsnb.data.feed.loader import build_dataloader
from clsnb.data.sets.wrappers import SubsetDataset, build_dataset
from clsnb.metrics.registry import compute_metrics
from clsnb.metrics.single_label import nll
from clsnb.models.classifier import build_classifier
from clsnb.train.evaluation import evaluate_scores, predict_loader
from clsnb.train.head_loss import head_loss
from clsnb.train.hooks import Hook
from clsnb.train.position import Position, position_from

photos = Path(clsnb.__file__).parent/'photos'
digits = {
    'data.workers_per_gpu': 0, 'data.samples_per_gpu': 128, 'log_level': 'ERROR', 'runner.max_epochs': 2
}

@HOOKS.register(force=True)
class LooksLikeOthers(Hook):
    "Has the attributes by which hooks used to be found, and stands before all of ours"
    priority = 'HIGHEST'
    def __init__(self):
        self.best, self.best_file, self.save_best = -1., 'nothing.pth', 'nothing'
        self.loader = self.dataloader = 'no loader'
        self.dir, self.keep, self.page = 'no folder', 1, 'no page'
    def log_due(self, runner): raise AssertionError('this is no logger')
    def evaluate(self, runner): raise AssertionError('this is no evaluation')

looks_like_others = {'custom_hooks': [dict(type='LooksLikeOthers')]}

def test_finetune_with_early_stopping_before_the_evaluation(tmp_path):
    "A hook with an attribute `best`, at the default priority, that stands before EvalHook"
    early = {'custom_hooks': [dict(type='EarlyStoppingHook', priority='NORMAL')]}
    res = finetune(
        'resnet18-tiny_1xb16_photos',
        photos, tmp_path,
        epochs=1,
        size=32,
        options={**digits, 'results': False, **early},
    )
    found = res.runner.evaluation
    assert found.best_name=='f1_score' and abs(found.best-res.log.f1_score.max())<1e-3

def test_hooks_of_a_user_are_not_taken_for_ours(tmp_path, monkeypatch):
    monkeypatch.setattr('clsnb.apis.fit.fit', lambda cfg, launcher, **kw: fit(cfg, **kw))  # one process
    run = train_config(
        'lenet5_1xb32_digits',
        work_dir=tmp_path,
        options={**digits, **looks_like_others, 'evaluation.save_best': 'auto'},
    )
    found = run.runner.evaluation
    assert found.best>10 and found.best_file.startswith('best_accuracy')
    assert run.best==tmp_path/found.best_file and run.best.exists() and run.report.exists()

def test_an_interrupt_saves_in_the_folder_of_checkpoints(tmp_path, capsys):
    @HOOKS.register(force=True)
    class PressOnce(Hook):
        def before_train_iter(self, run):
            if run.iter==3: os.kill(os.getpid(), signal.SIGINT)
    hooks = {'custom_hooks': [dict(type='LooksLikeOthers'), dict(type='PressOnce')]}
    run = fit(
        'lenet5_1xb32_digits',
        tmp_path/'run',
        {**digits, **hooks, 'checkpoint_config.out_dir': str(tmp_path/'elsewhere')},
    ).runner
    assert run.stop=='SIGINT' and (tmp_path/'elsewhere/run/iter_4.pth').exists()

def test_the_result_of_a_run(tmp_path):
    "Moments in their order, and one object with what was found"
    heard = []
    @HOOKS.register(force=True)
    class Hear(Hook):
        def before_test(self, run): heard.append('before')
        def after_test_iter(self, run): heard.append(run.testing.samples)
        def after_test(self, run): heard.append(run.evaluation.epoch)
    run = fit(
        'lenet5_1xb32_digits',
        tmp_path,
        {**digits, 'results': False, 'evaluation.save_best': 'loss', 'custom_hooks': [dict(type='Hear')]},
    ).runner
    found, n = run.evaluation, len(run.evaluation.dataset)
    assert heard==['before', 128, 256, 384, 512, n, 1, 'before', 128, 256, 384, 512, n, 2]
    assert run.testing is None
    assert found.epoch==2 and found.iter==run.iter and found.scores.shape==(n, 10)
    assert found.best_name=='loss'
    assert found.best==pytest.approx(found.metrics['loss'])
    assert found.loader.dataset is found.dataset
    assert read_checkpoint(tmp_path/found.best_file)['meta']['epoch']==2
    again = fit(
        'lenet5_1xb32_digits',
        tmp_path,
        {**digits, 'results': False, 'evaluation.save_best': 'loss'},
        resume_from=str(tmp_path/found.best_file),
    ).runner
    assert (again.evaluation.best, again.evaluation.best_file)==(found.best, found.best_file)  # nothing was left to do

def test_evaluation_by_iteration_logs_the_steps_first(tmp_path):
    "Where a step ends with a line of the log and an evaluation, both are logged, the averages first"
    import json
    options = {
        **digits,
        'runner': dict(type='IterBasedRunner', max_iters=20),
        'results': False,
        'evaluation.interval': 10,
        'log_config.interval': 5,
    }
    fit('lenet5_1xb32_digits', tmp_path, options)
    rows = [
        json.loads(line)
        for path in tmp_path.glob('*.log.json')
        for line in path.read_text().splitlines()
    ][1:]
    assert [(r['mode'], r['iter']) for r in rows]==[
        ('train', 5), ('train', 10), ('val', 10), ('train', 15), ('train', 20), ('val', 20)
    ]
    assert all('accuracy_top-1' in r for r in rows if r['mode']=='val')
    assert not any('accuracy_top-1' in r for r in rows if r['mode']=='train')

def test_early_stopping_names_an_unknown_metric(tmp_path):
    options = {**digits, 'results': False, 'custom_hooks': [dict(type='EarlyStopHook', monitor='acuracy')]}
    with pytest.raises(ClsnbError, match="monitor: 'acuracy' is not among the metrics.*accuracy_top-1"):
        fit('lenet5_1xb32_digits', tmp_path, options)

def test_positions_of_earlier_checkpoints():
    "The names that were used before, and a checkpoint of mmcv"
    old = dict(
        epoch=1, iter=17, done=7, phase=1, until=20, event='after_train_iter', left=['EvalHook'],
        epoch_len=10, world_size=2
    )
    new = position_from(dict(runner=old))
    assert (new.batch, new.phase_end, new.waiting, new.world_size)==(7, 20, ['EvalHook'], 2)
    assert position_from(dict(position=new.state_dict(new.waiting)))==new
    theirs = position_from({}, dict(epoch=3, iter=30))
    theirs.rescale(7)
    assert (theirs.epoch, theirs.iter, theirs.batch, theirs.event)==(3, 21, 0, None)

@pytest.mark.parametrize('event', [None, 'after_train_iter', 'after_train_epoch'])
@pytest.mark.parametrize('n', [1, 7, 10, 40])
def test_a_position_stays_within_its_epoch(event, n):
    "Whatever the new length: a step that is pending ends at most the epoch, and an epoch that is pending is whole"
    for batch in [10] if event=='after_train_epoch' else range(10):
        p = Position(epoch=2, iter=20+batch, batch=batch, event=event, epoch_len=10)
        p.rescale(n)
        assert p.iter==2*n+p.batch and (p.batch==n if event=='after_train_epoch' else 0<=p.batch<n)

# ---- metric='loss': the loss of the head ---------------------------------------------------------------------------

def lenet(options, n=40, **loader):
    "Metrics of an untrained LeNet of a seed on some digits"
    cfg = Config.fromfile('lenet5_1xb32_digits').merge_from_dict(options)
    torch.manual_seed(0)
    model = build_classifier(cfg.model)
    data = SubsetDataset(build_dataset(cfg.data.val, dict(test_mode=True)), range(n))
    loss = head_loss(model, data, ['loss'])
    scores = predict_loader(model, build_dataloader(data, workers_per_gpu=0, shuffle=False, **loader), loss=loss)
    return evaluate_scores(scores, data, loss=loss, metric='loss')['loss'], model, data, scores

smoothed = {'model.head.loss': dict(type='LabelSmoothLoss', label_smooth_val=.3, num_classes=10)}
weighted = {'model.head.loss': dict(type='CrossEntropyLoss', class_weight=[1, 2, 3, 4, 5, 6, 7, 8, 9, 10])}
seesaw = {'model.head.loss': dict(type='SeesawLoss', num_classes=10)}

@pytest.mark.parametrize('options', [{}, smoothed, weighted, seesaw])
def test_the_loss_is_that_of_the_head_at_any_batch_size(options):
    found = [lenet(options, samples_per_gpu=n)[0] for n in (1, 7, 32, 64)]
    assert found==pytest.approx([found[0]]*4, rel=1e-5)
    loss, model, data, scores = lenet(options, samples_per_gpu=7)
    logits, labels = torch.log(torch.tensor(scores)), torch.tensor(data.get_gt_labels())
    each = []
    for i in range(len(labels)): # the loss knows scores up to a constant
        each.append(model.head.loss(logits[i:i+1], labels[i:i+1])['loss'].item())
        if options is seesaw: model.head.compute_loss.cum_samples.zero_()
    assert loss==pytest.approx(np.mean(each), rel=1e-4)
    if options is not seesaw: return
    assert not lenet(options, samples_per_gpu=7)[1].head.compute_loss.cum_samples.any()

def test_the_loss_of_several_labels_and_from_scores_alone():
    rng = np.random.default_rng(0)
    head = MODELS.build(dict(type='MultiLabelLinearClsHead', num_classes=4, in_channels=8))
    x, labels = torch.randn(30, 8), torch.as_tensor(rng.integers(-1, 2, (30, 4)))
    expected = head.forward_train((x,), labels)['loss'].item()
    scores = np.stack(head.simple_test((x,)))
    found = compute_metrics(scores, labels.numpy(), 'loss', kind='multi_label')
    assert found['loss']==pytest.approx(expected, rel=1e-4)

def test_the_loss_as_the_only_metric_and_as_the_best(tmp_path):
    options = {**digits, 'results': False, **smoothed, 'evaluation': dict(metric='loss', save_best='loss')}
    run = fit('lenet5_1xb32_digits', tmp_path, options).runner
    found = run.evaluation
    assert list(found.metrics)==['loss'] and found.best_file=='best_loss_epoch_2.pth'
    assert found.metrics['loss']>nll(found.scores, found.dataset.get_gt_labels())  # labels are smoothed
    tested = evaluate_config(str(tmp_path), metrics=['accuracy', 'loss'], device='cpu')[0]
    assert tested['loss']==pytest.approx(found.metrics['loss'], rel=1e-5) and 'accuracy_top-1' in tested

def test_a_model_without_a_head_has_no_loss():
    with pytest.raises(ConfigError, match="metric 'loss': Linear has no head"):
        head_loss(torch.nn.Linear(1, 1), SimpleNamespace(get_gt_labels=lambda: [0]), 'loss')

def test_best_checkpoint_of_a_new_metric(tmp_path):
    options = {**digits, 'evaluation': dict(metric=['accuracy', 'calibration_error'], save_best='calibration_error',
                                            metric_options=dict(n_bins=5, topk=(1, 2)))}
    run = fit('lenet5_1xb32_digits', tmp_path, options)
    values = run.log.calibration_error.dropna()
    assert run.best.name==f'best_calibration_error_epoch_{values.argmin()+1}.pth'
    assert 0<values.min()<1 and 'calibration_error' in (tmp_path/'report.html').read_text()
