"Code for mmcls and mmcv under `clsnb.compat`: every import, and the custom parts of the tutorials in a training"
import json, os, re, subprocess, sys
from pathlib import Path
import pytest
from clsnb.compat import finder
from clsnb.compat.migrate import migrate
from clsnb.compat.mmpretrain import translate_config
from clsnb.compat.names import Place, _rows
from clsnb.compat.rewrite import rewrite_imports
from clsnb.config.config import Config
from clsnb.core.errors import ConfigError

here = Path(__file__).parent
user_imports = [line.split(': ') for line in (here/'data/mmcls_imports.txt').read_text().splitlines()]
photos = here.parent/'clsnb/photos'

@pytest.fixture
def compat(monkeypatch, tmp_path):
    "The hook, with the current folder as project; gone afterwards"
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert finder.install()
    yield finder
    finder.uninstall()
    finder.project_roots.clear()
    sys.path[:] = before

def write_files(folder, files):
    for name,text in files.items():
        path = Path(folder)/name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

def clsnb(*words, cwd, **env):
    env = {k: v for k,v in os.environ.items() if k!='CLSNB_COMPAT'} | env
    return subprocess.run([sys.executable, '-m', 'clsnb', *map(str, words)], cwd=cwd, capture_output=True, text=True,
                          timeout=300, env=env)

# ---- names

@pytest.mark.parametrize('module,names', user_imports)
def test_what_users_import_is_there_or_says_what_to_use(compat, module, names):
    for name in names.split():
        scope = {}
        try: exec(f'from {module} import {name}', scope)
        except ImportError as e: pytest.fail(str(e))
        assert scope[name] is not None

def test_every_row_of_the_table_leads_somewhere():
    for there,here,names in _rows():
        for old,new in names: assert Place(here, new).load() is not None, (there, old)

def test_a_name_is_the_object_of_clsnb(compat):
    import mmcls, mmcv
    from mmcls.models import BACKBONES, ResNet
    from mmcv.runner import HOOKS
    from mmcls.models.losses.accuracy import Accuracy
    from mmcls.models.losses import accuracy
    from clsnb.core import registry
    assert BACKBONES is registry.BACKBONES and HOOKS is registry.HOOKS and BACKBONES.get('ResNet') is ResNet
    assert mmcls.__version__=='0.25.0' and mmcv.__version__=='1.7.2'
    assert callable(accuracy) and Accuracy.__module__.startswith('clsnb')
    assert mmcls.models.heads.cls_head.ClsHead and mmcv.runner.hooks.Hook
    assert not hasattr(mmcls.models, 'Nothing') and getattr(mmcv, 'nothing', 3)==3
    scope = {}
    exec('from mmcls.datasets.pipelines import *', scope)
    assert {'Resize', 'Compose', 'Collect'} <= scope.keys()

@pytest.mark.parametrize('statement,part', [
    ('from mmcv.ops import nms', 'torchvision.ops'), ('import mmcv.ops', 'torchvision.ops'),
    ('from mmcls.models import NoSuchNet', 'clsnb.compat has no mmcls.models.NoSuchNet.'),
    ('from mmcv.utils import ConvModule', 'ConvModule is in clsnb.layers.conv'),
    ('import mmcls.no_such', 'clsnb.compat has no mmcls.no_such')])
def test_what_is_nowhere_says_so_in_one_line(compat, statement, part):
    with pytest.raises(ImportError) as found: exec(statement, {})
    assert part in str(found.value) and '\n' not in str(found.value)

def test_importing_the_names_loads_no_heavy_library():
    code = 'import sys, clsnb.compat.mmcls, mmcls, mmcv; sys.exit("torch" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code]).returncode==0

# ---- what is installed stays

@pytest.mark.parametrize('files,real', [
    ({'mmcv/__init__.py': "__version__ = '1.7.0'"}, 'mmcv'),
    ({'mmcls/__init__.py': "__version__ = '0.25.0'"}, 'mmcls'),
    ({'mmcls/__init__.py': "import mmcv\nfrom .version import __version__"}, None), # a copy that cannot run
    ({'mmcls/__init__.py': ''}, None), ({'mmcls/core/my.py': ''}, None), ({}, None)])
def test_an_installed_package_is_not_replaced(tmp_path, files, real):
    write_files(tmp_path, files)
    code = 'import clsnb.compat.mmcls as c, mmcls, mmcv; print(c.installed, mmcls.__version__, mmcv.__version__)'
    def run(**env):
        env = {k: v for k,v in os.environ.items() if k!='CLSNB_COMPAT'} | env
        env['PYTHONPATH'] = f"{env.get('PYTHONPATH', '')}{os.pathsep}{tmp_path}"
        return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=env)
    first = run()
    if real is None: assert first.stdout=='True 0.25.0 1.7.2\n', first.stderr
    else:
        assert 'True' not in first.stdout and f'{real} (' in first.stderr and 'CLSNB_COMPAT=shadow' in first.stderr
        assert run(CLSNB_COMPAT='shadow').stdout=='True 0.25.0 1.7.2\n'

# ---- the project's own files

hook_file = '''
from mmcv.runner import HOOKS, Hook

@HOOKS.register_module()
class MyHook(Hook):

    def __init__(self, a, b):
        self.a, self.b = a, b
        self.counts = dict(before_run=0, after_run=0, before_epoch=0, after_epoch=0, before_iter=0, after_iter=0)

    def before_run(self, runner):
        self.counts['before_run'] += 1
        self.first = next(runner.model.parameters()).detach().clone()

    def after_run(self, runner):
        import json, os.path as osp
        self.counts['after_run'] += 1
        net = runner.model
        facts = dict(self.counts, a=self.a, b=self.b, stem=list(net.backbone.conv1.kernel_size),
                     stride=list(net.backbone.conv1.stride), neck=type(net.neck).__module__,
                     head=type(net.head).__module__, bias=net.head.fc.bias is None,
                     optimizer=type(runner.optimizer).__name__, groups=len(runner.optimizer.param_groups),
                     moved=bool((next(net.parameters()) != self.first).any()),
                     order=[type(h).__name__ for h in runner.hooks],
                     loss=runner.log_buffer.output.get('loss'),
                     data=type(runner.data_loader.dataset).__module__)
        with open(osp.join(runner.work_dir, 'facts.json'), 'w') as f: json.dump(facts, f)

    def before_epoch(self, runner): self.counts['before_epoch'] += 1
    def after_epoch(self, runner): self.counts['after_epoch'] += 1
    def before_iter(self, runner): self.counts['before_iter'] += 1
    def after_iter(self, runner): self.counts['after_iter'] += 1
'''
tutorials = {
    'mmcls/datasets/filelist.py': '''
import mmcv
import numpy as np

from .builder import DATASETS
from .base_dataset import BaseDataset

@DATASETS.register_module()
class Filelist(BaseDataset):

    def load_annotations(self):
        assert isinstance(self.ann_file, str)

        data_infos = []
        with open(self.ann_file) as f:
            samples = [x.strip().split(' ') for x in f.readlines()]
            for filename, gt_label in samples:
                info = {'img_prefix': self.data_prefix}
                info['img_info'] = {'filename': filename}
                info['gt_label'] = np.array(gt_label, dtype=np.int64)
                data_infos.append(info)
        return data_infos
''',
    'mmcls/datasets/__init__.py': '''
from .base_dataset import BaseDataset
from .filelist import Filelist

__all__ = ['BaseDataset', 'Filelist']
''',
    'mmcls/datasets/pipelines/my_pipeline.py': '''
from mmcls.datasets import PIPELINES

@PIPELINES.register_module()
class MyTransform(object):

    def __call__(self, results):
        results['img'] = results['img']*0 + 7
        return results
''',
    'mmcls/datasets/pipelines/__init__.py': 'from .my_pipeline import MyTransform\n',
    'mmcls/models/backbones/small_stem.py': '''
import torch.nn as nn
from mmcv.cnn import build_conv_layer, build_norm_layer

from ..builder import BACKBONES
from .resnet import ResNet

@BACKBONES.register_module()
class SmallStem(ResNet):

    def __init__(self, depth, deep_stem=False, **kwargs):
        super(SmallStem, self).__init__(depth, deep_stem=deep_stem, **kwargs)
        assert not self.deep_stem, 'SmallStem does not support deep_stem'

    def _make_stem_layer(self, in_channels, base_channels):
        self.conv1 = build_conv_layer(
            self.conv_cfg, in_channels, base_channels, kernel_size=3, stride=1, padding=1, bias=False)
        self.norm1_name, norm1 = build_norm_layer(self.norm_cfg, base_channels, postfix=1)
        self.add_module(self.norm1_name, norm1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.relu(self.norm1(self.conv1(x)))
        outs = []
        for i, layer_name in enumerate(self.res_layers):
            x = getattr(self, layer_name)(x)
            if i in self.out_indices:
                outs.append(x)
        return tuple(outs)
''',
    'mmcls/models/backbones/__init__.py': 'from .resnet import ResNet\nfrom .small_stem import SmallStem\n',
    'mmcls/models/necks/my_gap.py': '''
import torch.nn as nn

from ..builder import NECKS

@NECKS.register_module()
class MyPooling(nn.Module):

    def __init__(self):
        super().__init__()
        self.gap = nn.AdaptiveAvgPool2d((1, 1))

    def forward(self, inputs):
        inputs = inputs[-1] if isinstance(inputs, tuple) else inputs
        outs = self.gap(inputs)
        return outs.view(inputs.size(0), -1)
''',
    'mmcls/models/heads/my_head.py': '''
import torch.nn as nn
import torch.nn.functional as F
from mmcv.cnn import normal_init

from ..builder import HEADS
from .cls_head import ClsHead

@HEADS.register_module()
class MyHead(ClsHead):

    def __init__(self, num_classes, in_channels, loss=dict(type='CrossEntropyLoss', loss_weight=1.0), topk=(1, )):
        super(MyHead, self).__init__(loss=loss, topk=topk)
        self.in_channels = in_channels
        self.num_classes = num_classes
        if self.num_classes <= 0:
            raise ValueError(f'num_classes={num_classes} must be a positive integer')
        self._init_layers()

    def _init_layers(self):
        self.fc = nn.Linear(self.in_channels, self.num_classes)

    def init_weights(self):
        normal_init(self.fc, mean=0, std=0.01, bias=0)

    def forward_train(self, x, gt_label):
        cls_score = self.fc(x)
        target = F.one_hot(gt_label, self.num_classes).float()
        return dict(loss=self.compute_loss(cls_score, target))

    def simple_test(self, x, softmax=True, post_process=True):
        pred = self.fc(x).softmax(1)
        return self.post_process(pred) if post_process else pred
''',
    'mmcls/models/losses/l1_loss.py': '''
import torch
import torch.nn as nn

from ..builder import LOSSES
from .utils import weighted_loss

@weighted_loss
def l1_loss(pred, target):
    assert pred.size() == target.size() and target.numel() > 0
    loss = torch.abs(pred - target)
    return loss

@LOSSES.register_module()
class L1Loss(nn.Module):

    def __init__(self, reduction='mean', loss_weight=1.0):
        super(L1Loss, self).__init__()
        self.reduction = reduction
        self.loss_weight = loss_weight

    def forward(self, pred, target, weight=None, avg_factor=None, reduction_override=None):
        assert reduction_override in (None, 'none', 'mean', 'sum')
        reduction = (reduction_override if reduction_override else self.reduction)
        return self.loss_weight * l1_loss(pred, target, weight, reduction=reduction, avg_factor=avg_factor)
''',
    'mmcls/models/losses/__init__.py': "from .l1_loss import L1Loss, l1_loss\n\n__all__ = ['L1Loss', 'l1_loss']\n",
    'mmcls/core/optimizer/my_optimizer.py': '''
from mmcv.runner import OPTIMIZERS
from torch.optim import SGD

@OPTIMIZERS.register_module()
class MyOptimizer(SGD):

    def __init__(self, params, a, b, c):
        super().__init__(params, lr=a, momentum=b, weight_decay=c)
''',
    'mmcls/core/optimizer/__init__.py': "from .my_optimizer import MyOptimizer\n\n__all__ = ['MyOptimizer']\n",
    'mmcls/core/__init__.py': 'from .optimizer import *  # noqa: F401, F403\n',
    'mmcls/core/my_constructor.py': '''
from mmcv.runner.optimizer import OPTIMIZER_BUILDERS, OPTIMIZERS
from mmcv.utils import build_from_cfg

@OPTIMIZER_BUILDERS.register_module()
class MyOptimizerConstructor:

    def __init__(self, optimizer_cfg, paramwise_cfg=None):
        self.optimizer_cfg = optimizer_cfg

    def __call__(self, model):
        cfg = dict(self.optimizer_cfg, params=[dict(params=[p]) for p in model.parameters()])
        return build_from_cfg(cfg, OPTIMIZERS)
''',
    'mmcls/core/utils/my_hook.py': hook_file,
}
tutorial_config = f'''
custom_imports = dict(
    imports=['mmcls.core.utils.my_hook', 'mmcls.core.my_constructor', 'mmcls.models.necks.my_gap',
             'mmcls.models.heads.my_head'],
    allow_failed_imports=False)
pipeline = [
    dict(type='LoadImageFromFile'), dict(type='Resize', size=(32, 32)), dict(type='MyTransform'),
    dict(type='Normalize', mean=[120, 120, 120], std=[60, 60, 60], to_rgb=True),
    dict(type='ImageToTensor', keys=['img']), dict(type='ToTensor', keys=['gt_label']),
    dict(type='Collect', keys=['img', 'gt_label'])]
split = dict(type='Filelist', data_prefix={str(photos)!r}, ann_file='image_list.txt', pipeline=pipeline,
             classes=['animal', 'building', 'fish', 'solar', 'tool', 'windmill'])
data = dict(samples_per_gpu=4, workers_per_gpu=0, train=split, val=split, test=split)
evaluation = dict(interval=1, metric='accuracy', metric_options=dict(topk=(1,)))
model = dict(
    type='ImageClassifier',
    backbone=dict(type='SmallStem', depth=18, stem_channels=8, base_channels=8),
    neck=dict(type='MyPooling'),
    head=dict(type='MyHead', num_classes=6, in_channels=64, loss=dict(type='L1Loss', loss_weight=1.0)))
optimizer = dict(type='MyOptimizer', a=0.01, b=0.9, c=0.0, constructor='MyOptimizerConstructor')
optimizer_config = dict(grad_clip=None)
lr_config = dict(policy='step', step=[1])
runner = dict(type='EpochBasedRunner', max_epochs=2)
checkpoint_config = dict(interval=1)
log_config = dict(interval=1, hooks=[dict(type='TextLoggerHook')])
custom_hooks = [dict(type='MyHook', a=1, b=2, priority='ABOVE_NORMAL')]
dist_params = dict(backend='gloo')
log_level = 'INFO'
load_from = None
resume_from = None
workflow = [('train', 1)]
'''

def tutorial_project(folder):
    write_files(folder, {**tutorials, 'configs/mine.py': tutorial_config,
                         'image_list.txt': '\n'.join((photos/'train.txt').read_text().splitlines()[::10])})

@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('tutorials')
    tutorial_project(folder)
    done = clsnb('train', 'configs/mine.py', '--trust', '--compat', '--work-dir', 'out', cwd=folder)
    assert done.returncode==0, done.stderr[-3000:]
    return folder,json.loads((folder/'out/facts.json').read_text())

def test_the_code_of_tutorials_3_to_7_has_its_effect(trained):
    folder,facts = trained
    steps = 2*4 # 13 pictures, 4 in a batch
    assert facts['stem']==[3, 3] and facts['stride']==[1, 1]
    assert facts['neck']=='mmcls.models.necks.my_gap' and facts['head']=='mmcls.models.heads.my_head'
    assert facts['data']=='mmcls.datasets.filelist' and facts['optimizer']=='MyOptimizer'
    assert facts['groups']>20 and facts['moved'] and (facts['a'], facts['b'])==(1, 2)
    assert [facts[o] for o in ('before_run', 'after_run', 'before_epoch', 'after_epoch')]==[1, 1, 2, 2]
    assert facts['before_iter']==facts['after_iter']==steps
    order = facts['order']
    assert order.index('LrUpdaterHook') < order.index('MyHook') < order.index('CheckpointHook')

def test_a_checkpoint_of_the_project_is_tested(trained):
    folder,_ = trained
    words = '--trust --compat --metrics accuracy --json'.split()
    done = clsnb('test', 'configs/mine.py', 'out/latest.pth', *words, cwd=folder)
    assert done.returncode==0, done.stderr[-2000:]

def test_a_config_that_names_modules_of_mmcls_needs_no_switch(tmp_path):
    "`custom_imports` installs the names; what only an `__init__.py` imports comes, too"
    tutorial_project(tmp_path)
    code = ("from clsnb.config.config import Config; cfg = Config.fromfile('configs/mine.py', trust=True)\n"
            "from clsnb.core.registry import DATASETS, HOOKS; print('Filelist' in DATASETS, 'MyHook' in HOOKS)")
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True)
    assert 'True' in done.stdout.split()[-1:], done.stderr

def test_without_trust_no_file_of_the_project_runs(tmp_path):
    write_files(tmp_path, {'mmcls/core/utils/my_hook.py': "raise SystemError('it ran')", 'a.py': tutorial_config,
                           'mmcls/core/__init__.py': 'from .utils import *'})
    done = clsnb('train', 'a.py', '--compat', cwd=tmp_path)
    assert done.returncode==2 and '--trust' in done.stderr and 'it ran' not in done.stderr
    assert 'PYTHONPATH' not in done.stderr and len(done.stderr.strip().splitlines())==1

def test_a_module_outside_the_tree_needs_the_switch_and_is_told_of_it(tmp_path):
    write_files(tmp_path, {'my_hook.py': hook_file, 'configs/a.py': "custom_imports = dict(imports=['my_hook'])\nx = 1"})
    plain = clsnb('print-config', 'configs/a.py', '--trust', cwd=tmp_path)
    assert plain.returncode==2 and '--compat' in plain.stderr and 'from clsnb.all import HOOKS, Hook' in plain.stderr
    assert clsnb('print-config', 'configs/a.py', '--trust', '--compat', cwd=tmp_path).returncode==0

def test_processes_started_from_here_have_the_names(compat):
    code = 'import clsnb, mmcv; print(mmcv.__version__)'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout=='1.7.2\n'

def test_a_misspelt_package_is_named(tmp_path):
    write_files(tmp_path, {'a.py': "custom_imports = dict(imports=['mmls.core.optimizer.my_optimizer'])"})
    with pytest.raises(ConfigError, match="Did you mean 'mmcls'"): Config.fromfile(tmp_path/'a.py', trust=True)

def test_a_file_under_the_name_of_a_module_of_clsnb_is_passed_over(compat, tmp_path, caplog):
    write_files(tmp_path, {'mmcls/models/necks/gap.py': "raise SystemError('it ran')",
                           'a.py': "custom_imports = dict(imports=['mmcls.models.necks.gap'])"})
    Config.fromfile(tmp_path/'a.py', trust=True)
    from mmcls.models.necks.gap import GlobalAveragePooling
    assert GlobalAveragePooling.__module__.startswith('clsnb') and 'another name' in caplog.text

# ---- clsnb migrate

def migrated(folder, *words):
    done = clsnb('migrate', folder, '--json', *words, cwd=folder)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode,json.loads(done.stdout.splitlines()[-1])

def test_a_project_is_rewritten_and_trains_without_the_names(tmp_path):
    "After `--write` nothing imports mmcls or mmcv; what was written has the same effect"
    tutorial_project(tmp_path)
    write_files(tmp_path, {'run.sh': 'bash tools/dist_train.sh configs/mine.py 2\n'})
    status,found = migrated(tmp_path)
    assert status==1 and found['counts']['change'] >= 9 and not found['written']
    assert (tmp_path/'mmcls/datasets/filelist.py').read_text()==tutorials['mmcls/datasets/filelist.py']
    assert any(o['file']=='configs/mine.py' and 'Filelist' in o['text'] for o in found['notes'])
    status,found = migrated(tmp_path, '--write')
    assert status==0 and (tmp_path/'run.sh').read_text()=='clsnb dist-train configs/mine.py 2\n'
    assert (tmp_path/'run.sh.bak').exists()
    for path in tmp_path.rglob('*.py'):
        assert path.name=='__init__.py' or not re.search(r'(from|import) (mmcls|mmcv|\.)', path.read_text()), path
        compile(path.read_text(), path, 'exec')
    assert migrated(tmp_path)[1]['counts'].get('change', 0)==0
    done = clsnb('train', 'configs/mine.py', '--trust', '--compat', '--work-dir', 'out', '--cfg-options',
                 'runner.max_epochs=1', cwd=tmp_path)
    assert done.returncode==0, done.stderr[-2000:]
    assert json.loads((tmp_path/'out/facts.json').read_text())['stem']==[3, 3]

def git(folder, *words):
    subprocess.run(['git', '-c', 'user.name=a', '-c', 'user.email=a@b', *words], cwd=folder, check=True, capture_output=True)

def test_changes_that_are_not_committed_are_not_written_over(tmp_path):
    write_files(tmp_path, {'a.py': hook_file, 'run.sh': 'python tools/train.py a.py\n'})
    git(tmp_path, 'init')
    git(tmp_path, 'add', 'a.py')
    git(tmp_path, 'commit', '-m', 'first')
    (tmp_path/'a.py').write_text(hook_file+'# mine\n')
    with pytest.raises(ConfigError, match='commit or undo'): migrate(tmp_path, write=True)
    assert 'tools/train.py' in (tmp_path/'run.sh').read_text()
    git(tmp_path, 'commit', '-am', 'second')
    migrate(tmp_path, write=True)
    assert 'from clsnb' in (tmp_path/'a.py').read_text() and not (tmp_path/'a.py.bak').exists()
    assert (tmp_path/'run.sh.bak').exists()

def test_nothing_of_a_project_runs(tmp_path):
    bad = "import mmcv\nraise SystemError('it ran')\nfrom mmcv.runner import HOOKS\n"
    write_files(tmp_path, {'a.py': bad, 'configs/b.py': "import os\nos.abort()\nmodel = dict(type='x')\n"})
    found = migrate(tmp_path)
    assert found.counts['change']==1 and any('configs/b.py'==o.file and o.status=='missing' for o in found.notes)
    assert '<table' in found._repr_html_() and list(found.table.columns)==['file', 'line', 'kind', 'status', 'text']

@pytest.mark.parametrize('before,after,missing', [
    ('import mmcv\nx = mmcv.imread(1)\n', 'from clsnb.compat.images import imread\nx = imread(1)\n', []),
    ('import mmcv\nimread = 1\nx = mmcv.imread(imread)\n',
     'from clsnb.compat.images import imread as mmcv_imread\nimread = 1\nx = mmcv_imread(imread)\n', []),
    ('from mmcls.models import (BACKBONES,  # all\n    NECKS)\n', 'from clsnb.core.registry import BACKBONES, NECKS\n', []),
    ('import mmcv, os\nmmcv.VideoReader(os)\n', None, ['mmcv.VideoReader']),
    ('from mmcv.ops import nms\n', None, ['mmcv.ops.nms']),
    ("import mmcv.utils as u\ns = 'é', u.Registry('a')\n",
     "from clsnb.compat.helpers import ChildRegistry as Registry\ns = 'é', Registry('a')\n", []),
    ('def f():\n    from mmcv.runner import Hook, HOOKS\n    return Hook\n',
     'def f():\n    from clsnb.train.hooks import Hook\n    from clsnb.core.registry import HOOKS\n    return Hook\n', []),
    ('import mmcv\n', '\n', [])])
def test_imports_are_rewritten(before, after, missing):
    found = rewrite_imports(before)
    assert list(found.missing)==missing
    assert found.text==(before if after is None else after)
    compile(found.text, 'after', 'exec')

def test_a_checkpoint_and_a_log_are_told(trained):
    folder,_ = trained
    found = migrate(folder/'out')
    kinds = {o.kind for o in found.notes if o.status=='works'}
    assert {'checkpoint', 'log'} <= kinds, found
    assert any('6 classes' in o.text for o in found.notes)

def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    done = clsnb('migrate', 'nowhere', cwd=tmp_path)
    assert done.returncode==2 and len(done.stderr.splitlines())==1

# ---- configs of mmpretrain 1.x

config_of_1x = '''
data_preprocessor = dict(num_classes=1000, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
train_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='RandomResizedCrop', scale=224),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'), dict(type='PackInputs')]
test_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='ResizeEdge', scale=256, edge='short'),
    dict(type='CenterCrop', crop_size=224), dict(type='PackInputs')]
dataset = dict(type='ImageNet', data_root='data/imagenet')
train_dataloader = dict(batch_size=32, num_workers=5, dataset=dict(dataset, split='train', pipeline=train_pipeline),
                        sampler=dict(type='DefaultSampler', shuffle=True))
val_dataloader = dict(batch_size=32, num_workers=5, dataset=dict(dataset, split='val', pipeline=test_pipeline),
                      sampler=dict(type='DefaultSampler', shuffle=False))
val_evaluator = dict(type='Accuracy', topk=(1, 5))
model = dict(
    type='ImageClassifier', backbone=dict(type='ResNet', depth=18, num_stages=4, out_indices=(3,), style='pytorch'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=1000, in_channels=512, loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
              topk=(1, 5)))
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.0001))
param_scheduler = dict(type='MultiStepLR', by_epoch=True, milestones=[30, 60, 90], gamma=0.1)
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=1)
default_hooks = dict(logger=dict(type='LoggerHook', interval=100), checkpoint=dict(type='CheckpointHook', interval=1))
visualizer = dict(type='UniversalVisualizer')
default_scope = 'mmpretrain'
'''

def test_a_config_of_mmpretrain_becomes_that_of_mmcls(tmp_path):
    write_files(tmp_path, {'a.py': config_of_1x, 'b.py': "_base_ = './a.py'\nmodel = dict(head=dict(cal_acc=True))\n"})
    twin = Config.fromfile('resnet18_8xb32_in1k')
    for name in ('a.py', 'b.py'):
        new,left_out = translate_config(tmp_path/name)
        assert new.model==twin.model and left_out==['visualizer', 'default_scope']
        assert new.data.val.pipeline==twin.data.val.pipeline and new.data.train.pipeline==twin.data.train.pipeline
        assert new.data.train.data_prefix=='data/imagenet/train' and new.data.samples_per_gpu==32
        for key in ('optimizer', 'optimizer_config', 'runner'): assert new[key]==twin[key], key
        assert new.lr_config==dict(twin.lr_config, gamma=.1)
    found = migrate(tmp_path, write=True)
    assert found.counts['change']==2 and Config.fromfile(tmp_path/'b.py').model==twin.model
    assert not Config.fromfile(tmp_path/'b.py').check(False).errors

@pytest.mark.parametrize('change,part', [
    ("model = dict(_delete_=True, type='MAE')", 'no ImageClassifier'),
    ("param_scheduler = [dict(type='MultiStepLR', milestones=[1]), dict(type='StepLR', step_size=2)]", 'more than'),
    ("param_scheduler = dict(_delete_=True, type='OneCycleLR')", 'OneCycleLR'),
    ("model = dict(train_cfg=dict(augments=dict(type='NoSuchMix', alpha=1)))", 'NoSuchMix'),
    ('train_dataloader = 3', 'another form')])
def test_what_has_no_counterpart_is_refused_by_name(tmp_path, change, part):
    write_files(tmp_path, {'a.py': config_of_1x, 'b.py': f"_base_ = './a.py'\n{change}\n"})
    with pytest.raises(ConfigError, match=part): translate_config(tmp_path/'b.py')

def test_one_augmentation_and_the_crops_of_efficientnet(tmp_path):
    write_files(tmp_path, {'a.py': config_of_1x, 'b.py': """_base_ = './a.py'
model = dict(train_cfg=dict(augments=dict(type='Mixup', alpha=0.2)))
val_dataloader = dict(dataset=dict(pipeline=[dict(type='EfficientNetCenterCrop', crop_size=224), dict(type='PackInputs')]))
"""})
    new,_ = translate_config(tmp_path/'b.py')
    assert new.model.train_cfg.augments==[dict(type='BatchMixup', alpha=.2, num_classes=1000, prob=1.)]
    crop = dict(type='CenterCrop', crop_size=224, efficientnet_style=True, interpolation='bicubic')
    assert new.data.val.pipeline[0]==crop
