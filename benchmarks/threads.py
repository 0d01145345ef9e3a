"""Training on the CPU with two loading processes: a core for each of them, or all cores for torch's threads;
first on an otherwise idle machine, then beside as many busy processes as there are cores.

usage: threads.py [ROUNDS]
"""
import os, statistics, subprocess, sys

run = """
import tempfile, time
from clsnb.all import *
t = []
class Clock(Hook):
    def before_train_epoch(self, run): self.t = time.perf_counter()
    def after_train_epoch(self, run): t.append(time.perf_counter()-self.t)
HOOKS.register(Clock)
with tempfile.TemporaryDirectory() as d:
    changes = {'runner.max_epochs': 6, 'evaluation.interval': 99, 'evaluation.save_best': None}
    clock = [dict(type='Clock', priority='HIGHEST')]
    changes |= dict(results=False, log_level='ERROR', custom_hooks=clock, checkpoint_config=None)
    fit('resnet18-tiny_1xb16_photos', d, changes)
print(sum(t[1:])/len(t[1:]))
"""

def seconds(threads):
    env = (
        {k: v for k, v in os.environ.items() if k != 'OMP_NUM_THREADS'}
        | ({'OMP_NUM_THREADS': str(threads)} if threads else {})
    )
    return float(
        subprocess.run(
            [sys.executable, '-c', run], env=env, check=True, capture_output=True, text=True
        ).stdout.split()[-1]
    )

def main(rounds=3):
    for busy in (0, os.cpu_count()):
        others = [subprocess.Popen([sys.executable, '-c', 'while True: pass']) for _ in range(busy)]
        try:
            pairs = [(seconds(os.cpu_count()), seconds(None)) for _ in range(rounds)]
        finally: [o.kill() for o in others]
        a, b = (statistics.median(o) for o in zip(*pairs))
        print(
            f'{os.cpu_count()} cores, 2 workers, {busy} busy neighbours: all cores for threads {a:.2f} s an '
            f'epoch, shared {b:.2f} s, ratio {b/a:.2f}'
        )

if __name__ == '__main__': main(*map(int, sys.argv[1:]))
