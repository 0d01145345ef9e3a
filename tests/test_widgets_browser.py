"Explorers in a live JupyterLab: what only a browser can see"
def picture(nb): return nb.page.locator('.clsnb-picture img').first
def loaded(nb): return picture(nb).evaluate('o => o.complete && o.naturalWidth > 20')
PLAIN = "from clsnb.widgets.canvas import use_canvas\nuse_canvas(False)\n"

def test_lr_explorer(nb):
    nb.run(
        PLAIN+"from clsnb.widgets.training import LRExplorer\nex = LRExplorer(dict(policy='step', step=[3, 6], "
        "gamma=.137, warmup='linear', warmup_iters=37), epochs=9, base=.0123)\nex",
        '.clsnb-epochs .noUi-handle',
    )
    nb.text('.clsnb-status', r'step: .*9 epochs.*drawing 1')
    before = picture(nb).get_attribute('src')
    assert loaded(nb)
    # a browser moves sliders to their nearest step
    nb.py("assert (ex.gamma, ex.base_lr, ex.warmup_iters) == (.137, .0123, 37)")
    nb.slide('.clsnb-epochs', 20)
    nb.text('.clsnb-status', r'20 epochs.*drawing 2\b')
    assert picture(nb).get_attribute('src') != before and loaded(nb)
    assert 'step: starts at' in picture(nb).get_attribute('alt')
    nb.page.locator('.clsnb-policy select').select_option('CosineAnnealing')
    nb.text('.clsnb-status', r'CosineAnnealing: ')
    nb.page.get_by_title('epochs: one on').click()
    nb.text('.clsnb-status', r'21 epochs')
    nb.text('.clsnb-line', r"policy='CosineAnnealing'")
    assert nb.page.locator('.clsnb-status [role=status][aria-live=polite]').count() == 1
    nb.py("assert ex.epochs == 21 and ex.policy == 'CosineAnnealing' and not ex.errors; use_canvas(None)")

def test_errors_are_shown_and_closing_is_clean(nb):
    nb.run(
        "from clsnb.widgets.explorer import Explorer\nfrom PIL import Image\nfrom ipywidgets.widgets.widget "
        "import _instances\nn = len(_instances)\n"
        "class Bad(Explorer):\n    title = '<i>bad</i>'\n    def controls(self): "
        "return dict(size=range(0, 50))\n"
        "    def draw(self, size):\n        if size == 3: raise ValueError('three is <b>too "
        "few</b>')\n        return Image.new('RGB', (40+size, 30), 'teal')\n"
        "ex = Bad()\nex",
        '.clsnb-size .noUi-handle',
    )
    nb.slide('.clsnb-size', 3)
    nb.text('.clsnb-status', r'ValueError: three is <b>too few</b>')
    nb.slide('.clsnb-size', 5)
    nb.text('.clsnb-status', r'size 5.*drawing 3')
    nb.py("assert [type(o) for o in ex.errors] == [ValueError]; ex.close(); assert len(_instances) == n")
