_base_ = './deit-small-distilled_pt-4xb256_in1k.py'

model = dict(backbone=dict(arch='deit-base'), head=dict(in_channels=768))
data = dict(samples_per_gpu=64)
