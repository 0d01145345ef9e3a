_base_ = './resnest50.py'

model = dict(backbone=dict(depth=101, stem_channels=128))
