_base_ = [
    '../_base_/models/twins_pcpvt_base.py', '../_base_/datasets/imagenet_bs64_swin_224.py',
    '../_base_/schedules/imagenet_bs1024_adamw_swin.py', '../_base_/default_runtime.py']

data = dict(samples_per_gpu=128)
evaluation = dict(interval=1)

# mmcls wrote `_delete`, not `_delete_`: the key stays, and so do the inherited keys
paramwise_cfg = dict(_delete=True, norm_decay_mult=0., bias_decay_mult=0.)
optimizer = dict(paramwise_cfg=paramwise_cfg)
lr_config = dict(by_epoch=True, warmup_iters=5)
