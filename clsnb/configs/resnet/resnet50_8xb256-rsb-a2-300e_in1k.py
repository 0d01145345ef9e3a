_base_ = [
    '../_base_/models/resnet50.py', '../_base_/datasets/imagenet_bs256_rsb_a12.py',
    '../_base_/schedules/imagenet_bs2048_rsb.py', '../_base_/default_runtime.py']

model = dict(
    backbone=dict(norm_cfg=dict(type='SyncBN', requires_grad=True), drop_path_rate=0.05),
    head=dict(loss=dict(use_sigmoid=True)),
    train_cfg=dict(augments=[
        dict(type='BatchMixup', alpha=0.1, num_classes=1000, prob=0.5),
        dict(type='BatchCutMix', alpha=1.0, num_classes=1000, prob=0.5)]))
sampler = dict(type='RepeatAugSampler')
runner = dict(max_epochs=300)
