"Runs side by side, and the verbs about logs"
import json, subprocess, sys
import numpy as np, pytest
from clsnb.analysis.compare import Comparison, compare
from clsnb.analysis.compared import config_differences, metric_table, open_compared, picture_changes
from clsnb.cli import run_command
from clsnb.core.errors import ClsnbError, ConfigError, DataError
from clsnb.runs.folder import Run
from clsnb.runs.results import Results

classes = ['cat', 'dog', 'owl']
names = [f'{i}.jpg' for i in range(8)]
labels = np.array([0, 1, 2, 0, 1, 2, 0, 1])

def results(wrong=(), classes=classes, labels=labels, names=names):
    "Right but for some pictures"
    labels = np.asarray(labels)
    answers = np.where(np.isin(np.arange(len(labels)), wrong), (labels+1)%len(classes), labels)
    return Results(np.eye(len(classes))[answers]*.8+.1, labels, classes, list(names), 'nowhere')

def make_run(folder, top1=(50, 70, 60), lr=.1, wrong=(0, 1), **config):
    folder.mkdir(parents=True)
    rows = [dict(seed=0, exp_name='mine.py')]
    for epoch, value in enumerate(top1, 1):
        rows += [dict(mode='train', epoch=epoch, iter=i, lr=lr, time=.1*epoch, loss=3/(epoch+i/20)) for i in (10, 20)]
        rows.append({'mode': 'val', 'epoch': epoch, 'iter': 5, 'accuracy_top-1': value, 'loss': 2/epoch})
    (folder/'1.log.json').write_text('\n'.join(map(json.dumps, rows))+'\n')
    model = dict(backbone=dict(type='ResNet', depth=18))
    settings = dict(model=model, optimizer=dict(type='SGD', lr=lr), work_dir=str(folder)) | config
    (folder/'mine.py').write_text('\n'.join(f'{k} = {v!r}' for k, v in settings.items()))
    if wrong is not None: results(wrong).save(folder/'results.npz')
    return folder

@pytest.fixture
def two(tmp_path):
    return make_run(tmp_path/'base'), make_run(tmp_path/'new', (40, 60, 80), .2, (1, 2, 3), seed=3)

# ---- What is compared

@pytest.mark.parametrize('make', [lambda a, b: compare(a, b), lambda a, b: compare([str(a), str(b)]),
                                  lambda a, b: compare([Run(a), b]), lambda a, b: compare(dict(base=a, new=b)),
                                  lambda a, b: Comparison(open_compared((a, b)))])
def test_two_runs(two, make):
    found = make(*two)
    assert found.names == ['base', 'new']
    assert found.config.to_dict('index') == {'optimizer.lr': dict(base='0.1', new='0.2'), 'seed': dict(base='', new='3')}
    row = found.metrics.loc['base']
    assert (row['accuracy_top-1 best'], row['accuracy_top-1 at'], row['accuracy_top-1 last']) == (70, 2, 60)
    assert found.metrics.loc['new', 'loss best'] == pytest.approx(2/3)
    assert found.counts.loc['new', ['fixed', 'broken', 'right', 'wrong', 'pictures']].tolist() == [1, 2, 4, 1, 8]
    changed = found.changes['new'].set_index('file').change
    assert changed['0.jpg'] == 'fixed' and changed['1.jpg'] == 'wrong' and changed['3.jpg'] == 'broken'
    assert not found.notes

def test_it_draws_itself(two, tmp_path):
    found = compare(*two, out=tmp_path/'new'/'page.html')
    for text in (str(found), found._repr_html_(), (tmp_path/'new'/'page.html').read_text()):
        for part in ('base', 'new', 'optimizer.lr', '0.2', 'accuracy_top-1 best', '70 (at 2)', 'fixed 1 and broke 2 of 8'):
            assert part in text, part
    page = (tmp_path/'new'/'page.html').read_text()
    assert page.count('class="card"') == 3 and '<svg' in page and 'not readable' in page and 'src="http' not in page
    titles = [ax.get_title(loc='left') for ax in found.plot().axes]
    assert titles == ['Training loss', 'accuracy top-1', 'Learning rate', 'Pictures broken and fixed']
    for end, begin in (('png', b'\x89PNG'), ('pdf', b'%PDF'), ('csv', b'run,')):
        assert found.save(tmp_path/f'all.{end}').read_bytes().startswith(begin)

def test_three_runs(two, tmp_path):
    third = make_run(tmp_path/'third', wrong=(), model=dict(backbone=dict(type='VGG', depth=11)))
    found = compare(*two, third)
    assert list(found.changes) == ['new', 'third'] and found.counts.broken.tolist() == [2, 0]
    assert 'VGG' in found.config.loc['model.backbone', 'third'] and len(found.metrics) == 3

def test_names_are_escaped(tmp_path):
    nasty = '<script>alert(1)</script>'
    runs = [make_run(tmp_path/'a', note=nasty), make_run(tmp_path/'b', wrong=None)]
    results((3,), classes=[nasty, 'b', 'c'], names=[nasty, *names[1:]]).save(runs[1]/'results.npz')
    results((0,), classes=[nasty, 'b', 'c'], names=[nasty, *names[1:]]).save(runs[0]/'results.npz')
    found = compare(*runs, out=tmp_path/'page.html')
    assert nasty not in found._repr_html_() and nasty not in (tmp_path/'page.html').read_text()

# ---- What does not fit

def test_what_is_missing_is_named(two):
    base, new = two
    (new/'results.npz').unlink()
    (base/'mine.py').write_text('model = (((')
    found = compare(base, new)
    assert any('new: no results' in note for note in found.notes) and any('config cannot be read' in o for o in found.notes)
    assert not found.changes and not len(found.config) and len(found.metrics) == 2
    (new/'1.log.json').write_bytes(b'\0\0\0')
    (base/'results.npz').write_bytes(b'PK')
    found = compare(base, new)
    text = ' '.join(found.notes)
    assert 'new: the log cannot be read' in text and 'base: the results cannot be read' in text
    assert 'left out' in compare(base, new)._repr_html_() or found.plot().axes

def test_other_classes_and_other_data():
    changes = picture_changes(results((0,)), results((1,), ['cat', 'dog', 'owl', 'emu']), ('a', 'b'))
    assert changes.change.value_counts().to_dict() == dict(right=6, fixed=1, broken=1)
    assert 'a knows 3 classes, b 4; they differ.' in changes.attrs['notes']
    with pytest.raises(DataError, match='a and b were evaluated on different pictures'):
        picture_changes(results(), results(names=[f'other/{o}x' for o in names]), ('a', 'b'))
    several = Results(np.eye(3)[labels], np.eye(3, dtype=int)[labels], classes, names)
    with pytest.raises(DataError, match='one label in the one, and several in the other'):
        picture_changes(results(), several, ('a', 'b'))
    assert picture_changes(several, several).change.eq('right').all()

def test_pictures_are_matched_by_name_and_label():
    "In another order, in another folder, with other labels, and twice"
    order = [3, 2, 1, 0]
    other = results((0,), labels=[*labels[order][:3], 1], names=[f'val/{names[i]}' for i in order])
    changes = picture_changes(results((3,)), other, ('a', 'b'))
    assert changes.file.tolist() == ['1.jpg', '2.jpg', '3.jpg'] and changes.change.tolist() == ['right', 'right', 'wrong']
    notes = ' '.join(changes.attrs['notes'])
    assert '4 pictures are only in the results of a' in notes and '1 pictures have another label in b' in notes
    twice = picture_changes(results(names=['x.jpg']*8), results((7,), names=['x.jpg']*8))
    assert len(twice) == 8 and twice.change.iloc[7] == 'broken'

@pytest.mark.parametrize('runs, message', [
    ([], 'none was given'), (['a'], '1 was given'), ('a', '1 was given'), ([3, 4], 'not 3'),
    (['missing', 'gone'], 'there is no missing')])
def test_what_is_no_run(runs, message):
    with pytest.raises(DataError, match=message): compare(runs)

def test_an_empty_folder_is_refused(two, tmp_path):
    (tmp_path/'empty').mkdir()
    with pytest.raises(DataError, match='empty: there is neither a log, nor a config, nor results'):
        compare(two[0], tmp_path/'empty')

def test_logs_and_results_alone(two, tmp_path):
    base, new = two
    found = compare(base/'1.log.json', new/'1.log.json')
    assert len(found.metrics) == 2 and not found.changes and len(found.notes) == 1
    results((1,)).save(tmp_path/'b.npz')
    found = compare(base/'results.npz', tmp_path/'b.npz')
    assert found.counts.fixed.tolist() == [1] and found.plot().axes and 'fixed 1' in str(found)
    with pytest.raises(DataError, match='not the log of a run'): compare(base, new/'mine.py')

@pytest.mark.parametrize('out, error', [
    ('page.doc', ConfigError), ('page', ConfigError), ('base/1.log.json/page.html', DataError)])
def test_output_is_checked_before_the_work(two, tmp_path, out, error):
    with pytest.raises(error, match='has to end with|cannot be written'): compare('missing', 'gone', out=tmp_path/out)

def test_tables_of_runs_without_logs():
    runs = open_compared_of(None, None)
    assert metric_table(runs).shape == (2, 0) and config_differences(runs).empty

def open_compared_of(*logs):
    from clsnb.analysis.compared import ComparedRun
    return [ComparedRun(f'run {i}', log) for i, log in enumerate(logs)]

# ---- Verbs

def record_of(*words):
    done = subprocess.run([sys.executable, '-m', 'clsnb', *map(str, words), '--json'], capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout), done.stderr

def test_verb_plot_curve(two, tmp_path, capsys):
    base, new = two
    for word in ('plot_curve', 'plot-curve'):
        words = ['analyze_logs', word, str(base/'1.log.json'), str(new), '--keys', 'accuracy_top-1', 'loss', '--legend', 'a', 'b',
                 'c', 'd', '--title', 'mine', '--style', 'ticks', '--window-size', '6*4', '--out', str(tmp_path/'x.jpg')]
        assert run_command(words) == 0
    text = capsys.readouterr().out
    assert f"plot curve of {base/'1.log.json'}, metric is accuracy_top-1" in text and 'save curve to: ' in text
    status, record, log = record_of('analyze-logs', 'plot_curve', base, '--keys', 'val/loss')
    assert status == 0 and record['curves'][0]['y'] == [2, 1, pytest.approx(2/3)] and 'set --out' in log

def test_verb_cal_train_time(two, capsys):
    assert run_command(['analyze_logs', 'cal_train_time', str(two[0]/'1.log.json')]) == 0
    text = capsys.readouterr().out
    for part in ('slowest epoch 3, average time is 0.3000', 'fastest epoch 1, average time is 0.1000',
                 'time std over epochs is 0.0816', 'average iter time: 0.2000 s/iter'):
        assert part in text
    assert run_command(['analyze-logs', 'cal-train-time', str(two[0]), str(two[1]), '--include-outliers']) == 0

def test_verb_compare(two, tmp_path):
    status, record, _ = record_of('compare', *two, '--out', tmp_path/'x.html')
    assert status == 0 and record['pictures']['new']['broken'] == 2 and (tmp_path/'x.html').stat().st_size > 1000
    assert record['config']['optimizer.lr'] == dict(base='0.1', new='0.2')

@pytest.mark.parametrize('words, message', [
    (['analyze-logs'], 'needs one of these words'), (['analyze-logs', 'plot_curv', 'x'], 'needs one of these words'),
    (['analyze-logs', 'plot_curve', 'missing.log.json'], 'cannot be read'), (['compare', 'missing', 'gone'], 'there is no'),
    (['analyze-logs', 'plot_curve', 'x', '--out', 'x.doc'], 'end with'), (['compare', 'a', 'b', '--out', 'x.doc'], 'end with')])
def test_verbs_refuse_in_one_line(words, message):
    with pytest.raises(ClsnbError, match=message): run_command(words)

def test_a_cut_log_is_named_in_one_line(two):
    with open(two[0]/'1.log.json', 'a') as f: f.write('{"mode": "tra')
    words = ['-m', 'clsnb', 'analyze-logs', 'cal_train_time', str(two[0])]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == 0 and 'average iter time' in done.stdout
    assert done.stderr == f"clsnb: {two[0]/'1.log.json'} ends in the middle of a line, which is left out.\n"
