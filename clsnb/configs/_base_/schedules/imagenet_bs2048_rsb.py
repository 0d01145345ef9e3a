optimizer = dict(
    type='Lamb', lr=0.005, weight_decay=0.02, paramwise_cfg=dict(bias_decay_mult=0., norm_decay_mult=0.))
optimizer_config = dict(grad_clip=None)
# 3130 iterations are five epochs
lr_config = dict(policy='CosineAnnealing', min_lr=1e-6, warmup='linear', warmup_iters=3130, warmup_ratio=1e-4)
runner = dict(type='EpochBasedRunner', max_epochs=100)
