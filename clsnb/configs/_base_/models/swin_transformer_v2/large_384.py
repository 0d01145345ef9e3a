_base_ = './large_256.py'

model = dict(backbone=dict(img_size=384))
