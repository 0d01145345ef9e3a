_base_ = './imagenet_bs32.py'

data = dict(samples_per_gpu=64)
