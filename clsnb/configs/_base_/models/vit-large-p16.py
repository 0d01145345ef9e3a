_base_ = './vit-large-p32.py'

model = dict(backbone=dict(patch_size=16))
