_base_ = './res2net50-w26-s4.py'

model = dict(backbone=dict(scales=8))
