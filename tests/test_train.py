"Training as a user starts it: processes, restarts, mistakes"
import json, os, subprocess, sys
from pathlib import Path

import numpy as np, pytest, torch

env = dict(os.environ, OMP_NUM_THREADS='1', MPLBACKEND='agg')
digits = [
    'train',
    'lenet5_1xb32_digits',
    '--cfg-options',
    'runner.max_epochs=2',
    'results=False',
    'data.train_dataloader.drop_last=True',
]

def clsnb(*args, procs=1, cwd=None, status=0):
    "Run the command; its standard output and error"
    if procs>1:
        launch = [
            '-m', 'torch.distributed.run', '--nproc-per-node', str(procs), '--master-port', '0',
            '--rdzv-backend', 'c10d', '--rdzv-endpoint', 'localhost:0'
        ]
    else:
        launch = []
    r = subprocess.run(
        [sys.executable, *launch, '-m', 'clsnb', *map(str, args)],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert r.returncode==status, (
        f'exit status {r.returncode}, not {status}\n{r.stdout[-2000:]}\n{r.stderr[-3000:]}'
    )
    return r.stdout,r.stderr

def val_rows(work_dir):
    return [
        r
        for p in sorted(Path(work_dir).glob('*.log.json'))
        for r in map(json.loads, p.read_text().splitlines())
        if r.get('mode')=='val'
    ]
def weights(path): return torch.load(path, weights_only=True)['state_dict']

def test_two_processes_are_one(tmp_path):
    "The same samples in each step, whether one process takes 32 or two take 16: only the order of float sums differs"
    clsnb(*digits, 'data.samples_per_gpu=32', '--work-dir', tmp_path/'one')
    clsnb(*digits, 'data.samples_per_gpu=16', '--work-dir', tmp_path/'two', '--launcher', 'pytorch', procs=2)
    one,two = val_rows(tmp_path/'one'),val_rows(tmp_path/'two')
    assert len(one)==len(two)==2 and one[-1]['accuracy_top-1'] > 50
    for a,b in zip(one, two):
        assert abs(a['accuracy_top-1']-b['accuracy_top-1']) < .2
        assert abs(a['loss']-b['loss']) < 1e-3
    a,b = weights(tmp_path/'one/latest.pth'),weights(tmp_path/'two/latest.pth')
    for k in a:
        torch.testing.assert_close(a[k], b[k], rtol=1e-2, atol=1e-3)

def test_killed_and_resumed_is_uninterrupted(tmp_path):
    "A run ended by SIGKILL and continued gives bit for bit the weights of one that was never stopped"
    photos = [
        'train', 'resnet18-tiny_1xb16_photos', '--cfg-options', 'runner.max_epochs=3', 'results=False',
        'evaluation.save_best=None'
    ]
    clsnb(*photos, '--work-dir', tmp_path/'whole')
    code = (
        "import os, signal\nfrom clsnb.all import *\n@HOOKS.register\nclass "
        "Kill(Hook):\n    def before_train_iter(self, run):\n"
        "        if run.epoch==2 and run.inner_iter==3: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"fit('resnet18-tiny_1xb16_photos', {str(tmp_path/'cut')!r}, {{'runner.max_epochs': 3, 'results': "
        f"False, 'evaluation.save_best': None, 'custom_hooks': [dict(type='Kill')]}})"
    )
    assert subprocess.run([sys.executable, '-c', code], env=env, capture_output=True).returncode==-9
    assert not (tmp_path/'cut/epoch_3.pth').exists()
    out,_ = clsnb(*photos, '--work-dir', tmp_path/'cut', '--resume-from', 'auto')
    assert 'Resumed from' in out
    a,b = weights(tmp_path/'whole/epoch_3.pth'),weights(tmp_path/'cut/epoch_3.pth')
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert val_rows(tmp_path/'whole')[-1]==val_rows(tmp_path/'cut')[-1]

def test_new_process_gives_the_number_of_training(tmp_path):
    clsnb(*digits, '--work-dir', tmp_path)
    out,_ = clsnb('test', tmp_path, '--out', tmp_path/'res.json')
    res = json.loads((tmp_path/'res.json').read_text())
    trained = val_rows(tmp_path)[-1]
    best = max(r['accuracy_top-1'] for r in val_rows(tmp_path))
    assert f"accuracy_top-1: {best:.4f}" in out and abs(res['metrics']['accuracy_top-1']-best) < 1e-4
    out,_ = clsnb('test', 'lenet5_1xb32_digits', tmp_path/'epoch_2.pth')
    assert f"accuracy_top-1: {trained['accuracy_top-1']:.4f}" in out and f"loss: {trained['loss']:.4f}" in out
    assert np.array(res['class_scores']).shape==(539, 10)

mistakes = { # command line -> what the one line must say
    'train lenet5_1xb32_digit': ["no packaged config", "'lenet5_1xb32_digits'"],
    'train lenet5_1xb32_digits --cfg-options optimiser.lr=1': ["'optimiser'", "'optimizer'"],
    'train lenet5_1xb32_digits --cfg-options data.sample_per_gpu=1': ["'sample_per_gpu'", "'samples_per_gpu'"],
    'train lenet5_1xb32_digits --cfg-options model.backbone.type=LeNet6': ["'LeNet6'", "'LeNet5'"],
    'train resnet18-tiny_1xb16_photos --cfg-options model.head.num_classes=10': ['num_classes is 10', '6 classes'],
    'train lenet5_1xb32_digits --cfg-options model.backbone.num_classes=7': ['num_classes is 7', '10 classes'],
    'train {cfg} --cfg-options data.train.data_prefix=nowhere': ['nowhere'],
    'train {cfg} --no-validate': ['broken.jpg'],
    'train {cfg}': ['val.txt', 'there are 2 classes'],
    'test lenet5_1xb32_digits {other}': ['does not fit', 'another architecture'],
    'test lenet5_1xb32_digits nowhere.pth': ["'nowhere.pth'"],
    'predict {other} nowhere.jpg': ['nowhere.jpg'],
}

@pytest.fixture(scope='module')
def places(tmp_path_factory):
    "A folder data set with a broken picture, its config, and a checkpoint of some other model"
    from clsnb.all import Config, MODELS, photo_path, save_checkpoint
    import shutil
    d = tmp_path_factory.mktemp('mistakes')
    for c,n in (('cat', 'animal/cat.jpg'), ('fish', 'fish/fish1.jpg')):
        (d/'pics'/c).mkdir(parents=True)
        shutil.copy(photo_path(n), d/'pics'/c/'a.jpg')
    (d/'pics/fish/broken.jpg').write_bytes(b'no picture')
    (d/'mine.py').write_text(
        f"_base_ = 'resnet18-tiny_1xb16_photos'\nd = {str(d/'pics')!r}\nmodel = "
        "dict(head=dict(num_classes=2))\n"
        "data = dict(samples_per_gpu=3, workers_per_gpu=1, train=dict(_delete_=True, type='CustomDataset', "
        "data_prefix=d, pipeline=[dict(type='LoadImageFromFile'),"
        "dict(type='Resize', size=(32, 32)), dict(type='Normalize', mean=[0., 0., 0.], std=[1., 1., 1.]), "
        "dict(type='ImageToTensor', keys=['img']), "
        "dict(type='ToTensor', keys=['gt_label']), dict(type='Collect', keys=['img', 'gt_label'])]))\n"
    )
    cfg = Config.fromfile('resnet18-tiny_1xb16_photos')
    m = MODELS.build(cfg.model)
    save_checkpoint(m, d/'other.pth', meta=dict(config=cfg.pretty_text, CLASSES=('a',)*6))
    return dict(cfg=d/'mine.py', other=d/'other.pth')

@pytest.mark.parametrize('line', mistakes)
def test_a_mistake_is_one_line(line, places, tmp_path):
    out,err = clsnb(*line.format(**places).split(), cwd=tmp_path, status=2)
    lines = [o for o in err.splitlines() if 'Warning' not in o and o.strip()]
    assert len(lines)==1 and lines[0].startswith('clsnb: '), err
    for part in mistakes[line]: assert part in lines[0], lines[0]

def test_digits_reach_98(tmp_path):
    clsnb('train', 'lenet5_1xb32_digits', '--work-dir', tmp_path)
    assert val_rows(tmp_path)[-1]['accuracy_top-1'] >= 98
    assert (tmp_path/'report.html').stat().st_size > 20_000

def test_demo_beats_the_baseline(tmp_path, monkeypatch):
    "From nothing, offline: clearly above always naming the commonest class, and saying so"
    e = dict(
        env,
        TORCH_HOME=str(tmp_path/'empty'),
        HTTPS_PROXY='http://127.0.0.1:9',
        https_proxy='http://127.0.0.1:9',
    )
    r = subprocess.run(
        [sys.executable, '-m', 'clsnb', 'demo', '--work-dir', str(tmp_path/'demo')],
        env=e,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert r.returncode==0, r.stderr[-2000:]
    last = val_rows(tmp_path/'demo/scratch')[-1]
    assert last['accuracy_top-1'] > 60
    assert "always saying 'building': 40.7 %" in r.stdout
    assert 'Left out' in r.stdout
    page = (tmp_path/'demo/scratch/report.html').read_text()
    assert 'http://' not in page.replace('http://www.w3.org', '') and 'src="http' not in page
