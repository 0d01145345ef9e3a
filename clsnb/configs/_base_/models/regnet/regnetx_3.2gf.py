_base_ = './regnetx_400mf.py'

model = dict(backbone=dict(arch='regnetx_3.2gf'), head=dict(in_channels=1008))
