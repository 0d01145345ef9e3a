"The command line: every verb takes what its function takes; dist and slurm verbs pass it on; mistakes are one line"
import inspect, json, os, re, shutil, socket, subprocess, sys
from pathlib import Path
import pytest, torch

from clsnb.apis.slurm import slurm_script
from clsnb.cli import completions, find_verb, main, verb_groups, verbs
from clsnb.command_line import (
    call_verb, commented_arguments, find_function, literal_words, allowed_types, parse_words, record_text, verb_parser,
    verb_words,
)
from clsnb.config.config import Config
from clsnb.core.checkpoint import save_checkpoint
from clsnb.core.errors import ConfigError
from clsnb.core.registry import MODELS
from clsnb.data.sets.packaged import photo_path
from clsnb.verbs.mmcls_scripts import mmcls_scripts, script_name, script_rows

TINY = 'resnet18-tiny_1xb16_photos'
# The flags of 8c89f7a, each of which still works
flags_before = dict(
    train='--work-dir --resume-from --auto-resume --load-from --no-validate --device --gpu-id --seed --diff-seed '
          '--deterministic --launcher --cfg-options --trust --auto-scale-lr',
    finetune='--work-dir --weights --epochs --batch-size --size --seed --device --cfg-options',
    test='--metrics --metric-options --out --device --launcher --cfg-options --trust',
    predict='--topk --device --trust',
    attach='--every',
    configs='',
    zoo='--pretrained',
    demo='--work-dir --epochs',
    check='--cfg-options --no-paths --trust',
    verify='--workers --tiny --out --trust',
) | {
    'dist-train': '--work-dir --resume-from --load-from --no-validate --cfg-options --trust',
    'slurm-train': '--gpus --gpus-per-node --cpus-per-task --cfg-options --sbatch-args --dry-run',
    'print-config': '--cfg-options --where --trust',
    'copy-config': '--folder --bases',
    'convert-weights': '--from --config',
}
positional_before = dict(
    train='config', finetune='model folder', test='config [checkpoint]', predict='model images...', attach='work-dir',
    configs='[text]', zoo='[query...]', demo='', check='config', verify='folders...',
) | {
    'dist-train': 'config nprocs', 'slurm-train': 'partition job-name config work-dir', 'print-config': 'config',
    'copy-config': 'name', 'convert-weights': 'src dst',
}

def flags_of(name):
    return {flag for action in verb_parser(verbs[name])._actions for flag in action.option_strings}

@pytest.mark.parametrize('name', flags_before)
def test_flags_of_before(name):
    assert set(flags_before[name].split()) | {'--debug', '--help', '--json'} <= flags_of(name)
    assert verbs[name].usage==positional_before[name]

def test_every_option_has_a_type_and_a_help():
    for verb in verbs.values():
        for option in verb.options():
            assert option.settings.get('help'), (verb.name, option.dest)
    untyped = [
        (verb.name, name)
        for verb in verbs.values()
        for target in [verb.function, *(o for o in verb.parts.values() if isinstance(o, str))]
        for name,parameter in commented_arguments(find_function(target))[0].items()
        if parameter.annotation is inspect.Parameter.empty and parameter.default is None
        and name not in {*verb.parts, *verb.hidden}
    ]
    assert not untyped

# ---- D7: dist and slurm verbs pass on all that train and test take

def sample(option):
    "Words that give an option a value"
    flag,settings = option.flags[0],option.settings
    if option.is_switch or settings.get('action')=='store_const': return [flag]
    if 'choices' in settings: return [flag, settings['choices'][-1]]
    if option.dest=='out': return [flag, 'scores.json']
    return [flag, {'KEY=VALUE': 'a.b=1'}.get(settings.get('metavar'), '3')]

places = dict(train=['mine.py'], test=['mine.py', 'mine.pth'])
before = {'dist': [], 'slurm': ['gpu', 'job']}
after = {'dist-train': ['2'], 'dist-test': ['2'], 'slurm-train': ['runs/mine'], 'slurm-test': []}
targets = {
    'dist': ('clsnb.apis.launch.launch', 'what'), 'slurm': ('clsnb.apis.slurm.slurm_script', 'command')
}

@pytest.mark.parametrize('kind', ['dist', 'slurm'])
@pytest.mark.parametrize('inner', ['train', 'test'])
def test_every_option_arrives(kind, inner, monkeypatch):
    verb,outer = verbs[inner],verbs[f'{kind}-{inner}']
    target,argument = targets[kind]
    given = {}
    def launch(
        what,
        nprocs=2,
        nodes:int=1,
        node_rank:int=0,
        port:int|None=None,
        master_addr:str|None=None,
    ):
        given.update(words=what)
        return [0]*nprocs
    def script(command, partition, job_name, work_dir:str|None=None, gpus:int=8):
        given.update(words=command)
        return 'job.sh'
    monkeypatch.setattr(target, launch if kind=='dist' else script)
    monkeypatch.setattr('clsnb.apis.slurm.submit_job', lambda script: script)
    options = [o for o in verb.options() if o.dest not in ('cfg', 'config', 'checkpoint')]
    assert len(options)>6
    for option in [*options, *verb.all_shorthands()]:
        if f'{kind}-{inner}'=='slurm-train' and option.dest=='work_dir': continue # is known by its place
        if option.dest in ('gpus', 'ipu_replicas'): continue # say what to use instead, see test_devices.py
        words = sample(option)
        call_verb(
            outer, parse_words(outer, [*before[kind], *places[inner], *after[f'{kind}-{inner}'], *words])
        )
        arrived = parse_words(verb, given['words'][1:])
        wanted = parse_words(verb, [*places[inner], *words])
        if f'{kind}-{inner}'=='slurm-train': wanted['work_dir'] = 'runs/mine'
        assert given['words'][0]==inner and arrived==wanted, option

def test_words_and_values_are_the_same():
    for verb in verbs.values():
        words = [
            o
            for option in verb.options()
            if option.flags[0][2:] not in verb.places()
            for o in sample(option)
        ]
        by_name = {option.flags[0][2:]: option for option in verb.options()}
        given = [by_name[o].settings.get('choices', ['3'])[-1] for o in verb.places()]
        values = parse_words(verb, [*given, *words])
        assert parse_words(verb, verb_words(verb, values)[len(verb.name.split()):])==values, verb.name

def test_nodes_from_the_environment(monkeypatch):
    for name,value in dict(NNODES='2', NODE_RANK='1', PORT='29511', MASTER_ADDR='gpu-01').items():
        monkeypatch.setenv(name, value)
    values = parse_words(verbs['dist-train'], ['mine.py', '4'])
    assert (
        (values['nodes'], values['node_rank'], values['port'], values['master_addr'])==(2, 1, 29511, 'gpu-01')
    )
    assert parse_words(verbs['dist-test'], ['mine.py', '4', '--port', '5'])['port']==5
    assert 'port' not in parse_words(verbs['train'], ['mine.py'])

def test_dist_train_trains(tmp_path):
    options = ['runner.max_epochs=1', 'results=False', 'data.workers_per_gpu=0', 'log_config.interval=100']
    p = subprocess.run(
        [
            sys.executable, '-m', 'clsnb', 'dist-train', TINY, '2', '--work_dir', str(tmp_path), '--seed', '3',
            '--no-validate', '--device', 'cpu', '--cfg-options', *options,
        ],
        env=dict(os.environ, OMP_NUM_THREADS='1'), capture_output=True, text=True, timeout=300,
    )
    assert p.returncode==0, p.stderr[-2000:]
    text = (tmp_path/f'{TINY}.py').read_text()
    assert re.search(r'^seed = 3$', text, re.M)
    assert (tmp_path/'epoch_1.pth').exists() and not list(tmp_path.glob('best_*'))

def test_dist_test_gives_the_numbers_of_test(tmp_path, capsys):
    cfg = Config.fromfile(TINY)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    save_checkpoint(model, tmp_path/'a.pth', meta=dict(config=cfg.pretty_text, CLASSES=tuple('abcdef')))
    options = [
        '--device', 'cpu', '--cfg-options', 'data.workers_per_gpu=0', '--metrics', 'accuracy', 'f1_score'
    ]
    main(['test', str(tmp_path/'a.pth'), '--out', str(tmp_path/'one.json'), *options])
    one = capsys.readouterr().out.replace('one.json', 'two.json')
    main(['dist-test', str(tmp_path/'a.pth'), '2', '--out', str(tmp_path/'two.json'), *options])
    assert capsys.readouterr().out==one and 'f1_score' in one
    a,b = (json.loads((tmp_path/f'{o}.json').read_text()) for o in ('one', 'two'))
    assert a['pred_label']==b['pred_label'] and a['metrics']==pytest.approx(b['metrics'])

def test_two_nodes_meet(tmp_path):
    "Two machines, here one and the same, each with one process"
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    code = (
        "import sys, test_cli; from clsnb.apis.launch import launch\n"
        f"print(launch(test_cli.ranks, 1, nodes=2, node_rank=int(sys.argv[1]), port={port}, master_addr='127.0.0.1'))"
    )
    env = dict(
        os.environ,
        PYTHONPATH=os.pathsep.join([os.path.dirname(__file__), os.environ.get('PYTHONPATH', '')]),
    )
    nodes = [
        subprocess.Popen([sys.executable, '-c', code, str(i)], env=env, stdout=subprocess.PIPE, text=True)
        for i in range(2)
    ]
    said = [p.communicate(timeout=120)[0].strip() for p in nodes]
    assert said==["[('0', '2')]", "[('1', '2')]"]

def ranks():
    import torch, torch.distributed as dist
    total = torch.tensor([1])
    dist.all_reduce(total)
    assert total.item()==2
    return os.environ['RANK'],os.environ['WORLD_SIZE']

# ---- Slurm

def test_slurm_script(tmp_path, capsys):
    main([
        'slurm-train', 'gpu', 'my job', 'mine.py', str(tmp_path/'run'), '--gpus', '16', '--seed', '3', '--dry-run',
        '--nodes', '2', '--port', '29511', '--cfg-options', 'model.head.topk=(1, 5)', '--sbatch-args=--time=8:00:00',
    ])
    path = tmp_path/'run/job.sh'
    assert capsys.readouterr().out==f'Written: {path}\n'
    text = path.read_text()
    for line in (
        '--ntasks=16', '--gres=gpu:8', '--nodes=2', '--time=8:00:00', '--requeue', '--signal=USR1@120'
    ):
        assert f'#SBATCH {line}\n' in text
    assert 'export MASTER_PORT=29511\n' in text and '--resume-from=auto\n' in text
    assert subprocess.run(['bash', '-n', str(path)]).returncode==0
    test = slurm_script(['test', 'mine.py'], 'gpu', 'job', tmp_path/'test').read_text()
    assert 'requeue' not in test and '--resume-from' not in test
    again = slurm_script(
        ['train', 'mine.py', '--resume-from=a.pth'], 'gpu', 'job', tmp_path/'again'
    ).read_text()
    assert '${SLURM_RESTART_COUNT:+--resume-from=auto}' in again

# ---- Mistakes

@pytest.mark.parametrize('line,text', [
    ('trian mine.py', "no verb 'trian'. Did you mean 'train'"),
    ('train mine.py --sed 3', "no option '--sed'. Did you mean '--seed'"),
    ('dist-train mine.py 2 --no-valdate', "Did you mean '--no-validate'"),
    ('train', 'required: CONFIG'),
    ('train mine.py --seed three', "invalid int value: 'three'"),
    ('train mine.py yours.py', "'yours.py' is an unexpected argument"),
    ('train mine.py --gpu-id x', '--gpu-id'),
    ('train mine.py --launcher torchrun', "invalid choice: 'torchrun'"),
    ('train nowhere.py', 'nowhere.py'),
    ('train nowhere.py --cfg-options seed', "--cfg-options takes KEY=VALUE pairs, and 'seed' has no '='"),
    ('test nowhere.py --metric-options topk', '--metric-options takes KEY=VALUE pairs'),
    ('dist-train mine.py two', 'NPROCS'),
    ('dist-train mine.py 2 --nodes 2', 'master_addr'),
    ('predict nowhere.pth nowhere.jpg', 'nowhere.pth'),
    ('zoo swinn', "'swin'"),
])
def test_mistakes_are_one_line(line, text, capsys):
    with pytest.raises(SystemExit) as e: main(line.split())
    err = capsys.readouterr().err
    assert e.value.code==2 and err.count('\n')==1 and text in err and err.startswith('clsnb: ')

def test_debug_shows_where(capsys):
    with pytest.raises(ConfigError): main(['train', 'nowhere.py', '--debug'])

def test_values():
    values = parse_words(
        verbs['train'], 'mine.py --gpu-ids 1 --auto-resume --cfg-options a=1 --cfg-options b=2'.split()
    )
    assert values==dict(cfg='mine.py', device='cuda:1', resume_from='auto', options=['a=1', 'b=2'])
    assert (
        parse_words(verbs['test'], ['a.py', '--metrics', 'accuracy', 'f1_score'])['metrics']
        == ['accuracy', 'f1_score']
    )

def test_overview_imports_no_torch():
    code = "import sys; from clsnb.cli import main; main(['--help']); print('torch' in sys.modules)"
    p = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60)
    assert p.stdout.splitlines()[-1]=='False', p.stderr
    assert all(re.search(f'^  {name} ', p.stdout, re.M) for name in verbs)
    assert all(f'\n{title}:\n' in p.stdout for title in verb_groups)

# ---- Help without torch: the arguments are read from the source

def test_help_of_every_verb_imports_no_torch():
    code = """if True:
        import sys
        from clsnb.cli import main, verbs
        for name in verbs:
            try: main([*name.split(), '--help'])
            except SystemExit as e: assert not e.code, name
            print(name, [o for o in ('torch', 'pandas', 'matplotlib', 'numpy') if o in sys.modules], file=sys.stderr)
    """
    p = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    assert p.returncode==0, p.stderr
    assert p.stderr.splitlines()==[f'{name} []' for name in verbs]
    assert all(f'example: clsnb {verb.example}' in ' '.join(p.stdout.split()) for verb in verbs.values())

targets_by_name = {
    target for verb in verbs.values() for target in (verb.function, *verb.parts.values()) if isinstance(target, str)
}

@pytest.mark.parametrize('target', sorted(targets_by_name))
def test_source_says_what_the_function_says(target):
    read,read_comments = commented_arguments(target)
    real,real_comments = commented_arguments(find_function(target))
    assert list(read)==list(real)
    plain = {bool, int, float, str, list, tuple, dict}
    for name,parameter in real.items():
        other = read[name]
        assert (other.default, other.kind)==(parameter.default, parameter.kind), name
        assert literal_words(other.annotation)==literal_words(parameter.annotation), name
        types = [plain & set(allowed_types(o.annotation, o.default)) for o in (parameter, other)]
        assert types[0]==types[1], name
        assert read_comments[name]==real_comments[name], name

# ---- Names of verbs

def test_every_verb_has_an_example_that_parses():
    for verb in verbs.values():
        words = verb.example.replace(' >> ~/.bashrc', '').split()
        assert find_verb(words)[0] is verb, verb.name
        parse_words(verb, words[len(verb.name.split()):])

@pytest.mark.parametrize('typed,name', [
    ('print_config', 'print-config'), ('verify_dataset', 'verify'), ('dist_train', 'dist-train'),
    ('slurm-test', 'slurm-test'), ('verify-dataset', 'verify'),
])
def test_scripts_of_mmcls_name_verbs(typed, name):
    assert find_verb([typed, 'x'])==(verbs[name], ['x'])

@pytest.mark.parametrize('script', mmcls_scripts)
def test_every_flag_of_a_script_works_or_has_a_reason(script):
    row = next((o for o in script_rows(verbs.values()) if o[0]==script), None)
    assert row, f'no verb replaces {script}'
    flags = [o.replace('_', '-') for o in mmcls_scripts[script].split() if o.startswith('--')]
    listed = [*row[2], *(o.replace('_', '-') for o in row[3])]
    assert sorted(listed)==sorted(flags)

# Command lines of the documentation of mmcls 0.25, after `python`; what they set is in tests of the single tools
@pytest.mark.parametrize('line', [
    'demo/image_demo.py demo/demo.JPEG resnet50_8xb32_in1k.py resnet50.pth --device cpu',
    'tools/test.py resnet50_8xb16_cifar10.py resnet50.pth --metrics accuracy --metric-options topk=(1,) --out r.pkl',
    'tools/train.py resnet50_8xb32_in1k.py --work-dir w --no-validate --resume-from a.pth --device npu',
    'tools/analysis_tools/get_flops.py resnet50_8xb32_in1k.py --shape 224 256',
    'tools/convert_models/publish_model.py work_dirs/resnet50/latest.pth imagenet_resnet50.pth',
    'tools/convert_models/reparameterize_model.py repvgg-A0_4xb64-coslr-120e_in1k.py src.pth dst.pth',
    'tools/misc/print_config.py t2t-vit-t-14_8xb64_in1k.py --cfg-options model.head.num_classes=3',
    'tools/misc/verify_dataset.py t2t-vit-t-14_8xb64_in1k.py --out-path broken.log --phase val --num-process 8',
    'tools/visualizations/vis_pipeline.py resnet50_8xb16_cifar100.py --phase val --output-dir tmp --number 10 --adaptive',
    'tools/visualizations/vis_pipeline.py resnet50_8xb32_in1k.py --mode original --number 3 --show --bgr2rgb',
    'tools/visualizations/vis_pipeline.py swin_base_224_b16x64_300e_imagenet.py --mode pipeline --window-size 12*7',
    'tools/visualizations/vis_lr.py resnet50_b16x8_cifar100.py --dataset-size 50000 --ngpus 4 --style darkgrid',
    'tools/visualizations/vis_lr.py repvgg-B3g4_4xb64.py --save-path lr.jpg --window-size 12*7 --title T',
    'tools/visualizations/vis_cam.py demo/bird.JPEG resnet50_8xb32_in1k.py r.pth --target-category 238 --method GradCAM',
    'tools/visualizations/vis_cam.py demo/cat-dog.png resnet50_8xb32_in1k.py r.pth --target-layers backbone.layer4.2 '
    '--vit-like --num-extra-tokens 1 --aug_smooth --eigen_smooth --preview-model --save-path cam.jpg',
    'tools/analysis_tools/analyze_logs.py plot_curve log1.json log2.json --keys accuracy_top-1 --legend exp1 exp2',
    'tools/analysis_tools/analyze_logs.py plot_curve log.json --keys loss --out losses.pdf --style whitegrid',
    'tools/analysis_tools/analyze_logs.py cal_train_time log.json --include-outliers',
    'tools/analysis_tools/eval_metric.py t2t-vit-t-14_8xb64_in1k.py r.pkl --metrics accuracy --metric-options topk=(1,5)',
    'tools/analysis_tools/analyze_results.py resnet50_b32x8_imagenet.py result.pkl --out-dir results --topk 50',
])
def test_command_lines_of_the_documentation(line):
    script,*rest = line.split()
    name = script_name(script).split()[-1]
    words = [name, *rest]
    verb,rest = find_verb(words)
    assert parse_words(verb, rest)

# ---- Completion

def test_completion():
    assert completions(['tes'])==['test'] and 'train' in completions([''])
    assert completions(['train', 'resnet18-tiny'])==[TINY]
    assert completions(['train', 'mine.py', '--val'])==['--validate']
    assert completions(['train', '--launcher', 's'])==['slurm']
    assert completions(['completion', 'z'])==['zsh'] and completions(['trian', ''])==[]

def test_completion_in_bash(tmp_path):
    clsnb = tmp_path/'clsnb'
    clsnb.write_text(f'#!/bin/sh\nexec {sys.executable} -m clsnb "$@"\n')
    clsnb.chmod(0o755)
    (tmp_path/'resnet18-mine.py').touch()
    script = (
        'eval "$(clsnb completion bash)"; COMP_WORDS=(clsnb train resnet18-); COMP_CWORD=2; _clsnb; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    env = os.environ|dict(PATH=f"{tmp_path}:{os.environ['PATH']}", PYTHONPATH=os.pathsep.join(sys.path))
    p = subprocess.run(['bash', '-c', script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert {TINY, 'resnet18-mine.py'} <= set(p.stdout.splitlines()), p.stderr

@pytest.mark.parametrize('shell', ['zsh', 'fish'])
def test_completion_of_other_shells(shell, capsys):
    main(['completion', shell])
    assert 'clsnb --complete' in capsys.readouterr().out

# ---- Records for scripts

def record_of(line, capsys, status=0):
    "What a verb answers with --json, after a look at its exit status and fields"
    code = 0
    try: main([*line.split(), '--json'])
    except SystemExit as e: code = e.code
    out = capsys.readouterr().out
    assert out.count('\n')==1, out
    record = json.loads(out)
    assert code==record['status']==status, record
    if status<2: assert set(record)=={'verb', 'status', *find_verb(line.split())[0].fields}
    return record

def test_records(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert TINY in record_of('configs tiny', capsys)['configs']
    assert record_of('zoo swin 384', capsys)['models'][0]['name']
    assert record_of(f'print-config {TINY}', capsys)['config']['model']['backbone']['depth']==18
    assert record_of(f'check {TINY}', capsys)['findings']==[]
    found = record_of(f'check {TINY} --cfg-options model.head.num_classes=10', capsys, 1)['findings']
    assert {'level', 'key', 'text', 'where'}==set(found[0])
    assert Path(record_of(f'copy-config {TINY}', capsys)['path']).is_file()
    assert record_of('completion bash', capsys)['script']

def test_records_of_errors(capsys):
    for line in ('trian', 'train', 'train nowhere.py', 'check nowhere.py'):
        record = record_of(line, capsys, 2)
        assert set(record)=={'verb', 'status', 'error'} and record['error']

def test_record_of_a_run(odd_places, capsys):
    line = f'train {TINY} --work-dir w --cfg-options runner.max_epochs=1 data.workers_per_gpu=0'
    record = record_of(line, capsys)
    assert record['state']=='finished' and record['metrics'] and Path(record['weights']).is_file()
    assert record_of('test w --out s.json', capsys)['metrics']
    assert record_of('attach w', capsys)['metrics']==record['metrics']

def test_records_of_pictures(odd_places, capsys):
    (odd_places/'pics/a/broken.jpg').write_bytes(b'no picture')
    found = record_of('verify pics --workers 0', capsys, 1)['findings']
    assert any(o['problem']=='broken' or 'broken.jpg' in str(o) for o in found)
    answers = record_of('predict a.pth pics', capsys, 1)['predictions']
    assert [bool(o.get('error')) for o in answers].count(True)==1

def test_a_record_is_json():
    assert json.loads(record_text(dict(a=float('inf'), b={1: (2, None)}, c=Path('x'))))==dict(a=None, b={'1': [2, None]}, c='x')

# ---- Numbers, devices and places for output are checked before any work

def test_clsnb_alone_prints_the_help(capsys):
    with pytest.raises(SystemExit) as e: main([])
    out,err = capsys.readouterr()
    assert e.value.code==2 and 'usage: clsnb VERB' in out and not err

@pytest.fixture
def odd_places(tmp_path, monkeypatch):
    "A folder with a file, a folder of two pictures, and a small checkpoint"
    monkeypatch.chdir(tmp_path)
    (tmp_path/'file').write_text('x')
    for name in 'ab':
        (tmp_path/'pics'/name).mkdir(parents=True)
        shutil.copy(photo_path('cat'), tmp_path/'pics'/name/'0.jpg')
    cfg = Config.fromfile(TINY)
    model = MODELS.build(cfg.model)
    save_checkpoint(model, 'a.pth', meta=dict(config=cfg.pretty_text, CLASSES=tuple('abcdef')))
    return tmp_path

def fails(words, capsys):
    "The only line that a command line prints when it is refused"
    with pytest.raises(SystemExit) as e: main(words)
    out,err = capsys.readouterr()
    assert e.value.code==2 and err.count('\n')==1 and err.startswith('clsnb: ') and not out, (out, err)
    return err

@pytest.mark.parametrize('line,text', [
    *((f'{verb} --work-dir {place}', 'cannot be written')
      for verb in (f'train {TINY}', 'demo', f'finetune {TINY} pics --weights none', f'dist-train {TINY} 2')
      for place in ('file', 'file/x', '/proc/x', '/dev/null', 'n'*300)),
    (f'slurm-train p j {TINY} file', 'cannot be written'),
    (f'copy-config {TINY} --folder file', 'cannot be written'),
    *((f'test a.pth --out {place}', 'cannot be written') for place in ('/proc/x.json', 'file/x.json', 'file/x.csv')),
    ('test a.pth --out scores.txt', 'end with .json'),
    ('test a.pth --out pics', 'end with .json'),
    *((f'verify pics --out {place}', 'cannot be written') for place in ('/proc/x.csv', 'pics', 'file/x.csv')),
    *((f'convert-weights a.pth {place} --from twins', 'cannot be written') for place in ('/proc/x.pth', 'pics')),
    *((f'{verb} --device {name}', f"'{name}' is not a device")
      for verb in (f'train {TINY}', 'test a.pth', 'predict a.pth pics', f'finetune {TINY} pics')
      for name in ('banana', 'x', 'cuda:-1')),
    *((f'{verb} --device cuda:97', 'cuda:97') for verb in (f'train {TINY}', 'test a.pth', 'predict a.pth pics')),
    (f'train {TINY} --gpu-id 97', 'cuda:97'),
    ('verify pics --workers -1', '-1 is not in the range from 0'),
    ('verify pics --tiny -5', '-5 is not in the range from 0'),
    *((f'dist-train {TINY} {n}', f'{n} is not in the range from 1') for n in (0, -1)),
    (f'dist-train {TINY} 2 --port 99999', '99999 is not in the range'),
    (f'train {TINY} --seed {10**30}', 'is not in the range'),
    *((f'predict a.pth pics --{name} {n}', f'{n} is not in the range from 1')
      for name in ('topk', 'batch-size') for n in (0, -3)),
    (f'finetune {TINY} pics --epochs 0', '0 is not in the range from 1'),
    ('attach pics --every -1', '-1 is not in the range'),
    ('test a.pth --cfg-options data.test=3', 'A data set is a dict'),
    *((f'test a.pth --cfg-options data.workers_per_gpu=0 --metric-options {o}', o.split('=')[0])
      for o in ('topk=x', 'topk=0', 'topk=(1,-2)', 'thrs=x')),
    *((f'train {TINY} --cfg-options optimizer.{o}', f"'optimizer.{o.split('=')[0]}' takes float")
      for o in ('lr=abc', 'weight_decay=x', 'momentum=[1]')),
    (f'train {TINY} --work-dir a\0b', 'NUL'),
])
def test_checked_before_any_work(line, text, odd_places, capsys):
    assert text in fails(line.split(' '), capsys)
    assert {o.name for o in odd_places.iterdir()}=={'file', 'pics', 'a.pth', 'a.pth.sha256'}

def test_scores_as_csv(odd_places, capsys):
    main('test a.pth --out new/scores.csv --cfg-options data.workers_per_gpu=0'.split())
    header,*rows = [o.split(',') for o in Path('new/scores.csv').read_text().splitlines()]
    assert header==['sample', 'file', 'label', 'pred_label', 'pred_score', 'pred_class', *'abcdef']
    for row in rows:
        scores = [float(o) for o in row[6:]]
        best = scores.index(max(scores))
        assert row[3:6]==[str(best), row[6+best], 'abcdef'[best]]

@pytest.mark.skipif(not Path('/dev/full').is_char_device(), reason='needs /dev/full')
@pytest.mark.parametrize('line', ['test a.pth --out /dev/full --cfg-options data.workers_per_gpu=0',
                                  'verify pics --out /dev/full --workers 0'])
def test_a_result_that_cannot_be_written_is_kept(line, odd_places, capsys):
    with pytest.raises(SystemExit) as e: main(line.split())
    err = capsys.readouterr().err.splitlines()[-1]
    kept = Path(re.search(r'it is in (.*)\.$', err)[1])
    assert e.value.code==2 and 'the disk is full' in err and kept.parent==odd_places and kept.stat().st_size>20
    assert Path('/dev/full').is_char_device()

@pytest.mark.skipif(not Path('/dev/full').is_char_device(), reason='needs /dev/full')
def test_standard_output_on_a_full_disk():
    for words in (['configs'], ['zoo', 'swin'], []):
        with open('/dev/full', 'w') as full:
            p = subprocess.run(
                [sys.executable, '-m', 'clsnb', *words], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120
            )
        assert p.returncode==2 and p.stderr=='clsnb: the output: the disk is full\n', p.stderr

def test_a_reader_that_leaves():
    p = subprocess.run(
        f'{sys.executable} -m clsnb configs | head -1', shell=True, capture_output=True, text=True, timeout=120
    )
    assert p.stdout.count('\n')==1 and not p.stderr
