_base_ = './vgg13.py'

model = dict(backbone=dict(norm_cfg=dict(type='BN')))
