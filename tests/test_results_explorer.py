"What can be asked of results: which pictures, which classes, which threshold, and the explorer that asks"
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
    rows = ResultRows(r)
    assert np.array_equal(np.sort(rows.select(true=3)), np.flatnonzero(labels==3))
    wrong = rows.sort(rows.select(right=False), 'top losses')
    assert np.array_equal(np.sort(wrong), np.flatnonzero(r.scores.argmax(1)!=labels))
    assert (np.diff(r.scores[wrong, labels[wrong]])>=0).all()
    named = np.flatnonzero(['78' in name for name in r.names])
    assert np.isin(named, rows.select(text='78')).all() # words of classes count, too

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
    assert len(class_clusters(np.random.default_rng(0).poisson(.05, (1000, 1000)))) == 1000

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

def test_a_map_of_many():
    x = np.random.default_rng(0).random((50_000, 256), np.float32)
    assert embedding_map(x).shape == (50_000, 2)

# ---- the explorer, without a browser

@pytest.fixture
def plain():
    from clsnb.widgets.canvas import use_canvas
    use_canvas(False)
    yield
    use_canvas(None)

@pytest.fixture
def canvas():
    from clsnb.widgets.canvas import use_canvas
    use_canvas(True)
    yield
    use_canvas(None)

@pytest.fixture
def pictures(tmp_path, monkeypatch):
    "A folder with the pictures of `some`"
    from PIL import Image
    monkeypatch.chdir(tmp_path)
    for i in range(60):
        (tmp_path/'data'/f'd{i%3}').mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (12, 9), (4*i, 90, 0)).save(tmp_path/'data'/f'd{i%3}/Bild {i}.jpg')
    return str(tmp_path/'data')

def explorer(*args, **kw):
    from clsnb.widgets.results import ResultsExplorer
    return ResultsExplorer(*args, **kw)

def test_every_view_is_drawn(pictures, plain):
    from clsnb.analysis.result_views import result_view_names
    ex = explorer(some(root=pictures), some(seed=0, root=pictures))
    seen = set()
    for view in result_view_names:
        ex.set(view=view)
        assert not ex.errors, view
        seen.add(ex.snapshot().jpeg)
    assert len(seen) == len(result_view_names)
    ex.set(view='thresholds', true=1, threshold=.3)
    assert 'kind 1 from 0.30 on: precision' in ex.alt and not ex.errors
    ex.close()

def test_filters_of_the_explorer(pictures, plain):
    r = some(root=pictures)
    ex = explorer(r)
    ex.pick_cell(1, 2)
    rows = ResultRows(r)
    assert sorted(ex.shown) == rows.select(true=1, predicted=2).tolist() and 'true kind 1, predicted kind 2' in ex.alt
    ex.clear()
    assert len(ex.shown) == 60 and 'no filter' in ex.alt
    ex.set(between=(.4, .6), by='p_true', order='P(true)')
    assert ex.shown.tolist() == rows.sort(rows.select(between=(.4, .6), by='p_true'), 'P(true)').tolist()
    ex.set(answers='wrong', text='d1', between=(0, 1))
    assert sorted(ex.shown) == rows.select(right=False, text='d1').tolist()
    assert 'Bild' in ex.tables.value and 'kind 0' in ex.tables.value and not ex.errors
    ex.set(groups=True)
    ex.clear()
    ex.pick_cell(0, 0)
    assert 'a cell of groups' in ex.alt and 0 < len(ex.shown) <= 60 and not ex.errors
    ex.close()

def test_two_runs(pictures, plain):
    a, b = some(root=pictures), some(seed=0, root=pictures)
    b.scores = np.roll(b.scores, 1, 0)
    b = Results(b.scores, b.labels, b.classes, b.names, pictures)
    ex = explorer(a, b)
    ex.set(change='broken')
    assert sorted(ex.shown) == np.flatnonzero(a.correct & ~b.correct).tolist() and not ex.errors
    ex.set(view='changes')
    assert f'fixed {(~a.correct & b.correct).sum()} and broke' in ex.alt
    ex.close()
    elsewhere = Results(a.scores, a.labels, a.classes, list(map(str, range(60))))
    with pytest.raises(DataError, match='different pictures'): explorer(a, elsewhere)

def test_messages_of_the_canvases(pictures, canvas):
    r = some(root=pictures)
    ex = explorer(r)
    ex.stage.heat._handle_custom_msg(dict(type='click', row=0, column=1), [])
    rows = ResultRows(r)
    assert sorted(ex.shown) == rows.select(true=0, predicted=1).tolist() and ex.stage.grid.count == len(ex.shown)
    ex.clear()
    ex.set(view='scores')
    assert ex.stage.box.children == (ex.stage.curve,)
    ex.stage.curve._handle_custom_msg(dict(type='brush', range=[.3, .5]), [])
    assert sorted(ex.shown) == rows.select(between=(.3, .5)).tolist()
    ex.stage.curve._handle_custom_msg(dict(type='brush', range=[]), [])
    assert len(ex.shown) == 60
    ex.set(view='thresholds')
    ex.stage.curve._handle_custom_msg(dict(type='click', x=.7), [])
    assert ex.threshold == .7 and '0.70 on' in ex.describe(**ex.state)
    ex.set(view='map')
    bits = np.zeros(60, bool)
    bits[[3, 9]] = True
    ex.stage.scatter._handle_custom_msg(dict(type='select', current=0), [np.packbits(bits, bitorder='little').tobytes()])
    assert sorted(ex.shown) == [3, 9] and not ex.errors
    ex.stage.grid._handle_custom_msg(dict(type='key', key='x', current=1), [])
    assert [o.action for o in ex.marks.journal.marks.values()] == ['remove'] and 'remove' in ex._caption(1)
    jpeg, caption = ex._jpeg(0), ex._caption(0)
    assert jpeg[:2] == b'\xff\xd8' and 'kind' in caption and not ex.errors
    ex.close()

@pytest.mark.parametrize('how', ['plain', 'canvas'])
@pytest.mark.parametrize('r', [
    Results(np.zeros((0, 3)), [], list('abc')), Results(np.ones((5, 1)), [0]*5, ['a']),
    Results(np.full((4, 2), np.nan), [0, 1, 0, 1]), Results(np.zeros((0, 3)), np.zeros((0, 3)), list('abc')),
    some(several=True), Results(np.random.default_rng(0).normal(size=(9, 3))*9, [0, 1, 2]*3)],
    ids=['empty', 'one class', 'NaN', 'empty, several', 'several', 'logits'])
def test_odd_results_are_explored(r, how, request, tmp_path, monkeypatch):
    request.getfixturevalue(how)
    monkeypatch.chdir(tmp_path)
    ex = explorer(r)
    for view in ex._ctl['view'].options:
        ex.set(view=view)
        assert not ex.errors, (view, ex.errors)
    ex.set(order='uncertain', answers='wrong')
    ex.clear()
    assert ex.snapshot().jpeg and not ex.errors
    ex.close()

def test_missing_files_do_not_end_it(plain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ex = explorer(some(root=str(tmp_path/'gone')))
    assert ex.snapshot().jpeg and not ex.errors
    ex.cam.start()
    ex.cam.thread.join(20)
    assert 'gone' in ex.cam.status.value or 'model' in ex.cam.status.value
    ex.close()

def test_cam_in_the_background(plain, tmp_path, monkeypatch):
    from clsnb.apis.open_model import init_model
    from clsnb.data.sets.packaged import Photos
    monkeypatch.chdir(tmp_path)
    photos = Photos('val', [dict(type='LoadImageFromFile')])
    r = Results.from_dataset(np.eye(6)[photos.get_gt_labels()], photos)
    ex = explorer(r, model=init_model('resnet18-tiny_1xb16_photos', False), journal='j.csv')
    ex.cam.cls.value = 2
    ex.cam.button.click()
    ex.cam.thread.join(60)
    assert 'gradcam for fish' in ex.cam.status.value and '<img' in ex.cam.picture.value
    before = ex.cam.picture.value
    ex.cam.strength.value = .9
    assert ex.cam.picture.value != before
    ex.cam.layer.value = 'backbone.layr4'
    ex.cam.start()
    ex.cam.thread.join(60)
    assert '⚠' in ex.cam.status.value and len(ex.cam.errors) == 1 and not ex.errors
    ex.close()

def test_thresholds_of_several_labels_are_exported(plain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ex = explorer(some(several=True))
    ex.set(view='thresholds', true=2, threshold=.8)
    ex.set(true=0, threshold=.25)
    table = ex.class_thresholds('t.csv')
    assert table.threshold.tolist() == [.25, .5, .8, .5] and pd.read_csv('t.csv').threshold.tolist() == [.25, .5, .8, .5]
    ex.close()

def test_sources_and_leaks(pictures, plain):
    from ipywidgets.widgets.widget import _instances
    from clsnb.widgets.results import ResultsExplorer
    r = some(root=pictures)
    r.save('r.json')
    n = len(_instances)
    for how in (False, True):
        from clsnb.widgets.canvas import use_canvas
        use_canvas(how)
        for source in (r, 'r.json'):
            ex = explorer(source)
            ex.set(view='scores')
            ex.close()
    assert len(_instances) == n
    assert ResultsExplorer.accepts(r) and ResultsExplorer.accepts('r.json') and not ResultsExplorer.accepts('no.json')
    with pytest.raises(DataError, match='no such file'): explorer('nowhere')

def test_controls_without_effect_are_hidden():
    ex = explorer(some(40, 5))
    def shown(name): return ex._ctl[name].layout.display!='none'
    assert shown('shares') and not shown('threshold') and not shown('map') and shown('order')
    ex.view = 'thresholds'
    assert shown('threshold') and not shown('shares')
    ex.close()

def test_the_large_case(canvas, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    n, c = 50_000, 1000
    rng = np.random.default_rng(0)
    scores, labels = rng.random((n, c), np.float32), rng.integers(0, c, n)
    scores[np.arange(n), labels] += rng.random(n, np.float32)
    r = Results(scores/scores.sum(1, keepdims=True), labels, names=[f'{i%c}/{i}.jpg' for i in range(n)])
    ex = explorer(r)
    for view in ex._img.views: view.shown = True
    for state in (dict(true=3), dict(true=None, answers='wrong'), dict(text='77'), dict(text='', order='top losses'),
                  dict(predicted=9)):
        ex.set(**state)
    assert not ex.errors and (r.scores[ex.shown].argmax(1)==9).all()
    ex.close()
