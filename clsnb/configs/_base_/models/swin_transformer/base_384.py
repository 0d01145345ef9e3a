_base_ = './large_384.py'

model = dict(backbone=dict(arch='base'), head=dict(in_channels=1024))
