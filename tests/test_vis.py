"""Figures of what a config does before it trains: the schedule, which is what training logs, and the pipeline, whose
pictures are what training sees."""
import json, random, subprocess, sys
import cv2, numpy as np, pytest, torch
from pathlib import Path
from clsnb.all import HOOKS, ClsnbError, Config, Hook, Run, build_classifier
from clsnb.all import build_dataset, fit, list_configs, photo_path, read_log
from clsnb.apis.vis_pipeline import adapted_picture, output_names, vis_pipeline
from clsnb.data.pipeline_walk import unwrapped_sample, walk_pipeline
from clsnb.core.errors import ConfigError
from clsnb.data.sets.packaged import Digits, Photos
from clsnb.apis.vis_lr import steps_in_epoch, vis_lr

# ---- The schedule

def run_config(**changes):
    cfg = Config.fromfile('resnet18-tiny_1xb16_photos')
    cfg.merge_from_dict({'log_config.interval': 1, 'log_level': 'ERROR', 'runner.max_epochs': 3, 'data.samples_per_gpu': 40})
    cfg.update(changes)
    return cfg

cosine = dict(policy='CosineAnnealing', min_lr=1e-5, by_epoch=False, warmup='linear', warmup_iters=1, warmup_by_epoch=True)
runs = dict(
    cosine=dict(lr_config=cosine),
    by_epoch=dict(lr_config=dict(policy='step', step=[1, 2], warmup='exp', warmup_iters=2, warmup_ratio=.01)),
    iterations=dict(runner=dict(type='IterBasedRunner', max_iters=7), lr_config=dict(policy='poly', power=2)),
    momentum=dict(optimizer=dict(type='SGD', lr=.01, momentum=.9), lr_config=dict(policy='OneCycle', max_lr=.05),
                  momentum_config=dict(policy='OneCycle')),
    not_dropped=dict(lr_config=dict(policy='exp', gamma=.5, by_epoch=False), drop_last=False),
)

@HOOKS.register
class SeenGroups(Hook):
    "The first parameter group at each step of a run"
    priority, seen = 'NORMAL', []
    def before_run(self, runner): self.seen.clear()
    def after_train_iter(self, runner): self.seen.append(dict(runner.optimizer.param_groups[0]))

def momentum(group): return group['momentum'] if 'momentum' in group else group['betas'][0]

@pytest.mark.parametrize('name', runs)
def test_the_figure_shows_what_training_logs(name, tmp_path):
    changes = dict(runs[name])
    cfg = run_config(**{k: v for k,v in changes.items() if k!='drop_last'})
    if 'drop_last' in changes: cfg.data['train_dataloader'] = dict(drop_last=changes['drop_last'])
    cfg.custom_hooks = [dict(type='SeenGroups')]
    log = read_log(fit(cfg, tmp_path, validate=False, device='cpu').folder)
    log = log[log['mode']=='train']
    table = vis_lr(cfg).schedule
    assert len(table)==table.attrs['max_iters']==len(log)
    np.testing.assert_allclose(table.lr, log.lr, rtol=1e-5)
    np.testing.assert_allclose(table.lr, [o['lr'] for o in SeenGroups.seen], rtol=1e-9)
    np.testing.assert_allclose(table.momentum, [momentum(o) for o in SeenGroups.seen], rtol=1e-9)

def kinds():
    "One packaged config of each kind of schedule and optimiser"
    found = {}
    for name in list_configs():
        cfg = Config.fromfile(name)
        lr, optimizer = cfg.facts.lr_config, cfg.facts.part('optimizer')
        if not optimizer: continue
        special = str(sorted(optimizer.get('paramwise_cfg') or ()))
        key = lr['policy'], lr.get('warmup'), optimizer.get('type'), special, cfg.facts.length.unit
        found.setdefault(key, name)
    return sorted(found.values())

@pytest.mark.parametrize('name', kinds())
def test_every_kind_of_packaged_schedule(name):
    fig = vis_lr(name, dataset_size=2000, ngpus=2)
    table = fig.schedule
    assert table.lr.gt(0).any() and np.isfinite(table.lr).all() and table.attrs['max_iters']>0
    assert len(fig.axes[0].lines)==table.group.nunique()

def test_parameter_groups_have_lines_of_their_own():
    cfg = run_config(optimizer=dict(type='SGD', lr=.1, momentum=.9, paramwise_cfg=dict(custom_keys={'head': dict(lr_mult=10.)})))
    table = vis_lr(cfg).schedule
    highest = table.groupby('group').lr.max()
    assert len(highest)==2 and highest.max()/highest.min()==pytest.approx(10, rel=1e-3)
    parameters = sum(p.numel() for p in build_classifier(cfg.model).parameters())
    assert table.groupby('group')['count'].first().sum()==parameters
    legend = fig_texts(vis_lr(cfg))
    assert any('774 parameters' in o for o in legend), legend

def fig_texts(fig): return [t.get_text() for ax in fig.axes if ax.get_legend() for t in ax.get_legend().get_texts()]

@pytest.mark.parametrize('ngpus, batch, more, expected', [
    (1, 32, {}, 32), (2, 32, {}, 16), (3, 32, {}, 11), (8, 100, {}, 2), (1, 32, dict(drop_last=True), 31), (8, 1000, {}, 1),
])
def test_iterations_in_an_epoch(ngpus, batch, more, expected):
    cfg = Config(dict(data=dict(samples_per_gpu=batch, train_dataloader=more)))
    assert steps_in_epoch(cfg, 1000, ngpus)==expected

def test_samples_are_counted_with_their_wrappers():
    cfg = run_config()
    samples, plain = len(build_dataset(cfg.data.train)), steps_in_epoch(cfg)
    cfg.data.train = dict(type='RepeatDataset', times=5, dataset=cfg.data.train)
    assert (plain, steps_in_epoch(cfg))==(samples//40, samples*5//40) # drop_last

def test_figure_is_written_and_titled(tmp_path):
    for name in ('lr.png', 'lr.jpg', 'new/lr.svg', 'lr.pdf'):
        vis_lr(run_config(), save_path=tmp_path/name, title='Mine', window_size='6*4')
        assert (tmp_path/name).stat().st_size>1000
    assert vis_lr('resnet18-tiny_1xb16_photos').axes[0].get_title(loc='left')=='resnet18-tiny_1xb16_photos'
    assert vis_lr(run_config(), title='Mine').axes[0].get_title(loc='left')=='Mine'

def test_a_work_folder_and_a_run(tmp_path):
    run_config().dump(tmp_path/'config.py')
    tables = [vis_lr(source).schedule for source in (tmp_path, Run(tmp_path), tmp_path/'config.py', run_config())]
    assert all(tables[0].equals(o) for o in tables)

@pytest.mark.parametrize('options, message', [
    (dict(dataset_size=0), 'at least 1, not 0'), (dict(ngpus=0), 'at least 1, not 0'),
    (dict(window_size='12'), "'12' is not a width"),
    (dict(style='whitegrit'), "Did you mean 'whitegrid'"), (dict(save_path='lr.txt'), 'has to end with'),
    (dict(save_path='/proc/none/lr.png'), 'cannot be written'), (dict(cfg='resnet50_8xb32_in1k'), 'Set dataset_size'),
    (dict(cfg='resnet50_8xb32_in2k'), "Did you mean 'resnet50_8xb32_in1k'"),
    (dict(options={'lr_config.policy': 'cosin'}), "'cosin'"),
    (dict(cfg=dict(optimizer=dict(type='SGD', lr=.1))), 'samples_per_gpu'), (dict(options={'optimizer.type': 'SDG'}), 'SGD'),
    (dict(cfg=dict(data=dict(samples_per_gpu=2))), 'no data.train'), (dict(cfg='absent/config.py'), 'absent'),
], ids=str)
def test_schedules_that_cannot_be_shown(options, message):
    with pytest.raises(ClsnbError) as e: vis_lr(**dict(cfg='resnet18-tiny_1xb16_photos') | options)
    assert message in str(e.value) and '\n' not in str(e.value)

# ---- The pipeline

load = dict(type='LoadImageFromFile')
norm = dict(type='Normalize', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)

def folder_of(path, pictures, pipeline=(load,)):
    "A config with a folder of pictures, {class/name: array in BGR or bytes}"
    for name,content in pictures.items():
        (path/name).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes): (path/name).write_bytes(content)
        else: cv2.imwrite(str(path/name), content)
    data = dict(type='CustomDataset', data_prefix=str(path), pipeline=list(pipeline))
    return dict(data=dict(samples_per_gpu=2, train=data, val=data))

def blue(h=40, w=60):
    a = np.zeros((h, w, 3), np.uint8)
    a[..., 0] = 255
    return a

def read(path): return cv2.imread(str(path))

def test_transformed_pictures_are_those_of_training():
    cfg = Config.fromfile('resnet18-tiny_1xb16_photos')
    dataset = build_dataset(cfg.data.train)
    from clsnb.apis.loaders import loader_args
    from clsnb.data.feed.loader import build_dataloader
    loader = build_dataloader(dataset, **loader_args(cfg, 'train') | dict(shuffle=False, workers_per_gpu=0, seed=0))
    trained = next(iter(loader))['img'][3]
    mean, std = (torch.tensor(norm[k]).reshape(3, 1, 1) for k in ('mean', 'std'))
    expected = (trained*std+mean).round().numpy().transpose(1, 2, 0)
    steps = walk_pipeline(dataset, 3, ['ToTensor', 'Normalize', 'ImageToTensor', 'Collect'])
    assert abs(steps[-1].picture-expected).max()<=1
    whole = walk_pipeline(dataset, 3)
    assert whole[-1].name=='Collect' and abs(whole[-1].picture-expected).max()<=1, 'normalised pictures are brought back'

def test_random_numbers_are_left_alone():
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    before = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    vis_pipeline('resnet18-tiny_1xb16_photos', number=2)
    assert (random.random(), np.random.rand(), torch.rand(1).item())==before

@pytest.mark.parametrize('mode, shape', [
    ('original', (40, 60)), ('transformed', (20, 30)), ('concat', (40, 60+8+30)), ('pipeline', None),
])
def test_modes(tmp_path, mode, shape):
    cfg = folder_of(tmp_path/'in', {'a/x.png': blue(), 'b/y.png': blue()}, [load, dict(type='Resize', size=(20, 30)), norm])
    fig = vis_pipeline(cfg, tmp_path/'out', mode=mode, skip_type=[])
    found = read(tmp_path/'out/x.png')
    assert [o.name for o in fig.files]==['x.png', 'y.png'] and not fig.errors
    if shape: assert found.shape[:2]==shape
    if mode in ('original', 'transformed'): assert abs(found.astype(int)-blue(*shape)).max()<=1, 'colours are right'
    if mode=='pipeline': assert found.shape[1]>60+30+30

def test_colours_of_arrays_and_files(tmp_path):
    arrays = Digits(pipeline=[])
    arrays.data_infos = [dict(img=blue(), gt_label=np.array(0))] # red, in RGB
    for flip in (False, True):
        vis_pipeline(arrays, tmp_path/f'arrays{flip}', number=1, mode='original', bgr2rgb=flip)
        assert read(tmp_path/f'arrays{flip}/0.png')[0, 0].tolist()==[0, 0, 255]
        cfg = folder_of(tmp_path/'in', {'a/x.png': blue()})
        vis_pipeline(cfg, tmp_path/f'files{flip}', mode='original', bgr2rgb=flip)
        assert read(tmp_path/f'files{flip}/x.png')[0, 0].tolist()==([0, 0, 255] if flip else [255, 0, 0])

def test_names_are_never_given_twice_nor_lead_outside(tmp_path):
    names = ['a/x.png', 'b/x.png', 'c/X.PNG', 'a/x_1.png', 'a/y..png']
    cfg = folder_of(tmp_path/'in', dict.fromkeys(names, blue()))
    fig = vis_pipeline(cfg, tmp_path/'out', mode='original')
    written = sorted(o.name for o in (tmp_path/'out').iterdir())
    assert len(written)==len({o.lower() for o in written})==5 and sorted(o.name for o in fig.files)==written
    class Named:
        data_infos = [dict(img_info=dict(filename=o)) for o in ('../../etc/passwd', '/', 'a\\b.jpg', '..', 'x.gif', 'x.gif')]
        def __len__(self): return 6
        def sample_name(self, i): return self.data_infos[i]['img_info']['filename']
    assert output_names(Named(), range(6))==['passwd.png', '1.png', 'b.jpg', '3.png', 'x.gif.png', 'x.gif_5.png']

def test_the_pictures_themselves_are_never_overwritten(tmp_path):
    cfg = folder_of(tmp_path, {'a/x.png': blue()})
    content = (tmp_path/'a/x.png').read_bytes()
    with pytest.raises(ConfigError, match='would be overwritten'): vis_pipeline(cfg, tmp_path/'a')
    assert (tmp_path/'a/x.png').read_bytes()==content
    (tmp_path/'out').mkdir()
    (tmp_path/'out/x.png').symlink_to(tmp_path/'a/other.png')
    vis_pipeline(cfg, tmp_path/'out')
    assert not (tmp_path/'a/other.png').exists() and not (tmp_path/'out/x.png').is_symlink()

def test_small_pictures_are_enlarged_by_whole_pixels():
    a = np.random.default_rng(0).integers(0, 255, (28, 32, 3), np.uint8)
    large = adapted_picture(a, 200)
    assert large.shape==(224, 256, 3) and np.array_equal(large[::8, ::8], a) and np.array_equal(large[7::8, 7::8], a)
    assert adapted_picture(np.zeros((2000, 4000, 3), np.uint8), 200, 1000).shape==(500, 1000, 3)
    assert adapted_picture(np.zeros((300, 400), np.uint8)).shape==(300, 400)
    assert max(adapted_picture(np.zeros((1, 90), np.uint8), 200, 1000).shape)==1000

WRAPPERS = dict(
    RepeatDataset=dict(times=2), SubsetDataset=dict(indices=[3, 1]), ClassBalancedDataset=dict(oversample_thr=.1),
    KFoldDataset=dict(fold=0, num_splits=2, seed=0, test_mode=True),
)

@pytest.mark.parametrize('kind', [*WRAPPERS, 'ConcatDataset', 'list'])
def test_wrapped_data(tmp_path, kind):
    inner = dict(type='Photos', pipeline=[load, dict(type='RandomFlip', flip_prob=.5)])
    if kind=='list': data = [inner, inner]
    elif kind=='ConcatDataset': data = dict(type=kind, datasets=[inner, inner])
    else: data = dict(type=kind, dataset=inner, **WRAPPERS[kind])
    fig = vis_pipeline(dict(data=dict(samples_per_gpu=2, train=data)), tmp_path, number=2, mode='transformed')
    dataset = build_dataset(data)
    for i,path in enumerate(fig.files):
        inside, at = unwrapped_sample(dataset, i)
        assert path.name==Path(inside.sample_name(at)).name and dataset.get_cat_ids(i)==inside.get_cat_ids(at)

def test_multi_label_titles():
    class Tagged(Digits):
        CLASSES = ['red', 'green', 'blue']
        def get_cat_ids(self, i): return [0, 2] if i else []
        def check_labels(self): pass
    fig = vis_pipeline(Tagged(pipeline=[]), number=2, mode='original')
    assert [ax.get_title(loc='left') for ax in fig.axes]==['none', 'red, blue']

def test_a_failing_step_and_a_broken_file_are_shown_in_their_places(tmp_path):
    large = dict(type='RandomCrop', size=500)
    cfg = folder_of(tmp_path/'in', {'a/x.png': blue(), 'a/y.png': b'no picture'}, [load, large, dict(type='Resize', size=9)])
    fig = vis_pipeline(cfg, tmp_path/'out', mode='pipeline')
    assert set(fig.errors)=={'x.png', 'y.png'} and fig.errors['x.png'].startswith('RandomCrop: ')
    assert fig.errors['y.png'].startswith('LoadImageFromFile: ') and read(tmp_path/'out/y.png') is not None
    for mode in ('original', 'transformed', 'concat'): assert len(vis_pipeline(cfg, mode=mode).errors)==2

def test_phases_and_numbers(tmp_path):
    count = len(Photos('val', pipeline=[]))
    fig = vis_pipeline('resnet18-tiny_1xb16_photos', tmp_path/'out', 'val', mode='original')
    assert len(fig.files)==count==len(list((tmp_path/'out').iterdir())) and len(fig.axes)>=24
    assert len(vis_pipeline('resnet18-tiny_1xb16_photos', tmp_path/'two', 'test', 2).files)==2
    assert sum(ax.has_data() for ax in vis_pipeline('resnet18-tiny_1xb16_photos').axes)==24

@pytest.mark.parametrize('options, message', [
    (dict(mode='concatenated'), "Did you mean 'concat'"), (dict(phase='validate'), "no phase 'validate'"),
    (dict(number=0), 'at least 1, not 0'), (dict(number=-3), 'at least 1'), (dict(skip_type=['Normalise']), "'Normalize'"),
    (dict(min_edge_length=0), 'at least 1'), (dict(min_edge_length=500, max_edge_length=100), 'at most max_edge_length'),
    (dict(window_size='big'), "'big' is not a width"), (dict(output_dir='/proc/none'), 'cannot be written'),
    (dict(output_dir=photo_path('cat')), 'cannot be written'), (dict(cfg='resnet18-tiny_1xb16_photo'), 'Did you mean'),
    (dict(cfg=dict(data=dict(val=dict(type='Photos')))), 'no data.train'), (dict(cfg=dict(model=dict())), 'no data.train'),
    (dict(cfg=[]), 'no pictures'), (dict(cfg=[1, 2]), 'no list of samples'), (dict(cfg='absent.py'), 'absent.py'),
], ids=str)
def test_pipelines_that_cannot_be_shown(options, message):
    with pytest.raises(ClsnbError) as e: vis_pipeline(**dict(cfg='resnet18-tiny_1xb16_photos') | options)
    assert message in str(e.value) and '\n' not in str(e.value)

# ---- The command line

def command(*words):
    ran = subprocess.run([sys.executable, '-W', 'ignore', '-c', 'from clsnb.cli import main; main()', *map(str, words)],
                         capture_output=True, text=True)
    return ran.returncode, ran.stdout, ran.stderr

def test_verbs(tmp_path):
    tiny, cat = 'resnet18-tiny_1xb16_photos', photo_path('cat')
    status, out, _ = command('vis_lr', tiny, '--save-path', tmp_path/'lr.png', '--window-size', '6*4', '--json')
    assert status==0 and json.loads(out)['max_iters']==320 and (tmp_path/'lr.png').exists()
    status, out, _ = command('vis-pipeline', tiny, '--number', 2, '--mode', 'pipeline', '--output-dir', tmp_path/'out',
                             '--json')
    assert status==0 and len(json.loads(out)['files'])==2==len(list((tmp_path/'out').iterdir()))
    status, out, _ = command('vis_cam', cat, tiny, 'none', '--method', 'LayerCAM', 'EigenCAM',
                             '--target-layers', 'backbone.layer3[-1]', '--target-category',
                             'fish', '--aug_smooth', '--vit-like', '--save-path', tmp_path/'cam.jpg', '--json')
    assert status==0 and [o['target'] for o in json.loads(out)['maps']]==[2, 2] and (tmp_path/'cam.jpg').exists()
    status, out, _ = command('vis-cam', cat, tiny, 'none', '--preview-model')
    assert status==0 and '* backbone.layer4 ' in out and '(default)' in out
    status, out, _ = command('get_flops', 'resnet50_8xb32_in1k', '--shape', 224)
    assert status==0 and 'Flops: 4.11 GFLOPs\nParams: 25.56 M\n' in out
    status, out, err = command('vis-cam', cat, tiny, 'none', '--method', 'GradCAN')
    assert (status, out)==(2, '') and err.count('\n')==1 and 'gradcam' in err
