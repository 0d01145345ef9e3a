_base_ = './resnest101.py'

model = dict(backbone=dict(depth=269))
