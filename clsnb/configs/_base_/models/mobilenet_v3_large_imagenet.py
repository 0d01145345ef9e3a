_base_ = './mobilenet_v3_small_imagenet.py'

model = dict(backbone=dict(arch='large'), head=dict(in_channels=960, mid_channels=[1280]))
