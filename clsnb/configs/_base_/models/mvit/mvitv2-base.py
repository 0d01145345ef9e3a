_base_ = './mvitv2-tiny.py'

model = dict(backbone=dict(arch='base', drop_path_rate=0.3))
