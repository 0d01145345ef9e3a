"""Cross-validation: every fold a run, finished folds are not repeated, and one summary."""
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import clsnb
from clsnb.apis import kfold as module
from clsnb.apis.fit import read_config
from clsnb.apis.kfold import KFold, fold_config, join_results, kfold
from clsnb.cli import main
from clsnb.core.errors import ClsnbError, ConfigError, DataError
from clsnb.core.registry import HOOKS
from clsnb.data.sets.wrappers import build_dataset
from clsnb.runs.folder import Run
from clsnb.runs.results import Results
from clsnb.train.hooks import Hook

options = {'runner.max_epochs': 2, 'data.samples_per_gpu': 256, 'log_level': 'ERROR'}
name = 'lenet5_1xb32_digits'

@pytest.fixture(scope='module')
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp('kfold')
    return kfold(name, 3, work_dir=folder, options=options)

def files(folder): return {p: p.stat().st_mtime_ns for p in sorted(Path(folder).glob('fold*/*.pth'))}

def test_every_fold_is_a_run(done):
    cfg = read_config(name, options)
    train = build_dataset(cfg.data.train)
    seen = []
    for k, run in done.runs.items():
        assert run.folder==done.folder/f'fold{k}' and run.finished and run.weights and run.report
        judged = build_dataset(run.config.data.val, dict(test_mode=True))
        trained = build_dataset(run.config.data.train)
        assert not set(judged.indices) & set(trained.indices) and len(judged)+len(trained)==len(train)
        assert len(run.results)==len(judged)
        seen += judged.indices.tolist()
    assert sorted(seen)==list(range(len(train)))

def test_the_table_has_mean_and_deviation(done):
    table = done.table
    assert list(table.index)==['fold0', 'fold1', 'fold2', 'mean', 'sd'] and 'accuracy_top-1' in table
    values = np.array([run.metrics['accuracy_top-1'] for run in done.runs.values()])
    assert table['accuracy_top-1'].tolist()==pytest.approx([*values, values.mean(), values.std(ddof=1)])
    written = pd.read_csv(done.folder/'kfold.csv', index_col='fold')
    assert np.allclose(written, table)
    assert repr(done).startswith('KFold: 3 of 3 folds, accuracy_top-1 ') and '±' in repr(done)
    assert 'fold2' in done._repr_html_() and (done.folder/'kfold.png').stat().st_size>2000
    assert len(done.plot().axes)==len(table.columns)

def test_the_answers_of_all_folds_are_joined_in_the_order_of_the_data(done):
    labels = build_dataset(read_config(name).data.train).get_gt_labels()
    assert (done.results.labels==labels).all()
    right = [run.results.accuracy*len(run.results) for run in done.runs.values()]
    assert done.results.accuracy==pytest.approx(sum(right)/len(labels))
    assert Results.load(done.folder/'kfold.npz').accuracy==done.results.accuracy
    assert 'fold2' in done.report.read_text()

def test_finished_folds_are_not_repeated(done, monkeypatch):
    before = files(done.folder)
    monkeypatch.setattr(module, 'fit', None)
    again = kfold(name, 3, work_dir=done.folder, options=options)
    assert again.table.equals(done.table) and files(done.folder)==before

def test_one_fold_and_a_summary_of_what_is_there(tmp_path, done):
    assert kfold(name, 3, work_dir=tmp_path, options=options, summary=True).runs=={}
    one = kfold(name, 3, fold=1, work_dir=tmp_path, options=options)
    assert list(one.runs)==[1] and np.isnan(one.table.loc['sd']).all() and 'nan' not in repr(one)
    assert one.table.loc['fold1'].equals(done.table.loc['fold1']) # whatever ran before it
    assert len(one.results)==len(done.runs[1].results)

def test_an_interrupted_fold_resumes(tmp_path, done):
    import os, signal
    @HOOKS.register(force=True)
    class StopSecondFold(Hook):
        def after_train_epoch(self, run):
            if 'fold1' in run.work_dir and run.epoch==0 and not (tmp_path/'pressed').exists():
                (tmp_path/'pressed').touch()
                os.kill(os.getpid(), signal.SIGINT)
    hooks = {'custom_hooks': [dict(type='StopSecondFold')]}
    part = kfold(name, 3, work_dir=tmp_path/'w', options=options | hooks)
    assert list(part.runs)==[0] and part.stop=='SIGINT' and not (tmp_path/'w/fold2').exists()
    whole = kfold(name, 3, work_dir=tmp_path/'w', options=options | hooks)
    assert list(whole.runs)==[0, 1, 2] and whole.stop is None
    assert np.allclose(whole.table, done.table)
    log = whole.runs[1].log
    assert log[log['mode']=='val'].epoch.tolist()==[1, 2]

@pytest.mark.parametrize('arguments, message', [
    (dict(num_splits=1), 'num_splits must be 2 or more, but is 1'),
    (dict(num_splits=3, fold=3), 'there is no fold 3; the 3 folds are 0 to 2'),
    (dict(num_splits=3, fold=-1), 'there is no fold -1'),
    (dict(num_splits=100_000), '[0-9]+ training samples cannot make 100000 folds; lower num_splits'),
])
def test_folds_that_are_not_possible(tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=message): kfold(name, work_dir=tmp_path/'w', options=options, **arguments)
    assert not (tmp_path/'w').exists()

@pytest.mark.parametrize('changed, told', [
    (dict(num_splits=4), 'num_splits 3'), (dict(stratified=True), 'stratified False'),
    (dict(options=options | {'seed': 3}), 'seed 0'), (dict(options=options | {'optimizer.lr': .1}), 'config'),
])
def test_folds_of_another_division_never_meet(done, changed, told):
    with pytest.raises(ClsnbError, match=f'holds folds of another call .*{told}'):
        kfold(**dict(config=name, num_splits=3, work_dir=done.folder, options=options) | changed)

def test_repeated_samples_stay_in_one_fold():
    cfg = read_config(name)
    cfg.data['train'] = dict(type='RepeatDataset', times=3, dataset=cfg.data['train'])
    part = fold_config(cfg, 0, 4, stratified=True)
    trained, judged = (build_dataset(part.data[k]) for k in ('train', 'val'))
    assert type(judged).__name__=='KFoldDataset' and len(trained)==3*len(trained.dataset)
    assert not set(trained.dataset.indices) & set(judged.indices)
    assert 'RandomCrop' not in str(part.data['val']) and 'RandomCrop' in str(part.data['train'])
    assert part.data['test']==part.data['val'] and cfg.data['val']['type']=='Digits'

def test_results_of_pictures_in_files_keep_their_names():
    rng = np.random.default_rng(0)
    scores, labels = rng.dirichlet(np.ones(3), 6), np.arange(6)%3
    halves = [[1, 4, 5], [0, 2, 3]]
    def part(i, root): return Results(scores[i], labels[i], names=[f'{k}.png' for k in i], root=root)
    whole = join_results([part(i, 'a') for i in halves], halves)
    assert whole.names==[f'{k}.png' for k in range(6)] and whole.root=='a' and np.allclose(whole.scores, scores)
    mixed = join_results([part(halves[0], 'a'), part(halves[1], 'b')], halves)
    assert mixed.names[:2]==['b/0.png', 'a/1.png'] and mixed.root==''

def test_pictures_of_a_folder(tmp_path):
    folder = Path(clsnb.__file__).parent/'photos'
    cfg = read_config('resnet18-tiny_1xb16_photos', {'runner.max_epochs': 1, 'log_level': 'ERROR'})
    found = kfold(cfg, 2, work_dir=tmp_path, stratified=True)
    assert folder.exists() and found.results.names[0]!='sample 0' and found.results.image(0).size[0]>1
    assert json.loads((tmp_path/'kfold.json').read_text())['num_splits']==2

def test_nothing_to_draw(tmp_path):
    with pytest.raises(DataError, match='no fold has metrics yet'): KFold(tmp_path, 3, {}, read_config(name)).plot()
    assert repr(KFold(tmp_path, 3, {}, read_config(name)))=='KFold: 0 of 3 folds'
    assert not Run(tmp_path/'fold0').finished

# ---- the command line ----------------------------------------------------------------------------------------------

words = ['--cfg-options', 'runner.max_epochs=2', 'data.samples_per_gpu=256', 'log_level=ERROR']

def status(*typed):
    "The exit status of a command line"
    try: return main([*map(str, typed)])
    except SystemExit as e: return e.code

def test_kfold_on_the_command_line(done, capsys):
    assert not status('kfold', name, '--num-splits', 3, '--work-dir', done.folder, '--summary', '--json', *words)
    printed = capsys.readouterr()
    record = json.loads(printed.out)
    assert record['mean']['accuracy_top-1']==pytest.approx(done.table['accuracy_top-1']['mean'])
    assert list(record['folds'])==['fold0', 'fold1', 'fold2'] and Path(record['report'])==done.report
    assert 'sd ' in printed.err
    assert not status('kfold-cross-valid', name, '--num_splits', 3, '--work-dir', done.folder, '--fold', 1, *words)
    assert status('kfold', name, '--num-splits', 3, '--fold', 3, '--work-dir', done.folder)==2
    assert status('kfold', name, '--resume-from', 'x.pth', '--work-dir', done.folder)==2
    assert 'resume_from needs fold' in capsys.readouterr().err

def test_lr_find_on_the_command_line(tmp_path, capsys):
    figure = tmp_path/'rates.png'
    assert not status('lr-find', name, '--num-iter', 40, '--device', 'cpu', '--save-path', figure, '--json', *words)
    record = json.loads(capsys.readouterr().out)
    assert 1e-5<record['suggestion']<1 and len(record['lrs'])==len(record['losses']) and figure.stat().st_size>2000
    assert status('lr-find', name, '--save-path', tmp_path/'rates.txt', *words)==2
    assert status('lr-find', name, '--num-iter', 3, *words)==2
    assert 'num_iter must be 10 or more' in capsys.readouterr().err
