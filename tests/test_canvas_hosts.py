"Canvases in Notebook 7 and marimo, and what a notebook shows that is opened again"
import json, os, socket, subprocess, sys, time, urllib.parse, urllib.request
import pytest
from conftest import patience, watched_page

pytestmark = pytest.mark.browser

CURVE = """import numpy as np
from clsnb.widgets.canvas import CurveCanvas
x = np.arange(50)
CurveCanvas(dict(train=(x, 1/(1+x)), val=(x, 2/(1+x))), 'step', 'loss', alt='Two losses fall')"""
EXPLORER = """from clsnb.widgets.training import LRExplorer
LRExplorer(epochs=20)"""

def put_notebook(lab_url, name, *sources):
    "Write a notebook through the server's interface; returns the server's address and token"
    address = urllib.parse.urlsplit(lab_url)
    token = urllib.parse.parse_qs(address.query)['token'][0]
    cells = [dict(cell_type='code', id=f'c{i}', metadata={}, execution_count=None, outputs=[], source=o)
             for i, o in enumerate(sources)]
    nb = dict(cells=cells, metadata=dict(kernelspec=dict(name='python3', display_name='python3')),
              nbformat=4, nbformat_minor=5)
    base = f'{address.scheme}://{address.netloc}'
    call(f'{base}/api/contents/{name}', token, 'PUT', dict(type='notebook', content=nb))
    return base, token

def call(url, token, method='GET', content=None):
    data = None if content is None else json.dumps(content).encode()
    headers = {'Authorization': f'token {token}', 'Content-Type': 'application/json'}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=30) as r:
        return json.loads(r.read() or 'null')

def stop_kernels_of(base, token, name):
    for session in call(f'{base}/api/sessions', token):
        if session['path'] == name: call(f"{base}/api/sessions/{session['id']}", token, 'DELETE')

@pytest.fixture
def loose_page(browser):
    "A page whose console is not judged: a widget without its kernel is an error to JupyterLab"
    page, _ = watched_page(browser)
    yield page
    page.close()

def test_notebook_7(browser, lab_url):
    base, token = put_notebook(lab_url, 'n7.ipynb', CURVE)
    page, wrong = watched_page(browser)
    page.goto(f'{base}/notebooks/n7.ipynb?token={token}')
    page.locator('.jp-Notebook-ExecutionIndicator[data-status=idle]').wait_for()
    page.locator('.jp-CodeCell .cm-content').first.click()
    page.keyboard.press('Control+Enter')
    page.locator('.cvs[data-draws]').wait_for(timeout=3*patience)
    box = page.locator('.cvs-stage').bounding_box()
    page.mouse.move(box['x']+300, box['y']+80)
    page.locator('.cvs-note', has_text='step').wait_for()
    assert not page.locator('img[alt="Two losses fall"]').is_visible()
    page.close()
    stop_kernels_of(base, token, 'n7.ipynb')
    wrong = [o for o in wrong if 'schema' not in o and 'filebrowser:open-path' not in o]  # Notebook's own
    assert not wrong, wrong[:3]

@pytest.mark.parametrize('code, alt', [(CURVE, 'Two losses fall'), (EXPLORER, 'CosineAnnealing: starts')])
def test_opened_again_it_shows_the_picture(loose_page, lab_url, code, alt):
    page, picture = loose_page, loose_page.locator(f'img[alt^="{alt}"]').last
    base, token = put_notebook(lab_url, 'again.ipynb', code)
    page.goto(f'{base}/lab/workspaces/again/tree/again.ipynb?reset&token={token}')
    page.wait_for_function("window.jupyterapp?.shell.currentWidget?.context?.sessionContext?.session?.kernel?.status == 'idle'")
    page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")
    picture.wait_for(state='attached')
    page.locator('.cvs[data-draws], .clsnb-explorer [role=status]').first.wait_for()
    picture.wait_for(state='hidden')
    page.evaluate("jupyterapp.commands.execute('docmanager:save')")
    page.wait_for_function('!jupyterapp.shell.currentWidget.context.model.dirty')
    stop_kernels_of(base, token, 'again.ipynb')
    page.goto('about:blank')
    page.goto(f'{base}/lab/workspaces/again/tree/again.ipynb?reset&token={token}')
    picture.wait_for(state='visible')
    assert page.evaluate('jupyterapp.shell.currentWidget.content.model.cells.get(0).trusted')
    assert picture.evaluate('o => o.naturalWidth') > 100
    page.evaluate('jupyterapp.shell.currentWidget.context.sessionContext.shutdown()')  # without any kernel
    assert picture.is_visible()
    page.goto('about:blank')
    stop_kernels_of(base, token, 'again.ipynb')

def test_saved_with_nbconvert(tmp_path):
    import nbclient, nbformat
    from nbconvert import HTMLExporter
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CURVE), nbformat.v4.new_code_cell(EXPLORER)])
    nbclient.NotebookClient(nb, timeout=120, store_widget_state=False).execute()
    kinds = [sorted(o['data']) for cell in nb.cells for o in cell.outputs]
    assert kinds == 2*[['application/vnd.jupyter.widget-view+json', 'text/plain'], ['text/html', 'text/plain']]
    page = HTMLExporter().from_notebook_node(nb)[0]
    assert page.count('data:image/jpeg;base64') == 2 and 'Two losses fall' in page

MARIMO = """import marimo
app = marimo.App()

@app.cell
def _():
    import numpy as np
    from PIL import Image
    from clsnb.widgets.canvas import GridCanvas, HeatCanvas
    heat = HeatCanvas(7*np.eye(5), list('abcde'), list('abcde'), 'Five classes')
    heat.on_click(lambda row, column: heat.set_matrix(np.ones((5, 5))))
    heat
    return GridCanvas, Image

@app.cell
def _(GridCanvas, Image):
    GridCanvas(1000, lambda i: Image.new('RGB', (60, 60), (i % 256, 0, 0)), alt='Tiles')
    return

if __name__ == '__main__': app.run()
"""

@pytest.fixture
def marimo_url(tmp_path):
    pytest.importorskip('marimo')
    (tmp_path/'app.py').write_text(MARIMO)
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    env = {k: v for k, v in os.environ.items() if not k.lower().endswith('_proxy')}
    own = dict(HOME=str(tmp_path), XDG_CONFIG_HOME=str(tmp_path), XDG_STATE_HOME=str(tmp_path))
    command = [sys.executable, '-m', 'marimo', '-q', 'run', 'app.py', '--headless', '--port', str(port),
               '--host', '127.0.0.1', '--no-token']
    with open(tmp_path/'log', 'w') as log:
        p = subprocess.Popen(command, cwd=tmp_path, env=env | own, stdout=log, stderr=log)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f'http://127.0.0.1:{port}/', timeout=2)
                break
            except OSError:
                assert p.poll() is None, (tmp_path/'log').read_text()[-3000:]
                time.sleep(.1)
        yield f'http://127.0.0.1:{port}/'
    finally:
        p.terminate()
        p.wait(15)

def test_marimo(page, marimo_url):
    "The canvas alone: marimo has no ipywidgets"
    page.goto(marimo_url)
    page.locator('.cvs[data-draws]').first.wait_for()
    page.locator('.cvs-tile img[src^=blob]').first.wait_for()
    stage = page.locator('.cvs-stage[role=application]')
    box = stage.bounding_box()
    page.mouse.click(box['x']+120, box['y']+60)
    page.locator('.cvs-note', has_text='true a, predicted a: 1 ').wait_for()  # Python has heard and answered
