_base_ = './tiny-p16.py'

model = dict(backbone=dict(arch='small'), head=dict(in_channels=[1024, 384]))
