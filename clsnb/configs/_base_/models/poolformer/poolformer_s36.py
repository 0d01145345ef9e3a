_base_ = './poolformer_s12.py'

model = dict(backbone=dict(arch='s36'))
