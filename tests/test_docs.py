"The pieces the docs site is made of; .ci/run builds the whole"
import json
from pathlib import Path
import pytest, yaml
import docs_site, linkcheck, readme

pytestmark = pytest.mark.dev
root = Path(__file__).resolve().parents[1]

def entries(o):
    "Every page that a sidebar names"
    if isinstance(o, dict):
        return [e for k in ('href', 'contents', 'sidebar', 'website') for e in entries(o.get(k, []))]
    return [e for v in o for e in entries(v)] if isinstance(o, list) else [o]

def test_every_notebook_has_its_place_in_the_sidebar():
    listed = entries(yaml.safe_load((root/'nbs/sidebar.yml').read_text()))
    there = {
        p.relative_to(root/'nbs').as_posix()
        for p in (root/'nbs').rglob('*.ipynb')
        if not any(o[0] in '._' for o in p.relative_to(root/'nbs').parts)
    }
    assert not there - set(listed), f'not in nbs/sidebar.yml: {sorted(there-set(listed))}'
    assert not set(listed) - there, f'in nbs/sidebar.yml, but not there: {sorted(set(listed)-there)}'
    assert len(listed) == len(set(listed))

def test_readme_is_in_step_with_the_index():
    text, files = readme.readme(json.loads((root/'nbs/index.ipynb').read_text()))
    assert readme.in_step(text, files), (
        'README.md is out of step with nbs/index.ipynb: run python tools/readme.py'
    )
    for command in ('pip install -e . && clsnb demo', "pip install -e '.[dev]' && clsnb-test"):
        assert command in text
    assert sum(map(len, files.values())) < 600_000

def test_readme_from_a_notebook():
    png = dict(output_type='display_data', data={'image/png': 'aGVsbG8=', 'text/plain': '<Figure>'})
    nb = dict(
        cells=[
            dict(
                cell_type='markdown', id='a', source='# t\n\nsee [x](core/01_config.ipynb), [y](https://a.b)'
            ),
            dict(cell_type='code', id='b', source='#| hide\nimport os', outputs=[]),
            dict(cell_type='code', id='c', source='#| fig-alt: "six fish"\nf()', outputs=[png]),
        ]
    )
    text, files = readme.readme(nb)
    assert '[x](nbs/core/01_config.ipynb)' in text and '[y](https://a.b)' in text and 'import os' not in text
    assert '```python\nf()\n```' in text
    assert '![six fish](README_files/c-0.png)' in text
    assert files == {'c-0.png': b'hello'}

@pytest.mark.parametrize(
    'html,why',
    [
        ('<a href="b.html">', 'no such file'),
        ('<a href="a.html#x">', 'no such anchor'),
        ('<script src="https://cdn.x/y.js"></script>', 'fetched from elsewhere'),
        ('<div style="background: url(https://x/y.png)">', 'fetched from elsewhere'),
        ('<a href="https://x.y">', None),
        ('<h2 id="x"></h2><a href="#x">', None),
    ],
)
def test_linkcheck(tmp_path, html, why):
    (tmp_path/'a.html').write_text(html)
    assert [o[2] for o in linkcheck.linkcheck(tmp_path)[2]] == ([why] if why else [])

def test_exported_code_is_shown_but_not_imports():
    cells = [
        dict(cell_type='code', source=s)
        for s in ('#| export\nimport os', '#| export\ndef f(): pass', '#| exporti\nx = 1')
    ]
    shown = [
        ''.join(c['source']).split('\n')[0]
        for c in docs_site.show_exports(dict(cells=cells))['cells']
    ]
    assert shown == ['#| export', '#| exports', '#| exporti']

def test_pages_lose_the_number_in_front():
    names = {'core/01_config.ipynb': 'core/config'}
    side = dict(contents=['core/01_config.ipynb', dict(text='gone', href='x.ipynb'), 'index.html'])
    assert docs_site.renamed(side, names) == dict(contents=['core/config.ipynb', 'index.html'])
    cell = dict(
        cell_type='markdown',
        source='[c](../core/01_config.ipynb#merging) [d](https://site/data/loader.html#batches)',
    )
    nb = docs_site.localise(Path('data/00_pipeline.ipynb'), dict(cells=[cell]), names, 'https://site')
    assert nb['cells'][0]['source'] == '[c](../core/config.ipynb#merging) [d](../data/loader.html#batches)'

def test_formulas_become_mathml():
    page = (
        '<link rel="stylesheet" href="https://cdn.x/npm/katex@0.16/dist/katex.min.css"><p><span class="math '
        'inline">\\(x &lt; \\frac12\\)</span></p>'
    )
    out = docs_site.typeset(page)
    assert '<mfrac>' in out and 'katex' not in out and '\\(' not in out

def test_links_to_methods_lead_to_their_class(tmp_path):
    (tmp_path/'a.html').write_text('<h3 id="config"></h3><h3 id="runner.step"></h3><h3 id="runner"></h3>')
    (tmp_path/'b.html').write_text(
        '<a href="a.html#config.fromfile"></a><a href="a.html#runner.step"></a><a href="a.html#gone.x"></a>'
    )
    docs_site.mend_anchors(tmp_path)
    assert (
        (
            tmp_path/'b.html'
        ).read_text() == '<a href="a.html#config"></a><a href="a.html#runner.step"></a><a '
                         'href="a.html#gone.x"></a>'
    )

def test_no_notebook_ends_with_an_exported_cell():
    "nbdev's documentation of an exported cell looks at the cell behind it"
    last = {path: json.loads(path.read_text(encoding='utf-8'))['cells'][-1] for path in (root/'nbs').rglob('*.ipynb')}
    assert not [path.name for path,cell in last.items() if '#| export' in ''.join(cell['source'])]
