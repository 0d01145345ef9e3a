"A model that is asked has all its weights, and its head, classes and data are compared by name"
import os, shutil, warnings
import numpy as np, pytest, torch
from PIL import Image
from clsnb.apis.fit import fit
from clsnb.apis.inference import inference_model, top_classes
from clsnb.apis.picture_scores import predict_scores
from clsnb.apis.open_model import init_model
from clsnb.apis.test import evaluate_config
from clsnb.cli import main
from clsnb.config.config import Config
from clsnb.core.checkpoint import read_checkpoint, save_checkpoint
from clsnb.core.classes import as_class_names
from clsnb.core.errors import CheckpointError, ConfigError, DataError
from clsnb.core.load import load_checkpoint
from clsnb.core.log import get_logger
from clsnb.core.registry import MODELS

quiet = dict(results=False, log_level='ERROR')
norm = dict(type='Normalize', mean=[123., 116., 103.], std=[58., 57., 57.])
end = [norm, dict(type='ImageToTensor', keys=['img'])]
train_steps = [
    dict(type='LoadImageFromFile'), dict(type='RandomResizedCrop', size=32), *end,
    dict(type='ToTensor', keys=['gt_label']), dict(type='Collect', keys=['img', 'gt_label'])]
test_steps = [
    dict(type='LoadImageFromFile'), dict(type='Resize', size=(36, -1)), dict(type='CenterCrop', crop_size=32), *end,
    dict(type='Collect', keys=['img'])]

def pictures(root, classes=('cat', 'dog', 'owl'), n=4):
    rs = np.random.RandomState(0)
    for k,name in enumerate(classes):
        os.makedirs(root/name)
        for i in range(n):
            a = (rs.rand(40, 48, 3)*60).astype(np.uint8)
            a[..., k%3] += 150
            Image.fromarray(a).save(root/name/f'{i}.png')
    return root

def make(folder, n=3, epochs=1, depth=18, **changes):
    def part(steps): return dict(type='CustomDataset', data_prefix=str(folder), pipeline=[dict(o) for o in steps])
    backbone = dict(type='ResNet_CIFAR', depth=depth, base_channels=8, stem_channels=8, out_indices=(3,))
    head = dict(type='LinearClsHead', num_classes=n, in_channels=64, topk=(1,))
    return Config(dict(
        model=dict(type='ImageClassifier', neck=dict(type='GlobalAveragePooling'), backbone=backbone, head=head),
        data=dict(
            samples_per_gpu=4, workers_per_gpu=0, train=part(train_steps), val=part(test_steps), test=part(test_steps)),
        optimizer=dict(type='SGD', lr=.01), runner=dict(type='EpochBasedRunner', max_epochs=epochs),
        evaluation=dict(metric='accuracy', metric_options=dict(topk=(1,))), checkpoint_config=dict(), **quiet) | changes)

@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    "Pictures, and the checkpoint of a run on them"
    root = tmp_path_factory.mktemp('trained')
    pictures(root/'p')
    fit(make(root/'p'), root/'w', device='cpu')
    return root

def checkpoint(trained): return str(trained/'w/latest.pth')

def changed(path, out, **change):
    "A copy of a checkpoint with another `meta`, or other weights"
    stored = torch.load(path, weights_only=True)
    stored['meta'] = {k: v for k,v in (stored['meta'] | change.get('meta', {})).items() if v is not None}
    stored['state_dict'] |= change.get('weights', {})
    for k in change.get('drop', ()): del stored['state_dict'][k]
    torch.save(stored, out)
    return str(out)

# ---- All weights

MISFITS = [
    ('another head', lambda c: c.model.head.update(num_classes=4), r'head\.fc\.\* \(3 → 4\)'),
    ('a deeper model', lambda c: c.model.backbone.update(depth=34), '80 of 182|missing backbone'),
    ('a wider head', lambda c: c.model.update(
        head=dict(type='StackedLinearClsHead', num_classes=3, in_channels=64, mid_channels=[8])), r'missing head\.layers'),
    ('no neck, another head', lambda c: c.model.head.update(type='VisionTransformerClsHead'), r'missing head\.layers'),
]

@pytest.mark.parametrize('change,text', [o[1:] for o in MISFITS], ids=[o[0] for o in MISFITS])
def test_a_checkpoint_that_does_not_fill_the_model_is_refused(trained, change, text):
    cfg = make(trained/'p')
    change(cfg)
    for call in (lambda: init_model(cfg, checkpoint(trained)), lambda: evaluate_config(cfg, checkpoint(trained))):
        with pytest.raises(CheckpointError, match=text) as e: call()
        assert '\n' not in str(e.value) and 'load_from' in str(e.value) and checkpoint(trained) in str(e.value)

def test_missing_weights_and_statistics_are_refused(trained, tmp_path):
    for key in ('head.fc.bias', 'backbone.layer1.0.bn1.running_var', 'backbone.conv1.weight'):
        path = changed(checkpoint(trained), tmp_path/'a.pth', drop=[key])
        with pytest.raises(CheckpointError, match=f'1 of 102 are missing.*{key}'): init_model(path)

def test_a_smaller_model_than_that_of_the_checkpoint_is_refused(trained, tmp_path):
    deep = make(trained/'p', depth=34)
    model = MODELS.build(deep.model)
    save_checkpoint(model, tmp_path/'deep.pth', meta=dict(CLASSES=('cat', 'dog', 'owl')))
    with pytest.raises(CheckpointError, match='larger model: 80 of its weights have no place'):
        init_model(make(trained/'p'), tmp_path/'deep.pth')
    extra = dict(weights={'aux_head.fc.weight': torch.ones(3, 4), 'ema_backbone_conv1_weight': torch.ones(1)})
    init_model(changed(checkpoint(trained), tmp_path/'b.pth', **extra))

@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_weights_that_are_no_numbers_are_refused(trained, tmp_path, value):
    weights = {'head.fc.bias': torch.tensor([0., value, 0.])}
    path = changed(checkpoint(trained), tmp_path/'a.pth', weights=weights)
    for call in (lambda: init_model(path), lambda: fit(make(trained/'p'), tmp_path/'w', load_from=path, device='cpu')):
        with pytest.raises(CheckpointError, match='its weight head.fc.bias is NaN or infinite'): call()

def test_training_may_begin_with_some_of_the_weights_and_says_so(trained, tmp_path, capsys):
    cfg = make(pictures(tmp_path/'q', 'abcd'), n=4, log_level='INFO')
    fit(cfg, tmp_path/'w', load_from=checkpoint(trained), device='cpu')
    assert 'skipped head.fc.* (3 → 4)' in capsys.readouterr().out

# ---- Untrained models

def test_a_config_alone_makes_an_untrained_model_and_warns(trained):
    cfg = make(trained/'p')
    with pytest.warns(UserWarning, match='without weights.*untrained') as w: model = init_model(cfg)
    assert len(w)==1 and '\n' not in str(w[0].message) and w[0].filename==__file__
    assert model.weights is None
    picture = str(trained/'p/cat/0.png')
    assert all('(untrained)' in name for name,_ in top_classes(model, picture))
    assert inference_model(model, picture)['untrained'] is True
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for asked in ('none', False): assert init_model(cfg, asked).weights is None
        model = init_model(trained/'w')
    assert model.weights==str(trained/'w/epoch_1.pth') and 'untrained' not in str(top_classes(model, picture))
    assert 'untrained' not in inference_model(model, picture)

def test_commands_refuse_a_config_without_weights(trained, tmp_path, capsys):
    make(trained/'p').dump(tmp_path/'mine.py')
    picture = str(trained/'p/cat/0.png')
    for words in (['predict', f'{tmp_path}/mine.py', picture], ['test', f'{tmp_path}/mine.py']):
        with pytest.raises(SystemExit) as e: main(words)
        err = capsys.readouterr().err
        assert e.value.code==2 and err.count('\n')==1 and '--weights none' in err and 'mine.py' in err
        main([*words, '--weights', 'none'])
        assert '(untrained)' in (out := capsys.readouterr().out) or 'accuracy' in out
    main(['predict', f'{tmp_path}/mine.py', picture, '--weights', checkpoint(trained)])
    assert 'untrained' not in capsys.readouterr().out

# ---- Classes by name: starting from weights

def head_rows(model): return {c: model.head.fc.weight[i].detach() for i,c in enumerate(model.CLASSES)}

STARTS = [ # classes of the new data, those that are taken over
    (('dog', 'owl', 'zebra'), {'dog', 'owl'}),
    (('cat', 'dog', 'owl'), {'cat', 'dog', 'owl'}),
    (('bee', 'cat', 'dog', 'owl'), {'cat', 'dog', 'owl'}),
    (('cat', 'owl'), {'cat', 'owl'}),
    (('x', 'y', 'z'), set()),
]

def start(trained, classes, path):
    "A model with fresh weights, before and after it is filled from a checkpoint"
    torch.manual_seed(1)
    model = MODELS.build(make(trained/'p', n=len(classes)).model)
    model.init_weights()
    model.CLASSES = classes
    before = {k: v.clone() for k,v in head_rows(model).items()}
    report = load_checkpoint(model, path, logger=get_logger())['report']
    return before, head_rows(model), report

@pytest.mark.parametrize('classes,known', STARTS, ids=lambda o: ' '.join(sorted(o)))
def test_rows_of_the_head_follow_the_names(trained, classes, known):
    old = head_rows(init_model(checkpoint(trained)))
    before, after, report = start(trained, classes, checkpoint(trained))
    for name in classes: assert torch.equal(after[name], old[name] if name in known else before[name]), name
    fresh = set(classes)-known
    if fresh and known: assert f'{len(known)} of {len(classes)} classes are taken over by name' in report.classes
    assert all(name in report.classes for name in fresh)

def test_permuted_names_move_all_rows(trained, tmp_path):
    path = changed(checkpoint(trained), tmp_path/'a.pth', meta=dict(CLASSES=['owl', 'cat', 'dog']))
    stored = read_checkpoint(path)['state_dict']['head.fc.weight']
    _, after, report = start(trained, ('cat', 'dog', 'owl'), path)
    assert torch.equal(torch.stack([after[o] for o in ('owl', 'cat', 'dog')]), stored) and '3 of 3' in report.classes

def test_without_names_rows_go_by_number_and_that_is_said(trained, tmp_path):
    path = changed(checkpoint(trained), tmp_path/'a.pth', meta=dict(CLASSES=None))
    _, after, report = start(trained, ('x', 'y', 'z'), path)
    assert torch.equal(torch.stack(list(after.values())), read_checkpoint(path)['state_dict']['head.fc.weight'])
    assert 'by number' in str(report)

HEADS = [
    dict(type='StackedLinearClsHead', mid_channels=[8]), dict(type='VisionTransformerClsHead', hidden_dim=5),
    dict(type='EfficientFormerClsHead'), dict(type='MultiLabelLinearClsHead')]

@pytest.mark.parametrize('head', HEADS, ids=lambda o: o['type'])
def test_rows_of_every_head_move(trained, head):
    def build(classes):
        cfg = make(trained/'p').model
        cfg.head = dict(head, num_classes=len(classes), in_channels=64)
        model = MODELS.build(cfg)
        for p in model.head.parameters(): torch.nn.init.normal_(p)
        model.CLASSES = classes
        return model
    from clsnb.core.classes import ClassMatch, class_keys, rows_by_name
    old, new = build(('a', 'b', 'c')), build(('c', 'd', 'a'))
    weights, own = old.state_dict(), new.state_dict()
    keys = class_keys(own, 3)
    assert keys and rows_by_name(weights, own, ClassMatch(old.CLASSES, new.CLASSES))
    for k in keys:
        was = old.state_dict()[k]
        assert torch.equal(weights[k], torch.stack([was[2], own[k][1], was[0]])), k
    assert all(torch.equal(v, old.state_dict()[k]) for k,v in weights.items() if k not in keys)

def test_rows_move_in_a_network_that_ends_in_its_own_classifier():
    def build(classes):
        model = MODELS.build(dict(
            type='ImageClassifier', backbone=dict(type='LeNet5', num_classes=3), head=dict(type='ClsHead')))
        model.CLASSES = classes
        return model
    from clsnb.core.load import load_state_dict
    old, new = build(('a', 'b', 'c')), build(('c', 'a', 'b'))
    load_state_dict(new, old.state_dict(), classes=old.CLASSES)
    a, b = (list(o.state_dict().values())[-2] for o in (old, new))
    assert torch.equal(b, a[[2, 0, 1]])

# ---- Classes by name: asking, testing, resuming

FORMS = [
    np.array(['cat', 'dog', 'owl']), ['cat', 'dog', 'owl'], 'cat,dog,owl', {0: 'cat', 1: 'dog', 2: 'owl'},
    dict(owl=2, dog=1, cat=0)]

@pytest.mark.parametrize('form', FORMS, ids=lambda o: type(o).__name__)
def test_class_names_in_any_form(trained, tmp_path, form):
    path = changed(checkpoint(trained), tmp_path/'a.pth', meta=dict(CLASSES=form))
    model = init_model(path)
    assert model.CLASSES==('cat', 'dog', 'owl') and all(type(o) is str for o in model.CLASSES)

@pytest.mark.parametrize('form', [torch.arange(3), range(3), np.arange(3), [0, 1, 2]], ids=lambda o: type(o).__name__)
def test_class_names_that_are_numbers(trained, tmp_path, form):
    assert init_model(changed(checkpoint(trained), tmp_path/'a.pth', meta=dict(CLASSES=form))).CLASSES==('0', '1', '2')

def test_what_is_no_list_of_names():
    for o in (None, 3, [], {}, [[1], [2]], np.zeros((2, 2)), torch.ones(()), range(10**12), [None], object()):
        assert as_class_names(o) is None

@pytest.mark.parametrize('names', [('cat', 'dog'), tuple('abcd')])
def test_names_are_never_more_or_fewer_than_scores(trained, tmp_path, names):
    path = changed(checkpoint(trained), tmp_path/'a.pth', meta=dict(CLASSES=names))
    with pytest.warns(UserWarning, match=f'names {len(names)} classes, but its head has 3'): model = init_model(path)
    assert len(model.CLASSES)==3==len(predict_scores(model, [str(trained/'p/cat/0.png')])[0])

def accuracy(folder, path, **change):
    cfg = make(folder, **change)
    return evaluate_config(cfg, path, device='cpu')[0]['accuracy_top-1']

def test_data_in_another_order_are_tested_by_name(trained, tmp_path):
    rows = torch.tensor([2, 0, 1])
    old = read_checkpoint(checkpoint(trained))['state_dict']
    weights = {k: old[k][rows] for k in ('head.fc.weight', 'head.fc.bias')}
    path = changed(checkpoint(trained), tmp_path/'a.pth', weights=weights, meta=dict(CLASSES=('owl', 'cat', 'dog')))
    assert accuracy(trained/'p', path)==accuracy(trained/'p', checkpoint(trained))
    cfg = make(trained/'p')
    cfg.data.test.classes = ['cat', 'dog', 'owl'] # numbers of another order than those of the checkpoint
    with pytest.raises(ConfigError, match="class 0 is 'cat', but .* 'owl'"): evaluate_config(cfg, path, device='cpu')

def test_data_of_other_classes_are_refused(trained, tmp_path):
    for classes in (('dog', 'owl', 'zebra'), ('bee', 'cat', 'dog', 'owl'), ('x', 'y', 'z')):
        folder = pictures(tmp_path/'_'.join(classes), classes)
        with pytest.raises(DataError, match='none of') as e: accuracy(folder, checkpoint(trained))
        assert '\n' not in str(e.value)
    nameless = changed(checkpoint(trained), tmp_path/'a.pth', meta=dict(CLASSES=None, config=None))
    with pytest.raises(ConfigError, match='4 classes, but the model has 3'): accuracy(tmp_path/'bee_cat_dog_owl', nameless)
    assert accuracy(trained/'p', nameless)==accuracy(trained/'p', checkpoint(trained))

def test_a_resumed_run_has_the_classes_that_it_had(trained, tmp_path):
    folder = shutil.copytree(trained/'p', tmp_path/'q')
    os.rename(folder/'cat', folder/'zebra')
    for names,text in ((None, 'other classes'), (['owl', 'cat', 'dog'], 'another order')):
        cfg = make(folder if names is None else trained/'p', epochs=2)
        if names: cfg.data.train.classes = names
        with pytest.raises(CheckpointError, match=f'{text}.*load_from'):
            fit(cfg, tmp_path/'w', resume_from=checkpoint(trained), device='cpu', validate=False)
