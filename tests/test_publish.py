"Weights for others: published, folded for deployment; they load back equal, and what cannot be used is told first"
import re
from datetime import date
from pathlib import Path
import pytest, torch
from clsnb.apis.fit import fit
from clsnb.apis.open_model import init_model
from clsnb.apis.publish import publish
from clsnb.core.checkpoint import read_checkpoint
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
