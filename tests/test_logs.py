"Logs of ours and of mmcls: any keys of any runs as curves, the time of an iteration, and files that are no logs"
import json, warnings
import numpy as np, pytest
from clsnb.analysis import curves
from clsnb.analysis.curves import plot_curve
from clsnb.analysis.train_time import cal_train_time, epoch_times, train_time_text
from clsnb.core.errors import ConfigError, DataError
from clsnb.runs.folder import Run
from clsnb.runs.log_table import read_log
from clsnb.runs.named_logs import named_logs

facts = dict(env_info='sys.platform: linux\nPython: 3.8', seed=1, exp_name='resnet18_8xb16_cifar10.py')

def train(epoch, i, loss=1., time=.1, **more):
    return dict(mode='train', epoch=epoch, iter=i, lr=.1, memory=2093, data_time=.02, time=time, loss=loss, **more)
def val(epoch, top1, **more):
    return {'mode': 'val', 'epoch': epoch, 'iter': 79, 'lr': .1, 'accuracy_top-1': top1, 'accuracy_top-5': 99., **more}
def write(path, rows, end='\n'):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(map(json.dumps, rows))+end)
    return path

@pytest.fixture
def log(tmp_path):
    "Three epochs of four lines, the first of which is slow, and an evaluation after each"
    rows = [facts]
    for epoch in (1, 2, 3):
        rows += [train(epoch, 100*i, loss=3-epoch+.1*i, time=.9 if i==1 else .1*epoch) for i in (1, 2, 3, 4)]
        rows.append(val(epoch, 40+10*epoch, loss=2./epoch))
    return write(tmp_path/'exp'/'20220101_000000.log.json', rows)

def curves_of(logs, *args, **options): return curves.curves_of(named_logs(logs), *args, **options)
def lines_of(figure): return {o.get_label(): o.get_xydata().tolist() for o in figure.axes[0].lines}

# ---- Curves

def test_keys_of_training_and_of_evaluation(log):
    found = lines_of(plot_curve(log, ['loss', 'accuracy_top-1']))
    assert list(found) == ['20220101_000000_loss', '20220101_000000_accuracy_top-1']
    assert found['20220101_000000_loss'][:4] == [[.25, pytest.approx(2.1)], [.5, pytest.approx(2.2)],
                                                 [.75, pytest.approx(2.3)], [1., pytest.approx(2.4)]]
    assert found['20220101_000000_accuracy_top-1'] == [[1, 50], [2, 60], [3, 70]]

def test_loss_of_the_evaluation(log):
    found = lines_of(plot_curve(log, ['train/loss', 'val/loss'], legend=['a', 'b']))
    assert len(found['a']) == 12 and found['b'] == [[1, 2], [2, 1], [3, pytest.approx(2/3)]]

@pytest.mark.parametrize('make', [
    lambda log: log, str, lambda log: log.parent, lambda log: Run(log.parent), read_log, lambda log: [log],
    lambda log: iter([str(log)])])
def test_what_people_have(log, make):
    [curve] = curves_of(make(log), 'lr', legend='lr')
    assert len(curve.x) == 12 and set(curve.y) == {.1}

def test_several_runs_keep_apart(log, tmp_path):
    other = write(tmp_path/'other'/log.name, [facts, train(1, 5), val(1, 33)])
    found = lines_of(plot_curve([log, other, other.parent], ['accuracy_top-1']))
    assert list(found) == [f'exp/{log.name[:-9]}_accuracy_top-1', f'other/{log.name[:-9]}_accuracy_top-1',
                           'other_accuracy_top-1']
    assert found['other_accuracy_top-1'] == [[1, 33]]

def test_legend_names_every_curve(log):
    with pytest.raises(ConfigError, match='1 log and 2 keys give 2 curves, but 3 names were given'):
        plot_curve(log, ['loss', 'lr'], legend=['a', 'b', 'c'])

@pytest.mark.parametrize('key, hint', [('los', "Did you mean 'loss'"), ('accuracy_top1', "'accuracy_top-1'"),
                                       ('val/memory', 'not logged in val lines'), ('nonsense', 'Known: accuracy_top-1')])
def test_wrong_keys_list_the_nearest(log, key, hint):
    with pytest.raises(DataError, match=f'exp: .*{hint}|{hint}'): plot_curve(log.parent, key)

@pytest.mark.parametrize('end', ['png', 'jpg', 'pdf', 'svg', 'PNG'])
def test_written_by_suffix(log, tmp_path, end):
    out = tmp_path/'new'/f'curve.{end}'
    plot_curve(log, out=out)
    begins = dict(png=b'\x89PNG', jpg=b'\xff\xd8', pdf=b'%PDF', svg=b'<?xml')[end.lower()]
    assert out.read_bytes().startswith(begins)

@pytest.mark.parametrize('options, message', [
    (dict(out='curve.docx'), 'has to end with'), (dict(out='curve'), 'has to end with'),
    (dict(window_size='12'), 'such as 12\\*7'), (dict(window_size='-1*7'), 'such as 12\\*7'),
    (dict(style='grid'), "no style 'grid'"), (dict(backend='tkag'), "Did you mean 'tkagg'"),
    (dict(smooth=-1), 'smooth'), (dict(smooth=float('nan')), 'smooth')])
def test_options_are_checked_before_the_log_is_read(options, message):
    with pytest.raises(ConfigError, match=message): plot_curve('missing.log.json', **options)

def test_a_path_that_cannot_be_written_is_told_first(log):
    with pytest.raises(DataError, match='cannot be written'): plot_curve('missing.log.json', out=log/'curve.png')

def test_title_style_and_size(log):
    figure = plot_curve(log, title='Two $words', style='darkgrid', window_size='5*4', smooth=3)
    axes = figure.axes[0]
    assert figure.get_size_inches().tolist() == [5, 4] and axes.get_title(loc='left') == 'Two $words'
    assert axes.get_facecolor()[:3] != (1, 1, 1) and len(axes.lines) == 2

# ---- The place of a line

def test_iterations_of_a_run_by_iterations(tmp_path):
    rows = [facts, *[train(1+i//500, i) for i in range(100, 1001, 100)], val(2, 50)]
    [loss, top1] = curves_of(write(tmp_path/'1.log.json', rows), ['loss', 'accuracy_top-1'])
    assert (loss.unit, loss.x.tolist()) == ('iteration', list(range(100, 1001, 100)))
    assert top1.x.tolist() == [1000]

def test_iterations_within_the_first_epoch(tmp_path):
    rows = [facts]
    for i in (100, 200, 300): rows += [train(1, i), val(1, i/10)]
    curve, = curves_of(write(tmp_path/'1.log.json', rows), 'accuracy_top-1')
    assert (curve.unit, curve.x.tolist(), curve.y.tolist()) == ('iteration', [100, 200, 300], [10, 20, 30])

def test_a_log_with_two_starts_in_one_file(tmp_path):
    "An epoch that was repeated after a crash counts once, with the numbers of the resumed run"
    rows = [facts, train(1, 5), train(1, 10), val(1, 50), train(2, 5), train(2, 10, loss=9.)]
    again = [train(2, 5), train(2, 10, loss=2.), val(2, 60)]
    for join in ([facts], []):
        log = read_log(write(tmp_path/'1.log.json', rows + join + again))
        assert log[log['mode']=='train'].loss.tolist() == [1, 1, 1, 2] and log['at'].is_monotonic_increasing
        assert log['accuracy_top-1'].dropna().tolist() == [50, 60]

def test_numbers_that_are_none(tmp_path):
    rows = [facts, train(1, 5, loss=float('nan')), train(1, 10, loss=2.), train(1, 15, loss=float('inf'), grad='big')]
    path = write(tmp_path/'1.log.json', rows)
    assert 'NaN' in path.read_text()
    [curve] = curves_of(path, 'loss')
    assert curve.y.tolist() == [2]
    with pytest.raises(DataError, match="'grad' is logged, but never as a finite number"): curves_of(path, 'grad')

# ---- What is no log, or not a whole one

def test_cut_in_mid_line(log, tmp_path):
    whole = log.read_text().splitlines()
    log.write_text('\n'.join([*whole, whole[1][:30]]))
    with pytest.warns(UserWarning, match='log.json.* ends in the middle of a line') as told:
        figure = plot_curve(log, ['loss'], out=tmp_path/'loss.png')
    assert len(told) == 1 and len(figure.axes[0].lines[0].get_xdata()) == 12
    log.write_text('\n'.join([whole[0], whole[1][:30], *whole[2:]])+'\n')
    with pytest.warns(UserWarning, match='1 of 16 lines are damaged and left out; the first is line 2') as told:
        assert cal_train_time(log).epochs.tolist() == [3]
    assert len(told) == 1

@pytest.mark.parametrize('content, message', [
    (b'', 'holds no measurements'), (b'\n\n', 'holds no measurements'), (b'{"seed": 0}\n', 'holds no measurements'),
    (b'{"mode": "tra', 'holds no measurements'), (b'\x89PNG\r\n\x1a\n\0\0', 'not the log of a run'),
    (b'\0\1\2\3', 'not the log of a run'), (b'Epoch [1][10/100] lr: 0.1\nEpoch [2]\n', 'not the log of a run'),
    (b'[[1, 2], [3, 4]]', 'not the log of a run'), (b'{\n "a": 1,\n "b": 2\n}', 'not the log of a run'),
    (b'{"class_scores": [[1]]}', 'holds no measurements')])
@pytest.mark.parametrize('tool', [plot_curve, cal_train_time])
def test_what_is_no_log(tmp_path, content, message, tool):
    path = tmp_path/'1.log.json'
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with pytest.raises(DataError, match=message) as error: tool(path)
    assert str(path) in str(error.value) and '\n' not in str(error.value)

def test_missing_and_empty(tmp_path):
    with pytest.raises(DataError, match='cannot be read .No such file'): plot_curve(tmp_path/'missing.log.json')
    with pytest.raises(DataError, match='there is no [*].log.json'): plot_curve(tmp_path)
    with pytest.raises(DataError, match='There is no log'): plot_curve([])
    for wrong in (3, [None], [3.5]):
        with pytest.raises(DataError, match='neither a log nor a work folder'): named_logs(wrong)

def test_the_text_log_names_the_other_one(tmp_path):
    (tmp_path/'1.log').write_text('2022-01-01 Epoch [1][10/100]\n')
    with pytest.raises(DataError, match='[.]log[.]json'): plot_curve(tmp_path/'1.log')

# ---- Time

def test_times_are_those_of_mmcls(log):
    "What mmcls 0.25 prints for this log"
    times = cal_train_time(str(log))
    assert train_time_text(times) == (
        f'-----Analyze train time of {log}-----\n'
        'slowest epoch 3, average time is 0.3000\n'
        'fastest epoch 1, average time is 0.1000\n'
        'time std over epochs is 0.0816\n'
        'average iter time: 0.2000 s/iter\n')
    with_first = cal_train_time(log, include_outliers=True)
    assert with_first.average_iter_time.iloc[0] == pytest.approx((.9*3+.1*3+.2*3+.3*3)/12)

def test_times_of_unequal_epochs(tmp_path):
    rows = [facts, *[train(1, i, time=.1) for i in range(1, 9)], train(2, 1, time=.9), train(2, 2, time=.4), train(3, 1)]
    times = cal_train_time([write(tmp_path/'a.log.json', rows), tmp_path])
    assert times.index.tolist() == ['a', tmp_path.name]
    assert times.average_iter_time.iloc[0] == pytest.approx((7*.1+.4)/8)
    assert times.std_over_epochs.iloc[0] == pytest.approx(np.std([.1, .4])) and times.slowest_epoch.iloc[0] == 2

def test_times_that_are_not_there(tmp_path):
    one_each = write(tmp_path/'a.log.json', [facts, train(1, 10), train(2, 10)])
    with pytest.raises(DataError, match='Set include_outliers'): cal_train_time(one_each)
    assert cal_train_time(one_each, include_outliers=True).epochs.tolist() == [2]
    with pytest.raises(DataError, match="no 'time'"): cal_train_time(write(tmp_path/'b.log.json', [val(1, 50)]))
    assert len(epoch_times(read_log(one_each), include_outliers=True)) == 2

# ---- Cards

def progress(folder, **more):
    "The progress of a run that was killed"
    facts = dict(state='running', by_epoch=True, written=1e9, iter=6, max_iters=12, epoch=2, epochs_done=1, max_epochs=3)
    (folder/'progress.json').write_text(json.dumps(facts | dict(pid=1, born='0', host='elsewhere') | more))

def test_card_of_a_run(log):
    folder = log.parent
    (folder/'resnet18_8xb16_cifar10.py').write_text(
        "model = dict(backbone=dict(type='ResNet', depth=18), head=dict(num_classes=10))\n"
        "data = dict(samples_per_gpu=16, train=dict(type='CIFAR10'))\noptimizer = dict(lr=.1)\n"
        "runner = dict(max_epochs=3)\n")
    for name in ('best_accuracy_top-1_epoch_2.pth', 'epoch_3.pth', 'report.html'): (folder/name).write_bytes(b'')
    progress(folder, losses=[2., 1., .5])
    for text in (repr(Run(folder)), Run(folder)._repr_html_()):
        for part in ('best_accuracy_top-1_epoch_2.pth', 'accuracy_top-1', '60', 'report', 'ResNet 18', 'CIFAR10, 10 classes',
                     'batch 16', 'lr 0.1', '3 epochs', 'died', str(folder), 'resumes it'):
            assert part in text, part
    assert '<polyline' in Run(folder)._repr_html_() and 'resnet18_8xb16_cifar10' in Run(folder)._repr_html_()

@pytest.mark.parametrize('name, content', [
    ('1.log.json', b''), ('1.log.json', b'\x89PNG\r\n\0'), ('1.log.json', b'{"mode": "train", "epoch": 1, "it'),
    ('1.log.json', b'{"mode": "train", "loss": "many"}\n{"mode": "val", "loss": [1]}\n{"exp_name": 3}\n'),
    ('1.log.json', b'{"exp_name": "../../etc/passwd\\u0000"}\n'), ('1.log.json/a', b''),
    ('config.py', b'model = (((\n'), ('config.py', b'\xff\xfe\0'), ('config.py', b'model = 3\ndata = [1]\nrunner = None\n'),
    ('config.py', b"checkpoint_config = 5\nevaluation = 'x'\noptimizer = dict(lr='high')\n"), ('config.py/a', b''),
    ('progress.json', b'{"state"'), ('progress.json', b'[]'), ('progress.json/a', b''), ('epoch_1.pth', b'PK'),
    ('epoch_1.pth/a', b''), ('best_accuracy_epoch_99999999999999999999.pth', b''), ('results.npz', b'x'),
    ('report.html/a', b'')])
def test_card_of_a_damaged_folder(tmp_path, name, content):
    path = tmp_path/name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    for more in (False, True):
        if more and name != 'progress.json/a': progress(tmp_path)
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            assert tmp_path.name in repr(Run(tmp_path)) and tmp_path.name in Run(tmp_path)._repr_html_()

def test_card_of_no_folder(tmp_path):
    (tmp_path/'file').write_text('')
    for place in (tmp_path/'missing', tmp_path/'file', tmp_path):
        assert str(place) in repr(Run(place)) and str(place) in Run(place)._repr_html_()

def test_card_of_a_long_log_is_quick(tmp_path):
    "50 MB of log, and a checkpoint of which nothing is read"
    import time
    row = json.dumps(train(1, 1))
    with open(tmp_path/'1.log.json', 'w') as f:
        f.write(json.dumps(facts)+'\n')
        for epoch in range(1, 41):
            f.write((row.replace('"epoch": 1', f'"epoch": {epoch}')+'\n')*10_000)
            f.write(json.dumps(val(epoch, float(epoch)))+'\n')
    (tmp_path/'best_accuracy_top-1_epoch_39.pth').write_bytes(b'')
    assert 'accuracy_top-1 39' in repr(Run(tmp_path))
    times = []
    for _ in range(3):
        start = time.perf_counter()
        Run(tmp_path)._repr_html_()
        times.append(time.perf_counter()-start)
    assert min(times) < .2

def test_card_of_a_sweep():
    from clsnb.apis.lr_find import LrFind
    rates = np.geomspace(1e-6, 10, 60)
    losses = np.concatenate([np.linspace(2.3, 2.3, 20), np.linspace(2.3, .5, 30), np.linspace(.5, 50, 10)])
    card = LrFind(rates.tolist(), losses.tolist(), 60)._repr_html_()
    assert '<polyline' in card and '<circle' in card and 'suggested learning rate' in card
    for found in (LrFind([], []), LrFind([1e-3], [2.]), LrFind(rates.tolist(), [2.]*60)):
        assert 'none' in found._repr_html_() and '<circle' not in found._repr_html_()
