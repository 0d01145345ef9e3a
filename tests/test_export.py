"Exported files: they answer as their model does, keep its classes, and refuse what would be wrong"
import ast, json, subprocess, sys
from pathlib import Path
import numpy as np, pytest, torch
from clsnb.all import Config, export, init_model, predict
from clsnb.apis.export import parity_of_file
from clsnb.cli import main
from clsnb.core.errors import CheckpointError, ClsnbError, ConfigError
from clsnb.data.sets.packaged import sample_photos
from clsnb.export.exported_model import ExportedModel
from clsnb.models.classifier import build_classifier

pytest.importorskip('onnxruntime')
CONFIG = 'resnet18-tiny_1xb16_photos'

def stretched(model):
    "A model whose scores for pictures differ, as those of a trained one do"
    torch.manual_seed(0)
    x = torch.randn(8, 3, *model.cfg.facts.input_size)
    with torch.no_grad():
        for m in model.modules():
            if isinstance(m, torch.nn.BatchNorm2d): m.reset_running_stats(), setattr(m, 'momentum', None)
        model.train()
        model.extract_feat(x)
        model.eval()
        for p in model.head.parameters(): p.mul_(20)
    return model

@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    "A checkpoint that carries its config"
    torch.manual_seed(0)
    model = stretched(init_model(CONFIG, 'none'))
    path = tmp_path_factory.mktemp('model')/'photos.pth'
    meta = dict(config=model.cfg.pretty_text, CLASSES=tuple(model.CLASSES), epoch=7)
    torch.save(dict(meta=meta, state_dict=model.state_dict()), path)
    return path

@pytest.fixture(scope='module')
def onnx_file(checkpoint, tmp_path_factory):
    return export(checkpoint, 'onnx', tmp_path_factory.mktemp('onnx')/'m.onnx')

def tiny(backbone, head, size):
    "A small network with a config of its own"
    model = dict(type='ImageClassifier', backbone=backbone, head=head)
    if backbone['type'] in ('SwinTransformer', 'ResNet'): model['neck'] = dict(type='GlobalAveragePooling')
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict({'data.test.pipeline': [
        dict(type='LoadImageFromFile'), dict(type='Resize', size=(size, size)),
        dict(type='Normalize', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
        dict(type='ImageToTensor', keys=['img']), dict(type='Collect', keys=['img'])]})
    torch.manual_seed(0)
    net = build_classifier(model).eval()
    net.init_weights()
    for p in net.head.parameters(): p.data.normal_(std=.2)
    net.cfg,net.CLASSES,net.weights = cfg,tuple('abcdef'),'made up'
    return net

def swin(size=64):
    backbone = dict(type='SwinTransformer', img_size=64, window_size=4,
                    arch=dict(embed_dims=16, depths=[2, 2, 2, 2], num_heads=[1, 2, 4, 8]))
    return tiny(backbone, dict(type='LinearClsHead', num_classes=6, in_channels=128), size)

def vit(head='VisionTransformerClsHead', backbone='VisionTransformer', size=64):
    arch = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
    return tiny(dict(type=backbone, arch=arch, img_size=64), dict(type=head, num_classes=6, in_channels=32), size)

def csra():
    head = dict(type='CSRAClsHead', num_classes=6, in_channels=512, num_heads=1, lam=.1)
    net = tiny(dict(type='ResNet', depth=18), head, 64)
    del net.neck
    return net

def multi_label():
    head = dict(type='MultiLabelLinearClsHead', num_classes=6, in_channels=512)
    return tiny(dict(type='ResNet', depth=18), head, 64)

# ---- The same answers

@pytest.mark.parametrize('to,name', [('onnx', 'm.onnx'), ('torch-export', 'm.pt2'), ('torchscript', 'm.pt')])
def test_batches_of_1_2_and_5_give_the_scores_of_the_model(checkpoint, tmp_path, to, name):
    done = export(checkpoint, to, tmp_path/name)
    assert [row.batch for row in done.parity.rows]==[1, 2, 5]
    assert all(row.pictures>=50 and row.same_class==row.pictures for row in done.parity.rows)
    assert done.parity.difference<1e-4
    assert len(set(predict(done.open(), sample_photos(12))['class']))>1, 'a model that always says the same proves nothing'

@pytest.mark.parametrize('net', [swin, vit, lambda: vit('DeiTClsHead', 'DistilledVisionTransformer'), csra, multi_label],
                         ids=['swin', 'vit', 'deit', 'csra', 'multi_label'])
def test_attention_and_all_kinds_of_heads(net, tmp_path):
    net = net()
    done = export(net, 'onnx', tmp_path/'m.onnx')
    assert done.parity.difference<1e-4 and done.parity.ok
    photos = sample_photos(4)
    ours,theirs = predict(net, photos, scores=True),predict(done.open(), photos, scores=True)
    assert ours['class'].tolist()==theirs['class'].tolist()
    assert np.allclose(ours[list('abcdef')], theirs[list('abcdef')], atol=1e-4)

def test_the_kind_of_scores_is_told(tmp_path):
    kinds = [export(net(), 'onnx', tmp_path/'m.onnx').facts.scores for net in (csra, multi_label, vit)]
    assert kinds==['raw', 'sigmoid', 'softmax']

def test_predict_gives_the_same_table(checkpoint, onnx_file):
    photos = sample_photos(12)
    ours,theirs = predict(checkpoint, photos, scores=True),predict(onnx_file.open(), photos, scores=True)
    assert ours['class'].tolist()==theirs['class'].tolist() and list(ours)==list(theirs)
    assert np.abs(ours['score']-theirs['score']).max()<1e-5

# ---- What the file says

def test_the_file_holds_classes_preprocessing_and_its_checkpoint(checkpoint, onnx_file):
    onnx = pytest.importorskip('onnx')
    from clsnb.core.io import sha256
    graph = onnx.load(onnx_file.path)
    onnx.checker.check_model(graph)
    texts = {o.key: o.value for o in graph.metadata_props}
    assert json.loads(texts['classes'])==['animal', 'building', 'fish', 'solar', 'tool', 'windmill']
    assert json.loads(texts['mean'])==[123.675, 116.28, 103.53]
    assert [o['type'] for o in json.loads(texts['preprocessing'])][:3]==['LoadImageFromFile', 'Resize', 'CenterCrop']
    made_of = json.loads(texts['checkpoint'])
    assert made_of['sha256']==sha256(checkpoint) and made_of['name']=='photos.pth' and made_of['epoch']==7
    assert graph.opset_import[0].version==20

def test_the_table_is_written_beside_the_file(onnx_file):
    text = onnx_file.table.read_text()
    assert '| 96x96 | 5 |' in text and 'MB' in text and 'Pictures: 50 of the test data' in text

# ---- Wishes

@pytest.mark.parametrize('opset', [11, 17, 18, 21])
def test_opsets(checkpoint, tmp_path, opset):
    onnx = pytest.importorskip('onnx')
    done = export(checkpoint, 'onnx', tmp_path/'m.onnx', opset=opset)
    assert onnx.load(done.path).opset_import[0].version==opset and done.parity.difference<1e-4

def test_the_older_exporter_leaves_the_model_in_evaluation_mode(checkpoint, tmp_path):
    net = init_model(checkpoint)
    export(net, 'onnx', tmp_path/'m.onnx', opset=17)
    assert not any(m.training for m in net.modules())

def test_simplify_and_half_precision(checkpoint, tmp_path):
    pytest.importorskip('onnxslim')
    small = export(checkpoint, 'onnx', tmp_path/'small.onnx', simplify=True)
    half = export(checkpoint, 'onnx', tmp_path/'half.onnx', fp16=True)
    assert small.parity.difference<1e-4 and half.parity.difference<2e-2
    assert half.parity.file_bytes<.6*small.parity.file_bytes and half.facts.precision=='float16'

def test_pictures_of_any_size_for_convolutions(checkpoint, tmp_path):
    done = export(checkpoint, 'onnx', tmp_path/'m.onnx', dynamic='size')
    assert {row.size for row in done.parity.rows}=={'96x96', '128x160', '192x128'}
    assert done.parity.difference<1e-4

@pytest.mark.parametrize('net', [swin, vit], ids=['swin', 'vit'])
def test_pictures_of_any_size_are_refused_for_attention(net, tmp_path):
    with pytest.raises(ConfigError, match="one size only.*'batch'"): export(net(), 'onnx', tmp_path/'m.onnx', dynamic='size')
    assert not list(tmp_path.iterdir())

def test_a_graph_that_froze_the_size_is_noticed(tmp_path, monkeypatch):
    "Without the look at its tables, the scores for pictures of another size tell"
    monkeypatch.setattr('clsnb.apis.export.table_of_positions', lambda model: None)
    with pytest.raises(ClsnbError) as found: export(swin(), 'torchscript', tmp_path/'m.pt', dynamic='size')
    assert '\n' not in str(found.value) and not list(tmp_path.iterdir())

def test_a_fixed_batch_answers_any_number_of_pictures(checkpoint, tmp_path):
    done = export(checkpoint, 'onnx', tmp_path/'m.onnx', dynamic='none')
    assert done.open().file.batch==1
    assert len(predict(done.open(), sample_photos(5)))==5

def test_branches_are_folded_first(tmp_path):
    backbone = dict(type='RepVGG', arch='A0')
    net = tiny(backbone, dict(type='LinearClsHead', num_classes=6, in_channels=1280), 64)
    net.neck = torch.nn.Identity()
    from clsnb.models.necks import GlobalAveragePooling
    net.neck = GlobalAveragePooling()
    done = export(net, 'torch-export', tmp_path/'m.pt2')
    names = [name for name,_ in done.open().file.module.named_parameters()]
    assert not any('branch_3x3' in name or 'norm' in name for name in names) and done.parity.difference<1e-4

def test_pictures_of_the_user(checkpoint, tmp_path):
    done = export(checkpoint, 'onnx', tmp_path/'m.onnx', pictures=sample_photos(3))
    assert done.parity.source=='3 named, 47 photographs of the package'

# ---- Refusals

def test_a_file_that_answers_otherwise_is_not_kept(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(ExportedModel, 'scores', lambda self, pictures: -self.file(pictures))
    with pytest.raises(CheckpointError, match='not kept'): export(checkpoint, 'onnx', tmp_path/'m.onnx')
    assert not list(tmp_path.iterdir())
    done = export(checkpoint, 'onnx', tmp_path/'m.onnx', force=True)
    assert done.path.exists() and not done.parity.ok

def test_ties_are_no_mistakes(checkpoint, tmp_path):
    class Tied:
        batch = None
    file = Tied()
    file.file,net = Tied(),init_model(checkpoint)
    with torch.no_grad():
        net.head.fc.weight[1],net.head.fc.bias[1] = net.head.fc.weight[0],net.head.fc.bias[0]
        net.head.fc.bias[:2] += 1000
    file.scores = lambda x: net.simple_test(torch.from_numpy(x), post_process=False).detach().numpy()[:, [1, 0, 2, 3, 4, 5]]\
        + np.float32([0, 1e-6, 0, 0, 0, 0])
    rows = parity_of_file(net, file, [np.random.rand(3, 96, 96).astype(np.float32) for _ in range(10)])
    assert rows[0].ties==10 and rows[0].wrong==0

def test_mistakes_are_one_line(checkpoint, onnx_file, tmp_path):
    cut = tmp_path/'cut.onnx'
    cut.write_bytes(onnx_file.path.read_bytes()[:10000])
    for call,words in [
        (lambda: export(CONFIG, 'onnx', tmp_path/'m.onnx'), 'config without weights'),
        (lambda: export(checkpoint, 'onxx'), "Did you mean 'onnx'"),
        (lambda: export(checkpoint, 'onnx', tmp_path/'m.pt'), 'end with .onnx'),
        (lambda: export(checkpoint, 'onnx', tmp_path/'m.onnx', opset=99), 'from 7 to 23'),
        (lambda: export(checkpoint, 'onnx', tmp_path/'m.onnx', dynamic='all'), 'batch, size, none'),
        (lambda: export(checkpoint, 'onnx', tmp_path/'m.onnx', shape=[0]), '224 256'),
        (lambda: export(tmp_path/'no.pth', 'onnx', tmp_path/'m.onnx'), 'no.pth'),
        (lambda: ExportedModel(cut), 'is it complete'),
        (lambda: ExportedModel(onnx_file.path, 'onnxrt'), 'There is no backend'),
        (lambda: ExportedModel(tmp_path/'none.onnx'), 'does not exist'),
    ]:
        with pytest.raises(ClsnbError) as found: call()
        text = str(found.value)
        assert words in text and '\n' not in text and 'Traceback' not in text

def test_an_operator_that_an_opset_lacks(tmp_path):
    net = vit()
    class Determinant(torch.nn.Module):
        def forward(self, x): return tuple(x[0].mean((2, 3))*torch.linalg.det(x[0][:, 0, :2, :2])[:, None] for _ in [0])
    net = tiny(dict(type='ResNet', depth=18), dict(type='LinearClsHead', num_classes=6, in_channels=512), 64)
    net.neck = Determinant()
    with pytest.raises(ConfigError, match='opset 9') as found: export(net, 'onnx', tmp_path/'m.onnx', opset=9)
    assert '\n' not in str(found.value)

def test_a_missing_package_is_one_line_with_the_extra(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnx', None)
    with pytest.raises(ClsnbError, match=r"pip install 'clsnb\[export\]'"): export(checkpoint, 'onnx', tmp_path/'m.onnx')

# ---- The command line

def clsnb(*words):
    "Exit status of a command line"
    try: return main([str(o) for o in words])
    except SystemExit as e: return e.code

def test_the_verb(checkpoint, tmp_path, capsys):
    assert not clsnb('export', checkpoint, '--to', 'onnx', '--out', tmp_path/'m.onnx', '--json')
    record = json.loads(capsys.readouterr().out)
    assert record['parity']['ok'] and len(record['classes'])==6 and Path(record['path']).exists()
    assert clsnb('export', CONFIG)==2 and 'config without weights' in capsys.readouterr().err

def test_the_scripts_of_mmcls(checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not clsnb('pytorch2onnx', CONFIG, '--checkpoint', checkpoint, '--output-file', 'm.onnx', '--shape', 64, 64,
                     '--opset-version', 17, '--dynamic-export', '--show', '--simplify', '--verify')
    assert 'Conv(' in capsys.readouterr().out
    assert ExportedModel('m.onnx').facts.size==[64, 64]
    assert not clsnb('pytorch2torchscript', CONFIG, '--checkpoint', checkpoint, '--verify')
    assert Path('tmp.pt').exists()
    assert clsnb('pytorch2onnx', CONFIG)==2 and 'config without weights' in capsys.readouterr().err
    assert clsnb('onnx2tensorrt', 'm.onnx', '--trt-file', 'm.trt', '--shape', 64, 64, '--max-batch-size', 4,
                 '--workspace-size', 2, '--fp16', '--verify')==2
    assert 'tensorrt' in capsys.readouterr().err and not Path('m.trt').exists()
    assert clsnb('onnx2tensorrt', 'm.onnx', '--max-batch-size', 0)==2 and '1 or more' in capsys.readouterr().err

# ---- Tests over a data set

def test_an_exported_file_has_the_metrics_of_its_checkpoint(checkpoint, onnx_file, tmp_path, capsys):
    assert not clsnb('test', checkpoint, '--metrics', 'accuracy', 'f1_score', '--json')
    ours = json.loads(capsys.readouterr().out)['metrics']
    for words in ([onnx_file.path], [CONFIG, onnx_file.path, '--backend', 'onnxruntime']):
        assert not clsnb('deploy-test', *words, '--metrics', 'accuracy', 'f1_score', '--out', tmp_path/'r.pkl',
                         '--show-dir', tmp_path/'shown', '--json')
        theirs = json.loads(capsys.readouterr().out)['metrics']
        assert ours.keys()==theirs.keys() and all(abs(ours[key]-theirs[key])<1e-6 for key in ours)
    assert (tmp_path/'r.pkl').exists() and any((tmp_path/'shown').rglob('*.jpg'))

def test_mistakes_of_deploy_test(checkpoint, onnx_file, tmp_path, capsys):
    (tmp_path/'cut.onnx').write_bytes(onnx_file.path.read_bytes()[:10000])
    for words,text in [
        ([CONFIG, onnx_file.path, '--backend', 'onnxrt'], 'onnxruntime'),
        ([CONFIG, tmp_path/'cut.onnx'], 'is it complete'),
        ([CONFIG, tmp_path/'none.onnx'], 'does not exist'),
        ([CONFIG], 'Name the exported file'),
        ([onnx_file.path, '--metrics', 'acuracy'], 'accuracy'),
        ([onnx_file.path, '--metrics', 'loss'], 'loss'),
    ]:
        assert clsnb('deploy-test', *words)==2
        err = capsys.readouterr().err
        assert text in err and err.strip().count('\n')==0, err

def test_predict_takes_the_file(onnx_file, capsys):
    photos = sample_photos(3)
    assert predict(onnx_file.path, photos)['class'].tolist()==predict(onnx_file.open(), photos)['class'].tolist()
    assert not clsnb('predict', onnx_file.path, photos[0]) and '.onnx' not in capsys.readouterr().err

# ---- Preprocessing in the graph

def test_a_graph_with_preprocessing_answers_from_files(checkpoint, tmp_path):
    done = export(checkpoint, 'onnx', tmp_path/'m.onnx', with_preprocessing=True)
    assert done.parity.rows[0].pictures>=50 and done.parity.ok and done.parity.difference<3e-2
    photos = sample_photos(20)
    ours,theirs = predict(checkpoint, photos),predict(done.open(), photos)
    assert ours['class'].tolist()==theirs['class'].tolist()

@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
@pytest.mark.parametrize('size,crop', [((110, -1), 96), ((64, 80), None), ((300, -1), 288)])
def test_pixels_are_within_one_grey_level(backend, interpolation, size, crop):
    import cv2, onnxruntime
    from clsnb.data.preprocessing import pixels_sample
    from clsnb.data.transforms.pipeline import Compose
    from clsnb.export.picture_graph import picture_graph
    steps = [dict(type='LoadImageFromFile'), dict(type='Resize', size=size, backend=backend, interpolation=interpolation),
             *([dict(type='CenterCrop', crop_size=crop)] if crop else []),
             dict(type='Normalize', mean=[103.5, 116.3, 123.7], std=[57.4, 57.1, 58.4], to_rgb=crop is not None),
             dict(type='ImageToTensor', keys=['img']), dict(type='Collect', keys=['img'])]
    session = onnxruntime.InferenceSession(picture_graph(steps).SerializeToString(), providers=['CPUExecutionProvider'])
    pipeline,std = Compose(steps[1:]),np.reshape(steps[-3]['std'], (3, 1, 1))
    limit = 5.01 if backend=='pillow' and size==(300, -1) else 1.01 # Pillow's filters for larger pictures
    for path in sample_photos(6):
        bgr = cv2.imread(path)
        want = pipeline(pixels_sample(bgr))['img'].numpy()
        got = session.run(None, dict(image=np.ascontiguousarray(bgr[..., ::-1])))[0][0]
        assert got.shape==want.shape and (np.abs(got-want)*std).max()<limit

def test_the_printed_program_gives_the_answers_of_predict(checkpoint, tmp_path):
    done = export(checkpoint, 'onnx', tmp_path/'m.onnx', with_preprocessing=True)
    program = done.program
    assert len(program.splitlines())==10 and 'clsnb' not in program and 'torch' not in program
    (tmp_path/'classify.py').write_text(program)
    for path in sample_photos(3):
        p = subprocess.run([sys.executable, 'classify.py', path], cwd=tmp_path, capture_output=True, text=True)
        name,score = ast.literal_eval(p.stdout)
        want = predict(checkpoint, path).iloc[0]
        assert name==want['class'] and abs(score-want['score'])<2e-2

def test_deploy_test_with_preprocessing_in_the_graph(checkpoint, tmp_path, capsys):
    export(checkpoint, 'onnx', tmp_path/'m.onnx', with_preprocessing=True)
    found = []
    for words in (['test', checkpoint], ['deploy-test', tmp_path/'m.onnx'], ['deploy-test', CONFIG, tmp_path/'m.onnx']):
        assert not clsnb(*words, '--metrics', 'accuracy', '--json')
        found.append(json.loads(capsys.readouterr().out)['metrics']['accuracy_top-1'])
    assert max(found)-min(found)<1e-6

def test_what_a_graph_cannot_prepare_is_told(checkpoint, tmp_path):
    for kw,words in [(dict(opset=17), 'opset 18'), (dict(shape=64), 'without preprocessing')]:
        with pytest.raises(ConfigError, match=words):
            export(checkpoint, 'onnx', tmp_path/'m.onnx', with_preprocessing=True, **kw)
    with pytest.raises(ConfigError, match='for ONNX files'): export(checkpoint, 'torch-export', with_preprocessing=True)
    assert not list(tmp_path.iterdir())
