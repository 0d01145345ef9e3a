"Accelerators of any kind, by a stand-in: this machine need not have one. What only the hardware can show is not here"
import json, os, socket, subprocess, sys
import pytest, torch
from clsnb.apis.finetune import finetune
from clsnb.apis.fit import fit
from clsnb.apis.predict import predict
from clsnb.apis.launch import launch
from clsnb.apis.open_model import init_model
from clsnb.apis.test import evaluate_config
from clsnb.cli import main, verbs
from clsnb.command_line import parse_words
from clsnb.config.config import Config
from clsnb.core.cores import cores_by_nearness, cores_of_process
from clsnb.core.devices import chosen_backend, chosen_device, default_device, device_backend, usable_device
from clsnb.core.errors import ConfigError

DIGITS = 'lenet5_1xb32_digits'

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

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
    predict=lambda folder, out, name: predict(folder, ['a.png'], device=name),
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

# ---- Flags of older documents of mmcls

def status(*words):
    "Exit status of a command line"
    try: return main([str(o) for o in words])
    except SystemExit as e: return e.code

@pytest.mark.parametrize('words, text', [
    ('--gpus 2', 'clsnb dist-train CONFIG 2'), ('--gpu-ids 0 1', 'clsnb dist-train CONFIG 2'),
    ('--ipu-replicas 4', 'Graphcore'), ('--ipu_replicas=4', 'Graphcore'), ('--gpus none', 'dist-train'),
])
def test_older_flags_say_what_to_use(words, text, capsys):
    assert status('train', DIGITS, *words.split())==2
    error = capsys.readouterr().err
    assert text in error and error.count('\n')==1

def test_older_flags_that_still_work(monkeypatch, tmp_path):
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    def values(line): return parse_words(verbs['train'], line.split())
    assert values('a.py --gpus 1 --work_dir w')==dict(cfg='a.py', work_dir='w')
    assert values('a.py --options seed=3 runner.max_epochs=1')['options']==['seed=3', 'runner.max_epochs=1']
    assert values('a.py --options a=1 --cfg-options b=2')['options']==['a=1', 'b=2']
    assert values('--gpu-id 1 a.py')==values('a.py --gpu-ids 1')==dict(cfg='a.py', device='cuda:1')
    assert values('a.py --local_rank=3')['launcher']=='pytorch' and os.environ['LOCAL_RANK']=='3'
    monkeypatch.delenv('LOCAL_RANK')

def test_ipus_in_a_config_are_told_by_check_and_fit(tmp_path, caplog):
    ipu = {'runner.ipu_model_cfg': dict(train_split_edges=[])}
    [row] = [o for o in Config.fromfile('vit-base-p16_ft-4xb544-ipu_in1k').check(False) if 'Graphcore' in str(o)]
    assert 'runner.ipu_model_cfg' in str(row)
    quick = {'runner.max_epochs': 1, 'data.workers_per_gpu': 0, 'results': False}
    fit(DIGITS, tmp_path/'run', quick | ipu, device='cpu')
    [log] = (tmp_path/'run').glob('*.log')
    assert [line for line in log.read_text().splitlines() if 'Graphcore' in line and 'runner.ipu_model_cfg' in line]

def test_the_old_launcher_of_torch(tmp_path):
    options = ['runner.max_epochs=1', 'data.workers_per_gpu=0', 'results=False', 'data.samples_per_gpu=64']
    command = [sys.executable, '-m', 'torch.distributed.launch', '--nproc_per_node=2',
               '--master_port', str(free_port()), '-m', 'clsnb', 'train', DIGITS, '--work-dir', tmp_path,
               '--device', 'cpu', '--cfg-options', *options]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=240)
    assert done.returncode==0, done.stderr[-3000:]
    rows = [json.loads(line) for line in next(tmp_path.glob('*.log.json')).read_text().splitlines()]
    assert len(list(tmp_path.glob('*.log.json')))==1 and any(row.get('mode')=='val' for row in rows)

# ---- Cores

@pytest.fixture
def server(tmp_path, monkeypatch):
    "Linux's description of two processors with four cores of two threads each; one core is somebody else's"
    for node,text in enumerate(('0-3,8-11', '4-7,12-15')):
        (tmp_path/f'node/node{node}').mkdir(parents=True)
        (tmp_path/f'node/node{node}/cpulist').write_text(f'{text}\n')
    for core in range(16):
        (tmp_path/f'cpu/cpu{core}/topology').mkdir(parents=True)
        (tmp_path/f'cpu/cpu{core}/topology/thread_siblings_list').write_text(f'{core%8},{core%8+8}\n')
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(16)), raising=False)
    return tmp_path

def test_shares_of_cores_stay_near_one_memory(server, monkeypatch):
    cores = cores_by_nearness(server)
    assert cores==[0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15]
    assert cores_of_process(0, 2, cores)==cores[:8] and cores_of_process(1, 2, cores)==cores[8:]
    assert [len(cores_of_process(i, 3, cores)) for i in range(3)]==[5, 5, 6]
    assert [cores_of_process(i, 3, [4, 7]) for i in range(3)]==[[4], [7], [4]]
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: {9, 4, 12, 1})
    assert cores_by_nearness(server)==[1, 9, 4, 12]
    assert cores_by_nearness(server/'nothing')==[1, 4, 9, 12]

def own_cores(): return sorted(os.sched_getaffinity(0))

@pytest.mark.skipif(not hasattr(os, 'sched_setaffinity'), reason='this system cannot bind processes to cores')
def test_processes_are_bound_to_their_share():
    shares = launch(own_cores, 2, pin_cores=True, backend='gloo')
    here = sorted(os.sched_getaffinity(0))
    assert sorted(set(sum(shares, [])))==here and (len(here)<2 or not set(shares[0]) & set(shares[1]))
    assert launch(own_cores, 1)==[here]

def test_a_system_that_cannot_bind_says_so(monkeypatch):
    monkeypatch.delattr(os, 'sched_setaffinity', raising=False)
    with pytest.raises(ConfigError, match='pin_cores'): launch(own_cores, 2, pin_cores=True)
