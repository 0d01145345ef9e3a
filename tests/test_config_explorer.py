"Edited configs: every packaged config is exported untouched and edited, and read back equal; mistakes are refused"
import shlex
from pathlib import Path
import pytest
from clsnb.analysis.model_blocks import draw_blocks, model_blocks
from clsnb.apis.edited_config import EditedConfig, typed_value
from clsnb.apis.edited_tree import compared_config, edited_tree, own_bases
from clsnb.config.changes import override_changes
from clsnb.config.config import Config
from clsnb.config.config_export import ConfigExport
from clsnb.config.dict import literal
from clsnb.config.files import list_configs
from clsnb.config.key_facts import KeyFacts, key_facts
from clsnb.config.key_paths import (
    changed_paths, dotted_key, key_path, search_config, with_item, with_value, with_value_of, without_value,
)
from clsnb.config.option_text import command_text, option_text
from clsnb.config.override import parse_options
from clsnb.core.errors import ConfigError

def edit(cfg):
    "One edit of each kind: a number, a list, an argument of a step, a new key, a missing key, a key gone"
    cfg = with_value(cfg, ('optimizer', 'lr'), .0123)
    cfg = with_value(cfg, ('workflow',), [('train', 1), ('val', 1)])
    cfg = with_value(cfg, ('data', 'val', 'pipeline', 1), dict(type='Resize', size=(256, -1), note='it\'s {{ "x" }}'))
    cfg = with_value(cfg, ('optimizer', 'paramwise_cfg'), dict(custom_keys={'.a.b': dict(lr_mult=.1)}))
    cfg = without_value(cfg, ('model', 'head', 'type'))
    return with_value(cfg, ('seed',), 7)

def exports(before, after):
    "What the overrides, the command line, a whole file and a file that extends the first make of a config"
    change = ConfigExport(before, after)
    yield 'overrides', Config(before).merge_from_dict(change.overrides())
    yield 'text', Config.fromstring(change.text())
    yield 'child', Config.fromstring(change.text(inherit=True))

def same(a, b): return a==b and dict_text(a)==dict_text(b)
def dict_text(value):
    "A literal that does not depend on the order of keys, and tells lists from tuples"
    if isinstance(value, dict): return sorted((str(k), dict_text(v)) for k, v in value.items())
    if isinstance(value, (list, tuple)): return type(value).__name__, [dict_text(o) for o in value]
    return literal(value)

@pytest.mark.parametrize('change', [Config, edit])
def test_every_packaged_config_reads_back_equal(change):
    names = list_configs()
    assert len(names)>200
    for name in names:
        before = Config.fromfile(name)
        after = change(before)
        for form, again in exports(before, after): assert same(again, after), (name, form)

def test_every_packaged_config_fits_a_command_line():
    "Everything but texts with quotes of both kinds, which are refused by name"
    for name in list_configs():
        before = Config.fromfile(name)
        after = with_value(with_value(before, ('optimizer', 'lr'), .5), ('data', 'val', 'pipeline', 1), dict(type='A'))
        words = shlex.split(ConfigExport(before, after).command())
        assert words[:4]==['clsnb', 'train', name, '--cfg-options']
        assert same(Config(before).merge_from_dict(parse_options(words[4:])), after), name

def test_what_is_known_contradicts_no_packaged_config():
    for name in list_configs():
        cfg = Config.fromfile(name)
        for path, value in cfg.leaves():
            assert key_path(cfg, dotted_key(path))==path
            facts = key_facts(cfg, path)
            assert facts.problem(value) is None and facts.doubt(value) is None, (name, path)

# ---- Words and values

@pytest.mark.parametrize('value', [
    0, -1, 1.5, 1e-4, float('inf'), True, None, [], (), [1], (1,), [[1], [2, 3]], ((1, 2), 'a b'), ['a,b', 'c'],
    'ResNet', 'a b', 'true', 'None', '007', '1e3', '', ' x ', 'a,b', "it's", 'x=1', 'a"b\'c, ',
    [dict(a=1)], dict(a=(1,), b=None), {'.x.y': 1}, {1: 'a'}, dict(), {1, 2},
])
def test_words_read_back(value):
    again = parse_options([f'k={option_text(value)}'])['k']
    assert literal(again)==literal(value)
    assert shlex.split(command_text('c', {'k': value}))[-1]==f'k={option_text(value)}'

@pytest.mark.parametrize('value', ['[1]', '[1,2', ['''a"b'c,'''], print, [print]])
def test_no_word_is_said(value):
    with pytest.raises(ConfigError, match='cannot be written on a command line'): option_text(value)

def test_text_is_typed_for_its_key():
    assert typed_value('123', KeyFacts('work_dir', str))=='123'
    assert typed_value('123', KeyFacts('x', str|int))==123
    assert typed_value('runs/a', KeyFacts('work_dir', str))=='runs/a'

# ---- Edits

@pytest.fixture
def edited(): return EditedConfig('resnet18_8xb32_in1k')

@pytest.mark.parametrize('key, text, said', [
    ('model.backbone.dept', '50', "Did you mean 'depth'"),
    ('optimizr', '1', "Did you mean 'optimizer'"),
    ('model.bakbone.depth', '50', "Did you mean 'backbone'"),
    ('optimizer.lr', 'fast', 'takes float'),
    ('data.samples_per_gpu', '3.5', 'takes int'),
    ('checkpoint_config.interval', 'x', 'int'),
    ('optimizer.type', 'SDG', "Did you mean 'SGD'"),
    ('data.train.type', 'ImageNett', "Did you mean 'ImageNet'"),
    ('data.train.pipeline.1.type', 'Resise', "Did you mean 'Resize'"),
    ('lr_config.policy', 'stp', "Did you mean 'step'"),
    ('model.head.loss.type', '3', "is registered as '3'"),
    ('model.backbone.depth', 'fifty', 'Known: 101, 152, 18, 34, 50'),
    ('lr_config.gama', '1', "Did you mean 'gamma'"),
    ('data.train.pipeline.99.size', '3', 'a list of 7 items has no item'),
    ('runner.max_epoch', '3', "Did you mean 'max_epochs'"),
    ('optimizer.lr.x', '3', "has no part 'x'"),
    ('', '3', 'no key is named'),
    ('optimizer.lr', '[1,2', 'brackets'),
    ('optimizer.lr', 'dict(', 'not'),
])
def test_mistakes_are_refused(edited, key, text, said):
    with pytest.raises(ConfigError) as e: edited.set_text(key, text)
    assert said in str(e.value) and '\n' not in str(e.value)
    assert edited.config==edited.original and not edited.undo()

def test_an_edit_that_asks_for_others_is_done_and_said(edited):
    found = edited.set('model.backbone.depth', 50)
    assert [row[1] for row in found.errors]==['model.head.in_channels'] and edited['model.backbone.depth']==50
    assert not edited.set('model.head.in_channels', 2048)

def test_undo_redo_and_reset(edited):
    edited.set('optimizer.lr', .5)
    edited.set_text('data.train.pipeline.1.size', '96')
    edited.remove('optimizer.momentum')
    assert dotted_key(changed_paths(edited.original, edited.config)[0])=='data.train.pipeline.1.size'
    assert edited.undo() and edited['optimizer.momentum']==.9 and edited.redo() and not edited.redo()
    edited.reset('optimizer.momentum')
    assert edited['optimizer.momentum']==.9
    edited.reset('optimizer')
    assert edited['optimizer']==edited.original.optimizer
    assert edited.undo() and edited['optimizer.lr']==.5
    edited.set('seed', 3)
    assert not edited.redo() # a new edit drops what was undone
    edited.reset()
    assert edited.config==edited.original and not edited.export.differences()
    while edited.undo(): pass
    assert edited.config==edited.original

def test_the_same_value_again_is_no_edit(edited):
    edited.set('optimizer.lr', .1)
    assert not edited.undo()

def test_lists(edited):
    n = len(edited['data.train.pipeline'])
    edited.insert('data.train.pipeline.1', dict(type='Resize', size=300))
    edited.set(f'data.train.pipeline.{n+1}', dict(type='Collect', keys=['img'])) # after the last one
    assert len(edited['data.train.pipeline'])==n+2
    edited.remove('data.train.pipeline.-1')
    with pytest.raises(ConfigError, match='is no list'): edited.insert('optimizer.lr', 3)
    with pytest.raises(ConfigError, match="Did you mean 'Resize'"):
        edited.insert('data.train.pipeline.1', dict(type='Resise'))
    assert same(Config(edited.original).merge_from_dict(edited.export.overrides()), edited.config)

def test_overrides_as_one_edit(edited):
    edited.override({'runner.max_epochs': 3, 'lr_config.step': [1, 2]})
    assert edited['runner.max_epochs']==3 and edited.undo() and edited['runner.max_epochs']==100
    with pytest.raises(ConfigError, match='optimizr'): edited.override({'runner.max_epochs': 3, 'optimizr.lr': 1})
    assert edited['runner.max_epochs']==100

def test_keys_with_dots():
    edited = EditedConfig('swin-tiny_16xb64_in1k')
    key = 'optimizer.paramwise_cfg.custom_keys..absolute_pos_embed.decay_mult'
    edited.set(key, .5)
    assert edited[key]==.5 and 'optimizer.paramwise_cfg.custom_keys' in edited.export.overrides()
    for form, again in exports(edited.original, edited.config): assert same(again, edited.config), form

@pytest.mark.parametrize('what', ['name', 'path', 'config', 'dict', 'work_dir', 'run'])
def test_what_can_be_edited(what, tmp_path):
    from clsnb.runs.folder import Run
    cfg = Config.fromfile('resnet18_8xb32_in1k')
    (tmp_path/'w').mkdir()
    cfg.dump(tmp_path/'w'/'config.py')
    cfg.dump(tmp_path/'mine.py')
    sources = dict(name='resnet18_8xb32_in1k', path=tmp_path/'mine.py', config=cfg, dict=cfg.to_dict())
    sources |= dict(work_dir=str(tmp_path/'w'), run=Run(tmp_path/'w'))
    edited = EditedConfig(sources[what])
    edited.set('optimizer.lr', .5)
    assert edited.export.overrides()=={'optimizer.lr': .5} and cfg.optimizer.lr==.1
    assert Config.fromfile(edited.export.save(tmp_path/'new.py'))==edited.config

def test_files(edited, tmp_path):
    edited.set('optimizer.lr', .5)
    for name, inherit in (('a.py', False), ('b.py', True), ('deep/c.py', True), ('d.json', False), ('e.yaml', False)):
        again = Config.fromfile(edited.export.save(tmp_path/name, inherit))
        assert again.optimizer==edited.config.optimizer, name
        if name.endswith('.py'): assert again==edited.config
    child = EditedConfig(tmp_path/'a.py')
    child.set('seed', 5)
    path = child.export.save(tmp_path/'deep'/'f.py', inherit=True)
    assert "'../a.py'" in Path(path).read_text() and Config.fromfile(path)==child.config
    for bad, said in (('x.txt', 'ends in'), ('x.json', 'extends another')):
        with pytest.raises(ConfigError, match=said): edited.export.save(tmp_path/bad, inherit=bad=='x.json')
    with pytest.raises(ConfigError, match='cannot extend itself'): child.export.save(tmp_path/'a.py', inherit=True)

def test_what_cannot_be_written_is_said(tmp_path):
    before = Config(dict(model={}, seed=3))
    with pytest.raises(ConfigError, match='seed: an override cannot'): override_changes(before, Config(dict(model={})))
    with pytest.raises(ConfigError, match='not read from a file'): ConfigExport(before, before).command()
    change = ConfigExport(before, Config(dict(model=dict(type=print))))
    with pytest.raises(ConfigError, match="'model'"): change.save(tmp_path/'x.py')
    assert not (tmp_path/'x.py').exists()

def test_parts_of_lists_and_tuples():
    cfg = Config(dict(data=dict(a=({'b': 1}, {'b': 2}))))
    after = with_value(cfg, ('data', 'a', 1, 'b'), 5)
    assert isinstance(after.data.a, tuple) and after.data.a[1].b==5 and cfg.data.a[1].b==2
    assert override_changes(cfg, after)=={'data.a.1.b': 5}
    assert with_item(cfg, ('data', 'a', 0), 3).data.a[0]==3 and with_value_of(cfg, after, ('data', 'a', 1, 'b'))==cfg

def test_search():
    cfg = Config.fromfile('resnet18_8xb32_in1k')
    assert [dotted_key(o) for o in search_config(cfg, 'DEPTH 18')]==['model.backbone.depth']
    assert search_config(cfg, 'nothing like it')==[] and len(search_config(cfg, ''))==len(cfg.leaves())

# ---- The tree and the blocks

def test_tree_shows_types_origins_changes_and_findings(edited):
    edited.set('model.backbone.depth', 50)
    edited.remove('optimizer.momentum')
    page = edited_tree(edited, key=('model', 'backbone', 'depth'))
    assert page.count('<details open')>=3 # the config, what was changed, and what is wrong
    for text in ('<i>int</i>', 'resnet18.py:', 'was 18', 'in_channels is 512', 'optimizer.momentum = 0.9', 'chosen'):
        assert text in page, text
    only = edited_tree(edited, differs=True)
    assert 'depth' in only and 'a key is gone' in only and '<b>num_stages' not in only
    found = edited_tree(edited, search='momentum')
    assert 'nothing contains' in found
    assert 'there 34' in edited_tree(edited, against='resnet34_8xb32_in1k')
    assert 'was' not in edited_tree(EditedConfig('resnet18_8xb32_in1k'), against=own_bases)
    with pytest.raises(ConfigError, match='Did you mean'): compared_config(edited, 'resnet34_8xb32_in1kk')

def test_tree_escapes_what_a_config_says():
    edited = EditedConfig(dict(model={}, work_dir='<img src=x onerror=alert(1)>', custom_hooks=[dict(type='<script>')]))
    page = edited_tree(edited, search='<')
    assert '<img' not in page and '<script' not in page and '&lt;script&gt;' in page

def test_every_packaged_config_has_a_tree():
    for name in list_configs()[::10]:
        edited = EditedConfig(name)
        page = edited_tree(edited)
        assert page.count('<b>')>=len(edited.original), name

@pytest.mark.parametrize('name', [
    'resnet50_8xb32_in1k', 'vit-base-p16_ft-64xb64_in1k-384', 'swin-tiny_16xb64_in1k', 'vgg11_8xb32_in1k',
    'mobilenet-v2_8xb32_in1k', 'conformer-tiny-p16_8xb128_in1k', 'efficientformer-l1_8xb128_in1k', 'lenet5_mnist',
])
def test_blocks_hold_all_parameters(name):
    import torch
    from clsnb.core.registry import MODELS
    cfg = Config.fromfile(name)
    with torch.device('meta'): model = MODELS.build(cfg.model)
    blocks = model_blocks(cfg)
    assert sum(o.params for o in blocks)==sum(p.numel() for p in model.parameters())
    assert all(o.shape for o in blocks if o.kind!='Parameter') and 2<=len(blocks)<40
    assert f'{len(blocks)} blocks' in draw_blocks(blocks).alt

def test_a_model_that_cannot_be_built_says_why():
    cfg = Config.fromfile('resnet18_8xb32_in1k')
    cfg.model.backbone.depth = 19
    with pytest.raises(ConfigError, match='ResNet has no depth 19'): model_blocks(cfg)
    with pytest.raises(ConfigError, match='no model'): model_blocks(Config(dict(data={})))

# ---- The explorer

@pytest.fixture
def explorer():
    from clsnb.widgets.configs import ConfigExplorer
    opened = []
    def make(*args, **kw):
        opened.append(ConfigExplorer(*args, **kw))
        return opened[-1]
    yield make
    for o in opened: o.close()

def typed(ex, key, text):
    ex.set(key=key)
    ex._editor.field.value = text
    return ex._editor.words.value

def test_typing_edits_and_refuses(explorer):
    ex = explorer('resnet18_8xb32_in1k', key='optimizer.lr')
    assert ex._editor.field.value=='0.1' and 'float' in ex._editor.words.value and 'drawing 1' in ex._status.value
    assert 'was 0.1' in typed(ex, 'optimizer.lr', '0.01') and ex.edited['optimizer.lr']==.01
    assert '1 change, 0 errors' in ex._status.value and 'optimizer.lr&#x27;: 0.01' in ex._export.text.value
    said = typed(ex, 'optimizer.lr', 'fast')
    assert 'takes float' in said and 'role="alert"' in said and ex._editor.field.value=='fast'
    ex.set(search='lr')
    assert ex._editor.field.value=='0.01' and 'alert' not in ex._editor.words.value # the next look is a fresh one
    assert 'no argument' in typed(ex, 'optimizer.tpye', 'Adam') and 'SGD' in ex._editor.words.value
    ex.set(key='optimizer.type')
    assert 'AdamW' in ex._editor.field.options
    ex._editor.field.value = 'AdamW'
    assert ex.edited['optimizer.type']=='AdamW' and not ex.errors

def test_buttons(explorer):
    from clsnb.widgets.configs import edit_buttons
    ex = explorer('resnet18_8xb32_in1k', key='data.train.pipeline.1')
    def click(name): ex.edit(edit_buttons[name][0])
    click('Duplicate item')
    assert len(ex.edited['data.train.pipeline'])==8
    click('Undo')
    assert ex.edited.config==ex.edited.original and ex._editor.field.value.startswith('dict(type="RandomResizedCrop"')
    click('Undo')
    assert 'no such edit' in ex._editor.words.value
    click('Redo')
    click('Reset all')
    assert ex.edited.config==ex.edited.original
    ex.set(key='optimizer.momentum')
    click('Remove key')
    assert 'not set' in ex._editor.words.value and ex._editor.field.value==''
    click('Reset key')
    assert ex.edited['optimizer.momentum']==.9
    ex.set(key='no.such.key')
    click('Remove key')
    assert 'there is no' in ex._editor.words.value and not ex.errors

def test_the_picture_follows_the_model(explorer):
    ex = explorer('resnet18_8xb32_in1k')
    before = ex.snapshot().jpeg
    ex.set(search='lr')
    assert ex.snapshot().jpeg==before
    typed(ex, 'model.backbone.depth', '50')
    assert ex.snapshot().jpeg!=before and 'image/png' in ex.snapshot().mimebundle()
    assert '1 error' in ex.snapshot().alt

def test_everything_that_has_a_config_opens(explorer, tmp_path):
    from clsnb.runs.folder import Run
    cfg = Config.fromfile('resnet18_8xb32_in1k')
    (tmp_path/'w').mkdir()
    cfg.dump(tmp_path/'w'/'config.py')
    work_dir = tmp_path/'w'
    for source in ('resnet18_8xb32_in1k', cfg, cfg.to_dict(), work_dir/'config.py', str(work_dir), Run(work_dir)):
        ex = explorer(source)
        assert ex.edited['model.backbone.depth']==18 and not ex.errors and not ex.unreadable, source
        typed(ex, 'optimizer.lr', '0.5')
        assert ex.edited.export.overrides()=={'optimizer.lr': .5}
    for source in (cfg, 'resnet18_8xb32_in1k', 'mine.py', dict(model={})): assert type(ex).accepts(source), source
    for source in (3, [1], 'cat.jpg', None): assert not type(ex).accepts(source), source

@pytest.mark.parametrize('text, said', [
    ('seed = 1\noptimizer = dict(lr=\n', 'this is not Python'), ('import os\nos.remove("x")\n', 'cannot be read'),
    ("_base_ = 'no/such.py'\n", 'does not exist'), ('model = dict(type="<b>")\n', '&lt;b&gt;'),
    ('', '0 changes'), ('x = 3\n', '0 changes'),
])
def test_a_config_with_an_error_is_shown_in_place(explorer, tmp_path, text, said):
    (tmp_path/'bad.py').write_text(text)
    ex = explorer(tmp_path/'bad.py')
    assert said in ex._tree.value+ex._status.value and not ex.errors
    assert '<b>"' not in ex._tree.value
    ex.edit(lambda edited, key: edited.undo())
    assert 'no such edit' in ex._editor.words.value or 'no config to edit' in ex._editor.words.value
    ex._export.file.value = str(tmp_path/'new.py')
    ex._export.save()
    assert (tmp_path/'new.py').exists()==(ex.unreadable is None) and not ex.errors

def test_bad_input_is_said(explorer):
    for source in (3, None, 'resnet18_8xb32_in1kk', '/no/such/file.py', ['a']):
        ex = explorer(source)
        assert ex.unreadable and 'cannot be read' in ex._status.value and not ex.errors, source

def test_forms_of_the_export(explorer, tmp_path):
    ex = explorer('resnet18_8xb32_in1k')
    typed(ex, 'optimizer.lr', '0.5')
    box = ex._export
    texts = {'command line': 'optimizer.lr=0.5', 'file that extends': '_base_ =', 'whole file': 'runner = '}
    for form, text in texts.items():
        box.form.value = form
        assert text in box.text.value, form
    box.save()
    assert 'name a file' in box.said.value
    box.form.value = 'file that extends'
    box.file.value = str(tmp_path/'mine.py')
    box.save()
    assert Config.fromfile(tmp_path/'mine.py')==ex.edited.config
    box.file.value = str(tmp_path/'mine.txt')
    box.save()
    assert 'ends in .py' in box.said.value
    ex.edited.remove('log_level')
    box.form.value = 'overrides'
    box.show()
    assert 'cannot take away a key' in box.text.value and not ex.errors

def test_closing_leaves_nothing_behind():
    import gc, weakref
    from ipywidgets.widgets.widget import _instances
    from clsnb.widgets.configs import ConfigExplorer
    ConfigExplorer('resnet18_8xb32_in1k').close()
    count, alive = len(_instances), []
    for _ in range(20):
        ex = ConfigExplorer('resnet18_8xb32_in1k', key='optimizer.lr')
        alive.append(weakref.ref(ex))
        ex.close()
        del ex
    gc.collect()
    assert len(_instances)==count and sum(o() is not None for o in alive)<=1

def test_everything_offers_the_explorer_of_configs():
    import inspect
    import clsnb.all as everything
    from clsnb.widgets.configs import ConfigExplorer
    assert inspect.signature(everything.ConfigExplorer)==inspect.signature(ConfigExplorer)
    assert everything.ConfigExplorer.__doc__==ConfigExplorer.__doc__
