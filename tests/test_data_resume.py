"""The same training batches, whoever loads them, and on both sides of a resume from a checkpoint written in mid-epoch.

Every batch that reaches the model is hashed: pixels after all random transforms, labels, and which samples they are.
"""
import hashlib, json, os, subprocess, sys
from pathlib import Path
import pytest, torch
from clsnb.apis.fit import fit
from clsnb.core.registry import HOOKS, MODELS
from clsnb.layers.module import BaseModule
from clsnb.train.checkpoint_hook import latest_checkpoint
from clsnb.train.hooks import Hook

@MODELS.register
class LinearOfMeans(BaseModule):
    "Enough of a model"
    def __init__(self):
        super().__init__()
        self.f = torch.nn.Linear(3, 6)
    def train_step(self, b, opt):
        loss = torch.nn.functional.cross_entropy(
            self.f(b['img'].mean((2, 3))), b['gt_label']
        )
        return dict(loss=loss, log_vars=dict(loss=loss.detach()), num_samples=len(b['img']))

@HOOKS.register
class HashHook(Hook):
    "Keep the hash of every batch; stop hard before iteration `end`, like a machine that is switched off"
    priority = 'HIGHEST'
    def __init__(self, out, end=None):
        self.out,self.end,self.seen = Path(out),end,{}
    def before_train_iter(self, runner):
        if runner.iter==self.end:
            os._exit(9) if self.out.suffix=='.die' else self.leave()
        b = runner.data_batch
        h = hashlib.sha256(
            b['img'].numpy().tobytes()
            + b['gt_label'].numpy().tobytes()
            + repr([o['ori_filename'] for o in b['img_metas']]).encode()
        ).hexdigest()
        self.seen[runner.iter] = runner.epoch,runner.inner_iter,h
        self.out.write_text(json.dumps(self.seen))
    def leave(self): raise SwitchedOff

class SwitchedOff(BaseException): pass
pytestmark = pytest.mark.filterwarnings('ignore:This DataLoader will create')

steps = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', size=24),
    dict(type='RandomFlip'),
    dict(type='ColorJitter', brightness=.4, contrast=.4, saturation=.4),
    dict(type='RandomErasing', mode='rand', erase_prob=.5),
    dict(type='Normalize', mean=[0, 0, 0], std=[255, 255, 255]),
    dict(type='ImageToTensor', keys=['img']),
    dict(type='Collect', keys=['img', 'gt_label']),
]
per_epoch,per_checkpoint,whole_run = 14,5,28 # 54 photographs in batches of 4; checkpoints in mid-epoch; two epochs

def config(out, workers=0, method=None, end=None):
    how = dict(multiprocessing_context=method) if workers else {}
    return dict(
        model=dict(type='LinearOfMeans'),
        seed=4,
        optimizer=dict(type='SGD', lr=.1, momentum=.9),
        lr_config=dict(policy='CosineAnnealing', min_lr=0, by_epoch=False),
        data=dict(
            samples_per_gpu=4,
            workers_per_gpu=workers,
            train=dict(type='Photos', split='val', pipeline=steps),
            train_dataloader=how,
        ),
        runner=dict(type='EpochBasedRunner', max_epochs=2),
        checkpoint_config=dict(interval=per_checkpoint, by_epoch=False),
        log_config=dict(interval=50, hooks=[dict(type='TextLoggerHook')]),
        log_level='ERROR',
        custom_hooks=[dict(type='HashHook', out=str(out), end=end)],
    )

def go(folder, name, **kw):
    "Train in `folder`, from its newest checkpoint if it has one; the hashes, and the weights or None"
    out = Path(folder)/name
    try:
        run = fit(config(out, **kw), str(folder), validate=False, resume_from='auto', device='cpu').runner
    except SwitchedOff: run = None
    return (
        {int(k): tuple(v) for k,v in json.loads(out.read_text()).items()},
        run and run.model.state_dict(),
    )

@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    seen,weights = go(tmp_path_factory.mktemp('whole'), 'h')
    assert list(seen)==list(range(whole_run))
    assert len({v[2] for v in seen.values()})==whole_run
    assert seen[per_epoch][:2]==(1, 0)
    return seen,weights

def check(whole, before, after, weights, first):
    seen,end = whole
    assert list(before)==list(range(len(before)))
    assert all(before[k]==seen[k] for k in before)
    assert list(after)==list(range(first, whole_run)) and all(after[k]==seen[k] for k in after)
    assert weights is None or all(torch.equal(weights[k], end[k]) for k in end)

loading = {
    'here': dict(),
    'fork 1': dict(workers=1, method='fork'),
    'spawn 4': dict(workers=4, method='spawn'),
    'forkserver 1': dict(workers=1, method='forkserver'),
    'fork 4': dict(workers=4, method='fork'),
    'spawn 1': dict(workers=1, method='spawn'),
}

@pytest.mark.parametrize(
    'before,after,end',
    [
        (b, a, e)
        for b,a,e in zip(
            loading, [*list(loading)[1:], 'here'], [8, 12, 18, 8, 24, 12]
        )
    ],
)
def test_resume_in_mid_epoch(before, after, end, whole, tmp_path):
    "Each way of loading once before a resume and once after it, with another way on the other side"
    one,none = go(tmp_path, 'before', end=end, **loading[before])
    assert none is None and len(one)==end
    kept = int(latest_checkpoint(tmp_path).stem.split('_')[1])
    assert kept==end//per_checkpoint*per_checkpoint
    assert kept%per_epoch
    two,weights = go(tmp_path, 'after', **loading[after])
    check(whole, one, two, weights, kept)

def test_the_same_way_on_both_sides(whole, tmp_path):
    one,_ = go(tmp_path, 'before', end=17, **loading['fork 4'])
    check(whole, one, *go(tmp_path, 'after', **loading['fork 4']), 15)

def test_in_new_processes(whole, tmp_path):
    "A process that ends without a word, and a new one with another number of workers"
    code = (
        'import sys; sys.path.insert(0, sys.argv[1]); import test_data_resume as t; print(t.go(sys.argv[2], '
        'sys.argv[3], workers=int(sys.argv[4]), method="fork", end=int(sys.argv[5]) or None) and "done")'
    )
    def new(*a):
        return subprocess.run(
            [sys.executable, '-c', code, Path(__file__).parent, tmp_path, *map(str, a)],
            env=dict(os.environ, OMP_NUM_THREADS='1'),
            capture_output=True,
            text=True,
            timeout=300,
        )
    p = new('before.die', 2, 19)
    assert p.returncode==9, p.stderr[-2000:]
    p = new('after', 0, 0)
    assert p.returncode==0 and 'done' in p.stdout, p.stderr[-2000:]
    one,two = (
        {
            int(k): tuple(v)
            for k,v in json.loads((tmp_path/n).read_text()).items()
        }
        for n in ('before.die', 'after')
    )
    check(whole, one, two, None, 15)
    end = torch.load(tmp_path/f'iter_{whole_run}.pth', weights_only=True)['state_dict']
    assert all(torch.equal(end[k], v) for k,v in whole[1].items())
