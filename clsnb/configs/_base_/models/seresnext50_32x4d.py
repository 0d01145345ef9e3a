_base_ = './resnet50.py'

model = dict(backbone=dict(type='SEResNeXt', groups=32, width_per_group=4, se_ratio=16))
