"Whatever is wrong with pictures, folders and lists: the right thing happens, or one line names the file"
import io, os, shutil, warnings
from pathlib import Path
import numpy as np, pytest, torch
from PIL import Image
from clsnb.apis.fit import fit
from clsnb.core.errors import ConfigError, DataError
from clsnb.core.registry import MODELS
from clsnb.data.pixels.check_file import check_file, unusable
from clsnb.data.sets.folder import CustomDataset
from clsnb.data.feed.loader import build_dataloader
from clsnb.data.pixels.loading import BrokenPicture, LoadImageFromFile
from clsnb.data.sets.packaged import photo_path
from clsnb.data.sets.samples import read_list
from clsnb.data.sets.scan import scan_folders
from clsnb.data.verify import verify_dataset, verify_report
from clsnb.layers.module import BaseModule

cat = Path(photo_path('cat')).read_bytes()
im = Image.open(io.BytesIO(cat))
steps = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', size=(32, 32)),
    dict(type='ImageToTensor', keys=['img']),
    dict(type='Collect', keys=['img', 'gt_label']),
]

def saved(o, fmt, **kw):
    b = io.BytesIO()
    o.save(b, fmt, **kw)
    return b.getvalue()
def read(path, **kw):
    return (
        LoadImageFromFile(**kw)(dict(img_prefix=str(path.parent), img_info=dict(filename=path.name)))['img']
    )
def put(path, data=b'x'):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
def one_line(e, *words):
    for w in words: assert w in str(e.value), str(e.value)
    assert '\n' not in str(e.value)

exif = Image.Exif()
exif[0x112] = 6
mid = len(cat)//2
good = dict(
    cmyk=('x.jpg', saved(im.convert('CMYK'), 'JPEG')),
    palette=('x.png', saved(im.quantize(256), 'PNG')),
    alpha=('x.png', saved(im.convert('RGBA'), 'PNG')),
    animated=(
        'x.gif',
        saved(im.quantize(256), 'GIF', save_all=True, append_images=[im.rotate(180).quantize(256)]),
    ),
    webp=('x.webp', saved(im, 'WEBP')),
    misnamed=('x.jpg', saved(im, 'PNG')),
)
@pytest.mark.parametrize('name', good)
def test_odd_pictures_look_the_same(tmp_path, name):
    img = read(put(tmp_path/good[name][0], good[name][1]))
    want = np.asarray(im)[...,::-1]
    assert img.shape==want.shape
    assert img.dtype==np.uint8
    assert np.abs(img.astype(int)-want).mean()<12
def test_sixteen_bits(tmp_path):
    p = put(
        tmp_path/'x.png', saved(Image.fromarray(np.full((9, 7), 30000, np.uint16)), 'PNG')
    )
    assert read(p).shape==(9,7,3)
    assert abs(int(read(p)[0,0,0])-30000/257)<2
    assert read(p, color_type='unchanged').dtype==np.uint16
def test_exif_rotation(tmp_path):
    p = put(tmp_path/'x.jpg', saved(im, 'JPEG', exif=exif))
    assert read(p).shape[:2]==im.size==read(
        p, color_type='color_ignore_orientation'
    ).shape[1::-1]
    assert abs(read(p).astype(int)-read(p, imdecode_backend='pillow')).mean()<2
@pytest.mark.parametrize('size', [(1,1), (30_000,10), (10,30_000)])
def test_extreme_sizes(tmp_path, size):
    p = put(tmp_path/'a'/'x.png', saved(Image.new('RGB', size, (9,8,7)), 'PNG'))
    assert read(p).shape==(size[1],size[0],3)
    assert read(p)[0,0].tolist()==[7,8,9]
    assert (
        next(iter(build_dataloader(CustomDataset(str(tmp_path), steps), 1, seed=0)))['img'].shape
        == (1, 3, 32, 32)
    )

def folder(p):
    p.mkdir()
    return p
bad = dict(
    zero=lambda p: put(p, b''),
    corrupt=lambda p: put(p, cat[:40]+bytes(900)),
    cut_png=lambda p: put(p, saved(im, 'PNG')[:9000]),
    cut_jpeg=lambda p: put(p, cat[:400]),
    page=lambda p: put(p, b'<!DOCTYPE html><p>404'),
    missing=lambda p: p,
    folder=folder,
)
@pytest.mark.parametrize(
    'data,words',
    [
        (b'\0\0\0\x18ftypheic\0\0\0\0'+bytes(99), 'HEIC, which is not read here'),
        (b'\0\0\0\x1cftypavif'+bytes(99), 'starts as AVIF'),
        (b'version https://git-lfs', 'Git LFS pointer'),
        (saved(im.quantize(64), 'GIF')[:2000], 'starts as GIF'),
        (saved(im, 'WEBP')[:900], 'starts as WebP'),
        (saved(im, 'TIFF')[:900], 'starts as TIFF'),
        (b'abc'*99, 'no known picture format'),
    ],
)
def test_formats_are_named(tmp_path, data, words):
    with pytest.raises(BrokenPicture, match=words):
        read(put(tmp_path/'x.jpg', data))
@pytest.mark.parametrize('name', bad)
def test_unusable_pictures_are_named(tmp_path, name):
    p = bad[name](tmp_path/'x.jpg')
    for backend in ('cv2','pillow'):
        with pytest.raises(BrokenPicture) as e:
            read(p, imdecode_backend=backend)
        one_line(e, 'x.jpg')
    assert check_file(str(p))[0][0][0] in unusable
def test_unreadable_file(tmp_path):
    p = put(tmp_path/'x.jpg', cat)
    p.chmod(0)
    was = os.geteuid()
    if was==0: os.seteuid(65534) # root may read everything
    try:
        with pytest.raises(BrokenPicture) as e: read(p)
    finally: os.seteuid(was)
    one_line(e, 'x.jpg', 'ermission')
@pytest.mark.skipif(not os.path.exists('/proc/self/mem'), reason='needs a file that opens and cannot be read')
@pytest.mark.parametrize('backend', ['cv2','pillow'])
def test_disk_error(tmp_path, backend):
    (tmp_path/'x.jpg').symlink_to('/proc/self/mem')
    with pytest.raises(BrokenPicture) as e:
        read(tmp_path/'x.jpg', imdecode_backend=backend)
    one_line(e, 'x.jpg', 'nput/output error')
@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='needs pipes')
@pytest.mark.parametrize('kind', ['pipe','device','socket'])
def test_what_is_no_file_is_not_waited_for(tmp_path, kind):
    import socket
    p = tmp_path/'a'/'x.jpg'
    p.parent.mkdir()
    if kind=='pipe':
        os.mkfifo(p)
    elif kind=='device':
        p.symlink_to('/dev/zero')
    else:
        s = socket.socket(socket.AF_UNIX)
        was = os.getcwd()
        os.chdir(p.parent)
        s.bind('x.jpg')
        os.chdir(was)
    with pytest.raises(BrokenPicture) as e: read(p)
    one_line(e, 'x.jpg', *(['a pipe or a device'] if kind!='socket' else []))
    assert check_file(str(p))[0][0][0]=='unreadable'
def test_unreadable_file_of_any_cause(tmp_path, monkeypatch):
    def refuse(*a, **kw): raise PermissionError(13, 'Permission denied')
    monkeypatch.setattr('builtins.open', refuse)
    with pytest.raises(BrokenPicture) as e: read(tmp_path/'x.jpg')
    one_line(e, 'x.jpg', 'Permission denied')
def test_damaged_in_the_middle_is_found(tmp_path):
    broken = bytearray(cat)
    broken[mid:mid+400] = bytes(400)
    problems = check_file(str(put(tmp_path/'x.jpg', bytes(broken))))[0]
    assert not problems or problems[0][0] in ('damaged','truncated','broken') # a decoder may pass over it

# ---- Folders

def test_folders(tmp_path):
    put(tmp_path/'a'/'x.jpg'/'inner.jpg', cat)
    put(tmp_path/'a'/'deep'/'er'/'y.JPG', cat)
    put(tmp_path/'b'/'z.jpg', cat)
    put(tmp_path/'.hidden'/'h.jpg')
    (tmp_path/'a'/'deep'/'up').symlink_to(tmp_path/'a')
    (tmp_path/'b'/'self').symlink_to('.')
    (tmp_path/'b'/'dead').symlink_to('nowhere')
    (tmp_path/'c').symlink_to(tmp_path/'b')
    scan = scan_folders(str(tmp_path))
    assert scan.folders==['a','b','c']
    assert list(scan.names)==['a/deep/er/y.JPG','a/x.jpg/inner.jpg','b/z.jpg','c/z.jpg']
def test_empty_class_folder(tmp_path):
    put(tmp_path/'a'/'x.jpg', cat)
    put(tmp_path/'b'/'x.heic')
    with pytest.raises(DataError) as e: CustomDataset(str(tmp_path))
    one_line(e, str(tmp_path/'b'), '.heic')
    with pytest.warns(UserWarning, match='no samples of 1 of 2 classes: b'):
        ds = CustomDataset(str(tmp_path), classes=['a','b'])
    assert ds.get_gt_labels().tolist()==[0]
def test_scan_is_kept_until_something_changes(tmp_path, monkeypatch):
    monkeypatch.setenv('CLSNB_HOME', str(tmp_path/'home'))
    monkeypatch.setattr('clsnb.data.sets.scan.cache_from', 3)
    root = tmp_path/'data'
    for i in range(4): put(root/'a'/'deep'/f'{i}.jpg')
    old = 1_700_000_000
    for p in (root, root/'a', root/'a'/'deep'):
        os.utime(p, (old, old))
    first = scan_folders(str(root))
    kept = list((tmp_path/'home'/'scans').glob('*'))
    assert len(kept)==1 and list(scan_folders(str(root)).names)==list(first.names)
    monkeypatch.setattr('clsnb.data.sets.scan._read_folders', None) # must not be needed
    assert scan_folders(str(root)).counts.tolist()==[4]
    monkeypatch.undo()
    monkeypatch.setenv('CLSNB_HOME', str(tmp_path/'home'))
    put(root/'a'/'deep'/'new.jpg')
    put(root/'b'/'new.jpg')
    assert scan_folders(str(root)).counts.tolist()==[5,1]
    kept[0].write_bytes(b'PK cut off')
    assert len(scan_folders(str(root)))==6

# ---- Lists

def listed(tmp_path, text, n=3, mode='w'):
    p = tmp_path/'list.txt'
    p.write_bytes(text) if isinstance(text, bytes) else p.write_text(text, newline='')
    names,labels = read_list(p, n)
    return list(zip(names, labels.tolist()))
@pytest.mark.parametrize(
    'text,want',
    [
        ('my cat.jpg 0\na  b/dog 2.jpg 1', [('my cat.jpg', 0),('a  b/dog 2.jpg', 1)]),
        ('x.jpg\t2\r\n\r\n  y.jpg 0  \r\n', [('x.jpg', 2),('y.jpg', 0)]),
        ('\ufeffx.jpg 1\n', [('x.jpg', 1)]),
        ('grüße.jpg 1\n', [('grüße.jpg', 1)]),
        (b'\xe9.jpg 1\n', [('\udce9.jpg', 1)]),
        ('n1 1\nn2 2', [('n1', 1),('n2', 2)]),
    ],
)
def test_lists(tmp_path, text, want): assert listed(tmp_path, text)==want
@pytest.mark.parametrize(
    'text,words',
    [
        ('x.jpg 0\ny.jpg\n', ['line 2', "'y.jpg'"]),
        ('x.jpg 0 1\n', ['line 1', 'more than one label']),
        ('x.jpg,0\n', ['line 1']),
        ('0\n', ['line 1']),
        ('x.jpg 1.5\n', ['line 1']),
        ('x.jpg 0\ny.jpg -1\n', ['sample 1 (y.jpg)', '-1']),
        ('x.jpg 3\n', ['sample 0 (x.jpg)', 'label 3', '0 to 2']),
        ('', ['empty']),
        ('\n \n', ['empty']),
    ],
)
def test_bad_lists(tmp_path, text, words):
    with pytest.raises(DataError) as e: listed(tmp_path, text)
    one_line(e, 'list.txt', *words)
def test_long_list_in_pieces(tmp_path, monkeypatch):
    import clsnb.data.sets.samples as m
    chunks = m._chunks
    monkeypatch.setattr(m, '_chunks', lambda a: chunks(a, 50))
    want = [(f'folder {i%7}/{"x"*(i%60)}{i}.jpg', i%3) for i in range(300)]
    assert listed(tmp_path, '\n'.join(f'{n} {l}' for n,l in want))==want
    with pytest.raises(DataError, match='line 301'):
        listed(tmp_path, '\n'.join(f'{n} {l}' for n,l in want)+'\nbad\n')

# ---- Training goes on

def mixed(tmp_path, n=150, broken=1):
    (tmp_path/'a').mkdir()
    for i in range(n):
        (tmp_path/'a'/f'{i:03}.jpg').symlink_to(photo_path('cat'))
    for i in range(broken):
        (tmp_path/'a'/f'{7*i+5:03}.jpg').unlink()
        put(tmp_path/'a'/f'{7*i+5:03}.jpg', cat[:99])
    return CustomDataset(str(tmp_path), steps)
@pytest.mark.parametrize('workers', [0,2])
def test_broken_pictures_are_left_out(tmp_path, workers):
    loader = build_dataloader(mixed(tmp_path), 10, workers, seed=0)
    with pytest.warns(UserWarning, match='Left out: .*005.jpg'):
        batches = [b.index for b in loader]
    assert sum(map(len, batches))==150
    assert 5 not in sum(batches, [])
    assert list(loader.broken)==[5]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        if not workers:
            again = [b.index for b in build_dataloader(mixed_again(tmp_path), 10, 0, seed=0, max_broken=.5)]
        else:
            again = None
    if again: assert again==batches
def mixed_again(tmp_path):
    ds = CustomDataset(str(tmp_path), steps)
    warnings.filterwarnings('ignore', 'Left out')
    return ds
def test_too_many_stop_the_run(tmp_path):
    ds = mixed(tmp_path, 150, 4)
    with pytest.raises(DataError) as e, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        list(build_dataloader(ds, 10, seed=0))
    one_line(e, 'max_broken=0.01', '.jpg', 'JPEG')
    with pytest.raises(BrokenPicture, match='005.jpg'):
        list(build_dataloader(ds, 10, seed=0, shuffle=False))
def test_all_missing(tmp_path):
    put(tmp_path/'l.txt', b'x.jpg 0\ny.jpg 0\n')
    with pytest.raises(DataError) as e:
        list(build_dataloader(
            CustomDataset(str(tmp_path/'gone'), steps, ['a'], tmp_path/'l.txt'), 2, seed=0, max_broken=.9
        ))
    one_line(e, 'in a row', 'does not exist')

# ---- Whole runs

@MODELS.register
class MeanOfColours(BaseModule):
    "Enough of a model; remembers what it saw"
    def __init__(self, num_classes=2):
        super().__init__()
        self.f = torch.nn.Linear(3, num_classes)
    def train_step(self, b, opt):
        assert b['img'].shape[1:]==(3,32,32) and b['img'].isfinite().all()
        loss = torch.nn.functional.cross_entropy(
            self.f(b['img'].mean((2, 3))), b['gt_label']
        )
        return dict(loss=loss, log_vars=dict(loss=loss.detach()), num_samples=len(b['img']))
def train(tmp_path, data, **loader):
    norm = dict(type='Normalize', mean=[0,0,0], std=[255,255,255])
    data = dict(
        type='CustomDataset',
        pipeline=[steps[0], dict(type='RandomFlip'), steps[1], norm, *steps[2:]],
        **data,
    )
    return fit(
        dict(
            model=dict(type='MeanOfColours'),
            seed=0,
            optimizer=dict(type='SGD', lr=.1),
            lr_config=dict(policy='fixed'),
            runner=dict(type='EpochBasedRunner', max_epochs=2),
            checkpoint_config=None,
            log_config=dict(interval=99, hooks=[]),
            log_level='ERROR',
            data=dict(samples_per_gpu=4, workers_per_gpu=0, train=data, train_dataloader=loader),
        ),
        str(tmp_path/'work'),
        validate=False,
        device='cpu',
    ).runner

odd = {n: d for n,(_, d) in good.items()} | dict(
    sixteen=saved(Image.fromarray(np.full((9, 7), 30000, np.uint16)), 'PNG'),
    exif=saved(im, 'JPEG', exif=exif),
    dot=saved(Image.new('RGB', (1, 1)), 'PNG'),
    wide=saved(Image.new('RGB', (30_000, 10)), 'PNG'),
    high=saved(Image.new('RGB', (10, 30_000)), 'JPEG'),
    grey=saved(im.convert('L'), 'JPEG'),
    bits=saved(im.convert('1'), 'PNG'),
    grey_alpha=saved(im.convert('LA'), 'PNG'),
    clear=saved(im.quantize(8), 'PNG', transparency=3),
    plain=cat,
)
@pytest.mark.parametrize('workers', [0,2])
def test_a_run_takes_every_odd_picture_and_leaves_out_every_bad_one(tmp_path, workers):
    "In the list of a run: names with spaces, all kinds of pictures, files that are none"
    rows = []
    for i,(n,d) in enumerate(odd.items()):
        put(tmp_path/'my pictures'/f'{n} {i}.jpg', d)
        rows.append(f'{n} {i}.jpg {i%2}')
    for n,make in bad.items():
        make(tmp_path/'my pictures'/f'bad {n}.jpg')
        rows.append(f'bad {n}.jpg 0')
    put(tmp_path/'l.txt', '\n'.join(rows).encode())
    with pytest.warns(UserWarning, match='Left out') as said:
        run = train(
            tmp_path,
            dict(data_prefix=str(tmp_path/'my pictures'), ann_file=str(tmp_path/'l.txt'), classes=['a', 'b']),
            max_broken=.9,
            **(dict(workers_per_gpu=workers) if workers else {}),
        )
    broken = {run.train_loader.dataset.sample_name(i): m for i,m in run.train_loader.broken.items()}
    assert set(broken)=={f'bad {n}.jpg' for n in bad}
    assert all(n in m and '\n' not in m for n,m in broken.items())
    assert run.iter==2*-(-len(rows)//4)
    assert sum('Left out: ' in str(o.message) for o in said)==3
def test_a_run_over_folders_with_loops_and_strangers(tmp_path):
    d = tmp_path/'d'
    for c in 'ab':
        for i in range(4): put(d/c/'deep er'/f'{i}.jpg', cat)
        put(d/c/'notes.txt')
        (d/c/'x.jpg').mkdir()
        (d/c/'up').symlink_to(d)
        (d/c/'self').symlink_to('.')
        (d/c/'dead.jpg').symlink_to('nowhere')
    with pytest.warns(UserWarning, match='Left out: No such picture: .*dead.jpg.*a link to nowhere'):
        run = train(tmp_path, dict(data_prefix=str(d)), max_broken=.5)
    ds = run.train_loader.dataset
    assert [ds.sample_name(i) for i in range(len(ds))]==[
        f'{c}/{o}'
        for c in 'ab'
        for o in ('dead.jpg', *(f'deep er/{i}.jpg' for i in range(4)))
    ]
    assert ds.get_gt_labels().tolist()==[0]*5+[1]*5
    assert run.iter==2*len(run.train_loader)
    assert len(run.train_loader.broken)==2
@pytest.mark.parametrize(
    'line,words',
    [
        ('x.jpg', ['line 3', "'x.jpg'"]),
        ('x.jpg 0 1', ['line 3', 'more than one label']),
        ('x.jpg -1', ['sample 2 (x.jpg)', '-1']),
        ('x.jpg 2', ['sample 2 (x.jpg)', 'label 2', '0 to 1']),
    ],
)
def test_a_run_with_a_bad_list_does_not_begin(tmp_path, line, words):
    put(tmp_path/'l.txt', f'a.jpg 0\nmy b.jpg 1\n{line}\n'.encode())
    with pytest.raises(DataError) as e:
        train(tmp_path, dict(data_prefix=str(tmp_path), ann_file=str(tmp_path/'l.txt'), classes=['a','b']))
    one_line(e, 'l.txt', *words)
    assert not (tmp_path/'work').exists()
def test_a_run_with_an_empty_class_folder_does_not_begin(tmp_path):
    put(tmp_path/'d'/'a'/'x.jpg', cat)
    (tmp_path/'d'/'nothing here').mkdir()
    with pytest.raises(DataError) as e:
        train(tmp_path, dict(data_prefix=str(tmp_path/'d')))
    one_line(e, str(tmp_path/'d'/'nothing here'))

# ---- verify_dataset

def test_verify(tmp_path):
    for n,(_,data) in enumerate(good.values()):
        put(tmp_path/'train'/'a'/f'{n}.png', data)
    put(tmp_path/'train'/'b'/'same.jpg', cat)
    put(tmp_path/'val'/'b'/'same.jpg', cat)
    put(tmp_path/'val'/'a'/'zero.jpg', b'')
    put(tmp_path/'val'/'a'/'dot.png', saved(Image.new('RGB', (1,1)), 'PNG'))
    dfs = [
        verify_dataset(dict(train=str(tmp_path/'train'), val=str(tmp_path/'val')), workers=w)
        for w in (0, 2)
    ]
    assert dfs[0].equals(dfs[1]) and dfs[0].attrs['checked']==10
    found = set(zip(dfs[0].split, dfs[0].file, dfs[0].problem))
    assert {
        ('val', 'a/zero.jpg', 'empty'),
        ('val', 'a/dot.png', 'tiny'),
        ('val', 'b/same.jpg', 'in two splits'),
        ('train', 'a/0.png', 'mode'),
    } <= found
    assert 'zero.jpg' in verify_report(dfs[0]).split('\n')[2]
def test_verify_survives_a_decoder_that_dies(tmp_path, monkeypatch):
    import clsnb.data.verify as v
    for i in range(6): put(tmp_path/'a'/f'{i}.jpg', cat)
    monkeypatch.setattr(v, 'check_files', _die_at_4)
    df = verify_dataset(str(tmp_path), workers=2, duplicates=False)
    assert df[['file','problem']].values.tolist()==[['a/4.jpg','crash']]
def _die_at_4(jobs, tiny, how):
    if any(str(o).endswith('4.jpg') for o in jobs): os._exit(1)
    return [([], None) for _ in jobs]
def test_verify_counts_pictures_of_each_split(tmp_path):
    for s in ('train','val'):
        put(tmp_path/s/'a'/'zero.jpg', b'')
        put(tmp_path/s/'a'/'cat.jpg', cat)
    assert verify_report(verify_dataset(
        {s: str(tmp_path/s) for s in ('train', 'val')}, workers=0
    )).startswith('4 pictures checked: 2 cannot be used (50.00%)')
def test_ctrl_c_ends_verification_at_once(tmp_path, monkeypatch):
    import clsnb.data.verify as v, signal, threading, time
    for i in range(400): put(tmp_path/'a'/f'{i}.jpg', b'')
    monkeypatch.setattr(v, 'check_files', _slow)
    t = threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT))
    t.start()
    began = time.time()
    with pytest.raises(KeyboardInterrupt):
        verify_dataset(str(tmp_path), workers=2)
    assert time.time()-began<15 # of a hundred
def _slow(jobs, tiny, how):
    import time
    time.sleep(4)
    return [([], None) for _ in jobs]
@pytest.mark.skipif(os.name=='nt', reason='names are letters there')
def test_names_that_are_no_letters_stay_on_their_line(tmp_path):
    for n in (b'new\nline\x1b.jpg', b'caf\xe9.jpg'):
        put(tmp_path/'a'/os.fsdecode(n), cat[:400])
    report = verify_report(verify_dataset(str(tmp_path), workers=0))
    assert len(report.split('\n'))==4
    assert 'new\\nline\\x1b.jpg' in report
    assert report.isascii()
    ds = CustomDataset(str(tmp_path), steps)
    for i in range(2):
        with pytest.raises(BrokenPicture) as e: ds[i]
        assert str(e.value).isprintable() and str(e.value).encode()
def test_verify_command(tmp_path, capsys):
    from clsnb.cli import main
    put(tmp_path/'d'/'a'/'zero.jpg', b'')
    put(tmp_path/'d'/'a'/'cat.jpg', cat)
    with pytest.raises(SystemExit) as e:
        main(['verify', str(tmp_path/'d'), '--workers', '0', '--out', str(tmp_path/'o.csv')])
    assert e.value.code==1
    assert 'zero.jpg' in capsys.readouterr().out
    assert (tmp_path/'o.csv').read_text().count('\n')==2

# ---- Data never runs code

def test_readers_run_no_code(tmp_path):
    import pickle
    from clsnb.data.sets.small_images import load_array_pickle
    from clsnb.data.sets.tables import read_table
    class Bomb: __reduce__ = lambda self: (os.mkdir, (str(tmp_path/'pwned'),))
    p = put(tmp_path/'x.pkl', pickle.dumps(Bomb()))
    with pytest.raises(DataError): load_array_pickle(p)
    with pytest.raises(ConfigError): read_table(p)
    np.save(tmp_path/'x.npy', np.array([Bomb()], object), allow_pickle=True)
    shutil.copy(tmp_path/'x.npy', tmp_path/'x.jpg')
    with pytest.raises(BrokenPicture): read(tmp_path/'x.jpg')
    assert not (tmp_path/'pwned').exists()


# ---- One table of formats


def test_one_table_of_formats(tmp_path):
    "The suffixes of the table, and what Pillow writes under them, are recognised by their first bytes"
    from clsnb.data.pixels.kinds import kind_of, mmcls_suffixes, picture_kinds, picture_suffixes
    from clsnb.data.sets.scan import IMG_EXTENSIONS
    assert IMG_EXTENSIONS == mmcls_suffixes
    im = Image.new('RGB', (8, 8))
    for name in ('JPEG', 'PNG', 'GIF', 'BMP', 'TIFF', 'WEBP', 'PPM'):
        assert kind_of(saved(im, name)) is picture_kinds[name]
        assert set(picture_kinds[name].suffixes) <= set(picture_suffixes)


def test_all_verbs_know_the_same_formats(tmp_path):
    "A folder of WebP and TIFF is no empty folder"
    from clsnb.apis.inference import find_pictures
    from clsnb.data.sets.scan import scan_folders
    for name, kind in (('a.webp', 'WEBP'), ('b.tiff', 'TIFF'), ('c.jpg', 'JPEG')):
        (tmp_path/'one').mkdir(exist_ok=True)
        (tmp_path/'one'/name).write_bytes(saved(Image.new('RGB', (8, 8)), kind))
    assert [p.name for p in find_pictures([tmp_path/'one'])] == ['a.webp', 'b.tiff', 'c.jpg']
    scan = scan_folders(tmp_path)
    assert len(scan) == 1 and scan.left_out == {'.tiff': 1, '.webp': 1}  # mmcls's list, and what it leaves out

# ---- verify with the names of mmcls

@pytest.fixture
def split_config(tmp_path):
    "A config whose val and test each have a broken picture"
    from PIL import Image
    for split,broken in (('train', 0), ('val', 1), ('test', 2)):
        (tmp_path/split/'cat').mkdir(parents=True)
        for i in range(3): Image.new('RGB', (64, 48), (i*20, 9, 9)).save(tmp_path/split/'cat'/f'{i}.png')
        for i in range(broken): (tmp_path/split/'cat'/f'broken{i}.jpg').write_bytes(b'\xff\xd8\xff oh')
    lines = [f"{path.name}=dict(type='CustomDataset', data_prefix={str(path)!r}, pipeline=[])"
             for path in (tmp_path/'train', tmp_path/'val', tmp_path/'test')]
    (tmp_path/'mine.py').write_text(f"data = dict({', '.join(lines)})\n")
    return tmp_path/'mine.py'

def verify(*words):
    from clsnb.cli import main
    try: return main(['verify', *map(str, words)]) or 0
    except SystemExit as e: return e.code

@pytest.mark.parametrize('phase, broken', [('train', 0), ('val', 1), ('test', 2), (None, 3)])
def test_phases_of_verify(phase, broken, split_config, tmp_path, capsys):
    log = tmp_path/'broken_imgs.log'
    words = ['--phase', phase] if phase else []
    assert verify(split_config, '--out-path', log, '--num-process', 2, *words)==bool(broken)
    names = log.read_text().splitlines()
    assert len(names)==broken and all('broken' in name and Path(name).is_file() for name in names)
    assert f'{9+3 if phase is None else 3+broken} pictures checked' in capsys.readouterr().out

def test_overrides_and_mistakes_of_verify(split_config, tmp_path, capsys):
    other = f"data.train.data_prefix={tmp_path/'test'}"
    assert verify(split_config, '--phase', 'train', '--num-process', 0, '--cfg-options', other)==1
    (tmp_path/'part.py').write_text(split_config.read_text().replace('test=dict', 'val2=dict'))
    for words,text in [
        ((tmp_path/'val', '--phase', 'val'), '--phase needs a config'),
        ((tmp_path/'val', '--cfg-options', 'a=1'), '--cfg-options needs a config'),
        ((tmp_path/'part.py', '--phase', 'test'), 'has no data.test'), ((split_config, '--phase', 'tset'), 'tset'),
        ((split_config, '--num-process', -1), 'not in the range'),
        ((split_config, '--out-path', tmp_path), 'cannot be written'),
        ((tmp_path/'none.py',), 'none.py'),
    ]:
        capsys.readouterr()
        assert verify(*words)==2
        error = capsys.readouterr().err
        assert text in error and error.count('\n')==1, error
