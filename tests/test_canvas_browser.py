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

def test_curve(nb):
    nb.run(CURVE, DRAWN)
    stage = nb.page.locator('.cvs-stage').first
    box = stage.bounding_box()
    nb.page.mouse.move(box['x']+box['width']/2, box['y']+100)
    nb.text('.cvs-note', r'step \d+: train 0\.\d+, val 0\.\d+')
    shoot(nb, 'curve')
    nb.page.mouse.down()
    nb.page.mouse.move(box['x']+box['width']/2+100, box['y']+120, steps=4)
    nb.page.mouse.up()
    nb.text('.cvs-note', 'range ')
    nb.page.mouse.click(box['x']+200, box['y']+100)
    nb.py("import time\nfor _ in range(100):\n  if len(got) > 2: break\n  time.sleep(.02)\n"
          "assert [o[0] for o in got] == ['brush', 'brush', 'click'] and not c.errors, (got, c.errors)")

def test_heat(nb):
    nb.run(HEAT.format(n=30), DRAWN)
    box = nb.page.locator('.cvs-stage').first.bounding_box()
    nb.page.mouse.move(box['x']+250, box['y']+100)
    nb.text('.cvs-note', r'true class \d+, predicted class \d+: \d+')
    shoot(nb, 'heat')

def test_grid(nb):
    nb.run(GRID.format(count=50000), DRAWN)
    nb.page.locator('.cvs-tile img[src^=blob]').first.wait_for()
    shoot(nb, 'grid')
    nb.page.locator('.cvs-tile').nth(2).dblclick()
    nb.text('.cvs-note', '1 of 50000 selected')

def test_scatter(nb):
    nb.run(SCATTER, DRAWN)
    box = nb.page.locator('.cvs-stage').first.bounding_box()
    nb.page.mouse.move(box['x']+20, box['y']+20)
    nb.page.mouse.down()
    for x, y in ((600, 20), (600, 400), (20, 400)): nb.page.mouse.move(box['x']+x, box['y']+y, steps=3)
    nb.page.mouse.up()
    nb.text('.cvs-note', r'of 600 points selected')
    shoot(nb, 'scatter')
