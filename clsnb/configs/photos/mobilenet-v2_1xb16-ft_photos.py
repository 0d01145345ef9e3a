_base_ = ['../_base_/datasets/photos.py', '../_base_/small_runtime.py']

# weights of ImageNet, a new head for six classes
model = dict(
    type='ImageClassifier',
    backbone=dict(type='MobileNetV2', widen_factor=1.0,
                  init_cfg=dict(type='Pretrained', checkpoint='torchvision://mobilenet_v2', prefix='backbone')),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', in_channels=1280, num_classes=6, topk=(1, 5),
              loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1)))

optimizer = dict(
    type='AdamW', lr=1e-3, weight_decay=0.05, paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.2)}))
optimizer_config = dict(grad_clip=dict(max_norm=5.0))
lr_config = dict(
    policy='CosineAnnealing', min_lr=1e-6, by_epoch=False, warmup='linear', warmup_iters=1, warmup_by_epoch=True)
runner = dict(type='EpochBasedRunner', max_epochs=8)
channels_last = True
