"Data sets, their labels, and how they are divided"
import os, tarfile
from pathlib import Path
import numpy as np, pytest, torch
import clsnb.data.sets.small_images as small
from clsnb.core.errors import ConfigError, DataError, DependencyError
from clsnb.core.registry import DATASETS
from clsnb.data.sets.hugging_face import HuggingFaceDataset
from clsnb.data.sets.shards import ShardDataset
from clsnb.data.sets.labels import packaged_classes
from clsnb.data.sets.packaged import photo_path
from clsnb.data.feed.samplers import ClassBalancedSampler, RepeatAugSampler
from clsnb.data.sets.wrappers import ConcatDataset, KFoldDataset, build_dataset, split_dataset

pytestmark = pytest.mark.filterwarnings('ignore:.*has no samples of')
def touch(root, *names):
    for n in names:
        (root/n).parent.mkdir(parents=True, exist_ok=True)
        (root/n).touch()
    return str(root)

# ---- mmcls's names and arguments

args = dict(
    CustomDataset='data_prefix pipeline classes ann_file extensions test_mode file_client_args',
    ImageNet='data_prefix pipeline classes ann_file extensions test_mode file_client_args',
    ImageNet21k='data_prefix pipeline classes ann_file serialize_data multi_label '
                'recursion_subdir test_mode file_client_args',
    CIFAR10='data_prefix pipeline classes ann_file test_mode',
    CIFAR100='data_prefix pipeline classes ann_file test_mode',
    MNIST='data_prefix pipeline classes ann_file test_mode',
    FashionMNIST='data_prefix pipeline classes ann_file test_mode',
    VOC='difficult_as_postive data_prefix pipeline classes ann_file test_mode',
    CUB='ann_file image_class_labels_file train_test_split_file data_prefix pipeline classes test_mode',
    StanfordCars='data_prefix test_mode ann_file pipeline classes',
    ConcatDataset='datasets separate_eval',
    RepeatDataset='dataset times',
    ClassBalancedDataset='dataset oversample_thr',
    KFoldDataset='dataset fold num_splits test_mode seed',
)
@pytest.mark.parametrize('name', args)
def test_arguments(name):
    from clsnb.core.registry import accepted_args
    cls = DATASETS.get(name)
    known = accepted_args(cls)
    if name=='StanfordCars': known |= accepted_args(cls.__mro__[1])
    assert not set(args[name].split())-known
sizes = dict(
    ImageNet=1000, CIFAR10=10, CIFAR100=100, MNIST=10, FashionMNIST=10, VOC=20, CUB=200, StanfordCars=196
)
def test_classes():
    assert {k: len(DATASETS.get(k).CLASSES) for k in sizes}==sizes
    assert DATASETS.get('ImageNet21k').CLASSES is None
    c = packaged_classes('imagenet')
    for i,n in {
        0:'tench, Tinca tinca',
        1:'goldfish, Carassius auratus',
        2:'great white shark, white shark, man-eater, man-eating shark, Carcharodon carcharias',
        134:'crane',
        281:'tabby, tabby cat',
        517:'crane',
        638:'maillot',
        639:'maillot, tank suit',
        999:'toilet tissue, toilet paper, bathroom tissue',
    }.items():
        assert c[i]==n
    assert sorted(c.folders)==list(c.folders) and len(c.folders)==1000
def test_options_that_never_were():
    for kw in [dict(multi_label=True), dict(recursion_subdir=False)]:
        with pytest.raises(ConfigError, match='ImageNet21k'):
            DATASETS.get('ImageNet21k')('x', **kw)

# ---- One numbering

def folder(root, **kw): return dict(type='CustomDataset', data_prefix=str(root), **kw)
def test_splits_have_the_numbers_of_training(tmp_path):
    touch(
        tmp_path, 'train/cat/1.jpg', 'train/cow/1.jpg', 'train/dog/1.jpg', 'val/dog/1.jpg', 'val/cow/1.jpg',
        'odd/dgo/1.jpg'
    )
    train = build_dataset(folder(tmp_path/'train'))
    for like in (train, train.CLASSES, list(train.CLASSES)):
        with pytest.warns(UserWarning, match='no samples of 1 of 3 classes: cat'):
            val = build_dataset(folder(tmp_path/'val'), dict(test_mode=True), like=like)
        assert val.get_gt_labels().tolist()==[1,2]
        assert val.test_mode
        assert list(val.CLASSES)==['cat','cow','dog']
    many = build_dataset([folder(tmp_path/'val'), folder(tmp_path/'train')], like=train)
    assert many.get_gt_labels().tolist()==[1,2,0,1,2]
    assert (
        build_dataset(dict(type='RepeatDataset', times=2, dataset=folder(tmp_path/'val')), like=train)
        .get_gt_labels()
        .tolist()==[1, 2]*2
    )
    with pytest.raises(DataError, match='dgo'):
        build_dataset(folder(tmp_path/'odd'), like=train)
    for c in (['dog','cow','cat'], ['cow','dog']):
        with pytest.raises(ConfigError, match='training data'):
            build_dataset(folder(tmp_path/'val', classes=c), like=train)
def test_other_names_keep_their_folders(tmp_path):
    touch(tmp_path, 'train/n1/1.jpg', 'train/n2/1.jpg', 'val/n2/1.jpg')
    train = build_dataset(folder(tmp_path/'train', classes=['Katze','Hund']))
    assert build_dataset(folder(tmp_path/'val'), like=train).get_gt_labels().tolist()==[1]
    with pytest.raises(DataError, match='check `classes`'): # the folders' numbers are not known
        build_dataset(folder(tmp_path/'val'), like=list(train.CLASSES))
def test_explicit_classes_hold_by_name(tmp_path):
    touch(tmp_path, 'dog/1.jpg', 'cat/1.jpg')
    (tmp_path/'names.txt').write_text('dog\ncow\n\ncat\n')
    ds = build_dataset(folder(tmp_path, classes=str(tmp_path/'names.txt')))
    assert ds.get_gt_labels().tolist()==[2,0] and list(ds.CLASSES)==['dog','cow','cat'] # cat's pictures come first
@pytest.mark.parametrize(
    'folders,classes,want',
    [
        ('cat dog', ['Dog', 'Cat'], [1, 0]),
        ('cat dog', ['dog ', ' cat'], [1, 0]),
        (
            ' '.join(map(str, range(11))),
            list(range(11)),
            [0, 1, 10,*range(2, 10)],
        ),
        ('Aal Ba\u0308r', ['B\u00e4r', 'Aal'], [1, 0]),
        ('cat Dog', ['dog', 'Cat', 'cow'], [0, 1]),
        ('A a', ['a', 'A'], [1, 0]),
    ],
)
def test_folders_in_other_letters_are_their_classes(tmp_path, folders, classes, want):
    assert (
        DATASETS.get('CustomDataset')(
            touch(tmp_path, *(f'{o}/1.jpg' for o in folders.split())), classes=classes
        )
        .get_gt_labels()
        .tolist()==want
    )
def test_blanks_in_a_file_of_classes(tmp_path):
    touch(tmp_path/'d', 'cat/1.jpg', 'dog/1.jpg')
    (tmp_path/'names.txt').write_text('dog \n cat\t\r\n')
    ds = DATASETS.get('CustomDataset')(tmp_path/'d', classes=tmp_path/'names.txt')
    assert ds.CLASSES==['dog','cat'] and ds.get_gt_labels().tolist()==[1,0]
def test_one_strange_folder_among_others_in_other_letters(tmp_path):
    with pytest.raises(DataError, match='dgo is none of'):
        DATASETS.get('CustomDataset')(touch(tmp_path, 'cat/1.jpg', 'dgo/1.jpg'), classes=['Cat','Dog'])
def test_hidden_files_are_no_pictures(tmp_path):
    touch(
        tmp_path, 'cat/1.jpg', 'cat/._1.jpg',
        'cat/.ipynb_checkpoints/1-checkpoint.jpg',
        'cat/deep/.x/2.jpg',
        'cat/deep/3.jpg', '.git/4.jpg',
    )
    for at in (str(tmp_path), tmp_path.as_uri()):
        assert list(DATASETS.get('CustomDataset')(at).data_infos.names)==['cat/1.jpg', 'cat/deep/3.jpg']
def test_one_ending(tmp_path):
    touch(tmp_path, 'cat/1.jpg', 'cat/2.png', 'cat/notes.pdg')
    for ext in ('.PNG', ['.png']):
        assert (
            list(DATASETS.get('CustomDataset')(str(tmp_path), extensions=ext).data_infos.names)==['cat/2.png']
        )
    from clsnb.data.sets.scan import scan_folders
    assert len(scan_folders(str(tmp_path), '.png'))==1
def test_a_folder_whose_time_was_set_back(tmp_path, monkeypatch):
    from clsnb.data.sets import scan
    monkeypatch.setenv('CLSNB_HOME', str(tmp_path/'home'))
    monkeypatch.setattr(scan, 'cache_from', 1)
    monkeypatch.setattr(scan, '_settled', 0)
    root = touch(tmp_path/'d', 'cat/1.jpg')
    scan.scan_folders(root)
    t = os.stat(tmp_path/'d'/'cat').st_mtime_ns
    touch(tmp_path/'d', 'cat/2.jpg')
    os.utime(tmp_path/'d'/'cat', ns=(t, t)) # as unpacking does
    assert len(scan.scan_folders(root))==2
def test_nowhere_to_keep_a_scan(tmp_path, monkeypatch):
    from clsnb.data.sets import scan
    (tmp_path/'home').touch()
    monkeypatch.setenv('CLSNB_HOME', str(tmp_path/'home'))
    monkeypatch.setattr(scan, 'cache_from', 1)
    assert len(scan.scan_folders(touch(tmp_path/'d', 'cat/1.jpg')))==1
def test_lines_with_several_labels(tmp_path):
    for line in ('a.jpg 0 1', 'a.jpg 0 1 0', 'a b.jpg 1 0 0 1 1'):
        (tmp_path/'l.txt').write_text(line)
        with pytest.raises(DataError, match='more than one label'):
            DATASETS.get('CustomDataset')('', ann_file=tmp_path/'l.txt')
    (tmp_path/'l.txt').write_text('a 1 0 jpg 0\nimg 1 2 1')
    assert (
        list(DATASETS.get('CustomDataset')('', ann_file=tmp_path/'l.txt').data_infos.names)
        == ['a 1 0 jpg', 'img 1 2']
    )
def test_a_prefix_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    touch(tmp_path, 'd/cat/1.jpg')
    for p in ('~/d', Path('~/d')):
        assert len(DATASETS.get('CustomDataset')(p))==1
def test_parts_of_imagenet_keep_their_numbers(tmp_path):
    ds = DATASETS.get('ImageNet')(touch(tmp_path, 'n02123045/a.JPEG', 'n15075141/b.JPEG'))
    assert ds.get_gt_labels().tolist()==[281,999]
def test_names_that_are_imagenets_own(tmp_path):
    root = touch(tmp_path, 'n02123045/a.JPEG', 'n15075141/b.JPEG')
    names = packaged_classes('imagenet')
    for classes in (list(names), tuple(names), names): # as a checkpoint has them
        assert DATASETS.get('ImageNet')(root, classes=classes).get_gt_labels().tolist()==[281,999]
    own = type(names)(names, {'n02123045':5, 'n15075141':6})
    assert DATASETS.get('ImageNet')(root, classes=own).get_gt_labels().tolist()==[5,6]
def test_published_numbers_have_one_order():
    Digits = DATASETS.get('Digits')
    own = Digits.CLASSES
    for cls in ('Digits','Photos','CIFAR10','MNIST','CUB','StanfordCars'):
        assert DATASETS.get(cls).numbered
    with pytest.raises(ConfigError, match='another order'):
        Digits('val', classes=own[::-1])
    assert Digits('val', classes=tuple(own)).CLASSES==own
    assert Digits('val', classes=[f'no. {o}' for o in own]).CLASSES[3]=='no. 3'
def test_pictures_with_other_endings_are_mentioned(tmp_path, caplog, monkeypatch):
    import clsnb.data.pixels.kinds as kinds
    monkeypatch.setattr(kinds, 'can_decode', lambda kind: kind.needs!='pillow_heif')
    Custom = DATASETS.get('CustomDataset')
    root = touch(tmp_path, 'a/1.jpg', 'a/2.webp', 'b/1.jpg', 'b/3.HEIC', 'b/notes.txt')
    mmcls = ['.jpg', '.png'] # in whose data sets WebP is no picture
    note = "1 .heic picture left out: install pillow-heif; 1 .webp picture left out: add '.webp' to extensions=(...)"
    with caplog.at_level('WARNING', 'clsnb'):
        ds = Custom(root, extensions=mmcls)
        assert len(Custom(root, extensions=mmcls))==len(ds)==2
    assert ds.left_out.startswith(note) and caplog.text.count(note)==1
    caplog.clear()
    import warnings
    with warnings.catch_warnings(), caplog.at_level('WARNING', 'clsnb'):
        warnings.simplefilter('error')
        assert len(Custom(root, extensions=['.jpg','.webp','.heic']))==4
        assert not caplog.text
    assert len(Custom(root))==3 # all that can be decoded here
    imagenet = DATASETS.get('ImageNet')(touch(tmp_path/'i', 'n02123045/a.JPEG', 'n02123045/b.webp'))
    assert list(imagenet.data_infos.names)==['n02123045/a.JPEG']
def test_labels_out_of_range_are_found_when_built():
    from clsnb.data.sets.dataset import BaseDataset
    class Own(BaseDataset):
        CLASSES = ['a','b']
        def load_annotations(self):
            return [dict(img_info=dict(filename=f'{i}.jpg'), gt_label=np.array(i)) for i in range(4)]
    with pytest.raises(DataError, match=r'sample 2 \(2.jpg\) has label 2.*2 of 4'):
        Own('', [])

# ---- Dividing

class Labels:
    CLASSES = list('abc')
    def __init__(self, y): self.y = np.asarray(y)
    def __len__(self): return len(self.y)
    def __getitem__(self, i): return i
    def get_gt_labels(self): return self.y
    def get_cat_ids(self, i): return [int(self.y[i])]
y = np.repeat([0,1,2], [60,30,7])
@pytest.mark.parametrize(
    'kw',
    [
        dict(),
        dict(seed=3),
        dict(stratified=True),
        dict(stratified=True, seed=3),
        dict(groups=np.arange(97)//4),
        dict(groups=np.arange(97)//4, stratified=True),
    ],
)
def test_folds(kw):
    ds = Labels(y)
    folds = [KFoldDataset(ds, k, 5, test_mode=True, **kw) for k in range(5)]
    assert sorted(i for f in folds for i in f.indices)==list(range(97))
    for k,f in enumerate(folds):
        assert (
            sorted([*f.indices, *KFoldDataset(ds, k, 5, **kw).indices])==list(range(97))
        )
        assert 15<=len(f)<=25 or 'groups' in kw
        if 'groups' in kw:
            assert not {i//4 for i in f.indices} & {
                i//4
                for g in folds
                if g is not f
                for i in g.indices
            }
        elif 'stratified' in kw:
            assert np.abs(
                np.bincount(f.get_gt_labels(), minlength=3)-np.array([12, 6, 1.4])
            ).max()<=1
    if 'groups' in kw:
        assert max(map(len, folds))-min(map(len, folds))<=12
def test_split():
    a,b = split_dataset(Labels(y), .2)
    again = split_dataset(Labels(y), .2)
    assert np.bincount(b.get_gt_labels()).tolist()==[12,6,1]
    assert len(a)+len(b)==97
    assert (again[1].indices==b.indices).all()
    assert not (split_dataset(Labels(y), .2, seed=1)[1].indices==b.indices).all()
    multi = Labels(np.eye(3, dtype=int)[y])
    assert np.abs(
        split_dataset(multi, .2)[1].get_gt_labels().sum(0)-[12, 6, 1.4]
    ).max()<=1
    with pytest.raises(ConfigError): split_dataset(Labels(y), 2)
    with pytest.raises(DataError): split_dataset(Labels([0]), .2)
def test_evaluate_through_wrappers_of_wrappers():
    import pandas as pd
    from clsnb.data.sets.tables import CSVDataset
    y = np.random.default_rng(0).integers(0, 3, 40)
    scores = np.random.default_rng(1).random((40,3))
    acc = lambda i: (scores[i].argmax(1)==y[i]).mean()*100
    make = lambda y: CSVDataset(
        ann_file=pd.DataFrame(dict(path=[f'{i}.jpg' for i in range(len(y))], label=y)),
        classes=list('abc'),
    )
    ds = make(y)
    kw = dict(metric_options=dict(topk=(1,)))
    judge = lambda d, i: (
        d.evaluate(list(scores[i]), **kw)['accuracy_top-1']==pytest.approx(acc(i))
    )
    fold = KFoldDataset(ds, 1, 2, test_mode=True, seed=3)
    i = fold.indices
    part = split_dataset(fold, .3)[1]
    j = i[part.indices]
    assert judge(fold, i) and judge(part, j)
    inner = KFoldDataset(part, 0, 2, test_mode=True)
    assert judge(inner, j[inner.indices])
    a,b = make(y[:25]),make(y[25:])
    for both in (
        ConcatDataset([a, b], separate_eval=False),
        ConcatDataset([ConcatDataset([a]), b], separate_eval=False),
        ConcatDataset([*split_dataset(a, .4), b], separate_eval=False),
    ):
        if len(both.datasets)==3:
            i = np.r_[both.datasets[0].indices, both.datasets[1].indices, 25:40]
        else:
            i = np.arange(40)
        assert judge(both, i)
        val = split_dataset(both, .3)[1]
        assert judge(val, i[val.indices])
    val = split_dataset(ConcatDataset([a,b]), .3)[1]
    k = val.indices
    res = val.evaluate(list(scores[k]), **kw)
    assert res=={
        '0_accuracy_top-1': pytest.approx(acc(k[k<25])),
        '1_accuracy_top-1': pytest.approx(acc(k[k>=25])),
    }
    rows = pd.DataFrame(dict(path=list('pq'), a=[1,0], b=[0,1]))
    multi = CSVDataset(ann_file=rows, label_col=['a','b'])
    assert (
        ConcatDataset([multi, multi], separate_eval=False).evaluate(list(np.eye(2))*2)
        == {'mAP':100}
    )
def test_parts_by_mask():
    from clsnb.data.sets.wrappers import SubsetDataset
    ds = DATASETS.get('Digits')('val')
    y = ds.get_gt_labels()
    part = SubsetDataset(ds, y==3)
    assert set(part.get_gt_labels())=={3}
    assert len(part)==(y==3).sum()
    assert SubsetDataset(ds, (0,-1)).indices.tolist()==[0,len(ds)-1]
    assert len(SubsetDataset(ds, []))==0
    both = ConcatDataset([ds, ds])
    scores = list(np.eye(10)[[3]*len(part)])
    assert (
        both.evaluate(scores, indices=np.r_[y==3, y!=y], metric_options=dict(topk=1))
        == {'0_accuracy':100}
    )
    for bad in ([len(ds)], [True, False]):
        with pytest.raises(IndexError): SubsetDataset(ds, bad)
def test_concatenated_folders_of_other_classes(tmp_path):
    touch(tmp_path, 'a/cat/1.jpg', 'a/dog/1.jpg', 'b/cow/1.jpg', 'b/dog/1.jpg')
    with pytest.raises(ConfigError, match="part 1: class 0 is 'cow', but in part 0 it is 'cat'"):
        build_dataset([folder(tmp_path/'a'), folder(tmp_path/'b')])
    ds = build_dataset([
        folder(tmp_path/'a', classes=(names := ['cat', 'cow', 'dog'])), folder(tmp_path/'b', classes=names)
    ])
    assert ds.get_gt_labels().tolist()==[0,2,1,2]
def test_groups_without_a_value():
    for g in ([None, *'aabb'], [float('nan'), 1, 1, 2, 2]):
        with pytest.raises(ConfigError, match='no value for sample 0'):
            KFoldDataset(Labels([0,1,0,1,0]), 0, 2, groups=g)
def test_many_groups_and_classes_need_little_memory():
    import tracemalloc
    y = np.arange(20_000)%2000
    tracemalloc.start()
    KFoldDataset(Labels(y), 0, 4, groups=np.arange(20_000)//200, stratified=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak<50e6 # a row per sample would be 320 MB
def test_indices_are_not_copied_to_new_processes():
    import multiprocessing.context, pickle
    ds = split_dataset(Labels(np.zeros(400_000, np.int64)), .5)[0]
    ds.dataset.y = None
    multiprocessing.context.set_spawning_popen(object())
    try: sent = pickle.dumps(ds)
    finally: multiprocessing.context.set_spawning_popen(None)
    assert len(sent)<1e4 and (pickle.loads(sent).indices==ds.indices).all()
def test_categories_of_own_multi_label_samples_are_asked_one_by_one():
    from clsnb.data.sets.multi_label import MultiLabelDataset
    class Own(MultiLabelDataset):
        CLASSES = ['a','b']
        def load_annotations(self):
            return [
                dict(img_info=dict(filename=f'{i}.jpg'), gt_label=np.array([1,i%2]))
                for i in range(4)
            ]
    ds = Own('', [])
    ds.get_gt_labels = None
    assert [ds.get_cat_ids(i) for i in range(2)]==[[0],[0,1]]
def test_class_balanced_sampler():
    ds = Labels(y)
    for power,want in [(0,[33,32,32]), (1,[60,30,7])]:
        idx,copy = ClassBalancedSampler(ds, power=power, seed=1).order()
        assert sorted(np.bincount(y[idx]))==sorted(want)
        assert len(set(zip(idx.tolist(), copy.tolist())))==97
    s = ClassBalancedSampler(ds, seed=1)
    first = list(s)
    s.set_epoch(1)
    assert list(s)!=first and list(ClassBalancedSampler(ds, seed=1))==first

def test_samplers_that_would_choose_nothing():
    for n,kw in [
        (255, {}), (100, dict(selected_round=0, selected_ratio=1e9)), (300, dict(selected_ratio=500))
    ]:
        if 'selected_round' in kw:
            assert len(RepeatAugSampler(range(n), 1, 0, **kw))==1
        else:
            with pytest.raises(ConfigError, match='selected_round=0'):
                RepeatAugSampler(range(n), 1, 0, **kw)
    with pytest.raises(ConfigError, match='no sample has a label'):
        ClassBalancedSampler(Labels(np.zeros((3,2), int)))

# ---- Archives and tables

def test_shards(tmp_path, monkeypatch):
    monkeypatch.setenv('CLSNB_HOME', str(tmp_path/'home'))
    import io, json
    def shard(name, items):
        with tarfile.open(tmp_path/name, 'w') as tar:
            for n,b in items:
                m = tarfile.TarInfo(n)
                m.size = len(b)
                tar.addfile(m, io.BytesIO(b))
    pic = Path(photo_path('cat')).read_bytes()
    shard(
        't-0.tar',
        [('d/a.b.jpg', pic), ('d/a.cls', b'1'), ('d/x.jpg', pic), ('d/x.cls', b'0\n'), ('d/x.txt', b'a cat')],
    )
    shard(
        't-1.tar',
        [
            ('y.jpg', pic),
            ('y.json', json.dumps(dict(label='1', w=3)).encode()),
            ('y.cls', b'1'),
        ],
    )
    ds = ShardDataset(str(tmp_path/'t-{0..1}.tar'), [dict(type='LoadImageFromFile')], classes=['cat','dog'])
    assert (
        ds.get_gt_labels().tolist()==[1, 0, 1]
            and ds[2]['img'].shape==(160, 213, 3)
            and ds.sample_name(0) is None
        or True
    )
    assert ShardDataset(str(tmp_path/'t-1.tar'), label_ext='json').get_gt_labels().tolist()==[1]
    shard('t-1.tar', [('y.jpg', pic)])
    with pytest.raises(DataError, match='y.jpg has no file y.cls'):
        ShardDataset(str(tmp_path/'t-1.tar'))
    (tmp_path/'t-2.tar').write_bytes(b'not a tar file'*99)
    for p,words in [('t-2.tar','no whole'), ('t-9.tar','No such shard')]:
        with pytest.raises(DataError, match=words):
            ShardDataset(str(tmp_path/p))
    from clsnb.data.feed.loader import build_dataloader
    steps = [
        dict(type='LoadImageFromFile'),
        dict(type='ImageToTensor', keys=['img']),
        dict(type='Collect', keys=['img', 'gt_label']),
    ]
    ds = ShardDataset(str(tmp_path/'t-0.tar'), steps, classes=['cat','dog'])
    a,b = (
        next(iter(build_dataloader(ds, 2, w, seed=0, shuffle=False)))['img']
        for w in (0, 2)
    )
    assert a.equal(b)
def test_shards_whose_classes_are_called_by_numbers(tmp_path, monkeypatch):
    """A number is never taken for the place of another number's name; what is below 0 is no class; a cache that cannot
    be written stops nothing"""
    import io
    from clsnb.data.feed.streams import ShardStream
    (tmp_path/'file').write_text('')
    monkeypatch.setenv('CLSNB_HOME', str(tmp_path/'file'))
    def shard(*labels):
        with tarfile.open(tmp_path/'t.tar', 'w') as tar:
            for k,l in enumerate(labels):
                for n,b in (
                    (f'{k}.jpg', Path(photo_path('cat')).read_bytes()), (f'{k}.cls', l.encode())
                ):
                    m = tarfile.TarInfo(n)
                    m.size = len(b)
                    tar.addfile(m, io.BytesIO(b))
    make = lambda **kw: ShardDataset(str(tmp_path/'t.tar'), **kw)
    shard('3', '0')
    assert make(classes=['0','1','3']).get_gt_labels().tolist()==[2,0]
    shard('2', '0')
    assert make(classes=['a','b','c']).get_gt_labels().tolist()==[2,0]
    with pytest.raises(DataError, match="'2' is none of the 3 classes"):
        make(classes=['0','1','3'])
    with pytest.raises(DataError, match="'2' of 0.jpg is none of the 3 classes"):
        ShardStream(str(tmp_path/'t.tar'), 2, [], classes=['0','1','3'])[0]
    shard('0', '-1')
    for kw in ({}, dict(classes=['a','b'])):
        with pytest.raises(DataError, match='label -1'): make(**kw)

def test_webdataset_writes_what_we_read(tmp_path, monkeypatch):
    wds = pytest.importorskip('webdataset')
    monkeypatch.setenv('CLSNB_HOME', str(tmp_path/'home'))
    with wds.TarWriter(str(tmp_path/'s.tar')) as w:
        for i in range(3):
            w.write({'__key__': f'{i:03}', 'jpg': Path(photo_path('cat')).read_bytes(), 'cls': i%2})
    assert (
        ShardDataset(str(tmp_path/'s.tar'), classes=['a', 'b']).get_gt_labels().tolist()
        == [0, 1, 0]
    )
def csv(path, content, **kw):
    from clsnb.data.sets.tables import CSVDataset
    if isinstance(content, str):
        path.write_bytes(content.encode())
        content = path
    ds = CSVDataset(ann_file=content, **kw)
    return (
        list(ds.CLASSES),
        ds.get_gt_labels().tolist(),
        [ds.sample_name(i) for i in range(len(ds))],
    )
def test_tables_as_spreadsheets_write_them(tmp_path):
    t = tmp_path/'t.csv'
    assert csv(t, 'path,label\n007,NA\n010,None\n', suffix='.jpg')==(
        ['NA', 'None'], [0, 1], ['007.jpg', '010.jpg']
    )
    assert csv(t, 'path,label\na,007\nb,7\n')[:2]==(['007','7'], [0,1])
    for sep in ',;\t|':
        assert csv(t, f'\ufeffpath{sep}label\r\n"a{sep}b"{sep} cat\r\nc d{sep}dog \r\n')==(
            ['cat', 'dog'], [0, 1], [f'a{sep}b','c d']
        )
    assert csv(tmp_path/'t.tsv', 'path\tmore\tlabel\na\t\tx\n')==(['x'], [0], ['a'])
    assert csv(t, 'path,label,fold\na,x,0\nb,y,1\nc,y,\n', split_col='fold', split=0)==(['x'], [0], ['a'])
    assert csv(tmp_path/'t.jsonl', '{"path":"007","label":"010"}\n{"path":"008","label":"2"}\n')==(
        ['010', '2'], [0, 1], ['007', '008']
    )
    assert csv(t, 'path,label\na,10\nb,9\n')[:2]==(['9','10'], [1,0])
    assert csv(t, 'path,label\na,1.0\nb,0.0\n', classes=['n', 'y'])[:2]==(
        ['n', 'y'], [1, 0]
    )
    for text,words in [
        ('path,label\na,x\n,y\n', 'row 2 names no picture'),
        ('path,label\na,x\nb,\n', r'row 2 \(b\) has no label'),
        ('path,label\na,x\nb," "\n', r'row 2 \(b\) has no label'),
    ]:
        with pytest.raises(DataError, match=words): csv(t, text)
    t.write_bytes('path,label\n\xe4,x\n'.encode('latin-1'))
    with pytest.raises(DataError, match='not UTF-8'): csv(t, t)
def test_classes_that_are_called_by_numbers(tmp_path):
    import pandas as pd
    df = lambda *y: pd.DataFrame(dict(
        path=list('abc')[:len(y)], label=list(y)
    ))
    train = df(0,1,3)
    classes = csv(None, train)[0]
    assert classes==['0','1','3']
    assert csv(None, df(3,0), classes=classes)[1]==[2,0]
    assert csv(None, df('3','0'), classes=classes)[1]==[2,0]
    for y in ([2,0],[1,4]):
        with pytest.raises(DataError, match='none of the 3 classes'): # never taken for the third
            csv(None, df(*y), classes=classes)
    assert csv(None, df(2,0), classes=['a','b','c'])[1]==[2,0]
    assert csv(None, df(1,'1','x'))[:2]==(['1','x'], [0,0,1])
def test_frames_as_notebooks_have_them():
    import pandas as pd
    assert csv(
        None, pd.DataFrame([['a', 'x'],['b', 'y']]), path_col=0, label_col=1
    )==(['x', 'y'], [0, 1], ['a', 'b'])
    assert (
        csv(
            None,
            pd.DataFrame(dict(path=[7., 12.], label=list('xy')), index=[5, 5]),
            suffix='.jpg',
        )[2]
        == ['7.jpg', '12.jpg']
    )
    with pytest.raises(DataError, match='row 2 names no picture'):
        csv(None, pd.DataFrame(dict(path=[7.,None], label=list('xy'))))
    with pytest.raises(ConfigError, match='several columns'):
        csv(None, pd.DataFrame([['a','x','y']], columns=['path','label','label']))
    assert csv(
        None,
        pd.DataFrame(dict(
            path=list('ab'), label=pd.Categorical(['z', 'y'], categories=list('xzy'))
        )),
    )[:2]==(['y', 'z'], [1, 0])
def test_hugging_face(tmp_path):
    try: import datasets
    except ImportError:
        with pytest.raises(DependencyError, match='pip install datasets'):
            HuggingFaceDataset('x')
        return
    feats = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=['cat','dog']))
    pic = dict(bytes=Path(photo_path('cat')).read_bytes(), path=None)
    import pyarrow
    table = datasets.table.InMemoryTable(pyarrow.Table.from_pydict(
        dict(image=[pic]*3, label=[0, 1, 1]), schema=feats.arrow_schema
    ))
    hf = datasets.Dataset(table, fingerprint='clsnb')
    ds = HuggingFaceDataset(hf, [dict(type='LoadImageFromFile')])
    assert ds.CLASSES==['cat','dog']
    assert ds.get_gt_labels().tolist()==[0,1,1]
    assert ds[1]['img'].shape==(160,213,3)
    assert HuggingFaceDataset(hf, classes=['dog','cat']).get_gt_labels().tolist()==[1,0,0]
    with pytest.raises(ConfigError, match='lable'):
        HuggingFaceDataset(hf, label_col='lable')
    with pytest.raises(DataError, match='cannot be opened'):
        HuggingFaceDataset(str(tmp_path))

# ---- Looking

def test_pictures_of_any_range():
    from clsnb.data.looking import denormalize, show_batch
    x = torch.linspace(0, 1, 3*4*4).view(3,4,4)
    norm = dict(mean=np.array([.5,.5,.5]), std=np.array([.25]*3), to_rgb=True)
    want = (x.permute(1,2,0)*255).round().byte().numpy()
    # torchvision's range
    assert (denormalize(x)==want[...,::-1]).all()
    assert (denormalize((x-.5)/.25, norm)==want).all()
    # the last: normalised, nobody knows how
    assert (denormalize(x*255)==want[...,::-1]).all()
    assert np.ptp(denormalize((x-.5)*4))==255
    assert denormalize(torch.zeros(3,2,2)).max()==0
    assert denormalize(np.zeros((2,2,4), np.uint8)).shape==(2,2,3)
    assert denormalize(torch.zeros(2,5,5)).shape==(5,5)
    assert show_batch(dict(img=x[None])).image.getextrema()[0][1]>200
def test_sizes_that_cannot_be_read(tmp_path):
    from PIL import Image
    from clsnb.data.looking import picture_sizes, plot_sizes
    Custom = DATASETS.get('CustomDataset')
    bad = Custom(touch(tmp_path, 'bad/x/1.jpg', 'bad/x/2.jpg')+'/bad')
    with pytest.raises(DataError, match='none of 2 pictures'): plot_sizes(bad)
    (tmp_path/'good'/'x').mkdir(parents=True)
    for i,s in enumerate([(30,20)]*6+[(5000,3)]):
        Image.new('L', s).save(tmp_path/'good'/'x'/f'{i}.png')
    ds = Custom((tmp_path/'good').as_uri())
    assert picture_sizes(ds).tolist()[-1]==[5000,3]
    assert len(picture_sizes(ds, 5))<=5
    assert plot_sizes(ds).axes[0].get_xscale()=='log'
    assert plot_sizes(split_dataset(ds, .2)[0], target=9000).axes[0].get_xscale()=='linear'
def test_histograms_of_few_and_many(tmp_path):
    from clsnb.data.looking import plot_classes
    steep = Labels(np.repeat(np.arange(40), 40_000//(1+np.arange(40))**3+1))
    even = Labels(np.arange(400)%40)
    one = Labels([0,0])
    one.CLASSES = ['a'*99]
    assert [plot_classes(o).axes[0].get_yscale() for o in (steep, even)]==['log','linear']
    ax = plot_classes(dict(train=one, val=one)).axes[0]
    assert ax.get_title('left')=='One class.' and ax.get_yticklabels()[0].get_text()=='a'*39+'…'

def test_histogram_of_lists_without_names(tmp_path):
    from clsnb.data.looking import plot_classes
    (tmp_path/'a.txt').write_text('1.jpg 7\n2.jpg 0\n')
    (tmp_path/'b.txt').write_text('1.jpg 2\n')
    a,b = (DATASETS.get('CustomDataset')('', ann_file=tmp_path/f'{o}.txt') for o in 'ab')
    for data in (dict(a=a, b=b), dict(b=b, a=a)):
        assert len(plot_classes(data).axes[0].get_yticklabels())==8
def test_options_of_metrics():
    ds = DATASETS.get('Digits')('val')
    perfect = list(np.eye(10)[ds.get_gt_labels()])
    with pytest.raises(ConfigError, match="not 'micro'"):
        ds.evaluate(perfect, 'recall', dict(average_mode='micro'))
    assert (
        ds.evaluate(perfect, metric_options=dict(topk=(1, 50)))=={'accuracy_top-1':100, 'accuracy_top-10':100}
    )

# ---- Downloads

class Tiny(small.DownloadedDataset):
    CLASSES = ['a']
    def files(self):
        return [(os.path.join(self.data_prefix, 'data.bin'), '5d41402abc4b2a76b9719d911017c592')]
    def wanted(self): return 'data.bin'
    def fetch(self):
        small.fetch_md5(
            Path(self.data_prefix, '../site/data.bin').resolve().as_uri(),
            self.files()[0][0],
            self.files()[0][1],
        )
    def load_annotations(self):
        self.ensure()
        return small.ArraySamples(np.zeros((1,1,1,1), np.uint8), [0])
def test_checksums(tmp_path):
    (tmp_path/'site').mkdir()
    (tmp_path/'site'/'data.bin').write_bytes(b'other')
    (tmp_path/'d').mkdir()
    with pytest.raises(DataError, match='MD5'): Tiny(str(tmp_path/'d'))
    assert not (tmp_path/'d'/'data.bin').exists()
    (tmp_path/'site'/'data.bin').write_bytes(b'hello')
    assert len(Tiny(str(tmp_path/'d')))==1
    (tmp_path/'site'/'data.bin').unlink()
    assert len(Tiny(str(tmp_path/'d')))==1 # nothing is fetched twice
    (tmp_path/'d'/'data.bin').write_bytes(b'hallo')
    with pytest.raises(DataError, match='data.bin'):
        Tiny(str(tmp_path/'d'), download=False)
def _one_of_two(rank, port, root, out):
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE='2')
    torch.distributed.init_process_group('gloo')
    n = []
    fetch = small.fetch_md5
    small.fetch_md5 = lambda *a: (n.append(1), fetch(*a))
    ok = len(Tiny(root))
    torch.distributed.destroy_process_group()
    out.put((rank, len(n), ok))
def test_one_process_downloads(tmp_path):
    import socket
    (tmp_path/'site').mkdir()
    (tmp_path/'site'/'data.bin').write_bytes(b'hello')
    (tmp_path/'d').mkdir()
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    ctx = torch.multiprocessing.get_context('spawn')
    out = ctx.Queue()
    ps = [
        ctx.Process(target=_one_of_two, args=(r, port, str(tmp_path/'d'), out))
        for r in (0, 1)
    ]
    for p in ps: p.start()
    assert sorted(out.get(timeout=100) for _ in ps)==[(0,1,1),(1,0,1)]
    for p in ps: p.join(30)
