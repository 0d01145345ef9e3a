_base_ = './imagenet_bs256_coslr.py'

optimizer = dict(lr=0.01, weight_decay=0.0005, nesterov=True)
lr_config = dict(warmup='linear', warmup_iters=5, warmup_ratio=0.01, warmup_by_epoch=True)
