"Configs and checkpoints of the zoo as files in a folder"
import hashlib, http.server, json, threading
from pathlib import Path
import pytest
from clsnb.apis.download import download_models
from clsnb.apis.fit import fit
from clsnb.apis.info import model_info
from clsnb.cli import main
from clsnb.config.config import Config
from clsnb.core.errors import ConfigError, DataError
from clsnb.core.io import cache_dir, download
from clsnb.zoo import index

DATA = bytes(range(256))*4000
DIGEST = hashlib.sha256(DATA).hexdigest()[:8]
NAME = 'lenet5_mine_digits'
FILE = f'{NAME}_20260101-{DIGEST}.pth'

class Server(http.server.BaseHTTPRequestHandler):
    "Has one file; breaks off after `most` bytes of an answer"
    most = len(DATA)
    asked = []
    def do_GET(self):
        if not self.path.endswith(FILE): return self.send_error(404)
        at = int((self.headers.get('Range') or 'bytes=0-')[6:-1])
        self.asked.append(at)
        if at>=len(DATA): return self.send_error(416)
        self.send_response(206 if at else 200)
        self.send_header('Content-Length', len(DATA)-at)
        self.end_headers()
        self.wfile.write(DATA[at:at+self.most])
    def log_message(self, *args): pass

@pytest.fixture
def mirror(tmp_path, monkeypatch):
    "A mirror of the zoo with one more model, and an empty cache"
    facts = index._facts()
    row = dict.fromkeys(facts['columns']) | dict(
        name=NAME, config='lenet5_1xb32_digits', family='lenet', weights=f'lenet/{FILE}', note='')
    changed = facts | dict(rows=[*facts['rows'], list(row.values())])
    monkeypatch.setattr(index, '_facts', lambda: changed)
    monkeypatch.setenv('CLSNB_HOME', str(tmp_path/'cache'))
    monkeypatch.setattr(Server, 'most', len(DATA))
    monkeypatch.setattr(Server, 'asked', [])
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv('CLSNB_ZOO', f'http://127.0.0.1:{server.server_port}')
        yield Server
        server.shutdown()

def test_config_and_checkpoint_come_to_a_folder(mirror, tmp_path):
    [row] = download_models(NAME, tmp_path/'new/folder').to_dict('records')
    assert row['problem'] is None and Path(row['checkpoint']).name==FILE
    assert Path(row['checkpoint']).read_bytes()==DATA
    config = Config.fromfile(row['config'])
    assert config.model==Config.fromfile('lenet5_1xb32_digits').model and '_base_' not in Path(row['config']).read_text()
    assert sorted(o.name for o in (tmp_path/'new/folder').iterdir())==['lenet5_1xb32_digits.py', FILE]

def test_what_is_there_is_not_fetched_again(mirror, tmp_path):
    first = download_models([NAME], tmp_path/'a')
    assert mirror.asked==[0] and download_models([NAME], tmp_path/'a').equals(first) and mirror.asked==[0]
    (tmp_path/'a'/FILE).rename(cache_dir('checkpoints')/FILE)
    assert download_models([NAME], tmp_path/'b').problem.isna().all() and mirror.asked==[0]
    assert (tmp_path/'b'/FILE).read_bytes()==DATA
    (tmp_path/'b'/FILE).write_bytes(b'torn')
    assert download_models([NAME], tmp_path/'b').problem.isna().all() and (tmp_path/'b'/FILE).read_bytes()==DATA

def test_a_broken_connection_is_continued_next_time(mirror, tmp_path):
    mirror.most = 100_000
    [row] = download_models(NAME, tmp_path).to_dict('records')
    assert row['checkpoint'] is None and 'broke after 300,000' in row['problem'] and '\n' not in row['problem']
    assert not (tmp_path/FILE).exists() and (tmp_path/f'{FILE}.part').stat().st_size==300_000
    mirror.most = len(DATA)
    mirror.asked.clear()
    assert download_models(NAME, tmp_path).problem.isna().all() and mirror.asked==[300_000]
    assert (tmp_path/FILE).read_bytes()==DATA and not (tmp_path/f'{FILE}.part').exists()

@pytest.mark.parametrize('kept', [b'x'*1000, b'x'*(len(DATA)+5)])
def test_a_part_of_another_file_is_not_trusted(kept, mirror, tmp_path):
    (tmp_path/f'{FILE}.part').write_bytes(kept)
    rows = [download_models(NAME, tmp_path) for _ in range(2)]
    assert rows[-1].problem.isna().all() and (tmp_path/FILE).read_bytes()==DATA

def test_without_a_network_it_is_one_line(mirror, tmp_path, monkeypatch):
    monkeypatch.setenv('CLSNB_ZOO', 'http://127.0.0.1:9')
    [row] = download_models(NAME, tmp_path).to_dict('records')
    assert '$CLSNB_ZOO' in row['problem'] and '\n' not in row['problem'] and row['config']
    assert not (tmp_path/FILE).exists()

def test_one_that_fails_does_not_stop_the_others(mirror, tmp_path):
    table = download_models(['resnet18-tiny_1xb16_photos', NAME], tmp_path)
    assert list(table.problem.isna())==[False, True] and 'No weights were published' in table.problem[0]

def test_wrong_input_is_told_before_anything_is_fetched(mirror, tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'resnet50"):
        download_models([NAME, 'resnet50_8xb32_in1'], tmp_path/'a')
    (tmp_path/'file').write_text('')
    with pytest.raises(DataError, match='cannot be written'): download_models(NAME, tmp_path/'file/in')
    assert not (tmp_path/'a').exists() and mirror.asked==[]

def test_a_config_of_ones_own_stays(mirror, tmp_path):
    (tmp_path/'lenet5_1xb32_digits.py').write_text('seed = 1\n')
    [row] = download_models(NAME, tmp_path).to_dict('records')
    assert 'already exists with other contents' in row['problem']
    assert (tmp_path/'lenet5_1xb32_digits.py').read_text()=='seed = 1\n'

def test_a_part_is_kept_only_where_a_hash_tells(mirror, tmp_path, monkeypatch):
    mirror.most = 10
    url = f"{index.zoo_server()}{FILE}"
    with pytest.raises(DataError): download(url, tmp_path/'a', resume=True)
    assert not list(tmp_path.glob('a*'))

def test_download_as_a_command(mirror, tmp_path, capsys):
    assert not main(['download', NAME, '--dest', str(tmp_path/'a')])
    assert (tmp_path/'a'/FILE).exists() and str(tmp_path/'a'/FILE) in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(['download', NAME, 'resnet18-tiny_1xb16_photos', '--dest', str(tmp_path/'a'), '--json'])
    rows = json.loads(capsys.readouterr().out)['models']
    assert stop.value.code==1 and rows[0]['problem'] is None and 'No weights' in rows[1]['problem']
    with pytest.raises(SystemExit) as stop: main(['download', 'resnet50_8xb32_in1'])
    error = capsys.readouterr().err
    assert stop.value.code==2 and error.count('\n')==1 and "Did you mean 'resnet50" in error

# ---- What a model is

def test_info_of_a_name_a_config_a_run_and_a_checkpoint(tmp_path, capsys):
    assert not main(['info', 'resnet18_8xb32_in1k', '--json'])
    facts = json.loads(capsys.readouterr().out)['info']
    assert facts['parameters']==11689512 and facts['classes']==1000 and facts['input_size']==[224, 224]
    assert 'top-1 69.9' in facts['accuracy'] and facts['weights'].startswith('http') and 'Apache' in facts['licence']
    options = {'runner.max_epochs': 1, 'data.workers_per_gpu': 0, 'log_level': 'ERROR', 'results': False}
    run = fit('lenet5_1xb32_digits', tmp_path/'run', options, device='cpu')
    for model in (run.folder, run.weights, 'lenet5_1xb32_digits'):
        facts = model_info(model)
        assert facts['classes']==10 and facts['input_size']==[32, 32] and facts['parameters']>10**4
    assert 'accuracy' in model_info(run.folder)['accuracy'] and str(run.weights)==model_info(run)['weights']

@pytest.mark.parametrize('model, text', [('resnet50_8xb32_in1', "Did you mean 'resnet50"), ('none.pth', 'none.pth')])
def test_info_of_what_is_not_there(model, text, capsys):
    with pytest.raises(SystemExit) as stop: main(['info', model])
    error = capsys.readouterr().err
    assert stop.value.code==2 and text in error and error.count('\n')==1
