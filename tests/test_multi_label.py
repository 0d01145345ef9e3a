"""Pictures that show several things are served as well as those that show one."""
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from clsnb.core.errors import ConfigError
from clsnb.data.feed.samplers import ClassBalancedSampler
from clsnb.data.sets.tables import CSVDataset
from clsnb.data.sets.wrappers import ClassBalancedDataset, repeat_factors
from clsnb.models.batch_augs import BatchCutMix, BatchMixup, BatchResizeMix, mixed_labels
from clsnb.models.multi_label_heads import CSRAClsHead, MultiLabelClsHead, MultiLabelLinearClsHead

def dataset(x, y, **kw):
    df = pd.DataFrame(dict(path=[f'{i}.png' for i in range(len(x))], x=x, y=y))
    return CSVDataset(ann_file=df, label_col=['x', 'y'], test_mode=True, **kw)

# ---- Samplers

def test_the_sampler_shows_pictures_without_a_label():
    s = ClassBalancedSampler(dataset([1]+[0]*7, [0, 1, 1]+[0]*5))
    seen = []
    for epoch in range(50):
        s.set_epoch(epoch)
        seen += list(s)
    counts = np.bincount(seen, minlength=8)
    assert (counts>0).all()
    groups = [counts[0], counts[1:3].sum(), counts[3:].sum()]
    assert max(groups)-min(groups)<=50 and sum(groups)==400

@pytest.mark.parametrize('shuffle', [True, False])
def test_unknown_is_no_label(shuffle):
    s = ClassBalancedSampler(dataset([1, -1, 0, 0], [0, 0, -1, 1]), shuffle=shuffle)
    assert [o.tolist() for o in s.members]==[[0], [3], [1, 2]]

def test_a_data_set_without_background_is_sampled_as_before():
    s = ClassBalancedSampler(dataset([1, 1, 0], [0, 1, 1]))
    assert [o.tolist() for o in s.members]==[[0, 1], [1, 2]]
    with pytest.raises(ConfigError, match='no sample has a label'): ClassBalancedSampler(dataset([0, -1], [0, 0]))

def test_rare_background_is_repeated():
    "mmcls stops at a sample without a label"
    ds = dataset([1]*9+[0], [1]*5+[0]*5)
    factors = repeat_factors(ds, .5)
    assert factors[9]==pytest.approx(np.sqrt(.5/.1)) and (factors[:9]==1).all()
    assert (ClassBalancedDataset(ds, .5).indices==9).sum()==3
    assert repeat_factors(dataset([1]+[0]*9, [0]*10), .5)[1:].tolist()==[1]*9 # much background

# ---- Mixing, and labels that nobody knows

@pytest.mark.parametrize('aug', [BatchMixup, BatchCutMix, BatchResizeMix])
def test_mixed_labels_have_the_weight_of_each(aug):
    y = torch.tensor([[1, 0, -1], [0, -1, -1], [1, 1, 0], [-1, 0, 1]])
    known, unknown = y.clamp(min=0), y<0
    for seed in range(10):
        def mixed(labels):
            torch.manual_seed(seed)
            np.random.seed(seed)
            return aug(1., 3)(torch.rand(4, 3, 16, 16), labels)[1]
        as_one, share, both = mixed(y.abs()), mixed(unknown.float()), mixed(y)
        assert torch.equal(both.abs(), as_one) # never |lam-(1-lam)|, which a sum of 1 and -1 would give
        assert torch.equal(both<0, (share>0) & (as_one>0))
        assert torch.equal(both[share==0], mixed(known)[share==0])

def test_plain_labels_are_mixed_as_before():
    gt, other = torch.tensor([[1, 0], [.3, .7]]), torch.tensor([[0, 1], [1., 0]])
    assert torch.equal(mixed_labels(gt, other, .3), .3*gt+.7*other)

def test_a_head_takes_unknown_for_positive_or_leaves_it_out():
    score = torch.randn(4, 3)
    y = torch.tensor([[1, 0, -1], [0, -1, -1], [1, 1, 0], [-1, 0, 1]])
    element = torch.nn.functional.binary_cross_entropy_with_logits(score, y.abs().float(), reduction='none')
    assert MultiLabelClsHead().loss(score, y)['loss'].item()==pytest.approx(element.sum().item()/4) # as mmcls
    left = MultiLabelClsHead(unknown='ignored').loss(score, y)['loss'].item()
    assert left==pytest.approx(element[y>=0].sum().item()/4)
    changed = score.clone()
    changed[y<0] += 7
    assert MultiLabelClsHead(unknown='ignored').loss(changed, y)['loss'].item()==left

@pytest.mark.parametrize('loss', [dict(type='AsymmetricLoss'), dict(type='FocalLoss'),
                                  dict(type='CrossEntropyLoss', use_sigmoid=True, reduction='sum')])
def test_every_loss_leaves_unknown_labels_out(loss):
    y = torch.tensor([[1, -1], [-1, 0]])
    head = MultiLabelLinearClsHead(2, 8, loss=loss, unknown='ignored')
    head.compute_loss.reduction = 'mean'
    score = torch.randn(2, 2)
    changed = score.clone()
    changed[y<0] -= 5
    assert torch.equal(head.loss(score, y)['loss'], head.loss(changed, y)['loss'])

def test_heads_check_the_choice():
    for make in (lambda **kw: MultiLabelLinearClsHead(2, 8, **kw), lambda **kw: CSRAClsHead(2, 8, 1, .1, **kw)):
        assert make(unknown='ignored').unknown=='ignored'
        with pytest.raises(ConfigError, match="'positive' or 'ignored'"): make(unknown='ignore')

def test_unknown_labels_of_a_table_are_mentioned_for_training():
    df = pd.DataFrame(dict(path=['a', 'b'], x=[1, -1], y=[0, 1]))
    with pytest.warns(UserWarning, match="1 labels are -1.*unknown='ignored'"):
        CSVDataset(ann_file=df, label_col=['x', 'y'])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        CSVDataset(ann_file=df, label_col=['x', 'y'], test_mode=True)
