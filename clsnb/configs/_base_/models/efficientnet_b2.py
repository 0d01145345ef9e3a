_base_ = './efficientnet_b0.py'

model = dict(backbone=dict(arch='b2'), head=dict(in_channels=1408))
