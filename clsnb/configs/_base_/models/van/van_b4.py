_base_ = './van_b2.py'

model = dict(backbone=dict(arch='b4', drop_path_rate=0.2))
