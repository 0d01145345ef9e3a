_base_ = './efficientnet_b0.py'

model = dict(backbone=dict(arch='b6'), head=dict(in_channels=2304))
