"""Transforms, pipelines and metrics give the numbers that MMClassification 0.25 gave (recorded on OpenCV 4.10 and
Pillow 10.4)"""
import copy, gzip, json, pickle, random
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import cv2, numpy as np, pytest, torch
import clsnb.metrics.multi_label as multi, clsnb.metrics.single_label as single
from clsnb.core.errors import ConfigError, DataError
from clsnb.data.sets.dataset import BaseDataset
from clsnb.data.sets.multi_label import MultiLabelDataset
from clsnb.data.transforms.pipeline import build_pipeline, build_transform

here = Path(__file__).parent/'data'
images = here/'images'

def tuples(o):
    "JSON has no tuples: they are written {'tuple': [...]}"
    if isinstance(o, list): return [tuples(x) for x in o]
    if isinstance(o, dict):
        if set(o)=={'tuple'}: return tuple(tuples(x) for x in o['tuple'])
        return {k:tuples(v) for k,v in o.items()}
    return o

def read(name): return json.loads(gzip.decompress((here/name).read_bytes()))
facts = read('transforms.json.gz')
configs = tuples(facts['configs'])
def seed(s):
    random.seed(s)
    np.random.seed(s)
    torch.manual_seed(s)
def fresh(name): return dict(img_prefix=str(images), img_info=dict(filename=name+'.png'))

def opened(name, color_type='color'):
    img = cv2.imread(
        str(images/f'{name}.png'), dict(color=cv2.IMREAD_COLOR, grayscale=cv2.IMREAD_GRAYSCALE)[color_type]
    )
    return dict(
        fresh(name),
        img=img,
        img_shape=img.shape,
        ori_shape=img.shape,
        filename=str(images/f'{name}.png'),
        ori_filename=name+'.png',
    )

def grouped(cases, key):
    out = defaultdict(list)
    for c in cases: out[key(c)].append(c)
    return out.items()

kind = lambda c: configs[c['cfg']]['type']
@pytest.mark.parametrize(
    'name,cases', [pytest.param(*o, id=o[0]) for o in grouped(facts['cases'], kind)]
)
def test_transforms(name, cases):
    for c in cases:
        t = build_transform(copy.deepcopy(configs[c['cfg']]))
        r = fresh(c['image']) if name=='LoadImageFromFile' else opened(c['image'], **c['load'])
        if c['seed'] is not None: seed(c['seed'])
        r = t(r)
        x = np.asarray(r['img'])
        assert list(x.shape)==c['shape'] and str(x.dtype)==c['dtype'], (
            t, x.shape, x.dtype
        )
        at = np.linspace(0, x.size-1, min(64, x.size)).astype(int)
        tol = 1.01 if x.dtype==np.uint8 else 1e-3
        assert np.abs(x.ravel()[at].astype(float)-c['samples']).max()<=tol, (
            t, c['image'], c['seed']
        )
        assert abs(x.mean()-c['mean'])<.3 and abs(x.std()-c['std'])<.3
        for k,v in c['results'].items():
            if k in r:
                assert (list(r[k]) if isinstance(r[k], tuple) else r[k])==v, (
                    t, k
                )
        if c['next_random']:
            assert [random.random(), float(np.random.rand())]==c['next_random'], f'{t} drew other numbers'

@pytest.mark.parametrize(
    'cases',
    [
        pytest.param(cs, id=f'config{k}')
        for k,cs in grouped(facts['pipelines'], lambda c: c['cfg'])
    ],
)
def test_pipelines(cases):
    for c in cases:
        p = build_pipeline(copy.deepcopy(configs[c['cfg']]))
        r = fresh(c['image'])
        if c['input']:
            img = opened(c['image'], 'grayscale' if c['input']=='grey image' else 'color')['img']
            if c['input']!='grey image': img = img[:32,:32].copy()
            r = dict(img=img, filename=None, ori_filename=None, ori_shape=img.shape, img_shape=img.shape)
        r['gt_label'] = np.array(3)
        seed(c['seed'])
        r = p(r)
        x = r['img'].double().numpy()
        assert sorted(r)==c['keys']
        assert str(r['img'].dtype)==c['dtype']
        assert list(x.shape)==c['shape']
        at = [(2*j+1)*x.size//64 for j in range(32)]
        assert abs(x.mean()-c['mean'])<5e-3 and abs(x.std()-c['std'])<5e-3
        assert np.abs(x.ravel()[at]-c['samples']).max()<.03

known = read('metrics.json.gz')
inputs = {
    k:np.array(v, np.float32 if 'scores' in k else np.int64)
    for k,v in known['inputs'].items()
}
def flat(o):
    if isinstance(o, (list, tuple)):
        return [x for p in o for x in flat(p)]
    return np.ravel(np.asarray(o)).tolist()

class Labelled(BaseDataset):
    CLASSES = list('abcdefg')
    def load_annotations(self): return [dict(gt_label=o) for o in inputs['labels']]

class MultiLabelled(MultiLabelDataset):
    CLASSES = list('abcdefg')
    def load_annotations(self): return [dict(gt_label=o) for o in inputs['difficult']]

def measure(f, a):
    a = {
        k:tuple(v) if isinstance(v, list) and k!='metric' else v
        for k,v in a.items()
    }
    if f.endswith('dataset.evaluate'):
        ds,scores = (MultiLabelled,'ml_scores') if f.startswith('multi') else (Labelled,'scores')
        n = a.pop('indices', None)
        options = {
            k:tuple(v) if isinstance(v, list) else v
            for k,v in (a.pop('metric_options', None) or {}).items()
        }
        return ds('', []).evaluate(list(inputs[scores][:n]), metric_options=options or None,
                                   **({} if n is None else dict(indices=list(range(n)))), **a)
    if hasattr(multi, f):
        p,t,k = inputs['ml_scores'],inputs[a.pop('target')],a.pop('column', slice(None))
        return getattr(multi, f)(p[:,k], t[:,k], **a)
    a.pop('pred', None)
    p,t = inputs['scores'],inputs['labels']
    if a.pop('kind', '')=='torch':
        p,t = torch.from_numpy(p),torch.from_numpy(t)
    return getattr(single, f)(p, t, **a)

@pytest.mark.filterwarnings('ignore:average_performance')
@pytest.mark.parametrize(
    'f,cases',
    [
        pytest.param(*o, id=o[0])
        for o in grouped(known['cases'], lambda c: c['function'])
    ],
)
def test_metrics(f, cases):
    for c in cases:
        want = c['out']
        if isinstance(want, dict) and 'error' in want:
            with pytest.raises(dict(TypeError=TypeError, ValueError=ValueError)[want['error']]):
                measure(f, c['args'])
        elif isinstance(want, dict):
            got = measure(f, c['args'])
            assert set(got)==set(want)
            assert all(np.allclose(flat(got[k]), flat(want[k]), atol=1e-4) for k in want)
        else:
            assert np.allclose(flat(measure(f, c['args'])), flat(want), atol=1e-4), c['args']

def test_evaluate_refuses():
    with pytest.raises(ConfigError, match="Did you mean 'f1_score'"):
        Labelled('', []).evaluate(list(inputs['scores']), metric='f1score')

def pictures():
    rng = np.random.RandomState(0)
    u = lambda *s: rng.randint(0, 256, s).astype(np.uint8)
    return dict(
        rgb=u(24, 30, 3),
        grey=u(24, 30),
        one_channel=u(24, 30, 1),
        alpha=u(24, 30, 4),
        f32=u(24, 30, 3).astype(np.float32),
        u16=u(24, 30, 3).astype(np.uint16)*257,
        pixel=u(1, 1, 3),
        tall=u(300, 2, 3),
        strided=u(48, 60, 3)[::2,::-2,::-1],
        grey_u16=u(24, 30).astype(np.uint16)*257,
    )
sure = dict(prob=1.)
steps = [
    dict(type='Resize', size=24),
    dict(type='Resize', size=(24,-1), adaptive_side='long'),
    dict(type='Resize', size=(20, 30), interpolation='lanczos'),
    dict(type='Resize', size=24, backend='pillow'),
    dict(type='CenterCrop', crop_size=16),
    dict(type='CenterCrop', crop_size=16, efficientnet_style=True),
    dict(type='RandomCrop', size=16, padding=4, pad_if_needed=True, padding_mode='reflect'),
    dict(type='RandomResizedCrop', size=16),
    dict(type='RandomResizedCrop', size=16, efficientnet_style=True),
    dict(type='Pad', size=(40, 50)),
    dict(type='RandomFlip', flip_prob=1., direction='diagonal'),
    dict(type='RandomGrayscale', gray_prob=1.),
    dict(type='RandomErasing', erase_prob=1., mode='rand'),
    dict(type='ColorJitter', brightness=.4, contrast=.4, saturation=.4),
    dict(
        type='Lighting',
        eigval=[55., 4., 1.],
        eigvec=[[1., 0, 0],[0, 1., 0],[0, 0, 1.]],
    ),
    dict(type='Normalize', mean=[1, 2, 3], std=[1, 2, 3]),
    dict(type='AutoContrast', **sure),
    dict(type='Invert', **sure),
    dict(type='Equalize', **sure),
    dict(type='Brightness', magnitude=.5, **sure),
    dict(type='Contrast', magnitude=.5, **sure),
    dict(type='ColorTransform', magnitude=.9, **sure),
    dict(type='Sharpness', magnitude=.5, **sure),
    dict(type='Posterize', bits=3, **sure),
    dict(type='Solarize', thr=77, **sure),
    dict(type='SolarizeAdd', magnitude=-50, **sure),
    dict(type='Rotate', angle=20, center=[3, 4], **sure),
    dict(type='Shear', magnitude=.2, **sure),
    dict(type='Translate', magnitude=.3, **sure),
    dict(type='Cutout', shape=(12., 5.), **sure),
    dict(type='ImageToTensor', keys=['img']),
    dict(type='TrivialAugment'),
    dict(type='TorchVision', transform='RandomResizedCrop', size=16),
]

@pytest.mark.parametrize('cfg', [pytest.param(o, id=f"{o['type']}{i}") for i,o in enumerate(steps)])
def test_odd_pictures(cfg):
    """Any picture comes out, unharmed itself and repeatable also from a pickled or copied step and in threads; or one
    line says why not"""
    t = build_transform(cfg)
    others = [pickle.loads(pickle.dumps(t)), copy.deepcopy(t)]
    for name,x in pictures().items():
        x.flags.writeable = False
        before = x.copy()
        def go(t):
            seed(3)
            return np.asarray(
                t(dict(
                    img=x.copy() if cfg['type']=='ImageToTensor' else x, gt_label=np.array(3)
                ))['img']
            )
        try: y = go(t)
        except (ConfigError, DataError) as e:
            assert (
                name not in ('rgb', 'pixel', 'tall', 'strided')
                and cfg['type'] in str(e)+'Resize'
                and '\n' not in str(e)
            ), (name, e)
        else:
            assert y.size
            assert y.ndim==x.ndim+(cfg['type']=='ImageToTensor' and x.ndim==2)
            assert (x==before).all()
            assert all((go(o)==y).all() for o in others)

@pytest.mark.parametrize(
    'cfg',
    [
        o
        for o in steps
        if o['type'] in (
                'Brightness Contrast ColorTransform Sharpness Rotate Shear Translate ColorJitter RandomFlip'
            ).split()
    ],
    ids=lambda o: o['type'],
)
def test_fields_together(cfg):
    "All images of a sample are turned the same way, with one draw"
    x = pictures()['rgb']
    for s in range(6):
        seed(s)
        r = build_transform(cfg)(dict(img=x, again=x, img_fields=['img','again']))
        after = np.random.rand()
        seed(s)
        build_transform(cfg)(dict(img=x))
        assert (r['img']==r['again']).all() and after==np.random.rand()

def test_float_colours_stay_in_range():
    x = pictures()['f32']
    y = (
        build_transform(dict(type='ColorTransform', magnitude=.9, prob=1., random_negative_prob=0.))(dict(
            img=x
        ))['img']
    )
    assert y.dtype==np.float32 and y.min()>=0 and y.max()<=255

def test_grey_keeps_channels():
    for name in ('rgb','alpha'):
        x = pictures()[name]
        assert build_transform(dict(type='RandomGrayscale', gray_prob=1.))(dict(img=x))['img'].shape==x.shape

def test_normalize_other_types():
    x = pictures()['rgb']
    t = build_transform(dict(type='Normalize', mean=[1,2,3], std=[4,5,6]))
    want = t(dict(img=x))['img']
    for dtype in (np.int32, np.float16, np.float32, np.float64, np.uint16):
        assert np.allclose(t(dict(img=x.astype(dtype)))['img'], want, atol=1e-5)
    turned = np.ascontiguousarray(x.astype(np.float32).transpose(2, 0, 1)).transpose(
        1, 2, 0
    )
    plain = build_transform(dict(
        type='Normalize', mean=[1, 2, 3], std=[4, 5, 6], to_rgb=False
    ))
    assert np.allclose(
        plain(dict(img=turned))['img'], plain(dict(img=x))['img'], atol=1e-5
    )

wrong = [
    (dict(type='Resize', size=24.), 'whole number'),
    (dict(type='Resize', size='24'), 'whole number'),
    (dict(type='CenterCrop', crop_size=(24,-1)), 'crop_size'),
    (dict(type='RandomCrop', size=(24,-1)), 'size'),
    (dict(type='Pad', size=(24,-1)), 'size'),
    (dict(type='RandomResizedCrop', size=(24,-1)), 'size'),
    (dict(type='RandomCrop', size=24, padding=(1, 2, 3)), 'padding'),
    (dict(type='RandomCrop', size=24, padding_mode='mirror'), 'padding_mode'),
    (dict(type='Pad', size=24, padding_mode='reflct'), "'reflect'"),
    (dict(type='RandomResizedCrop', size=24, scale=.5), 'scale'),
    (dict(type='RandomResizedCrop', size=24, ratio=(0, 1)), 'ratio'),
    (dict(type='RandomResizedCrop', size=24, max_attempts=-1), 'max_attempts'),
    (dict(type='RandomFlip', direction=['horizontal']), 'horizontal'),
    (dict(type='RandomErasing', erase_prob=2.), 'erase_prob'),
    (dict(type='RandomErasing', min_area_ratio=.5, max_area_ratio=.1), 'min_area_ratio'),
    (dict(type='RandomErasing', aspect_range=0.), 'aspect_range'),
    (dict(type='RandomErasing', fill_color=(1, 2)), 'fill_color'),
    (dict(type='RandomGrayscale', gray_prob='a'), 'gray_prob'),
    (dict(type='ColorJitter', brightness=(.1, .2), contrast=0, saturation=0), 'brightness'),
    (dict(type='Lighting', eigval=[1, 2], eigvec=[[1]]), 'eigval'),
    (dict(type='Normalize', mean=[1, 2, 3], std=[1, 2]), 'std'),
    (dict(type='Normalize', mean=[1, 2, 3], std=[1, 0, 2]), 'std'),
    (dict(type='Brightness', magnitude=None), 'magnitude'),
    (dict(type='Brightness', magnitude=.1, prob=2.), 'prob'),
    (dict(type='Rotate', angle='10'), 'angle'),
    (dict(type='Cutout', shape=(1, 2, 3)), 'shape'),
    (dict(type='Posterize', bits='3'), 'bits'),
    (dict(type='ImageToTensor', keys='img'), r"\['img'\]"),
    (dict(type='AutoAugment', policies=[['Rotate']]), 'policy'),
    (dict(type='RandAugment', policies='timm', num_policies=2, magnitude_level=9), 'policies'),
    (
        dict(type='RandAugment', policies=[dict(type='Invert')], num_policies=2, magnitude_level='9'),
        'magnitude_level',
    ),
    (
        dict(
            type='RandAugment',
            policies=[dict(type='Rotate', magnitude_key='angle', magnitude_range=30)],
            num_policies=1,
            magnitude_level=9,
        ),
        'magnitude_range',
    ),
    (dict(type='TorchVision', transform='GaussianBlur', kernel_size=4), 'GaussianBlur'),
    (dict(type='TorchVision', transform='RandomResizedCrop', size=8, interpolation='bicubicc'), 'bicubicc'),
    (
        dict(type='TorchVision', transform='RandomApply', transforms=[dict(type='ColorJitter')]),
        'transform=name',
    ),
]
@pytest.mark.parametrize('cfg,about', wrong, ids=lambda o: o['type'] if isinstance(o, dict) else '')
def test_wrong_arguments(cfg, about):
    with pytest.raises(ConfigError, match=about) as e: build_transform(cfg)
    assert '\n' not in str(e.value)

def test_missing_key_is_named():
    with pytest.raises(DataError, match="ToTensor: the sample has no 'gt_label'"):
        build_transform(dict(type='ToTensor', keys=['gt_label']))(dict(img=1))
    with pytest.raises(DataError, match="Resize: the sample has no 'img'"):
        build_transform(dict(type='Resize', size=3))(dict(filename='a'))
    with pytest.raises(DataError, match="not return an image tensor"):
        build_transform(dict(type='TorchVision', transform='FiveCrop', size=4))(dict(img=pictures()['rgb']))

def test_threads():
    "Steps keep nothing between calls: two threads at once get what one after the other gets"
    fixed = [
        dict(type='Resize', size=(20,-1)),
        dict(type='Rotate', angle=20, random_negative_prob=0., prob=1.),
        dict(type='Equalize', prob=1.),
        dict(type='CenterCrop', crop_size=16),
        dict(type='Normalize', mean=[1, 2, 3], std=[4, 5, 6]),
        dict(type='ImageToTensor', keys=['img']),
    ]
    xs = [
        np.random.RandomState(i).randint(0, 256, (24+i,30, 3)).astype(np.uint8)
        for i in range(24)
    ]
    one = [build_pipeline(fixed)(dict(img=x))['img'] for x in xs]
    p = build_pipeline(fixed)
    with ThreadPoolExecutor(4) as pool:
        assert all(
            torch.equal(a, b)
            for a,b in zip(one, pool.map(lambda x: p(dict(img=x))['img'], xs))
        )

def test_what_is_no_pipeline():
    for o in ('Resize', dict(type='Resize', size=3), 5):
        with pytest.raises(ConfigError, match='A pipeline is a list of steps'):
            build_pipeline(o)

def test_recipes_want_uint8():
    "torchvision would clip floats of 0 to 255 to 1"
    with pytest.raises(DataError, match='TrivialAugment: torchvision takes floats'):
        build_transform(dict(type='TrivialAugment'))(dict(img=pictures()['f32']))

def test_torchvision_in_a_config():
    x = pictures()['rgb']
    norm = [
        dict(transform='ToDtype', dtype='float32', scale=True),
        dict(transform='Normalize', mean=[.5]*3, std=[.5]*3),
    ]
    y = build_transform(dict(type='TorchVision', transform='Compose', transforms=norm))(dict(img=x))['img']
    assert np.allclose(y, (x/255-.5)/.5, atol=1e-5)
    t = build_transform(dict(
        type='TorchVision', transform='RandomApply', transforms=['RandomEqualize'], p=1.
    ))
    assert t(dict(img=x))['img'].shape==x.shape

def test_albu():
    pytest.importorskip('albumentations')
    x = pictures()['rgb']
    flip = dict(type='HorizontalFlip', p=1.)
    # as configs of detection have it
    r = build_transform(dict(
        type='Albu', transforms=[flip], keymap=dict(img='image', gt_masks='masks')
    ))(dict(img=x, gt_label=3))
    assert (r['img']==x[:,::-1]).all()
    assert r['gt_label']==3
    assert 'gt_masks' not in r
    t = build_transform(dict(
        type='Albu',
        transforms=[
            dict(type='RandomBrightnessContrast', p=1.),
            dict(type='OneOf', transforms=[flip, dict(type='Transpose')]),
        ],
    ))
    def go(t, s):
        seed(s)
        return t(dict(img=x))['img']
    assert (go(t, 1)==go(pickle.loads(pickle.dumps(t)), 1)).all()
    assert not np.array_equal(go(t, 1), go(t, 2))
    for bad,about in [
        ('HorizontalFlip', 'a step is'),
        (dict(type='HorizontlFlip'), "'HorizontalFlip'"),
        (dict(type='Blur', blur_limit='a'), 'Blur'),
    ]:
        with pytest.raises(ConfigError, match=about):
            build_transform(dict(type='Albu', transforms=[bad]))
    with pytest.raises(DataError, match='Albu'):
        build_transform(dict(type='Albu', transforms=[dict(type='RandomCrop', height=300, width=300)]))(dict(
            img=x
        ))

def test_torchvision_classes():
    from torchvision.transforms import v2
    x = pictures()['rgb']
    for kw in (dict(transform=v2.RandomHorizontalFlip, p=1.), dict(transform=v2.RandomHorizontalFlip(p=1.))):
        assert (
            build_transform(dict(type='TorchVision', **kw))(dict(img=x))['img']
            == x[:,::-1]
        ).all()
    with pytest.raises(ConfigError, match='already built'):
        build_transform(dict(type='TorchVision', transform=v2.RandomHorizontalFlip(), p=1.))

def test_colours_after_lighting():
    "Lighting gives float64; what mixes colours takes it"
    x = pictures()['rgb']
    light = dict(
        type='Lighting', eigval=[55., 4., 1.], eigvec=np.eye(3).tolist(), alphastd=0., to_rgb=False
    )
    for kind in ('Contrast','ColorTransform'):
        step = dict(type=kind, magnitude=.3, prob=1., random_negative_prob=0.)
        y = build_pipeline([light, step])(dict(img=x))['img']
        assert y.dtype==np.float64
        assert np.abs(y-build_transform(step)(dict(img=x))['img']).max()<2
