_base_ = './regnetx-400mf_8xb128_in1k.py'

model = dict(backbone=dict(arch='regnetx_8.0gf'), head=dict(in_channels=1920))
data = dict(samples_per_gpu=64)
optimizer = dict(lr=0.4)
