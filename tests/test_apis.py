"What a config says of its loaders arrives there; what a folder of one's own pictures needs on the command line"
import shutil, zipfile
from pathlib import Path
import cv2, numpy as np, pytest, torch

import clsnb
from clsnb.apis.finetune import finetune
from clsnb.apis.finetune_data import picture_folders
from clsnb.apis.fit import fit, set_backends
from clsnb.apis.loaders import loader_args
from clsnb.cli import main
from clsnb.config.config import Config
from clsnb.core.errors import ConfigError, DataError
from clsnb.core.log import get_logger
from clsnb.data.feed.loader import build_dataloader
from clsnb.data.sets.packaged import Digits

photos = Path(clsnb.__file__).parent/'photos'
TINY = 'resnet18-tiny_1xb16_photos'
quiet = {'data.workers_per_gpu': 0, 'log_level': 'ERROR', 'results': False, 'runner.max_epochs': 1}

@pytest.fixture(autouse=True)
def one_thread():
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)

def config(data=(), **top):
    return Config(dict(data=dict(samples_per_gpu=8, workers_per_gpu=1, **dict(data)), **top))

# ---- Loaders

def test_all_that_data_says_of_loaders_arrives():
    cfg = config(dict(timeout=9, max_broken=.2, drop_last=True, seed=5, val_dataloader=dict(timeout=3)))
    train, val = loader_args(cfg, 'train'), loader_args(cfg, 'val')
    assert (
        (train['timeout'], train['max_broken'], train['drop_last'], train['seed'], train['shuffle'])
        == (9, .2, True, 5, True)
    )
    assert val['timeout']==3 and not val['shuffle'] and not val.keys() & {'drop_last', 'max_broken'}

@pytest.mark.parametrize('name', ['resnet50_8xb256-rsb-a1-600e_in1k', 'resnet50_8xb256-rsb-a2-300e_in1k'])
def test_packaged_sampler_is_used(name):
    cfg = Config.fromfile(name)
    loader = build_dataloader(Digits(), **loader_args(cfg, 'train') | dict(workers_per_gpu=0))
    assert type(loader.sampler).__name__=='RepeatAugSampler' and 'sampler_cfg' not in loader_args(cfg, 'val')

@pytest.mark.parametrize('method', ['spawn', 'forkserver'])
def test_start_method(method):
    cfg = config(mp_start_method=method)
    assert all(loader_args(cfg, k)['multiprocessing_context']==method for k in ('train', 'val', 'test'))
    assert build_dataloader(
        Digits(), **loader_args(cfg, 'train')
    ).loader.multiprocessing_context.get_start_method()==method

def test_half_bytes_only_where_the_network_takes_them():
    with pytest.raises(ConfigError, match=r"fp16 = dict\(dtype='bfloat16'\)"):
        loader_args(config(dict(device_normalize='bfloat16')), 'train')
    cfg = config(dict(device_normalize='bfloat16'), fp16=dict(dtype='bfloat16'))
    assert (
        [loader_args(cfg, k)['device_normalize'] for k in ('train', 'val', 'test')]
        == ['bfloat16', True, True]
    )

def test_judged_pictures_are_not_left_out():
    with pytest.raises(ConfigError, match=r"data\.val_dataloader\.max_broken.*clsnb verify"):
        loader_args(config(dict(val_dataloader=dict(max_broken=.5))), 'val')

def test_opencv_threads():
    n = cv2.getNumThreads()
    try:
        set_backends(Config(dict(opencv_num_threads=1)))
        assert cv2.getNumThreads()==1
    finally: cv2.setNumThreads(n)

def test_half_run_can_be_tested(tmp_path, capsys):
    fit(
        TINY,
        tmp_path/'run',
        quiet | {'fp16': dict(dtype='bfloat16'), 'data.device_normalize': 'bfloat16'},
        device='cpu',
    )
    main(['test', str(tmp_path/'run'), '--device', 'cpu'])
    assert 'accuracy_top-1' in capsys.readouterr().out

def test_a_quiet_run_does_not_silence_the_next(tmp_path, capsys):
    "A level of errors only belongs to its run, also to one that fails; so does its log file"
    fit(TINY, tmp_path/'quiet', quiet, device='cpu')
    with pytest.raises(ConfigError):
        fit(TINY, tmp_path/'fails', quiet | {'optimizer.type': 'AdmaW'}, device='cpu')
    assert not capsys.readouterr().out
    loud = {k: v for k, v in quiet.items() if k!='log_level'}
    finetune(
        TINY, photos,
        tmp_path/'loud',
        epochs=1,
        size=32,
        options={k: v for k, v in loud.items() if '.max_' not in k},
        weights=False,
    )
    out = capsys.readouterr().out
    assert 'from scratch' in out and 'training samples of 6 classes' in out
    get_logger().warning('after the run')
    assert 'after the run' in capsys.readouterr().out
    assert not any('after the run' in p.read_text() for p in tmp_path.rglob('*.log'))

# ---- Folders

def folder(root, **counts):
    "Some of the packaged photographs, so many of a class"
    for name, n in counts.items():
        (to := root/name.replace('__', '/')).mkdir(parents=True, exist_ok=True)
        for f in sorted((photos/to.name).iterdir())[:n]:
            shutil.copy(f, to)
    return root

@pytest.mark.parametrize(
    'train,val', [('Training', 'Testing'), ('train', 'Valid'), ('TRAIN', 'TEST'), ('training', 'validation')]
)
def test_parts_by_their_usual_names(tmp_path, train, val):
    found = picture_folders(
        folder(
            tmp_path/'pics',
            **{f'{train}__fish': 3, f'{train}__tool': 2, f'{val}__tool': 2, f'{val}__fish': 1},
        ),
        tmp_path,
    )
    assert (found.classes, found.n, found.n_val) == (['fish', 'tool'], 5, 3)
    assert Path(found.args['train']['data_prefix']).name==train

def test_a_file_is_no_folder(tmp_path):
    (tmp_path/'labels.csv').write_text('a.jpg,cat\n')
    with pytest.raises(DataError, match='is a file.*CSVDataset'):
        picture_folders(tmp_path/'labels.csv', tmp_path)

@pytest.mark.parametrize(
    'kw', [dict(epochs=0), dict(batch_size=0), dict(size=-1)]
)
def test_choices_that_cannot_be(tmp_path, kw):
    with pytest.raises(ConfigError, match=f'{next(iter(kw))} must be at least 1'):
        finetune(TINY, photos, tmp_path/'run', **kw)

# finetune.py keeps the reasons
@pytest.mark.parametrize('name,title', [('my pics', 'my pics'), ('finetune', 'finetune')])
def test_report_is_called_after_the_work_folder(tmp_path, name, title):
    run = lambda: finetune(TINY, folder(tmp_path/'pics', fish=4, tool=4), tmp_path/name, epochs=1, size=32,
                           options={k: v for k, v in quiet.items() if k!='results'}, weights=False)
    assert run().finished
    assert run().finished
    assert (tmp_path/name/'finetune.py').read_text(encoding='utf-8').startswith("# {'model'")
    assert f'<h1>{title}</h1>' in (tmp_path/name/'report.html').read_text(encoding='utf-8')

# ---- check says what training will say

def own_folders(tmp_path, **counts):
    "A config for folders of one's own"
    cfg = Config.fromfile(TINY)
    at = folder(tmp_path/'pics', **counts)
    for k in ('train', 'val', 'test'):
        cfg.data[k] = dict(
            type='CustomDataset', data_prefix=str(at/k.replace('test', 'val')), pipeline=cfg.data[k].pipeline
        )
    del cfg.model.head['num_classes']
    return cfg

def test_a_class_missing_in_val_is_no_error(tmp_path):
    cfg = own_folders(tmp_path, train__fish=3, train__tool=3, train__animal=3, val__fish=2, val__tool=2)
    found = cfg.check()
    assert not found.errors
    assert any(o[1]=='data.val' and 'never evaluated' in o[2] for o in found)
    with pytest.warns(UserWarning, match='no samples of 1 of 3 classes: animal'):
        fit(cfg, tmp_path/'run', quiet | {'data.samples_per_gpu': 4}, device='cpu')
    cfg = own_folders(tmp_path/'more', train__fish=3, train__tool=3, val__fish=2, val__tool=2, val__animal=2)
    assert any(o[1]=='data.val' for o in cfg.check().errors)

def test_a_table_has_a_class_for_each_label_column():
    cfg = Config.fromfile(TINY)
    for k in ('train', 'val', 'test'):
        cfg.data[k] = dict(
            type='CSVDataset',
            ann_file=__file__,
            label_col=['red', 'green', 'big'],
            pipeline=cfg.data[k].pipeline,
        )
    cfg.model.head = dict(type='MultiLabelLinearClsHead', in_channels=128)
    assert not cfg.check().errors and cfg.facts.class_count('train')==3
    for k in ('train', 'val', 'test'): cfg.data[k].label_col = 'kind' # as many as the table has
    assert not cfg.check().errors

# ---- Asking

def test_predict_goes_on_after_a_broken_picture(tmp_path, capsys):
    at = folder(tmp_path/'pics', fish=3, tool=3)
    (at/'fish'/'empty.jpg').touch()
    (at/'tool'/'text.png').write_text('hello')
    fit(TINY, tmp_path/'run', quiet, device='cpu')
    capsys.readouterr()
    with pytest.raises(SystemExit) as e:
        main(['predict', str(tmp_path/'run'), str(at)])
    out, err = capsys.readouterr()
    assert e.value.code==1 and len(out.splitlines())==6
    assert len(err.splitlines())==2 and 'empty.jpg' in err and 'text.png' in err

def test_predict_takes_addresses(tmp_path, capsys):
    fit(TINY, tmp_path/'run', quiet, device='cpu')
    src = sorted((photos/'fish').iterdir())[0]
    with zipfile.ZipFile(tmp_path/'pics.zip', 'w') as z:
        z.write(src, 'fish/one.jpg')
    capsys.readouterr()
    main(['predict', str(tmp_path/'run'), str(src), f"zip://fish/one.jpg::{tmp_path/'pics.zip'}"])
    out = capsys.readouterr().out.splitlines()
    assert len(out)==2
    assert out[1].startswith('zip://fish/one.jpg::')
    assert out[0].rpartition(': ')[2]==out[1].rpartition(': ')[2]

@pytest.mark.parametrize(
    'data,text',
    [
        (dict(samples_per_gpu=0), 'samples_per_gpu is a whole number'),
        (dict(train_dataloader=dict(bogus=1)), "no 'bogus'"),
        (dict(train_dataloader=dict(sampler_cfg=dict(type='RepeatAug'))), "Did you mean 'RepeatAugSampler'"),
        (dict(train_dataloader=dict(multiprocessing_context='frok')), "'frok'"),
        (dict(device_normalize='bfloat16'), 'fp16 = dict'),
    ],
)
def test_check_makes_the_loaders(data, text):
    cfg = Config.fromfile(TINY)
    cfg.data.update(data)
    assert any(text in o[2] for o in cfg.check().errors)
    with pytest.raises(ConfigError, match=text):
        build_dataloader(Digits(), **loader_args(cfg, 'train'))

# ---- Pictures of all kinds

@pytest.fixture(scope='module')
def asked(tmp_path_factory):
    "A model, a picture in a file, and the same as an array (BGR)"
    from clsnb.apis.open_model import init_model
    from test_complete import make, pictures
    root = tmp_path_factory.mktemp('asked')
    pictures(root/'p')
    fit(make(root/'p', epochs=2), root/'w', device='cpu')
    file = str(root/'p/dog/0.png')
    return init_model(root/'w'), file, cv2.imread(file)

def same_answer(model, img, right):
    from clsnb.apis.picture_scores import predict_scores
    floats = getattr(img, 'dtype', None)==np.float32 and img.max()>1 # resized without rounding, as in mmcv
    return np.abs(predict_scores(model, [img])-right).max()<(.02 if floats else 1e-5)

def test_arrays_of_all_types_are_the_same_picture(asked):
    from PIL import Image
    from clsnb.apis.picture_scores import predict_scores
    model, file, a = asked
    right = predict_scores(model, [file])
    rgb = torch.from_numpy(a[..., ::-1].copy()).permute(2, 0, 1)
    alike = [
        a, a.astype(np.float32), a.astype(np.float64)/255, (a/255).astype(np.float16), a.astype(np.int64),
        a.astype(np.uint16)*257, np.dstack([a, a[..., :1]]), Image.open(file), Image.open(file).convert('RGBA'), rgb,
        rgb.float()/255, rgb.to(torch.bfloat16)]
    for img in alike[:3]+alike[4:11]: assert same_answer(model, img, right), getattr(img, 'dtype', img)
    assert np.abs(predict_scores(model, [alike[3], alike[11]])-right).max()<.05 # fewer digits

def test_grey_arrays_are_grey_pictures(asked):
    from clsnb.apis.picture_scores import predict_scores
    model, _, a = asked
    grey = a[..., 1]
    right = predict_scores(model, [np.dstack([grey]*3)])
    for img in (grey, grey[..., None], np.dstack([grey, grey]), torch.from_numpy(grey), torch.from_numpy(grey)[None]):
        assert same_answer(model, img, right), img.shape

ODD_ARRAYS = [
    (lambda a: a.astype(np.float32)/64-2, 'float32, 40 x 48 x 3, with values from -2'),
    (lambda a: a.astype(np.float32)*4, 'float32.* to [0-9e+.]+'), (lambda a: a.astype(np.int32)*9, 'int32'),
    (lambda a: a.astype(np.uint16), 'uint16.*depth'), (lambda a: a*np.nan, 'not finite'),
    (lambda a: a.transpose(2, 0, 1), 'transpose'), (lambda a: a[None], 'shape'), (lambda a: a[0, 0], 'shape'),
    (lambda a: a[:0], 'shape'), (lambda a: a.astype(complex), 'complex'), (lambda a: a.astype('U3'), 'numbers'),
    (lambda a: torch.from_numpy(a), 'channels, height, width'), (lambda a: b'abc', 'bytes'), (lambda a: None, 'NoneType')]

@pytest.mark.parametrize('change,text', ODD_ARRAYS, ids=range(len(ODD_ARRAYS)))
def test_odd_arrays_are_refused_by_type_and_range(asked, change, text):
    from clsnb.apis.picture_scores import predict_scores
    model, _, a = asked
    with pytest.raises(DataError, match=text) as e: predict_scores(model, [change(a)])
    assert '\n' not in str(e.value)

def test_one_picture_a_folder_a_generator_and_nothing(asked):
    from PIL import Image
    from clsnb.apis.picture_scores import predict_scores
    model, file, a = asked
    right = predict_scores(model, [file])
    tensor = torch.from_numpy(a[..., ::-1].copy()).permute(2, 0, 1)
    for one in (file, Path(file), a, Image.open(file), tensor, (o for o in [file]), iter([a]), {file: 1}.keys(), (file,)):
        assert np.allclose(predict_scores(model, one), right, atol=1e-5), one
    folder = Path(file).parents[1]
    assert predict_scores(model, folder).shape==predict_scores(model, str(folder)).shape==(12, 3)
    assert predict_scores(model, np.stack([a, a])).shape==(2, 3)
    for nothing in ([], (), iter([]), np.zeros((0, 4, 4, 3))): assert predict_scores(model, nothing).shape==(0, 3)
    assert np.allclose(predict_scores(model, (file for _ in range(70)), batch_size=32), np.repeat(right, 70, 0), atol=1e-5)
    for odd in (3, None, {file: 1}):
        with pytest.raises(DataError, match='in a list'): predict_scores(model, odd)

def test_half_models_and_inference_mode(asked):
    import copy
    from clsnb.apis.inference import top_classes
    from clsnb.apis.picture_scores import predict_scores
    from clsnb.apis.open_model import init_model
    model, file, a = asked
    right = predict_scores(model, [file])
    for dtype in (torch.bfloat16, torch.float64):
        other = copy.deepcopy(model).to(dtype)
        assert np.abs(predict_scores(other, [file])-right).max()<.05 and predict_scores(other, [file, a]).dtype==np.float32
    with torch.inference_mode():
        assert np.array_equal(predict_scores(model, [file]), right)
        again = init_model(str(Path(file).parents[2]/'w'))
        assert np.array_equal(predict_scores(again, [file]), right)
    broken = copy.deepcopy(model)
    broken.head.fc.bias.data[0] = float('nan')
    with pytest.raises(DataError, match='NaN'): top_classes(broken, file)

def test_colours_for_a_model_of_grey_pictures(asked):
    from clsnb.apis.picture_scores import predict_scores
    from clsnb.apis.open_model import init_model
    _, file, a = asked
    lenet = init_model('lenet5_1xb32_digits', 'none')
    right = predict_scores(lenet, [file])
    assert same_answer(lenet, cv2.imread(file, cv2.IMREAD_GRAYSCALE), right)
    assert np.allclose(predict_scores(lenet, a), right, atol=.05)
    steps = [o for o in lenet.cfg.data.test.pipeline if o['type']!='Normalize']
    lenet.cfg.data.test.pipeline = [dict(type='LoadImageFromFile'), *steps]
    with pytest.raises(ConfigError, match="takes 1 channel, .* with 3: set color_type='grayscale'"): predict_scores(lenet, file)

WRAPPERS = 'KFoldDataset SubsetDataset RepeatDataset ClassBalancedDataset ConcatDataset list'.split()

@pytest.mark.parametrize('kind', WRAPPERS)
def test_wrapped_data_are_asked_like_plain_ones(asked, tmp_path, kind):
    from clsnb.apis.picture_scores import predict_scores
    from clsnb.apis.open_model import init_model
    from clsnb.apis.test import evaluate_config
    from clsnb.analysis.cam import plot_cams
    model, file, _ = asked
    cfg = model.cfg.copy()
    inner = cfg.data.test
    more = dict(KFoldDataset=dict(fold=0, num_splits=2, seed=0, test_mode=True), SubsetDataset=dict(indices=[0, 5, 9]),
                RepeatDataset=dict(times=2), ClassBalancedDataset=dict(oversample_thr=.1))
    if kind=='list': cfg.data.test = [inner, inner]
    elif kind=='ConcatDataset': cfg.data.test = dict(type=kind, datasets=[inner, inner])
    else: cfg.data.test = dict(type=kind, dataset=inner, **more[kind])
    wrapped = init_model(cfg, model.weights)
    assert np.array_equal(predict_scores(wrapped, [file]), predict_scores(model, [file])) and wrapped.CLASSES==model.CLASSES
    assert plot_cams(wrapped, [file]) is not None
    if kind in ('KFoldDataset', 'ConcatDataset', 'list'): assert evaluate_config(cfg, model.weights, device='cpu')[0]
