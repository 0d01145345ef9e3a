"Pictures of any form, asked about with one call"
import contextlib, io, itertools, json, os, shutil, warnings
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
from clsnb.all import extract_feat, fit, init_model, photo_path, predict, predict_scores
from clsnb.apis.answered_pictures import sort_pictures
from clsnb.apis.test import evaluate_config
from clsnb.cli import main
from clsnb.core.errors import ClsnbError, ConfigError, DataError
from clsnb.data.preprocessing import inference_pipeline, picture_sample

QUIET = {'runner.max_epochs': 1, 'log_level': 'ERROR', 'data.workers_per_gpu': 0}

@pytest.fixture(scope='module')
def run(tmp_path_factory):
    "A run of one epoch on the packaged photographs"
    return fit('resnet18-tiny_1xb16_photos', work_dir=tmp_path_factory.mktemp('run'), options=QUIET, device='cpu')

@pytest.fixture(scope='module')
def tested(run):
    "Its validation files, and the scores that a test gives them"
    _, scores, dataset, _ = evaluate_config(run.folder, device='cpu')
    return [os.path.join(dataset.data_prefix, o['img_info']['filename']) for o in dataset.data_infos], scores, dataset

def test_answers_are_those_of_a_test_to_the_last_digit(run, tested):
    files, scores, dataset = tested
    for batch_size, workers in ((None, None), (1, 0), (7, 2), (100, 1)):
        table = predict(run, files, scores=True, batch_size=batch_size, workers=workers, device='cpu')
        assert np.array_equal(table[list(dataset.CLASSES)].to_numpy(), scores), (batch_size, workers)
        assert table.score.tolist()==scores.max(1).tolist() and table.label.tolist()==scores.argmax(1).tolist()
        assert table.file.tolist()==files
    accuracy = 100*float((table.label==dataset.get_gt_labels()).mean())
    assert accuracy==pytest.approx(run.metrics['accuracy_top-1'], abs=1e-4)

def test_a_model_in_every_form_gives_the_same_answer(run, tested):
    file = tested[0][0]
    model = init_model(run)
    right = predict(model, file).iloc[0]
    checkpoint = str(run.weights)
    for other in (run, run.folder, str(run.folder), checkpoint, Path(checkpoint)):
        assert predict(other, file, device='cpu').iloc[0].equals(right), other
    assert predict(run.config, file, weights=checkpoint, device='cpu').iloc[0].equals(right)
    model.train()
    assert predict(model, file).iloc[0].equals(right) and model.training
    with pytest.raises(ConfigError, match='open already'): predict(model, file, weights=checkpoint)
    with pytest.raises(ConfigError, match='without weights'): predict('resnet18-tiny_1xb16_photos', file)
    with pytest.raises(ConfigError, match='init_model'): predict(torch.nn.Conv2d(3, 3, 1), file)

def test_pictures_in_every_form_give_the_same_answer(run, tmp_path):
    from PIL import Image
    file = str(tmp_path/'a.png')
    picture = Image.open(photo_path('cat')).convert('RGB')
    picture.save(file)
    rgb = np.asarray(picture)
    model = init_model(run)
    right = predict(model, file).iloc[0]
    chw = torch.from_numpy(rgb.copy()).permute(2, 0, 1)
    forms = [Path(file), Path(file).read_bytes(), io.BytesIO(Path(file).read_bytes()), open(file, 'rb'), picture, chw, chw/255,
             chw[None], f'{tmp_path}/*.png', tmp_path, f'file://{file}', [file], (o for o in [file]), pd.Series([file]), {file},
             pd.DataFrame(dict(path=[file], label=[3])), pd.DataFrame(dict(image=[picture])), np.array([file])]
    for x in forms:
        table = predict(model, x)
        assert len(table)==1 and table.score[0]==right.score and table['class'][0]==right['class'], x
    arrays = [(rgb, 'rgb', None), (rgb[..., ::-1], 'bgr', None), (rgb/255, 'rgb', (0, 1)), (rgb/127.5-1, 'rgb', (-1, 1)),
              (rgb.astype(np.uint16)*257, 'rgb', None), (rgb.astype(np.float64), 'rgb', None), (rgb[None], 'rgb', (0, 255))]
    for x, order, values in arrays:
        assert predict(model, x, channel_order=order, value_range=values).score[0]==pytest.approx(right.score, abs=3e-4)
    assert predict(model, rgb, channel_order='rgb').score[0]==right.score!=predict(model, rgb, channel_order='bgr').score[0]
    assert predict(model, chw.flip(0), channel_order='bgr').score[0]==right.score

@pytest.mark.parametrize('x,stated,text', [
    (np.zeros((9, 9, 3), np.uint8), {}, "channel_order='rgb'"),
    (np.zeros((9, 9, 4), np.uint8), {}, "channel_order='rgb'"),
    (np.ones((9, 9, 3))*1.3, dict(channel_order='rgb'), 'value_range'),
    (torch.randn(3, 9, 9), {}, 'value_range'),
    (np.ones((9, 9))*300., {}, 'value_range'),
    (np.zeros((9, 9, 3)), dict(channel_order='gbr'), 'gbr'),
    (np.zeros((9, 9)), dict(value_range=(1, 1)), 'black and white'),
    (np.zeros((9, 9)), dict(value_range=3), 'black and white'),
    ([np.zeros((9, 9, 3), np.uint8)], dict(workers=2), "channel_order='rgb'"),
])
def test_ambiguous_arrays_are_refused_with_what_to_state(run, x, stated, text):
    with pytest.raises(ConfigError, match=text) as e: predict(run, x, device='cpu', **stated)
    assert '\n' not in str(e.value)

def test_a_broken_picture_is_a_row_with_its_reason(run, tmp_path, tested):
    good = tested[0][0]
    (tmp_path/'empty.jpg').touch()
    (tmp_path/'cut.jpg').write_bytes(Path(photo_path('cat')).read_bytes()[:2000])
    (tmp_path/'text.png').write_text('hello')
    (tmp_path/'none').mkdir()
    items = [good, tmp_path/'empty.jpg', None, tmp_path/'cut.jpg', good, 'nowhere.jpg', tmp_path/'text.png', b'abc', 3.5,
             tmp_path/'none', float('nan'), np.zeros((3, 9, 9)), good]
    for workers in (0, 2):
        table = predict(run, items, batch_size=3, workers=workers, device='cpu')
        assert len(table)==len(items)
        fine = table.error.isna()
        assert np.flatnonzero(fine).tolist()==[0, 4, 12] and table.label[~fine].isna().all() and table.score[~fine].isna().all()
        assert table['class'][~fine].isna().all() and all(isinstance(o, str) and '\n' not in o for o in table.error[~fine])
        for i, word in ((1, 'empty'), (3, 'cut'), (5, 'nowhere.jpg'), (6, 'text.png'), (8, 'float'), (9, 'no picture')):
            assert word in table.error[i]
        assert table.score[0]==table.score[4]==table.score[12]
    folder = predict(run, [tmp_path/'empty.jpg'], device='cpu')
    assert len(folder)==1 and folder.score.isna().all()
    assert list(predict(run, [], device='cpu').columns)==['file', 'label', 'class', 'score', 'error']

@pytest.mark.parametrize('x,text', [
    (3, 'list or generator'), (None, 'list or generator'), ({'a': 1}, 'list or generator'), ('nowhere/*.jpg', 'No picture fits'),
    (pd.DataFrame(dict(a=['x'], b=['y'])), 'Which column')])
def test_what_is_no_picture_is_refused(run, x, text):
    with pytest.raises(ClsnbError, match=text): predict(run, x)

def test_an_empty_folder_is_refused(run, tmp_path):
    with pytest.raises(DataError, match='no picture'): predict(run, tmp_path)
    with pytest.raises(ConfigError, match='column'): predict(run, 'a.jpg', column='b')
    with pytest.raises(ConfigError, match="no column 'pth'.*path"): predict(run, pd.DataFrame(dict(path=['a'])), column='pth')

def test_a_generator_is_read_as_it_is_needed(run):
    file, taken = photo_path('cat'), []
    def pictures(n):
        for i in range(n):
            taken.append(i)
            yield file
    from clsnb.apis.picture_scores import PictureScores
    from clsnb.data.picture_inputs import picture_inputs
    source = PictureScores(init_model(run), picture_inputs(pictures(10**9)), batch_size=4, workers=2)
    assert len(list(itertools.islice(source, 20)))==20
    assert len(taken)<100
    assert len(predict(run, pictures(70), device='cpu', workers=0))==70

def test_a_table_keeps_its_index(run, tested):
    files = tested[0][:3]
    table = pd.DataFrame(dict(path=files, note=list('abc')), index=[7, 3, 5])
    joined = table.join(predict(run, table, device='cpu'))
    assert joined.file.tolist()==files and joined.note.tolist()==list('abc')
    assert predict(run, table.rename(columns=dict(path='x')), column='x', device='cpu').index.tolist()==[7, 3, 5]

def test_several_classes_are_lists_best_first(run, tested):
    files, scores, dataset = tested
    table = predict(run, files[:4], topk=3, device='cpu')
    assert [len(o) for o in table.label]==[3]*4 and table.label[0]==np.argsort(-scores[0], kind='stable')[:3].tolist()
    assert table['class'][0]==[dataset.CLASSES[i] for i in table.label[0]]
    assert table.score[0]==sorted(table.score[0], reverse=True)
    assert len(predict(run, files[0], topk=99, device='cpu').label[0])==6
    with pytest.raises(ConfigError, match='topk'): predict(run, files[0], topk=0)
    with pytest.raises(ConfigError, match='multi-label'): predict(run, files[0], thr=.5)

def test_a_multi_label_model_names_every_class_above_its_threshold(tmp_path):
    from test_multi_label import tagged_config, tagged_photos
    folder = tagged_photos(tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', '.*has no samples')
        tags = fit(tagged_config(folder, metric_options=dict(thr=[.5, .5, .3])), folder/'run', device='cpu')
    metrics, scores, dataset, model = evaluate_config(tags.folder, device='cpu')
    files = [os.path.join(dataset.data_prefix or '', o['img_info']['filename']) for o in dataset.data_infos]
    table = predict(tags, files, scores=True, workers=2, batch_size=5, device='cpu')
    assert np.array_equal(table[list(dataset.CLASSES)].to_numpy(), scores)
    assert table.attrs['multi_label'] and metrics['mAP']==pytest.approx(tags.metrics['mAP'], abs=1e-4)
    for i, row in table.iterrows():
        found = np.flatnonzero(scores[i]>=np.array([.5, .5, .3], np.float32))
        assert sorted(row.label)==found.tolist() and row.score==sorted(row.score, reverse=True)
        assert row['class']==[dataset.CLASSES[k] for k in row.label]
    assert [len(o) for o in predict(tags, files[:3], thr=0, device='cpu').label]==[3]*3
    assert [len(o) for o in predict(tags, files[:3], topk=2, device='cpu').label]==[2]*3
    assert predict(tags, [files[0], 'nowhere.jpg'], thr=1.1, device='cpu').label.tolist()==[[], None]

def test_answers_about_versions_are_averaged(run, tested):
    file, model = tested[0][0], init_model(run)
    batch = inference_pipeline(model, True)(picture_sample(file))['img'][None]
    mean = np.mean([model(o, return_loss=False)[0] for o in (batch, batch.flip(-1))], 0)
    names = list(model.CLASSES)
    for tta in ('flip', 2, ['flip'], '2'):
        assert np.array_equal(predict(run, file, tta=tta, scores=True, device='cpu')[names].to_numpy()[0], mean), tta
    plain = predict(run, tested[0][:20], scores=True, device='cpu')[names].to_numpy()
    assert np.array_equal(predict(run, tested[0][:20], tta=1, scores=True, device='cpu')[names].to_numpy(), plain)
    for tta in ('five_crop', 'ten_crop', 'scales', ['scales', 'flip'], 5):
        one, two = [predict(run, tested[0][:20], tta=tta, scores=True, workers=n, batch_size=3, device='cpu') for n in (0, 2)]
        assert np.array_equal(one[names].to_numpy(), two[names].to_numpy())
        assert np.allclose(one[names].sum(axis=1), 1) and not np.allclose(one[names].to_numpy(), plain, atol=1e-6)
        assert np.abs(one[names].to_numpy()-plain).max()<.2
    for tta, text in (('flop', 'flip'), (4, 'numbers of versions'), (['flip', 'crop'], 'five_crop')):
        with pytest.raises(ConfigError, match=text): predict(run, file, tta=tta)

def test_five_crops_are_the_corners_and_the_middle():
    from clsnb.data.tta import tta_versions
    from clsnb.data.transforms.pipeline import Compose
    img = np.arange(8*10).reshape(8, 10).astype(np.float32)
    versions, flips = tta_versions([dict(type='Resize', size=(8, -1)), dict(type='CenterCrop', crop_size=4)], 'five_crop')
    assert not flips and len(versions)==5
    found = [Compose(o)(dict(img=img))['img'] for o in versions]
    right = [img[2:6, 3:7], img[:4, :4], img[:4, -4:], img[-4:, :4], img[-4:, -4:]]
    assert all(np.array_equal(a, b) for a, b in zip(found, right))
    with pytest.raises(ConfigError, match='no Resize'): tta_versions([dict(type='Normalize')], 'scales')

def test_the_classifier_takes_a_list_of_versions(run):
    model = init_model(run)
    x, y = torch.randn(2, 3, 3, 64, 64)
    right = (np.stack(model(x, return_loss=False))+np.stack(model(y, return_loss=False)))/2
    assert np.allclose(model([x, y], return_loss=False, img_metas=[None, None]), right, atol=1e-7)
    assert np.array_equal(model([x], return_loss=False), model(x, return_loss=False))
    logits = model([x, y], return_loss=False, softmax=False, post_process=False)
    assert torch.is_tensor(logits) and logits.shape==(3, 6)
    for wrong in ([], 'x', None):
        with pytest.raises(TypeError, match='versions'): model(wrong, return_loss=False)

@pytest.fixture
def photos(tmp_path, monkeypatch):
    "A folder with two photographs, as the current one"
    monkeypatch.chdir(tmp_path)
    (tmp_path/'pics/sub').mkdir(parents=True)
    for name, place in (('cat', 'cat.jpg'), ('fish1', 'sub/cat.jpg')): shutil.copy(photo_path(name), tmp_path/'pics'/place)
    return tmp_path

def mmcls_checkpoint(run, path):
    "A file as mmcls writes it: weights, and no config"
    torch.save(dict(meta={}, state_dict=torch.load(run.weights, weights_only=True)['state_dict']), path)
    return str(path)

def words_of(line, capsys, status=0):
    with pytest.raises(SystemExit) if status else contextlib.nullcontext() as e: main(line.split())
    assert not status or e.value.code==status
    return capsys.readouterr()

def test_the_command_takes_config_and_checkpoint_in_both_orders(run, photos, capsys):
    weights = mmcls_checkpoint(run, photos/'mm.pth')
    right = words_of(f'predict {run.folder} pics/cat.jpg', capsys).out
    score = predict(run, 'pics/cat.jpg', device='cpu').score[0]
    assert right.startswith('pics/cat.jpg: ') and right.endswith(f' {score:.3f}\n')
    config = 'resnet18-tiny_1xb16_photos'
    (photos/'mine.py').write_text(run.config.pretty_text)
    for words in (f'predict {config} {weights} pics/cat.jpg', f'predict pics/cat.jpg {config} {weights}',
                  f'predict mine.py {weights} pics/cat.jpg', f'image_demo pics/cat.jpg mine.py {weights}',
                  f'image-demo pics/cat.jpg mine.py {weights} --device cpu', f'predict mine.py pics/cat.jpg --weights {weights}'):
        assert words_of(words, capsys).out.split(': ')[1].split()[1:]==right.split(': ')[1].split()[1:], words
    assert 'holds no config' in words_of(f'predict {weights} pics/cat.jpg', capsys, 2).err
    assert 'without weights' in words_of(f'predict {config} pics/cat.jpg', capsys, 2).err
    assert 'name the pictures' in words_of(f'predict {config} {weights}', capsys, 2).err
    assert '(untrained)' in words_of(f'predict {config} pics/cat.jpg --weights none', capsys).out

def test_the_command_sorts_and_shows_without_writing_over_anything(run, photos, capsys, monkeypatch):
    for name in ('DISPLAY', 'WAYLAND_DISPLAY'): monkeypatch.delenv(name, raising=False)
    (photos/'pics/broken.jpg').write_text('x')
    line = f'predict {run.folder} pics --device cpu --sort-into out/sorted --show-dir shown --show --json --topk 2 --tta flip'
    for turn in (1, 2):
        printed = words_of(line, capsys, 1)
        record = json.loads(printed.out)
        assert len(record['predictions'])==3 and len(record['shown'])==len(record['copied'])==2
        assert 'no display' in printed.err
        files = sorted(str(o.relative_to(photos/'out/sorted')) for o in (photos/'out/sorted').rglob('*.*'))
        assert len(files)==2*turn and len(list((photos/'shown').iterdir()))==2*turn
    best = {o['file']: o['classes'][0] for o in record['predictions'] if 'classes' in o}
    assert {Path(o).parent.name for o in record['copied']}=={o['class'] for o in best.values()}
    assert {Path(o).read_bytes() for o in record['copied']}=={Path(o).read_bytes() for o in best}
    assert isinstance(best['pics/cat.jpg']['label'], int)
    for folder in ('pics/sorted', 'pics', './pics/sub/x'):
        assert 'inside of pics' in words_of(f'predict {run.folder} pics --sort-into {folder}', capsys, 2).err
    with pytest.raises(ConfigError, match='inside of'): sort_pictures(predict(run, 'pics', device='cpu'), 'pics/sorted')

def test_the_command_writes_tables(run, photos, capsys):
    for suffix in ('csv', 'json', 'jsonl'):
        words_of(f'predict {run.folder} pics --device cpu --out {suffix}/a.{suffix} --scores --workers 0', capsys)
        assert (photos/suffix/f'a.{suffix}').stat().st_size>100
    assert 'has to end' in words_of(f'predict {run.folder} pics --out a.xls', capsys, 2).err
    assert 'no picture' in words_of(f'predict {run.folder} {photos/"csv"}', capsys, 2).err

def test_features_of_every_stage(run, photos, capsys):
    model = init_model(run)
    batch = inference_pipeline(model, True)(picture_sample('pics/cat.jpg'))['img'][None]
    files = ['pics/cat.jpg', 'nowhere.jpg', 'pics/sub/cat.jpg']
    for stage in ('backbone', 'neck', 'pre_logits'):
        with torch.no_grad(): right = model.extract_feat(batch, stage=stage)
        right = right[-1] if isinstance(right, tuple) else right
        features = extract_feat(run, files, stage, device='cpu')
        assert np.allclose(features.array[0], right[0].numpy(), atol=1e-5) and features.shape[0]==len(features)==3
        assert np.isnan(features.array[1]).all() and 'nowhere.jpg' in features.errors[1] and features.files==files
    with pytest.raises(ConfigError, match='pre_logits'): extract_feat(run, files, 'head')
    for suffix in ('npy', 'npz', 'csv'):
        words_of(f'extract-feat {run.folder} pics --device cpu --stage neck --out f.{suffix}', capsys)
    right = np.asarray(extract_feat(run, 'pics', device='cpu'))
    assert np.array_equal(np.load('f.npy'), right) and np.array_equal(np.load('f.npz')['features'], right)
    assert np.allclose(pd.read_csv('f.csv').iloc[:, 2:].to_numpy(), right) and pd.read_csv('f.csv').file[0]=='pics/cat.jpg'
    record = json.loads(words_of(f'extract-feat {run.folder} pics nowhere.jpg --json', capsys, 1).out)
    assert record['pictures']==3 and record['shape']==[3, 128] and len(record['errors'])==1

@pytest.mark.parametrize('name', ['mobilenet_v2', 'resnet18'])
def test_a_model_of_torchvision_answers_as_torchvision_does(tmp_path, monkeypatch, name, capsys):
    import torchvision
    from PIL import Image
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    weights = list(torchvision.models.get_model_weights(name))[0]
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name).eval()
    last = list(theirs.modules())[-1]
    torch.nn.init.normal_(last.weight, std=.5) # scores that differ
    (tmp_path/'hub/checkpoints').mkdir(parents=True)
    torch.save(theirs.state_dict(), tmp_path/'hub/checkpoints'/weights.url.split('/')[-1])
    files = [photo_path(o) for o in ('cat', 'fish1', 'windmill3')]
    preset = weights.transforms()
    with torch.no_grad(): right = theirs(torch.stack([preset(Image.open(o).convert('RGB')) for o in files])).softmax(1).numpy()
    model = init_model(f'torchvision://{name}')
    assert list(model.CLASSES)==weights.meta['categories']
    assert np.allclose(predict_scores(model, files), right, rtol=1e-3, atol=1e-6)
    table = predict(f'torchvision://{name}', files, device='cpu')
    assert table['class'].tolist()==[weights.meta['categories'][i] for i in right.argmax(1)]
    printed = words_of(f'predict torchvision://{name} {files[0]} --device cpu', capsys).out
    assert printed.startswith(f"{files[0]}: {table['class'][0]}")
    with pytest.raises(ClsnbError, match='mobilenet_v2'): init_model('torchvision://mobilenet_v7')

def test_an_untrained_model_says_so(tmp_path):
    table = predict('resnet18-tiny_1xb16_photos', photo_path('cat'), weights='none')
    assert table.untrained.all() and table.attrs['untrained']

@pytest.mark.parametrize('suffix', ['.csv', '.json', '.jsonl', '.parquet'])
def test_the_table_is_written_by_its_ending(run, tmp_path, tested, suffix):
    if suffix=='.parquet': pytest.importorskip('pyarrow')
    files = [*tested[0][:2], 'nowhere.jpg']
    out = tmp_path/'new'/f'answers{suffix}'
    table = predict(run, files, out=out, scores=True, device='cpu')
    read = dict(zip(['.csv', '.json', '.parquet'], [pd.read_csv, pd.read_json, getattr(pd, 'read_parquet')]))
    again = pd.read_json(out, lines=True) if suffix=='.jsonl' else read[suffix](out)
    assert list(again.columns)==list(table.columns) and again.file.tolist()==files
    assert again.label.isna().tolist()==[False, False, True] and again.score[0]==pytest.approx(table.score[0], abs=1e-9)
    lists = predict(run, files, out=out, topk=2, device='cpu')
    if suffix=='.csv': assert pd.read_csv(out)['class'][0]=='; '.join(lists['class'][0])
    elif suffix=='.json': assert json.loads(out.read_text())[0]['class']==lists['class'][0]

def test_a_table_that_cannot_be_written_is_told_before_the_work(run, tmp_path):
    (tmp_path/'file').touch()
    wrong = ((tmp_path/'a.txt', 'has to end'), (tmp_path/'file'/'a.csv', 'cannot be written'), (tmp_path, 'has to end'))
    for out, text in wrong:
        with pytest.raises(ClsnbError, match=text): predict(run, (1/0 for _ in [1]), out=out)

def test_answers_so_far_are_kept_when_the_work_is_interrupted(run, tested, tmp_path):
    def pictures():
        yield from tested[0][:40]
        raise KeyboardInterrupt
    for workers in (0, 1):
        out = tmp_path/f'{workers}.csv'
        with pytest.raises(KeyboardInterrupt): predict(run, pictures(), out=out, workers=workers, device='cpu')
        kept = pd.read_csv(out)
        assert len(kept)==40 and kept.score.tolist()==pytest.approx(tested[1].max(1)[:len(kept)].tolist(), abs=1e-9)
