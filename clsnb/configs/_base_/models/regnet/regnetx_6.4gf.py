_base_ = './regnetx_400mf.py'

model = dict(backbone=dict(arch='regnetx_6.4gf'), head=dict(in_channels=1624))
