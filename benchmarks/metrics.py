"""Seconds and memory of the metrics of many scores.

python benchmarks/metrics.py                       the default metrics of 1,000,000 samples x 1,000 classes (4 GB)
python benchmarks/metrics.py --samples 200000      of fewer
python benchmarks/metrics.py --metrics auroc mcc   others

Prints the seconds of each metric and of all, as `dataset.evaluate` computes them, and the peak of memory over that of
the scores. The marks of 1,000,000 x 1,000: under 10 s, under 1.2 times the memory of the scores.
"""
import argparse, resource, sys, time

import numpy as np

from clsnb.data.sets.dataset import BaseDataset
from clsnb.train.evaluation import evaluate_scores

defaults = ['accuracy', 'precision', 'recall', 'f1_score', 'support', 'loss']

class Labels(BaseDataset):
    "A data set that is labels alone"
    def __init__(self, labels, classes): self.labels, self.CLASSES = labels, range(classes)
    def get_gt_labels(self): return self.labels

def random_scores(n, c):
    "Probabilities, a few rows at a time, so that making them needs no more memory than they have"
    rng, labels = np.random.default_rng(0), np.random.default_rng(1).integers(0, c, n)
    scores = np.empty((n, c), np.float32)
    for start in range(0, n, 1000):
        part = rng.random((min(1000, n-start), c), np.float32)
        part[np.arange(len(part)), labels[start:start+1000]] += .9
        scores[start:start+1000] = part/part.sum(1, keepdims=True)
    return scores, labels

def peak():
    "The most memory that this process has had, in bytes"
    n = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return n if sys.platform=='darwin' else 1024*n

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--samples', type=int, default=1_000_000)
    parser.add_argument('--classes', type=int, default=1000)
    parser.add_argument('--metrics', nargs='+', default=defaults)
    args = parser.parse_args()
    empty = Labels(np.zeros(2, np.int64), 2)
    empty.evaluate(list(np.eye(2, dtype=np.float32)), args.metrics) # imports
    before = peak()
    scores, labels = random_scores(args.samples, args.classes)
    data = Labels(labels, args.classes)
    for name in args.metrics:
        start = time.perf_counter()
        found = data.evaluate(scores, name)
        shown = ', '.join(f'{k} {v:.4f}' for k, v in found.items())
        print(f'{time.perf_counter()-start:7.2f} s  {shown}', flush=True)
    start = time.perf_counter()
    evaluate_scores(scores, data, metric=args.metrics)
    print(f'{time.perf_counter()-start:7.2f} s  all of them at once, as a run does it')
    print(f'{(peak()-before)/scores.nbytes:7.2f} times the memory of the scores ({scores.nbytes/1e9:.1f} GB)')

if __name__=='__main__': main()
