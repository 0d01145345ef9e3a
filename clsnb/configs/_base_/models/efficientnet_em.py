_base_ = './efficientnet_b0.py'

model = dict(backbone=dict(arch='em', act_cfg=dict(type='ReLU')))
