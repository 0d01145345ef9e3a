_base_ = './vgg11.py'

model = dict(backbone=dict(norm_cfg=dict(type='BN')))
