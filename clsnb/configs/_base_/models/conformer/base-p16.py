_base_ = './tiny-p16.py'

model = dict(backbone=dict(arch='base'), head=dict(in_channels=[1536, 576]))
