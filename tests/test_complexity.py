"""Multiply-adds: both engines agree on every backbone, a count leaves the model as it was, and the figures are those
published with the checkpoints (parameters of all models are in test_models.py and test_configs.py). Published figures
agree within 3 %, except for the families in `differs`. One config of each family is counted here; all of them with
CLSNB_ALL_MODELS=1 (a quarter of an hour)."""
import json, os, subprocess, sys
from pathlib import Path
import pandas as pd, pytest, torch
import torch.nn.functional as F
from torch import nn
from clsnb.all import MODELS, Config, build_classifier, complexity, zoo
from clsnb.analysis.complexity import flop_formulas
from clsnb.apis.config_source import config_of
from clsnb.apis.flops import flops_record, flops_text, get_flops, picture_shape
from clsnb.core.errors import ClsnbError, ConfigError

backbones = json.loads((Path(__file__).parent/'data/backbones.json').read_text())

def resnet(): return MODELS.build(dict(type='ResNet', depth=18, frozen_stages=1))

# ---- Both engines

def agree(model, shape):
    "Count with both engines: the same for each module"
    found, expected = complexity(model, shape), complexity(model, shape, engine='fvcore')
    assert found.by_module == expected.by_module
    assert found.uncounted == expected.uncounted
    return found

@pytest.mark.parametrize('name', backbones)
def test_engines_agree_on_every_backbone(name):
    model = MODELS.build(dict(type=name, **backbones[name]['args']))
    assert agree(model, tuple(backbones[name]['picture'])).flops

def test_engines_agree_on_a_backbone_of_timm():
    pytest.importorskip('timm')
    assert agree(
        MODELS.build(dict(type='TIMMBackbone', model_name='mobilenetv3_small_050')), (3, 32, 32)
    ).flops

class Call(nn.Module):
    "A function as a module"
    def __init__(self, function):
        super().__init__()
        self.function = function
    def forward(self, x): return self.function(x)

ones = torch.ones
layers = dict(
    group_norm=nn.GroupNorm(2, 4),
    group_norm_plain=nn.GroupNorm(2, 4, affine=False),
    layer_norm=nn.LayerNorm(6),
    layer_norm_plain=nn.LayerNorm(6, elementwise_affine=False),
    instance_norm=nn.InstanceNorm2d(4, affine=True),
    instance_norm_plain=nn.InstanceNorm2d(4),
    batch_norm=nn.BatchNorm2d(4),
    batch_norm_plain=nn.BatchNorm2d(4, affine=False),
    batch_norm_of_batch=nn.BatchNorm2d(4, track_running_stats=False),
    nearest=nn.Upsample(scale_factor=2),
    bilinear=nn.Upsample(scale_factor=2, mode='bilinear'),
    bicubic=nn.Upsample(scale_factor=2, mode='bicubic'),
    grid_sample=Call(lambda x: F.grid_sample(x, ones(1, 5, 5, 2), align_corners=False)),
    global_pool=nn.AdaptiveAvgPool2d(1),
    adaptive_pool=nn.AdaptiveAvgPool2d((2, 3)),
    avg_pool=nn.AvgPool2d(2),
    global_pool_1d=Call(lambda x: F.adaptive_avg_pool1d(x.flatten(2), 1)),
    adaptive_pool_1d=Call(lambda x: F.adaptive_avg_pool1d(x.flatten(2), 3)),
    mean=Call(lambda x: x.mean((2, 3), keepdim=True)),
    sum=Call(lambda x: x.sum(1)),
    conv=nn.Conv2d(4, 8, 3, groups=2, dilation=2),
    conv_transpose=nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2),
    linear=nn.Linear(6, 5),
    matmul=Call(lambda x: x @ x.mT),
    einsum=Call(lambda x: torch.einsum('nchw,cdw->ndh', x, ones(4, 5, 6))),
    attention=Call(lambda x: F.scaled_dot_product_attention(x, x, x)),
    activation=nn.Mish(inplace=True),
)

@pytest.mark.parametrize('name', layers)
def test_engines_agree_on_layers(name): agree(layers[name], (4, 6, 6))

@pytest.mark.parametrize(
    'function,flops',
    [
        (lambda x: x @ ones(6), 4*6*6),
        (lambda x: x.flatten() @ ones(144), 144),
        (lambda x: ones(7, 6) @ x, 7*6*4*6),
        (
            lambda x: F.conv2d(x, ones(8, 1, 3, 3), padding='same', groups=4),
            8*9*6*6,
        ),
        (lambda x: torch.baddbmm(x[0], x[0], x[0]), 4*6*6*6),
    ],
    ids=['matrix_vector', 'vectors', 'matrix_on_the_left', 'padding_same', 'baddbmm'],
)
def test_counted_where_fvcore_fails(function, flops):
    found = complexity(Call(function), (4, 6, 6))
    assert (found.flops, found.uncounted) == (flops, {})

def test_encoder_layer_is_counted_in_evaluation():
    "PyTorch runs it as one fused operation then"
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True).eval()
    found = complexity(nn.Sequential(nn.Flatten(1, 2), layer), (5, 1, 8))
    assert (
        (found.flops, found.uncounted)
        == (5*8*(4*8 + 2*16) + 2*5*5*8 + 2 * 5*5*8, {})
    )
    assert torch.backends.mha.get_fastpath_enabled()

def test_operation_of_a_user(monkeypatch):
    cumsum = Call(lambda x: x.cumsum(1))
    assert complexity(cumsum, (4, 6, 6)).uncounted == {'aten::cumsum': 1}
    monkeypatch.setitem(flop_formulas, torch.ops.aten.cumsum, lambda x, *args, **kwargs: 7)
    assert (
        (complexity(cumsum, (4, 6, 6)).flops, complexity(cumsum, (4, 6, 6)).uncounted)
        == (7, {})
    )

def test_module_of_two_parents_counts_for_the_first():
    "And a module that is called from outside of its parent counts for the parent"
    class Shares(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3))
            self.b = nn.Sequential(self.a[0], nn.Linear(6, 2))
        def forward(self, x):
            return self.a(self.b[0](x)), self.b(x)
    assert agree(Shares(), (4, 6, 6)).by_module['a'][1] == 24*(3*36 + 18)

# ---- The model is left as it was

def state(model):
    return dict(
        modes=[m.training for m in model.modules()],
        hooks=[len(m._forward_hooks) for m in model.modules()],
        grads=[p.grad for p in model.parameters()],
        needs=[p.requires_grad for p in model.parameters()],
        values=[v.sum().item() for v in model.state_dict().values()],
        random=torch.get_rng_state().tolist(),
        enabled=torch.is_grad_enabled())

@pytest.mark.parametrize('engine', ['torch', 'fvcore'])
def test_model_is_left_as_it_was(engine):
    model = nn.Sequential(resnet().train(), Call(lambda x: x[0] + torch.rand(1)))
    before = state(model)
    complexity(model, (3, 32, 32), engine)
    assert state(model) == before

def test_failure_leaves_nothing_behind():
    class Fails(nn.Module):
        def forward(self, x): raise ValueError('on purpose')
    model = nn.Sequential(nn.Conv2d(3, 2, 1), Fails())
    with pytest.raises(ValueError, match='on purpose'):
        complexity(model, (3, 8, 8))
    assert model.training and torch.is_grad_enabled()
    assert complexity(model[:1], (3, 8, 8)).flops == 6*64

@pytest.mark.parametrize('where', ['meta', torch.bfloat16, torch.double], ids=str)
def test_any_device_and_type(where):
    assert (
        complexity(resnet().to(where), (3, 32, 32)).by_module
        == complexity(resnet(), (3, 32, 32)).by_module
    )

def test_nothing_is_printed_and_fvcore_stays_out():
    code = ("import sys, torch; from clsnb.all import complexity; complexity(torch.nn.Conv2d(3, 2, 1), (3, 8, 8))\n"
            "print('fvcore' in sys.modules); complexity(torch.nn.Conv2d(3, 2, 1), (3, 8, 8), engine='fvcore')")
    ran = subprocess.run([sys.executable, '-W', 'default', '-c', code], capture_output=True, text=True)
    assert (ran.stdout.strip(), ran.stderr) == ('False', '')

def test_unknown_engine():
    with pytest.raises(ConfigError, match="engine must be 'torch' or 'fvcore', not 'thop'"):
        complexity(resnet(), engine='thop')

# ---- Published figures

attention = 'published without the products inside attention, which we count'
differs = dict(
    conformer=(1, 1.08, attention), deit=(1.04, 1.18, attention), swin_transformer=(1.01, 1.07, attention),
    swin_transformer_v2=(1.35, 1.63, attention + ', and the nets of the position bias'),
    t2t_vit=(1.18, 1.41, attention),
    tnt=(1.55, 1.57, attention), twins=(1.02, 1.05, attention), mvit=(.99, 1.05, 'the largest is published rounded'),
    vision_transformer=(1.5, 1.75, 'published without the layers of attention at all'),
    convmixer=(1.05, 1.08, 'published without the depth-wise convolutions'),
    cspnet=(.99, 1.31, 'published for 224 pixels, though the configs test at 256'),
    efficientformer=(.99, 1.06, 'l3 is published too small; l1 and l7 agree'),
    poolformer=(.97, .99, 'pooling has no multiplications and is counted there'))

def smallest(rows, family):
    return min((r for r in rows if r.family == family), key=lambda r: r.flops)

rows = [
    r
    for r in zoo(pretrained=True).itertuples()
    if pd.notna(r.flops) and r.flops and r.config
]
if not os.environ.get('CLSNB_ALL_MODELS'):
    rows = [smallest(rows, f) for f in sorted({r.family for r in rows})]

@pytest.mark.parametrize('row', rows, ids=lambda r: r.config)
def test_multiply_adds(row):
    model = build_classifier(Config.fromfile(row.config).model)
    shape = (3, row.input_size, row.input_size)
    found = complexity(model, shape)
    low, high, why = differs.get(row.family, (.97, 1.03, ''))
    assert low <= found.flops/row.flops <= high, why
    assert found.params==pytest.approx(row.params, rel=1e-3)
    rounding = 1e-6 if row.family == 'mvit' else 0 # fvcore rounds each `einsum` to four digits
    assert found.flops == pytest.approx(complexity(model, shape, engine='fvcore').flops, rel=rounding, abs=0)

# ---- get_flops

def test_flops_of_whatever_has_a_config(tmp_path):
    cfg = Config.fromfile('resnet18_8xb16_cifar10')
    (tmp_path/'run').mkdir()
    cfg.dump(tmp_path/'run/config.py')
    cfg.dump(tmp_path/'mine.json')
    model = build_classifier(cfg.model)
    model.cfg = cfg
    sources = [cfg, dict(cfg), 'resnet18_8xb16_cifar10', str(tmp_path/'mine.json'), tmp_path/'run', model]
    counts = {(found := get_flops(source, 32)).flops for source in sources}
    assert counts == {complexity(model, (3, 32, 32)).flops} and found.latency is None
    assert get_flops('resnet50').flops == get_flops('resnet50_8xb32_in1k', [224, 224]).flops == 4_111_512_576

def test_text_begins_as_that_of_mmcls():
    text = flops_text(get_flops('resnet50_8xb32_in1k'), depth=1)
    line = '='*30
    assert text.startswith(f'{line}\nInput shape: (3, 224, 224)\nFlops: 4.11 GFLOPs\nParams: 25.56 M\n{line}\n')
    assert 'MACs' in text and 'backbone' in text

@pytest.mark.parametrize('shape, expected', [
    (224, (3, 224, 224)), ([224], (3, 224, 224)), (['224', '256'], (3, 224, 256)), ((1, 28, 30), (1, 28, 30)),
])
def test_shapes(shape, expected): assert picture_shape(shape) == expected

@pytest.mark.parametrize('shape', [0, -5, [224, 0], [1, 2, 3, 4], 'large', [], [2.5, None]], ids=str)
def test_wrong_shapes(shape):
    with pytest.raises(ConfigError, match='shape is one number or two'): picture_shape(shape)

def test_channels_are_those_of_the_first_convolution():
    assert get_flops('lenet5_mnist', 32).input_shape == (1, 32, 32)

def test_a_size_that_the_model_cannot_take_names_that_of_the_config():
    with pytest.raises(ConfigError, match='LeNet5 cannot take pictures of 224x224 .* have shape 32 32'):
        get_flops('lenet5_mnist')

def test_wrong_sources(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'resnet18_8xb16_cifar10'"): get_flops('resnet18_8xb16_cifar')
    with pytest.raises(ConfigError, match='a folder without a config'): get_flops(tmp_path)
    with pytest.raises(ConfigError, match='has no model to count'): get_flops(dict(optimizer=dict(type='SGD', lr=.1)))
    with pytest.raises(ConfigError, match='not a int'): config_of(5)
    with pytest.raises(ClsnbError, match='absent.pth'): get_flops(tmp_path/'absent.pth')

def test_speed_and_record_stand_beside_the_count():
    found = get_flops('resnet18_8xb16_cifar10', 32, latency=True, batch_size=2)
    assert found.latency.ms > 0 and found.latency.batch_size == 2
    assert 'images/s' in repr(found) and 'images/s' in flops_text(found)
    record = json.loads(json.dumps(flops_record(found)))
    assert record['flops'] == found.flops and record['unit'] == 'multiply-adds'
    assert {'module': 'backbone', 'params': 11168832, 'flops': 556646400} in record['modules']
    with pytest.raises(ConfigError, match='batch_size is at least 1'):
        get_flops('resnet18_8xb16_cifar10', 32, latency=True, batch_size=0)
    with pytest.raises(ConfigError, match='device: xpu'):
        get_flops('resnet18_8xb16_cifar10', 32, latency=True, device='xpu:7')
