_base_ = './tiny_256.py'

model = dict(backbone=dict(arch='small', drop_path_rate=0.3))
