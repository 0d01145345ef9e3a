"Accelerators of any kind, by a stand-in: this machine need not have one. What only the hardware can show is not here"
import json, os, subprocess, sys
import pytest, torch
from clsnb.apis.finetune import finetune
from clsnb.apis.fit import fit
from clsnb.apis.inference import predict_files
from clsnb.apis.open_model import init_model
from clsnb.apis.test import evaluate_config
from clsnb.core.devices import chosen_backend, chosen_device, default_device, device_backend, usable_device
from clsnb.core.errors import ConfigError

DIGITS = 'lenet5_1xb32_digits'

class StandIn:
    "Answers in the place of `torch.accelerator`"
    def __init__(self, kind, count):
        self.kind = kind
        self.count = count
    def is_available(self): return self.kind is not None
    def current_accelerator(self, check_available=False): return torch.device(self.kind)
    def device_count(self): return self.count

@pytest.fixture
def machine(monkeypatch):
    "Make torch find devices of a kind on this machine, for a process with a local rank"
    def make(kind, count=1, local_rank=None):
        monkeypatch.setattr(torch, 'accelerator', StandIn(kind, count))
        monkeypatch.delenv('LOCAL_RANK', raising=False)
        if local_rank is not None: monkeypatch.setenv('LOCAL_RANK', str(local_rank))
    return make

def one_line(error, *words):
    text = str(error.value)
    assert '\n' not in text and text.startswith('device: ') and len(text)<250, text
    for word in words: assert word in text, text

# ---- Which device is this process's

@pytest.mark.parametrize('kind', ['cuda', 'xpu', 'hpu', 'mtia'])
def test_the_local_rank_chooses_the_device_of_any_kind(kind, machine):
    machine(kind, 8, local_rank=3)
    assert default_device()==chosen_device()==chosen_device(kind)==torch.device(kind, 3)
    assert chosen_device(f'{kind}:5')==torch.device(kind, 5)
    assert chosen_device('cpu')==torch.device('cpu')
    machine(kind, 2, local_rank=3) # more processes than devices
    assert default_device()==torch.device(kind, 1)
    machine(kind, 1, local_rank=3) # a launcher that shows each process its own device
    assert default_device()==torch.device(kind, 0)

def test_one_process_takes_the_current_device_or_the_first(machine):
    machine('cuda', 4)
    assert default_device()==torch.device('cuda', 0)
    assert chosen_device('cuda')==torch.device('cuda') # the current one, as everywhere in torch
    machine('mps', 1)
    assert default_device().type=='mps' and usable_device('mps').type=='mps'
    machine(None)
    assert default_device()==torch.device('cpu')

# ---- Which library processes talk through

@pytest.mark.parametrize('kind, library', [('cuda', 'nccl'), ('xpu', 'xccl'), ('npu', 'hccl'), ('mlu', 'cncl')])
def test_each_kind_of_device_has_its_library(kind, library, monkeypatch):
    monkeypatch.setattr(torch.distributed, 'is_backend_available', lambda name: True)
    assert device_backend(kind)==library
    for named in (None, 'nccl', 'hccl', 'xccl'): assert chosen_backend(kind, named)==library
    for named in ('gloo', f'cpu:gloo,{kind}:{library}'): assert chosen_backend(kind, named)==named
    monkeypatch.setattr(torch.distributed, 'is_backend_available', lambda name: name=='gloo')
    assert device_backend(kind)=='gloo' # as NCCL on Windows

@pytest.mark.parametrize('kind', ['cpu', 'mps', 'unheard'])
def test_all_others_talk_through_gloo(kind):
    assert {chosen_backend(kind, named) for named in (None, 'nccl', 'hccl', 'gloo')}=={'gloo'}

# ---- A device that is not there

@pytest.mark.parametrize('name, words', [
    ('cuda', ['cuda']), ('cuda:1', ['cuda:1']), ('mps', ['Mac']), ('xpu', ['use cpu']), ('npu', ['torch_npu']),
    ('npu:3', ['npu:3', 'torch_npu']), ('mlu', ['torch_mlu']), ('ipu', ['Graphcore']), ('hpu', ['hpu']),
    ('gpu', ["'gpu' is not a device"]), ('cuba', ["Did you mean 'cuda'"]), ('cuda:x', ["'cuda:x'"]), ('', ['cpu']),
])
def test_an_absent_device_is_one_line(name, words, machine):
    machine(None)
    with pytest.raises(ConfigError) as error: chosen_device(name)
    one_line(error, *words)

def test_what_the_machine_has_is_named(machine):
    machine('xpu', 2)
    with pytest.raises(ConfigError) as error: usable_device('cuda')
    one_line(error, 'use xpu or cpu')
    with pytest.raises(ConfigError) as error: usable_device('xpu:2')
    one_line(error, 'this machine has 2')

def test_hidden_gpus_are_said(machine, monkeypatch):
    machine(None)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '-1')
    with pytest.raises(ConfigError) as error: usable_device('cuda')
    one_line(error, 'CUDA_VISIBLE_DEVICES=-1')

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "A work folder with a checkpoint"
    options = {'runner.max_epochs': 1, 'data.workers_per_gpu': 0, 'log_level': 'ERROR', 'results': False}
    return fit(DIGITS, tmp_path_factory.mktemp('run'), options, device='cpu').folder

CALLS = dict(
    fit=lambda folder, out, name: fit(DIGITS, out, device=name),
    finetune=lambda folder, out, name: finetune(DIGITS, 'clsnb/photos', out, device=name),
    test=lambda folder, out, name: evaluate_config(folder, device=name),
    predict=lambda folder, out, name: list(predict_files(folder, ['a.png'], device=name)),
    model=lambda folder, out, name: init_model(folder, device=name),
)

@pytest.mark.parametrize('name', ['cuda', 'xpu', 'npu', 'mlu:1', 'ipu'])
@pytest.mark.parametrize('call', CALLS)
def test_in_python_nothing_begins_on_an_absent_device(call, name, folder, tmp_path, machine):
    machine(None)
    with pytest.raises(ConfigError) as error: CALLS[call](folder, tmp_path/'out', name)
    one_line(error)
    assert not (tmp_path/'out').exists()

# ---- A kind that a package of its maker registers, as torch_npu does

MAKER = '''
import json, os, sys, types, torch
def numbered(device): return torch.device(device).index
chosen = []
npu = types.ModuleType('torch.npu')
npu.is_available = lambda: True
npu.device_count = lambda: 4
npu.current_device = lambda: chosen[-1] if chosen else 0
npu.set_device = lambda device: chosen.append(numbered(device))
npu.get_device_name = lambda device: 'Ascend 910 (stand-in)'
torch.utils.rename_privateuse1_backend('npu')
torch._register_device_module('npu', npu)
import torch.distributed as dist
dist.Backend.register_backend('hccl', lambda *a: None, devices=['npu'])
joined = {}
dist.init_process_group = lambda backend, **options: joined.update(backend=backend)
os.environ |= dict(RANK='6', WORLD_SIZE='8', LOCAL_RANK='2', MASTER_ADDR='127.0.0.1', MASTER_PORT='1')
from clsnb.core.devices import chosen_device, default_device, device_name, usable_device
from clsnb.core.dist import init_dist
init_dist('pytorch', backend='nccl', device='npu')
texts = [str(o) for o in (default_device(), chosen_device('npu'), usable_device('npu:3'))]
texts.append(device_name(chosen_device('npu:1')))
try: usable_device('npu:4')
except Exception as e: texts.append(str(e))
print(json.dumps([texts, chosen, joined]))
'''

def test_a_registered_kind_is_used_like_any_other():
    done = subprocess.run([sys.executable, '-c', MAKER], capture_output=True, text=True, timeout=120)
    assert done.returncode==0, done.stderr[-2000:]
    texts,chosen,joined = json.loads(done.stdout.splitlines()[-1])
    assert texts[:4]==['npu:2', 'npu:2', 'npu:3', 'Ascend 910 (stand-in)'] and 'this machine has 4' in texts[4]
    assert chosen==[2] and joined==dict(backend='hccl')

def test_a_package_of_a_maker_is_imported_when_its_device_is_named(tmp_path):
    (tmp_path/'torch_mlu.py').write_text(
        "import torch, types\nmlu = types.ModuleType('torch.mlu')\n"
        "mlu.is_available, mlu.device_count, mlu.current_device = (lambda: True), (lambda: 1), (lambda: 0)\n"
        "torch.utils.rename_privateuse1_backend('mlu')\ntorch._register_device_module('mlu', mlu)\n")
    code = "from clsnb.core.devices import usable_device\nprint(usable_device('mlu:0'))"
    env = os.environ | dict(PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]))
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120, env=env)
    assert done.stdout.strip()=='mlu:0', done.stderr[-2000:]
