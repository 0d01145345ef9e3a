"""What the Runner and its hooks cost: a step of a tiny model, beside the same step in a bare loop; they take turns.

usage: loop.py [ROUNDS]
"""
import statistics, sys, time

import torch
from clsnb.all import Runner, build_optimizer
from clsnb.apis.train import add_hooks
from clsnb.core.config import Config
from clsnb.core.registry import MODELS

steps = 200
cfg = Config(dict(optimizer=dict(type='SGD', lr=.01, momentum=.9), lr_config=dict(policy='CosineAnnealing', min_lr=0, by_epoch=False),
                  checkpoint_config=None, log_config=dict(interval=100, hooks=[dict(type='TextLoggerHook')])))
model = dict(type='ImageClassifier', backbone=dict(type='LeNet5', num_classes=10), head=dict(type='ClsHead', loss=dict(type='CrossEntropyLoss')))
batch = dict(img=torch.randn(32, 1, 32, 32), gt_label=torch.arange(32)%10)

def bare():
    m = MODELS.build(model); opt = build_optimizer(m, cfg.optimizer); sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, steps); m.train()
    t = time.perf_counter()
    for _ in range(steps):
        loss = m(**batch)['loss']; opt.zero_grad(); loss.backward(); opt.step(); sched.step()
    return (time.perf_counter()-t)/steps

def ours():
    m = MODELS.build(model); run = Runner(m, build_optimizer(m, cfg.optimizer), max_epochs=1); run.logger.setLevel('ERROR'); add_hooks(run, cfg)
    t = time.perf_counter(); run.run([[batch]*steps])
    return (time.perf_counter()-t)/steps

def main(rounds=9):
    bare(); ours(); pairs = [(bare(), ours()) for _ in range(rounds)]
    a,b = (statistics.median(o) for o in zip(*pairs))
    print(f'bare loop {1e6*a:.0f} us a step, Runner with all its hooks {1e6*b:.0f} us: {1e6*(b-a):+.0f} us, ratio {b/a:.2f}')

if __name__ == '__main__': torch.set_num_threads(1); main(*map(int, sys.argv[1:]))
