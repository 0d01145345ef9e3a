"""What the Runner and its hooks cost: a step of LeNet, and of next to nothing, beside the same step in a bare loop; they take turns.
Then how long a checkpoint holds the run up.

usage: loop.py [ROUNDS]
"""
import statistics, sys, tempfile, time

import torch
from torch import nn
from clsnb.all import Runner, build_optimizer
from clsnb.apis.train import add_hooks
from clsnb.core.config import Config
from clsnb.core.registry import MODELS

steps = 200
cfg = Config(dict(optimizer=dict(type='SGD', lr=.01, momentum=.9), lr_config=dict(policy='CosineAnnealing', min_lr=0, by_epoch=False),
                  checkpoint_config=None, log_config=dict(interval=100, hooks=[dict(type='TextLoggerHook')])))
model = dict(type='ImageClassifier', backbone=dict(type='LeNet5', num_classes=10), head=dict(type='ClsHead', loss=dict(type='CrossEntropyLoss')))
batch = dict(img=torch.randn(32, 1, 32, 32), gt_label=torch.arange(32)%10)


class Nothing(nn.Module):
    "Two parameters: what is left is the loop"
    def __init__(self): super().__init__(); self.f = nn.Linear(1, 1)
    def forward(self, img, gt_label): return dict(loss=self.f(img).mean())
    def train_step(self, b, opt): loss = self(**b)['loss']; return dict(loss=loss, log_vars=dict(loss=loss.detach()), num_samples=len(b['img']))

kinds = {'LeNet': (lambda: MODELS.build(model), batch), 'nothing': (Nothing, dict(img=torch.ones(32, 1), gt_label=batch['gt_label']))}

def bare(kind):
    make,b = kinds[kind]; m = make(); opt = build_optimizer(m, cfg.optimizer); sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, steps); m.train()
    t = time.perf_counter()
    for _ in range(steps):
        loss = m(**b)['loss']; opt.zero_grad(); loss.backward(); opt.step(); sched.step()
    return (time.perf_counter()-t)/steps

def ours(kind):
    make,b = kinds[kind]; m = make(); run = Runner(m, build_optimizer(m, cfg.optimizer), max_epochs=1); run.logger.setLevel('ERROR'); add_hooks(run, cfg)
    t = time.perf_counter(); run.run([[b]*steps])
    return (time.perf_counter()-t)/steps

def stall():
    "Seconds to write a checkpoint of ResNet-50 with momentum, 196 MB"
    m = MODELS.build(dict(type='ResNet', depth=50)); opt = build_optimizer(m, cfg.optimizer)
    sum(p.sum() for p in m.parameters()).backward(); opt.step(); run = Runner(m, opt)
    with tempfile.TemporaryDirectory() as d: t = time.perf_counter(); run.save_checkpoint(f'{d}/a.pth'); return time.perf_counter()-t

def main(rounds=9):
    for kind in kinds:
        bare(kind); ours(kind); pairs = [(bare(kind), ours(kind)) for _ in range(rounds)]
        a,b = (statistics.median(o) for o in zip(*pairs))
        print(f'{kind}: bare loop {1e6*a:.0f} us a step, Runner with all its hooks {1e6*b:.0f} us: {1e6*(b-a):+.0f} us, ratio {b/a:.2f}')
    print(f'a checkpoint of ResNet-50 with momentum: {stall():.2f} s')

if __name__ == '__main__': torch.set_num_threads(1); main(*map(int, sys.argv[1:]))
