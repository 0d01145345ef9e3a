_base_ = './mvitv2-tiny.py'

model = dict(backbone=dict(arch='small', drop_path_rate=0.1))
