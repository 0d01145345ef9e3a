"The explorer of configs in a live JupyterLab: keys, typing, buttons, the tree, light and dark"

OPEN = "from clsnb.widgets.configs import ConfigExplorer\nex = ConfigExplorer('resnet18_8xb32_in1k'{})\nex"

def opened(nb, options=''):
    "The explorer, drawn once"
    nb.run(OPEN.format(options), '.clsnb-tree details')
    nb.text('.clsnb-status', r'resnet18_8xb32_in1k\.py: 0 changes, 0 errors.*drawing 1\b')

def field(nb, name): return nb.page.locator(f'.clsnb-{name} input').first

def enter(nb, name, text):
    "Type into a field and press Enter"
    field(nb, name).fill(text)
    field(nb, name).press('Enter')

def test_a_value_is_chosen_and_changed_by_keyboard_alone(nb):
    opened(nb)
    field(nb, 'key').focus()
    nb.page.keyboard.type('optimizer.lr')
    nb.page.keyboard.press('Enter')
    nb.text('.clsnb-key-words', r'optimizer\.lr: float .*imagenet_bs256\.py:')
    assert field(nb, 'value').input_value()=='0.1'
    nb.page.keyboard.press('Tab')
    assert nb.page.evaluate("document.activeElement.closest('.clsnb-value') !== null")
    nb.page.keyboard.press('Control+a')
    nb.page.keyboard.type('0.01')
    nb.page.keyboard.press('Enter')
    nb.text('.clsnb-status', r'1 change, 0 errors.*optimizer\.lr.*was 0\.1')
    nb.text('.clsnb-tree', r'lr = 0\.01.*was 0\.1')
    nb.text('.clsnb-export-text', r"'optimizer\.lr': 0\.01")
    nb.py("assert ex.edited['optimizer.lr'] == .01 and not ex.errors")

def test_mistakes_are_refused_where_they_are_typed(nb):
    opened(nb, ", key='model.backbone.depth'")
    enter(nb, 'value', 'fifty')
    nb.text('.clsnb-key-words [role=alert]', r'ResNet has no depth .fifty.\. Known: 101, 152, 18, 34, 50')
    assert field(nb, 'value').input_value()=='fifty'
    enter(nb, 'key', 'model.backbone.dept')
    nb.text('.clsnb-key-words', r'model\.backbone\.dept: not set')
    enter(nb, 'value', '50')
    nb.text('.clsnb-key-words [role=alert]', r"Did you mean 'depth'")
    enter(nb, 'key', 'optimizer.type')
    nb.text('.clsnb-key-words', r'optimizer\.type: str')
    assert 'AdamW' in nb.page.locator('.clsnb-value datalist option').evaluate_all('o => o.map(x => x.value)')
    enter(nb, 'value', 'SDG')
    nb.text('.clsnb-key-words [role=alert]', r"Did you mean 'SGD'")
    nb.py("assert ex.edited.config == ex.edited.original and not ex.errors")

def test_undo_redo_reset_and_what_an_edit_breaks(nb):
    opened(nb, ", key='model.backbone.depth'")
    enter(nb, 'value', '50')
    nb.text('.clsnb-status', r'1 change, 1 error')
    nb.text('.clsnb-tree', r'⚠ in_channels is 512, but the neck gives 2048')
    picture = nb.page.locator('.clsnb-picture img').first
    before = picture.get_attribute('src')
    nb.page.get_by_role('button', name='Undo').click()
    nb.text('.clsnb-status', r'0 changes, 0 errors')
    assert picture.get_attribute('src')!=before and field(nb, 'value').input_value()=='18'
    nb.page.get_by_role('button', name='Redo').press('Enter')
    nb.text('.clsnb-status', r'1 change, 1 error')
    nb.page.get_by_role('button', name='Reset key').press('Space')
    nb.text('.clsnb-status', r'0 changes, 0 errors')
    enter(nb, 'key', 'data.train.pipeline.1')
    nb.text('.clsnb-key-words', r'data\.train\.pipeline\.1: dict')
    nb.page.get_by_role('button', name='Duplicate item').click()
    nb.text('.clsnb-status', r'1 change,')
    nb.py("assert len(ex.edited['data.train.pipeline']) == 8 and not ex.errors")

def test_search_and_differences(nb):
    opened(nb)
    field(nb, 'search').focus()
    nb.page.keyboard.type('pipeline size')
    nb.text('.clsnb-tree', r'^(?![\s\S]*optimizer)[\s\S]*RandomResizedCrop')
    field(nb, 'search').fill('')
    enter(nb, 'against', 'resnet34_8xb32_in1k')
    nb.page.locator('.clsnb-differences-only input').check()
    nb.text('.clsnb-tree', r'depth = 18.*there 34')
    enter(nb, 'against', 'resnet35_8xb32_in1k')
    nb.text('.clsnb-tree', r'⚠ .*resnet35_8xb32_in1k')
    nb.py("assert not ex.errors")

def test_the_tree_opens_by_key_and_tells_where_a_value_is_written(nb):
    opened(nb)
    summary = nb.page.locator('.clsnb-tree summary', has_text='optimizer ').first
    summary.focus()
    nb.page.keyboard.press('Enter')
    row = nb.page.locator('.clsnb-tree p', has_text='momentum').first
    row.wait_for(state='visible')
    assert 'float' in row.inner_text()
    assert 'imagenet_bs256.py:' in nb.page.locator('.clsnb-tree').inner_text()

def test_a_file_is_saved_and_a_broken_one_is_shown(nb):
    opened(nb, ", options={'seed': 3}")
    nb.page.locator('.clsnb-export select').select_option('command line')
    nb.text('.clsnb-export-text', r'clsnb train resnet18_8xb32_in1k')
    nb.py("import tempfile; folder = tempfile.mkdtemp(); ex.edited.set('optimizer.lr', .5); ex.redraw()")
    nb.text('.clsnb-export-text', r'optimizer\.lr=0\.5')
    field(nb, 'file').fill(nb.py("print(folder)").strip()+'/mine.py')
    nb.page.locator('.clsnb-save').click()
    nb.text('.clsnb-saved', r'saved as .*mine\.py')
    nb.py("from clsnb.all import Config; assert Config.fromfile(folder+'/mine.py') == ex.edited.config")
    nb.run("open(folder+'/bad.py', 'w').write('seed = 3\\noptimizer = dict(lr=<b>)\\n')\n"
           "ex = ConfigExplorer(folder+'/bad.py')\nex", '.clsnb-tree [role=alert]')
    nb.text('.clsnb-tree', r'bad\.py:2[\s\S]*optimizer = dict\(lr=<b>\)')
    nb.page.get_by_role('button', name='Undo').click()
    nb.text('.clsnb-key-words', r'there is no config to edit')
    nb.py("import shutil; shutil.rmtree(folder); assert not ex.errors; ex.close()")

def test_controls_have_names_and_fit_a_narrow_page(nb):
    opened(nb)
    nb.page.set_viewport_size(dict(width=480, height=900))
    try:
        for name in ('search', 'key', 'value', 'against', 'file'):
            assert nb.page.get_by_label(name, exact=True).count(), name
        wide = nb.page.locator('.clsnb-explorer').first.evaluate('o => o.scrollWidth - o.clientWidth')
        assert wide<=2, wide
    finally: nb.page.set_viewport_size(dict(width=1280, height=900))
