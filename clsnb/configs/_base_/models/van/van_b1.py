_base_ = './van_b0.py'

model = dict(backbone=dict(arch='b1'), head=dict(in_channels=512))
