_base_ = './imagenet_bs256_coslr.py'

optimizer = dict(lr=0.8, weight_decay=5e-5)
lr_config = dict(warmup='linear', warmup_iters=5, warmup_ratio=0.1, warmup_by_epoch=True)
