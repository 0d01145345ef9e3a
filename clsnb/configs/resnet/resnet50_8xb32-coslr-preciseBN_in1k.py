_base_ = './resnet50_8xb32-coslr_in1k.py'

# BatchNorm's statistics are measured again after each epoch
custom_hooks = [dict(type='PreciseBNHook', num_samples=8192, interval=1, priority='ABOVE_NORMAL')]
