"""Names of classes, labels, and samples that are changed.

ImageNet's 1,000 names and folders against two lists made by others; what differs, differs for a reason.

torchvision gives the first synonym of each class, and tells two pairs apart that WordNet gives one first name; timm
gives all synonyms, and the folders.
"""
import copy, pickle, random, re
from collections import Counter
import numpy as np
import pytest
from clsnb.core.errors import DataError
from clsnb.core.registry import DATASETS
from clsnb.data.pixels.file_client import file_client
from clsnb.data.sets.dataset import BaseDataset
from clsnb.data.sets.folder import CustomDataset
from clsnb.data.sets.labels import packaged_classes
from clsnb.data.sets.multi_label import MultiLabelDataset
from clsnb.data.sets.packaged import Photos
from clsnb.data.sets.samples import FileSamples
from clsnb.data.sets.tables import CSVDataset

names = packaged_classes('imagenet')
folders = list(names.folders)
def first(s):
    return re.sub(r'\s+', ' ', s.split(',')[0]).strip().lower()

def test_torchvision():
    from torchvision.models._meta import _IMAGENET_CATEGORIES as theirs
    assert len(theirs)==len(names)==1000
    other = {
        i: (a, b)
        for i,(a, b) in enumerate(zip(names, theirs))
        if first(a)!=first(b)
    }
    assert other=={134: ('crane', 'crane bird'), 639: ('maillot, tank suit', 'maillot tank suit')}

def test_timm():
    info = pytest.importorskip('timm.data').ImageNetInfo('imagenet-1k')
    assert folders==info.label_names() and list(names)==[info.index_to_description(i) for i in range(1000)]

def test_names_that_two_classes_share():
    "The only ones: data sets tell them apart by their folders"
    twice = {k for k,n in Counter(names).items() if n>1}
    firsts = {k for k,n in Counter(map(first, names)).items() if n>1}
    assert twice=={'crane'} and firsts=={'cardigan', 'crane', 'maillot'}
    assert (
        [(i, folders[i]) for i,n in enumerate(names) if first(n) in firsts]
        == [
            (134, 'n02012849'), (264, 'n02113186'), (474, 'n02963159'), (517, 'n03126707'),
            (638, 'n03710637'), (639, 'n03710721')
        ]
    )

def test_folders():
    assert folders==sorted(set(folders))
    assert all(re.fullmatch(r'n\d{8}', f) for f in folders)
    assert list(names.folders.values())==list(range(1000))
    assert all(n==n.strip() and n and '\t' not in n for n in names)

# ---- Samples that are changed, as in a list of dicts

def file_dataset(**kw):
    class Relabelled(CustomDataset):
        CLASSES = ['cat', 'dog', 'owl']
        def load_annotations(self): return FileSamples('p', ['a.jpg', 'b.jpg', 'c.jpg'], kw.get('labels', [0, 1, 2]))
    return Relabelled('p', [])

def table_dataset():
    import pandas as pd
    return CSVDataset('p', [], ann_file=pd.DataFrame(dict(path=list('abc'), cat=[1, 0, 1], dog=[0, 1, 1])),
                      label_col=['cat', 'dog'])

def test_a_label_that_is_set_is_set():
    ds = file_dataset()
    ds.data_infos[1]['gt_label'] = 2
    for info in ds.data_infos:
        if info['img_info']['filename']=='a.jpg': info['gt_label'] = np.array(1)
    ds.data_infos[-1].update(gt_label=0)
    assert ds.get_gt_labels().tolist()==[1, 2, 0] and ds.get_cat_ids(1)==[2]
    assert [int(ds[i]['gt_label']) for i in range(3)]==[1, 2, 0]
    assert pickle.loads(pickle.dumps(ds.data_infos)).labels.tolist()==[1, 2, 0]

@pytest.mark.parametrize('make', [
    lambda: Photos('val'), lambda: DATASETS.get('Digits')('val'), file_dataset,
    lambda: CSVDataset(ann_file=__import__('pandas').DataFrame(dict(path=list('abc'), label=list('xyz'))))
])
def test_every_data_set_of_ours_can_be_relabelled(make):
    ds = make()
    n = 1-int(ds.data_infos[0]['gt_label'] == 1)
    ds.data_infos[0]['gt_label'] = n
    assert ds.get_gt_labels()[0]==int(ds[0]['gt_label'])==n

def test_names_and_own_keys():
    ds = file_dataset()
    ds.data_infos[0]['img_info']['filename'] = 'new.jpg'
    ds.data_infos[1]['group'] = 'patient 7'
    ds.data_infos[2].setdefault('group', 'patient 8')
    assert ds.sample_name(0)==ds[0]['img_info']['filename']=='new.jpg' and ds.sample_name(1)=='b.jpg'
    assert [o.get('group') for o in ds.data_infos]==[None, 'patient 7', 'patient 8'] and ds[1]['group']=='patient 7'
    assert ds.data_infos.files(file_client(None))==['p/new.jpg', 'p/b.jpg', 'p/c.jpg']

def test_what_a_pipeline_does_is_not_kept():
    ds = file_dataset()
    for sample in (ds[0], copy.deepcopy(ds.data_infos[0]), dict(ds.data_infos[0]), ds.data_infos[0].copy()):
        assert type(sample) is dict
        sample['gt_label'] = 2
        sample['img'] = 1
    assert ds.get_gt_labels().tolist()==[0, 1, 2] and 'img' not in ds[0]

def test_rows_of_several_labels():
    ds = table_dataset()
    ds.data_infos[0]['gt_label'] = [0, -1]
    assert ds.get_gt_labels().tolist()==[[0, -1], [0, 1], [1, 1]] and ds.get_cat_ids(0)==[]
    with pytest.raises(ValueError, match='read-only'): ds.data_infos[1]['gt_label'][0] = 1 # never lost without a word
    with pytest.raises(DataError, match='does not fit'): ds.data_infos[1]['gt_label'] = 1
    with pytest.raises(DataError, match=r'data_infos\[1\].*300'): ds.data_infos[1]['gt_label'] = [300, 0]

@pytest.mark.parametrize('label', [.5, 'cat', [1, 0], None, float('nan')])
def test_what_is_no_label_is_refused(label):
    ds = file_dataset()
    with pytest.raises(DataError, match=r'data_infos\[1\]'): ds.data_infos[1]['gt_label'] = label
    assert ds.get_gt_labels().tolist()==[0, 1, 2]

def test_a_list_of_samples():
    ds = file_dataset()
    random.Random(1).shuffle(ds.data_infos)
    order = [o['img_info']['filename'] for o in ds.data_infos]
    assert order!=['a.jpg', 'b.jpg', 'c.jpg'] and sorted(order)==['a.jpg', 'b.jpg', 'c.jpg']
    assert [ds.sample_name(i) for i in range(3)]==order
    assert ds.get_gt_labels().tolist()==['abc'.index(o[0]) for o in order]
    ds.data_infos = ds.data_infos+[dict(img_prefix='q', img_info=dict(filename='d.jpg'), gt_label=1)]
    ds.data_infos += file_dataset().data_infos
    assert len(ds)==7 and ds.sample_name(3)=='d.jpg' and ds.get_gt_labels().tolist()[3:]==[1, 0, 1, 2]
    ds.data_infos[0]['gt_label'] = 2
    assert ds.get_gt_labels()[0]==2 and [1, *file_dataset().data_infos][0]==1

@pytest.mark.parametrize('change', [
    lambda o: o.append({}), lambda o: o.extend([]), lambda o: o.insert(0, {}), lambda o: o.pop(), lambda o: o.sort(),
    lambda o: o.reverse(), lambda o: o.__delitem__(0), lambda o: o.__setitem__(slice(0, 2), []),
    lambda o: o[0].pop('gt_label'), lambda o: o[0].clear(), lambda o: o[0].__delitem__('gt_label')
])
def test_what_a_packed_list_cannot_do_says_what_to_do(change):
    ds = file_dataset()
    with pytest.raises(DataError, match=r'\[dict\(info\) for info in self.data_infos\]'): change(ds.data_infos)
    ds.data_infos = [dict(info) for info in ds.data_infos]
    ds.data_infos.append(dict(ds.data_infos[0]))
    ds.data_infos[3]['gt_label'] = 1
    assert ds.get_gt_labels().tolist()==[0, 1, 2, 1]

def test_the_arrays_of_the_caller_are_left_alone():
    labels = np.array([0, 1, 2])
    ds = file_dataset(labels=labels)
    ds.data_infos[0]['gt_label'] = 2
    labels.flags.writeable = False
    again = file_dataset(labels=labels)
    again.data_infos[0]['gt_label'] = 1
    assert labels.tolist()==[0, 1, 2] and ds.get_gt_labels()[0]==2 and again.get_gt_labels()[0]==1

def test_a_key_of_ones_own_can_be_removed():
    ds = file_dataset()
    ds.data_infos[0]['group'] = 1
    assert ds.data_infos[0].pop('group')==1 and 'group' not in ds.data_infos[0]
    assert ds.data_infos[0].pop('group', None) is None
    digits = DATASETS.get('Digits')('val')
    digits.data_infos[0].pop('img') # as a pipeline does with what it was given
    assert digits[0]['img'].shape==(8, 8, 1)

# ---- Labels of other types and ranges

def of_dicts(labels, classes=('cat', 'dog')):
    class Own(MultiLabelDataset if np.ndim(labels[0]) else BaseDataset):
        CLASSES = classes
        def load_annotations(self):
            return [dict(img_info=dict(filename=f'{i}.jpg'), gt_label=np.array(o)) for i,o in enumerate(labels)]
    return Own('', [])

@pytest.mark.parametrize('labels,words', [
    ([0, 1, 2], r'sample 2 \(2.jpg\) has label 2, but there are 2 classes'),
    ([0, -1], r'sample 1 \(1.jpg\) has label -1'),
    ([0., .5], r'sample 1 \(1.jpg\) has label 0.5; labels are whole numbers'),
    ([0., float('nan')], r'sample 1 \(1.jpg\) has label nan'),
    ([0., 1.], r'sample 0 \(0.jpg\) has label 0.0, of type float64'),
    ([True, False], r'sample 0 \(0.jpg\) has label True, of type bool'),
    (['cat', 'dog'], r"sample 0 \(0.jpg\) has label 'cat'"),
    ([[1, 0], [0, 2]], r'sample 1 \(1.jpg\) has 2 for class 1'),
    ([[1, 0], [0, -2]], r'sample 1 \(1.jpg\) has -2 for class 1'),
    ([[1, 0, 1]], 'do not fit 2 classes'),
    ([[1., 0.], [0., float('nan')]], r'sample 1 \(1.jpg\) has nan for class 1'),
])
def test_labels_that_cannot_be_are_told_with_their_sample(labels, words):
    with pytest.raises(DataError, match=words): of_dicts(labels)

def test_packed_labels_are_never_cut():
    for bad in ([0, 1.5], [0, 2**70], [0, 'dog'], [0, None]):
        with pytest.raises(DataError, match='sample 1'): FileSamples('', ['a', 'b'], bad)
    assert FileSamples('', ['a', 'b'], [0., 1.]).labels.tolist()==[0, 1]
    assert FileSamples('', ['a', 'b'], [True, False]).labels.tolist()==[1, 0]
    with pytest.raises(DataError, match=r'sample 1 \(b\) has label 300'):
        FileSamples('', ['a', 'b'], [[1, 0], [300, 0]], np.int8)

@pytest.mark.filterwarnings('ignore:.*has no samples')
def test_soft_labels_can_be_trained_on_but_not_judged():
    ds = of_dicts([[.5, 0], [1, -1]])
    with pytest.raises(DataError, match='0.5 for class 0'): ds.evaluate([[.1, .2]]*2)

@pytest.mark.filterwarnings('ignore:.*has no samples')
def test_labels_beyond_the_scores_of_a_model():
    ds = of_dicts([0, 1, 2], ['cat', 'dog', 'owl'])
    with pytest.raises(DataError, match='sample 2 has label 2, but there are 2 classes'):
        ds.evaluate([[.5, .5]]*3)

def test_numbers_without_classes_are_left_alone():
    "A data set of numbers to be regressed has no classes"
    assert of_dicts([.5, 2.], None).get_gt_labels().tolist()==[.5, 2.]
