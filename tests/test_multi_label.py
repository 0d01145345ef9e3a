"""Pictures that show several things are served as well as those that show one."""
import json
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from clsnb.apis.fit import fit
from clsnb.apis.inference import inference_model, chosen_classes, top_classes
from clsnb.cli import main
from clsnb.config.config import Config
from clsnb.core.errors import ConfigError, DataError
from clsnb.data.feed.samplers import ClassBalancedSampler
from clsnb.data.sets.tables import CSVDataset
from clsnb.data.sets.wrappers import ClassBalancedDataset, repeat_factors
from clsnb.models.batch_augs import BatchCutMix, BatchMixup, BatchResizeMix, mixed_labels
from clsnb.models.multi_label_heads import CSRAClsHead, MultiLabelClsHead, MultiLabelLinearClsHead
from clsnb.runs.results import Results

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

# ---- From training to the report

load = [dict(type='LoadImageFromFile'), dict(type='Resize', size=(32, 32)),
        dict(type='Normalize', mean=[123., 116., 103.], std=[58., 57., 57.]), dict(type='ImageToTensor', keys=['img'])]

def tagged_photos(folder):
    "The packaged photographs with two labels each: red in the corner, and bright"
    rng = np.random.default_rng(0)
    rows = []
    for i in range(24):
        red, bright = i%2, int(rng.random()>.6)
        a = (rng.random((40, 48, 3))*60+100*bright).astype(np.uint8)
        if red: a[:20, :20] = (220, 30, 30)
        Image.fromarray(a).save(folder/f'{i}.png')
        rows.append((f'{i}.png', ' '.join(name for name, there in (('red', red), ('bright', bright)) if there)))
    pd.DataFrame(rows, columns=['path', 'label']).to_csv(folder/'tags.csv', index=False)
    return folder

def tagged_config(folder, **evaluation):
    def part(keys, steps):
        pipeline = [*load, *steps, dict(type='Collect', keys=keys)]
        return dict(type='CSVDataset', data_prefix=str(folder), ann_file=str(folder/'tags.csv'), label_sep=' ',
                    classes=['bright', 'green', 'red'], pipeline=pipeline)
    train = part(['img', 'gt_label'], [dict(type='ToTensor', keys=['gt_label'])])
    backbone = dict(type='ResNet_CIFAR', depth=18, base_channels=8, stem_channels=8, num_stages=4, out_indices=(3,))
    return Config(dict(
        model=dict(type='ImageClassifier', neck=dict(type='GlobalAveragePooling'), backbone=backbone,
                   head=dict(type='MultiLabelLinearClsHead', num_classes=3, in_channels=64)),
        data=dict(samples_per_gpu=8, workers_per_gpu=0, train=train, val=part(['img'], []), test=part(['img'], [])),
        optimizer=dict(type='SGD', lr=.05, momentum=.9), optimizer_config=dict(grad_clip=None),
        lr_config=dict(policy='fixed'), runner=dict(type='EpochBasedRunner', max_epochs=4),
        checkpoint_config=dict(interval=4), log_config=dict(interval=2, hooks=[dict(type='TextLoggerHook')]),
        evaluation=dict(interval=2, metric=['mAP', 'CF1'], save_best='mAP', **evaluation)))

@pytest.fixture(scope='module')
def run(tmp_path_factory):
    folder = tagged_photos(tmp_path_factory.mktemp('tags'))
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', '.*has no samples')
        return fit(tagged_config(folder, metric_options=dict(thr=[.5, .5, .3])), folder/'run', device='cpu')

def test_a_run_has_a_report_of_several_labels(run):
    page = run.report.read_text()
    for text in ('mean average precision', 'No picture shows green', 'best threshold', 'What a threshold costs',
                 'most confident mistakes', 'Where the model looked', 'mAP over the 2 classes that occur'):
        assert text in page, text
    assert 'Left out' not in page and 'Confusion matrix' not in page
    figures = {o.name for o in (run.folder/'figures').glob('*.png')}
    assert {'precision_recall.png', 'mistakes.png', 'predictions.png', 'cams.png'}<=figures
    assert 'confusion.png' not in figures

def test_results_of_a_run(run, tmp_path):
    r = run.results
    assert r.multi_label and r.labels.shape==(24, 3) and list(r.thr)==[.5, .5, .3] and r.names[0]=='0.png'
    assert r.measure('mAP')['mAP']==pytest.approx(run.log.mAP.dropna().max(), abs=.01)
    assert r.measure(['CF1'])['CF1']==pytest.approx(r.measure('CF1', thr=[.5, .5, .3])['CF1'])
    for name in ('r.npz', 'r.json'):
        r.save(tmp_path/name)
        again = Results.load(tmp_path/name)
        assert (again.labels==r.labels).all() and again.names==r.names and again.thr==r.thr
        assert np.allclose(again.scores, r.scores) and again.table().equals(r.table())
    t = r.per_class()
    assert t.support.tolist()[1]==0 and t.ap.mean()*100==pytest.approx(r.measure('mAP')['mAP'])
    assert len(r.mistakes())==(~r.correct).sum() and r.mistakes().score.is_monotonic_decreasing

def test_mistakes_name_the_worst_decision():
    r = Results([[.9, .8, .1], [.2, .6, .4]], [[1, 0, 0], [1, 1, -1]], ['cat', 'dog', 'owl'])
    m = r.mistakes()
    assert m.predicted.tolist()==['dog', 'no cat'] and m.label.tolist()==['cat', 'cat, dog']
    assert m.score.tolist()==pytest.approx([.8, .8]) and r.accuracy==0
    assert Results([[.9, .1, .9]], [[1, 0, -1]]).accuracy==1 # unknown labels are not judged

def test_results_that_need_one_label():
    r = Results([[.9, .8]], [[1, 0]])
    for ask in (r.confusion, lambda: r.topk(1)):
        with pytest.raises(DataError, match='one label for each picture'): ask()
    with pytest.raises(DataError, match='2 for class 1'): Results([[.9, .8]], [[1, 2]])

def test_counts_of_training_labels_leave_unknown_out():
    from clsnb.analysis.figures import plot_class_counts
    assert 'a 1, b 1' in plot_class_counts(np.array([[1, -1], [-1, 1]]), ['a', 'b']).alt

# ---- Asking a model

def set_scores(model, scores):
    "A model that gives these scores to any picture"
    logits = torch.logit(torch.tensor(scores, dtype=torch.float32))
    with torch.no_grad():
        model.head.fc.weight.zero_()
        model.head.fc.bias.copy_(logits)
    return model

def test_a_model_names_all_classes_above_their_thresholds(run):
    picture = str(run.folder.parent/'0.png')
    model = set_scores(run.model(), [.6, .4, .35]) # the config has thresholds .5, .5 and .3
    answer = inference_model(model, picture)
    assert answer['pred_class']==['bright', 'red'] and answer['pred_label']==[0, 2]
    assert answer['pred_score']==pytest.approx([.6, .35], abs=1e-5)
    assert [name for name,_ in top_classes(model, picture)]==['bright', 'red']
    assert [name for name,_ in top_classes(model, picture, thr=.38)]==['bright', 'green']
    assert [name for name,_ in top_classes(model, picture, k=3)]==['bright', 'green', 'red']
    assert inference_model(model, [picture], thr=.99)[0]==dict(pred_label=[], pred_score=[], pred_class=[])
    assert inference_model(set_scores(model, [.5, .5, .3]), picture)['pred_label']==[0, 1, 2] # as evaluation decides
    with pytest.raises(ConfigError, match='2 thresholds for 3 classes'): inference_model(model, picture, thr=[.1, .2])

def test_the_command_line_names_them_too(run, capsys):
    picture = str(run.folder.parent/'1.png')
    expected = top_classes(run.model(), picture, thr=0)
    assert not main(['predict', str(run.folder), picture, '--thr', '0', '--device', 'cpu'])
    assert capsys.readouterr().out==f"{picture}: {', '.join(f'{n} {s:.3f}' for n,s in expected)}\n"
    assert not main(['predict', str(run.folder), picture, '--thr', '1.1', '--device', 'cpu'])
    assert capsys.readouterr().out==f'{picture}: none of the classes\n'

def test_scores_of_a_test_are_written_with_all_labels(run, tmp_path, capsys):
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', '.*has no samples')
        for name in ('s.json', 's.csv'):
            assert not main(['test', str(run.folder), '--device', 'cpu', '--out', str(tmp_path/name)])
    r = run.results
    written = json.loads((tmp_path/'s.json').read_text())
    assert [sorted(o) for o in written['pred_label']]==[np.flatnonzero(row).tolist() for row in r.pred]
    assert 'mAP_present' in written['metrics']
    assert len(pd.read_csv(tmp_path/'s.csv'))==24

def test_one_class_has_no_threshold():
    class One:
        head = CLASSES = None
    assert chosen_classes(One, np.array([.5, .5, .1]))==[0] and chosen_classes(One, np.array([.1, .5, .5]), 2)==[1, 2]
    with pytest.raises(ConfigError, match='thr is for multi-label'): chosen_classes(One, np.array([.5, .5]), thr=.3)
    with pytest.raises(DataError, match='NaN'): chosen_classes(One, np.array([np.nan, .5]))
