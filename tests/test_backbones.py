"""Every registered backbone keeps the same promises. `data/backbones.json` has a small variant of each class: its
arguments, the shape of a picture,
`odd` (a picture of awkward shape; null where one size only is possible) and `untrained` (a pattern of parameters
that rightly get no gradient).
All are captured as one graph; with CLSNB_ALL_MODELS=1 inductor compiles them all (about half an hour)."""
import inspect, json, os, re
from pathlib import Path
import pytest, torch
from torch import nn
from clsnb.all import MODELS, freeze
from clsnb.core.errors import ConfigError, DataError
from clsnb.models.base import Backbone, smallest_picture

rows = json.loads((Path(__file__).parent/'data/backbones.json').read_text())
classes = {
    k: v
    for k,v in sorted(MODELS.module_dict.items())
    if isinstance(v, type)
        and issubclass(v, Backbone)
        and v is not Backbone
        and v.__module__.startswith('clsnb.')
}
elsewhere = {'TIMMBackbone', 'CSPNet'} # an optional package; what the CSP nets are made of, by functions
every = pytest.mark.parametrize('name', [k for k in classes if k not in elsewhere])

def test_every_class_has_a_row(): assert set(classes)==set(rows)|elsewhere

def build(name, seed=0, **kw):
    torch.manual_seed(seed)
    return MODELS.build(dict(type=name, **{**rows[name]['args'], **kw}))
def picture(name, n=2, shape=None):
    torch.manual_seed(1)
    return torch.randn(n, *(shape or rows[name]['picture']))
def tensors(o):
    return [t for v in o for t in tensors(v)] if isinstance(o, (tuple, list)) else [o]
def takes(name, arg):
    "Whether a class has the argument, perhaps by a parent"
    for c in classes[name].__mro__:
        if '__init__' in vars(c):
            ps = inspect.signature(c.__init__).parameters
            if arg in ps: return True
            if not any(p.kind is p.VAR_KEYWORD for p in ps.values()): return False
    return False
def stages(name): return len(build(name).stages_list)
def need(name, arg):
    "Skip what the class does not take, or takes without effect, as in mmcls"
    if not takes(name, arg) or arg in rows[name].get('inert', ()):
        pytest.skip(f'{name} has no {arg}')

@every
def test_evaluation_is_repeatable_and_finite(name):
    net,x = build(name).eval(),picture(name)
    with torch.no_grad():
        a,b = tensors(net(x)),tensors(net(x))
    assert all(o.isfinite().all() and len(o)==2 for o in a)
    assert all(map(torch.equal, a, b))

@every
def test_out_indices(name):
    need(name, 'out_indices')
    n,x = stages(name),picture(name)
    idx = rows[name].get('indices', range(n)) # where not every stage gives something
    every = build(name, out_indices=tuple(idx)).eval()
    last = build(name, out_indices=(idx[-1],)).eval()
    last.load_state_dict(every.state_dict(), strict=False)
    with torch.no_grad(): outs,alone = every(x),last(x)
    assert isinstance(outs, tuple) and len(outs)==len(idx) and len(alone)==1
    assert all(
        torch.equal(a, b)
        for a,b in zip(tensors(outs[-1:]), tensors(alone))
    )
    with pytest.raises(ConfigError, match=f'numbered {idx[0]} to {idx[-1]}'):
        build(name, out_indices=(idx[-1]+1,))

def norms(m):
    return [o for o in m.modules() if isinstance(o, nn.modules.batchnorm._BatchNorm)]

@every
def test_frozen_stages(name):
    need(name, 'frozen_stages')
    n,before = stages(name),None
    for k in (-1, 0, 1, n):
        try: net = build(name, frozen_stages=k).train()
        except ConfigError:
            assert k==n
            continue # the last stage may not be frozen there
        frozen = {p for p,o in net.named_parameters() if not o.requires_grad}
        assert not frozen if k < 0 else before <= frozen
        for m in net.stages_list[:k if k>0 else 0]:
            assert not any(o.requires_grad for o in m.parameters()) and not any(o.training for o in norms(m))
        before = frozen
    if n>2:
        assert any(o.requires_grad for o in build(name, frozen_stages=1).parameters())

@every
def test_freeze_works_alike(name):
    net = build(name)
    parts = [m for m in net.stages_list or net.children() if any(True for _ in m.parameters())]
    table = freeze(net, 1)
    net.train()
    assert not any(p.requires_grad for p in parts[0].parameters())
    assert all(p.requires_grad for p in parts[-1].parameters()) or len(parts)==1
    assert sum(table.parameters)==sum(p.numel() for p in net.parameters())
    assert not any(o.training for o in norms(parts[0]))
    freeze(net, len(net.stages_list or list(net.children())))
    assert not any(p.requires_grad for m in parts for p in m.parameters())
    freeze(net)
    assert all(p.requires_grad for p in net.parameters())

@every
def test_norm_eval(name):
    need(name, 'norm_eval')
    assert not any(m.training for m in norms(build(name, norm_eval=True).train()))

@every
def test_checkpointing_changes_nothing(name):
    need(name, 'with_cp')
    grads = []
    for cp in (False, True):
        net = build(name, with_cp=cp).train()
        x = picture(name).requires_grad_()
        torch.manual_seed(2)
        sum(o.square().mean() for o in tensors(net(x))).backward()
        grads.append([x.grad, *(p.grad for p in net.parameters() if p.grad is not None)])
    assert len(grads[0])==len(grads[1])
    for a,b in zip(*grads):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)

@every
def test_gradients_reach_everything(name):
    row,n = rows[name],stages(name)
    kw = dict(out_indices=tuple(row.get('indices', range(n)))) if takes(name, 'out_indices') else {}
    if takes(name, 'frozen_stages'): kw['frozen_stages'] = -1
    net = build(name, **kw).train()
    net.init_weights()
    x = picture(name).requires_grad_()
    with torch.no_grad():
        for p in net.parameters(): p.add_(torch.randn_like(p)*.01) # past zeros of a fresh start
    sum(o.square().sum() for o in tensors(net(x))).backward()
    assert x.grad.abs().sum() > 0
    left = [
        k
        for k,p in net.named_parameters()
        if p.grad is None or not p.grad.abs().sum() > 0
    ]
    assert not [k for k in left if not re.search(row.get('untrained', '$^'), k)]

@every
def test_awkward_pictures(name):
    row = rows[name]
    shape = row.get('odd', [row['picture'][0], 75, 61])
    net = build(name).eval()
    with torch.no_grad():
        if shape:
            assert all(o.isfinite().all() for o in tensors(net(picture(name, shape=shape))))
        else:
            with pytest.raises((ConfigError, DataError)):
                net(picture(name, shape=[3, 75, 61]))

@every
def test_too_small_a_picture(name):
    net,c = build(name).eval(),rows[name]['picture'][0]
    with torch.no_grad():
        try: net(picture(name, shape=[c, 1, 1]))
        except (DataError, ConfigError) as e:
            assert (
                str(
                    rows[name]['picture'][1] if rows[name].get('odd', 1) is None else smallest_picture(net, c)
                )
                in str(e)
            )

@every
def test_channels(name):
    need(name, 'in_channels')
    c,h,w = rows[name]['picture']
    with torch.no_grad():
        assert tensors(build(name, in_channels=1).eval()(torch.randn(
            2, 1, h, w
        )))[0].isfinite().all()

@every
def test_memory_format_and_half_precision(name):
    net,x = build(name).eval(),picture(name)
    with torch.no_grad():
        want = tensors(net(x))
        last = tensors(net.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last)))
        with torch.autocast('cpu', torch.bfloat16): half = tensors(net(x))
    for a,b,c in zip(want, last, half):
        assert (a-b).abs().max() <= 2e-4*a.abs().max()
        assert c.isfinite().all()
        assert (a-c.float()).norm() <= .1*a.norm()

@every
def test_graph(name):
    "One graph without breaks, with the same result"
    net,x = build(name).eval(),picture(name)
    torch._dynamo.reset()
    full = os.environ.get('CLSNB_ALL_MODELS') or name=='LeNet5'
    with torch.no_grad():
        want = tensors(net(x))
        got = tensors(torch.compile(net, fullgraph=True, backend='inductor' if full else 'eager')(x))
    for a,b in zip(want, got): assert (a-b).abs().max() <= 1e-4*a.abs().max()

@every
def test_an_exported_program_takes_any_batch(name):
    "The batch of the example is not baked in: batches of 1, 2 and 5 give what the network gives"
    net = build(name).eval()
    batch = torch.export.Dim('batch', min=1, max=64)
    with torch.no_grad():
        program = torch.export.export(net, (picture(name),), dynamic_shapes=({0: batch},), strict=False).module()
        for n in (1, 2, 5):
            x = picture(name, n)
            for a,b in zip(tensors(net(x)), tensors(program(x)), strict=True):
                assert (a-b).abs().max() <= 1e-5*a.abs().max(), n

@every
def test_a_cam_finds_its_layer(name):
    "The layer gives a map of more than one place, or tokens that form one, and the scores depend on it"
    from clsnb.analysis.cam import cam_target, tokens_to_map
    net = build(name).eval()
    x = picture(name)
    if max(x.shape[2:]) < 64 and rows[name].get('odd', 1) is not None:
        x = torch.randn(2, x.shape[1], 64, 64)
    layer,seen = cam_target(net, x)[1],[]
    h = layer.register_forward_hook(lambda m, i, o: seen.append(o))
    out = tensors(net(x))
    h.remove()
    maps = tokens_to_map(net.num_extra_tokens, x.shape[2:])(seen[-1])
    assert maps.ndim==4 and len(maps)==2 and maps[0, 0].numel() > 1
    assert torch.autograd.grad(
        sum(o.square().sum() for o in out), seen[-1]
    )[0].abs().sum() > 0

@every
def test_blocks_to_split_can_be_called(name):
    "`fully_shard` gathers a block when it is called"
    from clsnb.train.fsdp import blocks_of
    assert (
        [
            k
            for k,m in blocks_of(build(name), 1000).items()
            if '_forward_unimplemented' in str(type(m).forward)
        ]
        == []
    )
