_base_ = './poolformer_s12.py'

model = dict(backbone=dict(arch='m48'), head=dict(in_channels=768))
