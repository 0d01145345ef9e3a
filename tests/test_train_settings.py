"Settings that would do nothing, or the opposite, are refused where they are given"
import math

import numpy as np, pytest, torch
from torch import nn

from clsnb.core.errors import ConfigError
from clsnb.core.registry import HOOKS
from clsnb.data.sets.wrappers import build_dataset
from clsnb.data.transforms.pipeline import build_transform
from clsnb.layers.norm_act import build_norm_layer
from clsnb.train.evaluation import EvalHook
from clsnb.train.loop import Runner
from clsnb.train.optim import build_optimizer
from clsnb.train.schedules import lr_curve

REFUSED_HOOKS = [
    (dict(type='CheckpointHook', intervall=1), "'intervall'.*'interval'"),
    (dict(type='CheckpointHook', max_keep_ckpt=1), "'max_keep_ckpts'"),
    (dict(type='CheckpointHook', interval=0), 'interval'),
    (dict(type='CheckpointHook', max_keep_ckpts=0), 'max_keep_ckpts'),
    (dict(type='CheckpointHook', on_error='ignore'), "'ignore'"),
    (dict(type='CheckpointHook', file_client_args=dict(backend='petrel')), 'file_client_args'),
    (dict(type='TextLoggerHook', interval=0), 'interval'),
    (dict(type='EMAHook', momentum=0.), 'momentum'), (dict(type='EMAHook', momentum=1.), 'momentum'),
    (dict(type='EMAHook', momentum=-.1), 'momentum'), (dict(type='EMAHook', interval=0), 'interval'),
    (dict(type='EMAHook', warm_up=0), 'warm_up'), (dict(type='PreciseBNHook', num_samples=0), 'num_samples'),
    (dict(type='PreciseBNHook', interval=0), 'interval'), (dict(type='ProfilerHook', profile_iters=0), 'profile_iters'),
    (dict(type='OptimizerHook', cumulative_iters=0), 'cumulative_iters'),
    (dict(type='OptimizerHook', grad_clip=dict(max_norm=0)), 'max_norm'),
    (dict(type='OptimizerHook', grad_clip=dict(max_norm=-1.)), 'max_norm'),
    (dict(type='OptimizerHook', grad_clip=dict(max_nrom=1.)), "'max_norm'"),
    (dict(type='EvalHook', dataloader=None, interval=0), 'interval'),
    (dict(type='EvalHook', dataloader=None, interval=1.5), 'interval'),
    (dict(type='EvalHook', dataloader=None, start=-1), 'start'),
    (dict(type='EvalHook', dataloader=None, rule='max'), 'rule'),
    (dict(type='EvalHook', dataloader=None, test_fn=print), 'test_fn'),
    (dict(type='LrUpdaterHook', policy='fixed', warmup='slow', warmup_iters=3), "'slow'"),
    (dict(type='LrUpdaterHook', policy='fixed', warmup='linear', warmup_iters=3, warmup_ratio=2.), 'warmup_ratio'),
    (dict(type='MomentumUpdaterHook', policy='step', step=0), 'momentum_config: step'),
]

@pytest.mark.parametrize('cfg, message', REFUSED_HOOKS, ids=str)
def test_settings_of_hooks(cfg, message):
    with pytest.raises(ConfigError, match=message): HOOKS.build(cfg)

def test_settings_that_hold():
    for cfg in (dict(type='CheckpointHook', interval=-1), dict(type='CheckpointHook', meta=dict(note='mine')),
                dict(type='CheckpointHook', comment='mine'), dict(type='EMAHook', momentum=.5)): HOOKS.build(cfg)

def test_greater_keys_count():
    hook = EvalHook(None, save_best='loss_of_nothing', greater_keys=('loss_of',))
    for value, best in ((1., True), (2., True), (1.5, False)):
        assert hook.is_better(value)==best
        if best: hook.found.best = value

def net(): return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))

@pytest.mark.parametrize('cfg, message', [
    (dict(momentum=1.), 'momentum'), (dict(momentum=1.9), 'momentum'), (dict(momentum=-.1), 'momentum'),
    (dict(lr=math.nan), 'lr'), (dict(lr='fast'), 'lr'), (dict(lr=-1.), 'optimizer: '), (dict(weight_decay=-1.), 'optimizer: '),
    (dict(paramwise_cfg=dict(custom_keys={'0': dict(lr_mul=.1)})), "'lr_mul'.*'lr_mult'"),
    (dict(paramwise_cfg=dict(custom_keys={'wieght': dict(lr_mult=.1)})), "'wieght'.*'weight'"),
    (dict(paramwise_cfg=dict(custom_keys={'no_such_part': dict(lr_mult=0.)})), "'no_such_part'"),
    (dict(paramwise_cfg=dict(norm_decay_mul=0.)), "'norm_decay_mult'")], ids=str)
def test_settings_of_the_optimizer(cfg, message):
    with pytest.raises(ConfigError, match=message): build_optimizer(net(), dict(type='SGD', lr=.1) | cfg)

def test_keys_of_published_configs_hold_for_models_without_such_parameters():
    keys = {'.absolute_pos_embed': dict(decay_mult=0.), '.cls_token': dict(decay_mult=0.)}
    build_optimizer(net(), dict(type='SGD', lr=.1, paramwise_cfg=dict(custom_keys=keys)))

@pytest.mark.parametrize('lr_config, epochs, epoch_len, message', [
    (dict(policy='OneCycle', max_lr=.1, pct_start=.25), 1, 4, 'pct_start'),
    (dict(policy='OneCycle', max_lr=.1, pct_start=2.), 1, 40, 'pct_start'),
    (dict(policy='OneCycle', max_lr=.1, anneal_strategy='cosine'), 1, 6, "'cosine'"),
    (dict(policy='OneCycle', max_lr=.1, div_factor=0), 1, 6, 'div_factor'),
    (dict(policy='CosineAnnealingCooldown', cool_down_time=5), 5, 2, 'cool_down_time'),
    (dict(policy='CosineAnnealingCooldown', min_lr=1e-3, cool_down_time=10), 5, 1, 'cool_down_time'),
    (dict(policy='CosineAnnealingCooldown', cool_down_time=-1), 5, 1, 'cool_down_time'),
    (dict(policy='cyclic', cyclic_times=20), 1, 10, 'cyclic_times'),
    (dict(policy='cyclic', cyclic_times=0), 1, 10, 'cyclic_times'),
    (dict(policy='cyclic', anneal_strategy='cosine'), 1, 10, 'anneal_strategy'),
    (dict(policy='step', step=0), 3, 2, 'step'), (dict(policy='step', step=-1), 3, 2, 'step'),
    (dict(policy='step', step=[1, 'two']), 3, 2, "'two'"),
    (dict(policy='CosineRestart', periods=[2, 2, 2], restart_weights=[1], min_lr=0), 6, 1, 'restart_weights'),
    (dict(policy='CosineRestart', periods=[2, 0], restart_weights=[1, 1], min_lr=0), 2, 1, 'periods'),
    (dict(policy='CosineAnnealing', min_lr=.1, min_lr_ratio=.1), 2, 1, 'min_lr_ratio'),
    (dict(policy='FlatCosineAnnealing', start_percent=75), 2, 1, 'start_percent')], ids=str)
def test_schedules_that_cannot_be_computed(lr_config, epochs, epoch_len, message):
    with pytest.raises(ConfigError, match=message): lr_curve(lr_config, epochs, epoch_len)
    with pytest.raises(ConfigError, match=message): walk(lr_config, epochs, epoch_len)

class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.steps = nn.Parameter(torch.zeros(1)), 0
    def train_step(self, batch, optimizer):
        self.steps += 1
        return dict(loss=self.a.sum(), log_vars={}, num_samples=1)

def walk(lr_config, epochs, epoch_len, **options):
    "A run; it must not have made a step when it fails"
    toy = Toy()
    runner = Runner(toy, torch.optim.SGD(toy.parameters(), lr=.1), max_epochs=epochs)
    try:
        runner.register_hook(dict(type='LrUpdaterHook', **lr_config))
        for hook in options.pop('hooks', ()): runner.register_hook(hook)
        runner.run([[{}]*epoch_len], **options)
    finally: assert toy.steps==0 or toy.steps==epochs*epoch_len

@pytest.mark.parametrize('epochs, options, message', [
    (-1, {}, 'max_epochs'), (2, dict(workflow=[('train', 0)]), "number of 'train'"),
    (2, dict(workflow=[('train', -1)]), "number of 'train'"), (2, dict(workflow=[('train', 1), ('val', 0)]), "number of 'val'"),
    (2, dict(hooks=[dict(type='MomentumUpdaterHook', policy='fixed')]), 'no momentum')], ids=str)
def test_runs_that_would_not_end_or_do_nothing(epochs, options, message):
    with pytest.raises(ConfigError, match=message): walk(dict(policy='fixed'), epochs, 2, **options)

def test_levels_above_their_total():
    policy = dict(type='Rotate', magnitude_key='angle', magnitude_range=(0, 30))
    with pytest.raises(ConfigError, match='magnitude_level'):
        build_transform(dict(type='RandAugment', policies=[policy], num_policies=1, magnitude_level=31, total_level=30))

@pytest.mark.parametrize('momentum', [-.1, 1.5])
def test_momentum_of_norms(momentum):
    with pytest.raises(ConfigError, match='momentum'): build_norm_layer(dict(type='BN', momentum=momentum), 4)

class Sorted:
    "Twelve samples in the order of their three classes"
    CLASSES = 'abc'
    def __len__(self): return 12
    def get_gt_labels(self): return np.repeat(np.arange(3), 4)

@pytest.mark.parametrize('test_mode', [False, True])
def test_folds_of_sorted_samples_that_lack_classes(test_mode, recwarn):
    def fold(**options): build_dataset(dict(type='KFoldDataset', dataset=Sorted(), num_splits=3, test_mode=test_mode, **options))
    with pytest.warns(UserWarning, match='1 of 3 classes are missing.*stratified'): fold()
    recwarn.clear()
    fold(stratified=True)
    assert not recwarn.list
