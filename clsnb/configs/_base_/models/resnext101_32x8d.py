_base_ = './resnext101_32x4d.py'

model = dict(backbone=dict(width_per_group=8))
