_base_ = [
    '../_base_/models/t2t-vit-t-19.py', '../_base_/datasets/imagenet_bs64_t2t_224.py',
    '../_base_/default_runtime.py']

paramwise_cfg = dict(norm_decay_mult=0., bias_decay_mult=0., custom_keys={'cls_token': dict(decay_mult=0.)})
optimizer = dict(type='AdamW', lr=5e-4, weight_decay=0.065, paramwise_cfg=paramwise_cfg)
optimizer_config = dict(grad_clip=None)
lr_config = dict(
    policy='CosineAnnealingCooldown', min_lr=1e-5, cool_down_time=10, cool_down_ratio=0.1, by_epoch=True,
    warmup='linear', warmup_iters=10, warmup_ratio=1e-6, warmup_by_epoch=True)
runner = dict(type='EpochBasedRunner', max_epochs=310)
custom_hooks = [dict(type='EMAHook', momentum=4e-5, priority='ABOVE_NORMAL')]
