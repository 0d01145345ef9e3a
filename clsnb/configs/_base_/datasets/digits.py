# scikit-learn's 1,797 handwritten digits, 8x8 pixels enlarged to 32x32; a fixed split
dataset_type = 'Digits'
img_norm_cfg = dict(mean=[78.0], std=[96.0], to_rgb=False)
train_pipeline = [
    dict(type='Resize', size=32),
    dict(type='RandomCrop', size=32, padding=2),
    dict(type='Normalize', **img_norm_cfg),
    dict(type='ImageToTensor', keys=['img']),
    dict(type='ToTensor', keys=['gt_label']),
    dict(type='Collect', keys=['img', 'gt_label'], meta_keys=[])]
test_pipeline = [
    dict(type='Resize', size=32),
    dict(type='Normalize', **img_norm_cfg),
    dict(type='ImageToTensor', keys=['img']),
    dict(type='Collect', keys=['img'], meta_keys=[])]
data = dict(
    samples_per_gpu=32, workers_per_gpu=0,
    train=dict(type=dataset_type, split='train', pipeline=train_pipeline),
    val=dict(type=dataset_type, split='val', pipeline=test_pipeline),
    test=dict(type=dataset_type, split='val', pipeline=test_pipeline))
evaluation = dict(interval=1, metric='accuracy', save_best='auto')
