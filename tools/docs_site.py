"""Build the docs site without Quarto, and check its links.

nbdev's own processors prepare the notebooks as they do for Quarto; smalldocs renders them from the same `_quarto.yml`.
Unlike nbdev_docs, the code of exported cells is shown: it is what the text beside it is about.

usage: docs_site.py [--out FOLDER] [--no-check]
"""
import argparse, html, inspect, json, os, re, shutil, subprocess, sys, tempfile
from pathlib import Path
from posixpath import normpath, relpath
import fastcore.docments, yaml
from linkcheck import Page, main as check

root = Path(__file__).resolve().parents[1]

def join(s): return ''.join(s) if isinstance(s, list) else s or ''

def only_imports(src):
    "Is there nothing but imports in a cell? Such cells would only take up room."
    return all(re.match(r'(#|import |from |\s|\)|$)', o) for o in src.split('\n'))

def show_exports(nb):
    "Turn `#| export` into `#| exports`, which shows the code too"
    for c in nb['cells']:
        src = join(c['source'])
        if c['cell_type'] == 'code' and not only_imports(src):
            c['source'] = re.sub(r'^#\| *export\b', '#| exports', src, flags=re.M)
    return nb

def signature_as_written(obj, eval_str=False):
    "A signature; annotations that name a library which is imported later stay texts, as type checkers read them"
    try: return inspect.signature(obj, eval_str=eval_str)
    except NameError: return inspect.signature(obj)

fastcore.docments.signature = signature_as_written  # here, since the processes that run notebooks import this file

def prepare(src):
    "Copy the notebooks to `src` with their exported code shown, and run nbdev's processors; the folder with the result"
    from nbdev.doclinks import _build_modidx
    from nbdev.quarto import refresh_quarto_yml
    from nbdev.serve import proc_nbs
    refresh_quarto_yml()
    _build_modidx()
    shutil.copytree(root/'nbs', src, ignore=shutil.ignore_patterns('.*', '__pycache__', 'work_dirs'))
    for p in src.rglob('*.ipynb'):
        p.write_text(json.dumps(show_exports(json.loads(p.read_text(encoding='utf-8')))), encoding='utf-8')
    return proc_nbs(src, force=True)

def page_of(rel, nb):
    """The page of a notebook, without `.html`: nbdev drops a number from the front of the name and says so in the
    front matter"""
    first = nb['cells'][0] if nb['cells'] else {}
    if first.get('cell_type') == 'raw':
        m = re.search(r'^output-file:\s*(\S+)\.html\s*$', join(first.get('source')), re.M)
    else:
        m = None
    return (rel.parent/(m[1] if m else rel.stem)).as_posix()

def localise(rel, nb, names, base):
    "Change what smalldocs does not read: links to notebooks by their old names, and absolute links to our own pages"
    here, up = rel.parent.as_posix(), '../'*(len(rel.parts)-1)
    def link(m):
        t = normpath((rel.parent/m[1]).as_posix())
        return f"]({relpath(names[t], here)}.ipynb{m[2] or ''})" if t in names else m[0]
    def fix(s):
        return re.sub(r'\]\(([^)\s:#]+\.ipynb)(#[^)\s]*)?\)', link, join(s).replace(base+'/', up))
    for c in nb['cells']:
        if c['cell_type'] == 'markdown': c['source'] = fix(c['source'])
        if c['cell_type'] == 'raw':
            c['source'] = re.sub(r'^output-file:.*\n', '', join(c['source']), flags=re.M)
        for o in c.get('outputs', []):
            if 'text/markdown' in o.get('data', {}):
                o['data']['text/markdown'] = fix(o['data']['text/markdown'])
    return nb

def renamed(o, names):
    """The values of a config with notebooks under their page's name; entries for notebooks that do not exist yet are
    left out"""
    if isinstance(o, dict):
        return {k: renamed(v, names) for k, v in o.items()}
    if isinstance(o, list):
        gone = lambda v: (
            str(v.get('href', '') if isinstance(v, dict) else v).endswith('.ipynb')
            and (v.get('href') if isinstance(v, dict) else v) not in names
        )
        return [renamed(v, names) for v in o if not gone(v)]
    return f'{names[o]}.ipynb' if isinstance(o, str) and o in names else o

def typeset(page):
    "Formulas as MathML, which browsers draw themselves, in place of a script from elsewhere"
    if 'class="math ' not in page: return page
    from latex2mathml.converter import convert
    page = re.sub(r'<(link|script)[^>]*/katex@[^>]*>(</script>)?', '', page)
    def formula(m):
        return convert(html.unescape(m[3]), display='block' if m[2] == 'display' else 'inline')
    return re.sub(
        r'<(span|div) class="math (inline|display)">\\[(\[](.*?)\\[)\]]</\1>', formula, page, flags=re.S
    )

def mend_anchors(out):
    "Methods told inside their class have no heading of their own: links to `#class.method` then lead to the class"
    ids = {p.resolve(): Page(p.read_text(encoding='utf-8')).ids for p in out.rglob('*.html')}
    for p in ids:
        def mend(m):
            there = ids.get((p.parent/m[1]).resolve() if m[1] else p, set())
            return f'href="{m[1]}#{m[2]}"' if f'{m[2]}.{m[3]}' not in there and m[2] in there else m[0]
        old = p.read_text(encoding='utf-8')
        new = re.sub(r'href="([^"#:]*)#(\w+)\.([\w.]+)"', mend, old)
        if new != old: p.write_text(new, encoding='utf-8')

def render(proc, site, out):
    "Render what nbdev prepared in `proc` by way of the folder `site`"
    from nbdev.config import get_config
    cfg = get_config()
    base = cfg.doc_host.rstrip('/')+cfg.doc_baseurl.rstrip('/')
    shutil.copytree(proc, site)
    nbs = {
        p.relative_to(site): json.loads(p.read_text(encoding='utf-8'))
        for p in sorted(site.rglob('*.ipynb'))
    }
    names = {rel.as_posix(): page_of(rel, nb) for rel, nb in nbs.items()}
    for rel, nb in nbs.items():
        (site/rel).unlink()
        (site/f'{names[rel.as_posix()]}.ipynb').write_text(
            json.dumps(localise(rel, nb, names, base)), encoding='utf-8'
        )
    shutil.copy(root/'nbs'/'nbdev.yml', site)
    for src, dst in (
        (root/'_quarto.yml', site.parent/'_quarto.yml'), (root/'nbs'/'sidebar.yml', site/'sidebar.yml')
    ):
        conf = renamed(yaml.safe_load(src.read_text(encoding='utf-8')), names)
        conf.get('format', {}).get('html', {}).pop('grid', None)  # only Quarto knows it
        dst.write_text(yaml.safe_dump(conf, sort_keys=False), encoding='utf-8')
    subprocess.run(
        [sys.executable, '-m', 'smalldocs.cli', 'render', '--strict', '--quiet', str(site)], check=True
    )
    shutil.rmtree(out, ignore_errors=True)
    shutil.move(site/cfg.doc_path.name, out)
    for p in out.rglob('*.html'):
        p.write_text(typeset(p.read_text(encoding='utf-8')), encoding='utf-8')
    mend_anchors(out)
    for p in out.rglob('*.css'):
        p.write_text(
            re.sub(r'@import url\("?https:[^)]*\);?', '', p.read_text(encoding='utf-8')), encoding='utf-8'
        )

def main():
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('--out', type=Path, default=root/'_docs', help='where the site goes')
    ap.add_argument('--no-check', action='store_true', help='leave the links unchecked')
    args = ap.parse_args()
    out = args.out.resolve()
    os.chdir(root)
    try: import smalldocs # noqa: F401
    except ImportError:
        sys.exit("The docs are built with smalldocs (Python 3.11 or newer): pip install -e '.[dev]'")
    with tempfile.TemporaryDirectory() as tmp:
        proc = prepare(Path(tmp)/'src'/'nbs')
        render(proc, Path(tmp)/'site'/'nbs', out)
    shutil.rmtree(root/'_proc', ignore_errors=True)
    if not args.no_check: sys.exit(check(out))

if __name__ == '__main__': main()
