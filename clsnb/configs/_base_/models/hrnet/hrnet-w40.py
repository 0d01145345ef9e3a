_base_ = './hrnet-w18.py'

model = dict(
    backbone=dict(arch='w40'),
    neck=[
        dict(type='HRFuseScales', in_channels=(40, 80, 160, 320)),
        dict(type='GlobalAveragePooling')])
