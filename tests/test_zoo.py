"The zoo: its facts, and the way from a name to weights"
import hashlib, http.server, threading
from functools import partial
import pytest, torch
from clsnb.apis.inference import init_model
from clsnb.cli import main
from clsnb.core.checkpoint import save_checkpoint
from clsnb.config.config import Config, list_configs
from clsnb.core.errors import CheckpointError, ConfigError
from clsnb.core.registry import MODELS
from clsnb.zoo import index

def test_the_facts_hold_together():
    z = index.zoo()
    assert z.name.is_unique and set(z.config.dropna()) == set(list_configs())
    files = index.zoo(pretrained=True).weights
    assert len(files) == 224 and files.is_unique
    unhashed = files[~files.str.contains(r'-[0-9a-f]{8}\.pth$')] # Swin's of ImageNet-21k
    assert len(unhashed) == 4 and unhashed.str.contains('swin-.*_3rdparty_in21k').all()
    assert z[z.top5.notna()].eval('top1 < top5').all()
    assert z.year.dropna().between(1990, 2023).all()
    assert z[z.flops.notna()].eval('flops > 1e7').all()
    assert z[z.params.notna()].eval('3e4 < params < 4e8').all()

def test_input_sizes_are_those_of_the_configs():
    for r in index.zoo().to_dict('records'):
        if not isinstance(r['config'], str) or not isinstance(r['input_size'], int): continue
        cfg = Config.fromfile(r['config'])
        sizes = (
            [
                s.get('crop_size') or s.get('size')
                for s in cfg.data.test.pipeline
                if s['type'] in ('Resize', 'CenterCrop')
            ]
            or [cfg.data.train.pipeline[0]['size']]
        )
        assert (
            (sizes[-1] if isinstance(sizes[-1], int) else sizes[-1][0]) == r['input_size']
        ), r['name']

def test_the_table_stays_a_table():
    import pandas as pd, pickle
    z = index.search_models('swin 384')
    assert 4 <= len(z) < 12 and z.name.str.contains('swin').all()
    assert 'swin' in z.sort_values('top1')._repr_html_()
    assert '<table' in z[['name', 'top1']].head(2)._repr_html_()
    assert '<script' not in z.assign(name='<script>')._repr_html_()
    assert len(index.search_models('no such thing')) == 0
    assert isinstance(pickle.loads(pickle.dumps(z)), pd.DataFrame) and isinstance(z.top1.max(), float)
    assert (
        index.list_models('*swinv2*384px') == index.list_models('swinv2*384px') != index.list_models('swinv2')
    )
    assert index.list_models(pretrained=False) and len(index.list_models(pretrained=True)) == 224

@pytest.fixture
def server(tmp_path, monkeypatch):
    "A server on this machine that has weights for LeNet-5, under their hash; stop it for `no network`"
    folder = tmp_path/'server/lenet'
    folder.mkdir(parents=True)
    model = MODELS.build(Config.fromfile('lenet5_mnist').model)
    model.CLASSES = None
    save_checkpoint(model, folder/'w.pth')
    digest = hashlib.sha256((folder/'w.pth').read_bytes()).hexdigest()[:8]
    (folder/'w.pth').rename(folder/f'lenet5_mnist_20200101-{digest}.pth')
    facts = index._facts()
    rows = [
        [*r[:9], f'lenet/lenet5_mnist_20200101-{digest}.pth', r[10]] if r[0] == 'lenet5_mnist' else r
        for r in facts['rows']
    ]
    monkeypatch.setattr(index, '_facts', lambda: facts | dict(rows=rows))
    quiet = type('Quiet', (http.server.SimpleHTTPRequestHandler,), dict(log_message=lambda *a: None))
    s = http.server.ThreadingHTTPServer(('127.0.0.1', 0), partial(quiet, directory=str(tmp_path/'server')))
    threading.Thread(target=s.serve_forever, daemon=True).start()
    monkeypatch.setenv('CLSNB_ZOO', f'http://127.0.0.1:{s.server_port}')
    monkeypatch.setenv('CLSNB_HOME', str(tmp_path/'home'))
    s.weights, s.file = model.state_dict(), folder/f'lenet5_mnist_20200101-{digest}.pth'
    yield s
    s.shutdown()
    s.server_close()

def test_from_a_name_to_weights(server, tmp_path):
    models = [init_model('lenet5_mnist', pretrained=True)]
    server.shutdown()
    server.server_close()  # what follows needs no network
    models += [
        init_model('zoo://lenet5_mnist'),
        init_model('lenet5_mnist', 'zoo://lenet5_mnist'),
        init_model(Config.fromfile('lenet5_mnist'), pretrained=True),
    ]
    for m in models:
        assert all(torch.equal(v, server.weights[k]) for k, v in m.state_dict().items())
        assert m.CLASSES[0] == '0 - zero' and not m.training and m.cfg.data.test.type == 'MNIST'
    assert (tmp_path/'home/checkpoints'/server.file.name).is_file()

def test_without_a_network_the_file_and_folder_are_named(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(CheckpointError) as e:
        init_model('lenet5_mnist', pretrained=True)
    assert '\n' not in str(e.value)
    assert server.file.name in str(e.value)
    assert str(tmp_path/'home/checkpoints') in str(e.value)
    (tmp_path/'home/checkpoints'/server.file.name).write_bytes(server.file.read_bytes())
    init_model('lenet5_mnist', pretrained=True)

def test_other_bytes_are_refused(server, tmp_path):
    server.file.write_bytes(server.file.read_bytes()+b'x')
    with pytest.raises(CheckpointError, match='hash'):
        init_model('lenet5_mnist', pretrained=True)
    assert not list((tmp_path/'home/checkpoints').rglob('*.pth'))

def test_what_cannot_be_meant():
    for call, text in (
        (lambda: init_model('resnet50_8xb32_in2k', pretrained=True), 'resnet50_8xb32_in1k'),
        (lambda: init_model({}, pretrained=True), 'name'),
        (lambda: init_model('lenet5_mnist', 'x.pth', pretrained=True), 'one'),
        (lambda: init_model('zoo://convnext-base_3rdparty_in21k'), 'init_cfg'),
    ):
        with pytest.raises(ConfigError, match=text) as e: call()
        assert '\n' not in str(e.value)
    with pytest.raises(CheckpointError, match='No weights'):
        init_model('resnest50_32xb64_in1k', 'zoo://resnest50_32xb64_in1k')

def test_the_command(capsys):
    main(['zoo', 'swin', '384'])
    out = capsys.readouterr().out
    assert 'swin-base_3rdparty_in1k-384' in out and 'resnet' not in out
    with pytest.raises(SystemExit): main(['zoo', 'swinn'])
    err = capsys.readouterr().err
    assert "'swin'" in err and err.count('\n') == 1

def test_short_names_mean_the_plain_imagenet_model():
    for short, name in (
        ('resnet50', 'resnet50_8xb32_in1k'), ('resnet-50', 'resnet50_8xb32_in1k'), ('ResNet 50', 'resnet50_8xb32_in1k'),
        ('swin_tiny', 'swin-tiny'), ('vit', 'vit-base-p16'), ('mobilenet-v2', 'mobilenet-v2_8xb32_in1k'),
        ('regnetx-400mf', 'regnetx-400mf'), ('convnext', 'convnext-tiny'),
    ):
        r = index.zoo_entry(short)
        assert r['name'].startswith(name) and r['weights'] and 'ImageNet-1k' in r['training_data'], short
    for wrong in ('resnet5', 'resnet50x', 'no such model', '', '_'):
        with pytest.raises(ConfigError) as e: index.zoo_entry(wrong)
        assert '\n' not in str(e.value)
    with pytest.raises(ConfigError) as e: index.zoo_entry('resnet50_8xb8')
    assert str(e.value).index('in1k') < (str(e.value)+'_cub').index('_cub')

def test_what_the_documentation_lists_beside_the_metafiles():
    z = index.zoo().set_index('name')
    assert z.loc['regnetx-800mf_3rdparty_in1k'].top1 == 75.21 and z.loc['vit-base-p16_ft-4xb544-ipu_in1k'].top1 == 81.22
    assert z.loc['swin-large_3rdparty_in21k-384px'].weights.endswith('swin-large_3rdparty_in21k-384px.pth')
    assert len(z[z.config.isna() & z.weights.notna()]) == 19 # weights to start from
    assert index.zoo_entry('regnetx-800mf_8xb128_in1k')['top1'] == 74.76 # the name of a config is not the other's

def test_a_name_on_the_command_line_means_its_published_weights(server, capsys):
    from clsnb.apis.open_model import model_to_ask
    from clsnb.data.sets.packaged import photo_path
    main(['predict', 'lenet5_mnist', str(photo_path('cat'))])
    assert '(untrained)' not in capsys.readouterr().out
    assert model_to_ask('lenet5_mnist') == ('zoo://lenet5_mnist', None)
    assert init_model(*model_to_ask('lenet5_mnist')).weights == 'zoo://lenet5_mnist'
