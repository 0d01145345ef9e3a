_base_ = './regnetx_400mf.py'

model = dict(backbone=dict(arch='regnetx_1.6gf'), head=dict(in_channels=912))
