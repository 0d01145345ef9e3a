_base_ = './mlp_mixer_base_patch16.py'

model = dict(backbone=dict(arch='l'), head=dict(in_channels=1024))
