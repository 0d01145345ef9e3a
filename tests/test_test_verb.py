"Testing a checkpoint: every output, every split, and the same number from every tool"
import json, os, pickle, shutil
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
from PIL import Image
import clsnb
from clsnb.apis.eval_metric import analyze_results, eval_metric
from clsnb.apis.fit import fit
from clsnb.apis.loaders import loader_args
from clsnb.apis.open_model import init_model
from clsnb.apis.predict import predict, score_columns
from clsnb.apis.test import MetricValues, dataset_of_split, evaluate_config, multi_gpu_test, single_gpu_test
from clsnb.config.config import Config
from clsnb.core.errors import ClsnbError, ConfigError
from clsnb.data.feed.loader import build_dataloader
from clsnb.data.sets.wrappers import build_dataset
from clsnb.metrics.registry import compute_metrics

tiny = 'resnet18-tiny_1xb16_photos'
here = {'data.workers_per_gpu': 0}

def line_of(error):
    text = str(error.value)
    assert '\n' not in text and 10<len(text)<500, text
    return text

@pytest.fixture(scope='module')
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp('photos')/'work'
    return fit(tiny, folder, {**here, 'runner.max_epochs': 2, 'log_level': 'ERROR'}, device='cpu')

@pytest.fixture(scope='module')
def out(run, tmp_path_factory):
    "Files of one test, in every format"
    folder = tmp_path_factory.mktemp('out')
    for ending in ('json', 'yml', 'pkl', 'csv', 'npz'):
        evaluate_config(run, device='cpu', options=here, out=str(folder/f'r.{ending}'))
    return folder

def predicted_scores(model, files):
    table = predict(model, files, scores=True, progress=False)
    return table[score_columns(model.CLASSES, ())].to_numpy(np.float32)

def multi_label_run(folder):
    rng = np.random.default_rng(0)
    rows = []
    for i in range(16):
        label = rng.integers(0, 2, 3)
        picture = np.clip(rng.normal(90, 20, (40, 40, 3))+60*label, 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(folder/f'{i}.png')
        rows.append([f'{i}.png', *label])
    pd.DataFrame(rows, columns=['path', 'red', 'green', 'blue']).to_csv(folder/'labels.csv', index=False)
    data = dict(type='CSVDataset', data_prefix=str(folder), ann_file=str(folder/'labels.csv'), label_col=['red', 'green', 'blue'])
    cfg = Config.fromfile(tiny)
    for split in ('train', 'val', 'test'): cfg.data[split] = dict(data, pipeline=cfg.data[split].pipeline)
    cfg.model.head = dict(type='MultiLabelLinearClsHead', num_classes=3, in_channels=128, loss=dict(type='AsymmetricLoss'))
    cfg.model.pop('train_cfg', None)
    cfg.evaluation = dict(interval=1, metric=['mAP', 'CF1'], metric_options=dict(thr=.4))
    return fit(cfg, folder/'work', {**here, 'runner.max_epochs': 1, 'log_level': 'ERROR'}, device='cpu')

# ---- The same number everywhere

def test_all_tools_give_the_number_of_the_log(run, out):
    logged = run.metrics
    tested = evaluate_config(run, device='cpu', options=here)
    names = [o for o in logged if o in tested.metrics]
    assert len(names)==3 and {o: round(tested.metrics[o], 5) for o in names}=={o: logged[o] for o in names} # its digits
    for path in out.iterdir():
        assert eval_metric(tiny, path)==tested.metrics, path
    model, ds = init_model(run, device='cpu'), tested.dataset
    files = [os.path.join(ds.data_infos[i]['img_prefix'], ds.data_infos[i]['img_info']['filename']) for i in range(len(ds))]
    predicted = predicted_scores(model, files)
    assert np.array_equal(predicted, tested.scores)
    assert compute_metrics(predicted, ds.get_gt_labels(), 'accuracy')['accuracy_top-1']==tested.metrics['accuracy_top-1']
    assert run.results.measure('accuracy')['accuracy_top-1']==tested.metrics['accuracy_top-1'] # what the report shows
    assert f'{run.results.accuracy*100:.1f}' in run.report.read_text()

def test_all_tools_agree_on_several_labels(tmp_path):
    run = multi_label_run(tmp_path)
    tested = evaluate_config(run, device='cpu', options=here, out=str(tmp_path/'r.json'))
    logged = {k: run.metrics[k] for k in tested.metrics}
    assert {k: round(v, 5) for k, v in tested.metrics.items()}==logged and 'CF1' in logged
    for ending in ('pkl', 'csv', 'yml', 'npz'):
        tested.results.save(tmp_path/f'r.{ending}')
    for ending in ('json', 'pkl', 'csv', 'yml', 'npz'):
        assert eval_metric(run, tmp_path/f'r.{ending}')==tested.metrics, ending
    assert run.results.measure('mAP')['mAP']==tested.metrics['mAP']
    predicted = predicted_scores(run.model(), [str(tmp_path/o) for o in tested.results.names])
    assert np.array_equal(predicted, tested.scores)
    assert compute_metrics(predicted, run.results.labels, 'mAP', kind='multi_label')['mAP']==tested.metrics['mAP']
    typical = analyze_results(run, tmp_path/'r.json', str(tmp_path/'typical'), topk=3)
    assert len(typical.success)<=3 and (tmp_path/'typical/fail/fail.json').exists()
    files = [*(tmp_path/'work').glob('*.json')]
    evaluate_config(run, device='cpu', options=here, show_dir=str(tmp_path/'painted'))
    assert len(list((tmp_path/'painted').glob('*.png')))==16 and files==[*(tmp_path/'work').glob('*.json')]

def test_eval_metric_has_any_metric_and_option(run, out):
    cases = [(['precision', 'recall'], {}), ('accuracy', dict(topk=(1, 2, 3))), (['f1_score'], dict(average_mode='none')),
             ('accuracy', dict(topk=1, thrs=(0., .3))), (['support'], dict(average_mode=None))]
    for metrics, options in cases:
        tested = evaluate_config(run, device='cpu', options=here, metrics=metrics, metric_options=options).metrics
        assert eval_metric(tiny, out/'r.pkl', metrics, options)==tested
    assert eval_metric(tiny, out/'r.pkl', options={'evaluation.metric': 'recall'}).keys()=={'recall', 'loss'}
    assert eval_metric(run, run)==evaluate_config(run, device='cpu', options=here).metrics # a work folder is both

# ---- Splits

def test_every_split_is_tested_once_and_in_order(run):
    cfg = Config.fromfile(tiny)
    pictures = {split: len(build_dataset(cfg.data[split])) for split in ('train', 'val', 'test')}
    for split, n in pictures.items():
        tested = evaluate_config(run, split=split, device='cpu', options=here)
        assert len(tested.scores)==len(tested.dataset)==n and np.isfinite(tested.scores).all()
        assert not any(type(o).__name__.startswith('Random') for o in tested.dataset.pipeline.transforms), split
    again = evaluate_config(run, split='train', device='cpu', options=here, metrics=['accuracy'])
    assert np.array_equal(again.scores, evaluate_config(run, split='train', device='cpu', options=here).scores)

@pytest.mark.parametrize('wrapper', [
    dict(type='RepeatDataset', times=2), dict(type='ClassBalancedDataset', oversample_thr=.5),
    dict(type='KFoldDataset', fold=0, num_splits=3, stratified=True),
], ids=lambda o: o['type'])
def test_training_data_in_a_wrapper(wrapper):
    cfg = Config.fromfile(tiny)
    n = len(build_dataset(cfg.data.train))
    cfg.data.train = dict(wrapper, dataset=cfg.data.train)
    found = dataset_of_split(cfg, 'train')
    assert len(found)==(n if wrapper['type']!='KFoldDataset' else n-n//3) or wrapper['type']=='KFoldDataset' and n/2<len(found)<n
    tested = evaluate_config(cfg, 'none', split='train', device='cpu', options=here)
    assert len(tested.scores)==len(found)==len(tested.results)
    cfg.data.drop_last = True
    assert len(evaluate_config(cfg, 'none', split='train', device='cpu', options=here).scores)==len(found)

# ---- Class-wise numbers

def test_the_word_none_means_each_class(run):
    for mode in ('none', None):
        options = dict(metrics=['precision', 'support'], metric_options=dict(average_mode=mode))
        found = evaluate_config(run, device='cpu', options=here, **options)
        assert len(found.metrics['precision'])==6
        assert found.metrics.per_class.loc['tool', 'support']==(found.dataset.get_gt_labels()==4).sum()
    text = repr(found)
    assert 'class' in text and 'windmill' in text and '[' not in text and 'loss: ' in text

def test_metrics_in_words():
    text = MetricValues({'accuracy': 50., 'recall': [10., 20.], 'n': 3}, ['cat', 'dog']).text()
    assert text.splitlines()[:2]==['accuracy: 50.0000', 'n: 3'] and text.split()[-2:]==['dog', '20.0000']

# ---- Painted pictures

def test_pictures_are_painted_under_their_names(run, tmp_path):
    style = dict(text_color='red', row_width=12)
    tested = evaluate_config(run, device='cpu', options=here, show_dir=str(tmp_path/'p'), show_options=style)
    written = sorted(str(o.relative_to(tmp_path/'p')) for o in (tmp_path/'p').rglob('*') if o.is_file())
    assert written==sorted(tested.results.names)
    for name in written[:3]:
        path = tmp_path/'p'/name
        with Image.open(path) as painted, Image.open(os.path.join(tested.results.root, name)) as original:
            a, b = (np.asarray(o.convert('RGB'), int) for o in (painted, original))
            assert a.shape==b.shape and np.abs(a-b).max()>60

def test_mmcls_functions_paint(run, tmp_path):
    model = init_model(run, device='cpu')
    cfg = Config.fromfile(tiny)
    ds = build_dataset(cfg.data.test, dict(test_mode=True))
    loader = build_dataloader(ds, **loader_args(cfg, 'test') | dict(workers_per_gpu=0))
    plain = single_gpu_test(model, loader)
    for k, function in enumerate((single_gpu_test, multi_gpu_test)):
        scores = function(model, loader, out_dir=str(tmp_path/str(k)), font_scale=.4)
        assert len(list((tmp_path/str(k)).rglob('*.*')))==len(ds) and np.array_equal(scores, plain)
    class Tensors(torch.utils.data.Dataset): # of a library that knows nothing of files
        def __len__(self): return 3
        def __getitem__(self, i): return dict(img=torch.full((3, 64, 64), i/3))
    scores = single_gpu_test(model, torch.utils.data.DataLoader(Tensors(), batch_size=2), out_dir=str(tmp_path/'tensors'))
    assert len(scores)==3 and sorted(os.listdir(tmp_path/'tensors'))==['000000.png', '000001.png', '000002.png']

def test_show_without_a_screen_goes_on(run, monkeypatch, capfd):
    for name in ('DISPLAY', 'WAYLAND_DISPLAY'): monkeypatch.delenv(name, raising=False)
    assert evaluate_config(run, device='cpu', options=here, show=True).metrics

def test_arrays_and_archives_are_painted(tmp_path):
    tested = evaluate_config('lenet5_1xb32_digits', 'none', device='cpu', options=here, out=str(tmp_path/'r.json'))
    typical = analyze_results('lenet5_1xb32_digits', tmp_path/'r.json', str(tmp_path/'out'), topk=3)
    assert len(typical.fail)==3 and len(list((tmp_path/'out/fail').glob('*.png')))==4 # the grid, too
    photos = Path(clsnb.__file__).parent/'photos'
    import zipfile
    with zipfile.ZipFile(tmp_path/'p.zip', 'w') as z:
        for line in (photos/'val.txt').read_text().splitlines(): z.write(photos/line.split()[0], line.split()[0])
    cfg = Config.fromfile(tiny)
    cfg.data.test = dict(type='CustomDataset', data_prefix=f"zip://::{tmp_path/'p.zip'}", ann_file=str(photos/'val.txt'),
                         classes=list(tested.dataset.CLASSES)[:0] or ['animal', 'building', 'fish', 'solar', 'tool', 'windmill'],
                         pipeline=cfg.data.test.pipeline)
    evaluate_config(cfg, 'none', device='cpu', options=here, out=str(tmp_path/'z.pkl'), show_dir=str(tmp_path/'z'))
    assert len(list((tmp_path/'z').rglob('*.jpg')))>=50
    typical = analyze_results(cfg, tmp_path/'z.pkl', str(tmp_path/'zz'), topk=2)
    assert len(typical.fail)==2 and len(list((tmp_path/'zz/fail').glob('*.jpg')))==2

def test_typical_results_are_those_of_mmcls(run, out, tmp_path):
    typical = analyze_results(tiny, out/'r.pkl', str(tmp_path/'a'), topk=4)
    scores, labels = typical.results.scores, typical.results.labels
    order = np.argsort(-scores.max(1), kind='stable')
    wrong = [i for i in order if scores[i].argmax()!=labels[i]][:4]
    assert typical.fail.index.tolist()==wrong and len(typical.success)<=4
    cases = json.loads((tmp_path/'a/fail/fail.json').read_text())
    assert [o['gt_label'] for o in cases]==labels[wrong].tolist()
    assert {'filename', 'gt_class', 'pred_class', 'pred_score'} <= set(cases[0])
    pictures = {o.name for o in (tmp_path/'a/fail').iterdir()}
    assert {Path(o['filename']).name for o in cases} | {'fail.json', 'fail.csv', 'fail.png'}==pictures
    some = {k: v for k, v in pickle.loads((out/'r.pkl').read_bytes()).items() if k in ('pred_score', 'pred_label', 'pred_class')}
    (tmp_path/'some.pkl').write_bytes(pickle.dumps(some)) # what mmcls's tool needs
    assert analyze_results(tiny, tmp_path/'some.pkl', topk=4).fail.index.tolist()==wrong
    assert '<img' in typical._repr_html_() and 'failures' in repr(typical)

# ---- What is wrong is told, and before the work where it can be

@pytest.fixture
def no_work(monkeypatch):
    import clsnb.apis.test as module
    def refuse(*args, **kwargs): raise AssertionError('the model was asked')
    monkeypatch.setattr(module, 'predict_loader', refuse)

@pytest.mark.parametrize('args, message', [
    (dict(out='r.txt'), 'has to end with'), (dict(out_items=['pred_clas']), "'pred_class'"),
    (dict(out='r.csv', out_items='none'), 'json'), (dict(metrics=['acuracy']), "'accuracy'"),
    (dict(metric_options=dict(topkk=1)), 'topk'),
    (dict(metrics=['recall'], metric_options=dict(average_mode='micro')), 'macro'),
    (dict(split='holdout'), 'holdout'), (dict(metrics=['mAP']), 'mAP'),
], ids=str)
def test_wrong_arguments_are_told_before_the_work(run, no_work, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ClsnbError, match=message) as e: evaluate_config(run, device='cpu', options=here, **args)
    line_of(e)

def test_outputs_that_cannot_be_written_are_told_before_the_work(run, no_work, tmp_path):
    (tmp_path/'file').write_text('')
    below = str(tmp_path/'file/r.json')
    for args in (dict(out=below), dict(show_dir=below), dict(out=str(tmp_path/'a\0.json'))):
        with pytest.raises(ClsnbError, match='cannot be written') as e: evaluate_config(run, device='cpu', options=here, **args)
        line_of(e)
    with pytest.raises(ClsnbError, match='cannot be written'): analyze_results(run, run, str(tmp_path/'file/x'))

def test_results_that_do_not_fit_are_one_line(run, out, tmp_path):
    (tmp_path/'torn.pkl').write_bytes((out/'r.pkl').read_bytes()[:300])
    (tmp_path/'empty').mkdir()
    (tmp_path/'none.json').write_text('{"accuracy_top-1": 3}')
    evaluate_config(run, split='train', device='cpu', options=here, out=str(tmp_path/'train.pkl'))
    cases = [('lenet5_1xb32_digits', out/'r.pkl', 'another data set'), (tiny, tmp_path/'torn.pkl', 'truncated'),
             (tiny, tmp_path/'empty', 'results.npz'), (tiny, tmp_path/'gone.pkl', 'No such file'),
             (tiny, tmp_path/'none.json', 'only metrics'), (tiny, tmp_path/'train.pkl', 'another data set or split')]
    for config, result, message in cases:
        for tool in (eval_metric, analyze_results):
            with pytest.raises(ClsnbError, match=message) as e: tool(config, result)
            line_of(e)
    assert eval_metric(tiny, tmp_path/'train.pkl', split='train')
    with pytest.raises(ConfigError, match="'recall'"): eval_metric(tiny, out/'r.pkl', ['recal'])
    with pytest.raises(ConfigError, match='topk'): analyze_results(tiny, out/'r.pkl', topk=0)

def test_deprecated_options_are_taken_with_a_warning(run):
    with pytest.warns(UserWarning, match='metric_options'):
        found = evaluate_config(run, device='cpu', options=here, metrics=['accuracy'], eval_options=dict(topk=1))
    assert 'accuracy' in found.metrics

def test_dist_params_of_the_config_are_used(run, monkeypatch):
    import clsnb.apis.test as module
    seen = {}
    monkeypatch.setattr(module, 'init_dist', lambda launcher, **options: seen.update(options, launcher=launcher))
    options = {**here, 'dist_params.backend': 'gloo', 'dist_params.port': 29511}
    evaluate_config(run, device='cpu', launcher='pytorch', options=options)
    assert (seen['launcher'], seen['backend'], seen['port'])==('pytorch', 'gloo', 29511)

# ---- Pictures that are gone or broken

@pytest.fixture
def worn(run, tmp_path):
    "A config whose validation pictures have worn: one is gone, one is damaged"
    source = Path(clsnb.__file__).parent/'photos'
    cfg = Config.fromfile(tiny)
    folder = tmp_path/'photos'
    shutil.copytree(source, folder)
    names = [line.split()[0] for line in (folder/'val.txt').read_text().splitlines()]
    (folder/names[1]).unlink()
    (folder/names[53]).write_bytes(b'no picture')
    cfg.data.test = dict(type='CustomDataset', data_prefix=str(folder), ann_file=str(folder/'val.txt'),
                         classes=init_model(run).CLASSES, pipeline=cfg.data.test.pipeline)
    return cfg

@pytest.mark.parametrize('batch, workers', [(16, 0), (1, 0), (2, 2)])
def test_pictures_that_cannot_be_read_are_left_out_loudly(run, worn, tmp_path, batch, workers):
    options = {'data.workers_per_gpu': workers, 'data.samples_per_gpu': batch}
    whole = evaluate_config(run, device='cpu', options=here)
    names = ['accuracy', 'f1_score', 'loss']
    with pytest.warns(UserWarning, match='Left out'):
        found = evaluate_config(worn, run.weights, device='cpu', options=options, metrics=names, out=str(tmp_path/'r.csv'))
    assert [row['index'] for row in found.left_out]==[1, 53] and all(row['why'] and row['file'] for row in found.left_out)
    rest = [i for i in range(54) if i not in (1, 53)]
    assert np.allclose(found.scores[rest], whole.scores[rest], atol=1e-5) and np.isnan(found.scores[[1, 53]]).all()
    expected = compute_metrics(found.scores[rest], whole.dataset.get_gt_labels()[rest], names[:2])
    assert {k: found.metrics[k] for k in expected}==pytest.approx(expected) and 0<found.metrics['loss']<3
    assert len(found.results)==52
    table = pd.read_csv(tmp_path/'r.csv')
    assert len(table)==54 and table.problem.notna().sum()==2
    again = eval_metric(worn, tmp_path/'r.csv', names)
    assert {k: again[k] for k in again if k!='loss'}=={k: v for k, v in found.metrics.items() if k!='loss'}

def test_a_strict_test_stops_at_the_first(run, worn):
    with pytest.raises(ClsnbError, match='No such picture') as e:
        evaluate_config(worn, run.weights, device='cpu', options=here, strict=True)
    line_of(e)

def test_no_picture_left_is_an_error(run, worn):
    worn.data.test.data_prefix = worn.data.test.data_prefix+'/gone'
    with pytest.raises(ClsnbError, match='None of these 54 pictures') as e:
        evaluate_config(worn, run.weights, device='cpu', options=here)
    line_of(e)

# ---- On the command line

def clsnb_main(*words):
    from clsnb.cli import main
    try: return main([str(o) for o in words]) or 0
    except SystemExit as e: return e.code or 0

def test_the_verbs_do_what_the_functions_do(run, tmp_path, capsys):
    quiet = ['--device', 'cpu', '--cfg-options', 'data.workers_per_gpu=0']
    each = ['--metrics', 'precision', 'recall', '--metric-options', 'average_mode=none']
    assert clsnb_main('test', run.folder, *quiet, '--out', tmp_path/'r.pkl', '--out-items', 'class_scores', 'pred_label',
                      *each, '--show-dir', tmp_path/'painted', '--show-options', 'text_color=red', '--tmpdir', tmp_path,
                      '--gpu-collect')==0
    text = capsys.readouterr().out
    assert 'windmill' in text and 'precision' in text and '[' not in text and f"Written: {tmp_path/'r.pkl'}" in text
    found = pickle.loads((tmp_path/'r.pkl').read_bytes())
    assert 'pred_class' not in found and len(found['precision'])==6 and list((tmp_path/'painted').rglob('*.jpg'))
    assert clsnb_main('eval-metric', tiny, tmp_path/'r.pkl', *each)==0
    assert capsys.readouterr().out==text.split('Written')[0]
    assert clsnb_main('eval_metric', tiny, tmp_path/'r.pkl', '--json', '--cfg-options', 'evaluation.metric_options.topk=1')==0
    assert json.loads(capsys.readouterr().out)['metrics']==eval_metric(tiny, tmp_path/'r.pkl', metric_options=dict(topk=1))
    (tmp_path/'r.json').write_text('')
    assert clsnb_main('test', run.folder, *quiet, '--out', tmp_path/'r.json')==0
    assert clsnb_main('analyze-results', tiny, tmp_path/'r.json', '--out-dir', tmp_path/'typical', '--topk', 3, '--json')==0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(answer['fail'])==3 and (tmp_path/'typical/success').is_dir()

def test_wrong_words_are_one_line(run, out, tmp_path, capsys):
    cases = [(['test', run.folder, '--out-items', 'scores'], 'class_scores'),
             (['test', run.folder, '--out', 'r.txt'], 'end with'),
             (['eval-metric', tiny, out/'r.pkl', '--metrics', 'acuracy'], 'accuracy'), (['eval-metric', tiny], 'result'),
             (['test', run.folder, '--show-options', 'red'], '--show-options'),
             (['analyze-results', tiny, tmp_path], 'results.npz')]
    for words, message in cases:
        assert clsnb_main(*words)==2
        text = capsys.readouterr().err.strip()
        assert message.lower() in text.lower() and '\n' not in text, text

def test_old_names_of_options(run, capsys):
    for flag in ('--eval-options', '--options'):
        with pytest.warns(UserWarning, match='metric_options'):
            assert clsnb_main('test', run.folder, '--device', 'cpu', '--metrics', 'accuracy', flag, 'topk=(1,)')==0
        assert 'accuracy_top-1' in capsys.readouterr().out

def test_left_out_pictures_are_findings(run, worn, tmp_path, capsys):
    worn.dump(tmp_path/'worn.py')
    words = ['test', tmp_path/'worn.py', run.weights, '--device', 'cpu', '--cfg-options', 'data.workers_per_gpu=0']
    with pytest.warns(UserWarning, match='Left out'): assert clsnb_main(*words, '--json')==1
    answer = json.loads(capsys.readouterr().out)
    assert len(answer['left_out'])==2 and answer['metrics']['accuracy_top-1']>0
    assert clsnb_main(*words, '--strict')==2
