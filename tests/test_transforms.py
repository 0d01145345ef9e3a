"Transforms, pipelines and metrics give the numbers that MMClassification 0.25 gave (recorded on OpenCV 4.10 and Pillow 10.4)"
import copy, gzip, json, random
from collections import defaultdict
from pathlib import Path
import cv2, numpy as np, pytest, torch
import clsnb.metrics.multi_label as multi, clsnb.metrics.single_label as single
from clsnb.core.errors import ConfigError
from clsnb.data.dataset import BaseDataset
from clsnb.data.multi_label import MultiLabelDataset
from clsnb.data.pipeline import build_pipeline, build_transform

here = Path(__file__).parent/'data'
images = here/'images'

def tuples(o):
    "JSON has no tuples: they are written {'tuple': [...]}"
    if isinstance(o, list): return [tuples(x) for x in o]
    if isinstance(o, dict): return tuple(tuples(x) for x in o['tuple']) if set(o)=={'tuple'} else {k:tuples(v) for k,v in o.items()}
    return o

def read(name): return json.loads(gzip.decompress((here/name).read_bytes()))
facts = read('transforms.json.gz')
configs = tuples(facts['configs'])
def seed(s): random.seed(s); np.random.seed(s); torch.manual_seed(s)
def fresh(name): return dict(img_prefix=str(images), img_info=dict(filename=name+'.png'))

def opened(name, color_type='color'):
    img = cv2.imread(str(images/f'{name}.png'), dict(color=cv2.IMREAD_COLOR, grayscale=cv2.IMREAD_GRAYSCALE)[color_type])
    return dict(fresh(name), img=img, img_shape=img.shape, ori_shape=img.shape, filename=str(images/f'{name}.png'), ori_filename=name+'.png')

def grouped(cases, key):
    out = defaultdict(list)
    for c in cases: out[key(c)].append(c)
    return out.items()

kind = lambda c: configs[c['cfg']]['type']
@pytest.mark.parametrize('name,cases', [pytest.param(*o, id=o[0]) for o in grouped(facts['cases'], kind)])
def test_transforms(name, cases):
    for c in cases:
        t = build_transform(copy.deepcopy(configs[c['cfg']]))
        r = fresh(c['image']) if name=='LoadImageFromFile' else opened(c['image'], **c['load'])
        if c['seed'] is not None: seed(c['seed'])
        r = t(r)
        x = np.asarray(r['img'])
        assert list(x.shape)==c['shape'] and str(x.dtype)==c['dtype'], (t, x.shape, x.dtype)
        at = np.linspace(0, x.size-1, min(64, x.size)).astype(int)
        tol = 1.01 if x.dtype==np.uint8 else 1e-3
        assert np.abs(x.ravel()[at].astype(float)-c['samples']).max()<=tol, (t, c['image'], c['seed'])
        assert abs(x.mean()-c['mean'])<.3 and abs(x.std()-c['std'])<.3
        for k,v in c['results'].items():
            if k in r: assert (list(r[k]) if isinstance(r[k], tuple) else r[k])==v, (t, k)
        if c['next_random']: assert [random.random(), float(np.random.rand())]==c['next_random'], f'{t} drew other numbers'

@pytest.mark.parametrize('cases', [pytest.param(cs, id=f'config{k}') for k,cs in grouped(facts['pipelines'], lambda c: c['cfg'])])
def test_pipelines(cases):
    for c in cases:
        p,r = build_pipeline(copy.deepcopy(configs[c['cfg']])),fresh(c['image'])
        if c['input']:
            img = opened(c['image'], 'grayscale' if c['input']=='grey image' else 'color')['img']
            if c['input']!='grey image': img = img[:32,:32].copy()
            r = dict(img=img, filename=None, ori_filename=None, ori_shape=img.shape, img_shape=img.shape)
        r['gt_label'] = np.array(3)
        seed(c['seed']); r = p(r)
        x = r['img'].double().numpy()
        assert sorted(r)==c['keys'] and str(r['img'].dtype)==c['dtype'] and list(x.shape)==c['shape']
        at = [(2*j+1)*x.size//64 for j in range(32)]
        assert abs(x.mean()-c['mean'])<5e-3 and abs(x.std()-c['std'])<5e-3
        assert np.abs(x.ravel()[at]-c['samples']).max()<.03

known = read('metrics.json.gz')
inputs = {k:np.array(v, np.float32 if 'scores' in k else np.int64) for k,v in known['inputs'].items()}
def flat(o): return [x for p in o for x in flat(p)] if isinstance(o, (list, tuple)) else np.ravel(np.asarray(o)).tolist()

class Labelled(BaseDataset):
    CLASSES = list('abcdefg')
    def load_annotations(self): return [dict(gt_label=o) for o in inputs['labels']]

class MultiLabelled(MultiLabelDataset):
    CLASSES = list('abcdefg')
    def load_annotations(self): return [dict(gt_label=o) for o in inputs['difficult']]

def measure(f, a):
    a = {k:tuple(v) if isinstance(v, list) and k!='metric' else v for k,v in a.items()}
    if f.endswith('dataset.evaluate'):
        ds,scores = (MultiLabelled,'ml_scores') if f.startswith('multi') else (Labelled,'scores')
        n = a.pop('indices', None)
        options = {k:tuple(v) if isinstance(v, list) else v for k,v in (a.pop('metric_options', None) or {}).items()}
        return ds('', []).evaluate(list(inputs[scores][:n]), metric_options=options or None,
                                   **({} if n is None else dict(indices=list(range(n)))), **a)
    if hasattr(multi, f):
        p,t,k = inputs['ml_scores'],inputs[a.pop('target')],a.pop('column', slice(None))
        return getattr(multi, f)(p[:,k], t[:,k], **a)
    a.pop('pred', None)
    p,t = inputs['scores'],inputs['labels']
    if a.pop('kind', '')=='torch': p,t = torch.from_numpy(p),torch.from_numpy(t)
    return getattr(single, f)(p, t, **a)

@pytest.mark.filterwarnings('ignore:average_performance')
@pytest.mark.parametrize('f,cases', [pytest.param(*o, id=o[0]) for o in grouped(known['cases'], lambda c: c['function'])])
def test_metrics(f, cases):
    for c in cases:
        want = c['out']
        if isinstance(want, dict) and 'error' in want:
            with pytest.raises(dict(TypeError=TypeError, ValueError=ValueError)[want['error']]): measure(f, c['args'])
        elif isinstance(want, dict):
            got = measure(f, c['args'])
            assert set(got)==set(want) and all(np.allclose(flat(got[k]), flat(want[k]), atol=1e-4) for k in want)
        else: assert np.allclose(flat(measure(f, c['args'])), flat(want), atol=1e-4), c['args']

def test_evaluate_refuses():
    with pytest.raises(ConfigError, match="Did you mean 'f1_score'"): Labelled('', []).evaluate(list(inputs['scores']), metric='f1score')
