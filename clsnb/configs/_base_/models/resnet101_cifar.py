_base_ = './resnet50_cifar.py'

model = dict(backbone=dict(depth=101))
