_base_ = './regnetx_400mf.py'

model = dict(backbone=dict(arch='regnetx_4.0gf'), head=dict(in_channels=1360))
