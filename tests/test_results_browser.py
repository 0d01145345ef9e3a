"The results explorer and the Cleaner in a live JupyterLab: click, key, and marks that stay"
import os
import pytest

pytestmark = pytest.mark.browser

START = """
import numpy as np, os, tempfile
os.chdir(tempfile.mkdtemp())
from clsnb.data.sets.packaged import Photos
from clsnb.runs.results import Results
from clsnb.widgets.cleaner import Cleaner
from clsnb.widgets.results import ResultsExplorer
photos = Photos('val', [dict(type='LoadImageFromFile')])
rng = np.random.default_rng(0)
scores = rng.dirichlet(np.ones(6), len(photos))+1.2*np.eye(6)[photos.get_gt_labels()]*rng.random((len(photos), 1))
results = Results.from_dataset(scores/scores.sum(1, keepdims=True), photos)
"""
DRAWN = '.jp-OutputArea .cvs[data-draws]'

def shoot(nb, name):
    if folder := os.environ.get('CLSNB_SHOTS'): nb.page.screenshot(path=f'{folder}/{name}.png')

def test_results(nb):
    nb.run(START+"ex = ResultsExplorer(results, journal='j.csv')\nex", DRAWN)
    nb.text('.clsnb-status', r'54 of 54 pictures|of \d+ pictures \(no filter\)')
    nb.page.locator('.clsnb-answers select').select_option('wrong')
    nb.text('.clsnb-status', r'wrong answers')
    shoot(nb, 'results')
    nb.page.locator('.clsnb-view select').select_option('scores')
    nb.text('.clsnb-status', r'by data set')
    nb.page.locator('.clsnb-clear').click()
    nb.text('.clsnb-status', r'no filter')
    nb.py("assert ex.view == 'scores' and len(ex.shown) == len(results) and not ex.errors, ex.errors")
    shoot(nb, 'scores')

def test_cleaner(nb):
    nb.run(START+"ex = Cleaner(photos, 'j.csv')\nex", DRAWN)
    nb.text('.clsnb-status', r'of \d+ pictures')
    stage = nb.page.locator('.cvs-stage').first
    stage.focus()
    nb.page.keyboard.press('x')
    nb.text('.clsnb-marks', r'is marked: remove')
    nb.page.locator('.clsnb-mark-undo').click()
    nb.text('.clsnb-marks', r'taken back')
    nb.page.locator('.clsnb-mark-unsure').click()
    nb.text('.clsnb-marks', r'1 unsure')
    shoot(nb, 'cleaner')
    nb.py("from clsnb.data.journal import Journal\nassert [o.action for o in Journal('j.csv').marks.values()] == ['unsure'] "
          "and not ex.errors and not ex.panel.errors")
