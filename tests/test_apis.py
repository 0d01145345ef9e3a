"What a config says of its loaders arrives there; what a folder of one's own pictures needs on the command line"
import shutil, subprocess, sys
from pathlib import Path
import cv2, pytest, torch

import clsnb
from clsnb.apis.train import fit, loader_args, set_backends
from clsnb.cli import main
from clsnb.core.config import Config
from clsnb.core.errors import ConfigError, DataError
from clsnb.data.loader import build_dataloader
from clsnb.data.packaged import Digits

photos = Path(clsnb.__file__).parent/'photos'
TINY, quiet = 'resnet18-tiny_1xb16_photos', {'data.workers_per_gpu': 0, 'log_level': 'ERROR', 'results': False, 'runner.max_epochs': 1}

@pytest.fixture(autouse=True)
def one_thread():
    n = torch.get_num_threads(); torch.set_num_threads(1); yield; torch.set_num_threads(n)

def config(data=(), **top): return Config(dict(data=dict(samples_per_gpu=8, workers_per_gpu=1, **dict(data)), **top))

# ---- Loaders

def test_all_that_data_says_of_loaders_arrives():
    cfg = config(dict(timeout=9, max_broken=.2, drop_last=True, seed=5, val_dataloader=dict(timeout=3)))
    train, val = loader_args(cfg, 'train'), loader_args(cfg, 'val')
    assert (train['timeout'], train['max_broken'], train['drop_last'], train['seed'], train['shuffle']) == (9, .2, True, 5, True)
    assert val['timeout']==3 and not val['shuffle'] and not val.keys() & {'drop_last', 'max_broken'}

@pytest.mark.parametrize('name', ['resnet50_8xb256-rsb-a1-600e_in1k', 'resnet50_8xb256-rsb-a2-300e_in1k'])
def test_packaged_sampler_is_used(name):
    cfg = Config.fromfile(name)
    loader = build_dataloader(Digits(), **loader_args(cfg, 'train') | dict(workers_per_gpu=0))
    assert type(loader.sampler).__name__=='RepeatAugSampler' and 'sampler_cfg' not in loader_args(cfg, 'val')

@pytest.mark.parametrize('method', ['spawn', 'forkserver'])
def test_start_method(method):
    cfg = config(mp_start_method=method)
    assert all(loader_args(cfg, k)['multiprocessing_context']==method for k in ('train', 'val', 'test'))
    assert build_dataloader(Digits(), **loader_args(cfg, 'train')).loader.multiprocessing_context.get_start_method()==method

def test_half_bytes_only_where_the_network_takes_them():
    with pytest.raises(ConfigError, match=r"fp16 = dict\(dtype='bfloat16'\)"): loader_args(config(dict(device_normalize='bfloat16')), 'train')
    cfg = config(dict(device_normalize='bfloat16'), fp16=dict(dtype='bfloat16'))
    assert [loader_args(cfg, k)['device_normalize'] for k in ('train', 'val', 'test')] == ['bfloat16', True, True]

def test_judged_pictures_are_not_left_out():
    with pytest.raises(ConfigError, match=r"data\.val_dataloader\.max_broken.*clsnb verify"): loader_args(config(dict(val_dataloader=dict(max_broken=.5))), 'val')

def test_opencv_threads():
    n = cv2.getNumThreads()
    try: set_backends(Config(dict(opencv_num_threads=1))); assert cv2.getNumThreads()==1
    finally: cv2.setNumThreads(n)

def test_half_run_can_be_tested(tmp_path, capsys):
    fit(TINY, tmp_path/'run', quiet | {'fp16': dict(dtype='bfloat16'), 'data.device_normalize': 'bfloat16'}, device='cpu')
    main(['test', str(tmp_path/'run'), '--device', 'cpu'])
    assert 'accuracy_top-1' in capsys.readouterr().out
