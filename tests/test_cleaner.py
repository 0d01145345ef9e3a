"The journal of a cleaned data set: nothing that was marked is lost, and training sees it"
import os, signal, subprocess, sys, threading, time
from pathlib import Path
import numpy as np, pytest
from PIL import Image
from clsnb.config.config import Config
from clsnb.core.errors import DataError
from clsnb.core.registry import DATASETS, dict_problems
from clsnb.data.cleaned import sample_keys
from clsnb.data.journal import Journal, journal_path, journal_table, open_journal
from clsnb.data.sets.folder import CustomDataset
from clsnb.data.sets.packaged import Digits
from clsnb.data.sets.wrappers import ConcatDataset, RepeatDataset, SubsetDataset, build_dataset

steps = [dict(type='LoadImageFromFile'), dict(type='ToTensor', keys=['gt_label'])]

@pytest.fixture
def folder(tmp_path):
    "Two classes of four pictures"
    for k, name in enumerate(('cat', 'dog')):
        (tmp_path/'pets'/name).mkdir(parents=True)
        for i in range(4): Image.new('RGB', (8, 8), (60*i, 99*k, 0)).save(tmp_path/'pets'/name/f'{i} ä,"b".png')
    return tmp_path/'pets'

def pets(folder, **kw): return CustomDataset(str(folder), steps, **kw)

# ---- the file

@pytest.mark.parametrize('name', ['a.jpg', 'Söhne/ä b.jpg', 'a,"b".jpg', 'a\nb.jpg', 'a\\nb.jpg', 'a\\\\.jpg', '猫.png', ' x ',
                                  '#.jpg', '\udce4.jpg', 'a\rb', "';--"])
def test_any_name_survives(tmp_path, name):
    path = tmp_path/'j.csv'
    Journal(path).mark(name, 'relabel', 'ein, "Label"', [name])
    mark = Journal(path).marks[name]
    assert (mark.file, mark.label, mark.was) == (name, 'ein, "Label"', name)
    assert len(path.read_bytes().splitlines()) <= 2+name.count('\r')

def test_it_is_a_csv_that_pandas_reads(tmp_path):
    import pandas as pd
    journal = Journal(tmp_path/'j.csv')
    journal.mark(['a.jpg', 'b,c.jpg'], 'relabel', 'dog', ['cat', 'cow'])
    table = pd.read_csv(journal.path)
    assert list(table) == ['action', 'file', 'label', 'was', 'stroke', 'when', 'check']
    assert table.file.tolist() == ['a.jpg', 'b,c.jpg'] and table.was.tolist() == ['cat', 'cow']

@pytest.mark.parametrize('damage', [
    lambda o: o[:len(o)//2], # cut off
    lambda o: o[:9]+b'\0'*9+o[18:], # zeros, as after a power cut
    lambda o: o[:9]+o[14:], # a hole
    lambda o: b'', # gone
    lambda o: b'\xff\xfe\x80'*7,
    lambda o: o+b',more',
    lambda o: o.replace(b'remove', b'relabel'),
    lambda o: b'"'+o])
def test_a_damaged_line_costs_itself_alone(tmp_path, damage):
    journal = Journal(tmp_path/'j.csv')
    for name in 'abc': journal.mark(f'{name}.jpg', 'remove')
    lines = journal.path.read_bytes().split(b'\n')
    lines[2] = damage(lines[2])
    journal.path.write_bytes(b'\n'.join(lines))
    again = Journal(journal.path)
    assert sorted(again.marks) == ['a.jpg', 'c.jpg']
    if lines[2]: assert len(again.problems) == 1 and 'line 3' in again.problems[0] and 'j.csv' in again.problems[0]
    again.mark('d.jpg', 'keep')
    assert sorted(Journal(journal.path).marks) == ['a.jpg', 'c.jpg', 'd.jpg']

def test_a_line_that_was_cut_off_stays_alone(tmp_path):
    "The next mark does not continue the line that a dead kernel left"
    journal = Journal(tmp_path/'j.csv')
    journal.mark(['a.jpg', 'b.jpg'], 'remove')
    data = journal.path.read_bytes()
    for n in range(1, 30):
        journal.path.write_bytes(data[:-n])
        again = Journal(journal.path)
        whole = n in (1, 9) # only the line break is gone, or only the check sum
        kept = {'a.jpg', 'b.jpg'} if whole else {'a.jpg'}
        assert set(again.marks) == kept and len(again.problems) == (not whole), n
        again.mark('c.jpg', 'keep')
        assert set(again.marks) == set(Journal(journal.path).marks) == {'c.jpg'} | kept, n
        assert len(again.problems) == len(Journal(journal.path).problems)

def test_lines_by_hand_and_from_a_spreadsheet(tmp_path):
    path = tmp_path/'j.csv'
    journal = Journal(path)
    journal.mark('a.jpg', 'remove')
    path.write_bytes(b'\xef\xbb\xbf'+path.read_bytes().replace(b'\n', b'\r\n')+b'keep,b.jpg,,,,,\r\n')
    again = Journal(path)
    assert {k: o.action for k, o in again.marks.items()} == {'a.jpg': 'remove', 'b.jpg': 'keep'} and not again.problems

def test_undo(tmp_path):
    path = tmp_path/'j.csv'
    one, two = Journal(path), Journal(path)
    assert one.undo() == []
    one.mark('a', 'remove')
    one.mark(['a', 'b', 'c'], 'keep')
    two.mark('a', 'unsure')
    assert one.marks['a'].action == 'unsure'
    assert sorted(o.file for o in one.undo()) == ['a', 'b', 'c'] and one.marks['a'].action == 'unsure'
    assert [o.action for o in two.undo()] == ['unsure'] and one.marks['a'].action == 'remove'
    assert two.undo() == [] and len(one) == 1 # it has nothing of its own left
    fresh = Journal(path)
    assert [o.file for o in fresh.undo()] == ['a'] and len(one) == len(two) == len(fresh) == 0
    assert fresh.undo() == [] and one.undo() == []
    one.mark('a', 'keep')
    assert len(fresh) == 1

def test_a_replaced_or_deleted_file_is_noticed(tmp_path):
    journal, other = Journal(tmp_path/'j.csv'), Journal(tmp_path/'k.csv')
    journal.mark(['a', 'b'], 'remove')
    other.mark('c', 'keep')
    os.replace(other.path, journal.path)
    assert list(journal.marks) == ['c']
    journal.path.unlink()
    assert not journal.marks
    journal.mark('d', 'keep')
    assert list(Journal(journal.path).marks) == ['d']

def test_a_writer_waits_for_the_other(tmp_path):
    fcntl = pytest.importorskip('fcntl')
    journal = Journal(tmp_path/'j.csv')
    journal.mark('a', 'keep')
    with open(journal.path, 'rb') as f:
        fcntl.flock(f.fileno(), fcntl.LOCK_SH)
        thread = threading.Thread(target=journal.mark, args=('b', 'keep'))
        thread.start()
        thread.join(.3)
        assert thread.is_alive() and b',b,' not in journal.path.read_bytes()
        fcntl.flock(f.fileno(), fcntl.LOCK_UN)
    thread.join(10)
    assert sorted(Journal(journal.path).marks) == ['a', 'b']

script = '''
import sys
from clsnb.data.journal import Journal
journal = Journal(sys.argv[1])
print('ready', flush=True)
sys.stdin.readline()
for i in range(int(sys.argv[3])): journal.mark([f'{sys.argv[2]} {i} {k}' for k in range(3)], 'remove', was=['x'*200]*3)
'''

def test_two_notebooks_write_at_once(tmp_path):
    path = tmp_path/'j.csv'
    runs = [subprocess.Popen([sys.executable, '-c', script, str(path), name, '40'], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True) for name in 'ab']
    for run in runs: assert run.stdout.readline()=='ready\n'
    for run in runs: run.stdin.write('go\n'), run.stdin.flush()
    for run in runs: assert run.wait(60)==0
    journal = Journal(path)
    assert len(journal.marks) == 240 and not journal.problems
    assert path.read_bytes().count(b'action,file') == 1

def test_threads_of_one_notebook(tmp_path):
    journals = [Journal(tmp_path/'j.csv') for _ in range(4)]
    def work(k):
        for i in range(25): journals[k].mark(f'{k} {i}', 'keep')
    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for o in threads: o.start()
    for o in threads: o.join()
    assert len(Journal(tmp_path/'j.csv')) == 100 and not journals[0].problems

@pytest.mark.skipif(os.name=='nt', reason='kills a process with SIGKILL')
def test_a_killed_kernel_loses_nothing(tmp_path):
    path = tmp_path/'j.csv'
    run = subprocess.Popen([sys.executable, '-c', script, str(path), 'a', '100000'], stdin=subprocess.PIPE,
                           stdout=subprocess.PIPE, text=True)
    run.stdout.readline()
    run.stdin.write('go\n')
    run.stdin.flush()
    while not path.exists() or path.stat().st_size<9000: time.sleep(.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    journal = Journal(path)
    n = len(journal)
    assert n>=20 and len(journal.problems)<=1
    journal.mark('after', 'keep')
    assert len(Journal(path)) == n+1

@pytest.mark.parametrize('call, words', [
    (lambda p: Journal(p/'j.csv').mark('a', 'delete'), "no action 'delete'"),
    (lambda p: Journal(p/'j.csv').mark('a', 'relabel'), 'label is needed'),
    (lambda p: Journal(p/'j.csv').mark('a', 'keep', 'cat'), 'label is needed'),
    (lambda p: Journal(p/'j.csv').mark(['a', 'b'], 'keep', was=['cat']), '1 classes were given for 2 samples'),
    (lambda p: Journal(p), 'is a folder'),
    (lambda p: Journal('s3://b/j.csv'), 'local file'),
    (lambda p: open_journal(p/'no.csv'), 'There is no journal'),
    (lambda p: open_journal(7), 'not 7')])
def test_mistakes_are_one_line(tmp_path, call, words):
    with pytest.raises(DataError, match=words) as e: call(tmp_path)
    assert '\n' not in str(e.value) and not (tmp_path/'j.csv').exists()

def test_a_full_disk_leaves_no_half_line(tmp_path, monkeypatch):
    import clsnb.data.journal as module
    journal = Journal(tmp_path/'j.csv')
    journal.mark('a', 'keep')
    before = journal.path.read_bytes()
    def full(f, data):
        f.write(data[:7])
        raise OSError(28, 'No space left on device')
    with monkeypatch.context() as m:
        m.setattr(module, '_write_all', full)
        with pytest.raises(DataError, match='No space left'): journal.mark('b', 'keep')
    assert journal.path.read_bytes() == before and list(journal.marks) == ['a']
    journal.mark('b', 'keep')
    assert list(Journal(journal.path).marks) == ['a', 'b']

def test_where_it_lies(tmp_path, monkeypatch):
    (tmp_path/'data').mkdir()
    assert journal_path(tmp_path/'data') == tmp_path/'data.journal.csv'
    assert journal_path(str(tmp_path/'data')+'/') == tmp_path/'data.journal.csv'
    assert not journal_path('').is_absolute() and not journal_path('s3://bucket/x').is_absolute()
    monkeypatch.setattr(os, 'access', lambda *a: False)
    assert journal_path(tmp_path/'data') == Path('data.journal.csv')

def test_many_marks(tmp_path):
    names = [f'class/{i}.jpg' for i in range(20_000)]
    journal = Journal(tmp_path/'j.csv')
    journal.mark(names, 'keep')
    for i in range(20): journal.mark(names[i], 'remove')
    assert len(Journal(journal.path)) == 20_000

def test_a_file_without_locks_is_written(tmp_path, monkeypatch):
    import fcntl
    def refuse(*a): raise OSError(38, 'not implemented')
    monkeypatch.setattr(fcntl, 'flock', refuse)
    Journal(tmp_path/'j.csv').mark('a', 'keep')
    assert list(Journal(tmp_path/'j.csv').marks) == ['a']

def test_the_table_and_the_card(tmp_path):
    journal = Journal(tmp_path/'j.csv')
    assert 'no marks' in repr(journal) and len(journal_table(journal)) == 0
    journal.mark('<b>.jpg', 'relabel', ['a', 'b'], ['c'])
    assert journal_table(journal).action.tolist() == ['relabel'] and '1 relabel' in repr(journal)
    assert '&lt;b&gt;.jpg' in journal._repr_html_() and 'a, b' in journal._repr_html_()

# ---- what it does to a data set

def journal_for(folder, *marks):
    journal = Journal(journal_path(folder))
    for mark in marks: journal.mark(*mark)
    return journal

cat, dog = 'cat/0 ä,"b".png', 'dog/1 ä,"b".png'

def test_apply(folder):
    files = {o: o.read_bytes() for o in folder.rglob('*.png')}
    ds = pets(folder)
    journal = journal_for(folder, (cat, 'remove'), (dog, 'relabel', 'cat'),
                          ('cat/2 ä,"b".png', 'keep'), ('cat/3 ä,"b".png', 'unsure'))
    cleaned = ds.apply(journal)
    assert len(cleaned) == 7 and len(ds) == 8 and ds.get_gt_labels().tolist() == [0]*4+[1]*4
    names = sample_keys(cleaned)
    assert cat not in names and cleaned.get_gt_labels()[names.index(dog)] == 0
    i = names.index(dog)
    assert int(cleaned[i]['gt_label']) == 0 and cleaned.get_cat_ids(i) == [0] and cleaned.sample_name(i) == dog
    assert len(ds.apply(str(journal.path), unsure='remove')) == 6
    assert {o: o.read_bytes() for o in folder.rglob('*.png')} == files
    assert cleaned.evaluate(np.eye(2)[cleaned.get_gt_labels()])['accuracy_top-1'] == 100

@pytest.mark.parametrize('wrap', [
    lambda d: RepeatDataset(d, 2), lambda d: SubsetDataset(d, [0, 5, 7]), lambda d: ConcatDataset([d, d]),
    lambda d: SubsetDataset(RepeatDataset(ConcatDataset([d, SubsetDataset(d, [0, 5])]), 2), [0, 5, 8, 9, 10])])
def test_apply_on_wrapped_sets(folder, wrap):
    ds = wrap(pets(folder))
    journal = journal_for(folder, (cat, 'remove'), (dog, 'relabel', 'cat'))
    old, cleaned = dict(zip(sample_keys(ds), ds.get_gt_labels())), ds.apply(journal)
    new = dict(zip(sample_keys(cleaned), cleaned.get_gt_labels()))
    assert new == {k: 0 if k==dog else v for k, v in old.items() if k!=cat}
    assert [int(o['gt_label']) for o in cleaned] == cleaned.get_gt_labels().tolist()

def test_two_folders_are_told_apart(folder, tmp_path):
    import shutil
    shutil.copytree(folder, tmp_path/'more')
    both = ConcatDataset([pets(folder), pets(tmp_path/'more')])
    journal = Journal(tmp_path/'j.csv')
    journal.mark(str(folder/cat), 'remove')
    cleaned = both.apply(journal)
    assert len(cleaned) == 15 and str(tmp_path/'more'/cat) in sample_keys(cleaned)

def test_pictures_in_memory():
    ds = Digits('val', [])
    keys = sample_keys(ds)
    assert keys[3] == 'sample 3'

def test_apply_from_a_config(folder, tmp_path):
    journal = journal_for(folder, (cat, 'remove'), (dog, 'relabel', 'cat'))
    data = dict(type='CustomDataset', data_prefix=str(folder), pipeline=steps, journal=str(journal.path))
    assert len(build_dataset(data)) == 7
    assert len(build_dataset(dict(type='RepeatDataset', times=2, dataset=data))) == 14
    assert len(build_dataset([data, data])) == 14
    assert len(build_dataset(data, dict(test_mode=True), like=pets(folder))) == 7
    assert not list(dict_problems(dict(type='RepeatDataset', times=2, dataset=data), DATASETS, extra=('journal',)))
    with pytest.raises(DataError, match='There is no journal'): build_dataset({**data, 'journal': str(tmp_path/'no.csv')})

def test_the_check_knows_the_key(folder, tmp_path):
    journal = journal_for(folder, (cat, 'remove'))
    cfg = Config.fromfile('resnet18-tiny_1xb16_photos')
    cfg.data.train.journal = str(journal.path)
    assert not [o for o in cfg.check() if 'journal' in str(o)]
    cfg.data.train.journal = str(tmp_path/'no.csv')
    assert [o for o in cfg.check() if 'no.csv' in str(o)]
    cfg.data.train.journal = 7
    assert [o for o in cfg.check() if 'data.train.journal' in str(o)]

def test_unknown_classes_and_empty_sets(folder):
    journal = journal_for(folder, (cat, 'relabel', 'dgo'))
    with pytest.raises(DataError, match="'dgo'.*Did you mean 'dog'"): pets(folder).apply(journal)
    journal.undo()
    journal.mark(sample_keys(pets(folder)), 'remove')
    with pytest.raises(DataError, match='removes all 8 samples'): pets(folder).apply(journal)
    with pytest.raises(DataError, match="'keep' or 'remove'"): pets(folder).apply(journal, unsure='perhaps')

def test_marks_of_another_data_set_are_said(folder, caplog):
    from clsnb.core.log import get_logger
    journal = journal_for(folder, ('other/1.jpg', 'remove'))
    logger = get_logger()
    logger.addHandler(caplog.handler)
    try: assert len(pets(folder).apply(journal)) == 8
    finally: logger.removeHandler(caplog.handler)
    assert any('0 of 1 marks' in o.getMessage() and o.levelname=='WARNING' for o in caplog.records)

def test_several_labels(folder, tmp_path):
    from clsnb.data.sets.tables import CSVDataset
    table = tmp_path/'labels.csv'
    table.write_text('path,cat,dog\n"cat/0 ä,""b"".png",1,0\n"dog/1 ä,""b"".png",0,1\n')
    ds = CSVDataset(data_prefix=str(folder), ann_file=str(table), pipeline=[], label_col=['cat', 'dog'])
    journal = journal_for(folder, (cat, 'relabel', ['cat', 'dog']))
    cleaned = ds.apply(journal)
    assert cleaned.get_gt_labels().tolist() == [[1, 1], [0, 1]] and cleaned.get_cat_ids(0) == [0, 1]

# ---- the explorer, without a browser

@pytest.fixture
def plain():
    from clsnb.widgets.canvas import use_canvas
    use_canvas(False)
    yield
    use_canvas(None)

def test_buttons_mark_and_undo(folder, plain):
    from clsnb.widgets.cleaner import Cleaner
    ex = Cleaner(folder)
    assert ex.journal.path == folder.with_name('pets.journal.csv') and ex.alt == '8 of 8 pictures'
    ex.set(count=2)
    ex.panel.buttons['remove'].click()
    assert [o.action for o in ex.journal.marks.values()] == ['remove']*2
    ex.set(label='dog', first=1, count=1)
    ex.panel.label.value = 'cat'
    ex.panel.buttons['relabel'].click()
    assert ex.journal.marks[dog].label == 'cat' and ex.journal.marks[dog].was == 'dog'
    ex.set(label=None, marked='remove', first=0)
    assert ex.shown.tolist() == [0, 1]
    ex.panel.buttons['undo'].click()
    ex.panel.buttons['undo'].click()
    assert not ex.journal.marks and len(ex.shown) == 0 and not ex.errors
    ex.panel.buttons['undo'].click()
    assert 'nothing to take back' in ex.panel.status.value
    ex.panel.buttons['keep'].click()
    assert 'No picture is chosen' in ex.panel.status.value and len(ex.panel.errors) == 1
    ex.close()

def test_marks_survive_switching_and_restarting(folder, plain):
    from clsnb.widgets.cleaner import Cleaner
    one, two = Cleaner(folder), Cleaner(folder)
    one.panel.act('remove', [0])
    two.panel.act('unsure', [5])
    one.set(label='dog', search='1')
    one.set(label=None, search='')
    again = Cleaner(pets(folder))
    assert {k: o.action for k, o in again.journal.marks.items()} == {cat: 'remove', dog: 'unsure'}
    assert len(again.pictures.select(again.journal.marks, marked='not yet')) == 6
    for ex in (one, two, again): ex.close()

def test_canvas_keys(folder):
    from clsnb.widgets.canvas import use_canvas
    from clsnb.widgets.cleaner import Cleaner
    use_canvas(True)
    ex = Cleaner(folder)
    use_canvas(None)
    def press(key, current=0): ex.grid._handle_custom_msg(dict(type='key', key=key, current=current), [])
    press('x', 3)
    assert list(ex.journal.marks) == ['cat/3 ä,"b".png']
    ex.grid.selection = [0, 1]
    press('2')
    assert [o.label for o in ex.journal.marks.values() if o.action=='relabel'] == ['dog', 'dog']
    ex.panel.buttons['unsure'].click()
    assert sum(o.action=='unsure' for o in ex.journal.marks.values()) == 2
    press('z'), press('z'), press('z'), press('q'), press('9')
    assert not ex.journal.marks and not ex.errors and not ex.panel.errors
    assert 'keep' not in ex._caption(0)
    press('k')
    assert ex._caption(0).startswith('✓ keep | cat: 0')
    ex.close()

def test_bad_pictures_and_journals_are_shown(folder, tmp_path, plain):
    from clsnb.widgets.cleaner import Cleaner
    (folder/'cat'/'0 ä,"b".png').write_bytes(b'no picture')
    ex = Cleaner(pets(folder))
    (folder/'cat'/'1 ä,"b".png').unlink()
    ex.redraw()
    assert not ex.errors and ex.snapshot().jpeg
    ex.panel.act('remove', [0])
    ex.journal.path.write_bytes(ex.journal.path.read_bytes()[:-20])
    ex.panel.act('keep', [2])
    assert 'line 2 was cut off' in ex.panel.status.value or 'line 2 is damaged' in ex.panel.status.value
    ex.journal.path.unlink()
    ex.journal.path.mkdir()
    ex.panel.act('keep', [3])
    assert 'cannot be' in ex.panel.status.value and len(ex.panel.errors) == 1
    ex.close()

def test_a_clean_close(folder, plain):
    from ipywidgets.widgets.widget import _instances
    from clsnb.widgets.cleaner import Cleaner
    n = len(_instances)
    for _ in range(3): Cleaner(folder).close()
    assert len(_instances) == n

def test_it_takes_what_people_have(folder, tmp_path, plain, monkeypatch):
    from clsnb.runs.results import Results
    from clsnb.widgets.cleaner import Cleaner
    monkeypatch.chdir(tmp_path)
    results = Results.from_dataset(np.eye(2)[[0]*8], pets(folder))
    results.save('results.json')
    for source in (results, 'results.json', pets(folder), str(folder), RepeatDataset(pets(folder), 1), Digits('val', [])):
        ex = Cleaner(source, tmp_path/'j.csv')
        assert not ex.errors and ex.snapshot().jpeg, source
        ex.close()
    assert Cleaner.accepts(folder) and Cleaner.accepts(results) and Cleaner.accepts(pets(folder)) and not Cleaner.accepts(7)
    with pytest.raises(DataError, match='no such file'): Cleaner(tmp_path/'nowhere')

def test_the_report_says_what_is_marked(folder, tmp_path):
    from types import SimpleNamespace
    from clsnb.analysis.report_facts import ReportFacts, run_facts
    from clsnb.runs.results import Results
    results = Results(np.eye(2, dtype=np.float32), [0, 1], classes=['cat', 'dog'])
    def marks(**part):
        run = SimpleNamespace(config=dict(data=dict(val=dict(type='CustomDataset', **part))), progress=None, folder=tmp_path,
                              left_out=[])
        return run_facts(ReportFacts(run, results, 'pets')).get('marks')
    assert marks(data_prefix=str(folder)) is None
    other = Journal(tmp_path/'other.csv')
    other.mark([dog], 'unsure')
    other.mark([cat], 'remove')
    assert marks(data_prefix=str(folder), journal=str(other.path)) == 'other.csv: 1 remove, 1 unsure'
    Journal(journal_path(folder)).mark([cat], 'keep')
    assert marks(data_prefix=str(folder)) == 'pets.journal.csv: 1 keep'

def test_verify_reads_the_journal(folder):
    from clsnb.data.verify import verify_dataset
    journal = journal_for(folder, (dog, 'unsure'), (cat, 'remove'))
    journal.path.write_bytes(journal.path.read_bytes()+b'remove,ca')
    data = dict(type='CustomDataset', data_prefix=str(folder), pipeline=[], journal=str(journal.path))
    for source, n in ((str(folder), 8), (data, 7)):
        found = verify_dataset(source, workers=0, tiny=0)
        assert found[found.problem=='unsure'].file.tolist() == [dog]
        assert 'cut off' in found[found.problem=='journal'].detail.iloc[0]
        assert found.attrs['checked'] == n
