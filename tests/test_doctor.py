"What `doctor` says about machines that are not in order"
import json, shutil
from collections import namedtuple
from pathlib import Path
import pytest, torch
from packaging.requirements import Requirement
from clsnb.apis import doctor as module
from clsnb.cli import main
from clsnb.apis.doctor import Check, Examination, cores_given, doctor, releases_that_were_tested

root = Path(__file__).resolve().parents[1]
Usage = namedtuple('Usage', 'total used free')

def found(name, examination=None):
    "The check of that name"
    [check] = [o for o in examination or doctor() if o.name==name]
    return check

def is_problem(name, *words):
    check = found(name)
    assert check.level=='problem' and check.remedy, check
    for word in words: assert word in f'{check.value} {check.remedy}', check

def test_a_machine_that_runs_these_tests_has_its_packages():
    examination = doctor()
    assert {o.part for o in examination}>={'versions', 'devices', 'disk', 'cores', 'front end', 'decoding'}
    assert all(bool(o.remedy)==(o.level!='ok') for o in examination)
    assert not [o for o in examination.problems if o.part=='versions']
    assert list(examination.table().columns)==['part', 'name', 'value', 'level', 'remedy']

def test_the_tested_releases_are_in_the_package():
    text = (root/'constraints.txt').read_text(encoding='utf-8')
    assert (root/'clsnb/tested.txt').read_text(encoding='utf-8')==text
    assert all(f'{name}=={version}' in text for name,version in releases_that_were_tested().items())

@pytest.mark.parametrize('need, level, words', [
    ('nothing-of-that-name>=1', 'problem', 'missing'), ('torch>=99', 'problem', "pip install 'torch>=99'"),
    ('torch>=2', 'note', 'pip install torch==99.0'), ('numpy>=1', 'ok', ''),
])
def test_packages(need, level, words, monkeypatch):
    monkeypatch.setattr(module, '_requirements', lambda: [Requirement(need)])
    monkeypatch.setattr(module, 'releases_that_were_tested', lambda: dict(torch='99.0', numpy='0.1'))
    check = found(Requirement(need).name)
    assert check.level==level and words in f'{check.value} {check.remedy}'

def test_a_container_with_little_shared_memory(monkeypatch):
    real = shutil.disk_usage
    def usage(path): return Usage(64<<20, 0, 60<<20) if str(path)=='/dev/shm' else real(path)
    monkeypatch.setattr(shutil, 'disk_usage', usage)
    monkeypatch.setattr(module.os.path, 'isdir', lambda path: True)
    is_problem('shared memory', '--shm-size')

def test_a_full_disk_and_a_folder_without_permission(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: Usage(10**12, 10**12, 10**6))
    is_problem('temporary files', 'TMPDIR')
    (tmp_path/'file').write_text('')
    monkeypatch.setenv('CLSNB_HOME', str(tmp_path/'file'/'in'))
    is_problem('downloads', 'CLSNB_HOME')

class StandIn:
    "A GPU of a kind that this build of torch has no code for"
    def is_available(self): return True
    def current_accelerator(self, check_available=False): return torch.device('cuda')
    def device_count(self): return 2

def test_a_device_that_is_listed_and_does_not_compute(monkeypatch):
    monkeypatch.setattr(torch, 'accelerator', StandIn())
    if torch.cuda.is_available(): pytest.skip('this machine has a GPU that computes')
    is_problem('cuda:1', 'does not compute')

@pytest.mark.parametrize('built, hidden, level, word', [
    ('13.0', None, 'problem', 'driver'), (None, None, 'problem', 'CUDA build'), ('13.0', '-1', 'note', 'unset'),
])
def test_a_gpu_that_torch_does_not_find(built, hidden, level, word, monkeypatch):
    monkeypatch.setattr(module, 'accelerator_kind', lambda: None)
    monkeypatch.setattr(module.shutil, 'which', lambda name: '/usr/bin/nvidia-smi')
    monkeypatch.setattr(torch.version, 'cuda', built)
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    if hidden: monkeypatch.setenv('CUDA_VISIBLE_DEVICES', hidden)
    check = found('accelerator')
    assert check.level==level and word in check.remedy

def test_a_container_with_the_time_of_few_cores(monkeypatch, tmp_path):
    (tmp_path/'cpu.max').write_text('150000 100000\n')
    path = module.Path
    monkeypatch.setattr(module, 'Path', lambda *a: tmp_path/'cpu.max' if 'cgroup' in str(a[0]) else path(*a))
    monkeypatch.setattr(module.os, 'sched_getaffinity', lambda pid: set(range(64)), raising=False)
    assert cores_given()==1.5
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 64)
    check = found('threads of torch')
    assert check.level=='note' and check.remedy=='export OMP_NUM_THREADS=1'

def test_a_notebook_server_without_widgets(monkeypatch):
    real = module._installed
    versions = {'jupyterlab': '4.4', 'jupyterlab-widgets': None}
    monkeypatch.setattr(module, '_installed', lambda name: versions[name] if name in versions else real(name))
    is_problem('widgets', 'pip install jupyterlab-widgets')

def test_a_look_that_fails_is_a_problem_and_the_others_go_on(monkeypatch):
    def odd_checks(): raise ZeroDivisionError('of this machine')
    monkeypatch.setattr(module, 'doctor_looks', [odd_checks, module.core_checks])
    examination = doctor()
    assert examination[0].level=='problem' and 'of this machine' in examination[0].value and len(examination)>1

def test_text_and_html_tell_the_same():
    examination = Examination([Check('disk', '<a>', '1 GB', 'problem', 'delete <something>'), Check('cores', 'b', '2')])
    assert str(examination).splitlines()[0].startswith('PROBLEM') and '1 problem in 2 checks' in str(examination)
    html = examination._repr_html_()
    assert 'delete &lt;something&gt;' in html and '<a>' not in html and '1 problem in 2 checks' in html

@pytest.mark.parametrize('level, status', [('ok', None), ('note', None), ('problem', 1)])
def test_doctor_as_a_command(level, status, monkeypatch, capsys):
    monkeypatch.setattr(module, 'doctor_looks', [lambda: [Check('disk', 'a', 'b', level, 'c')]])
    try: code = main(['doctor', '--json'])
    except SystemExit as e: code = e.code
    [check] = json.loads(capsys.readouterr().out)['checks']
    assert code==status and check==dict(part='disk', name='a', value='b', level=level, remedy='c')
