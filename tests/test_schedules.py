"""Learning rates and momenta as the optimiser sees them in a real run, point by point equal to those of mmcls (facts
measured from it)"""
import gzip, json
from pathlib import Path

import pytest, torch
from torch import nn
from clsnb.all import HOOKS, Hook, Runner

curves = json.loads(gzip.decompress((Path(__file__).parent/'data/schedules.json.gz').read_bytes()))

class Watch(Hook):
    priority = 'LOWEST'
    def __init__(self): self.lr,self.momentum = [],[]
    def before_train_iter(self, run):
        gs = run.optimizer.param_groups
        self.lr.append([g['lr'] for g in gs])
        self.momentum.append([
            g.get('momentum', g.get('betas', (0,))[0])
            for g in gs
        ])

class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.zeros(1))
        self.b = nn.Parameter(torch.zeros(1))
    def train_step(self, batch, optimizer):
        return dict(loss=self.a.sum(), log_vars={}, num_samples=1)

def run(c):
    m = Toy()
    groups = [
        dict(params=[p], lr=lr)
        for p,lr in zip((m.a, m.b), c['base_lr'])
    ]
    if c['optimizer']=='adam':
        opt = torch.optim.Adam(groups, betas=(c['base_momentum'], .99))
    else:
        opt = torch.optim.SGD(groups, momentum=c['base_momentum'])
    r = Runner(m, opt, max_epochs=c['epochs'])
    w = Watch()
    r.register_hook(HOOKS.build(dict(type='LrUpdaterHook', **c['lr_config'])))
    r.register_hook(w)
    if c['momentum_config']:
        r.register_hook(HOOKS.build(dict(type='MomentumUpdaterHook', **c['momentum_config'])))
    r.epoch,r.iter = c['resume_epoch'],c['resume_epoch']*c['iters_per_epoch']
    r.run([[{}]*c['iters_per_epoch']])
    return w

@pytest.mark.parametrize('i', range(len(curves)), ids=lambda i: f"{i}-{curves[i]['lr_config']['policy']}")
def test_curve(i):
    c = curves[i]
    w = run(c)
    for name,got in (('lr', w.lr), ('momentum', w.momentum)):
        want = c[name]
        if not want or name=='momentum' and not c['momentum_config']: continue
        want = list(zip(*want)) if isinstance(want[0], list) else [[v]*2 for v in want]
        assert len(got)==len(want)
        for a,b in zip(got, want):
            assert a==pytest.approx(list(b), rel=1e-6, abs=1e-12)
