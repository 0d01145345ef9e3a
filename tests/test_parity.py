"""Features, scores, losses and gradients of models with prescribed weights, beside numbers measured with
MMClassification 0.25 (`parity/`: facts, the rule
that fills weights, and what compares). The quickest model of each family, and RepVGG and RepMLP folded; with
CLSNB_ALL_MODELS=1 all 171 (a quarter of an hour)."""
import argparse, gzip, json, os, sys
from pathlib import Path
import pytest, torch
from clsnb.all import Config, build_classifier

here = Path(__file__).parent/'parity'
sys.path.insert(0, str(here))
import check, fill # noqa: E402

def records(name):
    return [
        json.loads(o)
        for o in gzip.decompress((here/f'{name}.jsonl.gz').read_bytes()).decode().splitlines()
    ]
golden = {r['model']: r for r in records('golden')}
quick = (
    'lenet5_mnist resnet18_8xb16_cifar10 mobilenet-v3-small_8xb16_cifar10 shufflenet-v1-1x_16xb64_in1k '
    'shufflenet-v2-1x_16xb64_in1k mobilenet-v2_8xb32_in1k van-b0_8xb128_in1k '
    'regnetx-400mf_8xb128_in1k efficientnet-b0_8xb32_in1k deit-tiny_pt-4xb256_in1k '
    'repvgg-A0_deploy_4xb64-coslr-120e_in1k poolformer-s12_32xb128_in1k '
    'cspresnext50_8xb32_in1k convmixer-768-32_10xb64_in1k t2t-vit-t-14_8xb64_in1k hornet-tiny_8xb128_in1k '
    'conformer-tiny-p16_8xb128_in1k tnt-s-p16_16xb64_in1k '
    'twins-svt-small_8xb128_in1k mvitv2-tiny_8xb256_in1k swin-tiny_16xb64_in1k resnest50_32xb64_in1k '
    'efficientformer-l3_8xb128_in1k hrnet-w30_4xb32_in1k '
    'swinv2-tiny-w16_16xb64_in1k-256px convnext-small_32xb128_in1k'
).split()
known = {
    'repvgg-D2se_deploy_4xb64-autoaug-lbs-mixup-coslr-200e_in1k': 'mmcls leaves the SE layers out when '
                                                                  'deployed; ours keeps them'
}
names = [n for n in golden if n not in known] if os.environ.get('CLSNB_ALL_MODELS') else quick
how = argparse.Namespace(keep_going=False, keys_only=False, mutate=None, rtol=5e-5)
def build(name): return build_classifier(Config.fromfile(name).model)

@pytest.mark.parametrize('name', names)
def test_numbers(name):
    fails,_ = check.check_one(golden[name], None, None, lambda *_: build(name), how)
    assert not fails, '\n'.join(fails[:8])

def test_a_spoilt_weight_is_noticed():
    name = 'resnet18_8xb16_cifar10'
    fails,_ = check.check_one(
        golden[name],
        None, None,
        lambda *_: build(name),
        argparse.Namespace(**{**vars(how), 'mutate': 'backbone.layer3.0.conv1.weight'}),
    )
    assert fails

def near(a, b, scale, tol=2e-4):
    assert torch.as_tensor(a).sub(torch.as_tensor(b)).abs().max() <= tol*scale

@pytest.mark.parametrize('rec', records('reparam'), ids=lambda r: r['model'])
def test_folding(rec):
    torch.manual_seed(0)
    model = build(rec['model'])
    fill.GAIN_CONV = rec['gain_conv']
    fill.fill_model(model)
    model.eval()
    x = fill.input_batch(rec['input_shape'])
    x = x if torch.is_tensor(x) else torch.from_numpy(x)
    def scores():
        with torch.no_grad(): return model.simple_test(x, softmax=False, post_process=False)
    before = scores()
    near(before[0, :16], rec['scores_before'][0]['first'][0], before.std())
    for m in model.modules():
        if hasattr(m, 'switch_to_deploy'): m.switch_to_deploy()
    after = scores()
    near(before, after, before.std())
    if 'D2se' in rec['model']: return # see `known`
    near(after[0, :16], rec['scores_after'][0]['first'][0], after.std())
    sd = model.state_dict()
    assert [k for k,*_ in rec['keys']]==list(sd)
    for k,shape,norm,_ in rec['keys']:
        assert list(sd[k].shape)==shape
        assert float(sd[k].double().norm())==pytest.approx(norm, rel=1e-4)
