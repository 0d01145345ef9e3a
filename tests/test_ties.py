"""One rule for scores that are equal, for classes that are absent, and for scores that are not numbers."""
import logging

import numpy as np
import pytest
import torch

from clsnb.core.log import get_logger
from clsnb.data.sets.dataset import BaseDataset
from clsnb.data.sets.multi_label import MultiLabelDataset
from clsnb.metrics.multi_label import (
    average_performance, average_performance_by_key, average_precision, best_thresholds, decision_shares, mAP,
    mAP_by_key, positive_decisions
)
from clsnb.metrics.ranking import label_ranks, predicted_classes, top_scores
from clsnb.metrics.single_label import accuracy, confusion_counts, precision_recall_f1, precision_recall_f1_by_key
from clsnb.runs.results import Results

rng = np.random.default_rng(0)

def scores_with_ties(kind, n=300, c=12):
    "Scores in which many are equal, and labels"
    scores, labels = rng.random((n, c)), rng.integers(0, c, n)
    if kind=='rounded': scores = scores.round(1)
    if kind=='all equal': scores = np.full((n, c), .25)
    if kind=='saturated': scores = np.where(scores>.8, 1., 0.)
    if kind=='bfloat16': scores = torch.from_numpy(scores).softmax(1).bfloat16()
    if kind=='negative zero': scores = np.where(scores>.5, 0., -0.)
    return scores, labels

kinds = ['rounded', 'all equal', 'saturated', 'bfloat16', 'negative zero']

@pytest.mark.parametrize('kind', kinds)
def test_everything_that_ranks_agrees(kind):
    scores, labels = scores_with_ties(kind)
    exact = scores.double().numpy() if isinstance(scores, torch.Tensor) else scores
    order = np.array([sorted(range(12), key=lambda k: (-row[k], k)) for row in exact])
    ranks = np.argmax(order==labels[:, None], 1)
    assert (predicted_classes(scores)==order[:, 0]).all() and (label_ranks(scores, labels).numpy()==ranks).all()
    for k in (1, 3, 5, 7):
        assert (top_scores(scores, k)[1].numpy()==order[:, :k]).all()
        assert accuracy(scores, labels, k, -np.inf).item()==pytest.approx(100*(ranks<k).mean(), abs=1e-3)
    right = (order[:, 0]==labels).mean()
    counts = confusion_counts(scores, labels)
    assert np.trace(counts)==round(300*right) and counts.sum()==300
    support = np.bincount(labels, minlength=12)
    recalls = precision_recall_f1(scores, labels, 'none', thrs=-np.inf)[1]
    assert (recalls*support).sum()/300==pytest.approx(100*right)
    results = Results(exact, labels)
    assert results.accuracy==pytest.approx(right) and results.table().correct.mean()==pytest.approx(right)
    assert results.topk(5)==pytest.approx((ranks<5).mean())

def test_the_reported_case():
    "Two classes with equal bfloat16 probabilities: top-1 was 50, recall 90"
    y = np.arange(100)%10
    s = torch.softmax(20.*(torch.eye(10)[y]+torch.eye(10)[(y+1)%10]), 1).bfloat16().float().numpy()
    assert accuracy(s, y).item()==precision_recall_f1(s, y)[1]==90
    assert top_scores(np.zeros((1, 10), np.float32))[1].item()==0

@pytest.mark.parametrize('c', [2, 5, 6, 17, 1000])
def test_the_number_of_classes_does_not_matter(c):
    "`torch.topk` takes another way for other sizes"
    assert predicted_classes(torch.ones(3, c)).tolist()==[0]*3
    assert label_ranks(torch.ones(c, c), np.arange(c)).tolist()==list(range(c))

@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_types_of_scores(dtype):
    s = torch.tensor([[1, 3, 3], [2, 2, 2]], dtype=dtype)
    assert accuracy(s, [1, 0]).item()==100 and accuracy(s, [2, 1], 2).item()==100

def test_labels_that_are_no_class_are_never_right():
    assert label_ranks(np.eye(3), [0, -1, 3]).tolist()==[0, 3, 3]
    assert accuracy(np.eye(3), np.array([0, -1, 7]), (1, 3))[1].item()==pytest.approx(100/3, abs=1e-4)

def test_nan_is_never_a_class():
    nan = np.nan
    s = np.array([[nan, .2, .8], [nan, nan, nan], [.6, nan, .4], [.1, .2, .7]])
    y = np.array([0, 0, 0, 2])
    assert predicted_classes(s).tolist()==[2, -1, 0, 2] and label_ranks(s, y).tolist()==[3, 3, 0, 0]
    assert accuracy(s, y).item()==accuracy(s, y, 3).item()==50
    assert confusion_counts(s, y).tolist()==[[1, 0, 1], [0, 0, 0], [0, 0, 1]]
    assert precision_recall_f1(s, y, 'none')[1].tolist()==pytest.approx([100/3, 0, 100])
    r = Results(s, y)
    assert r.accuracy==.5 and r.table().predicted.tolist()==['class 2', 'none', 'class 0', 'class 2']
    assert r.per_class().predicted.tolist()==[1, 0, 2]
    t = np.array([1, 1, 0, 0])
    assert average_precision(np.array([nan, .9, .8, nan]), t)==average_precision(np.array([0, .9, .8, 0]), t)

@pytest.mark.parametrize('decimals', [0, 1, 2])
def test_average_precision_does_not_depend_on_the_order_of_samples(decimals):
    from sklearn.metrics import average_precision_score
    scores, target = rng.random((400, 3)).round(decimals), (rng.random((400, 3))>.6).astype(int)
    target[rng.random(target.shape)>.9] = -1
    first = mAP(scores, target)
    for _ in range(5):
        order = rng.permutation(400)
        assert mAP(scores[order], target[order])==pytest.approx(first, abs=1e-9)
    known = target[:, 0]>=0
    assert average_precision(scores[:, 0], target[:, 0])==pytest.approx(
        average_precision_score(target[known, 0], scores[known, 0]))

def test_scores_that_are_all_equal_have_the_share_of_positives():
    for target in ([1, 0, 0, 0], [0, 0, 0, 1]):
        assert average_precision(np.zeros(4), target)==.25

def test_the_k_best_labels_of_each_sample():
    "One rule here, too: the lower class"
    assert positive_decisions(np.ones((2, 4)), k=2).tolist()==[[True, True, False, False]]*2
    assert average_performance(np.ones((2, 4)), np.array([[1, 1, 0, 0]]*2), k=2)[5]==pytest.approx(100, abs=1e-4)

# ---- Classes that are absent

def test_a_perfect_model_where_a_class_is_absent():
    y = np.eye(3)[[0, 1, 0, 1]]
    found = mAP_by_key(y, y) | average_performance_by_key(y, y)
    assert found['mAP']==pytest.approx(200/3) and found['CF1']==pytest.approx(200/3) # as mmcls counts
    for key in ('mAP_present', 'CP_present', 'CR_present', 'CF1_present'):
        assert found[key]==pytest.approx(100, abs=1e-4)
    single = precision_recall_f1_by_key(y, [0, 1, 0, 1])
    assert single['recall']==pytest.approx(200/3) and single['f1_score_present']==100
    by_threshold = precision_recall_f1_by_key(y, [0, 1, 0, 1], thrs=(0., .5))
    assert by_threshold['precision_present_thr_0.50']==100

def test_nothing_is_added_where_all_classes_are_present():
    y = np.eye(3)[[0, 1, 2]]
    assert list(mAP_by_key(y, y))==['mAP'] and len(average_performance_by_key(y, y))==6
    assert list(precision_recall_f1_by_key(y, [0, 1, 2]))==['precision', 'recall', 'f1_score']
    assert list(precision_recall_f1_by_key(y, [0, 1, 1], average_mode='none'))==['precision', 'recall', 'f1_score']

class Lines(logging.Handler):
    def __init__(self):
        super().__init__()
        self.texts = []
    def emit(self, record): self.texts.append(record.getMessage())

@pytest.fixture
def lines():
    handler, log = Lines(), get_logger()
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield handler.texts
    log.removeHandler(handler)
    log.setLevel(level)

class Few(BaseDataset):
    CLASSES = ['cat', 'dog', 'owl', 'newt']
    def load_annotations(self): return [dict(gt_label=o) for o in (0, 1, 1, 0)]

class FewTags(MultiLabelDataset):
    CLASSES = ['cat', 'dog', 'owl']
    def load_annotations(self): return [dict(gt_label=np.array(o)) for o in ([1, 0, -1], [1, 1, 0])]

@pytest.mark.filterwarnings('ignore:.*has no samples')
def test_absent_classes_are_logged_once(lines):
    ds, scores = Few('', []), list(np.eye(4)[[0, 1, 1, 0]])
    for _ in range(3): found = ds.evaluate(scores, ['accuracy', 'f1_score'])
    assert found['f1_score']==50 and found['f1_score_present']==100
    assert len(lines)==1 and '2 classes have no samples here (owl, newt)' in lines[0] and 'as in mmcls' in lines[0]
    FewTags('', []).evaluate(list(np.eye(3)[:2]))
    assert len(lines)==2 and '1 classes have no samples here (owl)' in lines[1]
    Few('', []).evaluate(scores) # an accuracy is no mean over classes
    assert len(lines)==2

@pytest.mark.filterwarnings('ignore:.*has no samples')
def test_nan_scores_are_counted(lines):
    scores = np.eye(4)[[0, 1, 1, 0]]
    scores[2] = np.nan
    assert Few('', []).evaluate(list(scores))['accuracy_top-1']==75
    assert '1 of 4 samples have scores that are not numbers (NaN), sample 2 first' in lines[0]

# ---- A threshold for each class

def test_best_thresholds_are_the_best():
    scores, target = rng.random((200, 4)).round(2), (rng.random((200, 4))>.7).astype(int)
    thresholds, f1 = best_thresholds(scores, target)
    assert decision_shares(scores, target, thresholds)[2]==pytest.approx(f1, abs=1e-6)
    for thr in np.linspace(0, 1, 101):
        assert (decision_shares(scores, target, thr)[2]<=f1+1e-6).all()

def test_best_thresholds_of_a_class_without_positives():
    thresholds, f1 = best_thresholds([[.2, .9], [.8, .1]], [[0, 1], [0, 0]])
    assert thresholds.tolist()==[.5, .5] and f1.tolist()==[0, 1]

def test_a_list_of_thresholds_in_a_config():
    from clsnb.core.errors import ConfigError
    ds = FewTags('', [])
    scores = [np.array([.4, .4, .1]), np.array([.6, .4, .1])]
    low = ds.evaluate(scores, ['CP', 'OR'], dict(thr=[.3, .3, .3]))
    assert low['OR']==pytest.approx(100, abs=1e-4) and ds.evaluate(scores, 'OR', dict(thr=[.3, .5, .3]))['OR']<70
    with pytest.raises(ConfigError, match='thr has 2 thresholds for 3 classes'):
        ds.evaluate(scores, 'CP', dict(thr=[.3, .3]))
    with pytest.raises(ConfigError, match='thr is a number'): ds.evaluate(scores, 'CP', dict(thr='high'))
