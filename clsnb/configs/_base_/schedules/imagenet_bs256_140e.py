_base_ = './imagenet_bs256.py'

lr_config = dict(step=[40, 80, 120])
runner = dict(max_epochs=140)
