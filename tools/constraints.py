"""Write constraints.txt: the releases of clsnb's requirements, and of theirs, in the environment that this runs in.

usage: constraints.py [--check]      (--check only says which releases differ from those in constraints.txt)

Run it before a release, in an environment that has clsnb with the newest of everything, as `.ci/run` makes one.
"""
import platform, sys
from configparser import ConfigParser
from importlib.metadata import distribution, version
from pathlib import Path
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

root = Path(__file__).resolve().parents[1]
file = root/'constraints.txt'
packaged = root/'clsnb/tested.txt'  # the same, where `doctor` of an installed clsnb finds it

def direct_requirements(name, extras=()):
    "Requirements of an installed package that apply here, with some of its extras"
    for text in distribution(name).requires or []:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({'extra': e}) for e in ('', *extras)): yield requirement

def tested_releases(name):
    "Name -> version of all packages that an installed package needs, directly or not"
    found, seen, todo = {}, set(), [(name, ())]
    while todo:
        package = todo.pop()
        if package in seen: continue
        seen.add(package)
        for o in direct_requirements(*package):
            needed = canonicalize_name(o.name)
            found[needed] = version(needed).split('+')[0]  # torch 2.14.1+cu130 is 2.14.1 to everybody
            todo.append((needed, tuple(sorted(o.extras))))
    return dict(sorted(found.items()))

def read_constraints(path):
    lines = [o for o in path.read_text(encoding='utf-8').splitlines() if o and o[0] != '#'] if path.exists() else []
    return dict(o.split('==') for o in lines)

def constraints_text(releases):
    ini = ConfigParser(delimiters=['='])
    ini.read(root/'settings.ini', encoding='utf-8')
    version, python = ini['DEFAULT']['version'], platform.python_version()
    head = [f'# The releases that clsnb {version} was tested with, on Python {python} and Linux:',
            '#   pip install clsnb -c constraints.txt',
            '# Made by tools/constraints.py.']
    return '\n'.join([*head, *(f'{k}=={v}' for k, v in releases.items())]) + '\n'

def differences(here, listed):
    "One line for each release that differs"
    for name in sorted(here.keys() | listed.keys()):
        mine, theirs = here.get(name, 'nothing'), listed.get(name, 'nothing')
        if mine != theirs: yield f'{name}: {mine} is installed, {theirs} is in constraints.txt'

if __name__ == '__main__':
    releases = tested_releases('clsnb')
    if '--check' in sys.argv[1:]:
        lines = list(differences(releases, read_constraints(file)))
        print('\n'.join(lines) or 'constraints.txt names what is installed')
        sys.exit(bool(lines))
    for path in (file, packaged): path.write_text(constraints_text(releases), encoding='utf-8')
    print(f'{len(releases)} releases are in {file.name}')
