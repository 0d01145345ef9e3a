"Loading weights: where from, in what form, what is refused, and what the report says"
import argparse, collections, datetime, io, json, os, pathlib, pickle, struct, threading, time, warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import numpy as np, pytest, torch
from safetensors.torch import save_file
from torch import nn
import clsnb.core.io as cio
from clsnb.core.checkpoint import read_checkpoint, save_checkpoint
from clsnb.core.load import load_checkpoint, load_state_dict, load_weights
from clsnb.core.errors import CheckpointError, ConfigError
from clsnb.data.checks import missing_checkpoint
from clsnb.models.classifier import build_classifier

def small(classes=4, **kw):
    torch.manual_seed(0)
    return build_classifier(dict(
        type='ImageClassifier',
        backbone=dict(type='ResNet_CIFAR', depth=18, base_channels=8, stem_channels=8),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=classes, in_channels=64),
        **kw,
    ))

def changed(model):
    for p in model.parameters(): p.data += 1
    return model
def equal(a, b):
    return all(
        torch.equal(x, y)
        for x,y in zip(a.state_dict().values(), b.state_dict().values())
    )

@pytest.fixture
def file(tmp_path):
    save_checkpoint(small(), tmp_path/'a.pth', meta=dict(CLASSES=('a', 'b', 'c', 'd')))
    return tmp_path/'a.pth'

# ---- Where from

class Server(BaseHTTPRequestHandler):
    files = {}
    asked = []
    cut = None
    ranges = True
    pause = 0
    def do_GET(self):
        name = self.path.split('?')[0]
        if name not in self.files:
            self.send_error(404)
            return
        data = self.files[name]
        at = self.headers.get('Range') if self.ranges else None
        at = int(at[6:-1]) if at else 0
        self.asked.append(at)
        self.send_response(206 if at else 200)
        self.send_header('Content-Length', len(data)-at)
        self.end_headers()
        data = data[at:at+self.cut] if self.cut else data[at:]
        for i in range(0, len(data), 1<<20):
            self.wfile.write(data[i:i+(1<<20)])
            time.sleep(self.pause)
    def log_message(self, *args): pass

@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv('CLSNB_HOME', str(tmp_path/'home'))
    for k in list(os.environ):
        if k.lower().endswith('_proxy'): monkeypatch.delenv(k)
    s = ThreadingHTTPServer(('127.0.0.1', 0), Server)
    Server.files = {}
    Server.asked = []
    Server.cut = None
    Server.ranges = True
    threading.Thread(target=s.serve_forever, daemon=True).start()
    yield lambda name, data=None: (
        Server.files.update({'/'+name: data} if data else {}) or f'http://127.0.0.1:{s.server_port}/{name}'
    )
    s.shutdown()
    s.server_close()

def kept(home):
    return sorted(o.name for o in home.rglob('*') if o.is_file())

def test_path_and_file_address(file, tmp_path):
    odd = tmp_path/'an odd näme.pth'
    odd.write_bytes(file.read_bytes())
    for where in (file, str(file), file.as_uri(), odd.as_uri(), odd):
        m = changed(small())
        rep = load_checkpoint(m, where)['report']
        assert rep.whole and equal(m, small())

def test_web_address_is_fetched_once_and_checked(server, file, tmp_path):
    data = file.read_bytes()
    good = f'a-{cio.sha256(file)[:8]}.pth'
    url = server(good, data)
    for _ in range(2):
        assert load_checkpoint(changed(small()), url+'?download=1')['report'].whole
    assert Server.asked==[0] and kept(tmp_path/'home')==[good]
    next((tmp_path/'home').rglob('*.pth')).write_bytes(b'damaged') # noticed, and fetched again
    assert load_checkpoint(changed(small()), url)['report'].whole and Server.asked==[0, 0]

def test_wrong_hash_is_refused_and_nothing_kept(server, file, tmp_path):
    url = server('a-00000000.pth', file.read_bytes())
    with pytest.raises(CheckpointError, match='hash of the downloaded file .* is not 00000000'):
        read_checkpoint(url)
    assert kept(tmp_path/'home')==[]

def test_a_date_is_no_hash_and_equal_names_are_kept_apart(server, file):
    save_checkpoint(changed(small()), file.with_name('b.pth'))
    a = server('a/net-20220815.pth', file.read_bytes())
    b = server('b/net-20220815.pth', file.with_name('b.pth').read_bytes())
    x,y = (read_checkpoint(o)['state_dict']['head.fc.bias'] for o in (a, b))
    assert not torch.equal(x, y)

@pytest.mark.parametrize('ranges', [True, False])
def test_broken_connection(server, tmp_path, ranges):
    data = bytes(range(256))*100
    url = server('x.bin', data)
    Server.cut,Server.ranges = 10000,ranges
    if ranges:
        assert cio.download(url, tmp_path/'x.bin').read_bytes()==data
        assert Server.asked==[0, 10000, 20000]
    else:
        with pytest.raises(cio.DataError, match='broke after 10,000 of 25,600 bytes'):
            cio.download(url, tmp_path/'x.bin')
        assert kept(tmp_path)==[]

def test_not_there(server):
    with pytest.raises(CheckpointError, match='the server says 404'):
        read_checkpoint(server('none.pth'))
    with pytest.raises(CheckpointError, match='refused'):
        read_checkpoint('http://127.0.0.1:9/none.pth')

def test_progress_of_long_downloads(server, tmp_path, monkeypatch, capsys):
    url = server('x.bin', b'0'*3_000_000)
    cio.download(url, tmp_path/'x.bin')
    assert capsys.readouterr().err==''
    monkeypatch.setattr(cio, 'progress_after', 0)
    monkeypatch.setattr(Server, 'pause', .2)
    cio.download(url, tmp_path/'x.bin')
    assert 'x.bin' in (err := capsys.readouterr().err) and '/3.00M' in err

def test_timm_by_name(tmp_path, monkeypatch):
    timm = pytest.importorskip('timm')
    theirs = timm.create_model('resnet18')
    monkeypatch.setattr(timm, 'create_model', lambda name, pretrained: theirs) # its own download, not ours to test
    m = build_classifier(dict(
        type='ImageClassifier',
        backbone=dict(type='ResNet', depth=18),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=1000, in_channels=512),
    ))
    assert load_checkpoint(m, 'timm://resnet18.a1_in1k')['report'].whole
    assert torch.equal(m.backbone.layer1[0].conv1.weight, theirs.layer1[0].conv1.weight)
    with pytest.raises(CheckpointError, match="no model 'resnet18x'.* Did you mean 'resnet18'"):
        read_checkpoint('timm://resnet18x')
    def offline(name, pretrained): raise OSError('no network')
    monkeypatch.setattr(timm, 'create_model', offline)
    with pytest.raises(CheckpointError, match='timm cannot give the weights'):
        read_checkpoint('timm://resnet18')

def test_torchvision_in_init_cfg(pretrained_home):
    import torchvision
    m = build_classifier(dict(
        type='ImageClassifier',
        backbone=dict(
            type='MobileNetV2',
            init_cfg=dict(type='Pretrained', checkpoint='torchvision://mobilenet_v2', prefix='backbone'),
        ),
        head=None,
    ))
    m.init_weights()
    assert len(read_checkpoint('torchvision://mobilenet_v2')['meta']['CLASSES'])==1000
    ref = torchvision.models.mobilenet_v2()
    ref.load_state_dict(torch.load(
        next((pretrained_home.parent/'torch_home').rglob('*.pth')), weights_only=True
    ))
    assert torch.equal(m.backbone.conv1.conv.weight, ref.features[0][0].weight)

# ---- In what form

def test_safetensors_whole_and_in_shards(tmp_path):
    sd = small().state_dict()
    keys = list(sd)
    save_file(sd, tmp_path/'model.safetensors', dict(epoch='3'))
    assert read_checkpoint(tmp_path/'model.safetensors')['meta']==dict(epoch='3')
    m = changed(small())
    assert load_checkpoint(m, tmp_path)['report'].whole and equal(m, small()) # a folder
    parts = tmp_path/'parts'
    parts.mkdir()
    half = len(keys)//2
    where = {}
    for name,ks in (('m-1.safetensors', keys[:half]), ('m-2.safetensors', keys[half:])):
        save_file({k: sd[k] for k in ks}, parts/name)
        where |= dict.fromkeys(ks, name)
    (parts/'model.safetensors.index.json').write_text(json.dumps(dict(weight_map=where)))
    for o in (parts, parts/'model.safetensors.index.json'):
        m = changed(small())
        assert load_checkpoint(m, o)['report'].whole and equal(m, small())
    (parts/'model.safetensors.index.json').write_text(json.dumps(dict(weight_map={'a': '../a.pth'})))
    with pytest.raises(CheckpointError, match='not in the same folder'):
        read_checkpoint(parts)

@pytest.mark.parametrize(
    'wrap',
    [
        lambda s: s,
        *(
            lambda s, k=k: {k: s, 'epoch': 3}
            for k in ('state_dict', 'model', 'model_ema', 'ema_state_dict', 'state_dict_ema', 'net', 'module')
        ),
        lambda s: dict(
            model=dict(state_dict=s), optimizer=dict(state={0: dict(step=torch.tensor(1))})
        ),
    ],
)
@pytest.mark.parametrize(
    'prefix', ['', 'module.', '_orig_mod.', 'module._orig_mod.', 'backbone', 'module.backbone', 'student.']
)
def test_wrappers_and_prefixes(tmp_path, wrap, prefix):
    sd,only = small().state_dict(),'backbone' in prefix
    if only:
        sd = {k.removeprefix('backbone.'): v for k,v in sd.items() if k.startswith('backbone.')}
        prefix = prefix.removesuffix('backbone')
    torch.save(wrap({prefix+k: v for k,v in sd.items()}), tmp_path/'a.pth')
    m = changed(small())
    rep = load_weights(m, tmp_path/'a.pth')
    assert equal(m.backbone, small().backbone)
    assert rep.missing==['head.fc.weight', 'head.fc.bias'] if only else equal(m, small())
    if only: assert 'under backbone.' in rep.prefix and 'missing head.fc.*' in str(rep)
    bare = changed(small()).backbone
    assert (
        len(load_weights(bare, tmp_path/'a.pth').matched)
        == len([k for k in bare.state_dict() if 'num_b' not in k])
    )

def test_compiled_parts_inside():
    sd = {k.replace('backbone.', 'backbone._orig_mod.'): v for k,v in small().state_dict().items()}
    assert load_state_dict(changed(small()), sd).whole
    m = changed(small())
    m.backbone = torch.compile(m.backbone)
    assert load_state_dict(m, small().state_dict()).whole
    assert equal(m, small())

@pytest.mark.parametrize('zipped', [True, False])
def test_what_old_meta_holds(tmp_path, zipped):
    meta = dict(
        epoch=np.int64(3),
        acc=np.float32(.5),
        f16=np.float16(1),
        lr=[np.float64(.1)],
        flag=np.bool_(True),
        arr=np.arange(3),
        time=datetime.datetime(2022, 1, 2),
        day=datetime.date(2022, 1, 2),
        args=argparse.Namespace(lr=.1, out=pathlib.PurePosixPath('/tmp/x')),
        path=pathlib.Path('/tmp/x'),
        env_info='torch 1.9',
        torch_version=torch.__version__,
        config="model = dict(type='X')\n",
        hook_msgs=collections.OrderedDict(best=1.),
        counts=collections.defaultdict(int, a=1),
        names=np.array(['a', 'b']),
        CLASSES=['a', 'b', 'c', 'd'],
    )
    torch.save(
        dict(meta=meta, state_dict=small().state_dict()),
        tmp_path/'a.pth',
        _use_new_zipfile_serialization=zipped,
    )
    o = read_checkpoint(tmp_path/'a.pth')
    m = changed(small())
    load_checkpoint(m, tmp_path/'a.pth')
    assert o['meta']['CLASSES']==m.CLASSES==('a', 'b', 'c', 'd')
    assert o['meta']['epoch']==3
    assert o['meta']['args'].lr==.1
    assert o['meta']['counts']==dict(a=1)
    assert equal(m, small())
    assert str(o['meta']['path'])=='/tmp/x'
    assert o['meta']['names'].tolist()==['a', 'b']

def foreign(module, name, base=dict):
    "A class as a package that is not here would have it"
    import sys, types
    for i in range(1, module.count('.')+2):
        sys.modules.setdefault('.'.join(module.split('.')[:i]), types.ModuleType(module))
    cls = type(name, (base,), {})
    cls.__module__ = module
    setattr(sys.modules[module], name, cls)
    return cls

@pytest.mark.parametrize(
    'module,name',
    [
        ('mmcv.utils.config', 'ConfigDict'),
        ('addict.addict', 'Dict'),
        ('mmengine.logging.history_buffer', 'HistoryBuffer'),
    ],
)
def test_foreign_facts_become_plain(tmp_path, monkeypatch, module, name):
    import sys
    before = set(sys.modules)
    o = foreign(module, name, object if 'History' in name else dict)()
    if isinstance(o, dict): o['type'] = 'SGD'
    else: o.max_length = 9
    torch.save(
        dict(
            meta=dict(cfg=o, CLASSES=('a',)), state_dict=dict(w=torch.ones(1))
        ),
        tmp_path/'a.pth',
    )
    for k in set(sys.modules)-before: del sys.modules[k]
    got = read_checkpoint(tmp_path/'a.pth')['meta']['cfg']
    assert dict(got)==dict(type='SGD') if 'History' not in name else type(got).__name__=='Inert'

def test_classes_of_mmengine(tmp_path):
    torch.save(
        dict(
            meta=dict(dataset_meta=dict(classes=['x', 'y'])), state_dict=dict(w=torch.ones(1))
        ),
        tmp_path/'a.pth',
    )
    assert read_checkpoint(tmp_path/'a.pth')['meta']['CLASSES']==('x', 'y')

def test_npz(tmp_path):
    np.savez(tmp_path/'a.npz', **{'a/kernel': np.ones((2, 3), 'f4')})
    assert read_checkpoint(tmp_path/'a.npz')['state_dict']['a/kernel'].shape==(2, 3)

# ---- What is refused

class Evil:
    def __init__(self, path): self.path = path
    def __reduce__(self): return open,(str(self.path), 'w')
class Shell:
    def __init__(self, path): self.path = path
    def __reduce__(self): return os.system,(f'touch {self.path}',)

@pytest.mark.parametrize('kind', [Evil, Shell])
@pytest.mark.parametrize('how', ['zip', 'legacy', 'pickle'])
def test_pickled_code_does_not_run(tmp_path, kind, how):
    o = dict(state_dict=dict(w=torch.ones(2)), meta=kind(tmp_path/'ran'))
    if how=='pickle':
        (tmp_path/'a.pth').write_bytes(pickle.dumps(dict(o, state_dict=[1])))
    else:
        torch.save(o, tmp_path/'a.pth', _use_new_zipfile_serialization=how=='zip')
    with pytest.raises(CheckpointError, match='could run code') as e:
        read_checkpoint(tmp_path/'a.pth')
    assert not (tmp_path/'ran').exists() and '\n' not in str(e.value)

def broken():
    b = io.BytesIO()
    torch.save(dict(state_dict=small().state_dict()), b)
    whole = b.getvalue()
    b = io.BytesIO()
    torch.save(dict(state_dict=small().state_dict()), b, _use_new_zipfile_serialization=False)
    old = b.getvalue()
    header = json.dumps(dict(
        w=dict(dtype='F32', shape=[9], data_offsets=[0, 36])
    )).encode()
    return {
        'cut.pth': (whole[:len(whole)//2], 'incomplete or damaged'),
        'old.pth': (old[:len(old)//2], 'incomplete or damaged'),
        'cut.safetensors': (struct.pack('<Q', len(header))+header+b'123', 'incomplete or damaged'),
        'a.png': (b'\x89PNG\r\n\x1a\n'+bytes(90), 'PNG picture'),
        'page.pth': (b'\n<!DOCTYPE html><title>Sign in', 'web page'),
        'empty.pth': (b'', 'empty'),
        'text.pth': (b'hello', 'format is unknown'),
        'lfs.pth': (b'version https://git-lfs.github.com/spec/v1\n', 'Git LFS'),
        'x.json': (b'{"a": 1}', 'not a checkpoint'),
        'page.safetensors': (b'<html>no</html>', 'web page'),
    }

@pytest.mark.parametrize('name', broken())
def test_files_that_are_no_checkpoint(tmp_path, name):
    data,why = broken()[name]
    (tmp_path/name).write_bytes(data)
    with pytest.raises(CheckpointError, match=why) as e:
        read_checkpoint(tmp_path/name)
    assert '\n' not in str(e.value) and name in str(e.value) and len(str(e.value)) < 400

def test_other_things_inside(tmp_path):
    for o,why in (
        (dict(epoch=3), 'holds no weights, but a dict with epoch'),
        ([1, 2], 'but a list'),
        (torch.nn.Linear(2, 2), 'torch.nn.modules.linear.Linear'),
    ):
        torch.save(o, tmp_path/'a.pth')
        with pytest.raises(CheckpointError, match=why):
            read_checkpoint(tmp_path/'a.pth')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path/'b.pt')
    with pytest.raises(CheckpointError, match='TorchScript'):
        read_checkpoint(tmp_path/'b.pt')

# ---- What fits, and what the report says

def test_head_of_another_size(file, capsys):
    m = small(5)
    head = m.head.fc.weight.clone()
    rep = load_checkpoint(m, file)['report']
    n = rep.total
    assert str(rep)==f'{n-2} of {n} matched; skipped head.fc.* (4 → 5)'
    assert torch.equal(m.head.fc.weight, head)
    assert equal(m.backbone, small().backbone)
    assert 'skipped head.fc.* (4 → 5)' in capsys.readouterr().out and getattr(m, 'CLASSES', None) is None
    with pytest.raises(CheckpointError):
        load_checkpoint(small(5), file, strict=True)

def test_another_architecture_changes_nothing(file):
    other = build_classifier(dict(type='ImageClassifier', backbone=dict(type='MobileNetV2'), head=None))
    before = {k: v.clone() for k,v in other.state_dict().items()}
    with pytest.raises(CheckpointError, match='does not fit this model: .*another architecture') as e:
        load_checkpoint(other, file)
    assert '\n' not in str(e.value)
    assert all(torch.equal(v, before[k]) for k,v in other.state_dict().items())
    deep = build_classifier(dict(
        type='ImageClassifier',
        backbone=dict(type='ResNet_CIFAR', depth=50, base_channels=8, stem_channels=8),
        head=None,
    ))
    before = {k: v.clone() for k,v in deep.state_dict().items()}
    with pytest.raises(CheckpointError): load_checkpoint(deep, file) # many names are the same
    assert all(torch.equal(v, before[k]) for k,v in deep.state_dict().items())

def test_the_likely_part_is_named():
    sd = (
        {f'encoder.net.{k}': v for k,v in small().backbone.state_dict().items() if 'layer1' in k}
        | {f'decoder.{i}.weight': torch.ones(1) for i in range(40)}
    )
    with pytest.raises(CheckpointError, match=r'Its keys are decoder\.\* \(40\), encoder\.\*'):
        load_state_dict(small(), sd)
    with pytest.raises(CheckpointError, match=r'of encoder\.net\.'):
        load_state_dict(small(), sd)

def test_long_reports_stay_short():
    m = build_classifier(dict(type='ImageClassifier', backbone=dict(type='ResNet', depth=152), head=None))
    sd = {k: v for k,v in m.state_dict().items() if 'bn2' not in k}
    rep = load_state_dict(m, sd)
    assert (
        str(rep).endswith('missing backbone.layer*.*.bn*.*') or 'missing backbone.layer*.*.bn2.*' in str(rep)
    )

# ---- Tables for another input size

def vit(size=64, **kw):
    torch.manual_seed(1)
    arch = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
    return build_classifier(dict(
        type='ImageClassifier',
        backbone=dict(type='VisionTransformer', arch=arch, img_size=size, patch_size=16, **kw),
        head=None,
    ))

def test_position_table_is_resized():
    a = vit()
    nn.init.normal_(a.backbone.pos_embed)
    b = vit((96, 64))
    assert load_state_dict(b, a.state_dict()).whole
    grid = (
        a.backbone.pos_embed[:, 1:].reshape(1, 4, 4, 16).permute(0, 3, 1, 2)
    )
    want = (
        nn.functional.interpolate(grid, size=(6, 4), mode='bicubic', align_corners=False)
        .flatten(2)
        .transpose(1, 2)
    )
    assert torch.allclose(b.backbone.pos_embed[:, 1:], want)
    assert torch.equal(b.backbone.pos_embed[:, :1], a.backbone.pos_embed[:, :1])

def swin(ws):
    return build_classifier(dict(
        type='ImageClassifier',
        backbone=dict(
            type='SwinTransformer',
            arch=dict(embed_dims=8, depths=[1]*4, num_heads=[2]*4),
            img_size=64,
            window_size=ws,
        ),
        head=None,
    ))

def test_window_tables_and_old_names():
    a,b = swin(4),swin(8)
    rep = load_state_dict(b, a.state_dict())
    assert rep.whole, rep
    old = (
        {k.replace('backbone.norm3.', 'backbone.norm.'): v for k,v in a.state_dict().items()}
        | {'backbone.stages.0.blocks.0.attn_mask': torch.ones(2)}
    )
    k = 'backbone.stages.0.blocks.0.attn.w_msa.relative_position_bias_table'
    assert b.state_dict()[k].shape==(225, 2)
    assert load_state_dict(swin(4), old).missing==[]
    assert a.state_dict()[k].shape==(49, 2)

def noise(key, shape):
    "Numbers that depend on key and index only; the recorded tables were filled with a fifth of them"
    import zlib
    h = (
        np.arange(int(np.prod(shape)), dtype=np.uint32)*np.uint32(0x9E3779B9)
        + np.uint32(zlib.crc32(key.encode()))
    )
    h = (h^(h >> np.uint32(16)))*np.uint32(0x85EBCA6B)
    h = (h^(h >> np.uint32(13)))*np.uint32(0xC2B2AE35)
    h ^= h >> np.uint32(16)
    return torch.from_numpy(((h >> np.uint32(8))/8388608. - 1).astype('f4').reshape(shape))

deit = dict(arch=dict(embed_dims=192, num_layers=1, num_heads=3, feedforward_channels=8))
win = 'backbone.stages.0.blocks.0.attn.w_msa.relative_position_bias_table'
RECORDED = [ # MMClassification 0.25: source and target, the table, some of its values after loading
    (
        dict(type='VisionTransformer', **deit),
        dict(img_size=384),
        'backbone.pos_embed',
        [0.0668776, 0.04215805, 0.02710552, 0.08292119, 0.08555768, -0.06922477, -0.1272517, 0.09319231],
    ),
    (
        dict(type='VisionTransformer', **deit),
        dict(img_size=(160, 256)),
        'backbone.pos_embed',
        [0.1212875, 0.0100163, -0.1044046, 0.1750517, 0.06093041, 0.1344133, 0.13511, -0.103751],
    ),
    (
        dict(type='VisionTransformer', **deit),
        dict(img_size=384, interpolate_mode='bilinear'),
        'backbone.pos_embed',
        [0.06263375, 0.02857566, 0.03028099, 0.07992058, 0.08067603, -0.0353054, -0.08682043, 0.08016776],
    ),
    (
        dict(type='DistilledVisionTransformer', **deit),
        dict(img_size=384),
        'backbone.pos_embed',
        [-0.06535703, 0.1722447, -0.09463084, 0.162514, 0.01066841, -0.221121, 0.1261329, 0.121736],
    ),
    (
        dict(
            type='SwinTransformer', arch=dict(embed_dims=96, depths=[1]*4, num_heads=[3, 6, 12, 24])
        ),
        dict(img_size=384, stage_cfgs=dict(block_cfgs=dict(window_size=12))),
        win,
        [-0.08090059, -0.1318498, 0.1565636, 0.1831591, 0.03475291, 0.1171787, 0.1024505, -0.181353],
    ),
]

@pytest.mark.parametrize(
    'source,change,key,values',
    RECORDED,
    ids=lambda o: o['type'] if isinstance(o, dict) and 'type' in o else '',
)
def test_recorded_tables(source, change, key, values):
    a,b = (
        build_classifier(dict(type='ImageClassifier', backbone=o, head=None))
        for o in (source, {**source, **change})
    )
    sd = a.state_dict()
    sd[key] = .2*noise(key, sd[key].shape)
    assert load_state_dict(b, sd).whole
    t = b.state_dict()[key].flatten()
    at = [(2*j+1)*len(t)//16 for j in range(8)]
    assert torch.allclose(t[at], torch.tensor(values), atol=2e-5)

# ---- init_cfg

def test_pretrained_rule(file):
    m = build_classifier(dict(
        type='ImageClassifier',
        backbone=dict(
            type='ResNet_CIFAR',
            depth=18,
            base_channels=8,
            stem_channels=8,
            init_cfg=dict(type='Pretrained', checkpoint=str(file), prefix='backbone'),
        ),
        head=None,
    ))
    m.init_weights()
    assert equal(m.backbone, small().backbone)
    m.backbone._is_init = m._is_init = False
    m.backbone.init_cfg['prefix'] = 'encoder'
    with pytest.raises(CheckpointError, match=r"begins with 'encoder\.'.*backbone\.\*"):
        m.init_weights()

RULES = [ # rule, layer it is for, what should be true of weight and bias
    (
        dict(type='Constant', val=2., bias=.5),
        lambda w, b: (w==2).all() and (b==.5).all(),
    ),
    (
        dict(type='Constant', val=0., bias_prob=.01),
        lambda w, b: torch.allclose(b.sigmoid(), torch.tensor(.01)),
    ),
    (
        dict(type='Normal', mean=1., std=.1),
        lambda w, b: (
            abs(w.mean()-1) < .01 and abs(w.std()-.1) < .01 and (b==0).all()
        ),
    ),
    (dict(type='TruncNormal', std=.02), lambda w, b: abs(w.std()-.02) < .002),
    (
        dict(type='TruncNormal', std=1., a=-.5, b=.5),
        lambda w, b: w.abs().max() <= .5,
    ),
    (
        dict(type='Uniform', a=-.2, b=.4),
        lambda w, b: -.2 <= w.min() < -.15 and .35 < w.max() <= .4,
    ),
    (
        dict(type='Xavier', gain=2.),
        lambda w, b: abs(w.std()-2*(2/(64*9+32*9))**.5) < .01,
    ),
    (
        dict(type='Xavier', distribution='uniform'),
        lambda w, b: w.abs().max() <= (6/(64*9+32*9))**.5,
    ),
    (dict(type='Kaiming'), lambda w, b: abs(w.std()-(2/(64*9))**.5) < .005),
    (
        dict(type='Kaiming', mode='fan_in', distribution='uniform', a=1, nonlinearity='leaky_relu'),
        lambda w, b: w.abs().max() <= (3/(32*9))**.5,
    ),
    (
        dict(type='Caffe2Xavier'),
        lambda w, b: (
            .99*(3/(32*9))**.5 < w.abs().max() <= (3/(32*9))**.5
        ),
    ),
]

@pytest.mark.parametrize('rule,good', RULES, ids=lambda o: o['type'] if isinstance(o, dict) else '')
def test_rules(rule, good):
    from clsnb.core.init import initialize
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(32, 64, 3), nn.Linear(4, 4))
    other = net[1].weight.clone()
    initialize(net, dict(rule, layer='Conv2d'))
    assert good(net[0].weight, net[0].bias)
    assert torch.equal(net[1].weight, other)

def test_override_and_lists():
    from clsnb.core.init import initialize
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.Linear(8, 2),
        nn.Linear(2, 2),
    )
    initialize(
        net,
        [
            dict(type='Constant', val=3, layer=['_BatchNorm', 'Linear']),
            dict(
                type='Constant',
                val=1,
                bias=2,
                layer='Conv2d',
                override=[dict(name='2'), dict(name='3', type='Constant', val=7)],
            ),
        ],
    )
    # only named: as this rule says, whatever its layer
    assert [net[i].weight.flatten()[0].item() for i in range(4)]==[1, 3, 1, 7]
    assert [net[i].bias[0].item() for i in range(4)]==[2, 0, 2, 0]
    for bad,why in (
        (dict(type='Normal', override=dict(name='x')), "no child 'x'"),
        (dict(type='Normal', override=dict(type='Normal')), 'no child None'),
        (dict(type='Normal', override=dict(name='2', std=1)), 'no type'),
    ):
        with pytest.raises(ConfigError, match=why): initialize(net, bad)

def test_override_by_a_checkpoint(file):
    from clsnb.core.init import initialize
    m = changed(small())
    initialize(
        m,
        dict(
            type='Normal',
            override=dict(name='backbone', type='Pretrained', checkpoint=str(file), prefix='backbone'),
        ),
    )
    assert equal(m.backbone, small().backbone)
    assert not torch.equal(m.head.fc.weight, small().head.fc.weight)

@pytest.mark.parametrize('address', ['torchvision://resnet50', 'timm://resnet50', 'https://example.com/a.pth', 'auto'])
def test_check_takes_every_address_that_a_run_takes(address):
    assert missing_checkpoint(address) is None

@pytest.mark.parametrize('address', ['s3://bucket/a.pth', 'torchvison://resnet50', 'nowhere.pth', 'file:///nowhere.pth'])
def test_check_names_addresses_that_no_run_takes(address):
    assert missing_checkpoint(address)
