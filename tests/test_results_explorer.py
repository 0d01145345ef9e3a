"What can be asked of results: which pictures, which classes, which threshold, and the explorer that asks"
import time
import numpy as np, pandas as pd, pytest
from clsnb.analysis.class_clusters import class_clusters, cluster_counts, cluster_names, cluster_table
from clsnb.analysis.embedding import embedding_map, score_features
from clsnb.analysis.result_rows import ResultRows, row_orders, row_table, row_words, score_histogram, true_losses
from clsnb.analysis.thresholds import best_threshold, class_threshold_table, scored_decisions, threshold_table
from clsnb.core.errors import DataError
from clsnb.runs.results import Results

def some(n=60, c=4, seed=0, several=False, **kw):
    rng = np.random.default_rng(seed)
    if several: scores, labels = rng.random((n, c)), rng.integers(-1, 2, (n, c))
    else:
        labels = rng.integers(0, c, n)
        scores = rng.dirichlet(np.ones(c), n)
        scores[np.arange(n), labels] += .4
        scores /= scores.sum(1, keepdims=True)
    classes = [f'kind {k}' for k in range(c)]
    return Results(scores.astype(np.float32), labels, classes, [f'd{i%3}/Bild {i}.jpg' for i in range(n)], **kw)

# ---- rows

def test_rows_have_the_numbers_of_a_slow_computation():
    r = some()
    rows = ResultRows(r)
    for i in range(len(r)):
        p = r.scores[i].astype(float)
        assert rows.columns['p_true'][i] == r.scores[i, r.labels[i]] and rows.columns['p_pred'][i] == r.scores[i].max()
        assert abs(rows.columns['loss'][i]+np.log(p[r.labels[i]])) < 1e-5
        best = sorted(p)[::-1]
        assert abs(rows.column('margin')[i]-(best[0]-best[1])) < 1e-6
    table = row_table(rows)
    assert list(table) == ['index', 'path', 'true', 'predicted', 'p_true', 'p_pred', 'loss', 'right']
    assert (table.right == (table.true==table.predicted)).all()

def test_logits_have_the_loss_of_torch():
    import torch
    scores, labels = np.random.default_rng(1).normal(size=(20, 5)).astype(np.float32)*9, np.arange(20)%5
    want = torch.nn.functional.cross_entropy(torch.tensor(scores), torch.tensor(labels), reduction='none')
    assert np.allclose(true_losses(Results(scores, labels)), want, atol=1e-4)

@pytest.mark.parametrize('chosen, want', [
    (dict(true='kind 1'), lambda t: t.true=='kind 1'), (dict(predicted=2), lambda t: t.predicted=='kind 2'),
    (dict(true=1, predicted='kind 2'), lambda t: (t.true=='kind 1') & (t.predicted=='kind 2')),
    (dict(right=False), lambda t: ~t.right), (dict(right=True, between=(.5, .7)), lambda t: t.right & t.p_pred.between(.5, .7)),
    (dict(between=(1, 9), by='loss'), lambda t: t.loss.between(1, 9)), (dict(text='D1'), lambda t: t.path.str.contains('d1')),
    (dict(text='bild 7'), lambda t: t.path.str.contains('Bild') & (t.path+t.true+t.predicted).str.contains('7')),
    (dict(text='no such'), lambda t: t.path==''), ({}, lambda t: t.path!='')])
def test_select(chosen, want):
    rows = ResultRows(some())
    assert rows.select(**chosen).tolist() == np.flatnonzero(want(row_table(rows))).tolist()

@pytest.mark.parametrize('order', row_orders)
@pytest.mark.parametrize('several', [False, True])
def test_orders(order, several):
    rows = ResultRows(some(several=several))
    chosen = rows.select(right=False) if order=='confident mistakes' else rows.select()
    got = rows.sort(chosen, order)
    assert sorted(got) == sorted(chosen)
    name, largest_first = row_orders[order]
    values = rows.column(name)[got]
    assert (np.diff(values.astype(float))*(-1 if largest_first else 1) >= -1e-9).all()
    back = rows.sort(chosen, order, reverse=True)
    assert (np.diff(rows.column(name)[back].astype(float))*(1 if largest_first else -1) >= -1e-9).all()

def test_confident_mistakes_come_before_all_right_answers():
    rows = ResultRows(some())
    got = rows.right[rows.sort(rows.select(), 'confident mistakes')]
    assert got.tolist() == sorted(got.tolist())

def test_what_is_no_number_comes_last():
    r = some()
    r.scores[3] = np.nan
    r.scores[5, r.labels[5]] = np.nan
    rows = ResultRows(r)
    for order in ('top losses', 'loss', 'P(true)'): assert set(rows.sort(rows.select(), order)[-2:]) == {3, 5}, order
    assert rows.texts[1][3] == 'none' and 'nan' in row_words(rows, 3)
    edges, right, wrong = score_histogram(rows)
    assert right.sum()+wrong.sum() == len(r)-1 and np.isfinite(edges).all()
    assert 3 not in rows.select(between=(0, 1))

@pytest.mark.parametrize('r', [
    Results(np.zeros((0, 3)), [], list('abc')), Results(np.ones((5, 1)), [0]*5, ['a']), Results(np.zeros((0, 0)), [], []),
    Results(np.full((4, 2), np.nan), [0, 1, 0, 1]), Results(np.zeros((0, 3)), np.zeros((0, 3)), list('abc')),
    Results(np.ones((3, 1)), np.ones((3, 1)), ['a']), Results(np.full((3, 2), -np.inf), [0, 1, 1])],
    ids=['empty', 'one class', 'no class', 'NaN', 'empty, several', 'one of several', 'minus infinity'])
def test_odd_results_break_nothing(r):
    rows = ResultRows(r)
    for order in row_orders: assert len(rows.sort(rows.select(), order)) == len(r)
    assert len(row_table(rows)) == len(r) and repr(rows)
    for by in ('p_pred', 'p_true', 'loss', 'margin'):
        edges, right, wrong = score_histogram(rows, by)
        assert len(edges) == len(right)+1 and np.isfinite(edges).all() and (np.diff(edges)>0).all()
    assert len(threshold_table(r)) == 101
    best_threshold(r)
    if not r.multi_label:
        clusters = class_clusters(r.confusion())
        assert len(clusters) == len(r.classes) and len(cluster_names(clusters, r.classes)) == len(set(clusters))
    points = embedding_map(score_features(r))
    assert points.shape == (len(r), 2)
    for i in range(len(r)): row_words(rows, i)

def test_mistakes_name_what_is_known():
    rows = ResultRows(some())
    for call, words in ((lambda: rows.select(true='kind 9'), "'kind 9'.*Did you mean"),
                        (lambda: rows.select(predicted=9), '0 to 3'),
                        (lambda: rows.sort([0], 'los'), "'loss'"), (lambda: rows.column('p_treu'), "'p_true'"),
                        (lambda: ResultRows(7), 'not from int'), (lambda: embedding_map(np.zeros(3)), 'shape'),
                        (lambda: class_threshold_table(some()), 'several labels'),
                        (lambda: class_threshold_table(some(several=True), {'kind': .3}), 'Did you mean')):
        with pytest.raises(DataError, match=words) as e: call()
        assert '\n' not in str(e.value)

def test_fifty_thousand_rows_of_a_thousand_classes():
    n, c = 50_000, 1000
    rng = np.random.default_rng(0)
    scores, labels = rng.random((n, c), np.float32), rng.integers(0, c, n)
    scores[np.arange(n), labels] *= 9
    scores /= scores.sum(1, keepdims=True)
    r = Results(scores, labels, names=[f'{i%c}/{i}.jpg' for i in range(n)])
    start = time.perf_counter()
    rows = ResultRows(r)
    rows.sort(rows.select(), 'top losses')
    r.confusion()
    first = time.perf_counter()-start
    rows.select(text='77')
    start = time.perf_counter()
    rows.sort(rows.select(true=3), 'uncertain')
    rows.sort(rows.select(right=False, between=(.001, .009)), 'top losses')
    rows.select(text='78')
    assert first<3 and time.perf_counter()-start<3, (first, time.perf_counter()-start)

# ---- classes

def test_clusters_find_what_is_confused():
    rng = np.random.default_rng(0)
    kinds = np.repeat(np.arange(20), 10)
    order = rng.permutation(200)
    counts = rng.poisson(np.where(kinds[:, None]==kinds, .5, .002)+10*np.eye(200))[np.ix_(order, order)]
    clusters = class_clusters(counts, 20)
    same = clusters[:, None]==clusters
    true = kinds[order][:, None]==kinds[order]
    assert (same==true).mean()>.99
    assert cluster_counts(counts, clusters).sum() == counts.sum()
    assert (np.diff(np.bincount(clusters))<=0).all()

def test_cluster_table():
    table = cluster_table(some(300, 9))
    assert len(table) == 9 and table.pictures.sum() == 300 and set(table.cluster) <= {0, 1, 2}
    start = time.perf_counter()
    class_clusters(np.random.default_rng(0).poisson(.05, (1000, 1000)))
    assert time.perf_counter()-start<1.5

# ---- thresholds

@pytest.mark.parametrize('several, cls', [(False, None), (False, 'kind 2'), (True, None), (True, 1)])
def test_thresholds_count_right(several, cls):
    r = some(200, several=several)
    table = threshold_table(r, cls, [0, .2, .5, .73, 1.])
    scores, true, n = scored_decisions(r, cls)
    for o in table.itertuples():
        kept = scores >= np.float32(o.threshold)
        assert o.count == kept.sum() and abs(o.recall-(kept & true).sum()/n) < 1e-9
        if kept.any(): assert abs(o.precision-(kept & true).sum()/kept.sum()) < 1e-9
        else: assert np.isnan(o.precision)

def test_thresholds_agree_with_sklearn():
    from sklearn.metrics import f1_score
    r = some(300, several=True)
    k = 2
    known = r.labels[:, k]!=-1
    for t in (.3, .6):
        got = threshold_table(r, k, [t]).f1[0]
        assert abs(got-f1_score(r.labels[known, k]==1, r.scores[known, k]>=t)) < 1e-9

def test_best_threshold():
    r = some(500)
    table = threshold_table(r)
    t = best_threshold(r, precision=.9)
    assert table.precision[table.threshold==t].iloc[0]>=.9 and (table.precision[table.threshold<t]<.9).all()
    assert np.isnan(best_threshold(r, precision=2.))

@pytest.mark.parametrize('ending', ['csv', 'json'])
def test_class_thresholds_are_exported(tmp_path, ending):
    r, out = some(90, several=True), tmp_path/f't.{ending}'
    table = class_threshold_table(r, {'kind 1': .8, 3: .1}, out)
    back = pd.read_csv(out) if ending=='csv' else pd.read_json(out)
    assert back['class'].tolist() == r.classes and back.threshold.tolist() == [.5, .8, .5, .1]
    assert r.measure('CF1', thr=back.threshold.tolist())
    with pytest.raises(Exception, match='.csv'): class_threshold_table(r, out=tmp_path/'t.xlsx')
    assert table.loc['kind 3'].recall >= table.loc['kind 1'].recall

# ---- map

def test_maps_are_the_same_again_and_keep_the_generator():
    import torch
    x = np.random.default_rng(0).normal(size=(50, 20))
    torch.manual_seed(3)
    want = torch.rand(1)
    torch.manual_seed(3)
    a, b = embedding_map(x), embedding_map(x, seed=5)
    assert torch.rand(1)==want
    assert np.allclose(a, embedding_map(x)) and np.allclose(a, b, atol=.02*np.abs(a).max()) and a.dtype==np.float32
    assert np.allclose(embedding_map(x[:30], 'tsne'), embedding_map(x[:30], 'tsne'))

def test_umap_where_it_is_missing():
    try: import umap # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match='pip install umap-learn'): embedding_map(np.eye(5), 'umap')

def test_a_map_of_many_is_quick():
    x = np.random.default_rng(0).random((50_000, 256), np.float32)
    start = time.perf_counter()
    embedding_map(x)
    assert time.perf_counter()-start<4
