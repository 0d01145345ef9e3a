_base_ = './imagenet_bs256.py'

optimizer = dict(lr=0.003, weight_decay=0.0005, nesterov=True)
lr_config = dict(step=[40, 70, 90])
