_base_ = './efficientnet_b0.py'

model = dict(backbone=dict(arch='b5'), head=dict(in_channels=2048))
