"Configs: the language point by point, overrides, hostile files, dump and read"
import argparse
import copy
import json
import keyword
import os
import pickle
import subprocess
import sys
import textwrap
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from clsnb.config.facts import count_classes
from clsnb.apis.scale_lr import lr_scaling, scale_lr
from clsnb.config.config import (
    Config, ConfigDict, DictAction, copy_config, find_config, import_custom, list_configs, merge,
    parse_options, read_text
)
from clsnb.core.errors import ConfigError


@pytest.fixture
def tree(tmp_path, monkeypatch):
    "Writes files into a fresh folder, which is the current one"
    monkeypatch.chdir(tmp_path)
    def write(**files):
        for k, v in files.items():
            p = Path(k if '.' in k else k.replace('___base___', '/_base_/').replace('__', '/') + '.py')
            p.parent.mkdir(parents=True, exist_ok=True)
            p.write_text(textwrap.dedent(v))
        return tmp_path
    return write


def refused(f, *args, **kw):
    "The one line with which something is refused"
    with pytest.raises(ConfigError) as e: f(*args, **kw)
    assert '\n' not in str(e.value) and len(str(e.value)) < 700
    return str(e.value)


# ---- the language

def test_bases_merge(tree):
    tree(
        a="x = 1\nmodel = dict(backbone=dict(depth=50, stages=[1, 2]), head=dict(n=3))",
        b="y = 2",
        c="_base_ = 'a.py'\nmodel = dict(backbone=dict(depth=18))",
        d="_base_ = ['c.py', './b.py']\nmodel = dict(backbone=dict(stages=[9]))",
    )
    cfg = Config.fromfile('d.py')
    assert cfg == dict(
        x=1,
        y=2,
        model=dict(backbone=dict(depth=18, stages=[9]), head=dict(n=3)),
    )
    assert list(cfg) == ['x', 'model', 'y'] and cfg.filename == 'd.py'


def test_delete(tree):
    tree(
        a="opt = dict(type='SGD', lr=.1, paramwise=dict(a=1, b=2))",
        b="_base_ = 'a.py'\nopt = dict(_delete_=True, type='AdamW')",
        c="_base_ = 'a.py'\nopt = dict(paramwise=dict(_delete_=True, c=3))",
        d="_base_ = 'a.py'\nnew = dict(x=dict(_delete_=True, y=1))",
    )
    assert Config.fromfile('b.py').opt == dict(type='AdamW')
    assert Config.fromfile('c.py').opt == dict(type='SGD', lr=.1, paramwise=dict(c=3))
    assert Config.fromfile('d.py').new == dict(x=dict(y=1))


def test_dict_over_something_else(tree):
    tree(
        a="x = [1]\ngrad = None",
        b="_base_ = 'a.py'\nx = dict(y=1)",
        c="_base_ = 'a.py'\ngrad = dict(max_norm=5)",
    )
    assert '_delete_=True' in refused(Config.fromfile, 'b.py')
    assert Config.fromfile('c.py').grad == dict(max_norm=5)


def test_duplicate_keys_of_bases(tree):
    tree(a='x = 1', b='x = 2', c="_base_ = ['a.py', 'b.py']")
    text = refused(Config.fromfile, 'c.py')
    assert 'a.py' in text and 'b.py' in text and 'x' in text


def test_base_variables(tree):
    tree(a="norm = dict(mean=[1., 2.], rgb=True)\nn = 3\nname = 'swin'\nsizes = [dict(h=4)]",
         b="""
         _base_ = ['a.py']
         bare = {{_base_.n}}
         spaced = {{ _base_.norm.mean }}
         mine = dict(pipeline=[dict(type='Normalize', **{{_base_.norm}})], first={{_base_.norm}}['mean'][::-1])
         quoted = '{{_base_.norm.rgb}}'
         inside = "{{_base_.name}}-{{_base_.n}}"
         item = '{{_base_.sizes.0.h}}'
         total = {{_base_.n}} * 2 + len({{_base_.norm.mean}})
         attribute = _base_.norm.mean
         """)
    for trust in (False, True):
        if trust:
            Path('b.py').write_text(Path('b.py').read_text().replace('attribute = _base_.norm.mean\n', ''))
        cfg = Config.fromfile('b.py', trust=trust)
        assert (
            (cfg.bare, cfg.spaced, cfg.quoted, cfg.inside, cfg.item, cfg.total)
            == (3, [1., 2.], True, 'swin-3', 4, 8)
        )
        assert cfg.mine == dict(
            pipeline=[dict(type='Normalize', mean=[1., 2.], rgb=True)], first=[2., 1.]
        )
    assert cfg.norm is not cfg.mine.pipeline[0]


def test_base_variable_is_a_copy(tree):
    tree(a="p = [dict(type='A')]", b="_base_ = 'a.py'\nq = {{_base_.p}}\nq[0]['type'] = 'B'")
    cfg = Config.fromfile('b.py')
    assert cfg.p == [dict(type='A')] and cfg.q == [dict(type='B')]


def test_predefined_variables(tree):
    folder = tree(
        sub__run="d = '{{ fileDirname }}'\nb = '{{fileBasename}}'\nn = 'runs/{{ "
                 "fileBasenameNoExtension }}'\ne = '{{ fileExtname }}'"
    )
    cfg = Config.fromfile('sub/run.py')
    assert (
        (cfg.d, cfg.b, cfg.n, cfg.e)
        == ((folder/'sub').as_posix(), 'run.py', 'runs/run', '.py')
    )


def test_environment(tree, monkeypatch):
    monkeypatch.setenv('CLS_BATCH', '64')
    tree(
        a="n = {{ $CLS_BATCH:32 }}\nm = {{$CLS_NONE:0.5}}\ns = '{{ $CLS_BATCH:x }}/{{ $CLS_NONE:y }}'",
        b="n = {{ $CLS_NONE }}",
        c="n = '{{ $MY_API_KEY:x }}'",
        **{'d.json': '{"n": {{ $CLS_BATCH:1 }}, "m": "{{ $CLS_BATCH:1 }}"}'},
    )
    cfg = Config.fromfile('a.py')
    assert (cfg.n, cfg.m, cfg.s) == (64, .5, '64/y')
    assert 'CLS_NONE' in refused(Config.fromfile, 'b.py') and 'secret' in refused(Config.fromfile, 'c.py')
    assert Config.fromfile('c.py', trust=True).n == 'x'
    assert Config.fromfile('d.json') == dict(n=64, m='64')
    monkeypatch.setenv('CLS_BATCH', "1\nimport os")
    assert 'CLS_BATCH' in refused(Config.fromfile, 'a.py')


def test_json_and_yaml(tree):
    tree(
        **{
            'a.json': '{"_base_": "b.yaml", "model": {"depth": 18}, "n": {{ _base_.k }}, '
                      '"me": "{{ fileBasename }}"}',
            'b.yaml': 'model:\n  type: ResNet\n  depth: 50\nk: [1, {x: null}]\n',
        },
        c="_base_ = 'a.json'\nmodel = dict(depth=34)",
    )
    cfg = Config.fromfile('c.py')
    assert cfg == dict(
        model=dict(type='ResNet', depth=34),
        k=[1, dict(x=None)],
        n=[1, dict(x=None)],
        me='a.json',
    )
    assert cfg.where('model.type') == 'b.yaml:2'
    assert cfg.where('k.1.x') == 'b.yaml:4'
    assert cfg.where('me') == 'a.json:1'
    assert Config.fromstring('{"a": 1}', '.json') == dict(a=1)
    text = Config.fromstring("_base_ = 'c.py'\nmodel = dict(depth=3)")
    assert (
        (text.model.depth, text.where('model.depth'), text.where('model.type'))
        == (3, '<config>:2', 'b.yaml:2')
    )


def test_deprecated(tree, caplog):
    tree(a="_deprecation_ = dict(expected='b.py', reference='https://x')\nn = 1")
    assert Config.fromfile('a.py') == dict(n=1)
    assert [r.getMessage() for r in caplog.records] == ['a.py is deprecated; use b.py (https://x).']


def test_packaged_names(tree):
    tree(
        a="_base_ = 'resnet18-tiny_1xb16_photos'",
        b="_base_ = ['../_base_/datasets/photos.py']",
        c="_base_ = 'resnet18-tiny_1xb16_photo'",
    )
    want = Config.fromfile('resnet18-tiny_1xb16_photos')
    assert Config.fromfile('a.py') == want == Config.fromfile('photos/resnet18-tiny_1xb16_photos.py')
    assert Config.fromfile('b.py').data == want.data
    assert "'resnet18-tiny_1xb16_photos'" in refused(Config.fromfile, 'c.py')
    assert 'c.py' in refused(Config.fromfile, 'c.py')
    for o in (
        '', '.', '/',
        'x'*5000,
        'a\0b', '_base_',
        '../_base_/../../../etc/passwd',
        'nowhere/resnet18-tiny_1xb16_photos.py',
    ):
        refused(find_config, o)
    assert len(list_configs()) == len(set(list_configs()))


def test_a_tree_as_people_keep_it(tree):
    "The constructs that configs of mmcls use"
    tree(configs___base___models__swin="""
            # model settings
            model = dict(
                type='ImageClassifier',
                backbone=dict(type='SwinTransformer', arch='tiny', img_size=224, drop_path_rate=0.2),
                neck=dict(type='GlobalAveragePooling'),
                head=dict(type='LinearClsHead', num_classes=1000, in_channels=768, init_cfg=None,
                          loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'), cal_acc=False),
                init_cfg=[dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.), dict(type='Constant', layer='LayerNorm', val=1., bias=0.)],
                train_cfg=dict(augments=[dict(type='BatchMixup', alpha=0.8, num_classes=1000, prob=0.5)]))""",
         configs___base___datasets__pipelines__rand="policies = [dict(type='AutoContrast'), dict(type='Rotate', magnitude_key='angle', magnitude_range=(0, 30))]",
         configs___base___datasets__imagenet="""
            _base_ = ['./pipelines/rand.py']
            dataset_type = 'ImageNet'
            img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
            train_pipeline = [
                dict(type='LoadImageFromFile'),
                dict(type='RandAugment', policies={{_base_.policies}}, num_policies=2, total_level=10,
                     hparams=dict(pad_val=[round(x) for x in img_norm_cfg['mean'][::-1]], interpolation='bicubic')),
                dict(type='RandomErasing', fill_color=img_norm_cfg['mean'][::-1], fill_std=img_norm_cfg['std'][::-1]),
                dict(type='Normalize', **img_norm_cfg),
            ]
            data = dict(samples_per_gpu=64, train=dict(type=dataset_type, data_prefix='data/imagenet/train', pipeline=train_pipeline))
            evaluation = dict(interval=10, metric='accuracy')""",
         configs___base___schedules__adamw="""
            paramwise_cfg = dict(norm_decay_mult=0.0, custom_keys={'.absolute_pos_embed': dict(decay_mult=0.0)})
            # for batch in each gpu is 128, 8 gpu
            # lr = 5e-4 * 128 * 8 / 512 = 0.001
            optimizer = dict(type='AdamW', lr=5e-4 * 1024 / 512, betas=(0.9, 0.999), paramwise_cfg=paramwise_cfg)
            lr_config = dict(policy='CosineAnnealing', min_lr_ratio=1e-2, warmup_iters=20 * 1252)""",
         configs__swin__swin="""
            _base_ = [
                '../_base_/models/swin.py', '../_base_/datasets/imagenet.py',
                '../_base_/schedules/adamw.py'
            ]
            # dataset settings
            train_pipeline = {{_base_.train_pipeline}}
            optimizer = dict(paramwise_cfg=dict(_delete_=True, bias_decay_mult=0.))
            custom_hooks = [dict(type='EMAHook', momentum=4e-5, priority='ABOVE_NORMAL')]""")
    cfg = Config.fromfile('configs/swin/swin.py')
    assert cfg == Config.fromfile('configs/swin/swin.py', trust=True)
    assert cfg.optimizer == dict(
        type='AdamW', lr=1e-3, betas=(.9, .999), paramwise_cfg=dict(bias_decay_mult=0.)
    )
    step = cfg.data.train.pipeline[1]
    assert step.policies[1].magnitude_range == (0, 30) and step.hparams.pad_val == [104, 116, 124]
    assert cfg.where('data.train.pipeline.1.hparams.interpolation') == 'configs/_base_/datasets/imagenet.py:8'
    assert cfg.where('data.train.pipeline.1.policies.1.type') == 'configs/_base_/datasets/pipelines/rand.py:1'
    assert cfg.where('optimizer.paramwise_cfg.bias_decay_mult') == 'configs/swin/swin.py:8'
    assert cfg.where('lr_config.warmup_iters') == 'configs/_base_/schedules/adamw.py:6'


def test_what_may_be_computed():
    text = """
import os.path as osp
from math import pi
import math
a, (b, *_) = 1, [2, 3]
""".replace(', *_', ', c')
    cfg = read_text(text + """
joined = osp.join('data', 'x') + osp.basename('y/z.txt')
area = round(pi * 2**2, 2) + math.floor(2.5)
names = [f'{k}={v:>3}' for k, v in dict(x=1, y=2).items() if v > 1 or not k]
pairs = {k: i for i, k in enumerate(sorted('ba'))}
cond = 'big' if a > 3 else 'small'
text = '%s-%03d' % ('r', 5) + '{}/{x}'.format(1, x='y') + ','.join(str(o) for o in range(3)).replace(',', ';').upper()
merged = {**dict(a=1), 'b': 2} | dict(c=3)
flat = [*range(2), *[x for y in [[1], [2]] for x in y]]
n = len(flat) + sum([1, 2]) + max(1, 2) + abs(-1) + int('3') + (5 // 2) + (7 % 4)
flags = (not a, a is None, 1 in flat, a == 1 != b, True and 0 or 'x')
flat.append(9); flat.extend([8]); del flat[0]
d = dict(x=dict(y=1)); d['x']['z'] = 2; d.update(w=3); d.pop('w')
if a == 1:
    branch = 'yes'
else:
    branch = open('x')
typed: int = 4
s = {1, 2}
lst = list(zip([1, 2], 'ab'))
""")
    assert (
        (cfg['joined'], cfg['area'], cfg['names'], cfg['pairs'], cfg['cond'])
        == ('data/xz.txt', 14.57, ['y=  2'], dict(a=0, b=1), 'small')
    )
    assert (
        (cfg['text'], cfg['merged'], cfg['flat'], cfg['d'])
        == (
            'r-0051/y0;1;2',
            dict(a=1, b=2, c=3),
            [1, 1, 2, 9, 8],
            dict(x=dict(y=1, z=2)),
        )
    )
    assert (
        (cfg['n'], cfg['flags'], cfg['branch'], cfg['typed'], cfg['s'], cfg['lst'])
        == (
            18,
            (False, False, True, True, 'x'),
            'yes', 4,
            {1, 2},
            [(1, 'a'), (2, 'b')],
        )
    )
    assert 'osp' not in cfg and 'k' not in cfg


def test_custom_imports(tree, monkeypatch):
    tree(
        cls_extra_="raise SystemError('ran')",
        a="custom_imports = dict(imports=['cls_extra_'])",
        b="custom_imports = dict(imports='cls_nowhere_', allow_failed_imports=True)",
        c="custom_imports = dict(imports=['json'])",
        cls_good_="from clsnb.core.registry import MODELS\n@MODELS.register\nclass ClsGood_: pass",
        d="custom_imports = dict(imports=['cls_good_'])",
    )
    monkeypatch.syspath_prepend('.')
    cfg = Config.fromfile('a.py')
    assert 'trust=True' in refused(import_custom, cfg)
    with pytest.raises(SystemError): Config.fromfile('a.py', trust=True)
    Config.fromfile('b.py', trust=True)
    import_custom(Config.fromfile('c.py')) # json was imported before
    assert any(o[1] == 'custom_imports' for o in cfg.check())
    from clsnb.core.registry import MODELS
    assert 'ClsGood_' not in MODELS
    Config.fromfile('d.py', trust=True)
    assert 'ClsGood_' in MODELS
    import_custom(Config.fromfile('d.py'))
    del MODELS._classes['ClsGood_']


def test_trust(tree):
    tree(
        a="import math as m\ndef f(x): return x+1\nn = f(m.floor(2.5))\np = __file__",
        b="_base_ = 'a.py'\nk = {{_base_.n}}",
        c="n = 1\nx = n / 0",
    )
    assert 'a.py:2' in refused(Config.fromfile, 'a.py') and 'trust=True' in refused(Config.fromfile, 'b.py')
    cfg = Config.fromfile('b.py', trust=True)
    assert cfg == dict(n=3, p='a.py', k=3)
    assert 'c.py:2' in refused(Config.fromfile, 'c.py', trust=True)


# ---- overrides, as the tutorial describes them

@pytest.fixture
def cfg():
    return Config(dict(
        model=dict(backbone=dict(type='ResNet', depth=50, norm_eval=False, out_indices=(0, 1))),
        optimizer=dict(type='SGD', lr=.1),
        optimizer_config=dict(grad_clip=None),
        workflow=[('train', 1)],
        load_from=None,
        log_config=dict(hooks=[dict(type='TextLoggerHook')]),
        data=dict(
            samples_per_gpu=32,
            train=dict(type='A', pipeline=[dict(type='Load'), dict(type='RandomFlip', flip_prob=.5)]),
        ),
        train_pipeline=[1],
    ))


@pytest.mark.parametrize(
    'word, path, value',
    [
        ('optimizer.lr=0.01', ('optimizer', 'lr'), .01),
        ('model.backbone.norm_eval=True', ('model', 'backbone', 'norm_eval'), True),
        ('data.train.pipeline.1.flip_prob=0.0', ('data', 'train', 'pipeline', 1, 'flip_prob'), 0.),
        (
            'data.train.pipeline.0.type=LoadImageFromWebcam',
            ('data', 'train', 'pipeline', 0, 'type'),
            'LoadImageFromWebcam',
        ),
        ('workflow=[(train,1),(val,1)]', ('workflow',), [('train', 1), ('val', 1)]),
        ('workflow="[(train,1),(val,1)]"', ('workflow',), [('train', 1), ('val', 1)]),
        ('load_from=None', ('load_from',), None),
        ('load_from="None"', ('load_from',), 'None'),
        ("load_from='1'", ('load_from',), '1'),
        ('load_from=a=b.pth', ('load_from',), 'a=b.pth'),
        ('data.train.classes=[cat,dog]', ('data', 'train', 'classes'), ['cat', 'dog']),
        ('data.train.classes=cat,dog', ('data', 'train', 'classes'), ['cat', 'dog']),
        ('model.backbone.out_indices=(1,2,3)', ('model', 'backbone', 'out_indices'), (1, 2, 3)),
        ('model.backbone.out_indices=[]', ('model', 'backbone', 'out_indices'), []),
        ('model.backbone.out_indices.0=3', ('model', 'backbone', 'out_indices'), (3, 1)),
        ('optimizer_config.grad_clip.max_norm=5', ('optimizer_config',), dict(grad_clip=dict(max_norm=5))),
        ('log_config.hooks.0.by_epoch=false', ('log_config', 'hooks', 0, 'by_epoch'), False),
        ('optimizer.betas=(0.9,0.999)', ('optimizer', 'betas'), (.9, .999)),
        ('data.train.pipeline=[]', ('data', 'train', 'pipeline'), []),
        ('optimizer.lr=1e-4', ('optimizer', 'lr'), 1e-4),
        ('seed=-1', ('seed',), -1),
        ('optimizer={"lr": 1}', ('optimizer',), dict(type='SGD', lr=1)),
        (
            'model.backbone.init_cfg.type=Pretrained',
            ('model', 'backbone', 'init_cfg'),
            dict(type='Pretrained'),
        ),
        ('work_dir=runs/1 2', ('work_dir',), 'runs/1 2'),
        ('model.x=[(a,[1,(2,)]),{"b": (1)}]', ('model', 'x'), [('a', [1, (2,)]), dict(b=1)]),
    ],
)
def test_override(cfg, word, path, value):
    o = cfg.merge_from_dict(parse_options([word]))
    for k in path: o = o[k]
    assert o == value and type(o) in (type(value), ConfigDict)


def test_override_in_python(cfg):
    cfg.merge_from_dict({
        'model.backbone': dict(_delete_=True, type='VGG'),
        'optimizer': dict(lr=1),
        'data.train.pipeline.1': dict(flip_prob=0),
    })
    assert (cfg.model.backbone, cfg.optimizer) == (dict(type='VGG'), dict(type='SGD', lr=1))
    assert cfg.data.train.pipeline[1] == dict(type='RandomFlip', flip_prob=0)
    cfg.merge_from_dict(dict(data=dict(train=dict(pipeline=[dict(type='X')]))))
    assert cfg.data.train.pipeline == [dict(type='X')]
    assert cfg.data.samples_per_gpu == 32
    assert cfg.merge_from_dict(None) is cfg
    refused(cfg.merge_from_dict, {'data.train.pipeline.0.type': 'Y'}, allow_list_keys=False)


@pytest.mark.parametrize(
    'word',
    [
        'optimzer.lr=1', 'data.train.pipeline.9.x=1', 'data.train.pipeline.x.y=1', 'model.bakbone.depth=1',
        'optimizer.lr.x=1', 'noequals', 'workflow=[(1', 'unknown=1'
    ],
)
def test_override_leads_nowhere(cfg, word):
    before = copy.deepcopy(cfg)
    refused(lambda: cfg.merge_from_dict(parse_options([word])))
    assert cfg == before


def test_numbers_as_keys_pick_from_lists(cfg):
    cfg.merge_from_dict({
        'data': dict(
            train=dict(pipeline={'1': dict(flip_prob=0.), '0': dict(_delete_=True, type='LoadB')})
        ),
        'log_config.hooks': {0: dict(interval=5)},
    })
    assert cfg.data.train.pipeline == [dict(type='LoadB'), dict(type='RandomFlip', flip_prob=0.)]
    assert cfg.log_config.hooks == [dict(type='TextLoggerHook', interval=5)]
    assert '7' in refused(cfg.merge_from_dict, {'workflow': {'7': 1}})
    assert 'allow_list_keys' in refused(cfg.merge_from_dict, {'workflow': {'0': 1}}, allow_list_keys=False)
    assert 'optimizer.lr' in refused(cfg.merge_from_dict, {'optimizer': dict(lr=dict(a=1))})
    assert '_delete_' in refused(cfg.merge_from_dict, {'workflow': dict(a=1)})
    cfg.merge_from_dict({
        'optimizer_config': dict(grad_clip=dict(max_norm=1)), 'optimizer': dict(_delete_=False, lr=3)
    })
    assert cfg.optimizer_config.grad_clip == dict(max_norm=1)
    assert cfg.optimizer == dict(type='SGD', lr=3)


def test_overrides_of_a_script(cfg):
    p = argparse.ArgumentParser()
    p.add_argument('--cfg-options', nargs='+', action=DictAction)
    o = p.parse_args([
        '--cfg-options', 'optimizer.lr=0.5', 'workflow=[(train,2),(val,1)]', '--cfg-options', 'seed=7'
    ]).cfg_options
    assert o == {'optimizer.lr': .5, 'workflow': [('train', 2), ('val', 1)], 'seed': 7}
    assert cfg.merge_from_dict(o).workflow[1] == ('val', 1)
    assert p.parse_args([]).cfg_options is None
    with pytest.raises(SystemExit): p.parse_args(['--cfg-options', 'seed'])


def test_the_tutorial(tree):
    "A run made longer, a policy replaced, a pipeline changed through its variable: by the names of packaged configs"
    tree(configs__mine__longer="_base_ = 'resnet50_8xb32_in1k'\nrunner = dict(max_epochs=240)\nlr_config = dict(step=[120, 180])\ndata = dict(train=dict(data_prefix='mine/train'), val=dict(data_prefix='mine/val', ), test=dict(data_prefix='mine/val', ))",
         configs__mine__cosine="_base_ = './longer.py'\nlr_config = dict(_delete_=True, policy='CosineAnnealing', min_lr=0, warmup='linear', warmup_iters=7, warmup_ratio=.2, by_epoch=True)",
         configs__mine__large="""
            _base_ = 'longer.py'
            norm = dict(mean=[1., 2., 3.], std=[4., 5., 6.], to_rgb=True)
            train_pipeline = [dict(type='LoadImageFromFile'), dict(type='RandomResizedCrop', size=320, backend='pillow',), dict(type='Normalize', **norm)]
            data = dict(train=dict(pipeline=train_pipeline))""",
         configs__mine__policy="_base_ = ['./policies.py']\ntrain_pipeline = [dict(type='AutoAugment', policies={{_base_.mine}})]", configs__mine__policies="mine = [[dict(type='Posterize', bits=4, prob=.4)]]",
         configs__mine__trap="_base_ = 'longer.py'\nlr_config = dict(policy='CosineAnnealing', min_lr=0)\noptimizer = dict(type='AdamW', momntum=1)\nmodel = dict(head=dict(num_classes=2))")
    read = lambda o: Config.fromfile(f'configs/mine/{o}.py')
    base, longer, large = Config.fromfile('resnet50_8xb32_in1k'), read('longer'), read('large')
    assert {o[0] for o in longer.diff(base)} == {
        *(f'data.{k}.data_prefix' for k in ('train', 'val', 'test')), 'lr_config.step', 'runner.max_epochs'
    }
    assert longer.runner == dict(base.runner, max_epochs=240)
    assert longer.lr_config == dict(policy='step', step=[120, 180])
    assert longer.data.val.ann_file == base.data.val.ann_file
    assert read('cosine').lr_config == dict(
        policy='CosineAnnealing', min_lr=0, warmup='linear', warmup_iters=7, warmup_ratio=.2, by_epoch=True
    )
    assert large.data.train.pipeline[1] == dict(type='RandomResizedCrop', size=320, backend='pillow')
    assert large.data.train.pipeline[2].mean == [1., 2., 3.]
    assert large.data.val == longer.data.val
    assert read('policy').train_pipeline[0].policies == [[dict(type='Posterize', bits=4, prob=.4)]]
    found = {o[1]: o for o in read('trap').check(False)}
    assert '_delete_=True in lr_config' in found['lr_config'][2]
    assert 'longer.py:3' in found['lr_config'][2]
    assert '_delete_=True in optimizer' in found['optimizer.momentum'][2]
    assert '_delete_' not in found['optimizer.momntum'][2]
    assert 'topk=(1,)' in found['model.head.topk'][2]


def test_configs_of_other_times(tree, caplog):
    tree(
        new="optim_wrapper = dict(optimizer=dict(type='SGD'))\ntrain_dataloader = "
            "dict(batch_size=3)\nmodel = dict(type='ImageClassifier')",
        scope="_base_ = 'resnet18_8xb32_in1k'\ncustom_imports = dict(imports=['mmcls.models', "
              "'mmcls.core.hook'], allow_failed_imports=False)\nmodel = "
              "dict(backbone=dict(type='mmcls.ResNet'))",
    )
    assert [o[1] for o in Config.fromfile('new.py').check()] == ['optim_wrapper']
    assert Config.fromfile('scope.py').check(False) == [] and 'already registers' in caplog.text


def test_yaml_and_json_of_other_people(tree):
    tree(
        **{
            'a.yaml': 'lr: 1e-2\ndecay: 1E3\nbig: -2.5e+4\nday: 2024-01-31\ntime: 1:30\nnone: ~\non: '
                      '1.0e-1\nx: &x {a: 1, b: 2}\ny:\n  <<: *x\n  b: 3\nz: {<<: *x}',
            'b.json': '{"a": NaN, "b": -Infinity, "c": [1, 2.0, null, true]}',
        }
    )
    cfg = Config.fromfile('a.yaml')
    assert (
        (cfg.lr, cfg.decay, cfg.big, cfg.day, cfg.time, cfg.none)
        == (.01, 1000., -25000., '2024-01-31', '1:30', None)
    )
    assert cfg.y == dict(a=1, b=3)
    assert cfg.z == cfg.x
    cfg = Config.fromfile('b.json')
    assert cfg.a != cfg.a
    assert cfg.b == float('-inf')
    assert cfg.c == [1, 2., None, True]
    for n in ('resnet50_8xb32_in1k',): Config.fromfile(n).dump('r.yaml')
    t = time.perf_counter()
    Config.fromfile('r.yaml')._repr_html_()
    assert time.perf_counter()-t < 2


def test_yaml_merge_keys(tree):
    """`<<` of several mappings: the first one wins (as the specification says, whatever the release of PyYAML), own
    keys win over all"""
    tree(**{'merge.yaml': """
mine: &mine {lr: 1, steps: 3}
base: &base {lr: 2, steps: 4, decay: 5}
other: &other {lr: 6, decay: 7, momentum: 8}
two: {<<: [*mine, *base]}
three: {<<: [*mine, *base, *other]}
turned: {<<: [*other, *base, *mine]}
own: {<<: [*mine, *base], steps: 9}
own_first: {steps: 9, <<: [*mine, *base]}
chain: &chain {<<: *base, lr: 10}
chained: {<<: [*chain, *other], steps: 11}
one: {<<: *base}
none: {<<: [], a: 1}
equal: {=: 1}
""", 'scalar.yaml': 'a: 1\nb:\n  <<: 3', 'scalars.yaml': 'a: 1\nb:\n  <<: [3]', 'twice.yaml': 'x: &x {a: 1}\ny:\n  <<: *x\n  <<: *x',
            'loop.yaml': 'a: 1\nx: &x\n  <<: {<<: *x}'})
    cfg = Config.fromfile('merge.yaml')
    assert cfg.two == dict(lr=1, steps=3, decay=5)
    assert cfg.three == dict(lr=1, steps=3, decay=5, momentum=8)
    assert cfg.turned == dict(lr=6, steps=4, decay=7, momentum=8)
    assert cfg.own == cfg.own_first == dict(lr=1, steps=9, decay=5)
    assert cfg.chain == dict(lr=10, steps=4, decay=5)
    assert cfg.chained == dict(lr=10, steps=11, decay=5, momentum=8)
    assert cfg.one == cfg.base and cfg.none == dict(a=1) and cfg.equal == {'=': 1}
    for name, line, why in [
        ('scalar', 3, 'not a scalar'),
        ('scalars', 3, 'not a scalar'),
        ('twice', 4, 'twice'),
        ('loop', 2, 'merges itself'),
    ]:
        text = refused(Config.fromfile, f'{name}.yaml')
        assert text.startswith(f'{name}.yaml:{line}:') and why in text, text


def test_text_files_of_other_systems(tree):
    tree()
    for i, raw in enumerate([
        b'\xef\xbb\xbfa = 1\r\nb = dict(\r\n    c=2)\r\n',
        b'a = 1\rb = dict(c=2)',
        'a = 1\nb = dict(c=2) # größer'.encode(),
    ]):
        Path(f'{i}.py').write_bytes(raw)
        assert Config.fromfile(f'{i}.py') == dict(a=1, b=dict(c=2))
        assert Config.fromfile(f'{i}.py').where('a') == f'{i}.py:1'
    Path('数字.json').write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert Config.fromfile('数字.json') == dict(a=1)


def test_messages_name_what_is_near(tree, caplog):
    tree(
        configs___base___models__van_b2="x = 1",
        configs__v__a="_base_ = '../_base_/models/van-b2.py'",
        env="import os\nroot = os.environ.get('X', 'y')",
        attr="_base_ = 'env2.py'\n_base_.x.y = 1",
        env2="x = dict()",
    )
    assert Config.fromfile('configs/v/a.py') == dict(x=1)
    assert 'van_b2.py' in caplog.text
    assert "'van_b2.py'" in refused(Config.fromfile, 'configs/_base_/models/vn_b2.py')
    assert 'folder' in refused(Config.fromfile, 'configs')
    assert 'No config was given' in refused(Config.fromfile, '')
    assert '{{ $NAME:default }}' in refused(Config.fromfile, 'env.py')
    assert 'dict(y=VALUE)' in refused(Config.fromfile, 'attr.py')
    assert "'resnet50_8xb32_in1k'" in refused(Config.fromfile, 'configs/resnet/resnet50_8xb33_in1k.py')


# ---- what nobody may do

HOSTILE = {
    'import': "import subprocess",
    'from': "from os import system",
    'os': "import os\nos.system('touch ran')",
    'path': "import os.path as p\np.os.system('touch ran')",
    'dunder import': "a = __import__('os').system('touch ran')",
    'eval': "a = eval('1')",
    'exec': "exec('open(\"ran\", \"w\")')",
    'open': "a = open('ran', 'w')",
    'class': "a = ().__class__",
    'walk': "a = [c for c in ().__class__.__base__.__subclasses__()]",
    'attr': "a = 'x'.__add__",
    'globals': "a = (lambda: 0).__globals__",
    'format': "a = '{0.__class__}'.format(1)",
    'format item': "a = '{0[x]}'.format({})",
    'fstring': "a = f'{().__class__}'",
    'getattr': "a = getattr(1, 'real')",
    'type': "a = type(1)",
    'dict class': "a = dict.__init__",
    'fromkeys': "a = dict.fromkeys([1])",
    'method': "a = 'x'.join.__self__",
    'template': "a = {{_base_.__class__}}",
    'builtins': "a = __builtins__",
    'lambda': "a = lambda: 1",
    'def': "def f(): pass",
    'class def': "class A: pass",
    'for': "for i in range(9): pass",
    'while': "while True: pass",
    'with': "with open('x') as f: pass",
    'try': "try:\n    a = 1\nfinally: pass",
    'walrus': "a = (b := 1)",
    'decorator': "@x\ndef f(): pass",
    'generator': "a = (x for x in [1]).gi_frame",
    'global': "global a",
    'assert': "assert 0",
    'power': "a = 10**10**10",
    'power 2': "a = 9**64**9",
    'squares': "a = 3\n" + "a = a*a\n"*40,
    'text': "a = 'x' * 10**9",
    'double': "a = 'x'*99\n" + "a = a+a\n"*40,
    'bytes': "a = b'x'*10**10",
    'list': "a = [0] * 10**9",
    'nested': "a = [0]*1000\nb = [a]*1000\nc = [b]*1000",
    'nested 2': "a = str([[[0]*300]*300]*300)",
    'range': "a = list(range(10**12))",
    'loops': "a = [0 for i in range(9999) for j in range(9999)]",
    'equal': "a = [[0]*300]*300\nb = [[0]*300]*300\n" + "c = a==b\n"*9999,
    'hash': "a = ((0,)*300,)*300\nb = {" + ','.join(f'a: {i}' for i in range(5000)) + '}',
    'shift': "a = 1 << 10**9",
    'deep': "a = " + '['*90 + ']'*90,
    'deeper': "a = " + '('*50000 + ')'*50000,
    'minus': "a = " + '-'*100000 + '1',
    'plus': "a = " + '1+'*50000 + '1',
    'chain': "a = x" + '.y'*80000,
    'cycle': "a = []\na.append(a)",
    'cycle 2': "a = {}\na['x'] = a",
    'boxes': "a = []\n" + "a = [a]\n"*999,
    'width': "a = f'{1:>999999999}'",
    'width 2': "a = '%999999999d' % 1",
    'width 3': "a = f'{1:{10**9}}'",
    'replace': "a = ('a'*90000).replace('a', 'b'*90000)",
    'join': "a = ('a'*90000).join(['b']*90000)",
    'round': "a = round(1, -10**9)",
    'sum': "a = sum([[1]]*50000, [])",
    'int': "a = int('9'*90000)",
    'hex': "a = 0x" + 'f'*150000,
    'many': "a = 1\n"*75000,
    'sorts': "a = sorted([[0]*300]*300)\n"*2000,
    'slices': "a = 'x'*99999\n" + "b = a[1:]\n"*9999,
    'dicts': "d = {}\n" + ''.join(f"d = {{**d, 'k{i}': d}}\n" for i in range(40)),
    'extend': "a = [0]\n" + "a += a\n"*40,
    'secret': "a = '{{ $AWS_SECRET_ACCESS_KEY:x }}'",
    'null': "a = 1\0",
    'syntax': "a = (",
    'unicode': "a = ﬁle",
    'unpack': "a, b = [1]",
    'zero': "a = 1/0",
    'index': "a = [1][10**30]",
    'spec in spec': "a = '{:{}}'.format(1, 10**9)",
    'spec in spec 2': "w = '>99'\na = f'{1:{w}{w}9}'",
    'precision': "a = f'{1.5:.999999999f}'",
    'precision 2': "a = '%.999999999f' % 1.5",
    'star': "a = '%*d' % (10**9, 1)",
    'bytes width': "a = b'%999999999d' % 1",
    'format keyword': "a = '{x.__init__.__globals__}'.format(x=1)",
    'format map': "a = '{x}'.format_map({'x': 1})",
    'format grows': "a = 'x'\n" + "a = '{0}{0}'.format(a)\n"*40,
    'percent grows': "a = 'x'\n" + "a = '%s%s' % (a, a)\n"*40,
    'fstring grows': "a = 'x'\n" + "a = f'{a}{a}'\n"*40,
    'percent list': "x = [[0]*99]*99\na = ('%r'*900) % ((x,)*900)",
    'repr grows': "a = '\\\\'*99\n" + "a = repr(a)\n"*30,
    'replace nothing': "a = ('x'*90000).replace('', 'y'*90000)",
    'join rows': "a = ','.join('x'*999 for i in range(9999))",
    'zfill': "a = 'x'.zfill(10**9)",
    'tabs': "a = '\\t'.expandtabs(10**9)",
    'own value': "d = {}\nd['d'] = d\na = str(d)",
    'own update': "d = dict()\nd.update(d=d)",
    'own default': "d = {}\nd.setdefault('k', d)",
    'own item': "a = [0]\na[0] = a",
    'slice': "a = [0]\n" + "a[:] = a + a\n"*40,
    'insert slice': "a = [1]\n" + "a[0:0] = [a]*5\n"*40,
    'digits': "a = " + '9'*5000,
    'digits 2': "a = int('z'*99999, 36)",
    'digits 3': "a = str(2**64**2**9)",
    'factors': "a = 1\n" + "a *= 10**60\n"*500,
    'range number': "a = range(10**9)[5]",
    'range length': "a = len(range(10**18))",
    'range far': "a = range(10**30)",
    'range comp': "a = [0 for i in range(10**9)]",
    'range in': "a = -1 in range(10**9)",
    'zip': "r = range(99999)\na = zip(r,r,r,r,r,r,r,r,r,r)",
    'zip generators': "a = list(zip(" + '(i for i in range(99999)),'*4 + "))",
    'sum tuples': "a = sum(((1,),)*99999, ())",
    'dict comp': "a = {i: {j: 0 for j in range(999)} for i in range(999)}",
    'set comp': "a = {i*j for i in range(999) for j in range(999)}",
    'sort texts': "x = 'a'*99000\nb = [x+'b', x+'c']*400\n" + "c = sorted(b)\n"*200,
    'sort key': "a = sorted([1], key=eval)",
    'find': "x = 'a'*49000 + 'b'\ny = 'a'*99000\n" + "z = y.find(x)\n"*9000,
    'strip': "x = 'a'*99000\n" + "z = x.strip('a')\n"*15000,
    'remove': "a = [0]*99999\n" + "a.remove(0)\n"*20000,
    'same hash': "d = {i*(2**61-1) for i in range(1, 20000)}",
    'update': "d = {}\nd.update([(i*(2**61-1), 0) for i in range(12000)])",
    'same hash 2': "x = [i*(2**61-1) for i in range(5000)]\nd = dict(zip(x, x))",
    'same hash 3': "d = {(i*(2**61-1),): 0 for i in range(5000)}",
    'wide eval': "a = ｅval('1')",
    'superscript': "a = __impºrt__('os')",
    'wide dunder': "a = ()._＿class__",
    'coding': "# coding: rot13\nvzcbeg bf",
    'form feed': "\x0cimport subprocess",
    'crlf': "a = 1\r\nimport socket\r\n",
    'cr': "a = 1\rimport socket\r",
    'bom inside': "a = 1\n﻿b = 2",
    'nul in comment': "# \0",
    'match': "match 1:\n    case _: a = 1",
    'star import': "from math import *",
    'near import': "from . import x",
    'loader': "import math as m\na = m.__loader__",
    'path os': "import os.path\na = os.path.os.system('touch ran')",
    'environ': "import os\na = os.environ['HOME']",
    'shadow': "dict = eval\na = dict('1')",
    'function': "a = dict",
    'functions': "a = [str, int]",
    'module': "import os.path as osp\na = osp",
    'default': "a = max([], default=open)",
    'map': "a = map(eval, ['1'])",
    'iter': "a = iter(int, 1)",
    'factorial': "import math\na = math.factorial(10**6)",
    'math power': "import math\na = math.pow(10, 10**9)",
    'zero power': "a = 0 ** -1",
    'attribute': "a = {}\na.x = 1",
    'attribute 2': "a = {}\ndel a.x",
    'elif': "if 0: a = 1\n" + "elif 0: a = 1\n"*3000,
    'async': "a = [i async for i in []]",
    'await': "await x",
    'dots': "a = [...]",
    'open template': "a = {{ fileDirname",
    'own template': "a = {{x}}",
    'environment code': "a = {{ $CLS_NONE:__import__('os').system('touch') }}",
    'templates': "a = '" + '{{ fileDirname }}'*9000 + "'",
    'real path': "import os.path as osp\na = osp.realpath('/')",
    'home': "import os.path as osp\na = osp.expanduser('~')",
    'backslash': "a = 'C:\\Users\\me'",
}
FILES = {
    'loop_a.py': "_base_ = 'loop_b.py'",
    'loop_b.py': "_base_ = 'loop_a.py'",
    'self.py': "_base_ = 'self.py'",
    'passwd.py': "_base_ = '/etc/passwd'",
    'device.py': "_base_ = '/dev/zero'",
    'module.py': "_base_ = 'run_me'",
    'fan.py': "_base_ = ['empty.py']*1000",
    'web.py': "_base_ = 'http://127.0.0.1:9/x.py'",
    'number.py': '_base_ = 3',
    'fork.py': "_base_ = ['fork1.py', 'fork1.py']",
    **{f'fork{i}.py': f"_base_ = ['fork{i+1}.py', 'fork{i+1}.py']" for i in range(1, 30)},
    **{f'chain{i}.py': f"_base_ = 'chain{i+1}.py'" for i in range(60)},
    'chain60.py': 'x = 1',
    'fork30.py': '',
    'list.json': '[1]',
    'deep.json': '['*100000,
    'broken.json': '{',
    'int.json': '{"a": ' + '9'*9999 + '}',
    'bomb.yaml': 'a0: &a0 [1, 1]\n' + ''.join(f'a{i}: &a{i} [*a{i-1}, *a{i-1}]\n' for i in range(1, 40)),
    'merge.yaml': 'a0: &a0 {x: 1}\n' + ''.join(
        f'a{i}: &a{i} {{<<: [*a{i-1}, *a{i-1}]}}\n'
        for i in range(1, 40)
    ),
    'deep.yaml': '['*100000,
    'dash.yaml': '- '*50000,
    'code.yaml': 'a: !!python/object/apply:os.system ["touch ran"]',
    'cycle.yaml': 'a: &a [*a]',
    'huge.yaml': '- 1\n'*60000,
    'twice.json': '{"a": {"lr": 1, "lr": 2}}',
    'twice.yaml': 'a:\n  lr: 1\n  lr: 2',
    'comment.json': '{"a": 1} // x',
    'deep2.json': '{"a":'*500 + '1' + '}'*500,
    'keys.yaml': '\n'.join(f'{i*(2**61-1)}: 0' for i in range(9999)),
    'own.yaml': 'x: &x {<<: *x}',
    'two.yaml': 'a: 1\n---\nb: 2',
    'time.yaml': 'a: ' + ':'.join(['1']*90000),
    'hex.yaml': 'a: 0x' + 'f'*300000,
    'tag.yaml': '%TAG ! tag:yaml.org,2002:python/\n---\na: !object/apply:os.system [touch ran]',
    'module.yaml': 'a: !!python/module:os',
    'alias.yaml': 'a: &a [' + ','.join(['1']*900) + ']\n' + ''.join(f'b{i}: *a\n' for i in range(9000)),
    'bases.py': "_base_ = [" + ','.join(f"'m{i}.py'" for i in range(10000)) + "]",
    'bases2.py': "_base_ = ['empty.py' for i in range(10000)]",
    'long.py': "_base_ = '" + 'x/'*40000 + "y.py'",
    'nested.py': "_base_ = [['empty.py']]",
    'bytes.py': "_base_ = b'empty.py'",
    'folder_base.py': "_base_ = '..'",
    'pipe_base.py': "_base_ = 'pipe.py'",
    'environ.py': "_base_ = '/proc/self/environ'",
    'stdin.py': "_base_ = '/dev/stdin'",
    'through.py': "_base_ = 'here/here/through.py'",
    'nul_name.py': "_base_ = 'a\\0b.py'",
    'surrogate_name.py': "_base_ = '\\ud800.py'",
    'home.py': "_base_ = '~/x.py'",
    'half.py': "_base_ = '{{_base_.x}}'",
}
UNTRUSTED = [
    o
    for o in FILES
    if not o.startswith(('fork', 'chain', 'loop_b')) or o in ('fork.py', 'chain0.py')
]


@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_text(name):
    t = time.process_time()
    text = refused(read_text, HOSTILE[name], 'evil.py')
    assert time.process_time()-t < 2 and text.startswith('evil.py:') # a second on an idle core


@pytest.fixture
def hostile_folder(tmp_path):
    for k, v in FILES.items(): (tmp_path/k).write_text(v)
    (tmp_path/'empty.py').write_text('')
    (tmp_path/'run_me').write_text('x')
    (tmp_path/'picture.py').write_bytes(os.urandom(5000))
    (tmp_path/'utf16.py').write_text('a = 1', 'utf-16')
    (tmp_path/'nul.py').write_text('\0'*9999)
    (tmp_path/'big.py').write_text('a = "x"\n'*90000)
    (tmp_path/'notes.txt').write_text('a = 1')
    (tmp_path/'folder.py').mkdir()
    if hasattr(os, 'mkfifo'): os.mkfifo(tmp_path/'pipe.py')
    (tmp_path/'latin.py').write_bytes('a = "é"'.encode('latin1'))
    (tmp_path/'half_letter.py').write_bytes(b'a = "\xed\xa0\x80"')
    for k, v in dict(loop1='loop2.py', loop2='loop1.py', zero='/dev/zero', here='.').items():
        (tmp_path/(k if k=='here' else k+'.py')).symlink_to(v)
    return tmp_path


def test_hostile_files(hostile_folder, monkeypatch):
    monkeypatch.chdir(hostile_folder)
    for o in [
        *UNTRUSTED, 'picture.py', 'utf16.py', 'nul.py', 'big.py', 'notes.txt', 'folder.py', 'pipe.py',
        'latin.py', 'half_letter.py', 'loop1.py', 'zero.py'
    ]:
        t = time.perf_counter()
        refused(Config.fromfile, o)
        assert time.perf_counter()-t < 2, o
    assert not Path('ran').exists()


@pytest.mark.skipif(
    not Path('/proc/self/environ').exists(), reason='only where the system shows itself as files'
)
def test_files_of_the_system_are_not_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i, p in enumerate(['/proc/self/environ', '/proc/self/mem', '/proc/kmsg']):
        Path(f'{i}.py').symlink_to(p)
        try: assert Config.fromfile(f'{i}.py') == {}
        except ConfigError as e: assert 'HOME' not in str(e)


def test_nothing_happens(hostile_folder):
    "While hostile configs are read, Python's own audit sees no code run, no import and no file but the configs"
    for i, v in enumerate(HOSTILE.values()):
        (hostile_folder/f'h{i}.py').write_text(v)
    code = """
        import sys, os, glob, encodings.idna, encodings.utf_8_sig
        from clsnb.config.config import Config, list_configs
        from clsnb.config.keys import KEYS
        from clsnb.core.errors import ConfigError
        files, seen, on = sorted(glob.glob('*.*')), [], False
        list_configs()
        len(KEYS) # the declarations are read once
        try: Config.fromfile('nowhere')
        except ConfigError: pass
        def look(event, args):
            if not on: return
            if event.split('.')[0] in ('exec', 'import', 'subprocess', 'socket', 'ctypes', 'pickle', 'shutil', 'urllib') or event in ('os.system', 'os.exec', 'os.fork', 'os.remove', 'os.rename', 'os.putenv'): seen.append((event, str(args)[:80]))
            if event=='open' and args[0]!='<unknown>' and (os.path.basename(str(args[0])) not in [*files, 'deprecated.json'] or args[2] & (os.O_WRONLY | os.O_RDWR)): seen.append((event, str(args)[:80]))
        sys.addaudithook(look)
        n = 0
        for f in files:
            on = True
            try: Config.fromfile(f)
            except ConfigError: n += 1
            on = False
        print(n, seen)
    """
    p = subprocess.run(
        [sys.executable, '-c', textwrap.dedent(code)],
        cwd=hostile_folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    n, _, seen = p.stdout.strip().partition(' ')
    assert p.returncode == 0, p.stderr[-2000:]
    assert seen == '[]' and int(n) >= len(HOSTILE) and not (hostile_folder/'ran').exists()


# ---- dump and read

names = st.one_of(
    st.sampled_from('type model data lr dict list x_1 é ª'.split()),
    st.text('abcdefgXYZ_019', min_size=1, max_size=8),
).filter(lambda k: k.isidentifier() and not keyword.iskeyword(k) and not k.startswith('_'))
texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from([
        '{{ fileDirname }}', '{{_base_.x}}', '{{{{ fileBasename }}', '{{ $HOME:x }}', "it's \"so\"\n\\n",
        '%s', 'None'
    ]),
)
atoms = st.one_of(
    st.none(), st.booleans(), st.integers(-10**30, 10**30), st.floats(allow_nan=False),
    texts, st.binary(max_size=5)
)
keys = st.one_of(
    names, texts.filter(lambda k: k not in ('_delete_', '_base_')), st.integers(-9, 9)
)
trees = st.recursive(
    atoms,
    lambda v: st.one_of(
        st.lists(v, max_size=4),
        st.lists(v, max_size=4).map(tuple),
        st.dictionaries(keys, v, max_size=4),
        st.sets(st.integers(), max_size=3),
    ),
    max_leaves=25,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(
    names.filter(lambda k: unicodedata.normalize('NFKC', k) == k), trees, max_size=6
))
def test_dump_reads_back(tmp_path, d):
    cfg = Config(d)
    p = tmp_path/'c.py'
    cfg.dump(p)
    for again in (
        Config.fromfile(p),
        Config.fromstring(cfg.pretty_text),
        pickle.loads(pickle.dumps(cfg)),
        copy.deepcopy(cfg),
    ):
        assert again == cfg and same_types(again, cfg)
    cfg._repr_html_()
    assert not cfg.diff(Config.fromfile(p)) and (not d or cfg.diff_base())
    Config.fromfile(p)._repr_html_()


def same_types(a, b):
    if isinstance(a, dict):
        return (
            isinstance(b, dict)
            and list(a) == list(b)
            and all(same_types(a[k], b[k]) for k in a)
        )
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same_types, a, b))
    return type(a) is type(b)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text):
    for f in ('.py', '.json', '.yaml'):
        try: Config.fromstring(text, f)
        except ConfigError as e: assert '\n' not in str(e)


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from('abc01.,=[](){}"\' -e'), max_size=30))
def test_any_word_is_a_value_or_refused(word):
    try: parse_options([f'k={word}'])
    except ConfigError as e: assert '\n' not in str(e)


def test_long_lists_are_packed():
    cfg = Config(dict(
        classes=[f'class {i}' for i in range(1000)], deep=dict(a=dict(b=tuple(range(200))))
    ))
    text = cfg.pretty_text
    assert text.count('\n') < 200
    assert max(map(len, text.split('\n'))) <= 105
    assert Config.fromstring(text) == cfg


def test_dump_formats(tree, cfg):
    tree()
    cfg.model.backbone.out_indices = [1]
    cfg.workflow = []
    for o in ('a.json', 'a.yaml', 'a.py'):
        cfg.dump(o)
        assert Config.fromfile(o) == cfg
    cfg['not a name'] = 1
    refused(cfg.dump, 'b.py')
    cfg.dump('b.json')
    assert json.loads(Path('b.json').read_text())['not a name'] == 1


# ---- seeing and checking

def test_where_follows_changes(tree):
    tree(a="""
            size = 224
            p = [dict(type='A', size=size),
                 dict(type='B')]
            data = {'train': dict(pipeline=p + []), 'val': p}
            data['test'] = dict(pipeline=p)
         """, b="_base_ = 'a.py'\ndata = dict(train=dict(\n    n=1))")
    cfg = Config.fromfile('b.py')
    want = {
        'p.1.type': 'a.py:4',
        'data.val.0.size': 'a.py:3',
        'data.test.pipeline.1': 'a.py:4',
        'data.train.n': 'b.py:3',
        'data.train.pipeline': 'a.py:5',
        'size': 'a.py:2',
    }
    assert {k: cfg.where(k) for k in want} == want
    cfg.data.val[0].size = 3
    assert cfg.where('data.val.0.size') == 'set in Python'
    assert cfg.where('data.val.1.type') == 'a.py:4'
    assert "'pipelin'" in refused(cfg.where, 'data.test.pipelin')
    assert "'pipeline'" in refused(cfg.where, 'data.test.pipelin')
    assert copy.deepcopy(cfg).where('size') == 'a.py:2'
    assert [o[0] for o in cfg.diff_base()] == ['data.train.n', 'data.val.0.size']


def test_lost_variables(tree, caplog):
    tree(
        a="norm = dict(m=1)\np = [dict(**norm)]\nn = 10\ndata = dict(train=dict(pipeline=p), "
          "val=dict(pipeline=p))\nmodel = dict(head=dict(n=n))",
        b="_base_ = 'a.py'\np = []",
        c="_base_ = 'a.py'\np = []\ndata = dict(train=dict(pipeline=p), val=dict(pipeline=p))",
        d="_base_ = 'a.py'\nn = 3",
        e="_base_ = 'a.py'\nn = 3\nmodel = dict(head=dict(n=n))",
        f="_base_ = 'a.py'\nnorm = dict(m=2)",
        g="_base_ = 'a.py'\np = []\ndata = dict(train=dict(pipeline=p))",
    )
    def said(f):
        caplog.clear()
        Config.fromfile(f)
        return [r.getMessage() for r in caplog.records]
    assert 'b.py:2 changes p' in said('b.py')[0]
    assert 'data = dict(train=dict(pipeline=p))' in said('b.py')[0]
    assert len(said('b.py')) == 1
    assert said('c.py') == said('e.py') == said('a.py') == []
    assert 'model.head.n' in said('d.py')[0]
    assert 'norm' in said('f.py')[0]
    assert 'data.val.pipeline' in said('g.py')[0]
    caplog.clear()
    cfg = Config.fromfile('a.py')
    cfg.train_pipeline = 1
    cfg['p'] = [1]
    assert any('p' == o[1] and 'later change' in o[2] for o in cfg.check())


def test_mistyped_variables(tree, caplog):
    tree(
        a="optimizer = dict(lr=1)\ntrain_pipeline = []\ndata = dict(train=dict(pipeline=train_pipeline))",
        b="_base_ = 'a.py'\noptimiser = dict(lr=2)\ntrain_pipelin = [1]\nrun = 3",
        c="_base_ = 'a.py'\noptimizers = dict(lr=2)\noptimizer = optimizers",
        e="runner_ = 1",
        f="_base_ = ['a.py', 'e.py']\nrunner = dict(max_epochs={{_base_.runner_}})",
    )
    def said(f):
        caplog.clear()
        Config.fromfile(f)
        return [r.getMessage() for r in caplog.records]
    assert [o.split()[2] for o in said('b.py')] == ["'optimiser',", "'train_pipelin',"]
    assert "'optimizer'" in said('b.py')[0]
    assert 'b.py:2' in said('b.py')[0]
    assert said('a.py') == said('c.py') == said('f.py') == []
    assert {'optimiser', 'train_pipelin'} <= {o[1] for o in Config.fromfile('b.py').check()}


def test_check_finds(tree):
    tree(mine="""
        _base_ = 'resnet18-tiny_1xb16_photos'
        model = dict(backbone=dict(depth=18, stem_chanels=8), head=dict(num_classes=7, in_channels=128, topk=(1, 9)))
        data = dict(val=dict(ann_file='nowhere.txt'))
        lr_config = dict(_delete_=True, policy='step', step=[20, 90])
        optimizer = dict(type='AdmW')
        load_from = 'gone.pth'""")
    found = {(o[1], o[3]) for o in Config.fromfile('mine.py').check()}
    for o in [
        ('model.backbone.stem_chanels', 'mine.py:3'),
        ('model.head.num_classes', 'mine.py:3'),
        ('model.head.topk', 'mine.py:3'),
        ('data.val.ann_file', 'mine.py:4'),
        ('lr_config.step', 'mine.py:5'),
        ('optimizer.type', 'mine.py:6'),
        ('load_from', 'mine.py:7'),
    ]:
        assert o in found, (o, found)
    good = Config.fromfile('resnet18-tiny_1xb16_photos')
    before = copy.deepcopy(good)
    del good.model.head['num_classes']
    assert good.check() == []
    assert 'num_classes' not in good.model.head
    assert good.facts.input_size == (96, 96)
    wide = before.merge_from_dict({'model.backbone.base_channels': 24}).check()
    assert [(o[0], o[1]) for o in wide] == [('error', 'model.head.in_channels')]
    assert '192' in wide[0][2]
    assert Config(dict(model=3, data=None)).check().errors and Config().check().errors


def test_check_needs_no_other_import():
    "The method is there for whoever imported `Config` alone"
    code = (
        "from clsnb.config.config import Config; "
        "print(len(Config.fromfile('resnet18-tiny_1xb16_photos').check()))"
    )
    p = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=300)
    assert p.stdout.strip() == '0', p.stderr[-2000:]


def test_count_classes(tmp_path):
    for o in ('cat', 'dog', '.hidden'): (tmp_path/o).mkdir()
    assert (
        count_classes(dict(type='CustomDataset', data_prefix=str(tmp_path)))
        == 2
        == count_classes([dict(type='CustomDataset', classes=['a', 'b'])])
    )
    assert count_classes(dict(type='ClassBalancedDataset', dataset=dict(type='CIFAR10'))) == 10
    assert count_classes(dict(type='Nonsense')) is None


def test_scaling(tree):
    cfg = Config.fromfile('resnet50_8xb32_in1k')
    assert str(lr_scaling(cfg)) == 'base 0.1 at batch 256 → 0.0125 at 1×32'
    assert lr_scaling(cfg, 8).new_lr == .1
    tree(mine="_base_ = 'resnet50_8xb32_in1k'\ndata = dict(samples_per_gpu=64)")
    mine = Config.fromfile('mine.py')
    assert '0.025' in scale_lr(mine) and mine.optimizer.lr == .1
    assert scale_lr(mine, 1, True)
    assert mine.optimizer.lr == .025
    assert scale_lr(Config(mine.to_dict()))
    assert mine.optimizer.lr == .025
    mine = Config.fromfile('mine.py').merge_from_dict({'optimizer.lr': .3})
    assert scale_lr(mine) == ''


def test_copy_config(tree):
    tree()
    want = Config.fromfile('resnet50_8xb32_in1k')
    assert (
        Config.fromfile(copy_config('resnet50_8xb32_in1k'))
        == want
        == Config.fromfile(copy_config('resnet50_8xb32_in1k', 'configs', bases=True))
    )
    assert Path('configs/_base_/models/resnet50.py').is_file()
    assert Path('configs/resnet/resnet50_8xb32_in1k.py').is_file()
    Path('resnet50_8xb32_in1k.py').write_text('x = 1')
    refused(copy_config, 'resnet50_8xb32_in1k')


def test_merge_leaves_its_parts_alone():
    a = dict(x=dict(y=1))
    b = dict(x=dict(z=2, _delete_=False))
    merge(a, b)['x']['y'] = 5
    assert a == dict(x=dict(y=1)) and b == dict(x=dict(z=2, _delete_=False))


def test_config_dict():
    d = ConfigDict(a=[dict(b=1)])
    d.c = dict(e=1)
    d.update(f=dict(g=2))
    d.setdefault('h', dict(i=3))
    assert (d.a[0].b, d.c.e, d.f.g, d.h.i) == (1, 1, 2, 3)
    assert type(d.to_dict()['a'][0]) is dict
    with pytest.raises(AttributeError): d.zz
    with pytest.raises(KeyError): d['zz']
    del d.a
    assert 'a' not in d and copy.copy(d) == d


def cli(*args):
    return subprocess.run([sys.executable, '-m', 'clsnb', *args], capture_output=True, text=True, timeout=120)


def test_commands(tree):
    tree(mine="_base_ = 'resnet18-tiny_1xb16_photos'\noptimizer = dict(lr=1.)", evil="import subprocess")
    p = cli(
        'print-config', 'mine.py', '--cfg-options',
        'runner.max_epochs=3',
        'data.train.pipeline.2.flip_prob=0.0',
    )
    assert p.returncode == 0
    cfg = Config.fromstring(p.stdout)
    assert (
        (cfg.optimizer.lr, cfg.runner.max_epochs, cfg.data.train.pipeline[2].flip_prob)
        == (1., 3, 0.)
    )
    p = cli('print-config', 'evil.py')
    assert p.returncode == 2
    assert p.stderr.count('\n') == 1
    assert '--trust' in p.stderr
    p = cli('check', 'mine.py', '--cfg-options', 'model.head.num_classes=9')
    assert p.returncode == 1
    assert 'model.head.num_classes' in p.stdout
    assert cli('check', 'mine.py').returncode == 0
    assert cli('copy-config', 'resnet50_8xb32_in1k', '--bases').returncode == 0
