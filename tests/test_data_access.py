"Pictures, lists and shards from disks, servers, archives and buckets; caches; streams"
import contextlib, errno, gc, hashlib, io, multiprocessing, os, re, shutil, signal, sys, tarfile
import threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
import cv2, fsspec, numpy as np, pytest
import clsnb
import clsnb.data.sets.shards as shards_module, clsnb.data.pixels.loading as loading
from clsnb.core.errors import ConfigError, DataError, DependencyError
from clsnb.core.trust import trusted
from clsnb.data.sets.shards import ShardDataset
from clsnb.data.pixels.cache import PictureCache, SharedFile, _shared_file
from clsnb.data.pixels.file_client import FileClient, file_system, join_path
from clsnb.data.sets.folder import CustomDataset
from clsnb.data.feed.loader import Loader, build_dataloader
from clsnb.data.pixels.loading import BrokenPicture, LoadImageFromFile, read_bytes
from clsnb.data.feed.samplers import DistributedSampler, RepeatAugSampler
from clsnb.data.sets.scan import scan_folders
from clsnb.data.feed.streams import ShardStream
from fsspec.implementations.memory import MemoryFileSystem

photos = Path(clsnb.__file__).parent/'photos'
some = sorted(photos.glob('*/*.jpg'))[::8]
cat = (photos/'animal/cat.jpg').read_bytes()
steps = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', size=24),
    dict(type='RandomFlip'),
    dict(type='ImageToTensor', keys=['img']),
    dict(type='Collect', keys=['img', 'gt_label'], meta_keys=()),
]
def loads(**kw): return [dict(steps[0], **kw), *steps[1:]]
def digest(batches):
    return hashlib.sha256(b''.join(
        b['img'].numpy().tobytes()+b['gt_label'].numpy().tobytes()
        for b in batches
    )).hexdigest()
def one_line(e, *words):
    for w in words: assert w in str(e.value), str(e.value)
    assert '\n' not in str(e.value)
def load(path, prefix=None, **kw):
    return LoadImageFromFile(**kw)(dict(img_prefix=prefix, img_info=dict(filename=str(path))))['img']

# ---- A server that fails when it is told to

class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *a): pass
    def do_HEAD(self): self.do_GET()
    def do_GET(self):
        s = self.server
        name = self.path.lstrip('/')
        s.asked.append((self.command, name, self.headers.get('Range')))
        status = s.status.get(name, []).pop(0) if s.status.get(name) else 200
        if status!=200 or name not in s.files:
            return self.send_error(status if status!=200 else 404)
        data = s.files[name]
        a,b = 0,len(data)
        if (m := re.match(r'bytes=(\d+)-(\d*)', self.headers.get('Range') or '')) and s.ranges:
            a = int(m[1])
            b = min(int(m[2] or len(data))+1, len(data))
            self.send_response(206)
            self.send_header('Content-Range', f'bytes {a}-{b-1}/{len(data)}')
        else: self.send_response(200)
        if s.ranges: self.send_header('Accept-Ranges', 'bytes')
        self.send_header('Content-Length', str(b-a))
        self.end_headers()
        if self.command=='HEAD': return
        cut = s.cut.get(name)
        if cut and a<=cut[0]<b and cut[1]>0: # the connection breaks here, that many times
            cut[1] -= 1
            self.wfile.write(data[a:cut[0]])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
            return
        self.wfile.write(data[a:b])

@pytest.fixture
def server():
    s = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    s.daemon_threads = True
    s.files = {}
    s.asked = []
    s.status = {}
    s.cut = {}
    s.ranges = True
    s.url = f'http://127.0.0.1:{s.server_port}'
    threading.Thread(target=s.serve_forever, daemon=True).start()
    yield s
    s.shutdown()
    s.server_close()

@pytest.fixture
def memory():
    fs = fsspec.filesystem('memory')
    with trusted(): yield fs # memory:// is not on the list of what only reads
    for p in fs.ls('/', detail=False):
        fs.rm(p, recursive=True)

class Bucket(MemoryFileSystem):
    "In the place of S3"
    protocol = 's3'
    store = {}
    pseudo_dirs = ['']
    options = []
    def __init__(self, *args, **kw):
        super().__init__(*args, **kw)
        self.options.append(kw)
    @classmethod
    def _strip_protocol(cls, path): return '/'+str(path).removeprefix('s3://').strip('/')
@pytest.fixture
def bucket(monkeypatch):
    monkeypatch.setitem(sys.modules['fsspec.registry']._registry, 's3', Bucket)
    Bucket.options.clear()
    Bucket.clear_instance_cache()
    yield Bucket()
    Bucket.store.clear()

# ---- Backends

def test_old_backends(bucket):
    bucket.pipe('/mine/pets/animal/cat.jpg', cat)
    mapping = {'./data/pets/':'s3://mine/pets/', 'data/pets/':'s3://mine/pets/'}
    for backend in ('petrel','ceph'):
        args = dict(backend=backend, path_mapping=mapping, enable_mc=True)
        for prefix in ('data/pets', './data/pets', 'cluster:s3://mine/pets'):
            assert np.array_equal(
                load('animal/cat.jpg', prefix, file_client_args=args),
                cv2.imdecode(np.frombuffer(cat, np.uint8), 1),
            )
    with pytest.raises(ConfigError) as e:
        load('x.jpg', 'other', file_client_args=args)
    one_line(e, 'other/x.jpg', 'path_mapping', "'data/pets/'")
    with pytest.raises(BrokenPicture) as e:
        load('animal/dog.jpg', 'data/pets', file_client_args=args)
    one_line(e, 'data/pets/animal/dog.jpg', 's3://mine/pets/animal/dog.jpg', "backend='ceph'")
    FileClient('s3', endpoint_url='http://x', anon=True).get('s3://mine/pets/animal/cat.jpg')
    assert dict(endpoint_url='http://x', anon=True) in Bucket.options
    assert not any('enable_mc' in o for o in Bucket.options)
    assert FileClient('disk', path_mapping={'/nowhere':str(photos)}).get('/nowhere/animal/cat.jpg')==cat
    assert FileClient(prefix='s3').backend=='s3'

@pytest.mark.parametrize(
    'args,error,words',
    [
        (
            dict(backend='memcached', server_list_cfg='x'),
            ConfigError,
            ['memcached', "backend='disk'", 'cache='],
        ),
        (dict(backend='petrol'), ConfigError, ["'petrel'"]),
        (dict(path_maping={}), ConfigError, ["'path_mapping'"]),
        (dict(backend='htp'), ConfigError, ["'http'"]),
    ],
)
def test_bad_arguments(args, error, words):
    with pytest.raises(error) as e: LoadImageFromFile(file_client_args=args)
    one_line(e, *words)
def test_missing_package(monkeypatch):
    def refuse(p): raise ImportError('Install s3fs to access S3')
    monkeypatch.setattr(fsspec, 'get_filesystem_class', refuse)
    with pytest.raises(DependencyError) as e: FileClient('petrel')
    one_line(e, "backend='petrel'", 's3fs', "pip install 'fsspec[s3]'")
    with pytest.raises(DependencyError, match='s3fs'):
        FileClient().get('s3://b/x.jpg')
def test_local_files_are_simply_opened(monkeypatch):
    "No client, no fsspec, one open"
    for k in ('get','ask','address'): monkeypatch.setattr(FileClient, k, None)
    opened = []
    monkeypatch.setattr(
        loading, 'open',
        lambda *a, **kw: opened.append(a[0]) or open(*a, **kw),
        raising=False,
    )
    load('animal/cat.jpg', str(photos))
    assert opened==[str(photos/'animal/cat.jpg')]
def test_mapped_prefix_in_archives():
    assert join_path(Path('a'), 'x.jpg')=='a/x.jpg' and join_path(None, 'x.jpg')=='x.jpg'
    assert join_path('zip://::a.zip', 'x/y.jpg')=='zip://x/y.jpg::a.zip'
    assert join_path('zip://x::s3://b/a.zip', 'y.jpg')=='zip://x/y.jpg::s3://b/a.zip'

def test_zip(tmp_path):
    shutil.make_archive(str(tmp_path/'p'), 'zip', photos)
    z = tmp_path/'p.zip'
    want = cv2.imread(str(photos/'animal/cat.jpg'))
    assert np.array_equal(load('animal/cat.jpg', f'zip://::{z}'), want)
    assert np.array_equal(load('cat.jpg', f'zip://animal::{z}'), want)
    with trusted():
        assert np.array_equal(load('animal/cat.jpg', '', file_client_args=dict(backend='zip', fo=str(z))), want)
    for path,words in [
        (f'zip://animal/dodo.jpg::{z}', ['No such picture', 'dodo.jpg']),
        (f'zip://cat.jpg::{tmp_path}/none.zip', ['No such picture', 'none.zip']),
    ]:
        with pytest.raises(BrokenPicture) as e: load(path)
        one_line(e, *words)
    z.write_bytes(z.read_bytes()[:9000])
    MemoryFileSystem.clear_instance_cache()
    fsspec.get_filesystem_class('zip').clear_instance_cache()
    with pytest.raises(BrokenPicture) as e:
        load(f'zip://animal/cat.jpg::{z}', file_client_args=dict(tries=1))
    one_line(e, 'p.zip', 'Cannot read')
def test_each_process_opens_its_own(tmp_path):
    "An open archive has one place in its file: two processes must not share it"
    shutil.make_archive(str(tmp_path/'p'), 'zip', photos/'fish')
    at = f'zip://x.jpg::{tmp_path}/p.zip'
    c = FileClient()
    fs,_ = file_system(c, at)
    assert file_system(c, at)[0] is fs
    ctx = multiprocessing.get_context('fork')
    q = ctx.Queue()
    p = ctx.Process(target=lambda: q.put(file_system(c, at)[0] is fs))
    p.start()
    assert q.get(timeout=30) is False
    p.join(30)
def test_lmdb(tmp_path):
    lmdb = pytest.importorskip('lmdb')
    with lmdb.open(str(tmp_path/'db'), map_size=1<<24) as db, db.begin(write=True) as t:
        for f in some:
            t.put(str(f.relative_to(photos)).encode(), f.read_bytes())
    (tmp_path/'l.txt').write_text(''.join(f'{f.relative_to(photos)} 0\n' for f in some))
    args = dict(backend='lmdb', db_path=str(tmp_path/'db'))
    assert FileClient(**args).get('animal/bison.jpg')[:2]==b'\xff\xd8'
    want = digest(build_dataloader(
        CustomDataset(str(photos), steps, ['a'], str(tmp_path/'l.txt')), 9, seed=0
    ))
    for w in (0,2):
        assert digest(build_dataloader(
            CustomDataset('', loads(file_client_args=args), ['a'], str(tmp_path/'l.txt')), 9, w, seed=0
        ))==want
    with pytest.raises(BrokenPicture, match='No such picture: dodo'):
        load('dodo.jpg', file_client_args=args)

# ---- A server

def test_http(server):
    server.files['a b/cat.jpg'.replace(' ', '%20')] = cat
    assert np.array_equal(
        load('cat.jpg', f'{server.url}/a%20b'), cv2.imdecode(np.frombuffer(cat, np.uint8), 1)
    )
    with pytest.raises(BrokenPicture) as e: load('dodo.jpg', server.url)
    one_line(e, f'No such picture: {server.url}/dodo.jpg')
def test_http_is_asked_again(server):
    server.files['cat.jpg'] = cat
    server.status['cat.jpg'] = [503, 500]
    assert read_bytes(f'{server.url}/cat.jpg')==cat and len(server.asked)==3
    server.cut['cat.jpg'] = [3000, 1]
    assert read_bytes(f'{server.url}/cat.jpg')==cat # breaks in the middle
    server.status['cat.jpg'] = [503]*9
    with pytest.raises(BrokenPicture) as e:
        read_bytes(f'{server.url}/cat.jpg', FileClient(tries=2))
    one_line(e, 'cat.jpg', 'asked 2 times', '503')
    server.status['cat.jpg'] = [403]*9
    n = len(server.asked)
    with pytest.raises(BrokenPicture, match='403'):
        read_bytes(f'{server.url}/cat.jpg')
    assert len(server.asked)==n+1 # no use in asking again
def test_http_server_is_gone():
    with pytest.raises(BrokenPicture) as e:
        read_bytes('http://127.0.0.1:9/cat.jpg', FileClient(tries=2))
    one_line(e, 'http://127.0.0.1:9/cat.jpg', 'asked 2 times', 'connection')

@pytest.fixture(scope='module')
def s3():
    "A server that speaks S3"
    pytest.importorskip('s3fs')
    moto = pytest.importorskip('moto.server')
    s = moto.ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)
    s.start()
    mp = pytest.MonkeyPatch()
    for k,v in dict(AWS_ACCESS_KEY_ID='x', AWS_SECRET_ACCESS_KEY='x', AWS_DEFAULT_REGION='us-east-1').items():
        mp.setenv(k, v)
    args = dict(endpoint_url=f'http://127.0.0.1:{s.get_host_and_port()[1]}')
    fs = fsspec.filesystem('s3', **args)
    fs.mkdir('mine')
    for f in some: fs.pipe(f'mine/pets/{f.relative_to(photos)}', f.read_bytes())
    yield args
    s.stop()
    mp.undo()
def test_s3(s3, tmp_path):
    for f in some:
        (q := tmp_path/f.relative_to(photos)).parent.mkdir(exist_ok=True)
        shutil.copy(f, q)
    want = digest(build_dataloader(CustomDataset(str(tmp_path), steps), 9, seed=0))
    args = dict(backend='petrel', path_mapping={'data/pets':'s3://mine/pets'}, **s3)
    ds = CustomDataset('data/pets', loads(file_client_args=args), file_client_args=args)
    assert ds[0]['img'].shape==(3,24,24)
    for kw in [
        {},
        dict(workers_per_gpu=2, multiprocessing_context='fork'),
        dict(workers_per_gpu=2, multiprocessing_context='spawn'),
    ]:
        assert digest(build_dataloader(ds, 9, seed=0, **kw))==want
    with pytest.raises(BrokenPicture, match='No such picture: data/pets/dodo.jpg .s3://mine/pets/dodo.jpg'):
        load('dodo.jpg', 'data/pets', file_client_args=args)

# ---- Data sets

def fill(put):
    for f in some:
        put(str(f.relative_to(photos)), f.read_bytes())
    put('animal/deep/er/zoo.jpg', cat)
    put('animal/b.JPG', cat)
    put('animal/notes.txt', b'x')
    put('.hidden/x.jpg', cat)
def put_local(root):
    return lambda n,data: (
        (root/n).parent.mkdir(parents=True, exist_ok=True), (root/n).write_bytes(data)
    )

@pytest.fixture
def places(tmp_path, memory):
    fill(put_local(tmp_path/'tree'))
    fill(lambda n,data: memory.pipe(f'/tree/{n}', data))
    shutil.make_archive(str(tmp_path/'tree'), 'zip', tmp_path/'tree')
    memory.pipe('/tree.zip', (tmp_path/'tree.zip').read_bytes())
    return dict(
        local=str(tmp_path/'tree'),
        memory='memory://tree',
        zip=f'zip://::{tmp_path}/tree.zip',
        chain='zip://::memory://tree.zip',
    )
def test_folders_at_addresses(places):
    sets = {k: CustomDataset(p, steps) for k,p in places.items()}
    want = sets['local']
    assert len(want)==len(some)+2
    assert 'animal/deep/er/zoo.jpg' in list(want.data_infos.names)
    for k,ds in sets.items():
        assert (
            list(ds.data_infos.names)==list(want.data_infos.names)
            and ds.CLASSES==want.CLASSES
            and np.array_equal(ds.get_gt_labels(), want.get_gt_labels())
        ), k
    batches = digest(build_dataloader(want, 9, seed=0))
    for k,ds in sets.items():
        ds[0] # this process has opened it: a forked one must not share what it opened
        assert digest(build_dataloader(ds, 9, seed=0))==digest(build_dataloader(
            ds, 9, 2, seed=0, multiprocessing_context='fork'
        ))==batches, k
    assert digest(build_dataloader(sets['zip'], 9, 1, seed=0, multiprocessing_context='spawn'))==batches
def test_verify_at_addresses(places, bucket):
    from clsnb.all import Config, verify_dataset
    want = verify_dataset(places['local'], 0)[['file','problem']].values.tolist()
    assert want==[['animal/deep/er/zoo.jpg','duplicate']]
    for k in ('memory','zip','chain'):
        df = verify_dataset(places[k], 0)
        assert (
            df[['file', 'problem']].values.tolist()==want
            and df.usable.all()
            and df.attrs['checked']==len(some)+2
        ), k
    fill(lambda n,data: bucket.pipe(f'/mine/pets/{n}', data))
    bucket.pipe('/mine/pets/fish/empty.jpg', b'')
    d = dict(
        type='CustomDataset',
        data_prefix='data/pets',
        file_client_args=dict(backend='petrel', path_mapping={'data/pets':'s3://mine/pets'}),
    )
    df = verify_dataset(d, 0)
    assert df.attrs['checked']==len(some)+3
    assert df[~df.usable][['file','problem']].values.tolist()==[['fish/empty.jpg','empty']]
    def said(**kw):
        return [
            str(o)
            for o in Config(dict(
                model=dict(type='ImageClassifier'),
                data=dict(samples_per_gpu=2, workers_per_gpu=0, train=dict(d, **kw)),
            )).check()
            if 'data_prefix' in str(o)
        ]
    assert not said()
    assert 'data/pets' in said(file_client_args=dict(backend='disk'))[0]
    assert 'path_mapping' in said(data_prefix='other')[0]
def test_folders_of_a_server(server):
    server.files.update({
        't/':b'<a href="b/">b</a> <a href="a/">a</a>',
        't/a/':b'<a href="1.jpg">1</a>',
        't/b/':b'<a href="2.jpg">2</a><a href="3.png">3</a>',
        't/a/1.jpg':cat,
    })
    assert list(scan_folders(f'{server.url}/t').names)==['a/1.jpg','b/2.jpg','b/3.png']
def test_bad_folders_at_addresses(memory, tmp_path):
    memory.pipe('/flat/x.jpg', cat)
    memory.pipe('/d/a/x.heic', cat)
    memory.pipe('/d/b/x.jpg', cat)
    for p,words in [
        ('memory://none', ['memory://none', 'data_prefix']),
        ('memory://flat', ['no class folders']),
        ('memory://d', ['memory://d/a', '.heic']),
        (f'zip://::{tmp_path}/none.zip', ['none.zip']),
    ]:
        with pytest.raises(DataError) as e: CustomDataset(p)
        one_line(e, *words)
def test_lists_at_addresses(memory, server):
    memory.pipe('/l.txt', b'animal/cat.jpg 1\nanimal/cow.jpg 0\n')
    memory.pipe('/names.txt', 'kühe\nkatzen\n'.encode())
    server.files['l.txt'] = b'x.jpg 7\n'
    ds = CustomDataset(str(photos), steps, 'memory://names.txt', 'memory://l.txt')
    assert ds.CLASSES==['kühe','katzen']
    assert ds.get_gt_labels().tolist()==[1,0]
    assert ds[0]['img'].shape
    args = dict(backend='memory', path_mapping={'data/':'memory://'})
    assert len(CustomDataset('data/', steps, ['a','b'], 'data/l.txt', file_client_args=args))==2
    for ann,words in [
        ('memory://none.txt', ['memory://none.txt']),
        (f'{server.url}/l.txt', ['l.txt', 'label 7']),
        (f'{server.url}/m.txt', ['m.txt']),
    ]:
        with pytest.raises(DataError) as e:
            CustomDataset('', steps, ['a','b'], ann)
        one_line(e, *words)

# ---- Caches

@pytest.fixture
def tree(tmp_path):
    for f in some:
        put_local(tmp_path/'tree')(str(f.relative_to(photos)), f.read_bytes())
    return tmp_path/'tree'
def cached(tree, **kw): return CustomDataset(str(tree), loads(cache=kw))
def store(ds): return ds.pipeline[0]._cache.file
def cfg(kind, where, tmp_path):
    return dict(
        kind=kind,
        where=where,
        limit='50MB',
        **(dict(folder=str(tmp_path/'cache')) if where=='disk' else {}),
    )

@pytest.mark.parametrize(
    'kind,where,method',
    [
        (k, w, m)
        for k in ('encoded', 'decoded')
        for w in ('memory', 'disk')
        for m in (None, 'fork')
    ]
    + [('decoded', 'memory', 'spawn')],
)
def test_cache_changes_nothing(tree, tmp_path, kind, where, method, monkeypatch):
    kw = dict(workers_per_gpu=2, multiprocessing_context=method) if method else {}
    epochs = lambda ds, **kw: [
        (l.set_epoch(e), digest(l))[1]
        for l in [build_dataloader(ds, 9, seed=0, **kw)]
        for e in (0, 1)
    ]
    want = epochs(CustomDataset(str(tree), steps))
    ds = cached(tree, **cfg(kind, where, tmp_path))
    assert epochs(ds, **kw)==want and len(store(ds))==len(ds) # once each, whoever read it
    monkeypatch.setattr(loading, 'read_bytes', None) # all of it is there now, also for this process
    if kind=='decoded': monkeypatch.setattr(loading, 'decode_picture', None)
    assert epochs(ds)==want
def test_cache_of_other_pixels(tree, tmp_path):
    "Grey, smaller, or as in the file: other entries"
    kws = [
        {},
        dict(color_type='grayscale'),
        dict(color_type='unchanged'),
        dict(imdecode_backend='pillow'),
        dict(to_float32=True),
    ]
    cv2.imwrite(
        str(tree/'deep.png'), np.random.default_rng(0).integers(0, 60000, (9, 7), np.uint16)
    )
    cv2.imwrite(
        str(tree/'alpha.png'),
        np.random.default_rng(0).integers(0, 255, (9, 7, 4), np.uint8),
    )
    for _ in range(2):
        for kw in kws:
            for name in ('animal/bison.jpg', 'deep.png', 'alpha.png'):
                a = load(name, str(tree), **kw)
                b = load(name, str(tree), cache=cfg('decoded', 'disk', tmp_path), **kw)
                assert np.array_equal(a, b)
                assert a.dtype==b.dtype
                assert b.flags.writeable
                assert b.flags.c_contiguous
    assert len(_shared_file('disk', str(tmp_path/'cache/pictures.cache'), 50_000_000))==12
def test_cache_sees_changes(tree, tmp_path):
    step = LoadImageFromFile(cache=cfg('decoded', 'memory', tmp_path))
    p = tree/'x.png'
    get = lambda: step(dict(img_prefix=None, img_info=dict(filename=str(p))))['img']
    for v in (1,2,3):
        cv2.imwrite(str(p), np.full((5,5,3), v, np.uint8))
        os.utime(p, (v, v))
        assert get()[0,0,0]==v
    img = get()
    img[:] = 9
    assert get()[0,0,0]==3 # what a step does to a picture stays with it
    assert len(step._cache.file)==3
    p.unlink()
    with pytest.raises(BrokenPicture, match='No such picture'): get()
    p.write_bytes(cat[:50])
    n = len(step._cache.file)
    for _ in range(2):
        with pytest.raises(BrokenPicture, match='JPEG'): get()
    assert len(step._cache.file)==n

def spoil_bits(f, data):
    [
        os.pwrite(f.fd, bytes([data[i]^16]), i)
        for i in range(f.first+40, len(data), 400)
    ]
def spoil_zeros(f, data):
    os.pwrite(f.fd, bytes(len(data)-f.first), f.first)
def spoil_half(f, data):
    os.ftruncate(f.fd, f.first+(len(data)-f.first)//2)
def spoil_head(f, data): os.pwrite(f.fd, b'garbage'*9, 0)
def spoil_table(f, data):
    os.pwrite(f.fd, np.random.default_rng(0).bytes(f.first-64), 64)
def spoil_all(f, data): os.ftruncate(f.fd, 0)
@pytest.mark.parametrize('spoil', [spoil_bits, spoil_zeros, spoil_half, spoil_head, spoil_table, spoil_all])
def test_damaged_cache(tree, tmp_path, spoil, monkeypatch):
    want = digest(build_dataloader(CustomDataset(str(tree), steps), 9, seed=0))
    ds = cached(tree, **cfg('decoded', 'disk', tmp_path))
    assert digest(build_dataloader(ds, 9, seed=0))==want
    f = store(ds)
    path = Path(f.path)
    spoil(f, path.read_bytes())
    del ds, f
    ds = cached(tree, **cfg('decoded', 'disk', tmp_path))
    assert digest(build_dataloader(ds, 9, seed=0))==want # computed again
    if spoil is not spoil_table: # a table full of noise has no room
        monkeypatch.setattr(loading, 'decode_picture', None)
        assert digest(build_dataloader(ds, 9, seed=0))==want # and kept again
@pytest.mark.parametrize('where', ['memory','disk'])
def test_limit(tree, tmp_path, where):
    want = digest(build_dataloader(CustomDataset(str(tree), steps), 9, seed=0))
    with pytest.warns(UserWarning, match='no more room') as w:
        ds = cached(tree, **dict(cfg('decoded', where, tmp_path), limit=700_000))
        for _ in range(2):
            assert digest(build_dataloader(ds, 9, seed=0))==want
    told = [str(o.message) for o in w if 'no more room' in str(o.message)]
    assert len(told)==1
    assert '0.0007 GB' in told[0]
    f = store(ds)
    assert 0<len(f)<len(ds)
    assert f.nbytes<=700_000
    assert os.fstat(f.fd).st_blocks*512<1_000_000
def test_disk_full(tree, tmp_path, monkeypatch):
    ds = cached(tree, **cfg('encoded', 'disk', tmp_path))
    write = os.pwrite
    def full(fd, data, at):
        if len(data)>64: raise OSError(errno.ENOSPC, 'No space left on device')
        return write(fd, data, at)
    monkeypatch.setattr(os, 'pwrite', full)
    with pytest.warns(UserWarning, match='No space left'):
        assert (
            digest(build_dataloader(ds, 9, seed=0))
            == digest(build_dataloader(CustomDataset(str(tree), steps), 9, seed=0))
        )
@pytest.mark.parametrize(
    'kw,words',
    [
        (dict(kind='pixels'), ['pixels']),
        (dict(where='disk'), ['folder']),
        (dict(folder='x'), ['memory']),
        (dict(limit='lots'), ['lots', '4GB']),
    ],
)
def test_bad_cache_arguments(kw, words):
    with pytest.raises(ConfigError) as e: LoadImageFromFile(cache=kw)
    one_line(e, *words)
def test_cache_on_a_full_disk(tmp_path, monkeypatch):
    def full(*a): raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(os, 'pwrite', full)
    with pytest.raises(ConfigError, match='cannot write .*pictures.cache .No space left'):
        PictureCache(where='disk', folder=str(tmp_path/'full'))
def test_cache_in_no_folder(tmp_path):
    (tmp_path/'file').touch()
    with pytest.raises(ConfigError, match='cannot write'):
        PictureCache(where='disk', folder=str(tmp_path/'file'))
def test_too_large_for_memory():
    with pytest.warns(UserWarning, match='are free'):
        PictureCache(limit='9000TB')

def key(i):
    return hashlib.blake2b(str(i).encode(), digest_size=16).digest()
def content(i):
    return hashlib.sha256(str(i).encode()).digest()*(i%50+1)
def write_many(path, first, barrier):
    f = SharedFile(path, 10**8)
    barrier.wait(30)
    for i in range(first, first+400):
        f.put(key(i), (1,i), content(i))
def test_concurrent_writers(tmp_path):
    "Overlapping keys from four processes, one of which is killed"
    path,ctx = str(tmp_path/'c'),multiprocessing.get_context('fork')
    barrier = ctx.Barrier(5)
    ps = [ctx.Process(target=write_many, args=(path, 200*k, barrier)) for k in range(4)]
    for p in ps: p.start()
    barrier.wait(30)
    time.sleep(.01)
    os.kill(ps[0].pid, signal.SIGKILL)
    for p in ps: p.join(30)
    f = SharedFile(path, 10**8)
    assert all(
        f.get(key(i), (1, i)).tobytes()==content(i)
        for i in range(200, 1000)
    )
    assert all(
        (a := f.get(key(i), (1, i))) is None or a.tobytes()==content(i)
        for i in range(200)
    )
    f.put(key('new'), (0,0), b'x')
    assert f.get(key('new')).tobytes()==b'x' # the killed one holds no lock
def test_cache_in_memory_is_freed(tree):
    before = len(os.listdir('/proc/self/fd')) if os.path.isdir('/proc/self/fd') else 0
    for _ in range(3):
        ds = cached(tree, kind='encoded', limit='3MB')
        ds[0]
        del ds
    if before: assert len(os.listdir('/proc/self/fd'))<=before+1
def test_cache_of_a_server(server, tmp_path):
    server.files['cat.jpg'] = cat
    for _ in range(3):
        load('cat.jpg', server.url, cache=cfg('encoded', 'disk', tmp_path))
    assert len(server.asked)==1

# ---- Shards

def shard(files, label=lambda f: f.parent.name, ext='cls'):
    b = io.BytesIO()
    with tarfile.open(fileobj=b, mode='w') as tar:
        for i,f in enumerate(files):
            for e,data in [
                ('jpg', f.read_bytes() if isinstance(f, Path) else f),
                (ext, label(f).encode() if isinstance(f, Path) else b'fish'),
            ]:
                m = tarfile.TarInfo(f'{i:04}.{e}')
                m.size = len(data)
                tar.addfile(m, io.BytesIO(data))
    return b.getvalue()
pytestmark = pytest.mark.filterwarnings('ignore:This DataLoader will create', 'ignore:.*has no samples of')
pics = sorted(photos.glob('*/*.jpg'))[:96]
def test_a_fork_leaves_its_parents_connections_alone(server):
    """A loading process begins with its parent's connections; what it does with them must not make the parent wait for
    ever"""
    server.files['a.jpg'] = b'x'*9
    url,client = server.url+'/a.jpg',FileClient()
    client.get(url)
    if not (pid := os.fork()):
        try:
            client.get(url)
            gc.collect()
        finally: os._exit(0)
    os.waitpid(pid, 0)
    got = []
    t = threading.Thread(target=lambda: got.append(client.get(url)), daemon=True)
    t.start()
    t.join(20)
    assert got==[b'x'*9]

classes = sorted({f.parent.name for f in photos.glob('*/*.jpg')})
shards = [shard(pics[12*k:12*k+12]) for k in range(8)]
@pytest.fixture
def web(server, tmp_path, monkeypatch):
    monkeypatch.setenv('CLSNB_HOME', str(tmp_path/'home'))
    monkeypatch.setattr(shards_module.RangeReader.__init__, '__defaults__', (40_000,))
    server.files.update({f't-{k}.tar':s for k,s in enumerate(shards)})
    return server
def stream(web, n=96, **kw):
    return ShardStream(
        web.url+'/t-{0..7}.tar', n, steps, classes, **dict(dict(buffer=32, interleave=4), **kw)
    )
def loader(ds, batch=8, num_workers=0, rank=0, world_size=1, shuffle=True, seed=3, **kw):
    return Loader(
        ds, DistributedSampler(ds, world_size, rank, shuffle), batch, num_workers, seed, **kw
    )
def epochs(ds, which=(0,1), start=0, **kw):
    l = loader(ds, **kw)
    return [
        (l.set_epoch(e, start), [(tuple(b.index), digest([b])) for b in l])[1]
        for e in which
    ]

def test_stream_is_the_same_for_all_workers(web, tmp_path):
    want = epochs(stream(web))
    numbers = [i for b in want[0] for i in b[0]]
    assert len(set(numbers))==96
    assert numbers!=sorted(numbers)
    assert [b[0] for b in want[0]]!=[b[0] for b in want[1]]
    for k in range(8): (tmp_path/f't-{k}.tar').write_bytes(shards[k])
    # where they are does not matter
    assert epochs(ShardStream(
        str(tmp_path/'t-{0..7}.tar'), 96, steps, classes, buffer=32, interleave=4
    ))==want
    for kw in [dict(num_workers=1), dict(num_workers=4)]:
        assert epochs(stream(web), **kw)==want, kw
    assert epochs(stream(web), (1,), num_workers=1, multiprocessing_context='spawn')==want[1:]
    with pytest.warns(UserWarning, match='divide interleave'):
        assert epochs(stream(web), (0,), num_workers=3)==want[:1]
    # resumed
    assert (
        [
            epochs(stream(web), (1,), start=5, num_workers=n)[0]
            for n in (0, 2)
        ]==[want[1][5:]]*2
    )
def test_epochs_mix_anew(web):
    a,b = (
        [i for o in e for i in o[0]]
        for e in epochs(ShardStream(web.url+'/t-1.tar', 12, steps, classes, buffer=9))
    )
    assert a!=b and sorted(a)==sorted(b)
def test_workers_read_their_own_shards(web):
    epochs(stream(web), (0,), num_workers=2)
    for k in range(8):
        assert len([o for o in web.asked if o[:2]==('GET',f't-{k}.tar')])==-(
            -len(shards[k])//40_000
        )
def test_ranks_share_the_shards(web):
    parts = [
        [
            i
            for b in epochs(stream(web), (0,), rank=r, world_size=2, batch=4)[0]
            for i in b[0]
        ]
        for r in (0, 1)
    ]
    assert not set(parts[0])&set(parts[1]) and len(set(parts[0]+parts[1]))==96
    with pytest.raises(ConfigError, match='RepeatAugSampler'):
        Loader(ds := stream(web), RepeatAugSampler(ds), 8)
    with pytest.raises(ConfigError, match='8 shards cannot be shared by 9'):
        loader(stream(web), world_size=9)
def test_unshuffled_and_uneven(web):
    a = [
        i
        for b in epochs(stream(web, interleave=1), (0,), shuffle=False)[0]
        for i in b[0]
    ]
    assert a==sorted(a)
    assert (
        [len(b[0]) for b in epochs(stream(web, 20, interleave=2), (0,))[0]]
        == [8, 8, 4]
    )
    assert (
        [len(b[0]) for b in epochs(stream(web, 20), (0,), drop_last=True)[0]]
        == [8, 8]
    )
    # again from the start
    assert len([
        i
        for b in epochs(stream(web, 150), (0,))[0]
        for i in b[0]
    ])==150
def test_labels_of_a_stream(web):
    b = next(iter(loader(stream(web), 24)))
    want = {
        (k<<32)+i: classes.index(f.parent.name)
        for k in range(8)
        for i,f in enumerate(pics[12*k:12*k+12])
    }
    assert b['gt_label'].tolist()==[want[i] for i in b.index]
    ds = stream(web)
    assert ds[13]['gt_label']==want[(1<<32)+1]
    with pytest.raises(ConfigError, match='ShardDataset'): ds.get_gt_labels()
    with pytest.raises(DataError) as e:
        next(iter(loader(ShardStream(web.url+'/t-{0..7}.tar', 96, steps, classes[1:]), shuffle=False)))
    one_line(e, 't-0.tar', "'animal'")

@pytest.mark.parametrize('workers', [0,2])
def test_connection_breaks_and_comes_back(web, workers):
    want = epochs(stream(web), (0,))
    web.cut.update({'t-3.tar':[50_000, 1], 't-5.tar':[10, 2]})
    web.status.update({'t-6.tar':[503]*3, 't-7.tar':[500]*2}) # also when its length is asked for
    assert epochs(stream(web), (0,), num_workers=workers)==want
    assert web.cut=={'t-3.tar':[50_000,0], 't-5.tar':[10,0]}
@pytest.mark.parametrize('workers', [0,2])
def test_connection_stays_broken(web, workers):
    web.cut['t-3.tar'] = [50_000, 99]
    l = loader(stream(web, file_client_args=dict(tries=2)), num_workers=workers)
    with pytest.raises(DataError) as e: list(l)
    if workers: l.loader._iterator._shutdown_workers() # before the server goes
    one_line(e, 't-3.tar', 'byte 40,000', 'asked 2 times')
@pytest.mark.parametrize(
    'spoil,words',
    [
        (lambda s: s[:50_000], ['byte 47,616', 'cut off']),
        (lambda s: s[:512], ['byte 512']),
        (lambda s: b'', ['byte 0']),
        (lambda s: b'<html>no</html>'*99, ['invalid header']),
        (lambda s: None, ['t-3.tar']),
    ],
)
def test_bad_shards(web, spoil, words):
    bad = spoil(shards[3])
    if bad is None: del web.files['t-3.tar']
    else: web.files['t-3.tar'] = bad
    for use in (
        lambda: epochs(stream(web), (0,)), lambda: ShardDataset(web.url+'/t-{0..7}.tar', steps, classes)
    ):
        with pytest.raises(DataError) as e: use()
        one_line(e, 't-3.tar', *words)
def test_end_mark_is_missing(web):
    "Cut off exactly between two files"
    with tarfile.open(fileobj=io.BytesIO(shards[3])) as tar:
        at = tar.getmembers()[6].offset
    web.files['t-3.tar'] = shards[3][:at]
    with pytest.raises(DataError) as e: epochs(stream(web), (0,))
    one_line(e, 't-3.tar', f'byte {at:,}')
def test_server_without_ranges(web):
    want = epochs(stream(web), (0,))
    lists = lambda: ShardDataset(web.url+'/t-{0..7}.tar', steps, classes)
    some = [lists()[i]['gt_label'] for i in (3,40)]
    web.ranges = False
    assert epochs(stream(web), (0,))==want
    assert [lists()[i]['gt_label'] for i in (3,40)]==some

def test_broken_pictures_of_a_stream(web):
    bad = list(pics[36:48])
    bad[4] = b'\xff\xd8\xff broken'
    web.files['t-3.tar'] = shard(bad)
    runs = []
    for n in (0,2):
        l = loader(stream(web), num_workers=n, max_broken=.05)
        with pytest.warns(UserWarning, match='Left out: .*t-3.tar.*0004.jpg'):
            runs.append([(tuple(b.index), digest([b])) for b in l])
        assert list(l.broken)==[(3<<32)+4]
    assert runs[0]==runs[1] and sum(len(b[0]) for b in runs[0])==96
    with pytest.raises(BrokenPicture, match='t-3.tar'):
        epochs(stream(web), (0,))

def test_shards_at_hand(web, tmp_path):
    "ShardDataset by address: each picture is asked for by itself, the list is made once"
    for k in range(8): (tmp_path/f't-{k}.tar').write_bytes(shards[k])
    here = ShardDataset(str(tmp_path/'t-*.tar'), steps, classes)
    there = ShardDataset(web.url+'/t-{0..7}.tar', steps, classes)
    want = digest(build_dataloader(here, 9, seed=0))
    assert digest(build_dataloader(there, 9, seed=0))==want==digest(build_dataloader(there, 9, 2, seed=0))
    web.asked.clear()
    again = ShardDataset(web.url+'/t-{0..7}.tar', steps, classes)
    # the first picture
    assert [o[0] for o in web.asked].count('GET')<=1
    assert len(again)==96
    web.cut['t-0.tar'] = [3000, 99]
    web.status['t-1.tar'] = [500]
    assert there[13]['img'].shape
    with pytest.raises(BrokenPicture) as e:
        ShardDataset(web.url+'/t-{0..7}.tar', steps, classes, file_client_args=dict(tries=1))[0]
    one_line(e, 't-0.tar', 'byte', '0000.jpg')

def test_training_from_a_stream(web, tmp_path):
    from clsnb.all import Config, fit
    data = dict(
        type='ShardStream',
        data_prefix=web.url+'/t-{0..7}.tar',
        samples=96,
        classes=classes,
        interleave=4,
        pipeline=[
            steps[0],
            dict(type='RandomResizedCrop', size=32),
            dict(type='Normalize', mean=[128]*3, std=[64]*3),
            *steps[3:],
        ],
    )
    val = dict(
        type='CustomDataset',
        data_prefix=str(photos),
        classes=classes,
        pipeline=[
            steps[0],
            dict(type='Resize', size=(32, 32)),
            dict(type='Normalize', mean=[128]*3, std=[64]*3),
            dict(type='ImageToTensor', keys=['img']),
            dict(type='Collect', keys=['img']),
        ],
    )
    cfg = Config(dict(
        model=dict(
            type='ImageClassifier',
            backbone=dict(type='ResNet_CIFAR', depth=18, base_channels=8, stem_channels=8),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(
                type='LinearClsHead', num_classes=6, in_channels=64, loss=dict(type='CrossEntropyLoss')
            ),
        ),
        data=dict(samples_per_gpu=16, workers_per_gpu=0, train=data, val=val, test=val),
        optimizer=dict(type='SGD', lr=.01),
        optimizer_config={},
        lr_config=dict(policy='fixed'),
        runner=dict(type='EpochBasedRunner', max_epochs=2),
        log_config=dict(interval=1, hooks=[dict(type='TextLoggerHook')]),
        checkpoint_config=dict(interval=1),
        evaluation=dict(interval=2),
        seed=0,
        work_dir=str(tmp_path/'run'),
    ))
    run = fit(cfg)
    assert (tmp_path/'run'/'epoch_2.pth').exists() and run is not None

@pytest.mark.parametrize('spoil', ['cut off','emptied','head','no slots','gone'])
def test_a_cache_that_is_spoiled_while_in_use(tree, tmp_path, spoil):
    p = tmp_path/'c'/'pictures.cache'
    loader = build_dataloader(cached(tree, where='disk', folder=str(p.parent)), 5, seed=0)
    with (
        pytest.warns(UserWarning, match='no more room .another program') if spoil!='gone'
        else contextlib.nullcontext()
    ):
        got = []
        for i,b in enumerate(loader):
            got.append(b)
            if i==0:
                if spoil=='gone':
                    p.unlink()
                elif spoil in ('cut off','emptied'):
                    os.truncate(p, 40 if spoil=='cut off' else 0)
                else:
                    with open(p, 'r+b') as f:
                        f.seek(8*(spoil=='no slots'))
                        f.write(bytes(8))
        got = digest(got)
        assert digest(loader)==got
    assert got==digest(build_dataloader(CustomDataset(str(tree), steps), 5, seed=0))
