_base_ = './small-p16.py'

model = dict(backbone=dict(patch_size=32))
