"""Metrics beyond those of mmcls: equal to sklearn and torchmetrics, also with absent classes and equal scores."""
import itertools, math, sys, types

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics

from clsnb.core.errors import ClsnbError, ConfigError, DataError, DependencyError
from clsnb.data.sets.dataset import BaseDataset
from clsnb.data.sets.multi_label import MultiLabelDataset
from clsnb.metrics.registry import METRICS, compute_metrics, lower_is_better, metric_of, metrics_for, register_metric
from clsnb.metrics.ranking import predicted_classes
from clsnb.runs.results import Results

single = ['balanced_accuracy', 'cohen_kappa', 'mcc']
both = ['auroc', 'average_precision', 'calibration_error', 'brier', 'nll']
lower = ['calibration_error', 'brier', 'nll']

def softmax(logits): return np.exp(logits)/np.exp(logits).sum(1, keepdims=True)

def sample(kind, n=400, c=5, seed=0):
    "Probabilities and labels"
    rng = np.random.default_rng(seed)
    labels = rng.choice(c, n, p=np.arange(1, c+1)/np.arange(1, c+1).sum())
    scores = softmax(rng.normal(size=(n, c)) + 1.5*np.eye(c)[labels])
    if kind=='ties': scores = softmax(rng.integers(0, 3, (n, c)))
    if kind=='absent': labels[labels==1] = 0
    if kind=='float32': scores = scores.astype(np.float32)
    if kind=='saturated': scores = np.eye(c)[scores.argmax(1)]
    return scores, labels

kinds = ['plain', 'ties', 'absent', 'float32', 'saturated']

def measure(scores, labels, name, **options):
    kind = 'multi_label' if np.ndim(labels)==2 else 'single_label'
    return compute_metrics(scores, labels, name, options, kind)

def one(scores, labels, name, **options): return measure(scores, labels, name, **options)[name]

# ---- equal to sklearn ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize('kind', kinds)
def test_agreement_is_that_of_sklearn(kind):
    scores, labels = sample(kind)
    predicted = predicted_classes(scores)
    assert one(scores, labels, 'balanced_accuracy')==pytest.approx(
        np.mean([(predicted[labels==k]==k).mean() for k in np.unique(labels)]))
    assert one(scores, labels, 'mcc')==pytest.approx(sklearn_metrics.matthews_corrcoef(labels, predicted))
    for weights in (None, 'linear', 'quadratic'):
        expected = sklearn_metrics.cohen_kappa_score(labels, predicted, labels=range(5), weights=weights)
        assert one(scores, labels, 'cohen_kappa', weights=weights)==pytest.approx(expected)
    expected = sklearn_metrics.balanced_accuracy_score(labels, predicted, adjusted=True) if kind!='absent' else None
    if expected is not None: assert one(scores, labels, 'balanced_accuracy', adjusted=True)==pytest.approx(expected)

def slow_auroc(truth, score):
    "By asking every pair"
    wins = [(a>b) + (a==b)/2 for a, b in itertools.product(score[truth], score[~truth])]
    return np.mean(wins)

@pytest.mark.parametrize('kind', kinds)
def test_areas_are_those_of_sklearn(kind):
    scores, labels = sample(kind, 150)
    present = np.unique(labels)
    areas = np.array([slow_auroc(labels==k, scores[:, k]) if k in present else 0 for k in range(5)])
    precisions = np.array([
        sklearn_metrics.average_precision_score(labels==k, scores[:, k]) if k in present else 0 for k in range(5)
    ])
    assert one(scores, labels, 'auroc', average='none')==pytest.approx(areas)
    assert one(scores, labels, 'auroc', average=None)==pytest.approx(areas)
    assert one(scores, labels, 'average_precision', average='none')==pytest.approx(precisions)
    found = measure(scores, labels, both[:2])
    assert found['auroc']==pytest.approx(areas.mean())
    assert found['average_precision']==pytest.approx(precisions.mean())
    assert ('auroc_present' in found)==(kind=='absent')==('average_precision_present' in found)
    if kind=='absent': assert found['auroc_present']==pytest.approx(areas[present].mean())
    truth = np.eye(5)[labels]
    for average in ('micro',) if kind=='absent' else ('macro', 'micro', 'weighted'):
        expected = sklearn_metrics.roc_auc_score(truth, scores, average=average)
        assert one(scores, labels, 'auroc', average=average)==pytest.approx(expected)
        expected = sklearn_metrics.average_precision_score(truth, scores, average=average)
        assert one(scores, labels, 'average_precision', average=average)==pytest.approx(expected)

@pytest.mark.parametrize('dtype', ['float64', 'float32'])
def test_two_classes(dtype):
    scores, labels = sample('plain', c=2)
    scores = softmax(8*np.log(scores)).astype(dtype) # nearly saturated
    assert one(scores, labels, 'auroc')==pytest.approx(sklearn_metrics.roc_auc_score(labels, scores[:, 1]), abs=1e-12)
    assert one(scores, labels, 'average_precision', average='binary')==pytest.approx(
        sklearn_metrics.average_precision_score(labels, scores[:, 1]))
    assert one(scores, labels, 'brier')==pytest.approx(sklearn_metrics.brier_score_loss(labels, scores[:, 1]), rel=1e-5)
    assert one(scores, labels, 'brier', scale_by_half=False)==pytest.approx(2*one(scores, labels, 'brier'))

@pytest.mark.parametrize('kind', ['plain', 'ties', 'absent', 'float32'])
def test_probabilities_are_those_of_sklearn(kind):
    scores, labels = sample(kind)
    expected = sklearn_metrics.log_loss(labels, scores.astype(np.float64), labels=range(5))
    assert one(scores, labels, 'nll')==pytest.approx(expected, rel=1e-5)
    expected = sklearn_metrics.brier_score_loss(labels, scores, labels=range(5))
    assert one(scores, labels, 'brier')==pytest.approx(expected, rel=1e-5)

def slow_calibration(confidence, right, n_bins, norm):
    "Bin by bin, with a bin for a confidence of exactly 1"
    gaps, shares = [], []
    edges = torch.linspace(0, 1, n_bins+1).tolist() + [np.inf]
    confidence = confidence.astype(np.float32)
    for low, high in zip(edges, edges[1:]):
        here = (confidence>=low) & (confidence<high)
        if not here.any(): continue
        gaps.append(abs(right[here].mean()-confidence[here].mean()))
        shares.append(here.mean())
    gaps, shares = np.array(gaps), np.array(shares)
    return dict(l1=(gaps*shares).sum(), l2=((gaps**2*shares).sum())**.5, max=gaps.max())[norm]

@pytest.mark.parametrize('norm', ['l1', 'l2', 'max'])
@pytest.mark.parametrize('kind', kinds)
def test_calibration_bin_by_bin(kind, norm):
    scores, labels = sample(kind)
    right = predicted_classes(scores)==labels
    for n_bins in (1, 7, 15):
        found = one(scores, labels, 'calibration_error', n_bins=n_bins, norm=norm)
        assert found==pytest.approx(slow_calibration(scores.max(1), right, n_bins, norm), abs=1e-6)

def test_a_confidence_on_an_edge_is_of_the_upper_bin():
    scores = np.array([[.75, .25], [.625, .375], [1., 0.], [.875, .125]])
    labels = np.array([0, 1, 0, 0]) # bins of .5 to .75, .75 to 1, and 1 alone
    assert one(scores, labels, 'calibration_error', n_bins=4)==pytest.approx(.25*.625 + .5*(1-.8125) + 0)

def several(n=200, c=4, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, 2, (n, c))
    return 1/(1+np.exp(-rng.normal(size=(n, c))-labels)), labels

def test_several_labels():
    scores, labels = several()
    known = [labels[:, k]!=-1 for k in range(4)]
    for name, theirs in (('auroc', sklearn_metrics.roc_auc_score),
                         ('average_precision', sklearn_metrics.average_precision_score)):
        each = np.array([theirs(labels[known[k], k], scores[known[k], k]) for k in range(4)])
        assert one(scores, labels, name, average='none')==pytest.approx(each)
        assert one(scores, labels, name)==pytest.approx(each.mean())
        weights = (labels==1).sum(0)
        assert one(scores, labels, name, average='weighted')==pytest.approx((each*weights).sum()/weights.sum())
        assert one(scores, labels, name, average='micro')==pytest.approx(theirs(labels[labels!=-1], scores[labels!=-1]))
    p, t = scores[labels!=-1], labels[labels!=-1]
    assert one(scores, labels, 'brier')==pytest.approx(((p-t)**2).mean())
    assert one(scores, labels, 'nll')==pytest.approx(sklearn_metrics.log_loss(t, p))
    assert one(scores, labels, 'calibration_error')==pytest.approx(slow_calibration(p, t, 15, 'l1'))
    assert one(scores, labels, 'average_precision')*100==pytest.approx(one(scores, labels, 'mAP'))
    labels[labels[:, 1]==1, 1] = 0
    assert measure(scores, labels, 'auroc').keys()=={'auroc', 'auroc_present'}

# ---- numbers of torchmetrics 1.9 on the sample 'plain', and the package itself where it is installed ---------------

stored = dict(
    plain=dict(
        balanced_accuracy=0.6790813, auroc=0.8934284, average_precision=0.7058114, cohen_kappa=0.548614,
        mcc=0.5539367, calibration_error=0.123979,
    ),
    ties=dict(
        balanced_accuracy=0.1985986, auroc=0.5066934, average_precision=0.2078249, cohen_kappa=-0.0028123,
        mcc=-0.0033064, calibration_error=0.2505955,
    ),
    float32=dict(
        balanced_accuracy=0.6790813, auroc=0.8934284, average_precision=0.7058114, cohen_kappa=0.548614,
        mcc=0.5539367, calibration_error=0.123979,
    ),
)

theirs = dict(
    balanced_accuracy=('MulticlassAccuracy', {}),
    auroc=('MulticlassAUROC', {}),
    average_precision=('MulticlassAveragePrecision', {}),
    cohen_kappa=('MulticlassCohenKappa', {}),
    mcc=('MulticlassMatthewsCorrCoef', {}),
    calibration_error=('MulticlassCalibrationError', {}),
)

@pytest.mark.parametrize('kind', ['plain', 'ties', 'float32'])
@pytest.mark.parametrize('name', theirs)
def test_numbers_of_torchmetrics(name, kind):
    assert one(*sample(kind), name)==pytest.approx(stored[kind][name], abs=2e-6)

@pytest.mark.parametrize('kind', ['plain', 'ties', 'float32'])
def test_torchmetrics_itself(kind):
    package = pytest.importorskip('torchmetrics')
    scores, labels = sample(kind)
    for name, (cls, options) in theirs.items():
        expected = getattr(package.classification, cls)(5, **options)(torch.tensor(scores), torch.tensor(labels)).item()
        assert one(scores, labels, name)==pytest.approx(expected, abs=2e-6)
        assert one(scores, labels, f'torchmetrics:{cls}')==pytest.approx(expected, abs=2e-6)

# ---- little or broken data -----------------------------------------------------------------------------------------

def test_a_single_sample():
    scores, labels = np.array([[.7, .2, .1]]), np.array([0])
    found = measure(scores, labels, single+both)
    assert math.isnan(found.pop('auroc')) and math.isnan(found.pop('cohen_kappa'))
    expected = dict(balanced_accuracy=1, mcc=0, average_precision=1/3, average_precision_present=1,
                    calibration_error=.3, brier=.09+.04+.01, nll=-math.log(.7))
    assert found==pytest.approx(expected)

def test_one_class_in_total():
    found = measure(np.ones((4, 1)), np.zeros(4, int), single+both)
    assert math.isnan(found.pop('auroc')) and math.isnan(found.pop('cohen_kappa'))
    expected = dict(balanced_accuracy=1, mcc=0, average_precision=1, calibration_error=0, brier=0, nll=0)
    assert found==pytest.approx(expected)

def test_no_samples():
    found = measure(np.zeros((0, 3)), np.zeros(0, int), single+both)
    assert list(found)==[o for o in metrics_for() if o in single+both] and all(map(math.isnan, found.values()))
    found = measure(np.zeros((0, 3)), np.zeros((0, 3), int), both, average='micro')
    assert all(map(math.isnan, found.values()))

def test_nan_counts_as_wrong_or_gives_nan():
    scores, labels = sample('plain')
    right = predicted_classes(scores)==labels
    hit = np.flatnonzero(right)[:40]
    broken = scores.copy()
    broken[hit] = np.nan
    answers = predicted_classes(scores).copy()
    answers[hit] = -1
    assert one(broken, labels, 'mcc')==pytest.approx(sklearn_metrics.matthews_corrcoef(labels, answers))
    assert one(broken, labels, 'cohen_kappa')==pytest.approx(sklearn_metrics.cohen_kappa_score(labels, answers))
    assert one(broken, labels, 'cohen_kappa', weights='linear')<one(scores, labels, 'cohen_kappa', weights='linear')
    recalls = [(answers[labels==k]==k).mean() for k in range(5)]
    assert one(broken, labels, 'balanced_accuracy')==pytest.approx(np.mean(recalls))
    lowest = np.where(np.isnan(broken), -1, broken)
    for name in ('auroc', 'average_precision'):
        assert one(broken, labels, name)==pytest.approx(one(lowest, labels, name))
    assert all(math.isnan(one(broken, labels, name)) for name in lower)
    everything = np.full((4, 3), np.nan)
    assert all(map(math.isnan, measure(everything, np.arange(4)%3, lower).values()))

@pytest.mark.parametrize('make', [torch.as_tensor, lambda o: torch.as_tensor(o).bfloat16(), np.float16])
def test_tensors_and_half_precision(make):
    scores, labels = sample('plain')
    for name in single+both:
        found = one(make(scores), labels, name)
        assert found==pytest.approx(one(scores, labels, name), abs=2e-2)

@pytest.mark.parametrize('scores, labels, kind, message', [
    (np.ones((3, 2))/2, [0, 1, 2], 'single_label', 'labels run from 0 to 2, but the scores have 2 classes'),
    (np.ones((3, 2))/2, [0, -1, 1], 'single_label', 'labels run from -1 to 1'),
    (np.ones((3, 2))/2, [0, 1], 'single_label', r'not \(3, 2\) and \(2,\)'),
    (np.ones((3, 2))/2, np.ones((3, 3)), 'multi_label', r'not \(3, 2\) and \(3, 3\)'),
    (np.ones(3), [0, 1, 1], 'single_label', r'not \(3,\) and \(3,\)'),
])
def test_labels_that_do_not_fit(scores, labels, kind, message):
    with pytest.raises(DataError, match=message): compute_metrics(scores, np.array(labels), 'auroc', kind=kind)

@pytest.mark.parametrize('name', lower)
def test_what_needs_probabilities_says_so(name):
    scores, labels = sample('plain')
    with pytest.raises(ConfigError, match=f"{name!r} needs probabilities, and these scores do not sum to one"):
        one(3*scores, labels, name)
    scores, labels = several()
    with pytest.raises(ConfigError, match=f"{name!r} needs probabilities, and some of these scores are not in 0..1"):
        one(3*scores, labels, name)

# ---- names and options ---------------------------------------------------------------------------------------------

def test_unknown_names_list_the_nearest():
    scores, labels = sample('plain')
    for wrong, near in (('auc', 'auroc'), ('AUROC', 'auroc'), ('kappa', 'cohen_kappa'), ('brier_score', 'brier'),
                        ('balanced_acc', 'balanced_accuracy'), ('calibration', 'calibration_error'),
                        ('avg_precision', 'average_precision')):
        with pytest.raises(ConfigError, match=f"metric '{wrong}' is not supported here. Did you mean .*'{near}'"):
            one(scores, labels, wrong)
    with pytest.raises(ConfigError, match="'mAP' is not supported here: it needs several labels for each sample"):
        one(scores, labels, 'mAP')
    with pytest.raises(ConfigError, match="'mcc' is not supported here: it needs one label for each sample"):
        one(*several(), 'mcc')

@pytest.mark.parametrize('name, options, message', [
    ('accuracy', dict(n_bins=5), "'n_bins', which is an option of calibration_error, not of accuracy"),
    ('auroc', dict(average_mode='none'), "'average_mode'.*not of auroc; set 'average'"),
    ('auroc', dict(weights='linear'), "'weights', which is an option of cohen_kappa, not of auroc"),
    ('auroc', dict(averag='macro'), "metric_options has no 'averag'. Did you mean .*'average'"),
    ('auroc', dict(average='mean'), "average is one of 'macro', .*, not 'mean'"),
    ('auroc', dict(average='binary'), "average='binary' needs two classes, and there are 5"),
    ('cohen_kappa', dict(weights='cubic'), "weights is None, 'linear' or 'quadratic', not 'cubic'"),
    ('calibration_error', dict(n_bins=0), "n_bins is a whole number from 1 on, not 0"),
    ('calibration_error', dict(n_bins=1.5), "n_bins is a whole number"),
    ('calibration_error', dict(norm='l3'), "norm is one of 'l1', 'l2', 'max', not 'l3'"),
    ('brier', dict(scale_by_half='no'), "scale_by_half is True, False or 'auto'"),
])
def test_options_that_do_not_apply(name, options, message):
    with pytest.raises(ConfigError, match=message): one(*sample('plain'), name, **options)

def test_options_of_the_contract_stand_beside_any_metric():
    found = measure(*sample('plain'), ['auroc', 'f1_score'], topk=(1, 2), thrs=.5, average_mode='none')
    assert np.shape(found['f1_score'])==(5,) and np.shape(found['auroc'])==()

def test_which_value_is_better():
    for name in single+both:
        assert lower_is_better(name)==(name in lower), name
        assert lower_is_better(f'{name}_present')==(name in lower)
    assert lower_is_better('loss')

def test_the_order_of_the_metrics_is_that_of_the_registry():
    found = measure(*sample('plain'), ['nll', 'auroc', 'cohen_kappa', 'f1_score', 'accuracy'])
    assert list(found)==['accuracy_top-1', 'accuracy_top-5', 'f1_score', 'cohen_kappa', 'auroc', 'nll']

def test_a_metric_of_your_own_replaces_ours():
    ours = METRICS.get('mcc')
    try:
        register_metric('mcc')(lambda scores, labels: 7)
        assert one(*sample('plain'), 'mcc')==7
    finally: METRICS.register(ours, 'mcc')

# ---- in data sets and results --------------------------------------------------------------------------------------

def dataset_of(labels, c, multi=False):
    class Labels(MultiLabelDataset if multi else BaseDataset):
        CLASSES = [f'c{k}' for k in range(c)]
        def load_annotations(self): return [dict(gt_label=o) for o in labels]
    return Labels('', [])

def test_data_sets_and_results():
    scores, labels = sample('absent')
    with pytest.warns(UserWarning, match='no samples'): data = dataset_of(labels, 5)
    found = data.evaluate(list(scores), metric=single+both, metric_options=dict(n_bins=10))
    assert found==measure(scores, labels, single+both, n_bins=10)
    assert Results(scores, labels).measure(single+both)==pytest.approx(measure(scores, labels, single+both), rel=1e-4)
    scores, labels = several()
    data = dataset_of(labels, 4, True)
    assert data.evaluate(list(scores), metric=both)==measure(scores, labels, both)
    assert Results(scores, labels).measure(both)==pytest.approx(measure(scores, labels, both), rel=1e-4)
    with pytest.raises(DataError): data.evaluate(list(scores[:, :3]), metric='auroc')

# ---- torchmetrics by name, on a package of the same shape ----------------------------------------------------------

class _Share(torch.nn.Module):
    "The share of samples that score above a limit"
    higher_is_better = False
    def __init__(self, num_classes, limit=.5, average='macro', **kwargs):
        super().__init__()
        assert num_classes==5
        self.limit, self.average, self.above, self.n = limit, average, 0, 0
    def update(self, scores, labels):
        self.above = self.above + (scores>self.limit).float().sum(0)
        self.n += len(scores)
    def compute(self):
        if self.average=='curve': return self.above, self.above
        if self.average=='fail': raise RuntimeError('two\nlines')
        share = self.above/self.n
        return share.mean() if self.average=='macro' else share

@pytest.fixture
def package(monkeypatch):
    from clsnb.metrics.torchmetrics import _one_metric
    fake = types.ModuleType('torchmetrics')
    fake.Metric = torch.nn.Module
    fake.classification = types.ModuleType('torchmetrics.classification')
    fake.classification.MulticlassShare = type('MulticlassShare', (_Share,), {})
    fake.classification.MultilabelShare = type('MultilabelShare', (_Share,), {})
    monkeypatch.setitem(sys.modules, 'torchmetrics', fake)
    _one_metric.cache_clear()
    yield fake
    _one_metric.cache_clear()

def test_torchmetrics_by_name(package):
    scores, labels = sample('plain')
    name = 'torchmetrics:MulticlassShare'
    found = measure(scores, labels, ['accuracy', name], limit=.3, topk=1)
    assert found[name]==pytest.approx((scores>.3).mean()) and list(found)==['accuracy', name]
    assert one(scores, labels, name, average='none')==pytest.approx((scores>.5).mean(0))
    assert lower_is_better(name) and metric_of(name).name==name
    assert dataset_of(labels, 5).evaluate(list(scores), metric=name)[name]==pytest.approx((scores>.5).mean())
    assert Results(scores, labels).measure(name)[name]==pytest.approx((scores>.5).mean())

@pytest.mark.parametrize('name, options, message', [
    ('MulticlassShar', {}, "torchmetrics has no such class. Did you mean 'torchmetrics:MulticlassShare'"),
    ('MultilabelShare', {}, 'needs several labels for each sample'),
    ('MulticlassShare', dict(limits=1), "metric_options has no 'limits'. Did you mean 'limit'"),
    ('MulticlassShare', dict(average='curve'), 'gives tuple, such as a curve'),
    ('MulticlassShare', dict(average='fail'), 'MulticlassShare: RuntimeError: two lines'),
])
def test_mistakes_with_torchmetrics(package, name, options, message):
    with pytest.raises(ConfigError) as e: one(*sample('plain'), f'torchmetrics:{name}', **options)
    assert message in str(e.value)

def test_without_torchmetrics(monkeypatch):
    monkeypatch.setitem(sys.modules, 'torchmetrics', None)
    from clsnb.metrics.torchmetrics import _one_metric
    _one_metric.cache_clear()
    with pytest.raises(DependencyError, match='torchmetrics.*pip install torchmetrics') as e:
        one(*sample('plain'), 'torchmetrics:MulticlassF1Score')
    assert isinstance(e.value, ClsnbError) and '\n' not in str(e.value)
    assert metric_of('torchmetrics:MulticlassF1Score') is None and not lower_is_better('torchmetrics:MulticlassF1Score')
