"""Models of torchvision and timm, and ours with their weights converted: equal outputs for equal inputs, in double
precision.
The plain run takes a few rows; `CLSNB_ALL_CONVERSIONS=1 pytest tests/test_convert.py` takes all (some minutes; give
`-k NAME` for one)."""
import os, pytest, torch
from torch import nn
from clsnb.core.load import load_state_dict
from clsnb.core.errors import ConfigError
from clsnb.models.classifier import build_classifier
from clsnb.models.convert.convert import convert

everything = os.environ.get('CLSNB_ALL_CONVERSIONS') == '1'

# name there; width of the last features, or the type of head; arguments of our backbone; then side of the
# picture, arguments of their constructor
gap = dict(type='GlobalAveragePooling')
def bn(eps): return dict(norm_cfg=dict(type='BN', eps=eps))
same = dict(conv_cfg=dict(type='Conv2dAdaptivePadding'))
def eff(arch, eps=1e-5):
    return dict(type='EfficientNet', arch=arch, **bn(eps), conv_cfg=dict(type='Conv2d'))
def tf_eff(arch): return dict(type='EfficientNet', arch=arch)
def res(depth, type='ResNet', **kw): return dict(type=type, depth=depth, **kw)
def v3_head(*widths):
    return dict(
        type='StackedLinearClsHead',
        in_channels=widths[0],
        mid_channels=[widths[1]],
        act_cfg=dict(type='HSwish'),
    )
def vit_head(dim, type='VisionTransformerClsHead'): return dict(type=type, in_channels=dim)
def vit(arch, **kw):
    return dict(type=kw.pop('type', 'VisionTransformer'), arch=arch, **kw)
vit_tiny = dict(embed_dims=192, num_layers=12, num_heads=3, feedforward_channels=768)
ln6 = dict(norm_cfg=dict(type='LN', eps=1e-6))
def swin(arch, type='SwinTransformer', **kw): return dict(type=type, arch=arch, **kw)
twins = dict(qkv_bias=True, norm_after_stage=[False, False, False, True], **ln6)
def csp(type, **kw): return dict(type=type, **kw)

torchvision_cases = [
    ('resnet18', 512, res(18), 64),
    ('resnet50', 2048, res(50), 64),
    ('wide_resnet50_2', 2048, res(50, base_channels=128, expansion=2), 64),
    ('resnext50_32x4d', 2048, res(50, 'ResNeXt'), 64),
    ('mobilenet_v2', 1280, dict(type='MobileNetV2'), 64),
    ('alexnet', None, dict(type='AlexNet', num_classes=1000), 224),
    ('vgg11', None, dict(type='VGG', depth=11, num_classes=1000), 224),
    ('vgg16_bn', None, dict(type='VGG', depth=16, num_classes=1000, norm_cfg=dict(type='BN')), 224),
    ('densenet121', 1024, dict(type='DenseNet', arch='121'), 64),
    ('densenet161', 2208, dict(type='DenseNet', arch='161'), 64),
    ('shufflenet_v2_x0_5', 1024, dict(type='ShuffleNetV2', widen_factor=.5), 64),
    ('shufflenet_v2_x1_0', 1024, dict(type='ShuffleNetV2', widen_factor=1.), 64),
    (
        'regnet_x_400mf', 400,
        dict(
            type='RegNet', arch=dict(w0=24, wa=24.6, wm=2.55, group_w=16, depth=22, bot_mul=1.)
        ),
        64,
    ),
    ('regnet_x_3_2gf', 1008, dict(type='RegNet', arch='regnetx_3.2gf'), 64),
    ('mobilenet_v3_small', v3_head(576, 1024), dict(type='MobileNetV3', arch='small'), 64),
    ('mobilenet_v3_large', v3_head(960, 1280), dict(type='MobileNetV3', arch='large'), 64),
    *(
        (f'efficientnet_b{k}', d, eff(f'b{k}', 1e-3 if k > 4 else 1e-5), 64)
        for k,d in enumerate((1280, 1280, 1408, 1536, 1792, 2048, 2304, 2560))
    ),
    ('vit_b_16', vit_head(768), vit('base', img_size=64), 64, dict(image_size=64)),
    ('vit_b_32', vit_head(768), vit('base', img_size=64, patch_size=32), 64, dict(image_size=64)),
    ('swin_t', 768, swin('tiny', norm_cfg=dict(type='LN')), 112),
    ('swin_s', 768, swin('small'), 112),
    ('swin_b', 1024, swin('base'), 112),
    ('swin_v2_t', 768, swin('tiny', 'SwinTransformerV2', img_size=256, window_size=8), 256),
    ('convnext_tiny', 768, dict(type='ConvNeXt', arch='tiny'), 64),
    ('convnext_base', 1024, dict(type='ConvNeXt', arch='base'), 64),
]

timm_cases = [
    ('resnet18', 512, res(18), 64),
    ('resnet50c', 2048, res(50, 'ResNetV1c'), 64),
    ('resnet50d', 2048, res(50, 'ResNetV1d'), 64),
    ('resnext50_32x4d', 2048, res(50, 'ResNeXt'), 64),
    ('seresnet50', 2048, res(50, 'SEResNet'), 64),
    ('seresnext50_32x4d', 2048, res(50, 'SEResNeXt'), 64),
    ('wide_resnet50_2', 2048, res(50, base_channels=128, expansion=2), 64),
    ('res2net50_26w_4s', 2048, res(50, 'Res2Net', deep_stem=False, avg_down=False), 64),
    ('res2net50d', 2048, res(50, 'Res2Net'), 64),
    ('resnest50d', 2048, res(50, 'ResNeSt', style='pytorch'), 64),
    ('regnetx_004', 384, dict(type='RegNet', arch='regnetx_400mf'), 64),
    ('hrnet_w18', 2048, dict(type='HRNet', arch='w18'), 64),
    ('densenet121', 1024, dict(type='DenseNet', arch='121'), 64),
    ('vgg11', None, dict(type='VGG', depth=11, num_classes=1000), 224),
    ('vgg13_bn', None, dict(type='VGG', depth=13, num_classes=1000, norm_cfg=dict(type='BN')), 224),
    ('cspresnet50', 1024, csp('CSPResNet', depth=50), 64),
    ('cspresnext50', 2048, csp('CSPResNeXt', depth=50), 64),
    ('cspdarknet53', 1024, csp('CSPDarkNet', depth=53), 64),
    ('repvgg_a0', 1280, dict(type='RepVGG', arch='A0'), 64),
    ('repvgg_b1g4', 2048, dict(type='RepVGG', arch='B1g4'), 64),
    ('repvgg_d2se', 2560, dict(type='RepVGG', arch='D2se'), 64),
    ('mobilenetv2_100', 1280, dict(type='MobileNetV2'), 64),
    ('mobilenetv3_large_100', v3_head(960, 1280), dict(type='MobileNetV3', arch='large', **bn(1e-5)), 64),
    ('mobilenetv3_small_100', v3_head(576, 1024), dict(type='MobileNetV3', arch='small', **bn(1e-5)), 64),
    ('tf_mobilenetv3_small_100', v3_head(576, 1024), dict(type='MobileNetV3', arch='small', **same), 64),
    ('efficientnet_b0', 1280, eff('b0'), 64),
    ('tf_efficientnet_b0', 1280, tf_eff('b0'), 64),
    ('tf_efficientnet_b4', 1792, tf_eff('b4'), 64),
    ('tf_efficientnet_b8', 2816, tf_eff('b8'), 64),
    ('efficientnet_es', 1280, dict(eff('es'), act_cfg=dict(type='ReLU')), 64),
    ('efficientnet_em', 1280, dict(eff('em'), act_cfg=dict(type='ReLU')), 64),
    ('vit_tiny_patch16_224', vit_head(192), vit(vit_tiny, img_size=64), 64, dict(img_size=64)),
    ('vit_base_patch32_224', vit_head(768), vit('base', patch_size=32, img_size=64), 64, dict(img_size=64)),
    ('deit_tiny_patch16_224', vit_head(192), vit('deit-tiny'), 224),
    (
        'deit_tiny_distilled_patch16_224',
        vit_head(192, 'DeiTClsHead'),
        vit('deit-tiny', type='DistilledVisionTransformer'),
        224,
    ),
    ('swin_tiny_patch4_window7_224', 768, swin('tiny'), 224),
    (
        'swin_tiny_patch4_window7_224',
        768,
        swin('tiny', img_size=384, stage_cfgs=dict(block_cfgs=dict(window_size=12))),
        384,
        dict(img_size=384, window_size=12),
    ),
    ('swinv2_tiny_window8_256', 768, swin('tiny', 'SwinTransformerV2', img_size=256, window_size=8), 256),
    ('convnext_tiny', 768, dict(type='ConvNeXt', arch='tiny'), 64),
    ('convnext_base', 1024, dict(type='ConvNeXt', arch='base'), 64),
    ('mixer_b16_224', 768, dict(type='MlpMixer', arch='b', **ln6), 224),
    ('poolformer_s12', 512, dict(type='PoolFormer', arch='s12'), 64),
    ('poolformer_m36', 768, dict(type='PoolFormer', arch='m36'), 64),
    ('twins_pcpvt_small', 512, dict(type='PCPVT', arch='small', **twins), 64),
    ('twins_svt_small', 512, dict(type='SVT', arch='small', **twins), 224),
    ('tnt_s_legacy_patch16_224', 384, dict(type='TNT', arch='s'), 224),
    ('convmixer_768_32', 768, dict(type='ConvMixer', arch='768/32', act_cfg=dict(type='ReLU')), 64),
    ('mvitv2_tiny', 768, dict(type='MViT', arch='tiny'), 224),
    ('mvitv2_small', 768, dict(type='MViT', arch='small'), 224),
    (
        'efficientformer_l1',
        dict(type='EfficientFormerClsHead', in_channels=448, distillation=True),
        dict(type='EfficientFormer', arch='l1'),
        224,
    ),
]

plain_run = {
    'torchvision/mobilenet_v2',
    'torchvision/mobilenet_v3_small',
    'torchvision/shufflenet_v2_x0_5',
    'torchvision/efficientnet_b0',
    'torchvision/swin_t',
    'torchvision/convnext_tiny',
    'timm/resnet50d',
    'timm/efficientnet_es',
    'timm/vit_tiny_patch16_224',
    'timm/poolformer_s12',
    'timm/repvgg_a0',
    'timm/twins_pcpvt_small',
}
cases = [
    (f'{lib}/{name}', *rest)
    for lib,rows in (('torchvision', torchvision_cases), ('timm', timm_cases))
    for name,*rest in rows
]

def model_cfg(head, backbone):
    neck = gap
    if backbone['type']=='HRNet':
        neck = [dict(type='HRFuseScales', in_channels=(18, 36, 72, 144)), gap]
    if (
        backbone['type'] in (
            'ConvNeXt', 'VisionTransformer', 'DistilledVisionTransformer', 'AlexNet', 'VGG', 'TNT'
        )
        or head is None
    ):
        neck = None
    if backbone['type'] in ('MlpMixer', 'EfficientFormer'):
        neck = dict(type='GlobalAveragePooling', dim=1)
    if isinstance(head, int): head = dict(type='LinearClsHead', in_channels=head)
    else: head = head or dict(type='ClsHead')
    return dict(
        type='ImageClassifier',
        backbone=backbone,
        neck=neck,
        head=head if head['type']=='ClsHead' else dict(head, num_classes=1000),
    )

def stir(model):
    "Change what starts as 0, 1 or tiny: norms, statistics, biases, scales, tables"
    g = torch.Generator().manual_seed(1)
    def noise(t):
        return torch.randn(t.shape, generator=g, dtype=torch.float64).to(t.dtype)
    for n,t in [*model.named_parameters(), *model.named_buffers()]:
        if not t.is_floating_point() or 'coords' in n or n.endswith('k_bias'): continue
        if n.endswith('running_var'):
            t.data.copy_(1 + .2*noise(t).abs())
        elif 'scale' in n or 'gamma' in n:
            t.data.copy_((2 if 'logit' in n else .3) + .1*noise(t))
        elif (
            t.ndim < 2
            or t.data.abs().max()==0
            or n.endswith(('table', '_embed', '_pos', 'token'))
        ):
            t.data.copy_((n.endswith('weight') and t.ndim < 2) + .1*noise(t))
    return model

def theirs(origin, **kw):
    lib,name = origin.split('/')
    if lib=='torchvision':
        import torchvision
        return torchvision.models.get_model(name, weights=None, **kw)
    return pytest.importorskip('timm').create_model(name, **kw)

def scores_of(model, x):
    norm = getattr(model.backbone, 'norm6', None)
    if norm is None:
        return model.head.simple_test(model.extract_feat(x), softmax=False, post_process=False)
    # PoolFormer: as its paper does, ours normalises a map and then averages; timm averages first
    model.backbone.norm6 = nn.Identity()
    return model.head.fc(nn.functional.layer_norm(
        model.extract_feat(x)[-1], norm.weight.shape, norm.weight, norm.bias, 1e-6
    ))

@pytest.mark.parametrize(
    'origin,head,backbone,size,kw',
    [(*c, {}) if len(c)==4 else c for c in cases if everything or c[0] in plain_run],
    ids=lambda o: o if isinstance(o, str) else '',
)
def test_equal_outputs(origin, head, backbone, size, kw):
    torch.manual_seed(0)
    a = stir(theirs(origin, **kw)).eval().double()
    b = build_classifier(model_cfg(head, backbone)).eval().double()
    rep = load_state_dict(b, convert(a.state_dict(), origin))
    assert rep.whole and not rep.prefix and not rep.left_out, rep
    if backbone['type']=='ConvNeXt': # the one setting of ours that no config reaches: 1e-5, theirs 1e-6
        for m in b.backbone.downsample_layers[1:]:
            assert m[0].eps==1e-5
            m[0].eps = 1e-6
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    with torch.no_grad(): y,z = a(x),scores_of(b, x)
    assert (y-z).abs().max() < 1e-6*y.abs().max(), f'{(y-z).abs().max():.1e} of {y.abs().max():.1e}'

# ---- Official releases: names are written here the other way round, from ours to theirs, with settings that
# do not change names

def tf_names(k, v, name='efficientnet-b0'):
    "Our key and tensor as TensorFlow's variable"
    import numpy as np
    edge = name[-2]=='e'
    n = list(map(int, '1,2,4,9,2'.split(','))) if edge else [1, 2, 2, 6, 5]
    leaf = k.rsplit('.', 1)[1]
    if leaf=='num_batches_tracked': return None
    kernel = lambda: np.ascontiguousarray(v.permute(2, 3, 1, 0).numpy())
    var = dict(running_mean='moving_mean', running_var='moving_variance', weight='gamma', bias='beta')[leaf]
    if k.startswith('head.'):
        return (
            f'{name}/head/dense/'+('kernel' if leaf=='weight' else 'bias'),
            v.t().numpy() if leaf=='weight' else v.numpy(),
        )
    part,i = k.split('.')[1:3]
    i = int(i)
    rest = k.split('.')[3:]
    if i in (0, 6):
        top = 'stem' if i==0 else 'head'
        if rest[0]=='conv': return f'{name}/{top}/conv2d/kernel',kernel()
        return f'{name}/{top}/tpu_batch_normalization/{var}',v.numpy()
    j,layer,what = int(rest[0]),rest[1],rest[2]
    at = f'{name}/blocks_{sum(n[:i-1])+j}'
    if layer=='se':
        return (
            f"{at}/se/conv2d{'' if what=='conv1' else '_1'}/"+('kernel' if leaf=='weight' else 'bias'),
            kernel() if leaf=='weight' else v.numpy(),
        )
    if layer=='depthwise_conv' and what=='conv':
        return f'{at}/depthwise_conv2d/depthwise_kernel',np.ascontiguousarray(v.permute(2, 3, 0, 1).numpy())
    if edge and i < 4: order = ['conv1', 'conv2']
    elif i==1: order = ['depthwise_conv', 'linear_conv']
    else: order = ['expand_conv', 'depthwise_conv', 'linear_conv']
    if what=='conv': order = [o for o in order if o!='depthwise_conv']
    at += (
        f"/{'conv2d' if what=='conv' else 'tpu_batch_normalization'}{f'_{order.index(layer)}' if order.index(layer) else ''}/"
    )
    return (at+'kernel',kernel()) if what=='conv' else (at+var,v.numpy())

def theirs_by(*pairs):
    import re
    def f(k, v):
        for a,b in [(r'^backbone\.', ''), *pairs]:
            k = re.sub(a, b, k)
        return k,v
    return f

official_cases = [
    ('efficientnet-b0', 1280, dict(type='EfficientNet', arch='b0'), tf_names),
    (
        'efficientnet-es',
        1280,
        dict(type='EfficientNet', arch='es'),
        lambda k,v: tf_names(k, v, 'efficientnet-es'),
    ),
    (
        'repvgg', 1280,
        dict(type='RepVGG', arch='A0'),
        theirs_by(
            (r'^stem\.', 'stage0.'),
            ('stage_', 'stage'),
            ('branch_3x3', 'rbr_dense'),
            ('branch_1x1', 'rbr_1x1'),
            (r'\.norm\.', '.bn.'),
            ('branch_norm', 'rbr_identity'),
            (r'^head\.fc', 'linear'),
        ),
    ),
    (
        'repvgg', 1280,
        dict(type='RepVGG', arch='A0', deploy=True),
        theirs_by(
            (r'^stem\.', 'stage0.'),
            ('stage_', 'stage'),
            ('branch_reparam', 'rbr_reparam'),
            (r'^head\.fc', 'linear'),
        ),
    ),
    (
        'repvgg', 2560,
        dict(type='RepVGG', arch='D2se'),
        theirs_by(
            (r'^stem\.', 'stage0.'),
            ('stage_', 'stage'),
            ('branch_3x3', 'rbr_dense'),
            ('branch_1x1', 'rbr_1x1'),
            (r'\.norm\.', '.bn.'),
            ('branch_norm', 'rbr_identity'),
            (r'se_layer\.conv1\.conv', 'se.down'),
            (r'se_layer\.conv2\.conv', 'se.up'),
            (r'^head\.fc', 'linear'),
        ),
    ),
    (
        'van', 256,
        dict(type='VAN', arch='tiny'),
        theirs_by(
            (r'(patch_embed\d)\.projection', r'\1.proj'),
            (r'^blocks', 'block'),
            ('DW_conv', 'conv0'),
            ('DW_D_conv', 'conv_spatial'),
            (r'mlp\.dwconv', 'mlp.dwconv.dwconv'),
            (r'^head\.fc', 'head'),
        ),
    ),
    (
        'hornet', 512,
        dict(type='HorNet', arch='tiny-gf'),
        theirs_by(
            (r'gnconv\.projs', 'gnconv.pws'),
            (r'(gamma\d)\.weight', r'\1'),
            (r'^norm3', 'norm'),
            (r'^head\.fc', 'head'),
        ),
    ),
    (
        'twins', 512,
        dict(type='SVT', arch='small', **twins),
        theirs_by(
            (r'(patch_embeds\.\d)\.projection', r'\1.proj'),
            (r'^stages', 'blocks'),
            (r'position_encodings\.(\d)\.proj', r'pos_block.\1.proj.0'),
            (r'ffn\.layers\.0\.0', 'mlp.fc1'),
            (r'ffn\.layers\.1', 'mlp.fc2'),
            ('norm_after_stage3', 'norm'),
            (r'^head\.fc', 'head'),
        ),
    ),
]

@pytest.mark.parametrize(
    'origin,dim,backbone,name',
    [c for c in official_cases if everything or c[2]['arch']!='D2se'],
    ids=lambda o: o if isinstance(o, str) else '',
)
def test_official_names(origin, dim, backbone, name):
    m = stir(build_classifier(model_cfg(dim, backbone)))
    sd = m.state_dict()
    got = convert(
        {
            n: torch.as_tensor(v)
            for n,v in filter(None, (name(k, v) for k,v in sd.items()))
        },
        origin,
    )
    want = {k for k in sd if not k.endswith('num_batches_tracked')} if 'efficient' in origin else set(sd)
    assert set(got)==want and all(torch.equal(got[k], sd[k]) for k in want)

def test_averaged_weights_win():
    kernel = 'efficientnet-b0/head/dense/kernel'
    x = torch.zeros(3, 2)
    assert (
        convert(
            {kernel+'/ExponentialMovingAverage': x+1, kernel: x, kernel+'/RMSProp': x}, 'efficientnet-b0'
        )['head.fc.weight'].eq(1).all()
    )

def test_unknown_origin():
    with pytest.raises(ConfigError, match="Did you mean 'twins'"):
        convert({}, 'twin')

def test_command(tmp_path, capsys):
    from clsnb.cli import main
    m = stir(build_classifier(model_cfg(256, dict(type='VAN', arch='tiny'))))
    theirs_of = official_cases[5][3]
    torch.save(
        dict(state_dict=dict(theirs_of(k, v) for k,v in m.state_dict().items())), tmp_path/'a.pth'
    )
    (tmp_path/'van.py').write_text(f"model = {model_cfg(256, dict(type='VAN', arch='tiny'))!r}")
    main([
        'convert-weights', str(tmp_path/'a.pth'), str(tmp_path/'b.safetensors'), '--from', 'van', '--config',
        str(tmp_path/'van.py')
    ])
    out = capsys.readouterr().out
    assert 'tensors written' in out
    assert 'matched' in out
    assert 'missing' not in out
    for line,why in (
        ([str(tmp_path/'a.pth'), 'b.pth'], 'Set the origin of the weights'),
        ([str(tmp_path/'a.pth'), 'b.pth', '--from', 'vn'], "Did you mean 'van'"),
        (['x.pth', 'b.pth', '--from', 'van'], 'no checkpoint'),
    ):
        with pytest.raises(SystemExit): main(['convert-weights', *line])
        assert why in capsys.readouterr().err
