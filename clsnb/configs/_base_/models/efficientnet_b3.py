_base_ = './efficientnet_b0.py'

model = dict(backbone=dict(arch='b3'), head=dict(in_channels=1536))
