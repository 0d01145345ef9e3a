"""Tables as people write them: what has one meaning is read, what has none is refused with its row, the rest warns."""
import unicodedata
import warnings

import numpy as np
import pandas as pd
import pytest

from clsnb.core.errors import ClsnbError, ConfigError, DataError
from clsnb.core.registry import DATASETS
from clsnb.data.sets.tables import CSVDataset
from clsnb.data.sets.wrappers import build_dataset

def read(tmp_path, text, name='t.csv', **kw):
    "Classes, labels and pictures of a table, and the warnings"
    path = tmp_path/name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        ds = CSVDataset(ann_file=path, **kw)
    names = [ds.sample_name(i) for i in range(len(ds))]
    return list(ds.CLASSES), ds.get_gt_labels().tolist(), names, [str(o.message) for o in said]

# ---- Fields

@pytest.mark.parametrize('text,words', [
    ('path,label\ncat/0.png,cat,sharp\ndog/0.png,dog,blurred\n', "line 2: 3 fields, but the header has 2 columns"),
    ('path,label\na.png,cat\nb.png,dog,blurred\n', "line 3: 3 fields"),
    ('path,label\na.png,cat\nb.png,"dog\nbig"\nc,x,y\n', "line 5: 3 fields"),
    ('path,label\na, b.png,cat\n', r"line 2: 3 fields.*'a,b.png,cat'.*in quotes"),
    ('path;label\na.png;cat;sharp\n', "line 2: 3 fields"),
    ('path\tlabel\na.png\tcat\tsharp\n', "line 2: 3 fields"),
    ('path,label\na.png\nb.png,dog\n', r'row 1 \(a.png\) has no label'),
    ('path,label\na.png,cat\n,dog\n', 'row 2 names no picture'),
    ('path,label\n', 'has no rows'),
    ('', 'not a readable table'),
])
def test_rows_that_do_not_fit_the_header(tmp_path, text, words):
    with pytest.raises(DataError, match=words): read(tmp_path, text)

def test_a_comma_at_the_end_of_each_line_is_no_field(tmp_path):
    assert read(tmp_path, 'path,label\na.png,cat,\nb.png,dog,\n')[:3]==(['cat', 'dog'], [0, 1], ['a.png', 'b.png'])

@pytest.mark.parametrize('name,sep', [
    ('t.csv', ';'), ('t.csv', '\t'), ('t.csv', '|'), ('t.tsv', ','), ('t.tsv', '\t'), ('t.txt', ';'), ('t.txt', '\t')
])
def test_what_separates_columns_is_found(tmp_path, name, sep):
    text = f'\ufeffpath{sep}label{sep}x\na.png{sep}cat{sep}1\nb.png{sep}dog{sep}2\n'
    assert read(tmp_path, text, name)[:3]==(['cat', 'dog'], [0, 1], ['a.png', 'b.png'])

def test_a_column_that_is_not_there_is_hinted_at(tmp_path):
    with pytest.raises(ConfigError, match="no column 'label'.*Did you mean 'Label'"):
        read(tmp_path, 'path,Label\na,cat\n')

def test_two_columns_of_one_name(tmp_path):
    "pandas calls the second 'cat.1', and it would be left out"
    text = 'path,cat,dog,cat\na,1,0,0\n'
    with pytest.raises(ConfigError, match="several columns 'cat'"): read(tmp_path, text, label_col=['cat', 'dog'])
    assert read(tmp_path, text, label_col=['dog'])[1]==[[0]] # not asked for
    with pytest.raises(ConfigError, match="'cat' is named twice"):
        read(tmp_path, 'path,cat\na,1\n', label_col=['cat', 'cat'])

def test_rows_are_counted_in_the_whole_table(tmp_path):
    text = 'path,label,part\na,x,train\nb,y,val\nc,,train\n'
    with pytest.raises(DataError, match=r'row 3 \(c\) has no label'):
        read(tmp_path, text, split_col='part', split='train')

# ---- Names of classes

def test_names_that_are_the_same(tmp_path):
    nfc, nfd = (unicodedata.normalize(o, 'café') for o in ('NFC', 'NFD'))
    assert nfc!=nfd
    text = f'path,label\na,{nfc}\nb,{nfd}\nc,{nfc} \nd,\u00a0{nfd}\n'
    assert read(tmp_path, text)[:2]==([nfc], [0]*4) and not read(tmp_path, text)[3]
    assert read(tmp_path, text, classes=['tea', nfd])[:2]==(['tea', nfd], [1]*4)

@pytest.mark.parametrize('a,b', [
    ('Cat', 'cat'), ('STRASSE', 'straße'), ('01', '1'), ('1.0', '1'), ('polar bear', 'polar_bear'), ('a  b', 'a b'),
    ('ﬁsh', 'fish'), ('e3', 'E3')
])
def test_names_that_look_alike_are_told_with_their_rows(tmp_path, a, b):
    classes, labels, _, said = read(tmp_path, f'path,label\np,{a}\nq,zebra\nr,{b}\n')
    assert len(classes)==3 and len(set(labels))==3
    assert len(said)==1 and f'{a!r} (row 1) and {b!r} (row 3) look alike' in said[0]
    assert not read(tmp_path, f'path,label\np,{a}\nq,zebra\nr,{b}\n', classes=[a, b, 'zebra'])[3]

def test_different_names_say_nothing(tmp_path):
    assert read(tmp_path, 'path,label\na,cat\nb,cats\nc,-1\nd,1\ne,rat\n')[3]==[]

def test_a_class_twice(tmp_path):
    with pytest.raises(DataError, match="'cat' twice, for the numbers 0 and 2"):
        read(tmp_path, 'path,label\na,cat\n', classes=['cat', 'dog', 'cat'])
    assert read(tmp_path, 'path,label\na,2\n', classes=['cat', 'dog', 'cat'])[1]==[2] # numbers need no names

def test_a_class_twice_in_folders(tmp_path):
    from PIL import Image
    for name in ('cat', 'dog'):
        (tmp_path/name).mkdir()
        Image.new('RGB', (8, 8)).save(tmp_path/name/'0.png')
    with pytest.raises(DataError, match="'cat' twice"):
        build_dataset(dict(type='CustomDataset', data_prefix=str(tmp_path), pipeline=[], classes=['cat', 'dog', 'cat']))

@pytest.mark.filterwarnings('ignore:.*has no samples')
@pytest.mark.parametrize('text,classes,want', [
    ('1\n0\n', None, (['0', '1'], [1, 0])), ('1.0\n0\n', None, (['0', '1'], [1, 0])),
    ('1\n0\n', ['no', 'yes'], (['no', 'yes'], [1, 0])), ('10\n9\n', None, (['9', '10'], [1, 0])),
    ('007\n7\n', None, (['007', '7'], [0, 1])), ('7\n3\n', ['3', '7'], (['3', '7'], [1, 0])),
])
def test_numbers_as_labels(tmp_path, text, classes, want):
    rows = ''.join(f'{i},{o}\n' for i,o in enumerate(text.split()))
    assert read(tmp_path, f'path,label\n{rows}', classes=classes)[:2]==want

@pytest.mark.parametrize('label,words', [
    ('2', 'sample 1.*label 2, but there are 2 classes'), ('-1', 'sample 1.*label -1'),
    ('1.5', r"row 2 \(b\) has the class '1.5'"), ('dgo', r"row 2 \(b\) has the class 'dgo'.*Did you mean 'dog'"),
    ('99999999999999999999', 'none of the 2 classes'), ('nan', "row 2"),
])
def test_labels_beyond_the_classes(tmp_path, label, words):
    with pytest.raises(DataError, match=words):
        read(tmp_path, f'path,label\na,0\nb,{label}\n' if label[-1].isdigit() and '.' not in label
             else f'path,label\na,cat\nb,{label}\n', classes=['cat', 'dog'])

def test_the_same_picture_with_another_label(tmp_path):
    said = read(tmp_path, 'path,label\na,cat\nb,dog\na,dog\na,cat\n')[3]
    assert len(said)==1 and "row 3 (a) has the label 'dog', but row 1 has 'cat' for the same picture; 1 rows" in said[0]
    assert not read(tmp_path, 'path,label\na,cat\nb,dog\na,cat\n')[3]
    said = read(tmp_path, 'path,x,y\na,1,0\na,0,1\n', label_col=['x', 'y'])[3]
    assert 'row 2 (a) has the label [0, 1], but row 1 has [1, 0]' in said[0]

# ---- Several labels

@pytest.mark.filterwarnings('ignore:.*has no samples')
def test_several_labels_in_a_cell(tmp_path):
    text = 'path,label\ncat/0.png,cat dog\ndog/0.png,dog\ncat/1.png,cat\nx.png,\n'
    assert read(tmp_path, text, label_sep=' ')[:2]==(['cat', 'dog'], [[1, 1], [0, 1], [1, 0], [0, 0]])
    assert read(tmp_path, text, label_sep=' ', classes=['owl', 'dog', 'cat'])[1][0]==[0, 1, 1]
    classes, labels, _, said = read(tmp_path, text.rsplit('\n', 2)[0])
    assert classes==['cat', 'cat dog', 'dog'] and "row 1 (cat/0.png) has the label 'cat dog'" in said[0]
    assert "label_sep=' '" in said[0]

@pytest.mark.filterwarnings('ignore:.*has no samples')
@pytest.mark.parametrize('cell,sep,want', [
    ('"cat, dog"', ',', [1, 1]), ('cat;dog;', ';', [1, 1]), ('cat|cat', '|', [1, 0]), (' dog ', ';', [0, 1]),
    ('cat||dog', '||', [1, 1])
])
def test_separators_of_labels(tmp_path, cell, sep, want):
    assert read(tmp_path, f'path,label\na,{cell}\n', label_sep=sep, classes=['cat', 'dog'])[1]==[want]

def test_lists_in_a_frame():
    df = pd.DataFrame(dict(path=list('abc'), label=[['cat', 'dog'], [], np.array(['dog'])]))
    assert CSVDataset(ann_file=df, label_sep=' ').get_gt_labels().tolist()==[[1, 1], [0, 0], [0, 1]]
    with pytest.raises(ConfigError, match=r'row 1 \(a\) has a list of labels: set label_sep'): CSVDataset(ann_file=df)

@pytest.mark.filterwarnings('ignore:.*has no samples')
@pytest.mark.parametrize('kw,words', [
    (dict(label_sep=''), 'label_sep is the text'), (dict(label_sep=3), 'label_sep is the text'),
    (dict(label_sep=' ', label_col=['label']), 'label_col names several'),
    (dict(label_sep=' ', classes=['cat']), r"row 1 \(a\) has the class 'dog'"),
    (dict(label_sep=' ', label_col='number', classes=['x', 'y']), 'label 7, but there are 2 classes'),
])
def test_labels_in_a_cell_that_cannot_be(kw, words):
    df = pd.DataFrame(dict(path=['a', 'b'], label=['cat dog', 'cat'], number=['0 1', '7']))
    with pytest.raises(ClsnbError, match=words): CSVDataset(ann_file=df, **kw)

@pytest.mark.parametrize('values,want', [
    ([True, False], [1, 0]), ([1., 0.], [1, 0]), (['True', 'false'], [1, 0]), ([-1, 1], [-1, 1]),
])
@pytest.mark.filterwarnings('ignore:.*has no samples')
def test_columns_of_other_types(values, want):
    df = pd.DataFrame(dict(path=list('ab'), x=values, y=[1, 0]))
    assert CSVDataset(ann_file=df, label_col=['x', 'y']).get_gt_labels()[:, 0].tolist()==want

@pytest.mark.parametrize('value,words', [
    (.5, r"row 2 \(b\) has '0.5' in column 'x'"), (2, r"row 2 \(b\) has '2'"), (-2, "row 2"), (None, 'has nothing'),
    ('yes', "row 2 .*'yes'"), ('', "row 2")
])
def test_columns_that_hold_no_labels(value, words):
    df = pd.DataFrame(dict(path=list('ab'), x=pd.Series([1, value], dtype=object), y=[1, 0]))
    with pytest.raises(DataError, match=words): CSVDataset(ann_file=df, label_col=['x', 'y'])

def test_several_labels_are_judged_as_such():
    df = pd.DataFrame(dict(path=list('ab'), label=['cat dog', 'dog']))
    ds = DATASETS.build(dict(type='CSVDataset', ann_file=df, label_sep=' ', pipeline=[]))
    assert ds.evaluate(ds.get_gt_labels()*1.)=={'mAP': 100} and ds.get_cat_ids(0)==[0, 1]
