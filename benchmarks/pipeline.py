"""Images per second and core: reading, augmenting and normalising JPEGs, beside torchvision, timm and plain OpenCV;
how fast lists open.

usage: pipeline.py [--size 500x375] [--images 48] [--rounds 9] [--size-large 1600x1200,3200x2400] [--lists
1300000,14000000] [--files 100000] [--only TEXT]

The pictures are the packaged photographs, enlarged, with some grain, saved as JPEG of quality 90. One process, one
thread. All contestants take turns, each with
all pictures (a loading process stays with its task, too) and the same random numbers; times are the processor's,
not the clock's. Each round gives one rate for
each, the table has medians, and ratios are medians of ratios within rounds. `--files` pictures (empty ones) are
made in 1,000 folders for torchvision's ImageFolder and ours to open; 0: none.
"""
import argparse, os, random, statistics, subprocess, sys, tempfile, time
from pathlib import Path
import cv2, numpy as np, torch
import clsnb
from clsnb.data.pixels.fast_decode import fast_decode, turbo_library
from clsnb.data.transforms.pipeline import Compose

norm = dict(mean=[123.675,116.28,103.53], std=[58.395,57.12,57.375])
end = [
    dict(type='ImageToTensor', keys=['img']), dict(type='Collect', keys=['img'], meta_keys=())
]
load = dict(type='LoadImageFromFile')
crop = dict(type='RandomResizedCrop', size=224)
flip = dict(type='RandomFlip')
eval_steps = [dict(type='Resize', size=(256,-1)), dict(type='CenterCrop', crop_size=224)]

def pictures(folder, n, w, h, grain=4):
    "`n` photographs of w x h (or h x w)"
    out,rng = [],np.random.default_rng(0)
    for i,f in enumerate(
        sorted((Path(clsnb.__file__).parent/'photos').glob('*/*.jpg'))[::3][:n]
    ):
        img = cv2.imread(str(f))
        tall = img.shape[0]>img.shape[1]
        img = cv2.resize(img, (h,w) if tall else (w,h), interpolation=cv2.INTER_CUBIC)
        if grain:
            img = np.clip(img+rng.normal(0, grain, img.shape), 0, 255).astype(np.uint8)
        out.append(f'{folder}/{i:03}.jpg')
        cv2.imwrite(out[-1], img, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return out

def ours(*steps):
    pipe = Compose([*steps, *end])
    return lambda path: pipe(dict(img_prefix=None, img_info=dict(filename=path)))['img']

def ours_fast(how, *steps):
    "The same steps with `fast_decode`"
    pipe = fast_decode([*steps, *end], how)[0]
    return lambda path: pipe(dict(img_prefix=None, img_info=dict(filename=path)))['img']

def bare(path): return cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)

def plain_cv2(train):
    mean,std = np.float32(norm['mean']),np.float32(norm['std'])
    from clsnb.data.transforms.resize_crop import RandomResizedCrop
    box = RandomResizedCrop(224).box
    def f(path):
        img = cv2.imread(path)
        if train:
            x1,y1,x2,y2 = box(*img.shape[:2])
            img = cv2.resize(img[y1:y2+1, x1:x2+1], (224,224))
            if np.random.rand()<.5: img = cv2.flip(img, 1)
        else:
            h,w = img.shape[:2]
            r = 256/min(h, w)
            img = cv2.resize(img, (round(w*r), round(h*r)))
            h,w = img.shape[:2]
            img = img[(h-224)//2:(h-224)//2+224, (w-224)//2:(w-224)//2+224]
        img = (cv2.cvtColor(img, cv2.COLOR_BGR2RGB).astype(np.float32)-mean)/std
        return torch.from_numpy(np.ascontiguousarray(img.transpose(2,0,1)))
    return f

def tv(train, pil):
    from PIL import Image
    from torchvision.io import ImageReadMode, decode_jpeg, read_file
    from torchvision.transforms import v2
    m,s = [o/255 for o in norm['mean']],[o/255 for o in norm['std']]
    if train: t = [v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip()]
    else: t = [v2.Resize(256, antialias=True), v2.CenterCrop(224)]
    t = v2.Compose([
        *([] if not pil else []),
        *t,
        *([v2.PILToTensor()] if pil else []),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(m, s),
    ])
    if pil: return lambda path: t(Image.open(path).convert('RGB'))
    return lambda path: t(decode_jpeg(read_file(path), ImageReadMode.RGB))

def timm_default(train):
    from PIL import Image
    from timm.data import create_transform
    t = create_transform(224, is_training=train, **({} if train else dict(crop_pct=.875)), color_jitter=None)
    return lambda path: t(Image.open(path).convert('RGB'))

def contestants(train, big=False):
    pre = [load, crop, flip] if train else [load, *eval_steps]
    rgb = dict(type='Normalize', **norm)
    out = {
        'bare decode':bare,
        'ours, uint8':ours(*pre),
        'ours, float':ours(*pre, rgb),
        'torchvision v2, tensors':tv(train, False),
        'torchvision v2, PIL':tv(train, True),
        'timm':timm_default(train),
        'plain cv2':plain_cv2(train),
    }
    if train:
        for how in ('exact','scaled'):
            out[f'ours, uint8, fast_decode {how}'],out[f'ours, float, fast_decode {how}'] = (
                ours_fast(how, *pre),ours_fast(how, *pre, rgb),
            )
        if big: # from the second epoch on
            out['ours, float, reduced and kept'] = ours(
                dict(load, reduce_to=512, cache=dict(kind='decoded', limit='1GB')), crop, flip, rgb
            )
    else:
        quick = dict(load, reduce_to=256)
        out['ours, uint8, reduce_to'],out['ours, float, reduce_to'] = (
            ours(quick, *eval_steps),ours(quick, *eval_steps, rgb),
        )
    return out

def race(named, files, rounds):
    "Rates of each round, in which everyone has a turn"
    rates,spent = {k:[] for k in named},{}
    # freed at once: like a loading process after its first batch, the allocator keeps what it gets from here
    # on
    np.ones(31<<20, np.uint8)
    for f in named.values():
        for p in files: f(p)
    for r in range(rounds):
        order = list(named)
        random.Random(r).shuffle(order)
        for k in order:
            random.seed(r)
            np.random.seed(r)
            torch.manual_seed(r)
            t = time.process_time()
            for p in files: named[k](p)
            spent[k] = time.process_time()-t
        for k in named: rates[k].append(len(files)/spent[k])
    return rates

def table(title, rates, marks):
    print(f'\n{title}\n{"":34}images/s   of bare decode   of torchvision v2   of timm')
    ratio = lambda k,o: statistics.median(a/b for a,b in zip(rates[k], rates[o]))
    for k,v in rates.items():
        print(
            f'{k:32}{statistics.median(v):10,.0f}{ratio(k, "bare decode"):16.2f}'
            f'{ratio(k, "torchvision v2, tensors"):20.2f}{ratio(k, "timm"):10.2f}'
        )
    for text,k,o,want in marks:
        print(
            f'  mark: {text}: {ratio(k, o):.2f}, wanted {want}: {"met" if ratio(k, o)>=want else "not met"}'
        )

list_code = '''
import sys, time
def rss(): return int(next(o for o in open('/proc/self/status') if o.startswith('VmRSS')).split()[1])/1024
from clsnb.data.sets.samples import read_list
n = read_list(sys.argv[2]+'.small')
base,t,c = rss(),time.perf_counter(),time.process_time()
if sys.argv[1]=='ours': o = read_list(sys.argv[2])
else: o = [(p, int(l)) for p,l in (line.rsplit(' ', 1) for line in open(sys.argv[2]))]
print(time.perf_counter()-t, time.process_time()-c, rss()-base)
'''
def lists(n, folder):
    "Time and memory of opening a list of `n` samples: ours, and a list of tuples as ImageFolder keeps"
    path = f'{folder}/list'
    with open(path, 'w') as f:
        for k in range(0, n, 100_000):
            f.write(''.join(
                f'n{i%21841:08d}/n{i%21841:08d}_{i}.JPEG {i%21841}\n'
                for i in range(k, min(n, k+100_000))
            ))
    Path(path+'.small').write_text('a.jpg 1\n')
    for who in ('ours','tuples'):
        s,cpu,mb = map(
            float,
            subprocess.run(
                [sys.executable, '-c', list_code, who, path], capture_output=True, text=True, check=True
            ).stdout.split(),
        )
        print(f'{n:12,} samples, {who:8}{s:8.2f} s ({cpu:.2f} of the processor){mb:10,.0f} MB kept')

def overhead():
    "Microseconds per sample that are neither reading nor decoding: data set, seeds, collation"
    from clsnb.data.sets.folder import CustomDataset
    from clsnb.data.feed.loader import build_dataloader
    with tempfile.TemporaryDirectory() as d:
        Path(f'{d}/l.txt').write_text(''.join(f'{i:09}.jpg 0\n' for i in range(20_000)))
        class Nothing:
            def __call__(self, r): return dict(img=x, gt_label=0)
        x = torch.zeros(1)
        ds = CustomDataset(d, [Nothing()], ['a'], f'{d}/l.txt')
        loader = build_dataloader(ds, 64, seed=0)
        t = time.perf_counter()
        for _ in loader: pass
        print(
            f'\nloader: {(time.perf_counter()-t)/len(ds)*1e6:.0f} microseconds a sample beside the pipeline'
        )
    from clsnb.data.feed.loader import collate
    batch = {
        'float':[dict(img=torch.rand(3, 224, 224)) for _ in range(64)],
        'uint8':[
            dict(
                img=torch.randint(256, (224, 224, 3), dtype=torch.uint8).permute(2, 0, 1)
            )
            for _ in range(64)
        ],
    }
    took = {k:[] for k in batch}
    for _ in range(15):
        for k,v in batch.items():
            t = time.perf_counter()
            collate(v)
            took[k].append((time.perf_counter()-t)/64*1e6)
    a,b = (statistics.median(took[k]) for k in batch)
    print(
        f'collating 64 pictures of 224 x 224: {a:.0f} microseconds a sample as float, '
        f'{b:.0f} as uint8 (device_normalize), {a/b:.1f} times less'
    )

files_code = '''
import os, sys, time, random
who,root = sys.argv[1:3]
def kb(what, file): return int(next(o for o in open(f'/proc/self/{file}') if o.startswith(what)).split()[1])/1024
if who=='ImageFolder':
    from torchvision.datasets import ImageFolder as make
    at = lambda ds, i: ds.samples[i]
else:
    from clsnb.data.sets.folder import CustomDataset as make
    at = lambda ds, i: ds.data_infos[i]
make(root+'.small')
base,t,c = kb('VmRSS', 'status'),time.perf_counter(),time.process_time()
ds = make(root); took,cpu,kept = time.perf_counter()-t,time.process_time()-c,kb('VmRSS', 'status')-base
pipes = []
for w in range(4): # as a loader's workers would: a quarter of the samples each, in random order
    r,s = os.pipe()
    if not os.fork():
        before,order = kb('Private_Dirty', 'smaps_rollup'),list(range(w, len(ds), 4)); random.Random(w).shuffle(order)
        del before; before = kb('Private_Dirty', 'smaps_rollup')
        for i in order: at(ds, i)
        os.write(s, str(kb('Private_Dirty', 'smaps_rollup')-before).encode()); os._exit(0)
    pipes.append(r)
grown = [float(os.read(r, 99)) for r in pipes]
print(took, cpu, kept, sum(grown)/4, len(ds))
'''
def folders(n, folder):
    "Time and memory of opening a tree of `n` files, and what each of 4 workers adds in one epoch"
    root,t = f'{folder}/tree',time.perf_counter()
    for name,m in (('tree.small',1),('tree',n//1000)):
        for c in range(1000 if m>1 else 2):
            os.makedirs(d := f'{folder}/{name}/n{c:08d}')
            for i in range(m):
                os.close(os.open(f'{d}/n{c:08d}_{i}.JPEG', os.O_CREAT|os.O_WRONLY))
    print(f'\n{n:,} files made in {time.perf_counter()-t:.0f} s')
    env = {**os.environ, 'CLSNB_HOME':f'{folder}/cache'}
    for who in ('ImageFolder','ours','ours again','ImageFolder again'):
        s,cpu,mb,grown,k = map(
            float,
            subprocess.run(
                [sys.executable, '-c', files_code, who.split()[0], root],
                capture_output=True,
                text=True,
                check=True,
                env=env,
            ).stdout.split(),
        )
        print(
            f'{int(k):12,} files,  {who:18}{s:8.2f} s ({cpu:.2f} of the processor){mb:10,.0f} MB '
            f'kept{grown:10,.1f} MB added by each worker in an epoch'
        )

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--size', default='500x375')
    p.add_argument('--size-large', default='1600x1200,3200x2400')
    p.add_argument('--images', type=int, default=48)
    p.add_argument('--rounds', type=int, default=9)
    p.add_argument('--lists', default='1300000,14000000')
    p.add_argument('--only', default='')
    p.add_argument(
        '--grain',
        type=float,
        default=4,
        help='standard deviation; 0: as smooth as enlarging makes them, '
             'so that fewer bits are to be unpacked',
    )
    p.add_argument('--files', type=int, default=100_000)
    p.add_argument('--folder', help='where files are made; None: a temporary folder')
    a = p.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    lib = turbo_library()
    print(
        f'torch {torch.__version__}, OpenCV {cv2.__version__}, one of {os.cpu_count()} cores; '
        f'fast_decode reads with {"libturbojpeg" if lib else "OpenCV: there is no libturbojpeg 3"}'
    )
    with tempfile.TemporaryDirectory() as d:
        for size in (a.size, *filter(None, a.size_large.split(','))):
            files = pictures(d, a.images, *map(int, size.split('x')), a.grain)
            big = size!=a.size
            print(
                f'\n{size}: {len(files)} files of {sum(map(os.path.getsize, files))/len(files)/1000:,.0f} kB'
            )
            for train in (True, False):
                title = (
                    f'{size}, '
                    f'{"train: crop, flip, normalise" if train else "eval: resize, centre crop, normalise"}'
                )
                if a.only not in title: continue
                marks = (
                    [
                        ('uint8 of bare decode','ours, uint8', 'bare decode', .95),
                        (
                            'uint8 of bare decode, fast_decode=True',
                            'ours, uint8, fast_decode exact',
                            'bare decode', .95,
                        ),
                        ('float of torchvision v2','ours, float','torchvision v2, tensors',1.3),
                        ('float of timm', 'ours, float', 'timm', 2),
                    ]
                    if train
                    else [('eval of torchvision v2','ours, float','torchvision v2, tensors',1.3)]
                )
                if big:
                    if train:
                        marks = [
                            (
                                "scaled decoding (fast_decode='scaled') of full",
                                'ours, float, fast_decode scaled',
                                'ours, float', 2,
                            )
                        ]
                    else:
                        marks = [
                            ('reduced decoding (reduce_to) of full','ours, float, reduce_to','ours, float', 2)
                        ]
                table(
                    title,
                    race(contestants(train, big), files, a.rounds if not big else max(3, a.rounds//3)),
                    marks,
                )
        overhead()
        for n in filter(None, a.lists.split(',')):
            lists(int(n), d)
    if a.files:
        with tempfile.TemporaryDirectory(dir=a.folder) as d: folders(a.files, d)
