_base_ = './resnet50.py'

model = dict(backbone=dict(stem_channels=64, base_channels=128, expansion=2))
