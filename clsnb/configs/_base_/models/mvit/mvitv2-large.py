_base_ = './mvitv2-tiny.py'

model = dict(backbone=dict(arch='large', drop_path_rate=0.5, dim_mul_in_attention=False), head=dict(in_channels=1152))
