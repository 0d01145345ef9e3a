_base_ = './convmixer-1536-20.py'

model = dict(backbone=dict(arch='1024/20'), head=dict(in_channels=1024))
