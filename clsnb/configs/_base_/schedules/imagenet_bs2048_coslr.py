_base_ = './imagenet_bs256_coslr.py'

optimizer = dict(lr=0.8, nesterov=True)
lr_config = dict(warmup='linear', warmup_iters=2500, warmup_ratio=0.25)
