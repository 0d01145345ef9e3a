_base_ = './large_224.py'

model = dict(backbone=dict(img_size=384, stage_cfgs=dict(block_cfgs=dict(window_size=12))))
