_base_ = './resnext50_32x4d.py'

model = dict(backbone=dict(depth=152))
