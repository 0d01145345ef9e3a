_base_ = ['../_base_/datasets/photos.py', '../_base_/small_runtime.py']

model = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet', depth=18, stem_channels=16, base_channels=16),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', in_channels=128, num_classes=6, topk=(1, 5),
              loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1)))

optimizer = dict(type='AdamW', lr=2e-3, weight_decay=0.05)
optimizer_config = dict(grad_clip=dict(max_norm=5.0))
lr_config = dict(
    policy='CosineAnnealing', min_lr=1e-5, by_epoch=False, warmup='linear', warmup_iters=3, warmup_by_epoch=True)
runner = dict(type='EpochBasedRunner', max_epochs=40)
channels_last = True
