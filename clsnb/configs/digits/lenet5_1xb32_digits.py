_base_ = ['../_base_/datasets/digits.py', '../_base_/small_runtime.py']

model = dict(
    type='ImageClassifier',
    backbone=dict(type='LeNet5', num_classes=10),
    neck=None,
    head=dict(type='ClsHead', loss=dict(type='CrossEntropyLoss', loss_weight=1.0)))

optimizer = dict(type='AdamW', lr=3e-3, weight_decay=0.01)
optimizer_config = dict(grad_clip=None)
lr_config = dict(
    policy='CosineAnnealing', min_lr=0, by_epoch=False, warmup='linear', warmup_iters=1, warmup_by_epoch=True)
runner = dict(type='EpochBasedRunner', max_epochs=20)
