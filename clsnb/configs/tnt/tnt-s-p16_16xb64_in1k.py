_base_ = [
    '../_base_/models/tnt_s_patch16_224.py', '../_base_/datasets/imagenet_bs32_pil_resize.py',
    '../_base_/default_runtime.py']

# Only testing has TNT's own preprocessing: mmcls has converted weights, and did not train
img_norm_cfg = dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5], to_rgb=True)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', size=(248, -1), interpolation='bicubic', backend='pillow'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='Normalize', **img_norm_cfg),
    dict(type='ImageToTensor', keys=['img']),
    dict(type='Collect', keys=['img'])]
data = dict(samples_per_gpu=64, workers_per_gpu=4, test=dict(pipeline=test_pipeline))

optimizer = dict(type='AdamW', lr=1e-3, weight_decay=0.05)
optimizer_config = dict(grad_clip=None)
lr_config = dict(
    policy='CosineAnnealing', min_lr=0, warmup='linear', warmup_iters=5, warmup_ratio=1e-3, warmup_by_epoch=True)
runner = dict(type='EpochBasedRunner', max_epochs=300)
