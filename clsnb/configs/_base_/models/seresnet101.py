_base_ = './seresnet50.py'

model = dict(backbone=dict(depth=101))
