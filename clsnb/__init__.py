"Image classification in notebooks: everything MMClassification 0.25 does, on today's PyTorch"
import os, sys

__version__ = "0.1.0"

# On the CPU, torch's threads wait for each other by spinning. Beside loading processes, or anything else that is busy,
# that makes training many times slower (benchmarks/threads.py); sleeping costs next to nothing. Only read when torch starts.
if 'torch' not in sys.modules: os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
