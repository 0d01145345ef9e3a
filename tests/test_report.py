"The report: what it takes, what it survives, and what a reader can do with it in a browser"
import json, re
import numpy as np, pytest
from pathlib import Path
import clsnb
from clsnb.analysis.report import make_report
from clsnb.core.errors import ClsnbError, DataError
from clsnb.runs.folder import Run
from clsnb.runs.results import Results

photos = Path(clsnb.__file__).parent/'photos'
rows = [line.split() for line in (photos/'val.txt').read_text().splitlines()]
files, labels = [o[0] for o in rows], np.array([int(o[1]) for o in rows])
scripts = ['猫と犬', 'قطة صغيرة', 'बिल्ली', 'emoji 🐱', 'a name that never seems to end'*5, '<b id=x>$a_1$ & "b"</b>']

def soft(logits): return np.exp(logits)/np.exp(logits).sum(1, keepdims=True)

def photo_results(classes=None, strength=2.3, root=photos, seed=0):
    logits = np.random.default_rng(seed).normal(size=(len(labels), 6)) + strength*np.eye(6)[labels]
    return Results(soft(logits), labels, classes or list('abcdef'), files, root)

def tag_results(n=6):
    rng = np.random.default_rng(1)
    truth = (rng.random((len(files), n))<.4).astype(int)
    scores = np.clip(.25*rng.normal(size=truth.shape)+.2+.5*truth, .01, .99)
    return Results(scores, truth, (scripts*n)[:n], files, photos)

def write_log(folder, **first):
    folder.mkdir(parents=True, exist_ok=True)
    rows = [dict(seed=3, **first)] + [dict(mode='train', epoch=1, iter=i, lr=.1, loss=1., time=.5) for i in (1, 2)]
    (folder/'20260102_030405.log.json').write_text('\n'.join(map(json.dumps, rows))+'\n')

def text_of(page): return page.read_text(encoding='utf-8')

# ---- What it takes

def test_everything_that_holds_results(tmp_path):
    "A work folder, a Run, results, a file of results; the page says the same"
    work, r = tmp_path/'work', photo_results()
    write_log(work)
    assert make_report(work, r) == work/'report.html'
    expected = f'{100*r.accuracy:.1f} %'
    (tmp_path/'alone').mkdir()
    r.save(tmp_path/'alone/answers.json')
    elsewhere = [(r, tmp_path/'r.html'), (work/'results.npz', tmp_path/'n.html'), (str(work), tmp_path/'s.html')]
    for source, out in [(work, None), (Run(work), None), (tmp_path/'alone/answers.json', None), *elsewhere]:
        page = make_report(source, out=out)
        assert expected in text_of(page) and 'Left out' not in text_of(page), source
    assert (tmp_path/'alone/answers.html').is_file() and not (tmp_path/'alone/figures').exists()

def test_circumstances(tmp_path):
    env = dict(clsnb='0.1.0', python='3.12.1', torch='2.6.0', device='NVIDIA H200', system='Linux')
    work = tmp_path/'work'
    write_log(work, env_info=env, command='clsnb train x --y http://me:secret@host/z', commit='8c89f7a')
    (work/'left_out.txt').write_text('pictures: 2 files could not be read\n')
    (work/'cfg.py').write_text("data = dict(val=dict(type='CSVDataset', ann_file='val.csv'))\n")
    text = text_of(make_report(work, photo_results()))
    for words in ('2026-01-02 03:04', 'CSVDataset, val.csv', '54 validation pictures', 'PyTorch 2.6.0', 'NVIDIA H200',
                  '8c89f7a', '2 files could not be read', 'clsnb train x', '<dt>seed</dt><dd>3</dd>'):
        assert words in text, words
    assert 'secret' not in text

def test_environment_of_mmcls(tmp_path):
    env = 'sys.platform: linux\nPython: 3.8.1\nGPU 0: A100\nPyTorch: 1.9\nMMClassification: 0.25.0+1'
    write_log(tmp_path, env_info=env)
    text = text_of(make_report(tmp_path, photo_results()))
    assert 'mmcls 0.25.0+1, Python 3.8.1, PyTorch 1.9' in text and '<dd>A100</dd>' in text

def test_comparison(tmp_path):
    now, before = photo_results(), photo_results(strength=1., seed=5)
    before.save(tmp_path/'old.npz')
    text = text_of(make_report(now, out=tmp_path/'p.html', baseline=tmp_path/'old.npz'))
    fixed, broken = int((now.correct&~before.correct).sum()), int((~now.correct&before.correct).sum())
    assert f'{fixed} fixed' in text and f'{broken} broken' in text and 'Compared with old.npz' in text
    gone = Results(before.scores[:9], before.labels[:9], list('abcdef'), [f'other{i}' for i in range(9)])
    assert 'evaluated on different pictures' in text_of(make_report(now, out=tmp_path/'q.html', baseline=gone))
    text = text_of(make_report(now, out=tmp_path/'t.html', baseline=tag_results()))
    assert 'the comparison: DataError: One of the two results has several labels' in text

@pytest.mark.parametrize('make,words', [
    (lambda tmp: make_report(tmp/'nowhere'), 'there is no such file or folder'),
    (lambda tmp: make_report(tmp), 'has no results.npz .* test a checkpoint first'),
    (lambda tmp: make_report(photo_results(), out=tmp/'page.txt'), 'has to end with .html'),
    (lambda tmp: make_report(photo_results(), out=tmp/'file/page.html'), 'cannot be written'),
    (lambda tmp: make_report(photo_results(), out=tmp/'p.html', baseline=tmp/'nowhere'), 'there is no such file'),
    (lambda tmp: make_report(tmp/'file'), 'file'),
    (lambda tmp: make_report(photo_results(), out=tmp/'p.html', baseline=5), 'not from int'),
])
def test_one_line_for_bad_input(tmp_path, make, words):
    (tmp_path/'file').write_text('not results')
    with pytest.raises(ClsnbError, match=words) as e: make(tmp_path)
    assert '\n' not in str(e.value)
    assert not list(tmp_path.glob('**/*.html'))

def test_unfinished_run(tmp_path):
    write_log(tmp_path)
    with pytest.raises(DataError, match=r'has no results.npz .*clsnb test'): make_report(tmp_path)
    assert 'Left out' not in text_of(make_report(tmp_path, photo_results()))

# ---- What it survives

odd_results = dict(
    one_class=lambda: Results(np.ones((5, 1)), [0]*5, ['only']),
    empty=lambda: Results([], [], ['a', 'b']),
    nan=lambda: Results(np.array([[np.nan]*3, [.2, np.nan, .8], [.1, .8, .1]]), [0, 2, 1], list('abc')),
    all_nan=lambda: Results(np.full((4, 3), np.nan), [0, 2, 1, 1], list('abc')),
    logits=lambda: Results([[-3., 9.], [4., 1.]], [1, 1]),
    moved=lambda: photo_results(root='moved/away'),
    twins=lambda: Results(np.eye(3)[[0, 1, 2, 0]], [0, 1, 1, 2], ['same', 'same', 'other']),
    perfect=lambda: Results(np.eye(2), [0, 1]),
    names=lambda: photo_results(scripts),
    surrogates=lambda: Results(np.eye(2), [0, 0], ['a', 'b'], ['x\udcff.jpg', 'y\0.jpg']),
    tags=tag_results,
    one_tag=lambda: tag_results(1),
    no_tags=lambda: Results(np.zeros((0, 2)), np.zeros((0, 2), int), ['a', 'b']),
    unknown_tags=lambda: Results([[.2, .9], [.7, .4]], [[-1, -1], [-1, -1]]),
    nan_tags=lambda: Results([[np.nan, .9], [.7, np.nan]], [[1, 0], [1, 1]]),
    many_tags=lambda: Results(np.eye(90), np.eye(90, dtype=int)),
)

@pytest.mark.parametrize('kind', odd_results)
def test_odd_results(tmp_path, kind):
    "Every section can be made, of whatever results"
    r = odd_results[kind]()
    page = make_report(tmp_path/'run', r)
    left_out = re.findall(r'<h2>Left out</h2>.*?</ul>', text_of(page))
    assert not left_out, left_out
    assert (tmp_path/'run/figures/reliability.png').stat().st_size > 1000
    assert '<b id=x>' not in text_of(page)

def test_thousand_classes(tmp_path):
    rng, c, n = np.random.default_rng(0), 1000, 4000
    truth = rng.integers(c, size=n)
    near = truth//10*10 + rng.integers(10, size=n)
    scores = soft(rng.normal(size=(n, c)) + 7*np.eye(c)[truth] + 6*np.eye(c)[near])
    names = [files[i%len(files)] for i in range(n)]
    r = Results(scores, truth, [f'species {i:04d} of birds' for i in range(c)], names, photos)
    page = make_report(tmp_path/'run', r)
    assert page.stat().st_size < 5e6
    matrix = re.search(r'<table class="matrix".*?</table>', text_of(page)).group()
    assert 10 <= matrix.count('scope="row"') <= 30

# ---- In a browser

def colors_of(page, css):
    "Channels of the background of an element"
    style = page.locator(css).first.evaluate('o => getComputedStyle(o).backgroundColor')
    return [int(o) for o in re.findall(r'\d+', style)[:3]]

@pytest.fixture(scope='module')
def pages(tmp_path_factory):
    tmp = tmp_path_factory.mktemp('reports')
    write_log(tmp/'one')
    return {'one': make_report(tmp/'one', photo_results(scripts), baseline=photo_results(seed=4), name='<i>one</i>'),
            'many': make_report(tmp/'many', tag_results())}

def test_click_on_a_confusion(pages, page):
    page.goto(pages['one'].as_uri())
    gallery, cell = page.locator('#gallery'), page.locator('.matrix td.miss button').first
    total = gallery.locator('.card').count()
    assert gallery.get_attribute('open') is None and not page.locator('#unpick').is_visible()
    cell.click()
    pick = dict(o.split('=') for o in cell.get_attribute('data-pick').split('&'))
    shown = gallery.locator('.card:not([hidden])')
    assert 0 < shown.count() < total
    assert all(shown.nth(i).get_attribute(f'data-{k}') == v for i in range(shown.count()) for k, v in pick.items())
    assert cell.get_attribute('aria-pressed') == 'true'
    said = page.locator('#picked').inner_text()
    assert f"{shown.count()} shown of {cell.get_attribute('data-n')}." in said and 'predicted as' in said
    page.locator('#unpick').click()
    assert gallery.locator('.card:not([hidden])').count() == total and page.locator('#picked').inner_text() == ''

def test_bar_and_class_by_keyboard(pages, page):
    page.goto(pages['one'].as_uri())
    bar = page.locator('svg [data-pick$="r=0"]').first
    bar.focus()
    page.keyboard.press('Enter')
    shown = page.locator('#gallery .card:not([hidden])')
    assert shown.count() and all('✗' in shown.nth(i).inner_text() for i in range(shown.count()))
    page.keyboard.press('Escape')
    assert page.locator('#picked').inner_text() == ''
    page.locator('table.sortable td button', has_text='बिल्ली').first.press('Enter')
    assert shown.count() and all('बिल्ली' in shown.nth(i).inner_text() for i in range(shown.count()))

@pytest.fixture(params=['one', 'many'])
def kind(request): return request.param

def test_sorting(pages, page, kind):
    page.goto(pages[kind].as_uri())
    table = page.locator('section', has_text='Class by class').locator('table.sortable')
    head = table.locator('th').nth(1)
    def values():
        cells = table.locator('tbody tr td:nth-child(2)')
        return [float(cells.nth(i).get_attribute('data-v')) for i in range(cells.count())]
    before = values()
    head.locator('button').press('Enter')
    assert values() == sorted(before) and head.get_attribute('aria-sort') == 'ascending'
    head.locator('button').click()
    assert values() == sorted(before, reverse=True) and head.get_attribute('aria-sort') == 'descending'
    table.locator('th').first.locator('button').click()
    assert head.get_attribute('aria-sort') == 'none'

def test_a_label_picks_its_mistakes(pages, page):
    page.goto(pages['many'].as_uri())
    button = page.locator('td button[data-pick^="w="]').first
    button.click()
    k, shown = button.get_attribute('data-pick')[2:], page.locator('#gallery .card:not([hidden])')
    assert shown.count() and all(k in shown.nth(i).get_attribute('data-w').split() for i in range(shown.count()))

@pytest.mark.parametrize('width', [400, 1280])
@pytest.mark.parametrize('theme', ['light', 'dark'])
def test_themes(pages, page, kind, theme, width):
    "The page and its charts follow the theme; nothing scrolls sideways; nothing is asked of an address"
    asked = []
    page.on('request', lambda r: asked.append(r.url) if not r.url.startswith('data:') else None)
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size(dict(width=width, height=900))
    page.goto(pages[kind].as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(o => o.open = true)")
    assert page.evaluate('document.documentElement.scrollWidth') <= width
    assert asked == [pages[kind].as_uri()]
    bright = [sum(colors_of(page, css))/3 > 128 for css in ('body', 'section', '.tile', '.card')]
    assert bright == [theme == 'light']*4
    ink = page.locator('figure svg text').first.evaluate('o => getComputedStyle(o).fill')
    assert (sum(map(int, re.findall(r'\d+', ink)[:3]))/3 > 128) == (theme == 'dark')
    white = page.evaluate("""[...document.querySelectorAll('svg *')].filter(o =>
      ['rgb(255, 255, 255)'].includes(getComputedStyle(o).fill)).length""")
    assert theme == 'light' or white == 0
    assert page.locator('h1').inner_text() in ('<i>one</i>', 'many')
    assert page.locator('script').count() == 0 and page.locator('[id=x]').count() == 0

def test_without_javascript(pages, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(pages['one'].as_uri())
    page.locator('#gallery summary').click()
    assert page.locator('#gallery .card').first.is_visible() and not page.locator('#unpick').is_visible()
    assert page.locator('.matrix td.miss').count() and page.locator('figure svg').count() >= 4
    context.close()

# ---- Confusions and mistakes

def test_confusions_from_what_people_have(tmp_path):
    import pandas as pd
    from clsnb.analysis.confusion import confusion_matrix, plot_confusion
    r = photo_results(scripts)
    r.save(tmp_path/'results.npz')
    for source in (r, Run(tmp_path), tmp_path, str(tmp_path/'results.npz')):
        table = confusion_matrix(source)
        assert table.to_numpy().tolist() == r.confusion().tolist() and list(table.index) == scripts
        assert f'{len(r)} pictures' in plot_confusion(source).alt
    shares = confusion_matrix(r, tmp_path/'new/shares.csv', normalize=True)
    read = pd.read_csv(tmp_path/'new/shares.csv', index_col=0)
    assert np.allclose(read, shares) and np.allclose(shares.sum(1), 1) and list(read.columns) == scripts
    confusion_matrix(r, tmp_path/'m.json')
    assert json.loads((tmp_path/'m.json').read_text())['matrix'] == r.confusion().tolist()
    confusion_matrix(r, tmp_path/'m.svg')
    assert '猫と犬' in plot_confusion(table).alt or (tmp_path/'m.svg').stat().st_size > 5000

def test_worst_mistakes_from_what_people_have(tmp_path):
    from clsnb.analysis.mistakes import worst_mistakes
    from PIL import Image
    r = photo_results()
    r.save(tmp_path/'results.npz')
    table = worst_mistakes(tmp_path, 5, tmp_path/'both')
    assert table.score.is_monotonic_decreasing and len(table) == 5
    assert (table.label != table.predicted).all()
    assert (tmp_path/'both/mistakes.csv').read_text().count('\n') == 6
    assert Image.open(tmp_path/'both/mistakes.png').width > 500
    assert len(worst_mistakes(tag_results(), 4)) == 4

@pytest.mark.parametrize('name,arguments,words', [
    ('confusion_matrix', ('nowhere',), 'there is no such file'),
    ('confusion_matrix', (np.zeros((2, 3)),), 'square'),
    ('confusion_matrix', (np.eye(2), 'x.txt'), 'has to end with .csv'),
    ('confusion_matrix', (tag_results(),), 'several'),
    ('worst_mistakes', ('nowhere',), 'there is no such file'),
    ('worst_mistakes', (5,), 'not from int'),
    ('worst_mistakes', (photo_results(), 0), 'whole number from 1'),
    ('worst_mistakes', (photo_results(), 3, 'x.doc'), 'has to end with'),
])
def test_one_line_for_what_cannot_be_shown(name, arguments, words):
    from clsnb.analysis import confusion, mistakes
    with pytest.raises(ClsnbError, match=words) as e:
        {**vars(confusion), **vars(mistakes)}[name](*arguments)
    assert '\n' not in str(e.value)

# ---- Verbs

def answer_of(words, capsys, status=0):
    "The record of a command line"
    from clsnb.cli import find_verb, main
    try: main([*map(str, words), '--json'])
    except SystemExit as e: assert e.code == status
    record = json.loads(capsys.readouterr().out)
    assert record['status'] == status, record
    if status < 2: assert set(record) == {'verb', 'status', *find_verb([words[0]])[0].fields}
    return record

def test_verbs(tmp_path, capsys):
    r = photo_results(scripts)
    write_log(tmp_path/'run')
    r.save(tmp_path/'run/results.npz')
    r.save(tmp_path/'other.json')
    path = Path(answer_of(['report', tmp_path/'run'], capsys)['path'])
    assert path == tmp_path/'run/report.html'
    words = ['report', tmp_path/'other.json', '--baseline', tmp_path/'run', '--name', 'mine']
    text = text_of(Path(answer_of([*words, '--out', tmp_path/'p.html'], capsys)['path']))
    assert '<h1>mine</h1>' in text and 'Compared with run' in text
    found = answer_of(['confusion', tmp_path/'run', '--out', tmp_path/'m.csv'], capsys)
    assert found['classes'] == scripts and found['matrix'] == r.confusion().tolist() and (tmp_path/'m.csv').is_file()
    assert found['pairs'][0]['value'] == int((r.confusion()*(1-np.eye(6))).max())
    shares = answer_of(['confusion', tmp_path/'other.json', '--normalize'], capsys)['matrix']
    assert np.allclose(np.sum(shares, 1), 1)
    worst = answer_of(['errors', tmp_path/'run', '--topk', 3, '--out', tmp_path/'worst'], capsys)['mistakes']
    assert len(worst) == 3 and worst[0]['label'] != worst[0]['predicted'] and (tmp_path/'worst/mistakes.png').is_file()

@pytest.mark.parametrize('line,words', [
    ('report nowhere', 'no such file or folder'), ('confusion nowhere', 'no such file or folder'),
    ('errors nowhere', 'no such file or folder'), ('report . --out page.txt', 'has to end with .html'),
    ('confusion . --out x.doc', 'has to end with .csv'), ('errors . --topk 0', 'not in the range from 1'),
    ('errors . --topk few', 'few'), ('report', 'required: WORK-DIR'),
])
def test_verbs_refuse_in_one_line(line, words, capsys, tmp_path, monkeypatch):
    from clsnb.cli import main
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as e: main(line.split())
    out, err = capsys.readouterr()
    assert e.value.code == 2 and not out and err.count('\n') == 1 and re.search(words, err), err

# ---- Objects in a notebook

def model_of(classes):
    from clsnb.core.registry import MODELS
    model = MODELS.build(dict(type='ImageClassifier', backbone=dict(type='LeNet5', num_classes=-1),
                              head=dict(type='LinearClsHead', num_classes=len(classes), in_channels=120)))
    model.CLASSES = classes
    return model

def objects():
    "Objects that draw themselves, with names that would break a careless card"
    from clsnb.analysis.complexity import Complexity
    from clsnb.config.findings import Findings
    from clsnb.data.sets.packaged import Digits
    from clsnb.data.sets.wrappers import ConcatDataset, RepeatDataset
    data = Digits('val')
    data.CLASSES = ['<b id=x>']*10
    found = Findings([('error', '<b id=x>', 'what <b id=x>', 'a.py:1')])
    size = Complexity(10, 20, {'<b id=x>': 2}, {'': (10, 20), '<b id=x>': (3, 4)}, (3, 4, 4))
    return [photo_results(scripts), tag_results(), data, ConcatDataset([data, data]), RepeatDataset(data, 2),
            model_of(scripts), found, size]

def test_objects_draw_themselves(page, tmp_path):
    "An HTML form that escapes everything and fits a phone in both themes, and a plain one"
    cards = [o._repr_html_() for o in objects()]
    assert all('<b id=x>' not in card for card in cards)
    assert all(len(repr(o)) for o in objects())
    html = '<meta name="color-scheme" content="light dark"><meta name="viewport" content="width=device-width">'
    (tmp_path/'cards.html').write_text(html + '<hr>'.join(cards), encoding='utf-8')
    page.set_viewport_size(dict(width=400, height=800))
    page.goto((tmp_path/'cards.html').as_uri())
    assert page.evaluate('document.documentElement.scrollWidth') <= 400

@pytest.mark.parametrize('kind', odd_results)
def test_odd_results_draw_themselves(kind):
    r = odd_results[kind]()
    assert repr(r).startswith('Results: ') and 'Results' in r._repr_html_()

def test_forms_are_quick():
    import time
    rng = np.random.default_rng(0)
    r = Results(rng.random((200_000, 100), np.float32), rng.integers(100, size=200_000))
    begun = time.perf_counter()
    r._repr_html_()
    assert time.perf_counter()-begun < 5

# ---- Names in figures, and the start of a run

def test_names_in_figures():
    "Dollars are no formulas; scripts whose font is installed are drawn by it"
    from clsnb.analysis.confusion import plot_confusion
    from clsnb.view.fonts import fallback_fonts, pil_font
    for names in (['$a$ $', r'\frac{1}{2}$x^$'], ['_hidden', '%d {x}'], ['', ' ']):
        assert len(plot_confusion(np.eye(2, dtype=int), names).image_bytes()) > 2000
    used, missing = fallback_fonts('గుర్రం')
    if used: assert used == ['Noto Sans Telugu'] and not missing and pil_font('గుర్రం a').getname()[0] == used[0]

def test_a_run_says_how_it_was_started(tmp_path, monkeypatch):
    from clsnb.apis.fit import fit
    monkeypatch.setattr('sys.argv', ['train.py', '--fast'])
    options = {'runner.max_epochs': 1, 'data.workers_per_gpu': 0, 'log_level': 'ERROR'}
    run = fit('lenet5_1xb32_digits', tmp_path/'run', options, device='cpu')
    first = json.loads(next(run.folder.glob('*.log.json')).read_text().splitlines()[0])
    assert first['command']=='python train.py --fast' and 'commit' in first
    assert not {'command', 'commit'} & set(run.config) and '<dt>command</dt>' in text_of(run.report)
