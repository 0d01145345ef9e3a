_base_ = './vit-base-p32.py'

model = dict(backbone=dict(arch='l'), head=dict(in_channels=1024))
