_base_ = './imagenet_bs256.py'

lr_config = dict(step=[100, 150])
runner = dict(max_epochs=200)
