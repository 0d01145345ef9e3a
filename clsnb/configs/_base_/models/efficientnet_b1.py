_base_ = './efficientnet_b0.py'

model = dict(backbone=dict(arch='b1'))
