_base_ = './imagenet_bs32_pil_resize.py'

data = dict(samples_per_gpu=64)
