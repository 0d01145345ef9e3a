_base_ = [
    '../_base_/models/resnet50.py', '../_base_/datasets/stanford_cars_bs8_448.py',
    '../_base_/schedules/stanford_cars_bs8.py', '../_base_/default_runtime.py']

checkpoint = (
    'https://download.openmmlab.com/mmclassification/v0/'
    'resnet/resnet50_3rdparty-mill_in21k_20220331-faac000b.pth')
model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone')),
    head=dict(num_classes=196))
log_config = dict(interval=50)
checkpoint_config = dict(max_keep_ckpts=3)
