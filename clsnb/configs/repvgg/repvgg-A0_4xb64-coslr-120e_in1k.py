_base_ = [
    '../_base_/models/repvgg-A0_in1k.py', '../_base_/datasets/imagenet_bs64_pil_resize.py',
    '../_base_/schedules/imagenet_bs256_coslr.py', '../_base_/default_runtime.py']

runner = dict(max_epochs=120)
