"Fast ways of reading: equal to the plain ones where they say so, and out of the way where they can't be"
import io, os, pickle, random, struct, subprocess, sys
import cv2, numpy as np, pytest, torch
from PIL import Image
from clsnb.core.errors import ClsnbError, ConfigError
from clsnb.data.pixels import fast_decode as F
from clsnb.data.pixels.device_normalize import DeviceNormalize, normalize_later
from clsnb.data.pixels.fast_decode import LoadCrop, fast_decode, jpeg_head, read_part
from clsnb.data.feed.loader import build_dataloader
from clsnb.data.pixels.loading import LoadImageFromFile
from clsnb.data.sets.packaged import Photos, photo_path
from clsnb.data.transforms.pipeline import Compose
from clsnb.data.transforms.resize_crop import CenterCrop, RandomResizedCrop
from clsnb.data.sets.wrappers import ConcatDataset, RepeatDataset
from clsnb.train.batches import to_device

cow = cv2.imread(photo_path('animal/cow.jpg'))
libs = [None] + ([F.turbo_library()] if F.turbo_library() else [])
names = ['opencv', 'libturbojpeg'][:len(libs)]
norm = dict(type='Normalize', mean=[123.675,116.28,103.53], std=[58.395,57.12,57.375])
end = [dict(type='ImageToTensor', keys=['img']), dict(type='Collect', keys=['img','gt_label'])]
load = dict(type='LoadImageFromFile')
crop = dict(type='RandomResizedCrop', size=48)
flip = dict(type='RandomFlip')

@pytest.fixture(params=libs, ids=names)
def lib(request, monkeypatch):
    monkeypatch.setattr(F, 'turbo_library', lambda: request.param)
    return request.param

samplings = [getattr(cv2, 'IMWRITE_JPEG_SAMPLING_FACTOR_'+o) for o in ('411','420','422','440','444')]
def jpeg(img, sampling=samplings[1], **kw):
    flags = (
        [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
        + [
            x
            for k,v in kw.items()
            for x in (getattr(cv2, 'IMWRITE_JPEG_'+k.upper()), v)
        ]
    )
    return cv2.imencode('.jpg', np.ascontiguousarray(img), flags)[1].tobytes()
def saved(img, fmt='JPEG', **kw):
    b = io.BytesIO()
    Image.fromarray(img[...,::-1]).save(b, fmt, **kw)
    return b.getvalue()
def whole(data, n=8):
    return cv2.imdecode(
        np.frombuffer(data, np.uint8),
        cv2.IMREAD_COLOR if n==8 else getattr(cv2, f'IMREAD_REDUCED_COLOR_{8//n}'),
    )

@pytest.mark.parametrize('progressive', [0,1])
@pytest.mark.parametrize('sampling', samplings)
def test_any_part_is_equal_to_the_bit(lib, sampling, progressive, capfd):
    rng = random.Random(sampling+progressive)
    for _ in range(12):
        h,w = rng.randint(1, 140),rng.randint(1, 140)
        data = jpeg(cow[:h,:w], sampling, progressive=progressive, quality=rng.choice([40,95]))
        head = jpeg_head(data)
        assert head[:2]==(h,w) and head.rows==(not progressive)
        for _ in range(6):
            x = rng.randrange(w)
            y = rng.randrange(h)
            n = rng.choice([8,8,4,2,1])
            box = x,y,rng.randrange(x, w),rng.randrange(y, h)
            (a,b),(c,d) = (
                ((x,box[2]),(y,box[3])) if n==8
                else (F._scaled(x, box[2], n, w),F._scaled(y, box[3], n, h))
            )
            if lib: # not by falling back
                assert F._part_turbo(lib, data, head, (a,c,b,d), n) is not None
            assert np.array_equal(
                read_part(data, head, box, n), whole(data, n)[c:d+1,a:b+1]
            )
    assert 'JPEG' not in ''.join(capfd.readouterr()) # no decoder complained

def exif(kind, order='<'):
    return (
        b'Exif\0\0'
        + (b'II*\0' if order=='<' else b'MM\0*')
        + struct.pack(order+'IHHHIHHI', 8, 1, 0x112, 3, 1, kind, 0, 0)
    )
odd = {
    'cmyk.jpg':lambda: (
        lambda b: (Image.fromarray(cow).convert('CMYK').save(b, 'JPEG'), b.getvalue())[1]
    )(io.BytesIO()),
    'turned.jpg':lambda: saved(cow, exif=exif(6)),
    'turned_be.jpg':lambda: saved(cow, exif=exif(8, '>')),
    'upright.jpg':lambda: saved(cow, exif=exif(1)),
    'grey.jpg':lambda: jpeg(cow[...,0]),
    'progressive.jpg':lambda: saved(cow, progressive=True),
    'png.jpg':lambda: saved(cow, 'PNG'),
    'dot.jpg':lambda: jpeg(cow[:1,:1]),
    'line.jpg':lambda: jpeg(cow[:3]),
    'marks.jpg':lambda: jpeg(cow, rst_interval=2),
    'optimised.jpg':lambda: saved(cow, optimize=True, subsampling=0),
    'rgb.jpg':lambda: saved(cow, keep_rgb=True),
    'mpo.jpg':lambda: saved(cow, 'MPO', save_all=True, append_images=[Image.fromarray(cow[::-1])]),
    'tail.jpg':lambda: jpeg(cow)+b'\0'*7,
    'webp.jpg':lambda: saved(cow, 'WEBP'),
    'big_notes.jpg':lambda: saved(cow, icc_profile=b'x'*100_000),
    'cut.jpg':lambda: jpeg(cow)[:9000],
    'wrong.jpg':lambda: jpeg(cow)[:4000]+b'\x12\x34'*60+jpeg(cow)[4120:],
}

@pytest.mark.parametrize('name', odd)
@pytest.mark.parametrize('how', ['exact','scaled'])
def test_odd_files_come_out_as_ever(lib, name, how, tmp_path, capfd):
    (tmp_path/name).write_bytes(odd[name]())
    for seed in range(6):
        for step in (
            RandomResizedCrop(96, scale=(.5, 1)),
            CenterCrop(80, True),
            RandomResizedCrop(64, scale=(.5, 1), efficientnet_style=True),
        ):
            outs = []
            for p in (Compose([LoadImageFromFile(), step]), LoadCrop(LoadImageFromFile(), step, how)):
                random.seed(seed)
                try:
                    r = p(dict(img_prefix=str(tmp_path), img_info=dict(filename=name)))
                except ClsnbError as e:
                    outs.append(str(e))
                    continue
                outs.append(
                    (
                        r['img'].tobytes(), r['img'].shape, r['img_shape'], r['ori_shape'], r['filename'],
                        random.random()
                    )
                )
            if how=='exact' or isinstance(outs[0], str):
                assert outs[0]==outs[1]
            else: # size, notes, and what is drawn next
                assert outs[0][1:]==outs[1][1:]

def test_which_heads_are_read_in_part():
    heads = {k: jpeg_head(v()) for k,v in odd.items()}
    assert {k for k,v in heads.items() if v is None}=={
        'cmyk.jpg','turned.jpg','turned_be.jpg','png.jpg','tail.jpg','webp.jpg','cut.jpg'
    }
    assert {k for k,v in heads.items() if v and not v.rows}=={'progressive.jpg','marks.jpg','mpo.jpg'}
    for junk in (
        b'', b'\xff\xd8', b'\xff\xd8\xff\xd9', jpeg(cow)[:300]+b'\xff\xd9', b'\xff\xd8'+b'\xff'*50+b'\xff\xd9'
    ):
        assert jpeg_head(junk) is None
    rng = np.random.default_rng(0)
    good = jpeg(cow)
    for _ in range(300): # damaged heads must not raise
        bad = bytearray(good)
        bad[int(rng.integers(2, 620))] = int(rng.integers(256))
        head = jpeg_head(bytes(bad))
        if head:
            read_part(
                bytes(bad),
                head,
                (0, 0,min(9, head.width-1),min(9, head.height-1)),
            )

def test_scaled_differs_little_and_keeps_boxes(lib):
    big = jpeg(cv2.resize(cow, None, fx=6, fy=6, interpolation=cv2.INTER_CUBIC), quality=92)
    sample = lambda: dict(img_prefix=None, img_info=dict(filename='big.jpg'), img_bytes=big)
    for seed in range(8):
        outs,after = [],[]
        for how in ('exact','scaled'):
            random.seed(seed)
            (
                outs.append(LoadCrop(LoadImageFromFile(), RandomResizedCrop(96), how)(sample())['img'].astype(
                    float
                ))
            )
            after.append(random.random())
        assert after[0]==after[1] and np.abs(outs[0]-outs[1]).mean()<8
        # the same place
        assert np.abs(
            cv2.blur(outs[0], (9, 9))-cv2.blur(outs[1], (9, 9))
        ).mean()<2

def test_what_stays_whole():
    for steps,why in [
        (
            [load, dict(type='Resize', size=(64,-1)), dict(type='CenterCrop', crop_size=48)],
            'Resize needs the whole picture',
        ),
        ([dict(load, color_type='grayscale'), crop],'color_type'),
        ([dict(load, imdecode_backend='pillow'), crop],'backend'),
        ([flip],'does not begin'),
        ([load, flip, crop],'RandomFlip needs'),
    ]:
        p,note = fast_decode(steps)
        assert why in note and len(p)==len(steps) and not any(isinstance(o, LoadCrop) for o in p), note
    p,note = fast_decode([load, dict(type='CenterCrop', crop_size=48, efficientnet_style=True)], 'scaled')
    assert p[0].how=='exact' and 'same pixels' in note # evaluation does not change
    for bad in (
        lambda: fast_decode([load, crop], 'scald'),
        lambda: LoadCrop(load, flip),
        lambda: LoadCrop(load, crop, how='fast'),
        lambda: normalize_later([norm], 'half'),
    ):
        with pytest.raises(ConfigError): bad()
    assert pickle.loads(pickle.dumps(LoadCrop(load, crop))).crop.size==(48,48)

def batches(workers=0, ds=None, **kw):
    loader = build_dataloader(
        ds or Photos('train', [load, crop, flip, norm]+end), 16, workers, seed=3, **kw
    )
    return [
        (to_device(b, 'cpu', torch.preserve_format), b.index)
        for b,_ in zip(loader, range(4))
    ]

@pytest.mark.parametrize('workers', [0,2])
def test_loader_gives_the_same_batches(lib, workers):
    plain = batches()
    for kw in (
        dict(fast_decode=True), dict(device_normalize=True), dict(fast_decode=True, device_normalize=True)
    ):
        for (a,i),(b,j) in zip(plain, batches(workers, **kw)):
            assert i==j
            assert a['img'].dtype==b['img'].dtype
            assert a['img'].equal(b['img'])
            assert a['gt_label'].equal(b['gt_label'])
            assert b['img'].is_contiguous()
            for x,y in zip(a['img_metas'], b['img_metas']):
                assert x.keys()==y.keys()
                assert all(np.array_equal(x[k], y[k]) for k in x if k!='img_norm_cfg')
                assert all(
                    np.array_equal(x['img_norm_cfg'][k], y['img_norm_cfg'][k])
                    for k in x['img_norm_cfg']
                )

def test_inside_wrappers_and_where_it_does_not_fit(capsys):
    def ds(n=norm, tail=end):
        return Photos('val', [load, crop, n, *tail])
    a = ds()
    both = ConcatDataset([RepeatDataset(a, 2), a])
    one = next(iter(build_dataloader(both, 8, seed=0, fast_decode=True, device_normalize=True)))
    two = next(iter(build_dataloader(both, 8, seed=0)))
    assert one['img'].dtype==torch.uint8
    assert to_device(one, 'cpu')['img'].equal(two['img'])
    assert isinstance(a.pipeline[0], LoadImageFromFile)
    assert a[0]['img'].dtype==torch.float32
    mixed = ConcatDataset([ds(), ds(dict(norm, to_rgb=False))]) # two ways to normalise: as ever
    assert next(iter(build_dataloader(mixed, 8, seed=0, device_normalize=True)))['img'].dtype==torch.float32
    late = ds(tail=[dict(type='RandomErasing', erase_prob=1.), *end])
    capsys.readouterr()
    assert next(iter(build_dataloader(late, 8, seed=0, device_normalize=True)))['img'].dtype==torch.float32
    assert 'RandomErasing comes after Normalize' in capsys.readouterr().out
    own = next(iter(build_dataloader(
        ds(),
        8,
        seed=0,
        device_normalize=True,
        collate_fn=lambda s: torch.stack([o['img'] for o in s]),
    )))
    assert own.dtype==torch.float32

def test_normalising_late_is_equal():
    x = np.arange(256, dtype=np.uint8)[:,None,None].repeat(3, 2).repeat(2, 1)
    rng = np.random.default_rng(0)
    for to_rgb in (True, False):
        for _ in range(20):
            kw = dict(
                mean=rng.uniform(80, 150, 3), std=rng.uniform(1, 90, 3), to_rgb=to_rgb
            )
            y = rng.permuted(x, axis=0)
            steps = [
                dict(kw, type='Normalize'), end[0], dict(type='Collect', keys=['img'], meta_keys=())
            ]
            late,n,_ = normalize_later(steps)
            a = Compose(steps)(dict(img=y.copy()))['img']
            b = n(late(dict(img=y.copy()))['img'])
            assert (a-b).abs().max()<=1e-6*a.abs().max() and b.is_contiguous()
    n = DeviceNormalize(norm['mean'], norm['std'], dtype=torch.bfloat16)
    z = torch.zeros(2,3,4,4, dtype=torch.uint8)
    assert n(z).dtype==torch.bfloat16
    assert n(z, torch.channels_last).is_contiguous(memory_format=torch.channels_last)
    assert n(z[0]).shape==(3,4,4)
    assert pickle.loads(pickle.dumps(n))==n

@pytest.mark.parametrize('extra', [{}, dict(channels_last=True)])
def test_training_and_testing_are_the_same(extra, tmp_path):
    "Two epochs with mixup and cutmix, and the scores of the test: equal"
    from clsnb.apis.fit import fit
    from clsnb.apis.picture_scores import predict_scores
    from clsnb.core.checkpoint import read_checkpoint
    from clsnb.apis.test import evaluate_config
    augs = [
        dict(type='BatchMixup', alpha=.8, prob=.5), dict(type='BatchCutMix', alpha=1., prob=.5)
    ]
    test = [
        load,
        dict(type='Resize', size=(48, 48)),
        norm,
        *end[:1],
        dict(type='Collect', keys=['img']),
    ]
    out = []
    for i,kw in enumerate([{}, dict(fast_decode=True, device_normalize=True)]):
        cfg = dict(
            model=dict(
                type='ImageClassifier',
                backbone=dict(type='ResNet_CIFAR', depth=18, base_channels=8, stem_channels=8),
                neck=dict(type='GlobalAveragePooling'),
                head=dict(
                    type='LinearClsHead', in_channels=64, loss=dict(type='CrossEntropyLoss', use_soft=True)
                ),
                train_cfg=dict(augments=augs),
            ),
            data=dict(
                samples_per_gpu=27,
                workers_per_gpu=0,
                train=dict(type='Photos', split='val', pipeline=[load, crop, flip, norm]+end),
                val=dict(type='Photos', split='val', pipeline=test),
                test=dict(type='Photos', split='val', pipeline=test),
                **kw,
            ),
            optimizer=dict(type='SGD', lr=.05),
            runner=dict(type='EpochBasedRunner', max_epochs=2),
            checkpoint_config=dict(interval=2),
            evaluation=dict(interval=2),
            seed=1,
            results=False,
            log_config=dict(hooks=[]),
            **extra,
        )
        fit(cfg, str(tmp_path/str(i)), device='cpu')
        metrics,scores,_,model = evaluate_config(str(tmp_path/str(i)), device='cpu')
        out.append(
            (
                read_checkpoint(str(tmp_path/str(i)/'latest.pth'))['state_dict'],
                scores,
                predict_scores(model, [photo_path('animal/cow.jpg'), photo_path('animal/cat.jpg')]),
            )
        )
    (a,s,p),(b,t,q) = out
    assert all(torch.allclose(a[k], b[k], rtol=0, atol=1e-6) for k in a)
    assert np.abs(s-t).max()<1e-6
    assert np.abs(p-q).max()<1e-6

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_on_a_gpu():
    for (a,_),(b,_) in zip(
        batches(), batches(2, fast_decode=True, device_normalize=True)
    ):
        pass
    loader = build_dataloader(
        Photos('train', [load, crop, flip, norm]+end), 16, 2, seed=3, device_normalize=True
    )
    for (a,_),b in zip(batches(), loader):
        g = to_device(b, 'cuda', torch.channels_last)['img']
        assert g.is_contiguous(memory_format=torch.channels_last)
        assert (g.cpu()-a['img']).abs().max()<=1e-6

def test_without_a_library_or_with_an_old_one(tmp_path):
    "A file that is no libturbojpeg, or that is too old, is passed over"
    (tmp_path/'libturbojpeg.so.0').write_bytes(b'not a library')
    code = (
        "from clsnb.data.pixels.fast_decode import turbo_library, read_part, jpeg_head; import sys; "
        "d = open(sys.argv[1],'rb').read(); turbo_library(); print(read_part(d, "
        "jpeg_head(d), (3,4,20,30)).shape)"
    )
    for path in (str(tmp_path/'libturbojpeg.so.0'), str(tmp_path/'none.so'), 'libm.so.6'):
        r = subprocess.run(
            [sys.executable, '-c', code, photo_path('animal/cow.jpg')],
            capture_output=True,
            text=True,
            env={**os.environ, 'CLSNB_TURBOJPEG':path},
        )
        assert r.returncode==0 and '(27, 18, 3)' in r.stdout and not r.stderr, r.stderr

def test_batches_are_shown_as_ever():
    from clsnb.data.looking import show_batch
    a,b = (
        show_batch(build_dataloader(Photos('val', [load, crop, norm]+end), 8, seed=0, device_normalize=o))
        for o in (None, True)
    )
    assert a.image.tobytes()==b.image.tobytes()

# ---- Heads and regions that a decoder could trip over

def test_a_head_without_sizes_of_blocks_is_not_read_in_part():
    good = jpeg(cow)
    i = jpeg_head(good).at+6 # of the first colour's sampling
    for v in (0x00, 0x02, 0x20, 0x51, 0xf1):
        assert jpeg_head(good[:i]+bytes([v])+good[i+1:]) is None
def test_an_empty_or_outer_box_is_nobodys_part(lib):
    data = jpeg(cow)
    head = jpeg_head(data)
    for box in [
        (5, 50, 10, 49), (50, 5, 49, 10), (5, 50, 10, 20),
        (500, 5, 600, 10), (5, 500, 10, 600), (-5,-5,-1,-1)
    ]:
        for n in (8,2): assert read_part(data, head, box, n) is None
@pytest.mark.skipif(not F.turbo_library(), reason='needs libturbojpeg 3')
def test_a_picture_that_fails_does_not_spoil_the_next():
    "A handle that met a wrong Huffman table refuses all that comes after"
    lib = F.turbo_library()
    data = jpeg(cow)
    at = data.index(b'\xff\xc4')
    head = jpeg_head(data)
    bad = data[:at+5]+b'\xff'*16+data[at+21:]
    assert F._part_turbo(lib, bad, jpeg_head(bad), (0,0,9,9), 8) is None
    assert F._part_turbo(lib, data, head, (0,0,9,9), 8) is not None
@pytest.mark.skipif(not F.turbo_library(), reason='needs libturbojpeg 3')
def test_a_picture_without_tables_does_not_take_those_of_the_one_before():
    lib = F.turbo_library()
    data = jpeg(cow)
    bare = bytearray(data)
    at = [i for i in range(620) if data[i:i+2]==b'\xff\xdb']
    bare[at[1]+1] = 0xE5
    head = jpeg_head(data)
    assert F._part_turbo(lib, data, head, (0,0,9,9), 8) is not None
    assert F._part_turbo(lib, bytes(bare), head, (0,0,9,9), 8) is None
def unfinished(k):
    "A progressive picture that ends after its k-th scan"
    data = saved(cow, progressive=True, quality=70)
    at = [i for i in range(len(data)) if data[i:i+2]==b'\xff\xda']
    end = data.rfind(b'\xff\xc4', at[k-1], at[k])
    return data[:end if end>0 else at[k]]+b'\xff\xd9'
@pytest.mark.parametrize('scans', [1,2,4,6,9])
def test_unfinished_pictures_are_smoothed_alike(lib, scans):
    data = unfinished(scans)
    head = jpeg_head(data)
    rng = random.Random(scans)
    for _ in range(25):
        x,y = rng.randrange(head.width),rng.randrange(head.height)
        box = x,y,rng.randrange(x, head.width),rng.randrange(y, head.height)
        assert np.array_equal(
            read_part(data, head, box), whole(data)[y:box[3]+1,x:box[2]+1]
        )
