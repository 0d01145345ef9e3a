# Ours, for small runs: the newest two checkpoints stay
_base_ = './default_runtime.py'

checkpoint_config = dict(max_keep_ckpts=2)
