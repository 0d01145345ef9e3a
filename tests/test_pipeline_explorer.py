"The explorer of pipelines: in this process, and in a live JupyterLab"
import json
import numpy as np, pytest, torch
from clsnb.config.config import Config
from clsnb.core.errors import ConfigError
from clsnb.core.registry import TRANSFORMS
from clsnb.data.feed.loader import build_dataloader, build_dataset
from clsnb.data.find_samples import find_samples
from clsnb.data.pipeline_edit import PipelineEdit, pipeline_text, read_value
from clsnb.data.pipeline_walk import walk_pipeline
from clsnb.data.sets.packaged import Digits, Photos
from clsnb.data.sets.wrappers import ConcatDataset, RepeatDataset, split_dataset
from clsnb.data.step_tiles import fit_whole_pixels
from clsnb.runs.folder import Run
from clsnb.widgets.canvas import use_canvas
from clsnb.widgets.pipeline import PipelineExplorer

NAME = 'resnet18-tiny_1xb16_photos'
load = dict(type='LoadImageFromFile')
norm = dict(type='Normalize', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
collect = [dict(type='ImageToTensor', keys=['img']), dict(type='ToTensor', keys=['gt_label']),
           dict(type='Collect', keys=['img', 'gt_label'])]
train = [load, dict(type='RandomResizedCrop', size=64), dict(type='RandomFlip', flip_prob=.5),
         dict(type='ColorJitter', brightness=.4, contrast=.4, saturation=.4), norm, *collect]

@pytest.fixture
def opened():
    "Opens explorers and closes them"
    made = []
    def open_one(*args, **kwargs):
        made.append(PipelineExplorer(*args, **kwargs))
        return made[-1]
    yield open_one
    for o in made: o.close()

def in_training(dataset, index, seed, epoch, workers=0):
    loader = build_dataloader(dataset, len(dataset), workers_per_gpu=workers, shuffle=False, seed=seed)
    loader.set_epoch(epoch)
    return next(iter(loader))['img'][index]

# ---- The same pictures as in training

@pytest.mark.parametrize('workers', [0, 2])
def test_what_is_shown_is_what_is_trained_on(workers):
    dataset = RepeatDataset(Photos('val', train), 1)
    shown = walk_pipeline(dataset, 7, seed=3, epoch=4)[-1].sample['img']
    assert shown.equal(in_training(dataset, 7, 3, 4, workers))
    assert not shown.equal(in_training(dataset, 7, 3, 5)) and not shown.equal(in_training(dataset, 7, 4, 4))

def test_shuffled_batches_hold_the_same_pictures():
    dataset = Photos('val', train)
    loader = build_dataloader(dataset, 16, shuffle=True, seed=5)
    loader.set_epoch(2)
    index = loader.batch_sampler.sampler.permutation()[:16] if hasattr(loader.batch_sampler, 'sampler') else None
    batch = next(iter(loader))
    for k in (0, 9): assert walk_pipeline(dataset, index[k], seed=5, epoch=2)[-1].sample['img'].equal(batch['img'][k])

def test_an_edited_pipeline_is_what_the_exported_config_trains_on(opened):
    w = opened(NAME, index=5, seed=2, epoch=3)
    w.edit.switch(2)
    w.edit.move(3, 1)
    w.edit.set_args(2, size=48, scale=(.5, 1.))
    w.edit.add('RandomGrayscale', 4)
    w.edit.set_args(4, gray_prob=1.)
    w.redraw()
    assert not w.errors
    cfg = Config.fromstring(w.config().dump())
    shown = w.source.walk('train', 5, 2, 3)[-1].sample['img']
    assert shown.shape==(3, 48, 48) and shown.equal(in_training(build_dataset(cfg.data.train), 5, 2, 3))
    assert len(Config.fromfile(NAME).data.train.pipeline)==8, 'the packaged config is as it was'

def test_the_seed_to_start_with_is_that_of_the_run(opened):
    assert opened(NAME, {'seed': 42}).seed==42
    assert opened(NAME, {'seed': 42, 'data.train_dataloader': dict(seed=7)}).seed==7
    assert opened(Photos('val', train)).seed==0

def test_the_walk_leaves_random_numbers_and_samples_alone():
    dataset = Photos('val', train)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    steps = walk_pipeline(dataset, 3)
    assert torch.get_rng_state().equal(before[0]) and (np.random.get_state()[1]==before[1]).all()
    assert 'img' not in dataset.data_infos[3]
    class Blacken:
        def __call__(self, sample):
            sample['img'][:] = 0
            return sample
    blackened = walk_pipeline(dataset, 3, steps=[load, Blacken()])
    assert blackened[1].picture.any() and blackened[1].sample['img'].any(), 'later steps do not change earlier tiles'
    assert (blackened[1].picture==steps[1].picture).all() and not blackened[2].picture.any()

# ---- What can be opened

def sources(tmp_path):
    "A source of each kind"
    cfg = Config.fromfile(NAME)
    (tmp_path/'own.py').write_text(cfg.dump())
    (tmp_path/'own.json').write_text(json.dumps(cfg.to_dict()))
    (tmp_path/'run').mkdir()
    (tmp_path/'run/tiny.py').write_text(cfg.dump())
    yield from (NAME, cfg, cfg.to_dict(), str(tmp_path/'own.py'), tmp_path/'own.json', tmp_path/'run',
                Run(tmp_path/'run'))

def test_takes_what_people_have(tmp_path, opened):
    for source in sources(tmp_path):
        assert PipelineExplorer.accepts(source)
        w = opened(source, index=5)
        assert not w.errors and w.step==8 and 'dog.jpg (animal)' in w.alt, source
        assert w._ctl['split'].options==('train', 'val', 'test')

def test_takes_data_sets_and_wrappers(opened):
    photos = Photos('train', train)
    for dataset in (photos, RepeatDataset(photos, 2), split_dataset(photos)[1], ConcatDataset([photos, photos])):
        w = opened(dataset, index=3)
        assert not w.errors and PipelineExplorer.accepts(dataset) and w.steps==train
        assert w._ctl['index'].max==len(dataset)-1

def test_splits_have_their_own_pipelines(opened):
    w = opened(NAME)
    assert w.edit.rows[1].name=='RandomResizedCrop'
    w.split = 'val'
    assert not w.errors and 'RandomResizedCrop' not in w.text() and w.text().startswith('val_pipeline = [')
    w.edit.switch(0)
    w.split = 'train'
    assert not w.edit.changed and w._ctl['index'].max==129
    changed = w.config()
    assert len(changed.data.val.pipeline)+1==len(w.source.cfg.data.val.pipeline)
    assert changed.data.train==w.source.cfg.data.train

def test_lists_and_wrappers_of_a_config_are_edited_where_they_stand(opened):
    inner = dict(type='Photos', split='val', pipeline=[load])
    cfg = dict(data=dict(train=[inner, dict(type='RepeatDataset', times=2, dataset=dict(inner, pipeline=train))]))
    w = opened(cfg)
    first = w._ctl['index'].max//3+1
    w.edit.add('RandomFlip')
    w.index = first
    assert len(w.steps)==len(train) and not w.errors
    w.edit.remove(3)
    out = w.config()
    assert [o['type'] for o in out.data.train[0].pipeline]==['LoadImageFromFile', 'RandomFlip']
    assert len(out.data.train[1].dataset.pipeline)==len(train)-1

# ---- Choosing a sample

def test_samples_are_found_by_class_and_words(opened):
    w = opened(Photos('train', train))
    w.class_name = 'fish'
    labels = w.source.dataset('given').get_gt_labels()
    assert labels[w.index]==2 and not w.errors
    seen = [w.index]
    for _ in range(int((labels==2).sum())-1):
        w.next.click()
        seen.append(w.index)
    assert seen==np.flatnonzero(labels==2).tolist()
    w.next.click()
    assert w.index==seen[0], 'and from the start again'
    w.previous.click()
    assert w.index==seen[-1]
    w.set(class_name='all classes', search='DOG animal')
    assert 'dog.jpg' in w.alt and f"{len(find_samples(w.source.dataset('given'), 'dog animal'))} of 130 samples fit" in w.alt
    w.search = 'there is no such thing'
    assert not w.errors and '0 of 130 samples fit, this one does not' in w.alt
    w.index = 3
    assert w.index==3 and not w.errors

def test_many_samples_are_searched():
    digits = RepeatDataset(Digits('train', []), 40)
    found = find_samples(digits, label='7')
    assert len(found) and (digits.get_gt_labels()[found]==7).all()
    with pytest.raises(ConfigError, match="no class 'seven'"): find_samples(digits, label='seven')
    with pytest.raises(ConfigError, match='no class 12'): find_samples(digits, label=12)

# ---- Tiles

def test_a_tile_says_everything(opened):
    w = opened(Photos('val', train), index=5)
    tiles = w.tiles.meta['steps']
    assert [o['title'] for o in tiles[1:3]]==['1 LoadImageFromFile', '2 RandomResizedCrop']
    assert tiles[2]['args']=='size=64' and tiles[2]['facts'].startswith('64 × 64 × 3, uint8, ') and ' ms' in tiles[2]['facts']
    assert tiles[5]['facts'].startswith('64 × 64 × 3, float32, -') and tiles[6]['facts'].startswith('3 × 64 × 64')
    assert tiles[-1]['args']=="keys=['img', 'gt_label']" and 'meta' not in w.alt
    assert abs(w.source.walk('given', 5, 0, 0)[5].picture.astype(int)-w.source.walk('given', 5, 0, 0)[4].picture).max()<=1
    w.times = False
    assert not any(' ms' in o['facts'] for o in w.tiles.meta['steps'])

@pytest.mark.parametrize('h, w, size, shape', [
    (32, 32, 184, (160, 160)), (8, 8, 184, (184, 184)), (28, 20, 184, (168, 120)), (100, 184, 184, (100, 184)),
    (375, 500, 184, (138, 184)), (1, 4000, 184, (1, 184)), (4000, 1, 184, (184, 1)),
])
def test_small_pictures_grow_by_whole_pixels(h, w, size, shape):
    picture = np.random.default_rng(0).integers(0, 255, (h, w, 3), np.uint8)
    shown = fit_whole_pixels(picture, size)
    assert shown.shape==(*shape, 3) and fit_whole_pixels(picture[..., 0], size).shape==(*shape, 3)
    if shape[0]>h: assert (shown[::shape[0]//h, ::shape[1]//w]==picture).all()

def test_several_epochs_side_by_side(opened):
    w = opened(Photos('val', train), index=5, step=2, seed=4, epoch=10, draws=5)
    w.view = 'several epochs'
    tiles = w.tiles.meta
    assert [o['title'] for o in tiles['steps']]==[f'epoch {e}' for e in range(10, 15)] and not tiles['movable']
    first = w.source.draws('given', 5, 2, range(10, 15), 4)
    assert (first[3].picture==w.source.walk('given', 5, 4, 13)[2].picture).all()
    assert 'epoch 10 to 14: after step 2' in w.alt and not w.errors
    w.step = 0
    assert not w.errors

# ---- Changing steps

def test_each_button_changes_the_pipeline(opened):
    w = opened(Photos('val', train), index=5, step=2)
    buttons = w.editor.buttons
    buttons['switch'].click()
    assert w.tiles.meta['steps'][2]['state']=='off' and buttons['switch'].description=='switch on' and len(w.steps)==7
    buttons['switch'].click()
    buttons['later'].click()
    assert w.step==3 and w.edit.rows[2].name=='RandomResizedCrop' and w.tiles.meta['chosen']==3
    buttons['earlier'].click()
    assert w.step==2 and not w.edit.changed
    w.editor.new.value = 'RandomGrayscale'
    w.editor.add.click()
    assert w.step==3 and w.edit.rows[2].name=='RandomGrayscale' and dict(w._ctl['step'].options)['3 RandomGrayscale']==3
    buttons['remove'].click()
    assert len(w.edit)==8 and not w.edit.changed
    buttons['undo'].click()
    assert len(w.edit)==9 and w.edit.changed
    buttons['reset'].click()
    assert not w.edit.changed and not w.errors
    w.step = 0
    assert buttons['switch'].disabled and buttons['remove'].disabled and buttons['earlier'].disabled

def test_numbers_are_typed(opened):
    w = opened(Photos('val', train), index=5, step=2)
    fields = {o.description: o for o in w.editor.fields.children}
    assert fields['size'].value=='64' and fields['scale'].placeholder=='(0.08, 1.0)' and not fields['scale'].value
    fields['size'].value = '(40, 80)'
    assert w.source.walk('given', 5, 0, 0)[2].shape==(40, 80, 3) and w.steps[1]['size']==(40, 80)
    fields['interpolation'].value = 'bicubic'
    assert w.steps[1]['interpolation']=='bicubic'
    fields['interpolation'].value = ''
    assert 'interpolation' not in w.steps[1] and not w.errors
    fields['size'].value = '(40,'
    assert len(w.errors)==1 and 'is not a value' in w._status.value and w.steps[1]['size']==(40, 80)
    fields['size'].value = '-3'
    assert w.tiles.meta['steps'][2]['state']=='failed' and len(w.errors)==1
    assert [o['state'] for o in w.tiles.meta['steps']]==['done', 'done', 'failed']+['not reached']*6

def test_messages_of_the_tiles(opened):
    w = opened(Photos('val', train), index=5)
    def say(**message): w.tiles._handle_custom_msg(message, [])
    say(type='choose', at=3)
    assert w.step==3
    say(type='move', at=3, to=1)
    assert w.edit.rows[0].name=='RandomFlip' and w.step==1
    say(type='switch', at=1)
    assert not w.edit.rows[0].on
    say(type='remove', at=1)
    assert [o.name for o in w.edit.rows]==[o['type'] for o in train if o['type']!='RandomFlip'] and not w.errors
    say(type='choose', at=99)
    say(type='move', at=55, to=1)
    say(type='nonsense')
    assert len(w.errors)==3 and w.step==1, 'what a page should not send is told and changes nothing'

def test_an_edit_of_every_registered_step():
    "Each can be added, shown and written as text"
    photos = Photos('val', [load])
    for name in TRANSFORMS:
        edit = PipelineEdit([load])
        edit.add(name)
        assert read_value(pipeline_text(edit.steps).partition('=')[2])==edit.steps, name
        steps = walk_pipeline(photos, 0, steps=edit.rows)
        assert steps[1].picture is not None and steps[2].state in ('done', 'failed'), name

def test_an_edit_can_be_taken_back():
    edit = PipelineEdit(train)
    for change in (lambda: edit.switch(1), lambda: edit.move(0, 3), lambda: edit.set_args(1, flip_prob=.1),
                   lambda: edit.add('Resize'), lambda: edit.remove(0), lambda: edit.reset()):
        before = edit.steps
        change()
        after = edit.steps
        edit.undo()
        assert edit.steps==before
        edit.redo()
        assert edit.steps==after
    assert edit.steps==train and train[2]['flip_prob']==.5
    with pytest.raises(ConfigError, match="Did you mean 'RandomFlip'"): edit.add('RandomFlop')
    with pytest.raises(ConfigError, match="Did you mean 'flip_prob'"): edit.set_args(2, flip_probability=1)
    with pytest.raises(ConfigError, match='there is no row -1'): edit.switch(-1)

def test_steps_that_are_objects_stay(opened):
    class Mine:
        def __call__(self, sample): return sample
    w = opened(Photos('val', [load, Mine(), dict(type='Resize', size=20)]), step=2)
    assert w.tiles.meta['steps'][2]['title']=='2 Mine' and not w.errors
    w.editor.buttons['switch'].click()
    assert [type(o) for o in w.steps]==[dict, dict] and not w.errors
    w.editor.buttons['switch'].click()
    assert 'cannot be written' in w._text.value
    with pytest.raises(ConfigError, match='is an object'): w.edit.set_args(1, size=3)
    w.source.dataset('given').pipeline.transforms.pop()
    assert len(PipelineEdit(w.source.dataset('given').pipeline))==2, 'what was changed later is seen'

# ---- What is wrong is shown in place

def test_a_failing_step_keeps_the_tiles_before_it(opened):
    def broken(sample): raise RuntimeError('no <luck>\nat all')
    w = opened(Photos('val', [*train[:3], broken, *train[3:]]), index=5)
    tiles = w.tiles.meta['steps']
    assert [o['state'] for o in tiles]==['done']*4+['failed']+['not reached']*5
    assert all(o['bytes'] for o in tiles[1:4]) and tiles[4]['facts']=='RuntimeError: no <luck>' and not w.errors
    assert 'Step 4 (broken) failed: RuntimeError: no <luck>' in w.alt and tiles[9]['title']=='9 Collect'
    assert '&lt;luck&gt;' in w._status.value

@pytest.mark.parametrize('step, told', [
    (dict(type='RandomResizedCorp', size=3), "Did you mean 'RandomResizedCrop'"), (dict(size=3), "needs the key 'type'"),
    (dict(type='Resize'), "needs the argument 'size'"), (dict(type='Resize', sizes=3), "Did you mean 'size'"),
    ('Resize', "not str"), (dict(type='Resize', size=None), 'size is'),
])
def test_a_config_with_a_wrong_step_opens(opened, step, told):
    w = opened(dict(data=dict(train=dict(type='Photos', pipeline=[load, step, norm]))))
    states = [o.state for o in w.source.walk('train', 0, 0, 0)]
    assert states==['done', 'done', 'failed', 'not reached'] and told in w.source.walk('train', 0, 0, 0)[2].error and not w.errors
    w.edit.remove(1)
    w.redraw()
    assert w.source.walk('train', 0, 0, 0)[-1].state=='done'

@pytest.mark.parametrize('source, told', [
    ('resnet18-tiny_1xb16_foto', 'Did you mean'), ('nowhere/config.py', 'nowhere/config.py'), (3, 'not a int'),
    (dict(model=dict()), 'no data.train'), (None, 'A config is a file'), ('', ''),
    (dict(data=dict(train=dict(type='Fotos', pipeline=[]))), "Did you mean 'Photos'"),
    (dict(data=dict(train=dict(type='Photos', split='trian', pipeline=[]))), "Did you mean 'train'"),
    (dict(data=dict(train=dict(type='CustomDataset', data_prefix='nowhere', pipeline=[]))), 'nowhere'),
    (dict(data=dict(train=dict(type='Photos', pipeline=3))), ''), ([], ''), (np.zeros(3), ''),
])
def test_what_cannot_be_opened_is_shown_in_place(opened, source, told):
    w = opened(source)
    assert w.errors and told in str(w.errors[0]) and '⚠' in w._status.value and w._status.value.count('\n')==0
    assert 'text/plain' in w._repr_mimebundle_()[0]
    w.seed = 3
    w.next.click()
    w.editor.add.click()
    with pytest.raises(Exception): w.source.walk('train', 0, 0, 0)

def test_an_empty_data_set_and_a_missing_file(opened, tmp_path):
    empty = Photos('val', train)
    empty.data_infos = []
    w = opened(empty)
    assert "has no samples" in str(w.errors[0])
    lost = Photos('val', train)
    lost.data_infos = [dict(img_prefix=str(tmp_path), img_info=dict(filename='gone.jpg'), gt_label=np.array(0))]
    w = opened(lost)
    assert not w.errors and 'gone.jpg' in w.alt and 'No such picture' in w.alt
    assert [o['state'] for o in w.tiles.meta['steps']][:3]==['done', 'failed', 'not reached']

def test_pictures_of_all_kinds_are_drawn(opened):
    rng = np.random.default_rng(0)
    pictures = dict(
        nan=np.full((5, 6, 3), np.nan, np.float32), grey=rng.integers(0, 255, (7, 9), np.uint8),
        one=rng.random((4, 4, 1)), four=rng.integers(0, 255, (4, 4, 4), np.uint8), flag=rng.random((4, 4))>.5,
        large=rng.integers(0, 60000, (4, 4, 3)).astype(np.uint16), constant=np.full((3, 3, 3), -2., np.float32),
        infinite=np.float32([[[1, np.inf, 0]]]), empty=np.zeros((0, 4, 3), np.uint8), text='a word',
        several=[np.zeros((4, 4, 3))], video=np.zeros((2, 4, 4, 3), np.uint8), tensor=torch.rand(3, 4, 4).half(),
        number=np.float32(3),
    )
    digits = Digits('val', [dict(type='Resize', size=9)])
    digits.data_infos = [dict(img=o, gt_label=np.array(0)) for o in pictures.values()]
    for i,name in enumerate(pictures):
        steps = walk_pipeline(digits, i, steps=[lambda sample: sample])
        w = opened(digits, index=i)
        assert not w.errors and steps[1].state=='done', name
        if name=='nan': assert '90 values are NaN or infinite' in steps[0].facts() and steps[0].picture is not None
        if name=='infinite': assert steps[0].range==(0, 1) and '1 values are NaN' in steps[0].facts()

def test_start_values_that_do_not_exist():
    with pytest.raises(ConfigError, match="no split 'tset'. Did you mean 'test'"): PipelineExplorer(NAME, split='tset')
    with pytest.raises(TypeError, match='has no control idx'): PipelineExplorer(NAME, idx=3)

# ---- As an explorer

def test_signature_and_words_of_all():
    import inspect
    import clsnb.all as everything
    signature = inspect.signature(everything.PipelineExplorer)
    assert list(signature.parameters)==['source', 'options', 'trust', 'start'] and everything.PipelineExplorer.__doc__

def test_the_picture_without_a_browser(opened, tmp_path):
    w = opened(NAME, index=5, step=2)
    still = w.snapshot()
    assert still.state['index']==5 and still.px[0]==800 and 'dog.jpg' in still.alt
    w.save_html(tmp_path/'p.html')
    text = (tmp_path/'p.html').read_text()
    assert 'src="data:' in text and 'http' not in text
    use_canvas(False)
    try:
        plain = opened(NAME, index=5, step=2)
        assert not hasattr(plain, 'tiles') and not plain.errors
        before = plain._img.value
        plain.editor.buttons['switch'].click()
        assert plain._img.value!=before and not plain.errors
    finally: use_canvas(None)

def test_opening_a_hundred_times_leaves_nothing():
    from ipywidgets.widgets.widget import _instances
    dataset = Photos('val', train)
    PipelineExplorer(dataset).close()
    count = len(_instances)
    for _ in range(100): PipelineExplorer(dataset, index=3).close()
    assert len(_instances)==count

# ---- In a browser

OPEN = """from clsnb.widgets.pipeline import PipelineExplorer
ex = PipelineExplorer('resnet18-tiny_1xb16_photos', index=5, step=2)
ex"""

def tile(nb, i): return nb.page.locator('.stp-tile').nth(i)
def opened_in(nb, code=OPEN): nb.run(code, '.stp[data-draws] .stp-tile')
def told(nb, pattern): nb.text('.clsnb-status', pattern)
def loaded(nb, i): return tile(nb, i).locator('img').evaluate('o => o.decode().then(() => o.naturalWidth > 20)')

def test_tiles_in_a_browser(nb):
    opened_in(nb)
    told(nb, r'dog\.jpg \(animal\), seed 0, epoch 0: after step 2, RandomResizedCrop')
    assert nb.page.locator('.stp-tile').count()==9 and loaded(nb, 1) and loaded(nb, 8)
    nb.text('.stp-tile:nth-child(6)', r'5 Normalize.*to_rgb=True.*float32, -.* ms')
    assert not nb.page.locator('.clsnb-picture').first.is_visible(), 'the tiles stand in for the picture'
    before = tile(nb, 2).locator('img').get_attribute('src')
    nb.page.locator('.clsnb-resample').click()
    told(nb, 'epoch 1: ')
    assert tile(nb, 2).locator('img').get_attribute('src')!=before and loaded(nb, 2)
    tile(nb, 5).click()
    told(nb, 'after step 5, Normalize')
    assert tile(nb, 5).get_attribute('aria-selected')=='true'
    nb.page.locator('.clsnb-view select').select_option('several epochs')
    told(nb, 'epoch 1 to 12')
    nb.text('.stp-tile:nth-child(12)', 'epoch 12')
    nb.py("assert (ex.step, ex.epoch, ex.errors) == (5, 1, [])")

def test_a_step_is_dragged(nb):
    opened_in(nb)
    tile(nb, 4).drag_to(tile(nb, 2))
    nb.text('.stp-tile:nth-child(3)', '2 ColorJitter')
    told(nb, 'after step 2, ColorJitter')
    nb.page.locator('.clsnb-undo').click()
    nb.text('.stp-tile:nth-child(3)', '2 RandomResizedCrop')
    nb.py("assert not ex.edit.changed and not ex.errors")

def test_the_keyboard_suffices(nb):
    opened_in(nb)
    cells = nb.page.evaluate('jupyterapp.shell.currentWidget.content.widgets.length')
    nb.page.locator('.stp-list').focus()
    nb.page.keyboard.press('ArrowRight')
    told(nb, 'after step 3, RandomFlip')
    nb.page.keyboard.press('Space')
    nb.text('.stp-tile:nth-child(4)', '3 RandomFlip.*off')
    nb.page.keyboard.press('Alt+ArrowRight')
    nb.text('.stp-tile:nth-child(5)', '4 RandomFlip.*off')
    nb.page.keyboard.press('Delete')
    nb.text('.stp-tile:nth-child(5)', '4 Normalize')
    for key in 'bdd': nb.page.keyboard.press(key)
    assert nb.page.evaluate('jupyterapp.shell.currentWidget.content.widgets.length')==cells, 'Lab keeps its keys to itself'
    nb.py("assert len(ex.steps) == 7 and not ex.errors")

def test_numbers_words_and_samples_are_typed(nb):
    opened_in(nb)
    def type_in(css, text):
        box = nb.page.locator(css).first
        box.fill(text)
        box.press('Enter')
    type_in('.clsnb-argument:has-text("size") input', '32')
    nb.text('.stp-tile:nth-child(3)', 'size=32.*32 × 32 × 3')
    type_in('.clsnb-argument:has-text("scale") input', '(.1, ')
    told(nb, 'is not a value')
    type_in('.clsnb-search input', 'windmill')
    told(nb, r'windmill.* samples fit')
    nb.page.locator('.clsnb-next').click()
    type_in('.clsnb-search input', '')
    type_in('.clsnb-index input', '7')
    type_in('.clsnb-seed input', '11')
    told(nb, 'seed 11')
    nb.page.locator('.clsnb-class-name select').select_option('fish')
    told(nb, r'\(fish\).* samples fit')
    assert nb.page.locator('.clsnb-status [role=status][aria-live=polite]').count()==1
    nb.py("assert ex.steps[1]['size'] == 32 and ex.seed == 11 and [type(o).__name__ for o in ex.errors] == ['ConfigError']")

def test_what_fails_is_shown_in_its_place(nb):
    opened_in(nb)
    nb.page.locator('.clsnb-argument:has-text("size") input').first.fill('-3')
    nb.page.locator('.clsnb-argument:has-text("size") input').first.press('Enter')
    nb.text('.stp-tile:nth-child(3)', '2 RandomResizedCrop.*not -3')
    assert tile(nb, 2).get_attribute('data-state')=='failed' and loaded(nb, 1)
    nb.text('.stp-tile:nth-child(9)', '8 Collect.*not reached')
    nb.page.locator('.clsnb-add').click()
    nb.text('.stp-tile:nth-child(4)', '3 RandomFlip.*not reached')
    nb.page.locator('.clsnb-reset').click()
    nb.text('.stp-tile:nth-child(9)', '8 Collect.*float32')
    nb.py("assert not ex.errors")
