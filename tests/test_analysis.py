"What needs old files, a browser, several runs or a clean interpreter; the rest is in nbs/analysis"
import json, subprocess, sys
import numpy as np, pytest, torch
from clsnb.runs.logs import plot_curves, read_log
from clsnb.analysis.report import make_report
from clsnb.runs.folder import Run
from clsnb.runs.results import Results
from clsnb.core.errors import DataError

def write(path, rows):
    path.write_text('\n'.join(map(json.dumps, rows))+'\n')
def train(e, i, **kw):
    return dict(mode='train', epoch=e, iter=i, lr=.1, loss=1., **kw)
def val(e, acc, i=4):
    return {'mode': 'val', 'epoch': e, 'iter': i, 'lr': .1, 'accuracy_top-1': acc}

# ---- Logs

def test_log_of_mmcls(tmp_path):
    "The lines that MMClassification 0.25 writes"
    (tmp_path/'20220101_000000.log.json').write_text(
        '{"env_info": "sys.platform: linux\\nPython: 3.8", "seed": 1, "exp_name": '
        '"resnet18_8xb16_cifar10.py", "mmcls_version": "0.25.0"}\n'
        '{"mode": "train", "epoch": 1, "iter": 100, "lr": 0.1, "memory": 2093, '
        '"data_time": 0.02, "time": 0.11, "loss": 2.1}\n'
        '{"mode": "train", "epoch": 1, "iter": 200, "lr": 0.1, "memory": 2093, '
        '"data_time": 0.01, "time": 0.10, "loss": 1.8}\n'
        '{"mode": "val", "epoch": 1, "iter": 79, "lr": 0.1, "accuracy_top-1": 42.5, '
        '"accuracy_top-5": 91.0}\n'
    )
    df = read_log(tmp_path)
    assert df['at'].tolist() == [.5, 1, 1]
    assert df.attrs['exp_name'] == 'resnet18_8xb16_cifar10.py'
    assert df['accuracy_top-1'].iloc[2] == 42.5
    assert '42.5' in plot_curves(tmp_path).alt

def test_resumed_in_the_middle_of_an_epoch(tmp_path):
    write(
        tmp_path/'1.log.json',
        [
            dict(seed=0), train(1, 2), train(1, 4), val(1, 50), train(2, 2),
            train(2, 4)
        ],
    )
    write(
        tmp_path/'2.log.json', [dict(seed=0), train(2, 4, new=1), val(2, 60)]
    )
    df = read_log(tmp_path)
    assert (
        [(o.epoch, o.iter) for o in df.itertuples() if o.mode == 'train']
        == [(1, 2), (1, 4), (2, 2), (2, 4)]
    )
    assert df['new'].notna().sum() == 1
    assert df['accuracy_top-1'].dropna().tolist() == [50, 60]

def test_a_new_run_in_an_old_folder_starts_afresh(tmp_path):
    write(
        tmp_path/'1.log.json',
        [dict(seed=0)]+[
            train(e, i)
            for e in range(1, 9)
            for i in (1, 2, 3, 4)
        ],
    )
    write(tmp_path/'2.log.json', [dict(seed=0), train(1, 2), train(1, 4)])
    assert len(read_log(tmp_path)) == 2

def test_log_that_begins(tmp_path):
    (tmp_path/'1.log.json').write_text('{"seed": 0}\n{"mode": "tr')
    assert len(read_log(tmp_path)) == 0 and plot_curves(tmp_path).axes
    (tmp_path/'empty').mkdir()
    with pytest.raises(DataError, match='no [*].log.json'):
        read_log(tmp_path/'empty')


# ---- Results

def test_results_from_the_packaged_photographs(tmp_path):
    from clsnb.data.sets.packaged import Digits, Photos
    for data in (Photos('val'), Digits('val')):
        labels = data.get_gt_labels()
        r = Results.from_dataset(list(np.eye(len(data.CLASSES))[labels]), data)
        assert r.accuracy == 1
        assert not len(r.mistakes())
        assert r.baseline == np.bincount(labels).max()/len(labels)
        assert abs(r.accuracy*100-data.evaluate(list(r.scores))['accuracy_top-1']) < 1e-6
        r.save(tmp_path/'r.npz')
        again = Results.load(tmp_path/'r.npz')
        assert again.names == r.names and again.image(3).tobytes() == r.image(3).tobytes()

def test_numbers_agree_with_the_dataset():
    "One set of scores, two ways to judge it"
    from clsnb.data.sets.packaged import Photos
    data = Photos('val')
    scores = np.random.default_rng(0).dirichlet(np.ones(6), len(data)).astype(np.float32)
    r = Results.from_dataset(scores, data)
    m = data.evaluate(list(scores), ['accuracy', 'precision', 'recall', 'f1_score'])
    t = r.per_class()
    for k, v in dict(precision=t.precision, recall=t.recall, f1_score=t.f1).items():
        assert abs(100*v.mean()-m[k]) < 1e-3, k
    assert abs(100*r.accuracy-m['accuracy_top-1']) < 1e-4
    assert abs(100*r.topk(5)-m['accuracy_top-5']) < 1e-4

def test_one_rule_for_ties(tmp_path):
    "Rounded scores have ties: the log, the results and the report give the same accuracy, where the lower class wins"
    from clsnb.data.sets.dataset import BaseDataset
    from clsnb.train.evaluation import evaluate_scores
    rng = np.random.default_rng(0)
    scores = rng.random((500, 10)).round(1).astype(np.float32)
    labels = rng.integers(0, 10, 500)
    class Ten(BaseDataset):
        CLASSES = list('abcdefghij')
        def load_annotations(self): return [dict(gt_label=o) for o in labels]
    data = Ten('', [])
    best = np.argsort(-scores, 1, kind='stable')[:, :5]
    published = 100*(best[:, 0]==labels).mean()
    other = torch.from_numpy(scores).topk(5, 1)[1][:, 0].numpy()
    assert abs(published-100*(other==labels).mean()) > .5 # another rule would be noticed
    logged = evaluate_scores(scores, data, metric=['accuracy', 'recall'])
    r = Results.from_dataset(scores, data)
    assert abs(logged['accuracy_top-1']-published) < 1e-4 and abs(100*r.accuracy-published) < 1e-9
    assert r.measure() == data.evaluate(list(scores))
    assert data.evaluate(list(scores), metric_options=dict(topk=1))['accuracy'] == logged['accuracy_top-1']
    assert abs(100*r.topk(5)-logged['accuracy_top-5']) < 1e-4
    assert abs(100*r.per_class().recall.mean()-logged['recall']) < 1e-9
    assert r.table().correct.mean() == np.trace(r.confusion())/500 == r.accuracy
    assert f'{published:.1f} %' in make_report(tmp_path/'run', r).read_text()

def test_a_new_metric_is_one_registration(tmp_path):
    "Known to evaluation, to results, to the table of classes and to the rule of the best checkpoint"
    from clsnb.data.sets.packaged import Photos
    from clsnb.metrics.registry import METRICS, lower_is_better, register_metric
    @register_metric('miss_rate', better='lower')
    def miss_rate(scores, labels, average_mode='macro'):
        missed = np.array([
            100*np.mean(scores.argmax(1)[labels==k]!=k)
            for k in range(scores.shape[1])
        ])
        return missed.mean() if average_mode=='macro' else missed
    try:
        data = Photos('val')
        scores = np.random.default_rng(0).dirichlet(np.ones(6), len(data)).astype(np.float32)
        r = Results.from_dataset(scores, data)
        got = data.evaluate(list(scores), ['miss_rate', 'recall'])
        assert list(got) == ['recall', 'miss_rate'] and abs(got['recall']+got['miss_rate']-100) < 1e-9
        assert r.measure('miss_rate')['miss_rate'] == got['miss_rate'] and lower_is_better('miss_rate')
        assert np.allclose(r.per_class().miss_rate, 1-r.per_class().recall)
    finally: del METRICS._classes['miss_rate']

def test_results_never_unpickle(tmp_path):
    class Evil:
        def __reduce__(self): return exec, ("raise SystemExit('ran')",)
    np.savez(
        tmp_path/'e.npz',
        scores=np.array([Evil()], object),
        labels=[0],
        classes=['a'],
        names=['b'],
        root='',
    )
    with pytest.raises(DataError, match='not a file written by'):
        Results.load(tmp_path/'e.npz')

# ---- A run's folder

def saved(folder, *names):
    from clsnb.core.checkpoint import save_checkpoint
    for o in names:
        save_checkpoint(torch.nn.Linear(1, 1), folder/f'{o}.pth', meta=dict(epoch=1, iter=1))

@pytest.mark.parametrize('rows,best', [
    ([(9, 70., .9), (10, 80., .8)], 10), # numbers, not letters
    ([(9, 80., .9), (10, 70., .8)], 9), # what was left by an earlier run
    ([(9, 80., .7), (10, 80., .8)], 9), # of equal values the lower loss
    ([(9, 80., .8), (10, 80., .8)], 10), # of equal losses the later
    ([], 10)]) # without a log the later
def test_one_answer_to_which_checkpoint(rows, best, tmp_path):
    "A kill between saving the new best checkpoint and deleting the former one leaves both"
    from clsnb.apis.open_model import find_config_and_weights
    name = 'best_accuracy_top-1_epoch_{}.pth'
    saved(tmp_path, 'epoch_9', 'epoch_10', name[:-4].format(9), name[:-4].format(10))
    if rows:
        write(
            tmp_path/'1.log.json',
            [dict(seed=0), train(1, 1)]+[
                dict(val(e, acc), loss=loss)
                for e, acc, loss in rows
            ],
        )
    run = Run(tmp_path)
    assert run.weights.name == name.format(best)
    assert [o.stem for o in run.checkpoints] == ['epoch_9', 'epoch_10']
    assert (
        run.metrics
        == (
            {} if not rows
            else {
                k: v
                for e, a, l in rows
                if e==best
                for k, v in {'accuracy_top-1': a, 'loss': l}.items()
            }
        )
    )
    for o in (run, tmp_path, str(tmp_path)):
        assert find_config_and_weights(o)[1] == run.weights

def test_best_of_two_metrics_and_without_a_best(tmp_path):
    "Two values of save_best in one folder: that of the config; a loss is better when lower; else the newest checkpoint"
    write(
        tmp_path/'1.log.json',
        [dict(seed=0), train(1, 1)]+[
            {**val(e, 50+e), 'loss': l}
            for e, l in [(2, .5), (3, .9), (4, .7)]
        ],
    )
    saved(tmp_path, 'epoch_4', 'best_loss_epoch_2', 'best_loss_epoch_3', 'best_accuracy_top-1_epoch_4')
    (tmp_path/'c.py').write_text("evaluation = dict(save_best='loss')")
    assert Run(tmp_path).weights.stem == 'best_loss_epoch_2'
    (tmp_path/'c.py').write_text("evaluation = dict(save_best='accuracy_top-1')")
    assert Run(tmp_path).weights.stem == 'best_accuracy_top-1_epoch_4'
    for p in tmp_path.glob('best*'): p.unlink()
    assert Run(tmp_path).weights.stem == 'epoch_4'
    assert Run(tmp_path).metrics == {'accuracy_top-1': 54, 'loss': .7}
    (tmp_path/'epoch_4.pth').write_bytes(b'torn')
    assert Run(tmp_path).weights is None

# ---- Report

@pytest.fixture
def nasty(tmp_path):
    "Names that would break a careless page"
    bad = '</title></style>"><img src=x onerror=alert(1)><script>alert(2)</script>'
    run = tmp_path/'run <i>'
    run.mkdir()
    (run/'cfg.py').write_text('a = "</code></pre><script>alert(3)</script>"\n')
    write(
        run/'1.log.json', [dict(env_info='<script>alert(4)</script>', seed=0), train(1, 1), val(1, 50)]
    )
    r = Results(
        [[.9, .1], [.2, .8], [.3, .7]],
        [0, 0, 1],
        [bad, 'b'],
        [bad, "it's", 'c'],
        images=[np.zeros((8, 8, 3), np.uint8)]*3,
    )
    return make_report(run, r, extra={bad: bad}, name=bad)

def test_report_escapes_everything(nasty, page):
    page.goto(nasty.as_uri())
    assert page.locator('script').count() == 0 and page.locator('img[onerror]').count() == 0
    assert 'alert(1)' in page.locator('h1').inner_text() and page.locator('section').count() >= 7

@pytest.mark.parametrize('width', [360, 1200])
def test_report_fits_and_fetches_nothing(nasty, page, width):
    asked = []
    page.on('request', lambda r: asked.append(r.url) if not r.url.startswith('data:') else None)
    page.set_viewport_size(dict(width=width, height=800))
    page.goto(nasty.as_uri())
    page.evaluate("document.querySelectorAll('img').forEach(o => o.loading = 'eager')")
    page.wait_for_load_state('networkidle')
    assert page.evaluate('document.documentElement.scrollWidth') <= width
    assert asked == [nasty.as_uri()]
    assert page.evaluate("[...document.images].every(o => o.complete && o.naturalWidth > 0 && o.alt)")
    assert '<link' not in (text := nasty.read_text()) and 'url(' not in text

def test_hook_reports_a_run(tmp_path, monkeypatch):
    "A run with the hook in its config leaves a report that says what the log says"
    from clsnb.apis.fit import fit
    fit('lenet5_1xb32_digits', tmp_path/'run', {'runner.max_epochs': 1}, device='cpu')
    r = Results.load(tmp_path/'run/results.npz')
    log = read_log(tmp_path/'run')
    assert abs(100*r.accuracy-log['accuracy_top-1'].dropna().iloc[-1]) < 1e-3
    assert (
        {'curves.png', 'confusion.png', 'mistakes.png', 'predictions.png', 'cams.png'}
        <= {p.name for p in (tmp_path/'run/figures').iterdir()}
    )
    assert 'Left out' not in (tmp_path/'run/report.html').read_text()

def test_report_is_about_the_best_checkpoint(tmp_path):
    """The last epochs spoil the model: report, results, metrics and the model of a run speak of the best epoch, also
    after a resume"""
    from clsnb.apis.fit import fit
    from clsnb.apis.test import evaluate_config
    from clsnb.core.registry import HOOKS
    from clsnb.train.hooks import Hook
    class Spoil(Hook):
        def before_train_epoch(self, runner):
            if runner.epoch<2: return
            for p in runner.model.parameters(): p.data.mul_(.1)
    HOOKS.register(Spoil, force=True)
    options = {
        'runner.max_epochs': 3,
        'evaluation.save_best': 'accuracy_top-1',
        'log_level': 'ERROR',
        'data.workers_per_gpu': 0,
        'custom_hooks': [dict(type='Spoil')],
    }
    for epochs, resume in ((3, None), (4, 'auto')):
        run = fit(
            'lenet5_1xb32_digits',
            tmp_path/'run',
            options | {'runner.max_epochs': epochs},
            resume_from=resume,
            device='cpu',
        )
        values = run.log['accuracy_top-1'].dropna()
        assert values.iloc[-1] < values.max()-5 and run.weights.name == 'best_accuracy_top-1_epoch_2.pth'
        assert run.results.checkpoint == run.weights.name
        assert abs(100*run.results.accuracy-values.max()) < 1e-3
        assert abs(run.metrics['accuracy_top-1']-values.max()) < 1e-3
        page = run.report.read_text()
        assert f'of <code>{run.weights.name}</code>' in page
        assert f'{values.max():.1f} %' in page
        assert 'Left out' not in page
    metrics, scores, _, _ = evaluate_config(run, split='val', device='cpu')
    assert abs(metrics['accuracy_top-1']-values.max()) < 1e-3
    assert np.abs(scores-run.results.scores).max() < 1e-5

# ---- Light imports

def test_analysis_imports_nothing_heavy():
    code = (
        "import sys, clsnb.analysis.report, clsnb.analysis.complexity, clsnb.analysis.lr_curve\n"
        "print([o for o in ('matplotlib', 'pandas', 'seaborn', 'cv2', 'pytorch_grad_cam', 'fvcore', "
        "'sklearn', 'ipywidgets', 'torchvision') if o in sys.modules])"
    )
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.strip() == '[]'
