_base_ = './cspdarknet50_8xb32_in1k.py'

model = dict(backbone=dict(type='CSPResNet', depth=50))
