_base_ = './imagenet_bs256.py'

optimizer = dict(lr=0.045, weight_decay=0.00004)
lr_config = dict(gamma=0.98, step=1)
runner = dict(max_epochs=300)
