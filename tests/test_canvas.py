"Canvases without a browser: what they send, what they refuse, what is left of them; explore(x)"
import gc, io, subprocess, sys, weakref
import numpy as np
import pytest
from ipywidgets.widgets.widget import _instances
from PIL import Image
from clsnb.core.errors import ClsnbError
from clsnb.widgets.canvas import CurveCanvas, GridCanvas, HeatCanvas, ScatterCanvas, has_canvas, use_canvas
from clsnb.widgets.explore import explore, explorer_rows
from clsnb.widgets.explorer import Explorer
from clsnb.widgets.still import paper_css, photo_boxes

def tell(canvas, kind, buffers=(), **content):
    "A message as the browser sends it"
    canvas._handle_custom_msg(dict(type=kind, **content), [memoryview(o) for o in buffers])

def tile(i): return Image.new('RGB', (20, 20), (i % 256, 0, 0))

@pytest.fixture
def grid():
    o = GridCanvas(100, tile, lambda i: f'<b>{i}</b>')
    o.sent = []
    o.send = lambda content, buffers=None: o.sent.append((content, buffers))
    yield o
    o.close()

# ---- Messages

def test_a_page_of_pictures(grid):
    tell(grid, 'page', version=0, page=0, first=0, last=32)
    content, (packed,) = grid.sent[0]
    assert len(content['sizes']) == 32 and sum(content['sizes']) == len(packed)
    assert content['captions'][3] == '<b>3</b>'  # text, which the page does not read as HTML
    first = Image.open(io.BytesIO(packed[:content['sizes'][0]]))
    assert first.format == 'JPEG' and first.size == (20, 20)

def test_a_page_of_earlier_items_is_not_answered(grid):
    grid.set_items(50)
    tell(grid, 'page', version=0, page=0, first=0, last=32)
    assert not grid.sent and not grid.errors

@pytest.mark.parametrize('first, last', [(-1, 5), (90, 101), (9, 3), (0, 1e9), ('x', 5)])
def test_pages_that_do_not_exist(grid, first, last):
    tell(grid, 'page', version=0, page=0, first=first, last=last)
    assert len(grid.errors) == 1 and grid.sent[-1][0]['type'] == 'error'

def test_a_picture_that_cannot_be_made_does_not_take_its_neighbours_along(grid):
    def some(i):
        if i == 1: raise OSError('cut short')
        return tile(i)
    grid.set_items(3, some)
    tell(grid, 'page', version=grid.version, page=0, first=0, last=3)
    content = grid.sent[-1][0]
    assert [bool(o) for o in content['sizes']] == [True, False, True] and 'cut short' in content['captions'][1]

def test_selection_and_keys(grid):
    got = []
    grid.on_select(lambda chosen: got.append(chosen.tolist()))
    grid.on_key(lambda key, chosen: got.append((key, chosen.tolist())))
    grid.on_open(got.append)
    bits = np.packbits(np.isin(np.arange(100), [2, 99]), bitorder='little').tobytes()
    tell(grid, 'key', key='x', current=7)  # nothing selected: the current one
    tell(grid, 'select', [bits], current=99)
    tell(grid, 'key', key='Delete', current=99)
    tell(grid, 'open', current=5000)  # beyond the last
    assert got == [('x', [7]), [2, 99], ('Delete', [2, 99]), 99] and grid.current == 99
    grid.selection = [0, 1]
    assert grid.selection.tolist() == [0, 1]
    grid.set_items(10)
    assert not len(grid.selection) and grid.current == 0

def test_a_callback_that_raises_is_shown_and_the_next_message_is_heard(grid):
    got = []
    grid.on_open(lambda i: 1/0 if i == 1 else got.append(i))
    tell(grid, 'open', current=1)
    tell(grid, 'open', current=2)
    assert got == [2] and isinstance(grid.errors[0], ZeroDivisionError)
    assert grid.sent[0][0] == dict(type='error', text='ZeroDivisionError: division by zero')

@pytest.mark.parametrize('message', [dict(type='nonsense'), {}, dict(type='receive'), dict(type='key')])
def test_unknown_messages(grid, message):
    grid._handle_custom_msg(message, [])
    assert len(grid.errors) == 1

def test_cells_of_a_heat_map():
    o, got = HeatCanvas(np.eye(3), 'abc', 'abc'), []
    o.on_click(lambda *cell: got.append(cell))
    tell(o, 'click', row=2, column=1)
    tell(o, 'click', row=3, column=0)
    assert got == [(2, 1)] and len(o.errors) == 1
    o.close()

@pytest.mark.parametrize('n, sparse', [(2, False), (300, True)])
def test_what_a_heat_map_sends_is_the_matrix(n, sparse):
    matrix = np.diag(np.arange(1, n+1)).astype(float)
    if not sparse: matrix += .5
    o = HeatCanvas(matrix, range(n), range(n))
    assert o.meta['sparse'] is sparse
    if sparse:
        half = len(o.data)//2
        flat = np.zeros(n*n, 'f4')
        flat[np.frombuffer(o.data[:half], 'u4')] = np.frombuffer(o.data[half:], 'f4')
    else: flat = np.frombuffer(o.data, 'f4')
    assert (flat.reshape(n, n) == matrix).all()
    o.close()

def test_wrong_shapes_are_refused_in_one_line():
    for make in (
        lambda: HeatCanvas(np.eye(3), 'ab', 'abc'),
        lambda: CurveCanvas(dict(a=([1, 2], [1]))),
        lambda: ScatterCanvas([1, 2], [1, 2], ['a']),
    ):
        with pytest.raises(ValueError) as e: make()
        assert '\n' not in str(e.value)

@pytest.mark.parametrize('make', [
    lambda: CurveCanvas({}),
    lambda: CurveCanvas(dict(a=([], []))),
    lambda: CurveCanvas(dict(a=([1, 2], [np.nan, np.nan]))),
    lambda: HeatCanvas(np.zeros((0, 0)), [], []),
    lambda: HeatCanvas([[np.nan]], ['a'], ['a']),
    lambda: HeatCanvas([[5]], ['a'], ['a']),
    lambda: ScatterCanvas([], [], []),
    lambda: GridCanvas(0, tile),
])
def test_nothing_one_and_nan(make):
    o = make()
    assert o.snapshot().jpeg and not o.errors
    o.close()

# ---- With and without

class Live(Explorer):
    "A curve of one control"
    def controls(self): return dict(n=range(1, 9))
    def canvases(self):
        self.curve = CurveCanvas({})
        return [self.curve]
    def draw(self, n): return Image.new('RGB', (n*10, 10))
    def update(self, n):
        if n == 5: raise ValueError('five')
        self.curve.set_lines(dict(a=(range(n), range(n))))

def test_pictures_are_drawn_until_a_browser_shows_the_canvas():
    w = Live(n=2)
    assert w.snapshot().px == (20, 10)
    tell(w.curve, 'shown')
    drawn = []
    object.__setattr__(w, 'draw', lambda n: drawn.append(n) or Image.new('RGB', (n*10, 10)))
    w.n = 3
    assert not drawn and len(w.curve.data) == 3*8
    assert w.snapshot().px == (30, 10) and w.snapshot().state == dict(n=3) and drawn == [3]
    w.n = 5
    assert 'five' in w._status.value and isinstance(w.errors[0], ValueError)
    w.close()

def test_forced(monkeypatch):
    assert has_canvas()
    monkeypatch.setenv('CLSNB_CANVAS', '0')
    assert not has_canvas()
    use_canvas(True)
    assert has_canvas()
    monkeypatch.delenv('CLSNB_CANVAS')
    use_canvas(False)
    try:
        w = Live()
        assert not any('anywidget' in (o._view_module or '') for o in w.children) and w.snapshot().jpeg
        w.close()
    finally: use_canvas()

def test_guarded_callbacks():
    w = Live()
    w.guarded(lambda: 1/0)()
    assert isinstance(w.errors[0], ZeroDivisionError) and '⚠' in w._status.value and w.guarded(lambda x: x)(3) == 3
    w.close()

# ---- Nothing is left

def open_and_close():
    w = Live(n=3)
    w._repr_mimebundle_()
    w.n = 4
    refs = [weakref.ref(o) for o in (w, w.curve)]
    w.close()
    return refs

def test_a_hundred_openings_leave_nothing():
    open_and_close()
    gc.collect()
    before, refs = len(_instances), []
    for _ in range(100): refs += open_and_close()
    gc.collect()
    assert len(_instances) == before
    assert not any(o() for o in refs)

# ---- The picture and its paper

def test_charts_are_inverted_in_the_dark_and_photographs_are_not():
    from clsnb.view.images import show_images
    from clsnb.view.style import new_chart
    assert photo_boxes(new_chart()[0]) == [] and photo_boxes(tile(0)) is None
    montage = show_images([tile(0), tile(9)], size=20)
    assert photo_boxes(montage) == [(0, 0, 20, 20), (24, 0, 20, 20)]
    assert 'prefers-color-scheme' in paper_css and 'data-jp-theme-light' in paper_css

# ---- explore(x)

def test_explore_opens_what_suits():
    w = explore(dict(policy='step', step=[3]), epochs=6)
    assert type(w).accepts is not None and 'step' in w.alt
    w.close()
    with pytest.raises(ClsnbError, match='No explorer opens a float'): explore(3.5)
    with pytest.raises(ClsnbError, match='schedule'): explore({}, 'shedule')

def test_a_folder_of_class_folders_is_cleaned(tmp_path):
    for name in 'ab':
        (tmp_path/name).mkdir()
        Image.new('RGB', (20, 20), 'red').save(tmp_path/name/'x.jpg')
    w = explore(tmp_path)
    assert type(w).__name__=='Cleaner' and len(w.pictures)==2
    w.close()

def test_each_row_leads_to_an_explorer():
    for row in explorer_rows:
        assert issubclass(row.load(), Explorer) and row.opens
        assert row.load().__init__ is not Explorer.__init__ and row.load().__doc__

def test_notebooks_show_real_signatures():
    code = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell('from clsnb.all import *')
for name in ('LRExplorer', 'PipelineExplorer', 'explore'): print(shell.object_inspect_mime(name)['text/plain'])
"""
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout
    assert out.count('Docstring') == 3 and '*args' not in out, out
