_base_ = './resnetv1d50.py'

model = dict(backbone=dict(depth=152))
