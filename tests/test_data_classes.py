"""ImageNet's 1,000 names and folders against two lists made by others; what differs, differs for a reason.

torchvision gives the first synonym of each class, and tells two pairs apart that WordNet gives one first name; timm
gives all synonyms, and the folders.
"""
import re
from collections import Counter
import pytest
from clsnb.data.sets.labels import packaged_classes

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
