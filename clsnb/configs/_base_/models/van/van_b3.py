_base_ = './van_b2.py'

model = dict(backbone=dict(arch='b3', drop_path_rate=0.2))
