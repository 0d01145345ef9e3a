"The explorer of the zoo in a live JupyterLab"

OPEN = "from clsnb.all import ZooExplorer\nex = ZooExplorer({})\nex"

def opened(nb, more=''):
    nb.run(OPEN.format(more), '.clsnb-family select')
    nb.text('.clsnb-status', r'drawing 1\b')

def test_filter_by_words_and_family(nb):
    opened(nb)
    box = nb.page.locator('.clsnb-text input')
    box.fill('swin 384')
    box.press('Enter')
    nb.text('.clsnb-status', r'^\d models.*drawing 2')
    box.fill('')
    box.press('Enter')
    nb.page.locator('.clsnb-family select').select_option('mobilenet_v2')
    nb.text('.clsnb-table', r'mobilenet-v2_8xb32_in1k')
    nb.py("assert set(ex.models.family) == {'mobilenet_v2'} and not ex.errors")

def test_sort_and_axis(nb):
    opened(nb)
    nb.page.locator('.clsnb-sort select').select_option('top1')
    nb.page.locator('.clsnb-descending input').check()
    nb.page.locator('.clsnb-axis select').select_option('flops')
    nb.text('.clsnb-status', r'sorted by top1.*drawing 4')
    picture = nb.page.locator('.clsnb-picture img').first
    assert 'models' in picture.get_attribute('alt') and picture.evaluate('o => o.complete && o.naturalWidth > 20')
    nb.py("assert ex.models.top1.dropna().is_monotonic_decreasing and not ex.errors")

def test_pick_shows_three_lines(nb):
    opened(nb, "text='resnet50'")
    nb.page.locator('.clsnb-model select').select_option('resnet50_8xb32_in1k')
    nb.text('.clsnb-card', r"init_model\('zoo://resnet50_8xb32_in1k'\).*")
    nb.text('.clsnb-card', r'Apache-2.0')
    assert nb.page.locator('.clsnb-table b').inner_text().startswith('▸')

def test_measure_in_the_background(nb):
    nb.py("import os, tempfile; os.environ['CLSNB_HOME'] = tempfile.mkdtemp()")
    opened(nb, "text='lenet5'")
    nb.page.locator('.clsnb-measure').click()
    nb.text('.clsnb-measured', r'of \d measured, 0 failed; done')
    nb.py("assert ex.models.latency.notna().all() and not ex.errors; del os.environ['CLSNB_HOME']")

def test_bad_bounds_are_shown_and_go_away(nb):
    opened(nb)
    for value, words in (('9', r'ConfigError.*lower bound'), ('0', r'^\d+ models')):
        nb.page.locator('.clsnb-most-params input').fill('5')
        nb.page.locator('.clsnb-most-params input').press('Enter')
        nb.page.locator('.clsnb-least-params input').fill(value)
        nb.page.locator('.clsnb-least-params input').press('Enter')
        nb.text('.clsnb-status', words)
