"Checkpoints that are damaged, or of another run: one readable error, and the newest good one is resumed"
import json, os, zipfile
from time import process_time
import numpy as np, pytest, torch
from clsnb.apis.fit import fit
from clsnb.core.checkpoint import read_checkpoint, save_checkpoint
from clsnb.core.errors import CheckpointError
from clsnb.train.checkpoint_hook import latest_checkpoint
from test_complete import make, pictures

@pytest.fixture(scope='module')
def run(tmp_path_factory):
    "A folder with pictures and two checkpoints of a run"
    root = tmp_path_factory.mktemp('damaged')
    pictures(root/'p')
    fit(make(root/'p', epochs=2, optimizer=dict(type='AdamW', lr=.01)), root/'w', device='cpu')
    return root

@pytest.fixture
def copy(run, tmp_path):
    "The two checkpoints, without their hashes"
    for name in ('epoch_1.pth', 'epoch_2.pth'): (tmp_path/name).write_bytes((run/'w'/name).read_bytes())
    return tmp_path

def refused(path):
    "Reading fails with our error, in one line"
    with pytest.raises(CheckpointError) as e: read_checkpoint(path)
    assert '\n' not in str(e.value) and len(str(e.value))<700

def one_line_or_read(path):
    try: return read_checkpoint(path)
    except CheckpointError as e: assert '\n' not in str(e) and len(str(e))<700

# ---- Damaged files

def test_flipped_bits_anywhere(copy):
    data = (copy/'epoch_2.pth').read_bytes()
    good = read_checkpoint(copy/'epoch_2.pth')['state_dict']
    rs = np.random.RandomState(0)
    for at in [*rs.randint(0, len(data), 60), *rs.randint(len(data)-6000, len(data), 120)]:
        bad = bytearray(data)
        bad[at] ^= 1 << rs.randint(8)
        (copy/'bad.pth').write_bytes(bad)
        stored = one_line_or_read(copy/'bad.pth')
        if stored: assert all(torch.equal(v, good[k]) for k,v in stored['state_dict'].items()), at

def test_a_flipped_bit_in_the_weights_is_named(copy):
    path = copy/'epoch_2.pth'
    data = bytearray(path.read_bytes())
    at = data.index(read_checkpoint(path)['state_dict']['backbone.conv1.weight'].numpy().tobytes())
    data[at+40] ^= 16
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match='checksum of .*data/.* is wrong'): read_checkpoint(path)
    assert latest_checkpoint(copy)==copy/'epoch_1.pth'

def test_files_without_checksums_are_read(copy):
    stored = torch.load(copy/'epoch_2.pth', weights_only=True)
    old = torch.serialization.get_crc32_options() if hasattr(torch.serialization, 'get_crc32_options') else None
    if old is None: pytest.skip('this torch always writes checksums')
    torch.serialization.set_crc32_options(False)
    try: torch.save(stored, copy/'a.pth')
    finally: torch.serialization.set_crc32_options(old)
    assert read_checkpoint(copy/'a.pth')['meta']['epoch']==2
    torch.save(stored, copy/'b.pth', _use_new_zipfile_serialization=False)
    assert read_checkpoint(copy/'b.pth')['meta']['epoch']==2

HASHES = [b'\xff\xfe\xfa\x00', b'', b'no hash', '\u732b'.encode('utf-16')]

@pytest.mark.parametrize('text', HASHES, ids=range(len(HASHES)))
def test_a_damaged_hash_file_is_not_believed(copy, text):
    (copy/'epoch_2.pth.sha256').write_bytes(text)
    assert latest_checkpoint(copy)==copy/'epoch_2.pth'

def test_a_folder_instead_of_a_hash_and_a_wrong_hash(copy, run):
    (copy/'epoch_2.pth.sha256').mkdir()
    assert latest_checkpoint(copy)==copy/'epoch_2.pth'
    (copy/'epoch_2.pth.sha256').rmdir()
    (copy/'epoch_2.pth.sha256').write_text('0'*64)
    refused(copy/'epoch_2.pth')
    assert latest_checkpoint(copy)==copy/'epoch_1.pth'
    os.symlink('epoch_2.pth', copy/'latest.pth') # the hash of what it links to
    refused(copy/'latest.pth')

# ---- Odd contents

def deep(levels):
    out = {}
    for _ in range(levels): out = dict(model=out)
    return out

def cyclic():
    out = dict(epoch=1)
    out['model'] = out
    return out

ODD = dict(
    deep=lambda: deep(200), cyclic=cyclic, empty=dict, number=lambda: 3, no_weights=lambda: dict(meta=dict(epoch=1)),
    list_of=lambda: [torch.ones(1)], names=lambda: {'x'*5000: 1}, lines=lambda: {'a\nb': 1})

@pytest.mark.parametrize('name', ODD)
def test_odd_contents_are_refused(tmp_path, name):
    torch.save(ODD[name](), tmp_path/'a.pth')
    refused(tmp_path/'a.pth')

METAS = [
    3, 'text', [1], None, dict(CLASSES=torch.ones(2, 2)), dict(CLASSES=range(10**12)), dict(config=3),
    dict(dataset_meta=3), dict(dataset_meta=dict(classes=np.array(['a', 'b']))), dict(CLASSES=float('nan')), dict(iter='x'),
    dict(iter=float('nan'), epoch=None, time=3)]

@pytest.mark.parametrize('meta', METAS, ids=range(len(METAS)))
def test_odd_facts_do_no_harm(copy, meta):
    weights = read_checkpoint(copy/'epoch_2.pth')['state_dict']
    torch.save(dict(state_dict=weights, meta=meta), copy/'epoch_3.pth')
    assert len(read_checkpoint(copy/'epoch_3.pth')['state_dict'])==len(weights)
    assert latest_checkpoint(copy) is not None

INDEXES = [
    '{"weight_map": {"a": "model.safetensors.index.json"}}', '['*100_000, '{"weight_map": {"a": 3}}',
    '{"weight_map": {"a": "%s"}}'%('x'*300), '{"weight_map": [1]}', '{"weight_map": {"a": null}}', '', '{"a": ',
    '{"weight_map": {"a": "a\\u0000b"}}', '{"weight_map": {"a": ""}}', '{"weight_map": {"a": ".."}}', '{"weight_map": {}}']

@pytest.mark.parametrize('text', INDEXES, ids=range(len(INDEXES)))
def test_odd_indexes_of_shards_are_refused(tmp_path, text):
    (tmp_path/'model.safetensors.index.json').write_text(text)
    refused(tmp_path)

@pytest.mark.parametrize('path', ['x'*300, 'a\0b', '/dev/null', '/proc/self/mem', 'no/such.pth', '~nobody/x.pth', ''])
def test_odd_paths_are_refused(path): refused(path)

def test_no_permission_is_told(copy, monkeypatch):
    import clsnb.core.checkpoint as c
    def denied(*args): raise PermissionError(13, 'Permission denied')
    monkeypatch.setattr(c, 'read_file', denied)
    with pytest.raises(CheckpointError, match='Permission denied'): read_checkpoint(copy/'epoch_2.pth')

# ---- The newest good one

def test_the_newest_is_by_iteration_not_by_clock(copy):
    for n,(iteration,time) in enumerate([(10, 'Mon Nov 30 12:00:00 2026'), (20, 'Mon Nov 30 09:00:00 2026')], 1):
        save_checkpoint(torch.nn.Linear(2, 2), copy/f'iter_{10*n}.pth', meta=dict(iter=iteration, epoch=0, time=time))
    os.utime(copy/'iter_20.pth', (1, 1))
    assert latest_checkpoint(copy)==copy/'iter_20.pth'
    (copy/'epoch_9.pth').mkdir()
    (copy/'epoch_8.pth').write_bytes(b'')
    (copy/'iter_90.pth').symlink_to('nowhere.pth')
    with zipfile.ZipFile(copy/'iter_80.pth', 'w') as z: z.writestr('a/data.pkl', b'\x80')
    assert latest_checkpoint(copy)==copy/'iter_20.pth'

def test_weights_that_are_nan_are_not_resumed(copy):
    stored = torch.load(copy/'epoch_2.pth', weights_only=True)
    stored['state_dict']['head.fc.bias'][0] = float('nan')
    torch.save(stored, copy/'epoch_2.pth')
    assert latest_checkpoint(copy)==copy/'epoch_1.pth'

# ---- Another optimizer, other groups, damaged states

def resume(run, folder, path, **changes):
    cfg = make(run/'p', epochs=3, optimizer=dict(type='AdamW', lr=.01))
    cfg.merge_from_dict(changes)
    return fit(cfg, folder, resume_from=str(path), device='cpu', validate=False)

OTHER = [
    ({'optimizer': dict(type='SGD', lr=.01, momentum=.9)}, 'optimizer AdamW, and this run has SGD'),
    ({'optimizer': dict(type='RMSprop', lr=.01)}, 'optimizer AdamW, and this run has RMSprop'),
    ({'optimizer.paramwise_cfg': dict(norm_decay_mult=0.)}, 'parameter groups'),
]

@pytest.mark.parametrize('change,text', OTHER, ids=range(len(OTHER)))
def test_another_optimizer_is_one_readable_line(run, tmp_path, change, text):
    with pytest.raises(CheckpointError, match=f'{text}.*load_from') as e:
        resume(run, tmp_path, run/'w/epoch_2.pth', **change)
    assert '\n' not in str(e.value)

def set_at(stored, path, value):
    *parts, last = path
    for o in parts: stored = stored[o]
    stored[last] = value

DAMAGED = [
    (('optimizer', 'state', 1, 'exp_avg_sq'), torch.ones(7)), (('optimizer', 'state', 1, 'exp_avg'), 'x'),
    (('optimizer', 'state', 1, 'step'), 'x'), (('optimizer', 'state', 1), 3), (('optimizer', 'state'), [1]),
    (('optimizer', 'param_groups'), 3), (('optimizer', 'param_groups'), []), (('optimizer', 'param_groups', 0, 'lr'), 'x'),
    (('optimizer', 'param_groups', 0, 'lr'), float('nan')), (('optimizer', 'param_groups', 0, 'betas'), None),
    (('optimizer', 'param_groups', 0, 'params'), [1]), (('optimizer',), 'x'), (('loop',), 'x'),
    (('loop', 'position'), 'x'), (('loop', 'position', 'epoch'), 'x'), (('loop', 'position', 'iter'), -1),
    (('loop', 'rng', 'torch'), torch.ones(3)), (('loop', 'rng'), 'x'), (('loop', 'log_buffer'), 'x')]

@pytest.mark.parametrize('path,value', DAMAGED, ids=['.'.join(map(str, o[0])) for o in DAMAGED])
def test_a_damaged_state_is_one_readable_line(run, tmp_path, path, value):
    stored = torch.load(run/'w/epoch_2.pth', weights_only=True)
    set_at(stored, path, value)
    torch.save(stored, tmp_path/'a.pth')
    with pytest.raises(CheckpointError, match='does not fit this run.*load_from') as e:
        resume(run, tmp_path/'w', tmp_path/'a.pth')
    assert '\n' not in str(e.value) and len(str(e.value))<500

def test_the_same_optimizer_resumes(run, tmp_path):
    assert resume(run, tmp_path, run/'w/epoch_2.pth').runner.epoch==3
    assert json.loads((tmp_path/'progress.json').read_text())['state']=='finished'

@pytest.mark.parametrize('old', [False, True])
def test_a_class_with_an_endless_name_is_told_at_once(tmp_path, old):
    "torch searches its message about such a name for minutes"
    path = tmp_path/'epoch_1.pth'
    torch.save(dict(state_dict=dict(a=torch.ones(2))), path, _use_new_zipfile_serialization=not old)
    hostile = b'c' + b'x'*100_000 + b'\ny\n'
    if old:
        path.write_bytes(b'\x80\x02' + hostile + path.read_bytes())
    else:
        with zipfile.ZipFile(path) as z: parts = {o: z.read(o) for o in z.namelist()}
        with zipfile.ZipFile(path, 'w') as z:
            for part, data in parts.items(): z.writestr(part, b'\x80\x02' + hostile + b'.' if part.endswith('data.pkl') else data)
    start = process_time()
    with pytest.raises(CheckpointError, match='damaged'): read_checkpoint(path)
    assert latest_checkpoint(tmp_path) is None
    assert process_time() - start < 5
