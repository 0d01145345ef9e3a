"Canvases in a live JupyterLab: drawing, pointer, wheel, keys, theme, and what is left without a kernel"
import os
import pytest

pytestmark = pytest.mark.browser

CURVE = """
import numpy as np
from clsnb.widgets.canvas import *
x = np.arange(200)
c = CurveCanvas(dict(train=(x, np.exp(-x/60)), val=(x[::10], .1+np.exp(-x[::10]/70))), 'step', 'loss', alt='Two losses')
got = []
c.on_click(lambda x: got.append(('click', x)))
c.on_brush(lambda *ends: got.append(('brush', *ends)))
c"""
HEAT = """
import numpy as np
from clsnb.widgets.canvas import *
rng = np.random.default_rng(0)
n = {n}
t = rng.integers(0, n, 50*n)
p = np.where(rng.random(50*n) < .8, t, rng.integers(0, n, 50*n))
m = np.bincount(t*n+p, minlength=n*n).reshape(n, n)
names = [f'class {{i}}' for i in range(n)]
c = HeatCanvas(m, names, names, 'Confusion matrix')
got = []
c.on_click(lambda row, column: got.append((row, column)))
c"""
GRID = """
import numpy as np
from PIL import Image
from clsnb.widgets.canvas import *
tile = lambda i: Image.new('RGB', (112, 112), (i % 256, 40, 200-i % 200))
c = GridCanvas({count}, tile, lambda i: f'{{i}} true cat, predicted dog', alt='Many pictures')
got = []
c.on_open(lambda i: got.append(('open', i)))
c.on_select(lambda chosen: got.append(('select', len(chosen))))
c.on_key(lambda key, chosen: got.append((key, chosen.tolist())))
c"""
SCATTER = """
import numpy as np
from clsnb.widgets.canvas import *
rng = np.random.default_rng(0)
group = np.repeat(['cat', 'dog', 'duck'], 200)
x = rng.normal(size=600)+4*(group == 'dog')
y = rng.normal(size=600)+4*(group == 'duck')
c = ScatterCanvas(x, y, [f'img {i}' for i in range(600)], group, 'Three classes')
got = []
c.on_select(lambda chosen: got.append(('select', len(chosen))))
c.on_click(lambda i: got.append(('click', i)))
c"""
DRAWN = '.jp-OutputArea .cvs[data-draws]'

def shoot(nb, name):
    if folder := os.environ.get('CLSNB_SHOTS'): nb.page.screenshot(path=f'{folder}/{name}.png')

def stage_box(nb):
    return nb.page.locator('.cvs-stage').first.bounding_box()

def heard(nb, expected):
    "Wait for callbacks in the kernel"
    nb.py(f"import time\nfor _ in range(200):\n  if len(got) >= {len(expected)}: break\n  time.sleep(.02)\n"
          f"assert got == {expected!r} and not c.errors, (got, c.errors)")

def draws(nb):
    return int(nb.page.locator('.cvs').first.get_attribute('data-draws'))

def await_draw(nb, before):
    nb.page.wait_for_function("n => Number(document.querySelector('.cvs').dataset.draws) > n", arg=before)

def view(nb):
    "The range that a curve shows, as its lowest and highest tick are in no attribute: by hovering at both ends"
    box, ends = stage_box(nb), []
    for x in (box['x']+66, box['x']+box['width']-16):
        nb.page.mouse.move(x, box['y']+50)
        nb.page.wait_for_timeout(60)
        ends.append(float(nb.page.locator('.cvs-note').first.text_content().split()[1].rstrip(':')))
    return ends

def test_curve_is_read_brushed_and_clicked(nb):
    nb.run(CURVE, DRAWN)
    box = stage_box(nb)
    middle = box['x']+box['width']/2
    nb.page.mouse.move(middle, box['y']+100)
    nb.text('.cvs-note', r'step \d+: train 0\.\d+, val 0\.\d+')
    nb.page.mouse.down()
    nb.page.mouse.move(middle+100, box['y']+120, steps=4)
    nb.page.mouse.up()
    nb.text('.cvs-note', 'range ')
    nb.py("import time\nfor _ in range(100):\n  if got: break\n  time.sleep(.02)\n"
          "low, high = got[0][1:]\nassert got[0][0] == 'brush' and 80 < low < high < 150 and c.brush == [low, high], got")
    nb.page.get_by_label('Zoom to the marked range').click()
    nb.page.wait_for_timeout(100)
    low, high = view(nb)
    assert low > 80 and high < 150
    nb.page.mouse.click(box['x']+200, box['y']+100)
    nb.py("import time\nfor _ in range(100):\n  if len(got) > 2: break\n  time.sleep(.02)\n"
          "assert [o[0] for o in got] == ['brush', 'brush', 'click'] and got[1] == ('brush', None, None), got")

def test_wheel_zooms_only_while_focused_or_with_control(nb):
    nb.run(CURVE, DRAWN)
    box = stage_box(nb)
    before = draws(nb)
    nb.page.mouse.move(box['x']+400, box['y']+100)
    nb.page.mouse.wheel(0, -100)
    nb.page.wait_for_timeout(200)
    assert draws(nb) == before  # the notebook may scroll
    nb.page.keyboard.down('Control')
    nb.page.mouse.wheel(0, -100)
    nb.page.keyboard.up('Control')
    await_draw(nb, before)
    nb.page.locator('.cvs-stage').first.focus()
    nb.page.mouse.wheel(0, -100)
    await_draw(nb, before+1)

def test_curve_by_keyboard(nb):
    nb.run(CURVE, DRAWN)
    stage = nb.page.locator('.cvs-stage').first
    assert stage.get_attribute('role') == 'application' and 'Two losses' in stage.get_attribute('aria-label')
    stage.focus()
    for key in ('ArrowRight', 'ArrowRight', 'ArrowRight', 'Enter'): nb.page.keyboard.press(key)
    nb.text('.cvs-note', r'step 2: train 0\.967')
    nb.page.keyboard.press('Shift+ArrowRight')
    nb.page.keyboard.press('Shift+ArrowRight')
    nb.text('.cvs-note', 'range 2 to 4')
    heard(nb, [('click', 2.0), ('brush', 2.0, 3.0), ('brush', 2.0, 4.0)])
    before = draws(nb)
    for key in ('+', '-', '0', 'b', 'a'): nb.page.keyboard.press(key)
    await_draw(nb, before)
    assert nb.page.evaluate('jupyterapp.shell.currentWidget.content.model.cells.length') == 1  # keys of JupyterLab

def test_heat_map_is_hovered_clicked_zoomed(nb):
    nb.run(HEAT.format(n=30), DRAWN)
    box = stage_box(nb)
    nb.page.mouse.move(box['x']+250, box['y']+100)
    nb.text('.cvs-note', r'true class \d+, predicted class \d+: \d+')
    stage = nb.page.locator('.cvs-stage').first
    stage.focus()
    nb.page.mouse.move(box['x']+2, box['y']+2)
    nb.page.wait_for_timeout(100)
    for key in ('ArrowDown', 'ArrowRight', 'ArrowDown', 'Enter'): nb.page.keyboard.press(key)
    nb.text('.cvs-note', 'true class 1, predicted class 1: ')
    heard(nb, [(1, 1)])
    before = draws(nb)
    nb.page.keyboard.press('+')
    await_draw(nb, before)
    nb.py("c.set_matrix(np.zeros((30, 30)))")
    await_draw(nb, before+1)
    nb.text('.cvs-note', r': 0 \(0 % of the row\)')

def test_grid_is_scrolled_selected_and_marked_by_key(nb):
    nb.run(GRID.format(count=50000), DRAWN)
    nb.page.locator('.cvs-tile img[src^=blob]').first.wait_for()
    assert nb.page.locator('.cvs-tile').count() < 60
    nb.page.locator('[data-index="2"]').click()
    nb.page.locator('[data-index="4"]').click(modifiers=['Shift'])
    nb.text('.cvs-note', '3 of 50000 selected')
    nb.page.keyboard.press('x')
    nb.page.keyboard.press('Escape')
    for key in ('ArrowRight', 'Enter'): nb.page.keyboard.press(key)
    heard(nb, [('select', 1), ('select', 3), ('x', [2, 3, 4]), ('select', 0), ('open', 5)])
    nb.page.keyboard.press('End')
    nb.page.locator('[data-index="49999"] img[src^=blob]').wait_for()
    nb.page.keyboard.press('Control+a')
    nb.text('.cvs-note', '50000 of 50000 selected')
    nb.py("c.set_items(3)")
    nb.page.wait_for_function("document.querySelectorAll('.cvs-tile').length === 3")

def test_scatter_lasso_and_keys(nb):
    nb.run(SCATTER, DRAWN)
    box = stage_box(nb)
    nb.page.mouse.move(box['x']+20, box['y']+20)
    nb.page.mouse.down()
    for x, y in ((600, 20), (600, 400), (20, 400)): nb.page.mouse.move(box['x']+x, box['y']+y, steps=3)
    nb.page.mouse.up()
    nb.text('.cvs-note', r'of 600 points selected')
    nb.py("import time\nfor _ in range(100):\n  if got: break\n  time.sleep(.02)\n"
          "assert got[0] == ('select', len(c.selection)) and 300 < len(c.selection) < 600, got")
    nb.page.locator('.cvs-stage').first.focus()
    for key in ('Escape', 'ArrowRight', 'ArrowRight', ' '): nb.page.keyboard.press(key)
    nb.text('.cvs-note', '1 selected')

def test_touch_pinches_and_taps(nb):
    nb.run(CURVE, DRAWN)
    before = draws(nb)
    nb.page.evaluate("""() => {
      const stage = document.querySelector('.cvs-stage'), box = stage.getBoundingClientRect();
      stage.setPointerCapture = () => {};
      const send = (type, id, x) => stage.dispatchEvent(new PointerEvent(type, {
        pointerId: id, pointerType: 'touch', clientX: box.left + x, clientY: box.top + 100, bubbles: true}));
      send('pointerdown', 1, 300); send('pointerdown', 2, 400);
      send('pointermove', 1, 200); send('pointermove', 2, 500);
      send('pointerup', 1, 200); send('pointerup', 2, 500);
    }""")
    await_draw(nb, before)
    low, high = view(nb)
    assert low > 5 and high < 190 and not nb.page.evaluate("document.querySelector('.cvs-bar button:disabled') === null")

def test_what_needs_no_kernel_goes_on_while_it_is_busy(nb):
    nb.run(CURVE, DRAWN)
    nb.page.evaluate("""() => { const s = jupyterapp.shell.currentWidget.context.sessionContext.session.kernel;
      window.busy = s.requestExecute({code: 'import time; time.sleep(4)'}).done; }""")
    box, before = stage_box(nb), draws(nb)
    nb.page.mouse.move(box['x']+300, box['y']+100)
    nb.page.locator('.cvs-note', has_text='step').wait_for(timeout=1500)
    nb.page.locator('.cvs-stage').first.focus()
    nb.page.keyboard.press('+')
    nb.page.wait_for_function("n => Number(document.querySelector('.cvs').dataset.draws) > n", arg=before, timeout=1500)
    assert nb.page.evaluate("jupyterapp.shell.currentWidget.context.sessionContext.session.kernel.status") == 'busy'
    nb.page.evaluate('window.busy')

def theme(nb, dark):
    name = 'JupyterLab Dark' if dark else 'JupyterLab Light'
    nb.page.evaluate("name => jupyterapp.commands.execute('apputils:change-theme', {theme: name})", name)
    nb.page.wait_for_function("dark => document.body.dataset.jpThemeLight === String(!dark)", arg=dark)

def test_light_and_dark(nb):
    nb.run(HEAT.format(n=5), DRAWN)
    color = "document.querySelector('.cvs-layer').getContext('2d').getImageData(2, 2, 1, 1).data[0]"
    assert nb.page.evaluate(color) > 240
    try:
        theme(nb, dark=True)
        nb.page.locator('.cvs[data-theme=dark]').wait_for()
        nb.page.wait_for_function(f'{color} < 60')
    finally: theme(nb, dark=False)
    nb.page.locator('.cvs[data-theme=light]').wait_for()

EXPLORER = """
from clsnb.widgets.explorer import Explorer
from clsnb.widgets.canvas import *
from clsnb.view.style import new_chart
import gc, numpy as np
from ipywidgets.widgets.widget import _instances
class Wave(Explorer):
    title = 'A wave'
    def controls(self): return dict(frequency=range(1, 9), share=(0., .5, 1.), log_scale=False)
    def canvases(self):
        self.curve = CurveCanvas({}, 'time', 'height', alt='A wave')
        return [self.curve]
    def draw(self, frequency, **_):
        fig, ax = new_chart(6, 2)
        ax.plot(np.sin(np.arange(200)*frequency/30))
        return fig
    def update(self, frequency, **_):
        if frequency == 8: raise ValueError('eight is <b>too many</b>')
        self.curve.set_lines(dict(wave=(np.arange(200), np.sin(np.arange(200)*frequency/30))))
n = len(_instances)
ex = Wave()
ex"""

def test_explorer_shows_its_canvas_in_place_of_the_picture(nb):
    nb.run(EXPLORER, DRAWN)
    nb.page.locator('.clsnb-picture').wait_for(state='hidden')
    assert not any(o.is_visible() for o in nb.page.locator('.jp-OutputArea img').all())
    before = draws(nb)
    nb.page.get_by_title('frequency: one on').click()
    await_draw(nb, before)
    nb.text('.clsnb-status', 'frequency 2.*drawing 2')
    assert nb.page.locator('.clsnb-count').bounding_box()['width'] <= 1
    nb.slide('.clsnb-frequency', 8)
    nb.text('.clsnb-status', 'ValueError: eight is <b>too many</b>')
    nb.py("assert ex.curve.shown and len(ex.errors) == 1 and ex.snapshot().state['frequency'] == 8")
    nb.py("ex.close(); assert len(_instances) == n, (len(_instances), n)")

def test_every_control_has_a_name_and_tab_reaches_it(nb):
    nb.run(EXPLORER, '.clsnb-explorer[data-named]')
    nameless = nb.page.evaluate("""() => [...document.querySelectorAll(
      '.clsnb-explorer :is(button, select, input, [tabindex="0"], [role=slider])')]
      .filter(o => o.offsetParent && !(o.getAttribute('aria-label') || o.labels?.length || /\\w/.test(o.textContent)))
      .map(o => o.outerHTML.slice(0, 90))""")
    assert nameless == []
    assert nb.page.get_by_role('slider', name='frequency').count() == 1
    assert nb.page.get_by_role('button', name='frequency: one on').count() == 1

def test_from_400_pixels_on(nb):
    try:
        for width in (480, 1600):
            nb.page.set_viewport_size(dict(width=width, height=900))
            nb.page.evaluate(f"jupyterapp.shell.{'collapse' if width == 480 else 'expand'}Left()")
            nb.run(EXPLORER, '.clsnb-explorer .noUi-handle')
            nb.page.locator(DRAWN).first.wait_for()
            beyond, slider, share = nb.page.evaluate("""() => {
              const root = document.querySelector('.clsnb-explorer');
              const width = selector => document.querySelector(selector).offsetWidth;
              return [root.scrollWidth - root.clientWidth, width('.noUi-base'), width('.cvs-stage') / root.clientWidth]; }""")
            assert beyond <= 1 and slider >= 90 and share > .9, (width, beyond, slider, share)
    finally: nb.page.set_viewport_size(dict(width=1280, height=900))

def test_openings_leave_nothing(nb):
    nb.run(EXPLORER, DRAWN)
    nb.py("ex.close(); del ex; import weakref; refs = []; gc.collect(); n = len(_instances)")
    for _ in range(12):
        nb.run("w = Wave(); refs += [weakref.ref(w), weakref.ref(w.curve)]; display(w)", DRAWN)
        nb.py("w.close(); del w")
        nb.page.wait_for_function("document.querySelectorAll('.cvs, .clsnb-explorer').length === 0")
    nb.py("gc.collect(); left = sum(o() is not None for o in refs); assert len(_instances) == n and not left, left")
