"""What a user's own code finds when only its imports are changed: classes of exceptions, methods and tables that a
subclass overrides, first weights."""
import gzip, json, math, pickle
from functools import partial
from pathlib import Path
import numpy as np, pytest, torch
from PIL import Image
from clsnb.all import (
    BACKBONES, Config, DATASETS, HOOKS, Hook, IterBasedRunner, MODELS, Runner, TRANSFORMS, build_backbone, build_classifier,
    build_dataloader, build_head, build_loss, build_neck, fit, multi_gpu_test, single_gpu_test
)
from clsnb.config.config import import_custom
from clsnb.config.imports import migrate_imports
from clsnb.core.checkpoint import read_checkpoint
from clsnb.core.compat import digit_version
from clsnb.core.errors import CheckpointError, ConfigError, DataError
from clsnb.layers.conv import ConvModule, build_conv_layer
from clsnb.layers.fuse import fuse_conv_bn
from clsnb.layers.module import BaseModule, ModuleList, Sequential
from clsnb.layers.norm_act import build_norm_layer
from clsnb.layers.residual import BasicBlock, Bottleneck, ResLayer, get_expansion
from clsnb.layers.se import SELayer
from clsnb.models.backbones.resnet import ResNet
from clsnb.models.backbones.resnext import ResNeXtBottleneck
from clsnb.models.backbones.shufflenet import channel_shuffle
from clsnb.models.losses import binary_cross_entropy, cross_entropy, soft_cross_entropy, weighted_loss
from clsnb.models.rebalancing_losses import asymmetric_loss, seesaw_ce_loss, sigmoid_focal_loss
from clsnb.train.evaluation import EvalHook

@pytest.mark.parametrize('error', [ConfigError, DataError])
@pytest.mark.parametrize('kind', [ValueError, TypeError, KeyError, AssertionError])
def test_our_errors_are_also_those_of_python(error, kind):
    with pytest.raises(kind) as found: raise error("'depth' is unknown.")
    assert str(found.value)=="'depth' is unknown." # no quotes around it, as KeyError has
    assert str(pickle.loads(pickle.dumps(found.value)))=="'depth' is unknown."

def test_a_checkpoint_error_is_a_runtime_error(): assert issubclass(CheckpointError, RuntimeError)

@pytest.mark.parametrize('kind,make', [
    (KeyError, lambda: build_backbone(dict(type='ResNett', depth=18))),
    (KeyError, lambda: build_backbone(dict(depth=18))),
    (KeyError, lambda: build_backbone(dict(type='ResNet', depth=19))),
    (TypeError, lambda: build_backbone(dict(type='ResNet', deep=18))),
    (AssertionError, lambda: build_backbone(dict(type='ResNet', depth=18, num_stages=5))),
    (AssertionError, lambda: build_backbone(dict(type='VisionTransformer', arch=dict(embed_dims=8)))),
    (AssertionError, lambda: BACKBONES.get('ResNet')(18, style='tensorflow')),
])
def test_an_error_has_the_class_that_it_has_in_mmcls(kind, make):
    with pytest.raises(kind): make()

def test_an_error_inside_a_config_keeps_its_words(tmp_path):
    (tmp_path/'a.py').write_text("_base_ = ['missing.py']\n")
    with pytest.raises(ConfigError) as found: Config.fromfile(tmp_path/'a.py')
    assert str(found.value).count('cannot be read, ')==0 and 'missing.py' in str(found.value)

# ---- methods and tables that a subclass of MMClassification's class overrides

def calls_of(make, cls, method):
    "How often the method is called while an object is made"
    calls = []
    def counted(self, *args, **kwargs):
        calls.append((args, kwargs))
        return getattr(super(own, self), method)(*args, **kwargs)
    own = type(f'Own{cls.__name__}', (cls,), {method: counted})
    obj = make(own)
    return calls,obj

@pytest.mark.parametrize('name,method,count,args', [
    ('ResNet', '_make_stem_layer', 1, dict(depth=18)),
    ('ResNet', 'make_res_layer', 4, dict(depth=18)),
    ('ResNet_CIFAR', '_make_stem_layer', 1, dict(depth=18)),
    ('ResNetV1d', '_make_stem_layer', 1, dict(depth=50)),
    ('ResNeXt', 'make_res_layer', 4, dict(depth=50)),
    ('SEResNet', 'make_res_layer', 4, dict(depth=50)),
    ('SEResNeXt', 'make_res_layer', 4, dict(depth=50)),
    ('Res2Net', 'make_res_layer', 4, dict(depth=50)),
    ('ResNeSt', 'make_res_layer', 4, dict(depth=50)),
    ('RegNet', '_make_stem_layer', 1, dict(arch='regnetx_400mf')),
    ('RegNet', 'make_res_layer', 4, dict(arch='regnetx_400mf')),
    ('CSPDarkNet', '_make_stem_layer', 1, dict(depth=53)),
    ('CSPResNet', '_make_stem_layer', 1, dict(depth=50)),
    ('HRNet', '_make_transition_layer', 3, dict(arch='w18')),
    ('HRNet', '_make_stage', 3, dict(arch='w18')),
    ('HRNet', 'parse_arch', 1, dict(arch='w18')),
    ('MobileNetV2', 'make_layer', 7, {}),
    ('MobileNetV3', '_make_layer', 1, {}),
    ('EfficientNet', 'make_layer', 1, {}),
    ('ShuffleNetV1', 'make_layer', 3, {}),
    ('ShuffleNetV2', '_make_layer', 3, {}),
    ('RepVGG', '_make_stage', 4, dict(arch='A0')),
    ('EfficientFormer', '_make_stem', 1, {}),
])
def test_methods_that_build_a_backbone_are_called(name, method, count, args):
    cls = BACKBONES.get(name)
    calls,net = calls_of(lambda own: own(**args), cls, method)
    assert len(calls)==count and list(net.state_dict())==list(cls(**args).state_dict())

@pytest.mark.parametrize('name,methods,args', [
    ('VisionTransformer', ['_prepare_pos_embed'], dict(arch='deit-tiny', img_size=64)),
    ('T2T_ViT', ['_prepare_pos_embed'], dict(num_layers=2, img_size=64)),
    ('SwinTransformer', ['_prepare_abs_pos_embed', '_prepare_relative_position_bias_table'], dict(img_size=64)),
    ('SwinTransformerV2', ['_prepare_abs_pos_embed', '_delete_reinit_params'], dict(img_size=64)),
])
def test_methods_that_change_a_state_dict_are_called(name, methods, args):
    cls = BACKBONES.get(name)
    for method in methods:
        calls,net = calls_of(lambda own: own(**args), cls, method)
        net.load_state_dict(cls(**args).state_dict(), strict=False) # tables that are computed are left out
        assert len(calls)==1

@pytest.mark.parametrize('name,methods,args', [
    ('PoolFormer', ['forward_embeddings', 'forward_tokens'], {}),
    ('EfficientFormer', ['forward_tokens'], {}),
])
def test_methods_of_the_forward_pass_are_called(name, methods, args):
    for method in methods:
        calls,net = calls_of(lambda own: own(**args), BACKBONES.get(name), method)
        net.eval()(torch.zeros(1, 3, 64, 64))
        assert len(calls)==1

@pytest.mark.parametrize('name,method,args', [
    ('Conformer', '_init_weights', dict(arch='tiny')),
    ('ConformerHead', '_init_weights', dict(num_classes=3, in_channels=[4, 5])),
])
def test_methods_of_the_first_weights_are_called(name, method, args):
    calls,m = calls_of(lambda own: own(**args), MODELS.get(name), method)
    m.init_weights()
    assert len(calls)==len(list(m.modules()))

@pytest.mark.parametrize('name,args', [
    ('StackedLinearClsHead', dict(num_classes=3, in_channels=4, mid_channels=[5])),
    ('VisionTransformerClsHead', dict(num_classes=3, in_channels=4, hidden_dim=5)),
    ('DeiTClsHead', dict(num_classes=3, in_channels=4)),
])
def test_a_head_calls_its_init_layers(name, args):
    calls,_ = calls_of(lambda own: own(**args), MODELS.get(name), '_init_layers')
    assert len(calls)==1

# Tutorial 5, with other imports
class TutorialResNet(ResNet):
    def __init__(self, depth, deep_stem=False, **kwargs):
        super().__init__(depth, deep_stem=deep_stem, **kwargs)
        assert not self.deep_stem
    def _make_stem_layer(self, in_channels, base_channels):
        self.conv1 = build_conv_layer(
            self.conv_cfg, in_channels, base_channels, kernel_size=3, stride=1, padding=1, bias=False
        )
        self.norm1_name,norm1 = build_norm_layer(self.norm_cfg, base_channels, postfix=1)
        self.add_module(self.norm1_name, norm1)
        self.relu = torch.nn.ReLU(inplace=True)
    def forward(self, x):
        x = self.relu(self.norm1(self.conv1(x)))
        outs = []
        for i,name in enumerate(self.res_layers):
            x = getattr(self, name)(x)
            if i in self.out_indices: outs.append(x)
        return tuple(outs)

def test_the_backbone_of_tutorial_5_is_resnet_cifar():
    torch.manual_seed(0)
    own = TutorialResNet(18, frozen_stages=0).eval()
    ref = BACKBONES.get('ResNet_CIFAR')(18).eval()
    ref.load_state_dict(own.state_dict())
    x = torch.randn(2, 3, 32, 32)
    assert own.conv1.stride==(1, 1) and own(x)[0].shape[-1]==4
    assert torch.equal(own(x)[0], ref(x)[0])
    assert not own.conv1.weight.requires_grad and own.layer1[0].conv1.weight.requires_grad

def test_a_stage_gets_its_block_from_a_subclass():
    class Grouped(ResNet):
        arch_settings = {50: (ResNeXtBottleneck, (1, 1, 1, 1)), 14: (ResNeXtBottleneck, (1, 1))}
        def make_res_layer(self, **kwargs):
            return ResLayer(groups=4, width_per_group=16, base_channels=self.base_channels, **kwargs)
    assert Grouped(50).layer1[0].conv2.groups==4
    net = Grouped(14, num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(1,))
    assert net(torch.zeros(1, 3, 32, 32))[0].shape==(1, 512, 4, 4)

small_transformer = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)

@pytest.mark.parametrize('name,attr,row', [
    ('VisionTransformer', 'arch_zoo', small_transformer),
    ('DistilledVisionTransformer', 'arch_zoo', small_transformer),
    ('SwinTransformer', 'arch_zoo', dict(embed_dims=8, depths=[1, 1], num_heads=[1, 1])),
    ('SwinTransformerV2', 'arch_zoo',
     dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1]*4, extra_norm_every_n_blocks=0)),
    ('MlpMixer', 'arch_zoo', dict(embed_dims=8, num_layers=1, tokens_mlp_dims=4, channels_mlp_dims=4)),
    ('MViT', 'arch_zoo', dict(embed_dims=8, num_layers=2, num_heads=1, downscale_indices=[1])),
    ('TNT', 'arch_zoo', dict(
        embed_dims_outer=8, embed_dims_inner=4, num_layers=1, num_heads_outer=1, num_heads_inner=1)),
    ('VAN', 'arch_zoo', dict(embed_dims=[4]*4, depths=[1]*4, ffn_ratios=[1]*4)),
    ('Conformer', 'arch_zoo', dict(embed_dims=8, channel_ratio=1, num_heads=1, depths=3)),
    ('HorNet', 'arch_zoo', dict(
        base_dim=8, depths=[1, 1], orders=[2, 2], dw_cfg=[dict(type='DW', kernel_size=3)]*2)),
    ('RepMLPNet', 'arch_zoo', dict(channels=[8, 8], depths=[1, 1], sharesets_nums=[1, 1])),
    ('PCPVT', 'arch_zoo', dict(
        embed_dims=[8], depths=[1], num_heads=[1], patch_sizes=[4], strides=[4], mlp_ratios=[1], sr_ratios=[1])),
    ('SVT', 'arch_zoo', dict(
        embed_dims=[8], depths=[1], num_heads=[1], patch_sizes=[4], strides=[4], mlp_ratios=[1], sr_ratios=[1],
        window_sizes=[7])),
    ('HRNet', 'arch_zoo', [[1, 1, 'BASIC', (1,), (64,)], [1, 2, 'BASIC', (1,)*2, (8,)*2],
                           [1, 3, 'BASIC', (1,)*3, (8,)*3], [1, 4, 'BASIC', (1,)*4, (8,)*4]]),
    ('ConvMixer', 'arch_settings', dict(embed_dims=8, depth=1, patch_size=4, kernel_size=3)),
    ('ConvNeXt', 'arch_settings', dict(depths=[1], channels=[8])),
    ('DenseNet', 'arch_settings', dict(growth_rate=4, depths=[1], init_channels=4)),
    ('EfficientFormer', 'arch_settings', dict(layers=[1], embed_dims=[8], downsamples=[False], vit_num=0)),
    ('PoolFormer', 'arch_settings', dict(layers=[1], embed_dims=[8])),
    ('RegNet', 'arch_settings', dict(w0=24, wa=24.48, wm=2.54, group_w=16, depth=13, bot_mul=1.)),
    ('RepVGG', 'arch_settings', dict(num_blocks=[1]*4, width_factor=[1]*4)),
    ('EfficientNet', 'arch_settings', (.5, .5, 224)),
    ('MobileNetV3', 'arch_settings', [[3, 16, 16, True, 'ReLU', 2]]),
])
def test_an_architecture_of_a_subclass_is_built_by_its_name(name, attr, row):
    cls = BACKBONES.get(name)
    key = 'bmine' if name=='EfficientNet' else 'mine'
    last = {} if name in ('Conformer', 'HRNet', 'TNT', 'MViT') else dict(out_indices=0)
    own = type('Own', (cls,), {attr: {**getattr(cls, attr), key: row}})
    net = own(key, **last)
    standard = sum(p.numel() for p in net.parameters())
    assert 0 < standard < 2e7

@pytest.mark.parametrize('name,attr,row,args', [
    ('VGG', 'arch_settings', {5: (1, 1, 1, 1, 1)}, dict(depth=5)),
    ('CSPResNet', 'arch_settings', {9: dict(
        block_fn=Bottleneck, in_channels=(64, 8), out_channels=(8, 8), num_blocks=(1, 1))},
        dict(depth=9, out_indices=0)),
    ('MobileNetV2', 'arch_settings', [[1, 16, 1, 1]], dict(out_indices=(1,))),
    ('ShuffleNetV2', 'stage_blocks', (1, 1, 1), {}),
])
def test_a_table_of_a_subclass_is_used(name, attr, row, args):
    cls = BACKBONES.get(name)
    full = cls(**({'depth': {'VGG': 11, 'CSPResNet': 50}[name]} if 'depth' in args else {}))
    net = type('Own', (cls,), {attr: row})(**args)
    assert len(list(net.modules())) < len(list(full.modules()))

def test_tokens_of_a_subclass_have_positions():
    class Register(BACKBONES.get('VisionTransformer')):
        num_extra_tokens = 3
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.registers = torch.nn.Parameter(torch.zeros(1, 2, self.embed_dims))
        def extra_tokens(self): return [self.cls_token, self.registers]
    net = Register(arch=small_transformer, img_size=32).eval()
    assert net.pos_embed.shape==(1, 4+3, 16)
    assert [o.shape for o in net(torch.zeros(1, 3, 32, 32))[0]]==[(1, 16, 2, 2), *[(1, 16)]*3]

@pytest.mark.parametrize('make,new', [
    (lambda: type('A', (BACKBONES.get('RegNet'),), dict(generate_regnet=lambda self: 0)), 'find_stages'),
    (lambda: type('A', (BACKBONES.get('EfficientNet'),), dict(layer_settings={})), 'row_settings'),
    (lambda: type('A', (DATASETS.get('CIFAR100'),), dict(_load_meta=lambda self: 0)), 'load_annotations'),
    (lambda: type('A', (TRANSFORMS.get('RandomCrop'),), dict(get_params=staticmethod(lambda img, size: 0))), 'apply'),
])
def test_an_override_that_nobody_calls_is_refused(make, new):
    with pytest.raises(ConfigError, match=f'is not called in clsnb: override {new} instead'): make()

def test_a_method_that_the_subclass_calls_itself_is_its_own_affair():
    class A(BACKBONES.get('RegNet')):
        def generate_regnet(self, width): return [(width, 1, 8)]*4
        def find_stages(self): return self.generate_regnet(16)
    assert A('regnetx_400mf').stage_widths==(16,)*4

@pytest.mark.parametrize('build', [build_backbone, build_neck, build_head, build_loss, build_classifier])
def test_a_name_alone_builds_nothing(build):
    with pytest.raises(TypeError, match="a dict with the key 'type'"): build('ResNet')

# ---- losses, results, evaluation and hooks as a user of mmcls writes them

def test_the_loss_of_tutorial_5():
    @weighted_loss
    def l1_loss(pred, target): return (pred-target).abs()
    class L1Loss(torch.nn.Module):
        def __init__(self, reduction='mean', loss_weight=1.0):
            super().__init__()
            self.reduction,self.loss_weight = reduction,loss_weight
        def forward(self, pred, target, weight=None, avg_factor=None, reduction_override=None):
            reduction = reduction_override or self.reduction
            return self.loss_weight*l1_loss(pred, target, weight, reduction=reduction, avg_factor=avg_factor)
    pred,target = torch.tensor([[0., 2.], [5., 1.]], requires_grad=True),torch.ones(2, 2)
    weight = torch.tensor([1., 0.])
    assert L1Loss()(pred, target).item()==1.5
    assert L1Loss('sum', 2.)(pred, target, weight).item()==4.
    assert L1Loss()(pred, target, weight, avg_factor=2).item()==1.
    assert L1Loss()(pred, target, reduction_override='none').shape==(2, 2)
    loss = L1Loss()(pred, target)
    loss.backward()
    assert pred.grad.tolist()==[[-.25, .25], [.25, 0.]] and l1_loss.__name__=='l1_loss'
    with pytest.raises(ValueError): L1Loss('sum')(pred, target, avg_factor=2)
    with pytest.raises(ValueError): L1Loss('median')(pred, target)

def test_losses_as_functions_are_the_losses_as_classes():
    torch.manual_seed(0)
    score,label,weight = torch.randn(6, 4),torch.tensor([0, 1, 2, 3, 1, 1]),torch.rand(6)
    rows = torch.nn.functional.one_hot(label, 4).float()
    cw = torch.rand(4)
    counts = torch.bincount(label, minlength=4).float()
    for own,cls,args,target in [
        (cross_entropy, 'CrossEntropyLoss', {}, label),
        (partial(cross_entropy, class_weight=cw), 'CrossEntropyLoss', dict(class_weight=cw.tolist()), label),
        (soft_cross_entropy, 'CrossEntropyLoss', dict(use_soft=True), rows),
        (binary_cross_entropy, 'CrossEntropyLoss', dict(use_sigmoid=True), rows),
        (partial(binary_cross_entropy, pos_weight=cw), 'CrossEntropyLoss',
         dict(use_sigmoid=True, pos_weight=cw.tolist()), rows),
        (sigmoid_focal_loss, 'FocalLoss', {}, rows),
        (asymmetric_loss, 'AsymmetricLoss', dict(gamma_pos=1.), rows),
    ]:
        loss = MODELS.build(dict(type=cls, **args))
        for how in (dict(), dict(avg_factor=5.)):
            torch.testing.assert_close(own(score, target, weight, **how), loss(score, target, weight, **how))
        torch.testing.assert_close(own(score, target, reduction='none'), loss(score, target, reduction_override='none'))
    torch.testing.assert_close(
        seesaw_ce_loss(score, label, weight, counts, 4, .8, 2., .01),
        MODELS.build(dict(type='SeesawLoss', num_classes=4))(score, label, weight))
    for f in (binary_cross_entropy, sigmoid_focal_loss, asymmetric_loss):
        with pytest.raises(AssertionError): f(score, rows[:, :3])

def test_show_result_writes_on_the_picture(tmp_path):
    model = build_classifier(dict(
        type='ImageClassifier', backbone=dict(type='LeNet5'), head=dict(type='ClsHead')))
    img = np.full((90, 120, 3), 255, np.uint8)
    out = model.show_result(
        img, dict(pred_label=0, pred_score=.9, pred_class='cat'), out_file=tmp_path/'sub'/'a.png',
        text_color='green', font_scale=.5, row_width=20, show=False, fig_size=(5, 5), win_name='a', wait_time=0)
    assert out.shape==img.shape and out.dtype==np.uint8 and (out!=img).any() and (out[-9:]==255).all()
    saved = np.asarray(Image.open(tmp_path/'sub'/'a.png'))[..., ::-1]
    assert np.array_equal(saved, out) and (img==255).all()

class Rows(torch.utils.data.Dataset):
    "A data set of the user's own, without numbers in its batches"
    CLASSES = ['a', 'b', 'c']
    def __init__(self, n=7): self.n = n
    def __len__(self): return self.n
    def __getitem__(self, i): return dict(img=torch.full((1,), float(i)), img_metas=dict())
    def evaluate(self, results, logger=None, **kwargs):
        assert [int(o.argmax()) for o in results]==[i%3 for i in range(self.n)]
        return dict(right=100.)

class Modulo(torch.nn.Module):
    "Right about `Rows`"
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(1))
    def forward(self, img, img_metas=None, return_loss=False):
        return torch.nn.functional.one_hot(img[:, 0].long()%3, 3).float()+self.w
    def train_step(self, data, optimizer):
        loss = (self.w*data['img']).sum()
        return dict(loss=loss, log_vars=dict(loss=loss), num_samples=len(data['img']))

@pytest.mark.parametrize('batch_size', [1, 3])
def test_scores_of_any_loader(batch_size):
    data = Rows()
    for test in (single_gpu_test, multi_gpu_test):
        data.evaluate(test(Modulo(), torch.utils.data.DataLoader(data, batch_size)))
    with pytest.raises(DataError, match='shuffle=False'):
        single_gpu_test(Modulo(), torch.utils.data.DataLoader(data, batch_size, shuffle=True))

class NoteEvaluation(EvalHook):
    "Overrides what subclasses of mmcls's hook override"
    def _do_evaluate(self, runner):
        self.moments = [*getattr(self, 'moments', []), runner.iter+1]
        super()._do_evaluate(runner)
    def evaluate(self, runner, results):
        "As in mmcv"
        found = self.dataloader.dataset.evaluate(results, logger=runner.logger, **self.eval_kwargs)
        for name,value in found.items(): runner.log_buffer.output[name] = value
        runner.log_buffer.ready = True
        self.logged = dict(runner.log_buffer.output)
        return found[self.save_best]
    def _save_ckpt(self, runner, key_score):
        self.scores = [*getattr(self, 'scores', []), key_score]
        return super()._save_ckpt(runner, key_score)

def test_an_evaluation_hook_of_mmcls_with_loaders_of_torch(tmp_path):
    model = Modulo()
    runner = IterBasedRunner(model, torch.optim.SGD(model.parameters(), 0.), tmp_path, max_iters=6)
    hook = NoteEvaluation(torch.utils.data.DataLoader(Rows(), 2), interval=3, by_epoch=False, save_best='right')
    runner.register_training_hooks(dict(policy='fixed'), dict(grad_clip=None), custom_hooks_config=[hook])
    runner.run([torch.utils.data.DataLoader(Rows(), 4)], [('train', 1)])
    assert hook.moments==[3, 6] and hook.scores==[100.] and hook.logged['right']==100.
    assert [p.name for p in tmp_path.glob('*.pth')]==['best_right_iter_3.pth']

def test_a_loader_answers_what_users_ask():
    def collate(samples): return torch.stack([o['img'] for o in samples])
    data = Rows()
    loader = build_dataloader(data, 2, 0, shuffle=False, drop_last=True, pin_memory=False, collate_fn=collate)
    assert (loader.dataset, loader.batch_size, loader.num_workers, len(loader))==(data, 2, 0, 3)
    assert (loader.collate_fn, loader.drop_last, loader.pin_memory)==(collate, True, False)
    assert loader.persistent_workers and callable(loader.worker_init_fn) and loader._dataloader is loader
    assert list(loader.sampler) and loader.timeout==0

class Probe(Hook):
    "Touches what hooks of mmcls touch"
    def before_run(self, runner): self.seen = {}
    def after_train_iter(self, runner):
        self.seen.setdefault('module', runner.model.module is runner.model)
        self.seen['history'] = runner.log_buffer.val_history['loss'][-1],runner.log_buffer.n_history['loss']
        self.seen['count'] = runner._epoch,runner._iter,runner._inner_iter,runner._max_epochs,runner._max_iters
        self.seen['loader'] = runner.data_loader._dataloader.dataset
        self.seen['momentum'] = runner.current_momentum()
        self.seen['hooks'] = len(runner._hooks)
    def after_train_epoch(self, runner):
        runner.save_checkpoint(
            runner.work_dir, filename_tmpl='own_{}.pth', save_optimizer=False, meta=dict(note=1), create_symlink=True)
        runner.save_checkpoint(runner.work_dir)
        runner._max_iters = runner._iter # ends here

def probed(tmp_path, **kwargs):
    model = Modulo()
    runner = Runner(model, torch.optim.SGD(model.parameters(), .1, momentum=.5), tmp_path, max_epochs=3)
    runner.register_training_hooks(
        dict(policy='step', step=[1]), dict(grad_clip=dict(max_norm=1.)), dict(interval=2),
        dict(interval=1, hooks=[dict(type='TextLoggerHook')]), dict(policy='cyclic', target_ratio=(.85, 1)),
        custom_hooks_config=[Probe(), dict(type='Probe', priority='LOW')], **kwargs)
    return runner

def test_a_hook_finds_mmcvs_names(tmp_path):
    HOOKS.register(Probe, force=True)
    data = Rows(6)
    runner = probed(tmp_path)
    runner.run([build_dataloader(data, 2, shuffle=False)], [('train', 1)])
    seen = next(hook.seen for hook in runner.hooks if isinstance(hook, Probe))
    assert seen['module'] and seen['loader'] is data and seen['hooks']==len(runner.hooks)
    assert seen['count'][1:]==(2, 2, 3, 9) and seen['history'][1]==[2, 2, 2] and len(seen['momentum'])==1
    assert not hasattr(runner.model, 'module') and runner.model_name=='Modulo'
    saved = read_checkpoint(tmp_path/'own_1.pth')
    assert saved['meta']['note']==1 and 'optimizer' not in saved and (tmp_path/'latest.pth').exists()
    assert 'optimizer' in read_checkpoint(tmp_path/'epoch_1.pth')
    info = runner.get_hook_info()
    assert info.index('LrUpdaterHook') < info.index('OptimizerHook') < info.index('TextLoggerHook')

def test_hooks_answer_mmcvs_questions():
    assert Probe().get_triggered_stages()==['before_run', 'after_train_iter', 'after_train_epoch']
    class Both(Hook):
        def before_epoch(self, runner): pass
    assert Both().get_triggered_stages()==['before_train_epoch', 'before_val_epoch']
    scalar = HOOKS.get('LoggerHook').is_scalar
    assert all(map(scalar, (1, 2., np.ones(1), torch.ones(()), np.float32(1))))
    assert not any(map(scalar, ('1', np.ones(2), torch.ones(2), None)))
    logger = HOOKS.get('LoggerHook')()
    model = Modulo()
    runner = Runner(model, torch.optim.SGD(model.parameters(), .1, momentum=.5))
    assert logger.get_lr_tags(runner)=={'learning_rate': .1} and logger.get_momentum_tags(runner)=={'momentum': .5}
    model.w.grad = torch.full((1,), 4.)
    clip = HOOKS.get('OptimizerHook')(grad_clip=dict(max_norm=1.))
    assert float(clip.clip_grads(model.parameters()))==4. and model.w.grad.item()==pytest.approx(1., abs=1e-5)
    with pytest.raises(ConfigError, match='override get_lr instead'):
        type('Own', (HOOKS.get('LrUpdaterHook'),), dict(get_regular_lr=lambda self, runner: 0))

# ---- arguments that mmcls refuses

@pytest.mark.parametrize('registry,cfg', [
    (TRANSFORMS, dict(type='Rotate', angle=9., center=0)),
    (TRANSFORMS, dict(type='Rotate', angle=9., center=(0,))),
    (TRANSFORMS, dict(type='Rotate', angle=9., scale=None)),
    (TRANSFORMS, dict(type='Rotate', angle=9., pad_val=(0, 0))),
    (TRANSFORMS, dict(type='Shear', magnitude=.1, pad_val=(0, 0))),
    (TRANSFORMS, dict(type='Translate', magnitude=.1, pad_val='grey')),
    (MODELS, dict(type='LabelSmoothLoss', label_smooth_val=.1, reduction='unknown')),
    (MODELS, dict(type='GeneralizedMeanPooling', p=.5)),
    (MODELS, dict(type='ResNet', depth=18, expansion=2)),
    (MODELS, dict(type='ResNet', depth=50, expansion=0)),
    (MODELS, dict(type='ResNet', depth=50, expansion='4')),
    (MODELS, dict(type='ResNet', depth=18, out_indices=dict(a=1))),
    (MODELS, dict(type='VisionTransformer', out_indices='last')),
    (MODELS, dict(type='MobileNetV2', frozen_stages=8)),
    (MODELS, dict(type='MobileNetV3', frozen_stages=13)),
    (MODELS, dict(type='ShuffleNetV1', frozen_stages=3)),
    (MODELS, dict(type='ShuffleNetV2', frozen_stages=4)),
    (MODELS, dict(type='CSPDarkNet', depth=53, frozen_stages=5)),
    (MODELS, dict(type='PCPVT', arch='small', norm_after_stage=1)),
    (MODELS, dict(type='SVT', arch='small', norm_after_stage=dict())),
    (MODELS, dict(type='SVT', arch=['small'])),
    (MODELS, dict(type='RepVGG', arch=['A0'])),
    (MODELS, dict(type='RepVGG', arch=dict(num_blocks=[1]))),
    (MODELS, dict(type='RepMLPNet', arch=[4])),
    (MODELS, dict(type='RepMLPNet', arch=dict(channels=[8]))),
    (MODELS, dict(type='MViT', img_size=None)),
])
def test_an_argument_that_mmcls_refuses_is_refused(registry, cfg):
    with pytest.raises(ConfigError) as found: registry.build(cfg)
    assert '\n' not in str(found.value) and isinstance(found.value, AssertionError)

@pytest.mark.parametrize('make', [
    lambda: SELayer(16, act_cfg=[dict(type='ReLU')]*3),
    lambda: BasicBlock(64, 64, expansion=2),
    lambda: Bottleneck(64, 64, expansion=3),
    lambda: get_expansion(Bottleneck, '0'),
    lambda: channel_shuffle(torch.zeros(1, 7, 2, 2), 2),
])
def test_a_layer_refuses_what_that_of_mmcls_refuses(make):
    with pytest.raises(AssertionError): make()

def test_a_network_without_positions_needs_no_size():
    net = BACKBONES.get('MViT')('tiny', img_size=None, rel_pos_spatial=False).eval()
    assert net(torch.zeros(1, 3, 64, 96))[0].shape==(1, 768, 2, 3)

# ---- first weights

first_weights = json.loads(gzip.decompress((Path(__file__).parent/'data/first_weights.json.gz').read_bytes()))
def spread(name, w, mean, std, top):
    "What is wrong with the values of a parameter, within the error of a sample"
    n,own = w.numel(),w.detach().double()
    constant = std < 1e-6*max(1, abs(mean))
    if n==1: return (own.item()==0)!=(mean==0)
    own_std = own.std().item()
    if constant!=(own_std < 1e-6*max(1, abs(mean))): return True
    if abs(own.mean().item()-mean) > 9*max(std, own_std)/n**.5 + 2e-3*abs(mean) + 1e-6: return True
    if constant or n<16: return False
    return abs(math.log(own_std/std)) > 12/(2*n)**.5+.03

@pytest.mark.parametrize('name', first_weights)
def test_first_weights_are_those_of_mmcls(name):
    cfg = Config.fromfile(name).model
    for part in cfg.values():
        if isinstance(part, dict) and (part.get('init_cfg') or {}) and isinstance(part['init_cfg'], dict):
            if part['init_cfg'].get('type')=='Pretrained': part['init_cfg'] = None
    torch.manual_seed(0)
    net = build_classifier(cfg)
    net.init_weights()
    recorded = first_weights[name]
    wrong = []
    for key,w in net.named_parameters():
        # mmcls's ShuffleNetV2 means to set these to 1e-4, and leaves them 0; here they are 1e-4
        if name.startswith('shufflenet-v2') and key.endswith('bn.bias'):
            assert (w==1e-4).all()
        elif spread(key, w, *recorded[key]): wrong.append(key)
    assert not wrong and len(recorded)==len(list(net.parameters()))

small = json.loads((Path(__file__).parent/'data/backbones.json').read_text())

class Chain(BaseModule):
    "A convolution with its own start, in a container"
    def __init__(self, container, **kwargs):
        super().__init__(**kwargs)
        self.inner = container([ConvModule(3, 8, 3)]) if 'List' in container.__name__ else container(ConvModule(3, 8, 3))

@pytest.mark.parametrize('container,passes', [
    (torch.nn.Sequential, False), (torch.nn.ModuleList, False), (Sequential, True), (ModuleList, True)])
def test_the_start_passes_through_our_containers_only(container, passes):
    net = Chain(container, init_cfg=dict(type='Constant', layer='Conv2d', val=2., bias=3.))
    net.init_weights()
    assert bool((net.inner[0].conv.weight==2.).all())!=passes # `ConvModule` has the last word where it is asked

@pytest.mark.parametrize('name', [k for k in small if k!='TIMMBackbone'])
def test_a_rule_alone_is_a_list_of_one(name):
    rule = dict(type='Normal', layer=['Conv2d', 'Linear'], std=.5)
    def started(init_cfg):
        torch.manual_seed(0)
        net = MODELS.build(dict(type=name, **{**small[name]['args'], 'init_cfg': init_cfg}))
        torch.manual_seed(1)
        net.init_weights()
        return net
    a,b = started(rule),started([rule])
    assert all(map(torch.equal, a.state_dict().values(), b.state_dict().values()))

@pytest.mark.parametrize('name,child', [
    ('ResNet', 'conv1'), ('DenseNet', 'stem'), ('HRNet', 'conv2'), ('VGG', 'features'), ('AlexNet', 'features'),
    ('SwinTransformer', 'patch_embed'), ('MlpMixer', 'patch_embed'), ('PoolFormer', 'patch_embed'), ('RepVGG', 'stem')])
def test_an_override_starts_one_child(name, child):
    rule = dict(type='Constant', layer='BatchNorm2d', val=1.)
    for override in (dict(type='Constant', name=child, val=.25, bias=.5), [dict(type='Constant', name=child, val=.25)]):
        net = MODELS.build(dict(type=name, **{**small[name]['args'], 'init_cfg': dict(rule, override=override)}))
        net.init_weights()
        weights = {k: v for k,v in net.named_parameters() if k.endswith('weight')}
        own = {k for k,v in weights.items() if (v==.25).all()}
        assert own and own=={k for k in weights if k.startswith(f'{child}.')}

@pytest.mark.parametrize('name', list(small))
@pytest.mark.parametrize('form', ['dict', 'list'])
def test_loaded_weights_stay(name, form, tmp_path):
    args = small[name]['args']
    torch.manual_seed(3)
    source = MODELS.build(dict(type=name, **args))
    torch.save(dict(state_dict={k: torch.rand_like(v)+1 if v.is_floating_point() else v
                                for k,v in source.state_dict().items()}), tmp_path/'a.pth')
    rule = dict(type='Pretrained', checkpoint=str(tmp_path/'a.pth'))
    net = MODELS.build(dict(type=name, **{**args, 'init_cfg': [rule] if form=='list' else rule}))
    net.init_weights()
    assert all((p >= 1).all() for p in net.parameters())

# ---- imports of code for mmcls

def test_a_module_that_imports_mmcls_is_told_what_to_import(tmp_path, monkeypatch):
    (tmp_path/'old_neck.py').write_text('''
import torch.nn as nn
from mmcls.models.builder import NECKS
from mmcv.cnn import ConvModule as CM, bias_init_with_prob
from mmcv.cnn.utils.weight_init import trunc_normal_
from mmcv.ops import DeformConv2d
''')
    monkeypatch.syspath_prepend(tmp_path)
    cfg = Config(dict(custom_imports=dict(imports=['old_neck'])))
    with pytest.raises(ConfigError) as found: import_custom(cfg, trust=True)
    text = str(found.value)
    for line in ('from clsnb.all import NECKS', 'from clsnb.layers.conv import ConvModule as CM',
                 'from clsnb.core.init import bias_for_prob as bias_init_with_prob', 'from torch.nn.init import trunc_normal_',
                 'does not have mmcv.ops.DeformConv2d'):
        assert line in text
    assert 'PYTHONPATH' not in text and '\n' not in text

def test_the_lines_of_migrate_imports_run(tmp_path, capsys):
    names = dict.fromkeys((
        'BACKBONES', 'ResNet', 'VisionTransformer', 'LinearClsHead', 'weighted_loss', 'cross_entropy', 'ConvModule', 'BaseModule',
        'Sequential', 'build_norm_layer', 'DropPath', 'FFN', 'EvalHook', 'DistEvalHook', 'EpochBasedRunner', 'LrUpdaterHook',
        'build_from_cfg', 'digit_version', 'is_list_of', 'fuse_conv_bn', '_BatchNorm', 'Lamb', 'imshow_infos', 'Config'))
    (tmp_path/'a.py').write_text(f"from mmcls.models import ({', '.join(names)})\n")
    migrate_imports(tmp_path/'a.py')
    scope,text = {},capsys.readouterr().out
    exec(text, scope)
    assert not names.keys()-scope.keys() and 'not in clsnb' not in text

@pytest.mark.parametrize('name', ['ResNet', 'ConvMixer', 'DenseNet', 'MobileNetV3', 'Conformer', 'RepMLPNet', 'HRNet', 'VAN'])
def test_fused_norms_change_no_answer(name):
    torch.manual_seed(0)
    net = MODELS.build(dict(type=name, **small[name]['args']))
    for m in net.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(m.running_mean, -.5, .5)
            torch.nn.init.uniform_(m.running_var, .5, 2.)
    x = torch.randn(1, *small[name]['picture'])
    with torch.no_grad(): before,after = net.eval()(x)[-1],fuse_conv_bn(net)(x)[-1]
    before,after = (o[0] if isinstance(o, list) else o for o in (before, after))
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4*before.abs().max().item())

@pytest.mark.parametrize('older,newer', [('1.8.0rc1', '1.8'), ('1.8', '1.8.0.post1'), ('1.9', '1.10'), ('2.0a1', '2.0b1')])
def test_versions_are_compared_as_numbers(older, newer):
    assert digit_version(older) < digit_version(newer)

# ---- methods that a run calls

def counted(cls, *names):
    "A registered subclass whose methods count their calls"
    calls = {}
    def count(name):
        def method(self, *args, **kwargs):
            calls[name] = calls.get(name, 0)+1
            return getattr(super(own, self), name)(*args, **kwargs)
        return method
    own = type(f'Counted{cls.__name__}', (cls,), {name: count(name) for name in names})
    own.calls,own.names = calls,names
    return own

def test_a_run_calls_what_users_override(tmp_path):
    rng = np.random.default_rng(0)
    for c in 'ab':
        (tmp_path/'data'/c).mkdir(parents=True)
        for i in range(4): Image.fromarray(rng.integers(0, 255, (32, 32), np.uint8)).save(tmp_path/'data'/c/f'{i}.png')
    data = counted(DATASETS.get('CustomDataset'), 'load_annotations', 'prepare_data', 'get_cat_ids', 'get_gt_labels', 'evaluate',
                   'is_valid_file', '__getitem__', '__len__')
    backbone = counted(BACKBONES.get('LeNet5'), 'forward', 'train', 'init_weights')
    neck = counted(MODELS.get('GlobalAveragePooling'), 'forward', 'init_weights')
    head = counted(MODELS.get('LinearClsHead'), 'forward_train', 'simple_test', 'post_process', 'pre_logits', 'loss',
                   'init_weights')
    model = counted(MODELS.get('ImageClassifier'), 'extract_feat', 'forward_train', 'simple_test', 'forward_test', 'forward',
                    'train_step', 'val_step', '_parse_losses', 'init_weights')
    hook = counted(Hook, *Hook.stages)
    parts = [(DATASETS, data), (HOOKS, hook), *((MODELS, cls) for cls in (backbone, neck, head, model))]
    for registry,cls in parts: registry.register(cls, force=True)
    steps = [dict(type='LoadImageFromFile', color_type='grayscale'), dict(type='Normalize', mean=[0.], std=[255.], to_rgb=False),
             dict(type='ImageToTensor', keys=['img']),
             dict(type='ToTensor', keys=['gt_label']), dict(type='Collect', keys=['img', 'gt_label'])]
    pictures = dict(type=data.__name__, data_prefix=str(tmp_path/'data'), pipeline=steps)
    fit(Config(dict(
        model=dict(type=model.__name__, backbone=dict(type=backbone.__name__), neck=dict(type=neck.__name__),
                   head=dict(type=head.__name__, num_classes=2, in_channels=120)),
        data=dict(samples_per_gpu=4, workers_per_gpu=0, val=pictures,
                  train=dict(type='ClassBalancedDataset', oversample_thr=.5, dataset=pictures)),
        optimizer=dict(type='SGD', lr=.01), optimizer_config={}, lr_config=dict(policy='fixed'), log_level='ERROR',
        runner=dict(type='EpochBasedRunner', max_epochs=1), workflow=[('train', 1), ('val', 1)],
        evaluation=dict(interval=1, metric='accuracy', metric_options=dict(topk=(1,))),
        custom_hooks=[dict(type=hook.__name__)])), work_dir=str(tmp_path/'work'))
    for _,cls in parts: assert set(cls.names)-cls.calls.keys()==set(), cls.__name__
    assert hook.calls['after_train_iter']==2 and data.calls['evaluate']==1 and model.calls['train_step']>=2
