"""How long `from clsnb.all import *` takes beside importing torch and torchvision alone, and beside its peers.

Fresh interpreters, taking turns so that a busy machine is busy for all; medians. usage: import_time.py [ROUNDS]
"""
import importlib.util, statistics, subprocess, sys

mark = 1.15
rows = {'import torch, torchvision': 'torch', 'from clsnb.all import *': 'clsnb',
        'from fastai.vision.all import *': 'fastai', 'import timm': 'timm'}
timed = "from time import perf_counter as now; t = now(); exec({!r}); print(now()-t)"

def seconds(stmt):
    return float(
        subprocess.run(
            [sys.executable, '-c', timed.format(stmt)], check=True, capture_output=True, text=True
        ).stdout.split()[-1]
    )

def medians(stmts, rounds):
    "The median time of each statement; one round before, uncounted, fills the file cache"
    for s in stmts: seconds(s)
    times = {s: [] for s in stmts}
    for _ in range(rounds):
        for s in stmts: times[s].append(seconds(s))
    return {s: statistics.median(t) for s, t in times.items()}

def main(rounds=7):
    took = medians([s for s, lib in rows.items() if importlib.util.find_spec(lib)], rounds)
    base, ours = list(took.values())[:2]
    for s, t in took.items(): print(f'{s:34}{t:7.2f} s{t/base:8.2f}x')
    print(f"mark {mark:.2f}x: {'met' if ours/base <= mark else 'missed'} ({ours/base:.2f}x)")
    return ours/base

if __name__ == '__main__': main(*map(int, sys.argv[1:]))
