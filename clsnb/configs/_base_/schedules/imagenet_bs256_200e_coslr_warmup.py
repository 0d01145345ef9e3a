_base_ = './imagenet_bs256_coslr.py'

# 25025 iterations are five epochs
lr_config = dict(warmup='linear', warmup_iters=25025, warmup_ratio=0.25)
runner = dict(max_epochs=200)
