"""finetune, lr_find, find_batch_size: what is left as it was, what a folder must be, and the same result by the
command line"""
import copy, os, random, shutil, signal, subprocess, sys
from dataclasses import replace
from pathlib import Path
import numpy as np, pytest, torch
from torch import nn

import clsnb
from clsnb.analysis.figures import plot_predictions
from clsnb.apis.batch_size import find_batch_size
from clsnb.apis.finetune import finetune, finetune_config
from clsnb.apis.finetune_choices import choose_model
from clsnb.apis.finetune_data import picture_folders
from clsnb.apis.finetune_facts import collect_facts, start_from
from clsnb.apis.inference import inference_model
from clsnb.apis.lr_find import LrFind, lr_find
from clsnb.cli import main
from clsnb.apis.fit import fit
from clsnb.apis.test import evaluate_config
from clsnb.core.checkpoint import read_checkpoint
from clsnb.config.config import Config, list_configs
from clsnb.core.errors import CheckpointError, ConfigError, DataError
from clsnb.core.registry import MODELS
from clsnb.data.feed.loader import build_dataloader
from clsnb.data.sets.packaged import Digits, photo_path
from clsnb.data.sets.wrappers import build_dataset
from clsnb.runs.results import Results
from clsnb.train.optim import OptimizerDict

photos = Path(clsnb.__file__).parent/'photos'
TINY = 'resnet18-tiny_1xb16_photos'
quiet = {'data.workers_per_gpu': 0, 'log_level': 'ERROR', 'results': False}

@pytest.fixture(autouse=True)
def one_thread():
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)

# ---- Left as it was

steps = [
    dict(type='Normalize', mean=[128.], std=[64.], to_rgb=False),
    dict(type='ImageToTensor', keys=['img']),
    dict(type='ToTensor', keys=['gt_label']),
    dict(type='Collect', keys=['img', 'gt_label']),
]

class Net(nn.Module):
    "A norm, dropout, a buffer that is replaced and one that is not saved"
    def __init__(self, fail=None):
        super().__init__()
        self.a = nn.Conv2d(1, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.b = nn.Linear(4, 10)
        self.fail = fail
        self.most = 10**9
        self.register_buffer('count', torch.zeros(3))
        self.register_buffer('hidden', torch.ones(2), persistent=False)
    def train_step(self, batch, optimizer):
        if len(batch['img'])>self.most: raise torch.OutOfMemoryError('CUDA out of memory.')
        self.count = self.count+1
        self.hidden.mul_(2)
        random.random()
        np.random.rand()
        if self.fail is not None and self.count[0]>self.fail: raise RuntimeError('an accident')
        x = nn.functional.dropout(
            self.bn(self.a(batch['img'])).relu().mean((2, 3)),
            .1,
            self.training,
        )
        loss = nn.functional.cross_entropy(self.b(x), batch['gt_label'])
        return dict(loss=loss, log_vars=dict(loss=loss.detach()), num_samples=len(x))

def everything(net, opt, loader):
    "All state, as plain bits"
    bits = lambda o: o.detach().clone() if torch.is_tensor(o) else copy.deepcopy(o)
    opts = list(opt.values()) if isinstance(opt, dict) else [opt]
    b = loader.batch_sampler
    return dict(
        tensors={k: bits(v) for k, v in [*net.named_parameters(), *net.named_buffers()]},
        ids=[id(o) for o in [*net.parameters(), *net.buffers()]],
        grads=[bits(p.grad) if p.grad is not None else None for p in net.parameters()],
        needs=[p.requires_grad for p in net.parameters()],
        modes=[m.training for m in net.modules()],
        groups=[
            {k: bits(v) for k, v in g.items() if k!='params'}
            for o in opts
            for g in o.param_groups
        ],
        states=[
            [(k, bits(v)) for k, v in s.items()]
            for o in opts
            for s in o.state.values()
        ],
        keys=[id(p) for o in opts for p in o.state],
        rng=[random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()],
        place=[b.epoch, b.start, b.sampler.epoch],
        seen=loader.seen,
    )

def same(a, b):
    if torch.is_tensor(a): return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys()==b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a)==len(b) and all(map(same, a, b))
    return a==b

def midway(make, fail=None):
    "A model, optimiser and loader in the middle of something"
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    net = Net()
    opt = make(net)
    loader = build_dataloader(Digits(pipeline=steps), 32, seed=3)
    loader.set_epoch(4, 2)
    for batch, _ in zip(loader, range(3)):
        opt.zero_grad()
        net.train_step(batch, opt)['loss'].backward()
        opt.step()
    net.bn.eval()
    net.a.weight.requires_grad_(False)
    net.fail = fail
    return net, opt, loader

optimizers = dict(
    adam=lambda m: torch.optim.AdamW(
        [
            dict(params=m.a.parameters(), lr=1e-4),
            dict(params=[*m.bn.parameters(), *m.b.parameters()]),
        ],
        lr=1e-3,
    ),
    sgd=lambda m: torch.optim.SGD(m.parameters(), lr=.1, momentum=.9),
    two=lambda m: OptimizerDict(
        a=torch.optim.SGD(m.a.parameters(), lr=.1),
        b=torch.optim.Adam([*m.bn.parameters(), *m.b.parameters()], lr=.01),
    ),
)

@pytest.mark.parametrize('name', optimizers)
@pytest.mark.parametrize('fail', [None, 12])
def test_lr_find_leaves_everything(name, fail):
    net, opt, loader = midway(optimizers[name], fail)
    before = everything(net, opt, loader)
    if fail is None:
        assert len(lr_find(net, loader, opt, num_iter=15, end_lr=1.).lrs)==15
    else:
        with pytest.raises(RuntimeError, match='an accident'):
            lr_find(net, loader, opt, num_iter=15)
    after = everything(net, opt, loader)
    assert [k for k in before if not same(before[k], after[k])]==[]

def test_batch_size_leaves_everything():
    net, opt, loader = midway(optimizers['adam'])
    net.most = 10
    before = everything(net, opt, loader)
    found = find_batch_size(net, loader, opt)
    assert (
        (found.fits, found.failed, found.samples_per_gpu, found.cumulative_iters)
        == ([2, 4, 8], 16, 8, 4)
    )
    after = everything(net, opt, loader)
    assert [k for k in before if not same(before[k], after[k])]==[]
    net.fail = 0
    with pytest.raises(RuntimeError, match='an accident'):
        find_batch_size(net, loader, opt)
    net.most, net.fail = 1, None
    with pytest.raises(ConfigError, match='not even 2 samples'):
        find_batch_size(net, loader, opt)

@pytest.mark.parametrize('workers', [0, 1])
def test_an_epoch_goes_on_after_a_sweep(workers):
    def batches(sweep):
        loader = build_dataloader(Digits(pipeline=steps), 256, workers, seed=3)
        loader.set_epoch(2)
        out = []
        for i, b in enumerate(loader):
            out.append((b.index, b['img']))
            if sweep and i==1:
                net = Net()
                lr_find(net, loader, torch.optim.SGD(net.parameters(), lr=.1), num_iter=10)
        return out
    assert same(batches(False), batches(True))

def test_groups_keep_their_ratios(monkeypatch):
    net, opt, loader = midway(optimizers['adam'])
    seen = []
    step = net.train_step
    def noted(batch, o):
        seen.append([g['lr'] for g in opt.param_groups])
        return step(batch, o)
    net.train_step = noted
    found = lr_find(net, loader, opt, start_lr=1e-4, end_lr=1e-2, num_iter=11)
    assert np.allclose([a/b for a, b in seen], .1)
    assert np.allclose([b for _, b in seen], found.lrs)
    assert np.allclose(found.lrs, np.geomspace(1e-4, 1e-2, 11))

def test_sweeps_end_where_they_should():
    net, opt, loader = midway(optimizers['sgd'])
    found = lr_find(net, loader, opt, start_lr=1e-3, end_lr=1e12, num_iter=60)
    assert found.stopped in ('diverged', 'no number') and len(found.lrs)<60
    assert (
        LrFind(
            np.geomspace(1e-5, 1, 50).tolist(),
            np.random.default_rng(0).normal(2, .1, 50).tolist(),
            50,
        ).suggestion
        is None
    )
    y = (
        np.r_[np.full(20, 2.),
        np.linspace(2, 1, 10),
        np.linspace(1, 6, 5),
        np.linspace(6, .5, 15)]
    )
    x = np.geomspace(1e-6, 1, 50) # low again after it diverged
    assert x[20] <= LrFind(x.tolist(), y.tolist(), 50).suggestion <= x[30]
    for kw in (dict(start_lr=1, end_lr=.1), dict(num_iter=3)):
        with pytest.raises(ConfigError): lr_find(net, loader, opt, **kw)
    with pytest.raises(ConfigError, match='iterator'):
        lr_find(net, iter([1]), opt)
    with pytest.raises(ConfigError, match='beside it'): lr_find(net)

def test_accumulation_is_the_large_batch(tmp_path):
    "What find_batch_size proposes trains as the effective batch does (no batch norms, which see the parts)"
    torch.manual_seed(0)
    net = nn.Linear(4, 2)
    x, y = torch.randn(16, 4), torch.arange(16)%2
    class Line(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = copy.deepcopy(net)
        def train_step(self, b, o):
            l = nn.functional.cross_entropy(self.net(b['img']), b['gt_label'])
            return dict(loss=l, log_vars={}, num_samples=len(b['img']))
    from clsnb.train.loop import Runner
    out = []
    for n, k in ((16, 1), (4, 4)):
        m = Line()
        run = Runner(m, torch.optim.SGD(m.parameters(), lr=.5), max_epochs=3)
        run.register_hook(dict(type='OptimizerHook', cumulative_iters=k))
        run.run([
            [dict(img=x[i:i+n], gt_label=y[i:i+n]) for i in range(0, 16, n)]
        ])
        out.append(m.net.weight.detach())
    assert torch.allclose(*out, atol=1e-6)

# ---- Folders

def folder(top, **classes):
    for name, n in classes.items():
        (top/name).mkdir(parents=True)
        for i in range(n):
            shutil.copy(photo_path('cat'), top/name/f'{i} of {n}.jpg')
    return top

@pytest.mark.parametrize(
    'make, text',
    [
        (lambda d: d/'pets', r"there is no folder '.*pets'. The nearest that exists is"),
        (lambda d: folder(d/'x', cat=3), r"one class folder, 'cat'; a classifier needs two"),
        (lambda d: folder(d/'x', cat=3, dog=1), r"the class 'dog' has one picture, and a split needs two"),
        (lambda d: folder(d/'x', cat=3, dog=0), r"dog has no pictures"),
        (lambda d: folder(d/'x/train', cat=3) and d/'x', r"one class folder, 'cat'"),
        (
            lambda d: (
                folder(d/'x/train', cat=3, dog=3)
                and folder(d/'x/val', cat=1, dgo=1)
                and d/'x'
            ),
            r"dgo is none of the 2 classes. Did you mean 'dog'",
        ),
    ],
)
def test_folders_that_cannot_be(tmp_path, make, text):
    with pytest.raises(DataError, match=text) as e:
        finetune(TINY, make(tmp_path), tmp_path/'run')
    assert '\n' not in str(e.value)

def test_models_that_cannot_be(tmp_path):
    for name, err, text in (
        (TINY[:-1], ConfigError, f"Did you mean '{TINY}'"),
        (tmp_path/'a.pth', CheckpointError, 'There is no checkpoint'),
        ('resnet101-csra_1xb16_voc07-448px', ConfigError, 'several labels'),
    ):
        with pytest.raises(err, match=text) as e:
            finetune(name, photos, tmp_path/'run', weights='none' if 'csra' in str(name) else None)
        assert '\n' not in str(e.value)
    with pytest.raises(CheckpointError): # asked for, so it must be there
        start_from(TINY, weights=tmp_path/'b.pth')

def test_without_a_network(tmp_path, monkeypatch):
    "Weights that were published and cannot be had stop the run, unless none are asked for; then nothing is frozen"
    import clsnb.core.checkpoint as c
    def none(url, *a, **k): raise DataError(f'{url} cannot be fetched (no network)')
    monkeypatch.setattr(c, 'download', none)
    monkeypatch.setenv('CLSNB_HOME', str(tmp_path/'home'))
    with pytest.raises(CheckpointError, match='cannot be fetched .*--weights none'): start_from('resnet18_8xb32_in1k')
    cfg, weights, why = start_from('resnet18_8xb32_in1k', 'none')
    assert weights is None and why=='as asked'
    cfg = finetune_config('resnet18_8xb32_in1k', photos, tmp_path/'run', weights='none')
    text = (tmp_path/'run/finetune.py').read_text()
    assert cfg.load_from is None and 'from scratch: as asked' in text and 'FreezeHook' not in text
    assert start_from('resnest50_32xb64_in1k').why_none=='no weights were published for it'

def test_published_weights_are_taken(pretrained_home, tmp_path):
    cfg = finetune_config('mobilenet-v2_1xb16-ft_photos', photos, tmp_path/'run')
    assert cfg.load_from=='torchvision://mobilenet_v2'
    assert cfg.custom_hooks[0].type=='FreezeHook'
    assert cfg.model.backbone.get('init_cfg') is None

def test_splits(tmp_path):
    d = folder(tmp_path/'d', a=2, b=3, c=20)
    one, again = (picture_folders(d, tmp_path/k) for k in ('r1', 'r2'))
    lists = [(tmp_path/k/'train.txt').read_text() for k in ('r1', 'r2')]
    assert lists[0]==lists[1]
    assert one.counts.min()>=1
    assert one.n+one.n_val==25
    assert (
        {int(o[-1]) for o in (tmp_path/'r1/val.txt').read_text().split('\n') if o}
        == {0, 1, 2}
    )
    folder(tmp_path/'e/train', train=2, b=1)
    folder(tmp_path/'e/valid', b=1)
    folder(tmp_path/'e/test', b=1)
    with pytest.warns(UserWarning, match='no samples'):
        f = picture_folders(tmp_path/'e', tmp_path/'r3')
    assert (
        [Path(f.args[k]['data_prefix']).name for k in ('train', 'val', 'test')]
        == ['train', 'valid', 'test']
    )
    assert not (tmp_path/'r3').exists()
    # a class may be called so
    assert picture_folders(folder(tmp_path/'f', train=3, plane=3), tmp_path/'r4').classes==['plane', 'train']

# ---- The choices

def of_each_head():
    "One packaged config for each kind of head, small ones first"
    out = {}
    for n in sorted(list_configs(), key=len):
        m = Config.fromfile(n).model
        k = (m.head or {}).get('type'), 'num_classes' in m.backbone
        if not any(o in str(k) for o in ('MultiLabelClsHead', 'CSRA')):
            out.setdefault(k, n)
    return sorted(out.values())

@pytest.mark.parametrize('name', of_each_head())
def test_every_head_is_sized(name, tmp_path):
    cfg = finetune_config(name, photos, tmp_path/'run', weights=False)
    with torch.device('meta'): model = MODELS.build(cfg.model)
    fitting = [m for n, m in model.named_modules() if isinstance(m, nn.Linear) and m.out_features==6]
    assert fitting and not any(isinstance(m, nn.Linear) and m.out_features==1000 for m in model.modules())
    assert Config.fromfile(tmp_path/'run/finetune.py')==cfg and not cfg.check().errors
    shapes = [build_dataset(cfg.data[k])[0]['img'].shape for k in ('train', 'val')]
    assert shapes[0]==shapes[1]
    assert shapes[0][1]==shapes[0][2]

def test_choices_follow_the_data(tmp_path, monkeypatch):
    big = folder(tmp_path/'big', a=6, b=60)
    cfg = finetune_config(TINY, big, tmp_path/'r1', weights=False)
    assert cfg.evaluation.save_best=='f1_score'
    assert 'ClassBalancedDataset' in (tmp_path/'r1/finetune.py').read_text()
    assert cfg.runner.max_epochs==100
    even = folder(tmp_path/'even', a=10, b=12)
    cfg = finetune_config(TINY, even, tmp_path/'r2', weights=False, options={'optimizer.lr': .5})
    assert cfg.evaluation.save_best=='accuracy_top-1'
    assert cfg.optimizer.lr==.5
    assert 'optimizer.lr: as asked' in (tmp_path/'r2/finetune.py').read_text()
    monkeypatch.setattr('clsnb.apis.finetune_facts.read_checkpoint', lambda a: {}) # as if there were weights
    for name, layered in (
        ('swin-tiny_16xb64_in1k', True), ('resnet18_8xb32_in1k', False), ('vgg11_8xb32_in1k', False)
    ):
        cfg = finetune_config(name, even, tmp_path/name)
        hooks = [h.type for h in cfg.get('custom_hooks', ())]
        assert cfg.load_from==f'zoo://{name}'
        assert ('constructor' in cfg.optimizer)==layered
        assert ('FreezeHook' in hooks)==('vgg' not in name)
        assert 'augments' not in str(cfg.model)
    assert (
        'custom_keys' in finetune_config('resnet18_8xb32_in1k', even, tmp_path/'r5').optimizer.paramwise_cfg
    )
    facts = collect_facts('resnet18_8xb32_in1k', even, tmp_path/'r6')
    facts.folder = replace(facts.folder, counts=np.array([2000, 2000]))
    assert facts.mixes and 'BatchCutMix' in str(choose_model(facts)[0].value)

def test_a_checkpoint_keeps_its_preprocessing(tmp_path):
    cfg = finetune_config('swin-tiny_16xb64_in1k', photos, tmp_path/'r', weights=False, size=96)
    kinds = {s.type: s for s in cfg.data.test.pipeline}
    train = {s.type: s for s in cfg.data.train.pipeline}
    assert kinds['CenterCrop'].crop_size==96
    assert kinds['Resize'].size==(110, -1)
    assert kinds['Resize'].interpolation==train['RandomResizedCrop'].interpolation=='bicubic'
    assert train['Normalize']==kinds['Normalize'] and cfg.model.backbone.img_size==96

# ---- Training

kw = dict(epochs=5, size=32, batch_size=16)

def weights_of(path): return read_checkpoint(path)['state_dict']

@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    d = tmp_path_factory.mktemp('trained')
    torch.set_num_threads(1)
    return finetune(TINY, photos, d/'first', options=quiet, **kw)

@pytest.fixture(scope='module')
def second(trained, tmp_path_factory):
    "From the checkpoint of the first: frozen at first, averaged"
    return finetune(trained.folder, photos, tmp_path_factory.mktemp('second')/'run', options=quiet, **kw)

def test_a_result_answers(trained):
    assert trained.finished
    assert abs(trained.metrics['f1_score']-trained.log.f1_score.max())<1e-3
    assert trained.weights.name.startswith('best_f1_score_epoch_')
    assert trained.report is None
    model = trained.model()
    assert model.CLASSES==('animal', 'building', 'fish', 'solar', 'tool', 'windmill')
    assert inference_model(model, photo_path('cat'))['pred_class'] in model.CLASSES
    at = trained.log.loc[trained.log.f1_score.idxmax()]
    _, scores, data, _ = evaluate_config(trained, split='val', options={'data.workers_per_gpu': 0})
    results = Results.from_dataset(scores, data)
    assert abs(at['accuracy_top-1']-100*results.accuracy)<1e-3
    assert plot_predictions(results, n=4).image_bytes() and trained.plot().image_bytes()
    value = f"{trained.metrics['f1_score']:.4g}"
    for text in ('finished after 5 epochs', trained.weights.name, 'f1_score', value):
        assert text in trained._repr_html_() and text in repr(trained)

def test_the_second_phase(second):
    assert [h.type for h in second.config.custom_hooks]==['FreezeHook']
    assert second.config.load_from.endswith('.pth')
    first, last = weights_of(second.config.load_from), weights_of(Path(second.folder)/'epoch_5.pth')
    assert not any(
        torch.equal(first[k], last[k])
        for k in first
        if k.startswith('backbone') and k.endswith(('weight', 'running_mean'))
    )

def test_frozen_statistics_stay(trained, tmp_path):
    "During the first phase neither weights nor statistics of the backbone change"
    cfg = finetune_config(
        trained.folder, photos, tmp_path/'r', options={**quiet, 'custom_hooks.0.epochs': 2}, **kw
    )
    assert cfg.custom_hooks[0].epochs==2
    run = fit(cfg, tmp_path/'s', {'runner.max_epochs': 2}).runner
    first = weights_of(cfg.load_from)
    now = run.model.state_dict()
    back = [k for k in first if k.startswith('backbone')]
    assert back
    assert all(torch.equal(first[k], now[k]) for k in back)
    assert not torch.equal(first['head.fc.weight'], now['head.fc.weight'])

def test_the_command_line_gives_the_same_bits(second, tmp_path):
    env = dict(os.environ, OMP_NUM_THREADS='1')
    r = subprocess.run(
        [
            sys.executable,
            '-m', 'clsnb', 'train',
            f'{second.folder}/finetune.py',
            '--work-dir',
            str(tmp_path/'again'),
        ],
        env=env,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert r.returncode==0, r.stderr[-2000:]
    a, b = (weights_of(Path(d)/'epoch_5.pth') for d in (second.folder, tmp_path/'again'))
    assert same(dict(a), dict(b))

def test_an_interrupted_run_goes_on(trained, second, tmp_path, monkeypatch):
    from clsnb.train.run_state import TrainStep
    calls, step = [0], TrainStep.forward
    def counted(self, batch, optimizer):
        calls[0] += 1
        if calls[0]==13: os.kill(os.getpid(), signal.SIGINT)
        return step(self, batch, optimizer)
    monkeypatch.setattr(TrainStep, 'forward', counted)
    go = lambda: finetune(trained.folder, photos, tmp_path/'run', options=quiet, **kw)
    res = go()
    assert not res.finished and 'the same call resumes it' in repr(res) and res.runner.epoch==1
    res = go()
    assert res.finished and calls[0]==45
    a, b = (weights_of(Path(o.folder)/'epoch_5.pth') for o in (second, res))
    assert same(dict(a), dict(b))
    assert res.metrics==second.metrics
    assert go().finished and calls[0]==45 # nothing left to do
    with pytest.raises(ConfigError, match='holds the run of another call'):
        finetune(trained.folder, photos, tmp_path/'run', options=quiet, **{**kw, 'epochs': 9})

def test_the_command(tmp_path, capsys):
    from clsnb.cli import main
    with pytest.raises(SystemExit) as e:
        main(['finetune', TINY, str(tmp_path/'nowhere')])
    err = capsys.readouterr().err
    assert e.value.code==2
    assert err.count('\n')==1
    assert 'there is no folder' in err
    main([
        'finetune', TINY, str(photos), '--work-dir', str(tmp_path/'run'), '--epochs', '1', '--size', '32',
        '--cfg-options', 'data.workers_per_gpu=0', 'results=False'
    ])
    out = capsys.readouterr().out
    assert 'from scratch' in out
    assert 'finished after 1 epoch' in out and 'best_f1_score_epoch_1.pth: accuracy_top-1' in out
    assert (tmp_path/'run/epoch_1.pth').exists()

# ---- Broken and missing pictures, weights that cannot be had, short names

def tiny_folder(root, n=6, classes=('Fische', 'Gebäude')):
    import cv2
    rs = np.random.RandomState(0)
    for c in classes:
        (root/c).mkdir(parents=True)
        for i in range(n):
            data = cv2.imencode('.png', rs.randint(0, 256, (40, 40, 3), np.uint8))[1]
            (root/c/f'{i}.png').write_bytes(data.tobytes())
    return root

def test_broken_pictures_are_left_out_and_a_missing_one_does_not_stop_a_resume(tmp_path, capsys):
    data = tiny_folder(tmp_path/'Meine Bilder')
    (data/'Fische/kaputt.png').write_bytes((data/'Fische/0.png').read_bytes()[:60])
    work = tmp_path/'run'
    quick = dict(epochs=2, options={'data.workers_per_gpu': 0, 'results': False}, device='cpu')
    finetune(TINY, data, work, **quick)
    out = capsys.readouterr().out
    assert '1 broken picture is left out' in out and 'kaputt' in (work/'broken.csv').read_text()
    names = (work/'train.txt').read_text()+(work/'val.txt').read_text()
    assert 'kaputt' not in names and names.count('\n')==12
    for part in ('train', 'val'):
        gone = (work/f'{part}.txt').read_text().splitlines()[0].rpartition(' ')[0]
        (data/gone).unlink()
    (work/'epoch_2.pth').unlink(missing_ok=True)
    finetune(TINY, data, work, **quick)
    out = capsys.readouterr().out
    assert out.count('pictures in')==2 and 'are gone and are left out' in out and '1 of ' in out
    metrics, scores, _, _ = evaluate_config(work, device='cpu')
    assert len(scores)==len((work/'val.txt').read_text().splitlines())>0 and 'accuracy_top-1' in metrics

def test_broken_pictures_of_folders_with_splits(tmp_path):
    for part in ('train', 'val'): tiny_folder(tmp_path/'x'/part)
    (tmp_path/'x/val/Fische/0.png').write_bytes(b'nothing')
    facts = picture_folders(tmp_path/'x', tmp_path/'run')
    assert facts.n==12 and facts.n_val==11 and '1 broken picture is left out' in facts.how
    assert 'ann_file' in facts.args['val'] and 'ann_file' not in facts.args['train'] and facts.args['test']==facts.args['val']

def test_published_weights_that_cannot_be_had_stop_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('CLSNB_ZOO', 'http://127.0.0.1:9/')
    monkeypatch.setenv('CLSNB_HOME', str(tmp_path/'home'))
    data = tiny_folder(tmp_path/'x')
    with pytest.raises(SystemExit) as e: main(['finetune', 'resnet18', str(data), '--work-dir', str(tmp_path/'run')])
    err = capsys.readouterr().err
    assert e.value.code==2 and err.count('\n')==1 and '--weights none' in err and 'resnet18_8xb32_in1k' in err
    for none in ('none', False):
        cfg = finetune_config('resnet18', data, tmp_path/f'run{none}', weights=none)
        assert cfg.load_from is None and cfg.model.backbone.depth==18

def test_the_reasons_are_a_table_and_the_config_is_shown_on_request(tmp_path, capsys):
    data = tiny_folder(tmp_path/'x')
    quick = dict(epochs=1, options={'data.workers_per_gpu': 0, 'results': False}, device='cpu')
    finetune(TINY, data, tmp_path/'a', **quick)
    out = capsys.readouterr().out
    assert 'model ' in out and 'with a head of 2 classes' in out and 'dict(' not in out.split('Epoch')[0]
    finetune(TINY, data, tmp_path/'b', show=True, **quick)
    assert 'dict(' in capsys.readouterr().out
    with pytest.raises(ConfigError, match='Delete the folder, .*--work-dir.* resume'):
        finetune(TINY, data, tmp_path/'b', seed=3, **quick)
