"""Check a rendered site: every link and anchor of ours leads somewhere, and nothing is fetched from elsewhere.

usage: linkcheck.py FOLDER
"""
import re, sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

class Page(HTMLParser):
    "The anchors of a page, and what it refers to"
    def __init__(self, text):
        super().__init__()
        self.ids, self.refs = set(), []
        self.feed(text)
    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        self.ids |= {a[k] for k in ('id', 'name') if a.get(k)}
        self.refs += [
            (tag, a[k], a.get('rel'))
            for k in ('href', 'src', 'data-src', 'poster')
            if a.get(k)
        ]
        if a.get('style'):
            self.refs += [('style', u, None) for u in css_urls(a['style'])]

def css_urls(text):
    "What a style sheet loads"
    return re.findall(r'url\(\s*["\']?([^"\')]+)', text) + re.findall(r'@import\s+["\']([^"\']+)', text)

def is_external(url): return url.startswith('//') or urlsplit(url).scheme in ('http', 'https')

def problem(page, tag, url, rel, root, pages):
    "What is wrong with a reference, or None"
    if is_external(url):
        if tag == 'a' or rel in ('canonical', 'alternate'): return None
        return 'fetched from elsewhere'
    u = urlsplit(url)
    if u.scheme: return None
    path = unquote(u.path)
    if path.startswith('work_dirs/'): return None  # files of an example's run, on the reader's own machine
    target = (
        page if not path else root/path[1:] if path.startswith('/') else page.parent/path
    ).resolve()
    if target.is_dir(): target = target/'index.html'
    if not target.exists(): return 'no such file'
    if u.fragment and target in pages and unquote(u.fragment) not in pages[target].ids:
        return 'no such anchor'

def linkcheck(root):
    "Count references and list the faulty ones: (file, reference, what is wrong)"
    root = Path(root).resolve()
    pages = {p: Page(p.read_text(encoding='utf-8')) for p in sorted(root.rglob('*.html'))}
    refs = [(p, *r) for p, page in pages.items() for r in page.refs]
    refs += [
        (p, 'css', u, None)
        for p in root.rglob('*.css')
        for u in css_urls(p.read_text(encoding='utf-8'))
    ]
    bad = [
        (p.relative_to(root).as_posix(), url, why)
        for p, tag, url, rel in refs
        if (why := problem(p, tag, url, rel, root, pages))
    ]
    return len(pages), len(refs), bad

def main(root):
    pages, refs, bad = linkcheck(root)
    for o in bad: print('{}: {} ({})'.format(*o), file=sys.stderr)
    print(f'{pages} pages, {refs} references, {len(bad)} faulty')
    return int(bool(bad or not pages))

if __name__ == '__main__': sys.exit(main(sys.argv[1]))
