_base_ = './seresnext50_32x4d.py'

model = dict(backbone=dict(depth=101))
