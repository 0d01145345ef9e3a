_base_ = './resnetv1c50.py'

model = dict(backbone=dict(depth=152))
