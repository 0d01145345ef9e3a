"What can be known from a config and a few samples is told by `check` and by `fit` before the first step"
import json, shutil
from pathlib import Path

import numpy as np, pytest, torch
from PIL import Image

from clsnb.apis.check import check
from clsnb.apis.dry_run import dry_run, same_files
from clsnb.apis.fit import fit, val_phase_data
from clsnb.config.config import Config
from clsnb.config.files import list_configs
from clsnb.core.errors import ConfigError
from clsnb.core.registry import HOOKS, MODELS
from clsnb.data.sets.wrappers import build_dataset
from clsnb.train.hooks import Hook

PHOTOS, DIGITS = 'resnet18-tiny_1xb16_photos', 'lenet5_1xb32_digits'
QUICK = {'data.workers_per_gpu': 0, 'log_level': 'ERROR', 'runner.max_epochs': 1, 'results': False}

def rows(folder, mode):
    "Lines of a run's JSON logs"
    lines = [line for path in sorted(Path(folder).glob('*.log.json')) for line in path.read_text().splitlines()]
    return [row for row in map(json.loads, lines) if row.get('mode')==mode]

# ---- The val phase of a workflow

@pytest.mark.parametrize('name', [PHOTOS, DIGITS])
@pytest.mark.parametrize('workflow', [[('train', 1), ('val', 1)], [('val', 1), ('train', 1)],
                                      [('train', 1), ('val', 1), ('train', 1)]])
def test_a_workflow_with_val_gives_a_validation_loss(name, workflow, tmp_path):
    fit(name, tmp_path, QUICK | {'runner.max_epochs': 2, 'workflow': workflow, 'data.samples_per_gpu': 64})
    losses = [row['loss'] for row in rows(tmp_path, 'val') if 'loss' in row and 'accuracy_top-1' not in row]
    assert losses and all(loss>0 for loss in losses)

def test_every_packaged_config_has_labels_in_its_val_phase():
    names = list_configs()
    assert len(names)>200
    for name in names:
        cfg = Config.fromfile(name)
        data = val_phase_data(cfg)
        while 'dataset' in data: data = data['dataset']
        assert 'gt_label' in data['pipeline'][-1]['keys'], name
        assert {**data, 'pipeline': 0}=={**cfg.facts.split('val'), 'pipeline': 0}, name

def test_a_workflow_with_val_needs_data(tmp_path):
    with pytest.raises(ConfigError, match='data.val'):
        fit(DIGITS, tmp_path, QUICK | {'workflow': [('train', 1), ('val', 1)], 'data.val': None})

# ---- Mistakes that a dry run finds

NORM = dict(type='Normalize', mean=[123., 116., 103.], std=[58., 57., 57.])
LOAD, TENSOR = dict(type='LoadImageFromFile'), dict(type='ImageToTensor', keys=['img'])
LABEL = dict(type='ToTensor', keys=['gt_label'])
BOTH = dict(type='Collect', keys=['img', 'gt_label'])
TRAIN = [LOAD, dict(type='RandomResizedCrop', size=32), NORM, TENSOR, LABEL, BOTH]
TEST = [LOAD, dict(type='Resize', size=(32, 32)), NORM, TENSOR, dict(type='Collect', keys=['img'])]

@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    "Folders `train` and `val` with 24 and 6 pictures of three classes"
    root, rng = tmp_path_factory.mktemp('pictures'), np.random.default_rng(0)
    for part, count in (('train', 8), ('val', 2)):
        for k, name in enumerate(('cat', 'dog', 'owl')):
            (root/part/name).mkdir(parents=True)
            for i in range(count):
                array = (rng.random((40, 48, 3))*60).astype(np.uint8)
                array[..., k] += 150
                Image.fromarray(array).save(root/part/name/f'{i}.png')
    return root

@HOOKS.register(force=True)
class NoStep(Hook):
    "Nothing may begin"
    def before_run(self, runner): raise AssertionError('the run has begun')

def small(folders, **changes):
    "A config of a small network on these folders"
    def part(name, steps):
        return dict(type='CustomDataset', data_prefix=str(folders/name), pipeline=[dict(step) for step in steps])
    head = dict(type='LinearClsHead', num_classes=3, in_channels=64, loss=dict(type='CrossEntropyLoss'), topk=(1,))
    backbone = dict(
        type='ResNet_CIFAR', depth=18, base_channels=8, stem_channels=8, num_stages=4, out_indices=(3,))
    cfg = Config(dict(
        model=dict(type='ImageClassifier', backbone=backbone, neck=dict(type='GlobalAveragePooling'), head=head),
        data=dict(samples_per_gpu=8, workers_per_gpu=0, train=part('train', TRAIN), val=part('val', TEST)),
        optimizer=dict(type='SGD', lr=.05, momentum=.9), optimizer_config=dict(grad_clip=None),
        lr_config=dict(policy='fixed'), runner=dict(type='EpochBasedRunner', max_epochs=1),
        checkpoint_config=dict(interval=1), results=False, log_level='ERROR', custom_hooks=[dict(type='NoStep')],
        evaluation=dict(interval=1, metric='accuracy', metric_options=dict(topk=(1,)))))
    for key, value in changes.items(): put(cfg, key.split('__'), value)
    return cfg

def put(part, keys, value):
    for key in keys[:-1]: part = part[key]
    part[keys[-1]] = value

MULTI = dict(type='MultiLabelLinearClsHead', num_classes=3, in_channels=64)
CE = dict(type='CrossEntropyLoss')
MISTAKES = {
    'metric': (dict(evaluation=dict(metric='acuracy')), "evaluation: .*'acuracy'.*'accuracy'"),
    'several metrics': (dict(evaluation=dict(metric=['accuracy', 'recal'])), "'recal'.*'recall'"),
    'save_best': (dict(evaluation=dict(metric='accuracy', save_best='acc')), "evaluation.save_best: 'acc'.*accuracy_top-1"),
    'key': (dict(evaluation=dict(intervall=1, metric='accuracy')), "'intervall'.*'interval'"),
    'option': (dict(evaluation=dict(metric='accuracy', metric_options=dict(topkk=1))), "'topkk'.*'topk'"),
    'interval': (dict(evaluation=dict(interval=0, metric='accuracy')), 'interval is a whole number of at least 1'),
    'monitor': (dict(custom_hooks=[dict(type='EarlyStopHook', monitor='lss')]), "monitor: 'lss'.*'loss'"),
    'no neck': (dict(model__neck=None), 'model.head.*no neck'),
    'multi-label head': (dict(model__head=MULTI), 'model.head.loss.*use LinearClsHead'),
    'class_weight': (dict(model__head__loss=dict(CE, class_weight=[1., 2.])), 'class_weight has 2 numbers for 3 classes'),
    'use_soft': (dict(model__head__loss=dict(CE, use_soft=True)), 'use_soft needs soft labels'),
    'use_sigmoid': (dict(model__head__loss=dict(CE, use_sigmoid=True)), 'model.head.loss: does not fit the labels'),
    'no label': (dict(data__train__pipeline=TRAIN[:4] + [dict(type='Collect', keys=['img'])]), "'gt_label'.*Collect"),
    'no tensor': (dict(data__train__pipeline=TRAIN[:3] + TRAIN[4:]), 'data.train.pipeline.*ImageToTensor'),
    'no tensor in val': (dict(data__val__pipeline=TEST[:3] + TEST[4:]), 'data.val.pipeline.*ImageToTensor'),
    'bytes': (dict(data__train__pipeline=TRAIN[:2] + TRAIN[3:]), 'data.train.pipeline.*Normalize'),
    'no picture in val': (dict(data__val__pipeline=TEST[:4] + [dict(type='Collect', keys=['img_shape'])]), "'img'"),
    'channels': (dict(data__train__pipeline=[dict(LOAD, color_type='grayscale'), *TRAIN[1:2],
                      dict(NORM, mean=[1.], std=[1.]), *TRAIN[3:]]), 'model.backbone: fails for pictures of shape'),
    'schedule': (dict(lr_config=dict(policy='CosineAnnealingCooldown', min_lr=0, cool_down_time=10)), 'cool_down_time'),
    'OneCycle': (dict(lr_config=dict(policy='OneCycle', max_lr=.1, pct_start=.25)), 'pct_start'),
    'momentum': (dict(momentum_config=dict(policy='step', step=0)), 'momentum_config: step'),
}

@pytest.mark.parametrize('name', MISTAKES)
def test_fit_tells_before_the_first_step(name, folders, tmp_path):
    changes, message = MISTAKES[name]
    with pytest.raises(ConfigError, match=message): fit(small(folders, **changes), tmp_path, device='cpu')
    assert not list(tmp_path.glob('*.pth'))

@pytest.mark.parametrize('name', [name for name in MISTAKES if name not in ('OneCycle',)])
def test_check_tells_too(name, folders):
    changes, message = MISTAKES[name]
    found = check(small(folders, **{'custom_hooks': [], **changes}))
    assert found.errors, found

def test_a_good_config_has_no_findings(folders): assert check(small(folders, custom_hooks=[]))==[]

@pytest.mark.parametrize('changes, key, words', [
    (dict(data__val__pipeline=[*TEST[:2], dict(NORM, std=[1., 1., 1.]), *TEST[3:]]), 'data.val.pipeline', 'normalises'),
    (dict(data__val__pipeline=[LOAD, dict(type='RandomResizedCrop', size=32), *TEST[2:]]), 'data.val.pipeline', 'random'),
    (dict(data__val__data_prefix='train'), 'data.val', 'pictures of data.train'),
    (dict(lr_config=dict(policy='step', step=[3])), 'lr_config.step', 'should change at 3'),
    (dict(lr_config=dict(policy='fixed', warmup='linear', warmup_iters=100)), 'lr_config.warmup_iters', 'warm-up'),
    (dict(checkpoint_config=dict(interval=9)), 'checkpoint_config.interval', 'nothing is saved')], ids=str)
def test_what_is_odd_is_a_warning(changes, key, words, folders, tmp_path, caplog):
    if changes.get('data__val__data_prefix'): changes = dict(data__val__data_prefix=str(folders/'train'))
    cfg = small(folders, **{'custom_hooks': [], 'log_level': 'WARNING', **changes})
    by_length = key=='lr_config.warmup_iters'  # in iterations, which are known with the data alone
    assert by_length or any(row[0]=='warning' and row[1]==key and words in row[2] for row in check(cfg))
    fit(cfg, tmp_path, device='cpu')
    log, = tmp_path.glob('*.log')
    assert key in log.read_text() and words in log.read_text()

def test_a_last_batch_of_one_sample_is_left_out(folders, tmp_path):
    head = dict(type='StackedLinearClsHead', num_classes=3, in_channels=64, mid_channels=[16], norm_cfg=dict(type='BN1d'))
    cfg = small(folders, model__head=head, data__samples_per_gpu=23, custom_hooks=[], log_level='WARNING')
    assert any(row[1]=='data.train_dataloader.drop_last' for row in check(cfg))
    run = fit(cfg, tmp_path, device='cpu')
    assert run.runner.iter==1
    log, = tmp_path.glob('*.log')
    assert 'drop_last' in log.read_text()

def test_a_last_batch_of_one_sample_stays_where_it_can_be_computed(folders, tmp_path):
    assert fit(small(folders, data__samples_per_gpu=23, custom_hooks=[]), tmp_path, device='cpu').runner.iter==2

def test_a_dry_run_changes_nothing(folders, tmp_path, monkeypatch):
    "Weights after a run are the same, bit for bit, without it"
    def weights(folder):
        fit(small(folders, custom_hooks=[]), folder, device='cpu')
        return torch.load(folder/'latest.pth', weights_only=True)['state_dict']
    with_it = weights(tmp_path/'with')
    monkeypatch.setattr('clsnb.apis.fit.dry_run', lambda *args: [])
    without = weights(tmp_path/'without')
    assert with_it.keys()==without.keys() and all(torch.equal(with_it[name], without[name]) for name in without)

def test_unused_parameters_are_named(folders, monkeypatch):
    "As with two processes"
    cfg = small(folders)
    model = MODELS.build(cfg.model)
    model.spare = torch.nn.Linear(2, 2)
    data = build_dataset(cfg.data.train)
    assert dry_run(cfg, model, data)==[]
    monkeypatch.setattr('clsnb.apis.dry_run.get_dist_info', lambda: (0, 2))
    finding, = dry_run(cfg, model, data)
    assert finding.key=='find_unused_parameters' and 'spare.weight, spare.bias' in finding.text
    cfg.find_unused_parameters = True
    assert dry_run(cfg, model, data)==[]

def test_broken_pictures_in_val_are_named(folders, tmp_path):
    shutil.copytree(folders/'val', tmp_path/'val')
    for name in ('cat/0.png', 'owl/1.png'):
        path = tmp_path/'val'/name
        path.write_bytes(path.read_bytes()[:900])
    cfg = small(folders, data__val__data_prefix=str(tmp_path/'val'))
    with pytest.raises(ConfigError, match='data.val: 2 of 6 pictures cannot be read.*cat/0.png'):
        fit(cfg, tmp_path/'run', device='cpu')
    cfg.custom_hooks = []
    assert any(row[1]=='data.val' and 'cannot be read' in row[2] for row in check(cfg).errors)

# ---- Pictures that are trained on and evaluated, in data sets made of data sets

@pytest.mark.parametrize('form', ['alone', 'list', 'ConcatDataset', 'repeated list'])
def test_the_same_pictures_are_found_inside_of_wrappers(form, folders):
    cfg = small(folders)
    val = dict(cfg.data.val)
    other = dict(cfg.data.train)
    forms = {
        'alone': val,
        'list': [other, val],
        'ConcatDataset': dict(type='ConcatDataset', datasets=[other, val]),
        'repeated list': dict(type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=[other, val])),
    }
    train, val = build_dataset(forms[form]), build_dataset(val)
    [found] = same_files(train, val)
    assert found.key=='data.val' and f'{len(val)} of {len(val)} pictures' in found.text

def test_pictures_of_one_name_in_two_folders_are_not_the_same(folders):
    cfg = small(folders)
    assert list(same_files(build_dataset([cfg.data.train, cfg.data.train]), build_dataset(cfg.data.val)))==[]
