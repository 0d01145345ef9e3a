"Files of results: every format is written and read back, mmcls's own are read, and wrong ones are one line"
import io, json, os, pickle, sys
from collections import OrderedDict
from pathlib import Path
import numpy as np, pandas as pd, pytest
import clsnb
from clsnb.core.errors import ConfigError, DataError
from clsnb.core.plain_pickle import read_plain_pickle
from clsnb.data.sets.folder import CustomDataset
from clsnb.data.sets.wrappers import ConcatDataset, SubsetDataset
from clsnb.runs.folder import Run
from clsnb.runs.result_files import check_results_path, chosen_items, result_endings, result_items, write_results
from clsnb.runs.read_results import read_result_file
from clsnb.runs.results import Results

photos = Path(clsnb.__file__).parent/'photos'
classes = ['animal', 'building', 'fish', 'solar', 'tool', 'windmill']
endings = [o for o in result_endings if o!='.parquet']

def dataset(**changes):
    args = dict(data_prefix=str(photos), pipeline=[], ann_file=str(photos/'val.txt'), classes=classes)
    return CustomDataset(**args | changes)

def some_results(ds=None, **kwargs):
    ds = ds or dataset()
    scores = np.random.default_rng(0).dirichlet(np.ones(6), len(ds)).astype(np.float32)
    return Results.from_dataset(scores, ds, 'epoch_1.pth', **kwargs)

def several_labels():
    rng = np.random.default_rng(1)
    labels = rng.integers(-1, 2, (20, 3))
    return Results(rng.random((20, 3)).astype(np.float32), labels, ['a', 'b,c', 'd'], thr=[.5, .4, .3])

def line_of(error):
    text = str(error.value)
    assert '\n' not in text and 10<len(text)<500, text
    return text

@pytest.mark.parametrize('ending', endings)
def test_every_format_comes_back_exactly(tmp_path, ending):
    path, r = tmp_path/f'r{ending}', some_results()
    r.save(path)
    again = Results.load(path)
    assert np.array_equal(again.scores, r.scores) and again.scores.dtype==np.float32
    assert np.array_equal(again.labels, r.labels) and (again.names, again.classes)==(r.names, r.classes)
    assert again.measure(['accuracy', 'f1_score', 'loss'])==r.measure(['accuracy', 'f1_score', 'loss'])
    if ending!='.csv': assert (again.root, again.checkpoint)==(r.root, r.checkpoint)
    assert not list(tmp_path.glob('.*')) # no unfinished file

@pytest.mark.parametrize('ending', endings)
def test_several_labels_come_back(tmp_path, ending):
    path, r = tmp_path/f'r{ending}', several_labels()
    r.save(path)
    again = Results.load(path)
    assert np.array_equal(again.scores, r.scores) and np.array_equal(again.labels, r.labels)
    if ending!='.csv': assert again.thr==r.thr

def test_a_parquet_file_comes_back(tmp_path):
    pytest.importorskip('pyarrow')
    for r in (some_results(), several_labels(), some_results(left_out=[dict(index=3, file='x.jpg', why='damaged')])):
        r.save(tmp_path/'r.parquet')
        again = Results.load(tmp_path/'r.parquet')
        assert np.array_equal(again.scores, r.scores) and np.array_equal(again.labels, r.labels)
        assert (again.names, again.classes, again.left_out)==(r.names, r.classes, r.left_out)

def test_parquet_without_its_package_is_told_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    with pytest.raises(Exception, match='pip install pyarrow') as e: check_results_path(tmp_path/'r.parquet')
    line_of(e)

@pytest.mark.parametrize('ending', ['.pkl', '.pickle'])
def test_a_pickle_is_one_in_the_shape_of_mmcls(tmp_path, ending):
    r = some_results()
    write_results(tmp_path/f'r{ending}', r, {'accuracy_top-1': 40., 'recall': np.array([1., 2.])})
    found = pickle.loads((tmp_path/f'r{ending}').read_bytes())
    assert found['accuracy_top-1']==40. and found['class_scores'].shape==(54, 6)
    assert np.array_equal(found['pred_label'], r.scores.argmax(1)) and np.array_equal(found['pred_score'], r.scores.max(1))
    assert found['pred_class']==[classes[i] for i in found['pred_label']]

def test_json_and_yaml_have_the_same_keys(tmp_path):
    import yaml
    r = some_results()
    r.save(tmp_path/'r.json')
    r.save(tmp_path/'r.yml')
    a, b = json.loads((tmp_path/'r.json').read_text()), yaml.safe_load((tmp_path/'r.yml').read_text())
    assert a==b and {*result_items, 'labels', 'CLASSES', 'files', 'accuracy_top-1'} <= set(a)

@pytest.mark.parametrize('items, expected', [
    (None, result_items), ('all', result_items), (['none'], ()), (['pred_class'], ('pred_class',)),
    (['class_scores', 'pred_label'], ('class_scores', 'pred_label')), (['pred_label', 'all'], result_items),
])
def test_out_items(tmp_path, items, expected):
    assert chosen_items(items)==expected
    write_results(tmp_path/'r.json', some_results(), dict(accuracy=1.), items)
    found = json.loads((tmp_path/'r.json').read_text())
    assert set(found) & set(result_items)==set(expected) and found['accuracy']==1.

def test_a_wrong_item_lists_the_known_ones(tmp_path):
    with pytest.raises(ConfigError, match="'class_score'.*pred_score, pred_label, pred_class") as e: chosen_items('class_score')
    line_of(e)
    for name, items in (('r.csv', 'none'), ('r.npz', 'pred_label'), ('r.txt', None), ('r', None)):
        with pytest.raises(ConfigError): check_results_path(tmp_path/name, items)

def test_items_in_a_table(tmp_path):
    write_results(tmp_path/'r.csv', some_results(), items=['pred_class', 'pred_score'])
    assert list(pd.read_csv(tmp_path/'r.csv'))==['sample', 'file', 'label', 'pred_score', 'pred_class']
    again = read_result_file(tmp_path/'r.csv')
    assert len(again['pred_class'])==54 and 'class_scores' not in again

def test_awkward_names_in_a_table(tmp_path):
    r = Results(np.eye(3), [0, 1, 2], ['file', 'label', 'a,"b"'], ['x,1.jpg', 'ü\n.jpg', 'b\udce4.jpg'])
    for ending in ('.csv', '.json', '.npz', '.pkl'):
        r.save(tmp_path/f'r{ending}')
        again = Results.load(tmp_path/f'r{ending}')
        assert (again.classes, again.names)==(r.classes, r.names), ending

def test_scores_that_are_no_numbers(tmp_path):
    r = Results([[np.nan, np.nan], [.2, .8]], [0, 1], ['a', 'b'])
    for ending in endings:
        r.save(tmp_path/f'r{ending}')
        again = Results.load(tmp_path/f'r{ending}')
        assert np.isnan(again.scores[0]).all() and np.array_equal(again.scores[1], r.scores[1]), ending
    assert 'NaN' not in (tmp_path/'r.json').read_text() # which is no JSON

def test_left_out_pictures_stay_known(tmp_path):
    gone = [dict(index=1, file='b.jpg', why='damaged'), dict(index=53, file='z.jpg', why='missing')]
    r = some_results(left_out=gone)
    assert len(r)==52 and r.names==[o for i, o in enumerate(some_results().names) if i not in (1, 53)]
    for ending in endings:
        r.save(tmp_path/f'r{ending}')
        for again in (Results.load(tmp_path/f'r{ending}'), Results.load(tmp_path/f'r{ending}', dataset())):
            assert again.left_out==gone and again.names==r.names and np.array_equal(again.labels, r.labels), ending
    table = pd.read_csv(tmp_path/'r.csv')
    assert len(table)==54 and table.problem[1]=='damaged' and table.label.dropna().tolist()==r.labels.tolist()

# ---- mmcls's own files

def mmcls_record(ds, **changes):
    scores = np.random.default_rng(2).dirichlet(np.ones(6), len(ds)).astype(np.float32)
    label = scores.argmax(1)
    return {'accuracy_top-1': 20.37, 'class_scores': scores, 'pred_score': scores.max(1), 'pred_label': label,
            'pred_class': [classes[i] for i in label]} | changes

@pytest.mark.parametrize('protocol', range(6))
def test_the_pickle_of_mmcls_is_read(tmp_path, protocol):
    record = mmcls_record(dataset())
    (tmp_path/'r.pkl').write_bytes(pickle.dumps(record, protocol))
    r = Results.load(tmp_path/'r.pkl', dataset())
    assert np.array_equal(r.scores, record['class_scores']) and r.labels.tolist()==dataset().get_gt_labels().tolist()
    with pytest.raises(DataError, match='holds no labels') as e: Results.load(tmp_path/'r.pkl')
    line_of(e)

def test_numbers_of_numpy_1_and_lists_of_rows_are_read(tmp_path):
    record = mmcls_record(dataset())
    old = pickle.dumps(record, 2).replace(b'numpy._core.multiarray', b'numpy.core.multiarray')
    (tmp_path/'old.pkl').write_bytes(old)
    (tmp_path/'rows.pkl').write_bytes(pickle.dumps(list(record['class_scores'])))
    (tmp_path/'plain.json').write_text(json.dumps({k: getattr(v, 'tolist', lambda v=v: v)() for k, v in record.items()}))
    for name in ('old.pkl', 'rows.pkl', 'plain.json'):
        assert np.array_equal(Results.load(tmp_path/name, dataset()).scores, record['class_scores']), name

def test_some_items_of_mmcls(tmp_path):
    record = mmcls_record(dataset())
    some = {k: record[k] for k in ('pred_score', 'pred_label', 'pred_class')}
    (tmp_path/'r.pkl').write_bytes(pickle.dumps(some))
    r = Results.load(tmp_path/'r.pkl', dataset())
    assert np.array_equal(r.pred, record['pred_label']) and np.array_equal(r.table().score, record['pred_score'])
    with pytest.raises(DataError, match='no class_scores') as e: Results.load(tmp_path/'r.pkl')
    line_of(e)

# ---- Work folders and runs

def test_a_work_folder_and_a_run(tmp_path):
    some_results().save(tmp_path/'results.npz')
    assert len(Results.load(tmp_path))==len(Results.load(Run(tmp_path)))==54
    (tmp_path/'empty').mkdir()
    with pytest.raises(DataError, match='holds no results.npz') as e: Results.load(tmp_path/'empty')
    line_of(e)

# ---- What is no file of results, or one of something else

class Hostile:
    def __init__(self, call, *args): self.call, self.args = call, args
    def __reduce__(self): return self.call, self.args

@pytest.mark.parametrize('call', [
    (os.system, 'touch RAN'), (eval, "open('RAN', 'w')"), (exec, "open('RAN', 'w')"), (open, 'RAN', 'w'),
    (getattr, os, 'system'), (np.load, 'RAN'), (io.open_code, 'RAN'), (np.fromfile, 'RAN'), (__import__, 'os'),
], ids=lambda call: call[0].__name__)
def test_a_hostile_pickle_runs_nothing(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    for content in (Hostile(*call), dict(class_scores=[[1.]], pred_label=[Hostile(*call)])):
        for protocol in (0, 2, 4):
            try: Path('r.pkl').write_bytes(pickle.dumps(content, protocol))
            except TypeError: continue # modules are not pickled
            with pytest.raises(DataError, match='not loaded|no pickle') as e: read_result_file('r.pkl')
            line_of(e)
    assert os.listdir() in (['r.pkl'], [])

def test_hostile_instructions(tmp_path):
    calls = [b'cos\nsystem\n(S"touch RAN"\ntR.', b'\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.',
             b'(S"touch RAN"\nios\nsystem\n.', b'\x82\x01.', b'Pabc\n.', b'cnumpy\nndarray\n(I99999999999\ntR.',
             b'\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc', b'(' * 100000, b'cnumpy\ndtype\n(]tR.']
    for instructions in calls:
        (tmp_path/'r.pkl').write_bytes(instructions)
        with pytest.raises(DataError) as e: read_plain_pickle(tmp_path/'r.pkl')
        line_of(e)

def test_instructions_cannot_change_the_reader(tmp_path):
    from clsnb.core.plain_pickle import plain_names
    function = plain_names['numpy', 'dtype']
    before = function.__kwdefaults__,dict(vars(function))
    path = tmp_path/'r.pkl'
    path.write_bytes(b'\x80\x04cnumpy\ndtype\nN}\x8c\x0e__kwdefaults__}\x8c\x01aK\x01ss\x86b.')
    with pytest.raises(DataError, match='sets attributes'): read_plain_pickle(path)
    assert (function.__kwdefaults__, dict(vars(function)))==before

def test_plain_data_comes_back_from_every_protocol(tmp_path):
    data = dict(a=np.arange(6, dtype=np.int16).reshape(2, 3), f=np.asfortranarray(np.eye(3)), s=np.array(['x', 'yz']),
                n=np.float64(.5), b=np.bool_(True), o=OrderedDict(k=1), t=(1, None, 'ü'), e={1, 2}, x=b'\0\xff', big=1<<80)
    for protocol in range(6):
        (tmp_path/'d.pkl').write_bytes(pickle.dumps(data, protocol))
        again = read_plain_pickle(tmp_path/'d.pkl')
        for k in 'afs': assert np.array_equal(again[k], data[k]) and again[k].dtype==data[k].dtype
        assert {k: again[k] for k in 'nbotex'}=={k: data[k] for k in 'nbotex'} and again['big']==1<<80

@pytest.mark.parametrize('ending', endings)
def test_truncated_files_are_one_line(tmp_path, ending):
    some_results().save(tmp_path/f'r{ending}')
    whole = (tmp_path/f'r{ending}').read_bytes()
    for n in (0, 1, 30, len(whole)//2, len(whole)-3):
        (tmp_path/f't{ending}').write_bytes(whole[:n])
        try: found = Results.load(tmp_path/f't{ending}', dataset())
        except DataError as e: assert '\n' not in str(e) and str(tmp_path) in str(e), (n, e)
        else: assert np.array_equal(found.scores, some_results().scores) # the last bytes of a text may be spaces

@pytest.mark.parametrize('record, message', [
    ([], 'results'), ({}, 'no answers'), ('text', 'holds a str'), (3, 'holds a int'), ({'accuracy_top-1': 5.}, 'only metrics'),
    ({'class_scores': [[.1, .9], [1.]]}, 'all of one length'), ({'class_scores': [['a', 'b']]}, 'rows? of class scores'),
    ({'class_scores': 'abc'}, 'no list'), ({'class_scores': 5}, 'no list'), ({'class_scores': [1., 2.]}, 'scores'),
    ({'class_scores': [[.1, .9]], 'labels': [0, 1]}, '2 labels'), ({'pred_label': [0], 'pred_score': []}, '0 pred_score|1 pred'),
    ([{'file': 'a.jpg', 'class': 'cat'}], 'scores'), ({'class_scores': {'a': 1}}, 'scores'),
], ids=str)
def test_files_of_other_shapes_are_one_line(tmp_path, record, message):
    (tmp_path/'r.json').write_text(json.dumps(record))
    (tmp_path/'r.pkl').write_bytes(pickle.dumps(record))
    for name in ('r.json', 'r.pkl'):
        with pytest.raises(DataError, match=message) as e: Results.load(tmp_path/name, dataset())
        assert name in line_of(e)

def test_files_of_another_data_set_are_one_line(tmp_path):
    ds = dataset()
    fewer = SubsetDataset(ds, range(10))
    other = {k: v for k, v in mmcls_record(ds).items() if k!='pred_class'} | dict(CLASSES=['x', *classes[1:]])
    wide = np.full((54, 7), 1/7, np.float32)
    cases = [
        (mmcls_record(fewer), '10 results, but the data set has 54'), (mmcls_record(ds, class_scores=wide), '7 classes'),
        (other, "class 0 is 'x', not 'animal'"), (mmcls_record(ds, pred_class=['bird']*54), "'bird'"),
        (mmcls_record(ds, files=[f'{i}.png' for i in range(54)]), 'picture 0 is 0.png'),
    ]
    for record, message in cases:
        (tmp_path/'r.pkl').write_bytes(pickle.dumps(record))
        with pytest.raises(DataError, match=message) as e: Results.load(tmp_path/'r.pkl', ds)
        assert 'another data set' in line_of(e)

def test_wrapped_data_sets_know_their_pictures():
    ds = dataset()
    for wrapped in (SubsetDataset(ds, range(5)), ConcatDataset([SubsetDataset(ds, [0, 1]), SubsetDataset(ds, [2, 3, 4])])):
        r = some_results(wrapped)
        assert r.names==some_results().names[:5] and r.image(4).size==some_results().image(4).size
