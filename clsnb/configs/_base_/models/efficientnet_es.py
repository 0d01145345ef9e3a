_base_ = './efficientnet_b0.py'

model = dict(backbone=dict(arch='es', act_cfg=dict(type='ReLU')))
