# 184 photographs that come with clsnb: 6 classes, short side 160 px, a fixed split
dataset_type = 'Photos'
img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', size=96, scale=(0.35, 1.0)),
    dict(type='RandomFlip', flip_prob=0.5, direction='horizontal'),
    dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4),
    dict(type='Normalize', **img_norm_cfg),
    dict(type='ImageToTensor', keys=['img']),
    dict(type='ToTensor', keys=['gt_label']),
    dict(type='Collect', keys=['img', 'gt_label'])]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', size=(110, -1)),
    dict(type='CenterCrop', crop_size=96),
    dict(type='Normalize', **img_norm_cfg),
    dict(type='ImageToTensor', keys=['img']),
    dict(type='Collect', keys=['img'])]
data = dict(
    samples_per_gpu=16, workers_per_gpu=2, train_dataloader=dict(drop_last=True),
    train=dict(type=dataset_type, split='train', pipeline=train_pipeline),
    val=dict(type=dataset_type, split='val', pipeline=test_pipeline),
    test=dict(type=dataset_type, split='val', pipeline=test_pipeline))
evaluation = dict(interval=1, metric='accuracy', save_best='auto')
