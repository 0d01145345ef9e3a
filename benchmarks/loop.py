"""What a training loop costs: microseconds per step of our Runner with its default hooks, of Lightning and of fastai
(where installed) over a bare PyTorch loop;
then how long a checkpoint of ResNet-50 holds training up.

usage: loop.py [--only TEXT] [--loops bare,again,ours,Lightning,fastai] [--rounds N] [--threads 1] [--device cpu]
[--precision float32|bfloat16] [--no-checkpoint]

All loops run in one process, each in a thread of its own, and one at a time: whoever asks its loader for a batch
gives the turn away, and the clock runs
from the moment the loader answers to the moment it is asked again. So a slow second of the machine hits all alike,
and everything that happens in a step
counts: hooks, logging, progress. A turn is one step of ResNet-50, and a block of steps where a step is tiny. Order
is drawn anew in every round.
Numbers are medians of differences within rounds, with a bootstrapped 95 % interval; `cpu` is the same by the
thread's own clock, which other processes on
the machine cannot slow by taking the core. `again` is a second bare loop: what it is off by is what cannot be told
from nothing.
All optimise with torch's SGD, change the rate by a cosine every step and log the loss every 50 steps.

Measured in November 2026, one thread of two shared CPU cores, torch 2.15, Lightning 2.6.6, fastai 2.8.12; median
over the bare loop [95 % interval]:
a model of two parameters (bare 157 us a step): again -2 us [-8, +1], ours +86 us [+81, +104], Lightning +934 us
[+897, +984], fastai +990 us [+983, +1,033];
a thin ResNet-50 (12.4 ms): again -117 us [-306, +135], ours +98 us [-69, +456], Lightning +1,392 us [+1,145,
+1,750], fastai +1,853 us [+1,575, +1,984].
ResNet-50 with 32 pictures of 64 pixels (1.07 s, 70 turns, another process on the other core): again +0.08 % [-2.71,
+1.42], ours -0.89 % [-3.11, +0.08], so
at most 0.1 % over bare. With 224 pixels a step takes 14 s there, 0.1 ms is 0.001 % of it; on a GPU with 15 ms a
step it would be 0.7 %. A checkpoint of it, 205 MB with its hash and on the disk, holds training up for 0.74 s;
torch.save alone takes 0.27 s.
"""
import argparse, contextlib, functools, importlib.util, logging, os, tempfile, threading, time
import types, warnings
import numpy as np, torch
from torch import nn
from clsnb.all import Runner, build_optimizer
from clsnb.apis.run_hooks import add_hooks
from clsnb.config.config import Config
from clsnb.core.io import sha256
from clsnb.core.registry import MODELS

log_every = 50
cfg = Config(dict(
    optimizer=dict(type='SGD', lr=.01, momentum=.9),
    lr_config=dict(policy='CosineAnnealing', min_lr=0, by_epoch=False),
    checkpoint_config=dict(interval=1),
    log_config=dict(interval=log_every, hooks=[dict(type='TextLoggerHook')]),
))

# ---- The work

class Nothing(nn.Module):
    "Two parameters: what is left is the loop"
    def __init__(self):
        super().__init__()
        self.f = nn.Linear(1, 1)
    def forward(self, img, gt_label): return dict(loss=self.f(img).mean())
    def train_step(self, b, opt):
        loss = self(**b)['loss']
        return dict(loss=loss, log_vars=dict(loss=loss.detach()), num_samples=len(b['img']))

def classifier(backbone, neck=None, **head):
    return lambda: MODELS.build(dict(
        type='ImageClassifier',
        backbone=backbone,
        neck=neck,
        head=dict(head, loss=dict(type='CrossEntropyLoss')),
    ))
lenet = classifier(dict(type='LeNet5', num_classes=10), type='ClsHead')
resnet50 = classifier(
    dict(type='ResNet', depth=50),
    dict(type='GlobalAveragePooling'),
    type='LinearClsHead',
    num_classes=1000,
    in_channels=2048,
)
thin = classifier(
    dict(type='ResNet', depth=50, base_channels=4, stem_channels=4),
    dict(type='GlobalAveragePooling'),
    type='LinearClsHead',
    num_classes=10,
    in_channels=128,
)
def images(*shape):
    return dict(img=torch.randn(*shape), gt_label=torch.arange(shape[0])%10)

#                          model     batch                        steps in a turn, rounds
works = {
    'nothing': (
        Nothing, lambda: dict(img=torch.ones(32, 1), gt_label=torch.arange(32)), 500, 60
    ),
    'LeNet, 32x32 pixels, batch 32': (lenet, lambda: images(32, 1, 32, 32), 20, 40),
    # all layers and 161 parameters of a ResNet-50, little arithmetic
    'ResNet-50, a 16th as wide, 32 pixels, batch 2': (thin, lambda: images(2, 3, 32, 32), 10, 40),
    'ResNet-50, 64 pixels, batch 32': (resnet50, lambda: images(32, 3, 64, 64), 1, 30),
    'ResNet-50, 224 pixels, batch 32': (resnet50, lambda: images(32, 3, 224, 224), 1, 8),
}

# ---- The loops; each is given a model, a loader and the options

def autocast(o):
    if o.precision=='bfloat16': return torch.autocast(o.device, torch.bfloat16)
    return contextlib.nullcontext()

def bare(model, loader, o):
    opt = build_optimizer(model, cfg.optimizer)
    sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, len(loader))
    model.train()
    for b in loader:
        with autocast(o): loss = model(**b)['loss']
        opt.zero_grad()
        loss.backward()
        opt.step()
        sched.step()

def ours(model, loader, o):
    with tempfile.TemporaryDirectory() as d:
        run = Runner(model, build_optimizer(model, cfg.optimizer), work_dir=d, max_epochs=1)
        run.save_checkpoint = lambda *a, **kw: None
        add_hooks(run, Config(cfg, fp16=dict(dtype='bfloat16')) if o.precision=='bfloat16' else cfg)
        run.run([loader])

def lightning(model, loader, o):
    import lightning as L
    from lightning.pytorch.loggers import CSVLogger
    for n in ('lightning.pytorch', 'lightning.fabric'):
        logging.getLogger(n).setLevel(logging.ERROR)
    class Module(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = model
        def training_step(self, b, i):
            loss = self.net(**b)['loss']
            self.log('loss', loss)
            return loss
        def configure_optimizers(self):
            opt = build_optimizer(self.net, cfg.optimizer)
            return dict(
                optimizer=opt,
                lr_scheduler=dict(
                    scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(opt, len(loader)), interval='step'
                ),
            )
    with tempfile.TemporaryDirectory() as d:
        L.Trainer(
            max_epochs=1,
            accelerator=dict(cuda='gpu').get(o.device, o.device),
            devices=1,
            logger=CSVLogger(d),
            log_every_n_steps=log_every,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            precision='bf16-mixed' if o.precision=='bfloat16' else '32-true',
        ).fit(Module(), loader)

def fastai(model, loader, o):
    from fastai.callback.schedule import ParamScheduler, SchedCos
    from fastai.learner import Learner
    from fastai.optimizer import OptimWrapper
    class Loss(nn.Module): # fastai calls the model with inputs, and a loss with targets
        def __init__(self):
            super().__init__()
            self.net = model
        def forward(self, img, gt_label): return self.net(img, gt_label=gt_label)['loss']
    class Triples:
        def __len__(self): return len(loader)
        def __iter__(self):
            return ((b['img'], b['gt_label'], b['gt_label']) for b in loader)
    class Both(types.SimpleNamespace):
        def __getitem__(self, i): return (self.train, self.valid)[i]
    data = Both(train=Triples(), valid=[], n_inp=2, device=torch.device(o.device))
    opt = functools.partial(OptimWrapper, opt=functools.partial(torch.optim.SGD, momentum=.9))
    learn = Learner(data, Loss(), lambda loss, y: loss, opt_func=opt, lr=.01, train_bn=True)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, cbs=ParamScheduler(dict(lr=SchedCos(.01, 0.))))

loops = dict(bare=bare, again=bare, ours=ours, Lightning=lightning, fastai=fastai)

# ---- Taking turns

class Own(threading.local): away = 0.
own,real = Own(),time.perf_counter
# for each loop, time stands still while others have their turn: some do things every few seconds
time.perf_counter = lambda: real()-own.away

class Turns:
    "A loader that gives the turn away after every `block` batches, and a clock"
    def __init__(self, batch, block, rounds, device):
        # one more batch: it stops the clock
        self.batch = batch
        self.block = block
        self.n = block*rounds+1
        self.device = device
        self.go = threading.Semaphore(0)
        self.done = threading.Semaphore(0)
        self.times = []
        self.error = None
    def __len__(self): return self.n
    def clocks(self):
        if self.device!='cpu': torch.accelerator.synchronize()
        return time.perf_counter(),time.thread_time()
    def __iter__(self):
        for i in range(self.n):
            if i%self.block==0:
                if i:
                    self.times.append([
                        (b-a)/self.block
                        for a,b in zip(self.start, self.clocks())
                    ])
                self.done.release()
                t = real()
                self.go.acquire()
                own.away += real()-t
                self.start = self.clocks()
            yield self.batch
    def run(self, loop, model, o):
        try: loop(model, self, o)
        except Exception as e: self.error = e
        finally: self.done.release()

def race(work, names, o):
    "Seconds per step of each loop in each round: wall clock and CPU time"
    make,batch,block,rounds = works[work]
    rounds = o.rounds or rounds
    b = {k: v.to(o.device) for k,v in batch().items()}
    turns,threads = {},[]
    for n in names:
        torch.manual_seed(0)
        m = make().to(o.device)
        t = turns[n] = Turns(b, block, rounds+1, o.device)
        threads.append(threading.Thread(target=t.run, args=(loops[n], m, o), daemon=True))
        threads[-1].start()
        t.done.acquire()
        if t.error: raise t.error
    order,rng = list(names),np.random.default_rng(0)
    for _ in range(rounds+1):
        rng.shuffle(order)
        for n in order:
            turns[n].go.release()
            turns[n].done.acquire()
            if turns[n].error: raise turns[n].error
    for n,th in zip(names, threads):
        turns[n].go.release()
        th.join()
    return {n: np.array(t.times[1:]) for n,t in turns.items()} # the first round warms up

def interval(x, rng=np.random.default_rng(0)):
    "Median with its bootstrapped 95 % interval"
    meds = np.median(rng.choice(x, (2000, len(x))), axis=1)
    return np.median(x),*np.percentile(meds, [2.5, 97.5])

def report(work, times):
    wall,cpu = ({n: t[:,k]*1e6 for n,t in times.items()} for k in (0, 1))
    base = np.median(wall['bare'])
    over = {}
    print(f"\n{work}: bare loop {base:,.0f} us a step (median of {len(wall['bare'])} turns)")
    for n in times:
        if n=='bare': continue
        (m,lo,hi),(c,clo,chi) = (
            interval(t[n]-t['bare'])
            for t in (wall, cpu)
        )
        over[n] = c
        print(
            f"  {n:10} {m:+10,.0f} us [{lo:+,.0f}, {hi:+,.0f}]  {m/base:+8.2%} [{lo/base:+.2%}, "
            f"{hi/base:+.2%}]   cpu {c:+9,.0f} us [{clo:+,.0f}, {chi:+,.0f}] {c/np.median(cpu['bare']):+.2%}",
            flush=True,
        )
    return over

# ---- Checkpoints

def stall(rounds=5):
    """Seconds that training stands still for a checkpoint of ResNet-50 with momentum, beside torch.save of the same,
    and where they go"""
    m = resnet50()
    opt = build_optimizer(m, cfg.optimizer)
    sum(p.sum() for p in m.parameters()).backward()
    opt.step()
    run = Runner(m, opt)
    t = []
    with tempfile.TemporaryDirectory(dir=os.environ.get('CLSNB_CKPT_DIR')) as d:
        for i in range(rounds+1):
            s = [time.perf_counter()]
            tick = lambda: s.append(time.perf_counter())
            run.save_checkpoint(f'{d}/a.pth')
            tick()
            torch.save(dict(state_dict=m.state_dict(), optimizer=opt.state_dict()), f'{d}/b.pth')
            tick()
            with open(f'{d}/b.pth', 'r+b') as f: os.fsync(f.fileno())
            tick()
            sha256(f'{d}/b.pth')
            tick()
            t.append(np.diff(s))
            size = os.path.getsize(f'{d}/a.pth')
    ours,plain,sync,sha = np.median(t[1:], axis=0)
    print(
        f"\na checkpoint of ResNet-50 with momentum, {size/1e6:.0f} MB: ours {ours:.2f} s; "
        f"torch.save alone {plain:.2f} s, its fsync {sync:.2f} s, its SHA-256 {sha:.2f} s"
    )

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--only', default='')
    p.add_argument('--loops', default=','.join(loops))
    p.add_argument('--rounds', type=int)
    p.add_argument('--threads', type=int, default=1)
    p.add_argument('--device', default='cpu')
    p.add_argument('--precision', default='float32', choices=['float32', 'bfloat16'])
    p.add_argument('--no-checkpoint', action='store_true')
    o = p.parse_args()
    torch.set_num_threads(o.threads)
    warnings.simplefilter('ignore')
    logging.getLogger('clsnb').setLevel(logging.ERROR)
    os.environ['CLSNB_LOG_LEVEL'] = 'ERROR'
    names = [
        'bare', 'again', 'ours',
        *(
            n
            for n in ('Lightning', 'fastai')
            if importlib.util.find_spec(n.lower()) and (n!='fastai' or o.precision=='float32')
        ),
    ]
    names = [n for n in names if n=='bare' or n in o.loops.split(',')]
    peers = [n for n in names if n in ('Lightning', 'fastai')]
    print(
        f"torch {torch.__version__}, {o.device}, {o.precision}, "
        f"{o.threads} thread{'s'*(o.threads>1)} of {os.cpu_count()} cores"
        + ''.join(f", {n} {importlib.import_module(n.lower()).__version__}" for n in peers)
    )
    for w in works:
        if o.only in w:
            over = report(w, race(w, names, o))
            if w.startswith('nothing') and peers and 'ours' in names:
                print(
                    '  mark: less than ' + ' and '.join(
                        f"{n}'s: {'met' if over['ours']<over[n] else 'missed'} "
                        f"({over['ours']/over[n]:.2f} of it)"
                        for n in peers
                    )
                )
    if not o.no_checkpoint: stall()

if __name__ == '__main__': main()
