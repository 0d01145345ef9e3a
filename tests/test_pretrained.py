"Real ImageNet weights: what they see, and what fine-tuning makes of them"
import subprocess, sys
import pytest

@pytest.mark.dev  # scikit-image has her picture
def test_chelsea_is_a_cat(pretrained_home):
    from skimage import data
    from torchvision.models import MobileNet_V2_Weights
    from clsnb.all import init_model, top_classes
    cfg = dict(
        model=dict(
            type='ImageClassifier',
            backbone=dict(type='MobileNetV2', widen_factor=1.0),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=1000, in_channels=1280),
        ),
        data=dict(
            test=dict(
                pipeline=[
                    dict(type='LoadImageFromFile'),
                    dict(type='Resize', size=(256, -1), backend='pillow'),
                    dict(type='CenterCrop', crop_size=224),
                    dict(
                        type='Normalize',
                        mean=[123.675, 116.28, 103.53],
                        std=[58.395, 57.12, 57.375],
                        to_rgb=True,
                    ),
                    dict(type='ImageToTensor', keys=['img']),
                    dict(type='Collect', keys=['img']),
                ]
            )
        ),
    )
    model = init_model(cfg, 'torchvision://mobilenet_v2')
    model.CLASSES = MobileNet_V2_Weights.IMAGENET1K_V1.meta['categories']
    best = lambda img: top_classes(model, img[..., ::-1].copy(), 1)[0][0]
    assert best(data.chelsea()) in ('tabby', 'tiger cat', 'Egyptian cat')
    assert best(data.coffee())=='espresso'

def test_fine_tuning_reaches_88(pretrained_home, tmp_path):
    r = subprocess.run(
        [
            sys.executable, '-m', 'clsnb', 'train', 'mobilenet-v2_1xb16-ft_photos', '--work-dir',
            str(tmp_path), '--cfg-options', 'results=False'
        ],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert r.returncode==0, r.stderr[-2000:]
    from clsnb.all import read_log
    log = read_log(tmp_path)
    assert log['accuracy_top-1'].dropna().iloc[-1] >= 88
