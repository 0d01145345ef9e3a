"`with_cp` saves memory and changes nothing else: outputs, gradients and batch-norm statistics are those without it"
import pytest, torch
from clsnb.models.classifier import build_backbone

BN = dict(type='BN')
BACKBONES = [
    dict(type='ResNet', depth=18), dict(type='ResNet', depth=50, style='caffe'), dict(type='ResNeXt', depth=50),
    dict(type='SEResNet', depth=50), dict(type='ResNeSt', depth=50), dict(type='Res2Net', depth=50, scales=4, base_width=26),
    dict(type='RegNet', arch='regnetx_400mf'), dict(type='HRNet', arch='w18'), dict(type='MobileNetV2'),
    dict(type='MobileNetV3', arch='small'), dict(type='ShuffleNetV1'), dict(type='ShuffleNetV2'),
    dict(type='EfficientNet', arch='b0'), dict(type='RepVGG', arch='A0'), dict(type='ConvNeXt', arch='tiny'),
    dict(type='HorNet', arch='tiny'), dict(type='SwinTransformer', arch='tiny'),
    dict(type='SwinTransformerV2', arch='tiny', img_size=64), dict(type='SEResNeXt', depth=50)]

def step(cfg, size, again):
    torch.manual_seed(0)
    net = build_backbone(dict(cfg, **again)).train()
    x = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1), requires_grad=True)
    torch.manual_seed(2)
    out = net(x)[-1]
    (out[0] if isinstance(out, list) else out).square().mean().backward()
    return dict(net.named_buffers()), {name: p.grad for name, p in net.named_parameters()}, x.grad

@pytest.mark.parametrize('cfg', BACKBONES, ids=lambda cfg: cfg['type'])
def test_recomputation_leaves_statistics_alone(cfg):
    same_step(cfg, dict(with_cp=True))

def test_densenet_too(): same_step(dict(type='DenseNet', arch='121'), dict(memory_efficient=True))

def same_step(cfg, again):
    plain, recomputed = (step(cfg, 64, o) for o in ({}, again))
    for name, value in plain[0].items(): assert torch.equal(value, recomputed[0][name]), name
    for name, grad in plain[1].items():
        assert (grad is None and recomputed[1][name] is None) or torch.equal(grad, recomputed[1][name]), name
    assert torch.equal(plain[2], recomputed[2])
