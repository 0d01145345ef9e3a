_base_ = './imagenet_bs32.py'

dataset_type = 'ImageNet21k'
data = dict(
    samples_per_gpu=128,
    train=dict(type=dataset_type, data_prefix='data/imagenet21k/train', recursion_subdir=True),
    val=dict(type=dataset_type, data_prefix='data/imagenet21k/val', ann_file='data/imagenet21k/meta/val.txt',
             recursion_subdir=True),
    test=dict(type=dataset_type, data_prefix='data/imagenet21k/val', ann_file='data/imagenet21k/meta/val.txt',
              recursion_subdir=True))
