"""Class activation maps: every backbone has a map and takes every method that suits it, layers are found by the names
that mmcls gives them, several layers, classes, methods and models stand side by side, and what cannot be done is one
line. `data/backbones.json` has a small variant of each backbone."""
import json, warnings
from pathlib import Path
import numpy as np, pytest, torch
from torch import nn
from clsnb.all import MODELS, ClsnbError, Config, Run, build_classifier, photo_path
from clsnb.analysis.cam import cam_layers, cam_map, cam_methods
from clsnb.analysis.cam_layers import find_layer, map_layout, tokens_to_map
from clsnb.apis.vis_cam import vis_cam
from clsnb.core.checkpoint import save_checkpoint
from clsnb.core.errors import ConfigError

backbones = json.loads((Path(__file__).parent/'data/backbones.json').read_text())
cat = photo_path('cat')

def steps(channels, h, w):
    color = dict(color_type='grayscale') if channels==1 else {}
    norm = dict(mean=[120.]*channels, std=[60.]*channels, to_rgb=channels==3)
    return [dict(type='LoadImageFromFile', **color), dict(type='Resize', size=(h, w)), dict(type='Normalize', **norm),
            dict(type='ImageToTensor', keys=['img']), dict(type='Collect', keys=['img'])]

class Net(nn.Module):
    "A backbone whose score is a fixed mixture of its last output"
    def __init__(self, name, picture):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = MODELS.build(dict(type=name, **backbones[name]['args']))
        self.cfg = Config(dict(data=dict(test=dict(type='CustomDataset', pipeline=steps(*picture)))))
    def forward(self, x):
        out = self.backbone(x)
        out = out[-1]
        parts = out if isinstance(out, (tuple, list)) else [out]
        parts = parts if type(self.backbone).__name__=='Conformer' else parts[-1:] # its two branches have a head each
        out = torch.cat([o.flatten(2).mean(2) if o.ndim>2 else o for o in parts], 1)
        return out @ torch.linspace(-1, 1, 3*out.shape[1]).reshape(-1, 3).sin()

# ---- Every backbone

@pytest.mark.parametrize('name', backbones)
def test_every_backbone_has_a_map(name):
    picture = backbones[name]['picture']
    model = Net(name, picture)
    keys = {k: v.clone() for k,v in model.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        found = [cam_map(model, cat, k, method) for k,method in ((0, 'GradCAM'), (1, 'LayerCAM'), (2, 'EigenGradCAM'))]
    assert all(o['heat'].shape == tuple(picture[1:]) for o in found)
    assert max(o['heat'].max() for o in found) > .5, found[0]['layers']
    assert all(v.equal(keys[k]) for k,v in model.state_dict().items()) and model.training
    table = cam_layers(model, cat)
    assert table.suits[table.default].all(), 'the layer that is used by default suits'

@pytest.mark.parametrize('name', [k for k,v in backbones.items() if v.get('odd')])
def test_maps_of_pictures_of_any_shape(name):
    picture = backbones[name]['odd']
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        assert cam_map(Net(name, picture), cat, 0, 'LayerCAM')['heat'].shape == tuple(picture[1:])

# ---- Layers by name

@pytest.fixture(scope='module')
def model():
    cfg = Config.fromfile('resnet18-tiny_1xb16_photos')
    torch.manual_seed(0)
    model = build_classifier(cfg.model)
    model.init_weights()
    model.cfg, model.CLASSES = cfg, ('animal', 'building', 'fish', 'solar', 'tool', 'windmill')
    return model.eval()

@pytest.mark.parametrize('name', [
    'backbone.layer4.1', 'backbone.layer4[1]', 'backbone.layer4[-1]', 'model.backbone.layer4[-1]', 'layer4.1', 'layer4.-1',
])
def test_names_of_a_layer(model, name):
    assert find_layer(model, name) == ('backbone.layer4.1', model.backbone.layer4[1])

@pytest.mark.parametrize('name, hint', [
    ('backbone.layer5', "backbone has no 'layer5'. Did you mean 'layer4'"), ('backbone.layer4[7]', "has no '7'. Known: 0, 1"),
    ('bakbone', "Did you mean 'backbone'"), ('backbone.layer4.1.conv9', "Did you mean 'conv2' or 'conv1'"), ('', 'no layer'),
    ('backbone.layer4[-9]', "has no '-9'"), ('__class__', 'no layer'),
])
def test_unknown_layers(model, name, hint):
    with pytest.raises(ConfigError) as e: cam_map(model, cat, target_layers=[name])
    assert hint in str(e.value) and '\n' not in str(e.value)

@pytest.mark.parametrize('name, why', [
    ('head.fc', '1 x 6, which is not a feature map'), ('neck', 'returns a tuple'), ('head.compute_loss', 'does not run'),
])
def test_layers_without_a_map(model, name, why):
    with pytest.raises(ConfigError, match=why): cam_map(model, cat, target_layers=name)

def test_several_layers_are_averaged(model):
    one, two, both = (cam_map(model, cat, 0, target_layers=o) for o in ('layer2', 'layer3', ['layer2', 'layer3']))
    expected = one['heat']+two['heat']
    expected = (expected-expected.min())/(expected.max()-expected.min())
    np.testing.assert_allclose(both['heat'], expected, atol=.01)
    assert both['layers'] == ['backbone.layer2', 'backbone.layer3']

def test_an_activation_changed_in_place_is_seen_as_the_layer_returned_it():
    class Net(nn.Module):
        def __init__(self, inplace):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.relu = nn.Conv2d(3, 4, 3), nn.ReLU(inplace)
            self.cfg = Config(dict(data=dict(test=dict(type='CustomDataset', pipeline=steps(3, 16, 16)))))
        def forward(self, x): return self.relu(self.conv(x)).mean((2, 3))
    apart, in_place = (cam_map(Net(o), cat, 0, 'eigencam', target_layers='conv')['heat'] for o in (False, True))
    assert np.array_equal(apart, in_place)

# ---- Layouts

@pytest.mark.parametrize('shape, extra, expected', [
    ((1, 197, 768), 0, ('tokens', 14, 14, 1)), ((1, 198, 768), 2, ('tokens', 14, 14, 2)),
    ((1, 49, 96), 1, ('tokens', 7, 7, 0)),
    ((1, 512, 7, 7), 0, ('channels first', 7, 7, 0)), ((1, 7, 7, 512), 0, ('channels last', 7, 7, 0)), ((1, 1000), 0, None),
    ((1, 512, 1, 1), 0, None), ((1, 11, 3), 0, ('tokens', 3, 3, 2)), ((1, 24, 3), 0, None),
    ((1, 5), 0, None), ((1, 2, 8), 1, None),
])
def test_layouts_for_a_square_picture(shape, extra, expected):
    found = map_layout(shape, (224, 224), extra)
    assert expected is None if found is None else found[:4] == expected

def test_tokens_lie_row_by_row():
    x = torch.arange(1+6*4).reshape(1, -1, 1).float()
    grid = tokens_to_map(1, (60, 40))(x)[0, 0]
    assert grid.shape == (6, 4) and grid[0].tolist() == [1, 2, 3, 4] and grid[1, 0] == 5

# ---- Methods

@pytest.mark.parametrize('method', cam_methods)
@pytest.mark.parametrize('kind', ['ResNet', 'VisionTransformer'])
def test_every_method_on_maps_and_on_tokens(method, kind):
    picture = backbones[kind]['picture']
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        found = cam_map(Net(kind, picture), cat, 0, method)
    assert found['heat'].shape == tuple(picture[1:]) and np.isfinite(found['heat']).all()

@pytest.mark.parametrize('name', ['GradCAM', 'gradcam', 'GRADCAM', 'grad-cam'])
def test_case_does_not_matter(model, name):
    assert np.array_equal(cam_map(model, cat, 0, name)['heat'], cam_map(model, cat, 0)['heat'])

def test_gradcam_is_what_the_formula_says(model):
    from clsnb.analysis.cam import model_input
    x = model_input(model, cat)[0]
    features = model.backbone(x)[0].detach().requires_grad_()
    k = int(model.head.fc.weight.sum(1).argmax())
    model.head.fc(features.mean((2, 3)))[0, k].backward()
    map_ = (features*features.grad.mean((2, 3), keepdim=True)).sum(1)[0].relu().detach().numpy()
    heat = cam_map(model, cat, k, target_layers='layer4')['heat']
    h, w = map_.shape
    centre = heat[heat.shape[0]//h//2::heat.shape[0]//h, heat.shape[1]//w//2::heat.shape[1]//w][:h, :w]
    assert np.corrcoef(centre.ravel(), map_.ravel())[0, 1] > .98

def test_smoothing_changes_the_map(model):
    plain, flips, eigen = (cam_map(model, cat, 0, target_layers='layer3', **o)['heat']
                           for o in ({}, dict(aug_smooth=True), dict(eigen_smooth=True)))
    assert abs(plain-flips).max() > .01 and abs(plain-eigen).max() > .01

# ---- Tokens

def test_extra_tokens_are_found_and_a_wrong_number_is_said():
    model = Net('VisionTransformer', backbones['VisionTransformer']['picture'])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        right = cam_map(model, cat, 0, 'layercam', num_extra_tokens=1)
    with pytest.warns(UserWarning, match=r'num_extra_tokens=0 does not fit: the layer returns \d+ tokens, 1 and'):
        wrong = cam_map(model, cat, 0, 'layercam', num_extra_tokens=0)
    assert np.array_equal(right['heat'], wrong['heat'])

def test_a_layer_behind_the_last_attention_is_said_to_be_blank():
    model = Net('VisionTransformer', backbones['VisionTransformer']['picture'])
    last = f'backbone.layers[{max(model.backbone.out_indices)}].ln2'
    with pytest.warns(UserWarning, match='is blank with GradCAM'): cam_map(model, cat, 0, target_layers=last)
    table = cam_layers(model, cat)
    assert not table.suits[find_layer(model, last)[0]] and table['map'][find_layer(model, last)[0]]

# ---- The figure

@pytest.fixture(scope='module')
def work_dir(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp('cam')/'run'
    folder.mkdir()
    model.cfg.dump(folder/'config.py')
    meta = dict(CLASSES=model.CLASSES, config=model.cfg.pretty_text)
    save_checkpoint(model, folder/'epoch_1.pth', meta=meta)
    return folder

def test_whatever_leads_to_a_model(model, work_dir):
    sources = [(model, None), (work_dir, None), (Run(work_dir), None), (work_dir/'epoch_1.pth', None),
               (work_dir/'config.py', work_dir/'epoch_1.pth')]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        heats = [vis_cam(cat, *source, method='layercam', target_layers='layer3').cams[0]['heat'] for source in sources]
    for heat in heats[1:]: np.testing.assert_allclose(heat, heats[0], atol=1e-4) # channels-last rounds otherwise

def test_rows_and_columns(model, work_dir, tmp_path):
    fig = vis_cam([cat, photo_path('fish1')], [model, work_dir], method=['GradCAM', 'LayerCAM', 'EigenCAM'],
                  target_category=['fish', '0'], target_layers='layer3', save_path=tmp_path/'new/cam.png')
    assert len(fig.cams) == 2*2*2*3 and len(fig.axes) == 2*2*2*4
    assert [o['target'] for o in fig.cams[:6]] == [2]*3+[0]*3
    assert [o['method'] for o in fig.cams[:3]] == ['GradCAM', 'LayerCAM', 'EigenCAM']
    assert (tmp_path/'new/cam.png').read_bytes()[:4] == b'\x89PNG'

def test_preview_lists_layers(work_dir):
    table = vis_cam(cat, work_dir, preview_model=True)
    assert list(table.columns) == ['type', 'output', 'map', 'suits', 'default']
    assert list(table.index[table.default]) == ['backbone.layer4'] and not table.suits['head.fc']

def test_an_untrained_model_is_said():
    with pytest.warns(UserWarning, match='The model is untrained'):
        vis_cam(cat, 'resnet18-tiny_1xb16_photos', 'none', method='layercam', target_layers='layer3')
    cfg = Config.fromfile('resnet18-tiny_1xb16_photos')
    with pytest.warns(UserWarning) as caught: vis_cam(cat, cfg, method='layercam', target_layers='layer3')
    assert sum('untrained' in str(o.message) for o in caught) == 1

@pytest.mark.parametrize('options, message', [
    (dict(img=[]), 'at least one picture'), (dict(img='absent.jpg'), 'absent.jpg'),
    (dict(method='GradCAN'), "Did you mean 'gradcam'"),
    (dict(method=[]), 'one method'), (dict(target_category='dog'), "no class 'dog'"), (dict(target_category=6), '0 to 5'),
    (dict(target_category='-1'), '0 to 5'), (dict(save_path='cam.txt'), 'has to end with'), (dict(cfg=[]), '0 models'),
    (dict(cfg=nn.Linear(2, 2)), 'has no config'), (dict(save_path='/proc/none/cam.png'), 'cannot be written'),
    (dict(cfg='resnet18-tiny_1xb16_photo'), "Did you mean 'resnet18-tiny_1xb16_photos'"), (dict(img=5), 'not a int'),
    (dict(target_layers='backbone.layer9'), "no layer 'backbone.layer9'"), (dict(cfg='absent/epoch_1.pth'), 'absent'),
], ids=str)
def test_bad_input(model, options, message):
    given = dict(img=cat, cfg=model) | options
    with pytest.raises(ClsnbError) as e: vis_cam(**given)
    assert message in str(e.value) and '\n' not in str(e.value)
