"""Damaged input of every kind: each reader answers or raises a `ClsnbError` of one line, within 5 s and 1 GB, and writes
nothing outside of its folder. All inputs are read in one process of its own: `python tests/test_fuzz.py FOLDER [READER]`"""
import contextlib, gzip, io, json, os, pickle, random, re, resource, shlex, signal, struct, subprocess, sys, tarfile
import time, traceback, warnings
from pathlib import Path
import pytest

seconds, gigabyte, inputs_each = 5, 1<<30, int(os.environ.get('CLSNB_FUZZ', 50))

# ---- Good files, made in a folder; the last line of each function returns the file that will be damaged

def picture(folder, suffix):
    from PIL import Image
    from clsnb.data.sets.packaged import photo_path
    path = folder/f'a{suffix}'
    Image.open(photo_path('cat')).resize((80, 60)).save(path)
    return path

def checkpoint(folder, suffix='.pth', old=False):
    import numpy as np, torch
    from safetensors.torch import save_file
    from clsnb.core.checkpoint import save_checkpoint
    path = folder/f'epoch_1{suffix}'
    model = torch.nn.Linear(3, 4)
    weights = {f'head.fc.{k}': v for k,v in model.state_dict().items()}
    if suffix=='.safetensors': save_file(weights, path)
    elif suffix=='.npz': np.savez(path, **{k: v.numpy() for k,v in weights.items()})
    elif old: torch.save(dict(state_dict=weights, meta=dict(epoch=1)), path, _use_new_zipfile_serialization=False)
    else: save_checkpoint(model, path, torch.optim.SGD(model.parameters(), .1), dict(epoch=1, CLASSES=('a', 'b')))
    return path

def unhashed(folder):
    path = checkpoint(folder)
    path.with_name('epoch_1.pth.sha256').unlink()
    return path

def hash_file(folder): return Path(f'{checkpoint(folder)}.sha256')

def index_file(folder):
    checkpoint(folder, '.safetensors')
    path = folder/'model.safetensors.index.json'
    path.write_text(json.dumps(dict(weight_map={f'head.fc.{k}': 'epoch_1.safetensors' for k in ('weight', 'bias')})))
    return path

def run_log(folder):
    lines = [dict(seed=0, exp_name='a.py')]
    for e in range(1, 4):
        lines += [dict(mode='train', epoch=e, iter=i, lr=.1, loss=1/i, time=.1) for i in (5, 10)]
        lines.append({'mode': 'val', 'epoch': e, 'iter': 2, 'accuracy_top-1': 50.+e, 'loss': .5})
    path = folder/'20260101_000000.log.json'
    path.write_text('\n'.join(map(json.dumps, lines))+'\n')
    return path

def progress_file(folder):
    from clsnb.train.progress import write_progress
    facts = dict(
        state='running', by_epoch=True, epoch=1, epochs_done=0, max_epochs=2, iter=3, max_iters=8, host='gpu-01', pid=12,
        born='1', loss=.5, lr=.1, left=60., speed=5., wait=.1, memory=2., losses=[1., .5], metrics={'accuracy_top-1': 5.},
        phase='training', part=[1, 5], started=time.time(), timestamp='x', why='',
    )
    write_progress(folder/'progress.json', facts)
    return folder/'progress.json'

def results_file(folder, suffix):
    from clsnb.runs.results import Results
    path = folder/f'results{suffix}'
    Results([[.7, .3], [.2, .8]], [0, 1], ['cat', 'dog'], ['a.jpg', 'b.jpg'], root='pics').save(path)
    return path

def text_file(folder, name, text):
    (folder/name).write_text(text)
    return folder/name

table = 'path,label,note\na.jpg,cat,1\nb.jpg,dog,2\nc.jpg,cat,\n'
rows = [dict(path='a.jpg', label='cat'), dict(path='b.jpg', label='dog')]
voc = ('<annotation><object><name>cat</name><difficult>0</difficult></object>'
       '<object><name>dog</name><difficult>1</difficult></object></annotation>')

def voc_folder(folder):
    for name in ('VOC2007/Annotations', 'VOC2007/JPEGImages'): (folder/name).mkdir(parents=True)
    text_file(folder, 'VOC2007/list.txt', '01\n02\n')
    for name in ('01', '02'): path = text_file(folder, f'VOC2007/Annotations/{name}.xml', voc)
    return path

def cub_files(folder):
    text_file(folder, 'images.txt', '1 a/1.jpg\n2 a/2.jpg\n3 b/3.jpg\n')
    text_file(folder, 'split.txt', '1 1\n2 1\n3 0\n')
    return text_file(folder, 'labels.txt', '1 1\n2 1\n3 2\n')

def idx_file(folder, packed):
    data = struct.pack('>BBBBIII', 0, 0, 8, 3, 5, 7, 7)+bytes(range(245))
    path = folder/('images.gz' if packed else 'images')
    path.write_bytes(gzip.compress(data) if packed else data)
    return path

def cifar_batch(folder):
    import numpy as np
    path = folder/'data_batch_1'
    path.write_bytes(pickle.dumps(dict(data=np.zeros((2, 3072), np.uint8), labels=[1, 2]), protocol=2))
    return path

def archive(folder, name='a.tar', mode='w'):
    with tarfile.open(folder/name, mode) as tar:
        for name,data in (('1.jpg', b'picture'), ('1.cls', b'0'), ('2.jpg', b'another'), ('2.cls', b'1')):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return Path(tar.name)

def shard_cache(folder):
    from clsnb.core.io import cache_dir
    from clsnb.data.sets.shards import ShardDataset
    for old in cache_dir('shards').iterdir(): old.unlink()
    os.environ['FUZZ_SHARD'] = str(archive(folder))
    ShardDataset(os.environ['FUZZ_SHARD'])
    return next(cache_dir('shards').iterdir())

def cars_list(folder):
    import numpy as np, scipy.io
    fields = [(name, 'O') for name in ('bbox_x1', 'bbox_y1', 'bbox_x2', 'bbox_y2', 'class', 'fname')]
    data = np.array([(1, 1, 9, 9, 14, '1.jpg'), (1, 1, 9, 9, 196, '2.jpg')], fields)
    scipy.io.savemat(folder/'cars.mat', dict(annotations=data), do_compression=folder.name.endswith('1'))
    return folder/'cars.mat'

config_text = '''_base_ = []
size = 32
model = dict(type='ImageClassifier', backbone=dict(type='ResNet', depth=18), head=dict(type='LinearClsHead', num_classes=6))
data = dict(samples_per_gpu=2**4, train=dict(type='Photos', pipeline=[dict(type='Resize', size=(size, size))]))
optimizer = dict(type='SGD', lr=0.1 * 2, momentum=.9)
'''
config_dict = dict(model=dict(type='ImageClassifier', depth=18), optimizer=dict(type='SGD', lr=.1), lists=[[1, 2], ['a', None]])

# ---- What reads them

def load_picture(path):
    from clsnb.data.pixels.check_file import check_file
    from clsnb.data.pixels.loading import LoadImageFromFile
    list(check_file(str(path)))
    for backend in ('cv2', 'pillow'):
        LoadImageFromFile(imdecode_backend=backend)(dict(img_prefix=None, img_info=dict(filename=str(path))))

def load_weights(path):
    import torch
    from clsnb.core.checkpoint import read_checkpoint
    from clsnb.core.load import load_checkpoint
    read_checkpoint(path)
    load_checkpoint(torch.nn.Linear(3, 4), path)

def find_newest(path):
    from clsnb.train.checkpoint_hook import latest_checkpoint
    latest_checkpoint(path.parent)

def read_folder(path):
    from clsnb.analysis.attach import LiveLog, live_page
    from clsnb.runs.folder import Run
    run,log = Run(path.parent),LiveLog(path.parent)
    log.read()
    repr(run), run._repr_html_(), live_page(run, log, ('loss', 'metric', 'lr')), run.log

def read_results(path):
    from clsnb.runs.results import Results
    results = Results.load(path)
    repr(results), results.table(), results.per_class()

def dataset(type, path_key='ann_file', **kwargs):
    "What reads the list of a data set"
    def read(path):
        from clsnb.data.sets.wrappers import build_dataset
        given = {k: v.format(folder=path.parent) if isinstance(v, str) else v for k,v in kwargs.items()}
        ds = build_dataset(dict(dict(type=type, data_prefix=str(path.parent), pipeline=[]) | given, **{path_key: str(path)}))
        if len(ds): ds[0]
        if type!='ShardStream': ds.get_gt_labels()
    return read

def read_voc(path):
    root = next(o for o in path.parents if o.name=='VOC2007')
    dataset('VOC', data_prefix=str(root))(root/'list.txt')

def read_cub(path):
    folder = '{folder}'
    dataset('CUB', image_class_labels_file=f'{folder}/labels.txt', train_test_split_file=f'{folder}/split.txt')(
        path.with_name('images.txt')
    )

def read_small(path):
    from clsnb.data.sets import small_images
    if path.name=='data_batch_1': small_images._cifar_part(path)
    elif path.suffix=='.tgz': small_images.unpack_only(path, path.parent/'out', {'1.jpg', '2.cls'})
    else: small_images.read_idx(path)

def read_shards_again(path):
    from clsnb.data.sets.shards import ShardDataset
    assert ShardDataset(os.environ['FUZZ_SHARD']).get_gt_labels().tolist()==[0, 1] # the cache was made anew

def read_config(path):
    from clsnb.config.config import Config
    Config.fromfile(path).pretty_text

def read_options(path):
    from clsnb.config.override import parse_options
    from clsnb.config.config import Config
    words = path.read_bytes().decode(errors='surrogateescape').split('\n')
    Config(config_dict).merge_from_dict(parse_options([o for o in words if '=' in o]))

lines = '''zoo swin 384|zoo --pretrained resnet|configs photos|print-config resnet18-tiny_1xb16_photos --where
print-config resnet18-tiny_1xb16_photos --cfg-options optimizer.lr=0.1 data.samples_per_gpu=2
check resnet18-tiny_1xb16_photos --cfg-options model.head.num_classes=6|copy-config resnet18-tiny_1xb16_photos --folder new
predict epoch_1.pth a.jpg --topk 3 --batch-size 2 --device cpu|verify pics --workers 0 --tiny 8 --out new.csv
test epoch_1.pth --metrics accuracy --out new.json|convert-weights epoch_1.pth new.pth --from twins|train --help
slurm-train part job resnet18-tiny_1xb16_photos new --gpus 4 --dry-run|train nowhere.py --seed 3 --work-dir new
finetune nowhere pics --epochs 1 --size 32 --weights none'''

def run_line(path):
    from clsnb.cli import main
    words = path.read_bytes().decode(errors='surrogateescape').split('\n')
    if words[:1] in (['attach'], ['demo']): return # the one waits for a run, the other trains
    out,err = io.StringIO(),io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err): main(words)
    except SystemExit as e:
        said = [o for o in err.getvalue().splitlines() if o.startswith('clsnb: ')]
        assert e.code in (0, 1, 2) and (e.code!=2 or len(said)==1 or out.getvalue()), (e.code, err.getvalue())

def command_line(folder):
    checkpoint(folder)
    picture(folder, '.jpg')
    lines_here = re.split(r'[|\n]', lines)
    return text_file(folder, 'words', '\n'.join(shlex.split(lines_here[len(list(folder.parent.iterdir()))%len(lines_here)])))

#         what is read            a good one of it                                     its reader
readers = {
    **{f'picture{o}':             (lambda d, o=o: picture(d, o),                       load_picture)
       for o in ('.jpg', '.png', '.gif', '.bmp', '.tif', '.webp', '.ppm')},
    'checkpoint':                 (checkpoint,                                         load_weights),
    'checkpoint without a hash':  (unhashed,                                           load_weights),
    'old checkpoint':             (lambda d: checkpoint(d, old=True),                  load_weights),
    'safetensors':                (lambda d: checkpoint(d, '.safetensors'),            load_weights),
    'npz checkpoint':             (lambda d: checkpoint(d, '.npz'),                    load_weights),
    'hash':                       (hash_file,                       lambda p: load_weights(p.with_suffix(''))),
    'index':                      (index_file,                                         load_weights),
    'newest of a folder':         (unhashed,                                           find_newest),
    'log':                        (run_log,                                            read_folder),
    'progress':                   (progress_file,                                      read_folder),
    **{f'results{o}':             (lambda d, o=o: results_file(d, o),                  read_results) for o in ('.npz', '.json')},
    'list':       (lambda d: text_file(d, 'a.txt', 'a.jpg 0\nb/b.jpg 1\n'),   dataset('CustomDataset', classes=['x', 'y'])),
    'classes':    (lambda d: text_file(text_file(d, 'a.txt', 'a.jpg 0\n').parent, 'c.txt', 'cat\ndog\n'),
                   dataset('CustomDataset', 'classes', ann_file='{folder}/a.txt')),
    'csv':        (lambda d: text_file(d, 'a.csv', table),                    dataset('CSVDataset')),
    'tsv':        (lambda d: text_file(d, 'a.tsv', table.replace(',', '\t')), dataset('CSVDataset')),
    'json table': (lambda d: text_file(d, 'a.json', json.dumps(rows)),        dataset('CSVDataset')),
    'jsonl':      (lambda d: text_file(d, 'a.jsonl', '\n'.join(map(json.dumps, rows))), dataset('CSVDataset')),
    'VOC xml':                    (voc_folder,                                         read_voc),
    'VOC list':                   (lambda d: voc_folder(d).parents[1]/'list.txt',      read_voc),
    'CUB labels':                 (cub_files,                                          read_cub),
    'CUB images':                 (lambda d: cub_files(d).with_name('images.txt'),     read_cub),
    'idx':                        (lambda d: idx_file(d, False),                       read_small),
    'idx.gz':                     (lambda d: idx_file(d, True),                        read_small),
    'CIFAR batch':                (cifar_batch,                                        read_small),
    'CIFAR archive':              (lambda d: archive(d, 'a.tgz', 'w:gz'),              read_small),
    'shard':                      (archive,                                            dataset('ShardDataset', 'data_prefix')),
    'stream':                     (archive,          dataset('ShardStream', 'data_prefix', samples=2, classes=['x', 'y'])),
    'cache of shards':            (shard_cache,                                        read_shards_again),
    'MATLAB list':                (cars_list,                                          dataset('StanfordCars', test_mode=False)),
    'Python config':              (lambda d: text_file(d, 'a.py', config_text),        read_config),
    'JSON config':                (lambda d: text_file(d, 'a.json', json.dumps(config_dict)), read_config),
    'YAML config':  (lambda d: text_file(d, 'a.yaml', json.dumps(config_dict, indent=1).replace('"', '')),  read_config),
    'options':      (lambda d: text_file(d, 'words', 'optimizer.lr=0.1\nmodel.depth=50\nlists.0=[1, (2, 3)]'), read_options),
    'command line':               (command_line,                                       run_line),
}

# ---- Damage

def span(data, r):
    start = r.randrange(len(data)+1)
    return start,min(len(data), start+r.choice((1, 4, 20, 100)))

def cut(data, r): return data[:r.randrange(len(data)+1)]
def flip_bits(data, r):
    data = bytearray(data)
    for _ in range(r.choice((1, 1, 2, 8)) if data else 0): data[r.randrange(len(data))] ^= 1<<r.randrange(8)
    return bytes(data)
def insert(data, r):
    at = r.randrange(len(data)+1)
    odd = (b'\0', b'\xff\xfe', b'\xc3', b'\n', b'"', b"'", b'\x1b[31m', b'../../', b'%s', b'{', b'9'*30, b'-1', b'1e999', b'nan')
    return data[:at]+r.choice((*odd, r.randbytes(r.choice((1, 8, 64)))))+data[at:]
def remove(data, r):
    a,b = span(data, r)
    return data[:a]+data[b:]
def double(data, r):
    a,b = span(data, r)
    return data[:b]+data[a:b]*r.choice((1, 3))+data[b:]
def zero(data, r):
    a,b = span(data, r)
    return data[:a]+bytes(b-a)+data[b:]
def huge_number(data, r):
    numbers = list(re.finditer(rb'\d+', data))
    if not numbers: return insert(data, r)
    found = r.choice(numbers)
    return data[:found.start()]+r.choice((b'9'*20, b'1'+b'0'*400, b'9'*5000, b'-7', b'0', b'0.5'))+data[found.end():]
def nest(data, r):
    at = r.randrange(len(data)+1)
    return data[:at]+r.choice((b'[', b'(', b'{"a":', b'<a>', b'-', b'[['))*r.choice((50, 3000, 100_000))+data[at:]

odd_values = None, True, -1, 1.5, 10**400, float('nan'), float('inf'), '', 'x', '\0', '../..', [], [1], {}, {'a': 1}, 'é'*300
def retype(data, r):
    "A value of another type somewhere in JSON, or in one of the lines of JSON"
    lines = data.decode(errors='replace').split('\n')
    at = r.randrange(len(lines))
    try: value = json.loads(data)
    except ValueError:
        try: value = json.loads(lines[at])
        except ValueError: return insert(data, r)
    else: lines,at = [''],0
    lines[at] = json.dumps(with_odd_value(value, r))
    return '\n'.join(lines).encode()
def with_odd_value(value, r):
    if not value or not isinstance(value, (dict, list)) or r.random()<.1: return r.choice(odd_values)
    key = r.choice(list(value)) if isinstance(value, dict) else r.randrange(len(value))
    value = dict(value) if isinstance(value, dict) else list(value)
    if r.random()<.2: del value[key]
    else: value[key] = with_odd_value(value[key], r)
    return value

mutations = cut, flip_bits, insert, remove, double, zero, huge_number, nest, retype

# ---- One process reads it all

class TooLong(BaseException): pass

def attempt(read, path):
    "What is wrong with how a reader takes a file, or None"
    from clsnb.core.errors import ClsnbError
    def stop(*_): raise TooLong
    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        with open(os.devnull, 'w') as nothing, contextlib.redirect_stdout(nothing): read(path)
    except ClsnbError as e:
        if '\n' in str(e): return f'a message of several lines: {e}'
        if read not in (read_options, run_line) and not any(o in str(e) for o in (str(path.parent), path.name)):
            return f'a message that names no file: {e}'
    except TooLong: return f'longer than {seconds} s'
    except BaseException: return traceback.format_exc(limit=-4)
    finally: signal.alarm(0)

def watch_writing(box, outside):
    "Note files that are opened for writing outside of a folder"
    writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT
    def hook(event, args):
        if event!='open' or not isinstance(args[0], (str, bytes)) or not isinstance(args[2], int): return
        path = os.path.abspath(os.fsdecode(args[0]))
        if args[2] & writes and not path.startswith((box, '/dev/', '/proc/self/')): outside.append(path)
    sys.addaudithook(hook)

def warm_up(box):
    "Import and draw all that is needed, so that memory and files are those of the inputs alone"
    for name,(make, read) in readers.items():
        folder = box/f'good {name}'.replace('.', '')
        folder.mkdir()
        read(make(folder))

def read_all(box, chosen):
    "Findings by reader, and how many inputs there were"
    warnings.simplefilter('ignore')
    findings,outside,count = {},[],0
    os.chdir(box)
    (box/'pics/a').mkdir(parents=True)
    picture(box/'pics/a', '.jpg')
    warm_up(box)
    watch_writing(str(box), outside)
    pages = int(Path('/proc/self/statm').read_text().split()[0]) if sys.platform=='linux' else None
    if pages: resource.setrlimit(resource.RLIMIT_AS, (pages*resource.getpagesize()+gigabyte,)*2)
    for name in chosen:
        make,read = readers[name]
        r = random.Random(f'clsnb {name}')
        found = findings[name] = []
        for i in range(inputs_each):
            folder = box/f'{len(os.listdir(box))}'
            folder.mkdir()
            path = make(folder)
            mutate = r.choice(mutations)
            path.write_bytes(mutate(path.read_bytes(), r))
            Path('now').write_text(f'{name} {path}')
            os.chdir(folder)
            if wrong := attempt(read, path): found.append(f'{path} ({mutate.__name__}): {wrong}')
            os.chdir(box)
            count += 1
    return dict(findings=findings, outside=outside, count=count)

if __name__=='__main__':
    box = Path(sys.argv[1]).resolve()
    found = read_all(box, sys.argv[2:] or readers)
    (box/'found.json').write_text(json.dumps(found))

@pytest.fixture(scope='module')
def found(tmp_path_factory):
    box = tmp_path_factory.mktemp('fuzz')
    env = dict(os.environ, CLSNB_HOME=str(box/'home'), TMPDIR=str(box/'tmp'), OMP_NUM_THREADS='1', MPLBACKEND='agg')
    (box/'tmp').mkdir()
    p = subprocess.run([sys.executable, '-B', __file__, str(box)], env=env, capture_output=True, text=True, timeout=900)
    now = (box/'now').read_text() if (box/'now').exists() else 'before the first input'
    assert p.returncode==0, f'the process ended with {p.returncode} at {now}: {p.stderr[-3000:]}'
    assert 'Traceback' not in p.stderr, p.stderr[-3000:]
    return json.loads((box/'found.json').read_text())

@pytest.mark.parametrize('name', readers)
def test_damaged(name, found):
    assert not found['findings'][name], f"{len(found['findings'][name])} of {inputs_each}: {found['findings'][name][0]}"

def test_nothing_was_written_outside(found):
    assert not found['outside'] and found['count']==inputs_each*len(readers)>=40*inputs_each
