"""Make README.md from nbs/index.ipynb without Quarto; pictures go to README_files/.

usage: readme.py [--check]      (--check only says whether README.md is in step)
"""
import base64, json, re, sys
from pathlib import Path

root = Path(__file__).resolve().parents[1]
note = '<!-- Made from nbs/index.ipynb by tools/readme.py: edit that notebook -->\n'

def join(s): return ''.join(s) if isinstance(s, list) else s or ''

def links(text):
    "Links of the notebook's folder, as seen from the top"
    return re.sub(r'(\]\(|src="|href=")(?!https?:|#|/|mailto:|data:)([^)"\s]+)', r'\1nbs/\2', text)

def has_directive(cell, directives):
    "Does the cell hold one of these directives (a regular expression)?"
    return bool(re.search(rf'^#\| *({directives})', join(cell['source']), re.M))

def code(cell):
    "The code of a cell, less its directives; nothing where it is hidden"
    if has_directive(cell, r'echo: *false'): return ''
    return re.sub(r'^#\|.*\n?', '', join(cell['source']), flags=re.M).strip('\n')

def alt(cell):
    "What a picture shows: the cell's `fig-alt` or `fig-cap`"
    m = re.search(r'^#\| *fig-(?:alt|cap): *(.+)$', join(cell['source']), re.M)
    return m[1].strip(' "\'') if m else ''

def output(o, name, alt, files):
    "One output as markdown; a picture is added to `files`"
    if o['output_type'] == 'stream':
        if o['name'] == 'stdout': return f"```\n{join(o['text']).rstrip()}\n```"
        return ''
    d = o.get('data', {})
    for kind, ext in (('image/png', 'png'), ('image/jpeg', 'jpg'), ('image/svg+xml', 'svg')):
        if kind in d:
            text = join(d[kind])
            files[f'{name}.{ext}'] = text.encode() if ext == 'svg' else base64.b64decode(text)
            return f'![{alt}](README_files/{name}.{ext})'
    if 'text/markdown' in d: return links(join(d['text/markdown']))
    html = join(d.get('text/html'))
    table = re.search(r'<table.*</table>', html, re.S)
    if table: return re.sub(r'\s*\n\s*', '\n', table[0])
    still = re.search(r'<img [^>]*src="data:image/jpeg;base64,([^"]+)"', html)
    if still:
        files[f'{name}.jpg'] = base64.b64decode(still[1])
        return f'![{alt}](README_files/{name}.jpg)'
    return f"```\n{join(d['text/plain'])}\n```" if 'text/plain' in d else ''

def readme(nb):
    "The text of README.md and the pictures it shows: {name: bytes}"
    parts, files = [], {}
    for c in nb['cells']:
        if c['cell_type'] == 'markdown': parts.append(links(join(c['source'])))
        if c['cell_type'] != 'code' or has_directive(c, r'hide\b|default_exp|include: *false'): continue
        if code(c): parts.append(f'```python\n{code(c)}\n```')
        if has_directive(c, r'output: *false'): continue
        parts += [output(o, f"{c['id']}-{i}", alt(c), files) for i, o in enumerate(c['outputs'])]
    return note + '\n' + '\n\n'.join(filter(None, parts)) + '\n', files

def in_step(text, files):
    "Does the tree hold exactly this?"
    shown = root/'README_files'
    there = {p.name: p.read_bytes() for p in shown.iterdir()} if shown.exists() else {}
    return (root/'README.md').read_text(encoding='utf-8') == text and there == files

def main(check=False):
    text, files = readme(json.loads((root/'nbs'/'index.ipynb').read_text(encoding='utf-8')))
    if check:
        if in_step(text, files): return 0
        return 'README.md is not what nbs/index.ipynb makes: run python tools/readme.py'
    (root/'README.md').write_text(text, encoding='utf-8')
    shown = root/'README_files'
    if files: shown.mkdir(exist_ok=True)
    for p in shown.glob('*'):
        if p.name not in files: p.unlink()
    for name, data in files.items(): (shown/name).write_bytes(data)

if __name__ == '__main__': sys.exit(main('--check' in sys.argv[1:]))
