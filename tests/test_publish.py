"Weights for others: published, folded for deployment; they load back equal, and what cannot be used is told first"
import json, re
from datetime import date
from pathlib import Path
import pytest, torch
from clsnb.apis.fit import fit
from clsnb.apis.open_model import init_model
from clsnb.apis.publish import publish
from clsnb.apis.reparameterize import reparameterize
from clsnb.cli import main
from clsnb.config.config import Config
from clsnb.core.checkpoint import read_checkpoint, save_checkpoint
from clsnb.core.errors import CheckpointError, ClsnbError, ConfigError, DataError
from clsnb.core.io import sha256
from clsnb.core.redact import without_secrets

DIGITS = 'lenet5_1xb32_digits'
QUICK = {'runner.max_epochs': 2, 'data.workers_per_gpu': 0, 'log_level': 'ERROR', 'results': False}

@pytest.fixture(scope='module')
def run(tmp_path_factory):
    "A run with a moving average"
    hooks = [dict(type='EMAHook', momentum=.05)]
    return fit(DIGITS, tmp_path_factory.mktemp('run'), QUICK | {'custom_hooks': hooks}, device='cpu')

def scores(model):
    torch.manual_seed(0)
    with torch.no_grad(): return model.simple_test(torch.randn(4, 1, 32, 32), post_process=False)

# ---- What is in the file

@pytest.mark.parametrize('ending', ['.pth', '.pt', '.safetensors'])
def test_it_loads_back_equal(ending, run, tmp_path):
    path = publish(run.weights, tmp_path/f'digits{ending}')
    assert re.fullmatch(rf'digits_{date.today():%Y%m%d}-[0-9a-f]{{8}}\{ending}', path.name)
    assert sha256(path).startswith(path.stem[-8:])
    ours,theirs = init_model(run),init_model(path)
    assert torch.equal(scores(ours), scores(theirs))
    assert ours.state_dict().keys()==theirs.state_dict().keys()
    assert ours.CLASSES==theirs.CLASSES and theirs.cfg.model==ours.cfg.model

def test_only_what_others_need_is_kept(run, tmp_path):
    stored = read_checkpoint(publish(run, tmp_path/'a.pth'))
    assert set(stored)=={'meta', 'state_dict'}
    assert not {'env_info', 'hook_msgs', 'time'} & set(stored['meta'])
    assert 'work_dir' not in stored['meta']['config'] and str(run.folder) not in str(stored['meta'])
    assert Path(publish(run, tmp_path/'b.pth')).stat().st_size < run.weights.stat().st_size/2
    assert all(o.device.type=='cpu' for o in stored['state_dict'].values())

def test_the_average_is_published_where_there_is_one(run, tmp_path):
    path,stored = publish(run, tmp_path/'a.pth'),read_checkpoint(run.weights)
    hook = next(o for o in stored['loop'].values() if isinstance(o, dict) and 'weights' in o) # the plain weights
    name = next(iter(hook['weights']))
    published = read_checkpoint(path)['state_dict'][name]
    assert torch.equal(published, stored['state_dict'][name]) and not torch.equal(published, hook['weights'][name])

def test_buffers_of_mmcvs_average_are_left_out(run, tmp_path):
    stored = read_checkpoint(run.weights)
    plain = {'ema_'+k.replace('.', '_'): v*0 for k,v in stored['state_dict'].items()}
    torch.save(dict(meta=stored['meta'], state_dict=stored['state_dict'] | plain), tmp_path/'mmcv.pth')
    assert not [k for k in read_checkpoint(publish(tmp_path/'mmcv.pth', tmp_path/'o.pth'))['state_dict'] if 'ema' in k]

def test_a_view_takes_no_more_than_its_own_memory(tmp_path):
    big = torch.zeros(10**6)
    torch.save(dict(state_dict={'a.weight': big[:10]}), tmp_path/'view.pth')
    assert (tmp_path/'view.pth').stat().st_size>10**6
    with pytest.warns(UserWarning, match='carries no config'): path = publish(tmp_path/'view.pth', tmp_path/'o.pth')
    assert path.stat().st_size<10**4

def test_secrets_stay_at_home(run, tmp_path):
    stored = read_checkpoint(run.weights)
    extra = (
        "log_config = dict(interval=1, hooks=[dict(type='WandbLoggerHook', init_kwargs=dict(api_key='hunter2'))])\n"
        "my_password = 'hunter2'\nstore = dict(backend='s3', key='AKIAhunter2', secret='hunter2')\n"
        "mirror = 'https://me:hunter2@host/x?token=hunter2'\n")
    stored['meta']['config'] += extra
    torch.save(stored, tmp_path/'secret.pth')
    text = read_checkpoint(publish(tmp_path/'secret.pth', tmp_path/'o.pth'))['meta']['config']
    assert 'hunter2' not in text and text.count('***')>=5 and 'WandbLoggerHook' in text
    assert b'hunter2' not in next(tmp_path.glob('o_*.pth')).read_bytes()

def test_secrets_are_told_from_settings():
    plain = dict(cls_token=True, key_indicator='acc', save_best='accuracy', keys=['img'], tokenizer='x', passes='3')
    assert without_secrets(plain)==plain
    assert set(without_secrets(dict(token='a', hf_token='b', AWS_SECRET_ACCESS_KEY='c', api_key='d')).values())=={'***'}

# ---- Names

@pytest.mark.parametrize('out, start, ending', [
    ('imagenet_resnet50.pth', 'imagenet_resnet50', '.pth'), ('net', 'net', '.pth'), ('net_v1.5', 'net_v1.5', '.pth'),
    ('deep/er/net.PTH', 'net', '.pth'), ('net_20200101-0123abcd.pth', 'net', '.pth'), ('', 'lenet5_1xb32_digits', '.pth'),
])
def test_names(out, start, ending, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = publish(run, out or None)
    assert re.fullmatch(rf'{re.escape(start)}_{date.today():%Y%m%d}-[0-9a-f]{{8}}{ending}', path.name)
    assert path.is_file() and not list(Path('.').rglob('.publish_*'))

def test_a_folder_takes_the_name_of_the_config(run, tmp_path):
    assert publish(run, tmp_path).name.startswith('lenet5_1xb32_digits_')
    assert publish(run.weights, f'{tmp_path}/new/').parent==tmp_path/'new'

def test_the_same_weights_have_the_same_hash(run, tmp_path):
    assert publish(run, tmp_path/'a.pth').name[-12:]==publish(run, tmp_path/'b.pth').name[-12:]

# ---- What cannot be published

def test_a_missing_file_and_an_empty_folder(tmp_path):
    for source in (tmp_path/'none.pth', tmp_path):
        with pytest.raises(CheckpointError) as error: publish(source, tmp_path/'o.pth')
        assert '\n' not in str(error.value) and str(source) in str(error.value)
    assert not list(tmp_path.glob('o*'))

@pytest.mark.parametrize('out', ['a.onnx', 'a.json', 'a.bin'])
def test_another_ending_is_told_at_once(out, tmp_path):
    with pytest.raises(ConfigError, match=r'ends in .pth'): publish(tmp_path/'none.pth', tmp_path/out)

def test_weights_of_other_classes(run, tmp_path):
    stored = read_checkpoint(run.weights)
    stored['meta']['config'] = stored['meta']['config'].replace('num_classes=10', 'num_classes=7')
    torch.save(stored, tmp_path/'theirs.pth')
    with pytest.raises(ClsnbError, match='7'): publish(tmp_path/'theirs.pth', tmp_path/'o.pth')
    stored = read_checkpoint(run.weights)
    stored['meta']['CLASSES'] = ('a', 'b')
    torch.save(stored, tmp_path/'names.pth')
    with pytest.raises(CheckpointError, match='names 2 classes, but its model has 10'):
        publish(tmp_path/'names.pth', tmp_path/'o.pth')
    assert not list(tmp_path.glob('o*'))

def test_a_missing_weight(run, tmp_path):
    stored = read_checkpoint(run.weights)
    stored['state_dict'].popitem()
    torch.save(stored, tmp_path/'part.pth')
    with pytest.raises(CheckpointError): publish(tmp_path/'part.pth', tmp_path/'o.pth')

def test_a_config_that_cannot_be_read_is_left_out_with_a_warning(run, tmp_path):
    stored = read_checkpoint(run.weights)
    stored['meta']['config'] = 'model = dict('
    torch.save(stored, tmp_path/'odd.pth')
    with pytest.warns(UserWarning, match='cannot be read and is left out'):
        path = publish(tmp_path/'odd.pth', tmp_path/'o.pth')
    assert 'config' not in read_checkpoint(path)['meta']

def test_a_place_that_cannot_be_written_is_told_before_the_work(run, tmp_path, monkeypatch):
    (tmp_path/'file').write_text('in the way')
    import clsnb.apis.publish as module
    monkeypatch.setattr(module, 'evaluated_weights', lambda stored: pytest.fail('the work has begun'))
    with pytest.raises(DataError, match='cannot be written'): publish(run, tmp_path/'file/o.pth')

def test_nothing_is_left_where_writing_fails(run, tmp_path, monkeypatch):
    import clsnb.apis.publish as module
    def broken(path, weights, meta):
        Path(path).write_bytes(b'half')
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr(module, 'write_weights', broken)
    with pytest.raises(OSError): publish(run, tmp_path/'o.pth')
    assert not list(tmp_path.iterdir())

def test_a_header_of_others_is_read_as_before(tmp_path):
    from safetensors.torch import save_file
    for number,text in enumerate(('[1]', '{', '{"meta": 3}', '{"meta": {"CLASSES": ["a"]}}')):
        path = tmp_path/f'{number}.safetensors'
        save_file({'a': torch.zeros(1)}, path, dict(clsnb=text, format='pt'))
        meta = read_checkpoint(path)['meta']
        assert meta['format']=='pt' and meta.get('CLASSES')==(('a',) if number==3 else None)

# ---- Branches folded for deployment

REPVGG = 'repvgg-A0_4xb64-coslr-120e_in1k'

def small_config(name, folder, **backbone):
    "A config of a net with branches, for ten classes"
    heads = dict(RepVGG=1280, RepMLPNet=64)
    model = dict(
        type='ImageClassifier', backbone=dict(type=name, **backbone), neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=10, in_channels=heads[name], loss=dict(type='CrossEntropyLoss')))
    steps = [dict(type='Resize', size=(64, 64)), dict(type='ImageToTensor', keys=['img'])]
    path = folder/f'{name}.py'
    path.write_text(Config(dict(model=model, data=dict(test=dict(type='CustomDataset', pipeline=steps)))).pretty_text)
    return path

SMALL = dict(
    RepVGG=dict(arch='A0'),
    RepMLPNet=dict(
        arch=dict(channels=[16, 32, 64], depths=[1, 1, 1], sharesets_nums=[1, 2, 4]), img_size=64,
        patch_cfg=dict(kernel_size=4, stride=4), reparam_conv_kernels=(1, 3), out_indices=(2,)),
)

def trained(config):
    "A model whose batch norms are as if they had seen data"
    model = init_model(config, 'none')
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, .1)
            module.running_var.uniform_(.5, 2)
            torch.nn.init.uniform_(module.weight, .5, 1.5)
            torch.nn.init.normal_(module.bias, 0, .1)
    model.CLASSES = tuple(f'class {i}' for i in range(len(model.CLASSES)))
    return model

@pytest.mark.parametrize('ending', ['.pth', '.safetensors'])
@pytest.mark.parametrize('name', SMALL)
def test_folding_keeps_the_scores(name, ending, tmp_path):
    config = small_config(name, tmp_path, **SMALL[name])
    model,target = trained(config),tmp_path/f'deploy{ending}'
    save_checkpoint(model, tmp_path/'src.pth')
    done = reparameterize(config, tmp_path/'src.pth', target)
    assert 0<done.difference<1e-4 and done.params[0]!=done.params[1] and str(target) in repr(done)
    pictures = torch.randn(3, 3, 64, 64)
    with torch.no_grad(): before = model.simple_test(pictures, post_process=False)
    for deployed in (init_model(target), init_model(done.config, target)): # it carries its config; and beside it
        assert deployed.cfg.model.backbone.deploy is True and deployed.CLASSES==model.CLASSES
        with torch.no_grad(): after = deployed.simple_test(pictures, post_process=False)
        assert torch.allclose(before, after, atol=1e-5)

def test_a_packaged_config_of_the_folded_model_is_named(tmp_path):
    save_checkpoint(trained(REPVGG), tmp_path/'src.pth')
    done = reparameterize(REPVGG, tmp_path/'src.pth', tmp_path/'out.pth')
    assert done.config=='repvgg-A0_deploy_4xb64-coslr-120e_in1k' and not (tmp_path/'out.py').exists()
    with pytest.raises(ConfigError, match='nothing to fold: it is in its deploy form'):
        reparameterize(done.config, tmp_path/'out.pth', tmp_path/'again.pth')
    with pytest.raises(ConfigError, match='the checkpoint itself'):
        reparameterize(REPVGG, tmp_path/'src.pth', tmp_path/'src.pth')

def test_a_config_of_ones_own_is_not_overwritten(tmp_path):
    config = small_config('RepVGG', tmp_path, arch='A0')
    before = config.read_text()
    save_checkpoint(trained(config), tmp_path/'src.pth')
    done = reparameterize(config, tmp_path/'src.pth', tmp_path/'RepVGG.pth') # its config would be RepVGG.py
    assert config.read_text()==before and done.config==str(tmp_path/'RepVGG_deploy.py')

def test_folding_that_changes_the_scores_writes_nothing(tmp_path, monkeypatch):
    from clsnb.models.backbones.repvgg import RepVGGBlock
    fold = RepVGGBlock.fold
    monkeypatch.setattr(RepVGGBlock, 'fold', lambda self: tuple(o*1.1 for o in fold(self)))
    save_checkpoint(trained(REPVGG), tmp_path/'src.pth')
    with pytest.raises(CheckpointError, match='changes the scores'):
        reparameterize(REPVGG, tmp_path/'src.pth', tmp_path/'out.pth')
    assert not list(tmp_path.glob('out*'))

def test_what_cannot_be_folded(run, tmp_path):
    config = small_config('RepVGG', tmp_path, arch='A0')
    save_checkpoint(trained(config), tmp_path/'src.pth')
    wrong = [
        (ConfigError, 'nothing to fold', run, None, 'o.pth'),
        (CheckpointError, 'none.pth', REPVGG, tmp_path/'none.pth', 'o.pth'),
        (CheckpointError, 'other classes', REPVGG, tmp_path/'src.pth', 'o.pth'),
        (ConfigError, "Did you mean 'repvgg-A0", 'repvgg-A0_4xb64-coslr-120_in1k', tmp_path/'src.pth', 'o.pth'),
        (ConfigError, 'has to end with', REPVGG, tmp_path/'src.pth', 'o.onnx'),
        (DataError, 'cannot be written', REPVGG, tmp_path/'src.pth', 'src.pth/o.pth'),
    ]
    for kind,text,config,checkpoint,out in wrong:
        with pytest.raises(kind) as error: reparameterize(config, checkpoint, tmp_path/out)
        message = str(error.value)
        assert '\n' not in message and (text in message or text=='other classes' and '1000' in message), message
    assert not (tmp_path/'o.pth').exists()

# ---- On the command line

def clsnb(*words):
    "Exit status of a command line"
    try: return main([str(o) for o in words])
    except SystemExit as e: return e.code

def test_publish_and_reparameterize_as_commands(run, tmp_path, capsys):
    assert not clsnb('publish', run.weights, tmp_path/'net.pth', '--json')
    record = json.loads(capsys.readouterr().out)
    assert Path(record['path']).name.startswith('net_') and record['sha256']==sha256(record['path'])
    assert not clsnb('publish_model', run.folder, f'{tmp_path}/sub/') and list((tmp_path/'sub').glob('lenet5*.pth'))
    assert clsnb('publish', tmp_path/'none.pth')==2 and 'none.pth' in capsys.readouterr().err
    save_checkpoint(trained(REPVGG), tmp_path/'src.pth')
    assert not clsnb('reparameterize', REPVGG, tmp_path/'src.pth', tmp_path/'out.pth', '--json')
    record = json.loads(capsys.readouterr().out)
    assert record['params']<record['params_before'] and record['difference']<1e-4
    assert clsnb('reparameterize_model', REPVGG, tmp_path/'src.pth', tmp_path/'out.onnx')==2
