"""Every distinct model of the 280 configs: names, shapes, types and order of its weights; settings of norms, dropout
and drop path.
`data/models.json` holds facts about MMClassification 0.25: digests of state_dict keys, and settings."""
import collections, hashlib, json, os, socket
from pathlib import Path
import numpy as np, pytest, torch
from torch import nn
from clsnb.config.config import Config
from clsnb.core.errors import ConfigError, DataError
from clsnb.models.classifier import build_classifier, read_log_vars

facts = json.loads((Path(__file__).parent/'data/models.json').read_text())

def settings(model):
    c = collections.Counter()
    for m in model.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            c[f'{type(m).__name__} eps={m.eps:g} momentum={m.momentum:g}'] += 1
        elif isinstance(m, (nn.LayerNorm, nn.GroupNorm)):
            c[f'{type(m).__name__} eps={m.eps:g}' + (f' groups={m.num_groups}' if isinstance(m, nn.GroupNorm) else '')] += 1
    drop = [
        [n, m.p]
        for n,m in model.named_modules()
        if isinstance(m, nn.Dropout) and m.p > 0
    ]
    path = [
        round(float(m.drop_prob), 6)
        for m in model.modules()
        if type(m).__name__=='DropPath' and m.drop_prob > 0
    ]
    return dict(c),drop,path

def digest(model):
    keys = [
        [k, list(v.shape), str(v.dtype).removeprefix('torch.')]
        for k,v in model.state_dict().items()
    ]
    return hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:16]

@pytest.mark.parametrize('name', facts)
def test_facts(name):
    f = facts[name]
    with torch.device('meta'):
        model = build_classifier(Config.fromfile(name).model)
    assert digest(model)==f['keys'] and sum(p.numel() for p in model.parameters())==f['params']
    assert [k for k,p in model.named_parameters() if not p.requires_grad]==f['no_grad']
    norms,drop,path = settings(model)
    assert norms==f['norms'] and drop==f['dropout'] and path==f['drop_path']

def small(**kw):
    return dict(
        type='ImageClassifier',
        backbone=dict(type='ResNet_CIFAR', depth=18, base_channels=8, stem_channels=8),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=4, in_channels=64, **kw),
    )

def test_a_step_learns():
    torch.manual_seed(0)
    model = build_classifier(small(cal_acc=True, topk=(1, 2)))
    model.init_weights()
    data = dict(
        img=torch.randn(8, 3, 16, 16), gt_label=torch.arange(8)%4, img_metas=None
    )
    opt = torch.optim.SGD(model.parameters(), .1)
    first = None
    for _ in range(10):
        out = model.train_step(data, opt)
        first = first or out['loss'].item()
        opt.zero_grad()
        out['loss'].backward()
        opt.step()
    logged = read_log_vars(out['log_vars'])
    assert logged['loss'] < first and set(logged)=={'loss', 'top-1', 'top-2'} and out['num_samples']==8
    scores = model.eval()(data['img'], return_loss=False, img_metas=[{}]*8)
    assert len(scores)==8
    assert isinstance(scores[0], np.ndarray)
    assert abs(scores[0].sum()-1) < 1e-5

@pytest.mark.parametrize('aug', ['BatchMixup', 'BatchCutMix', 'BatchResizeMix'])
def test_augments(aug):
    model = build_classifier(dict(
        small(loss=dict(type='CrossEntropyLoss', use_soft=True)),
        train_cfg=dict(augments=dict(type=aug, alpha=1., num_classes=4, prob=1.)),
    ))
    assert model(torch.randn(4, 3, 16, 16), gt_label=torch.arange(4))['loss'].isfinite()

def test_label_outside_the_classes():
    with pytest.raises(DataError, match='from 0 to 7, but the head has 4 classes'):
        build_classifier(small())(
            torch.randn(2, 3, 16, 16), gt_label=torch.tensor([0, 7])
        )

def test_more_asked_than_there_are_classes():
    model = build_classifier(small(cal_acc=True, topk=(1, 5)))
    with pytest.warns(UserWarning, match='asks for more'):
        out = model(torch.randn(2, 3, 16, 16), gt_label=torch.tensor([0, 3]))
    assert out['accuracy']['top-5']==100

@pytest.mark.parametrize(
    'backbone,message',
    [
        (dict(type='ResNet', depth=51), 'has no depth 51'),
        (dict(type='ResNet', depth=50, dilation=2), "Did you mean 'dilations'"),
        (dict(type='ResNet', depth=50, out_indices=(4,)), 'numbered 0 to 3'),
        (dict(type='ResNet', depth=50, norm_cfg=dict(type='BM')), "'BM'"),
        (dict(type='Resnet', depth=50), "Did you mean 'ResNet'"),
    ],
)
def test_mistakes(backbone, message):
    with pytest.raises(ConfigError, match=message):
        build_classifier(dict(small(), backbone=backbone))

@pytest.mark.parametrize(
    'kw',
    [
        dict(type='ResNet', depth=18),
        dict(type='ResNetV1d', depth=50),
        dict(type='MobileNetV2', widen_factor=.25),
    ],
)
def test_frozen_stays_frozen(kw):
    net = build_classifier(dict(small(), backbone=dict(kw, frozen_stages=2, norm_eval=True))).train().backbone
    assert not any(p.requires_grad for p in [*net.layer1.parameters(), *net.layer2.parameters()])
    assert all(p.requires_grad for p in net.layer3.parameters())
    assert not any(m.training for m in net.modules() if isinstance(m, nn.BatchNorm2d))

def _sync_bn(rank, port, q):
    import torch.distributed as dist
    from clsnb.layers.norm_act import SyncBatchNorm
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    dist.init_process_group('gloo', rank=rank, world_size=2)
    torch.manual_seed(0)
    x = torch.randn(6, 3, 4, 4)
    mine = x[:2] if rank==0 else x[2:] # batches of different size
    mine = mine.clone().requires_grad_()
    bn = torch.nn.parallel.DistributedDataParallel(SyncBatchNorm(3))
    y = bn(mine)
    (y**3).sum().backward()
    if rank==0:
        q.put(
            (
                y.detach().numpy(),
                mine.grad.numpy(),
                bn.module.running_var.numpy(),
                bn.module.running_mean.numpy(),
            )
        )
    dist.barrier()
    dist.destroy_process_group()

def test_sync_bn_on_two_cpu_processes():
    import torch.multiprocessing as mp
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    ctx = mp.get_context('spawn')
    q = ctx.SimpleQueue()
    ps = mp.spawn(_sync_bn, (port, q), nprocs=2, join=False)
    got = q.get()
    ps.join()
    torch.manual_seed(0)
    x = torch.randn(6, 3, 4, 4).requires_grad_()
    bn = nn.BatchNorm2d(3)
    y = bn(x)
    (y**3).sum().backward()
    for a,b in zip(
        got, (y.detach()[:2], x.grad[:2], bn.running_var, bn.running_mean)
    ):
        assert np.allclose(a, b.numpy(), atol=1e-4)

def test_torchvision_weights_by_name(pretrained_home, mobilenet_weights):
    import torchvision
    model = build_classifier(dict(
        type='ImageClassifier',
        pretrained='torchvision://mobilenet_v2',
        backbone=dict(type='MobileNetV2'),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=1000, in_channels=1280),
    ))
    model.init_weights()
    model.eval()
    theirs = torchvision.models.mobilenet_v2().eval()
    theirs.load_state_dict(torch.load(mobilenet_weights, weights_only=True))
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        assert torch.allclose(
            theirs(x),
            model.head.simple_test(model.extract_feat(x), softmax=False, post_process=False),
            atol=1e-4,
        )
