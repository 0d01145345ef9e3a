_base_ = './resnet34.py'

model = dict(neck=dict(type='GeneralizedMeanPooling'))
