"Requirements in settings.ini, the sets of them that are tested, and the oldest Python"
import ast
from configparser import ConfigParser
from pathlib import Path
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
import constraints

root = Path(__file__).resolve().parents[1]
ini = ConfigParser(delimiters=['='])
ini.read(root/'settings.ini', encoding='utf-8')
settings = ini['DEFAULT']

def requirements(key='requirements'):
    "Name -> version specifier of one list in settings.ini"
    parsed = [Requirement(o) for o in settings[key].split()]
    return {canonicalize_name(o.name): o.specifier for o in parsed}

def pinned(file):
    "Name -> version of a constraints file, which holds nothing but `name==version`"
    lines = [
        o
        for o in (root/file).read_text(encoding='utf-8').splitlines()
        if o and not o.startswith('#')
    ]
    for o in lines: assert o.count('==') == 1, o
    return {canonicalize_name(name): Version(version) for name, version in (o.split('==') for o in lines)}

def test_runtime_requirements_have_lower_bounds_only():
    for name, spec in requirements().items():
        assert [o.operator for o in spec] == ['>='], name

def test_the_oldest_set_is_the_lower_bounds():
    "A bound of 4.8 is tested with a release 4.8.*, and no requirement is forgotten"
    oldest = pinned('constraints-oldest.txt')
    assert oldest.keys() == requirements().keys()
    for name, spec in requirements().items():
        bound = Version(next(iter(spec)).version)
        digits = len(bound.release)
        assert oldest[name] >= bound and oldest[name].release[:digits] == bound.release, (
            f'{name}{spec} and {oldest[name]}'
        )

def test_the_tested_set_is_that_of_this_version():
    "constraints.txt names a release of every requirement; tools/constraints.py writes it anew for each version"
    assert f"clsnb {settings['version']} " in (root/'constraints.txt').read_text(encoding='utf-8').splitlines()[0]
    tested = pinned('constraints.txt')
    for name, spec in requirements().items(): assert tested[name] in spec, f'{name}{spec} and {tested[name]}'

def test_the_tested_set_is_read_from_what_is_installed(tmp_path):
    releases = constraints.tested_releases('pytest')
    assert {'pluggy', 'iniconfig', 'packaging'} <= releases.keys()
    assert not {'pytest', 'hypothesis'} & releases.keys()  # itself, and what only an extra needs
    file = tmp_path/'constraints.txt'
    file.write_text(constraints.constraints_text(releases))
    assert constraints.read_constraints(file) == releases
    assert list(constraints.differences(releases, releases)) == []
    said, = constraints.differences(releases, releases | {'pluggy': '0.1'})
    assert said == f"pluggy: {releases['pluggy']} is installed, 0.1 is in constraints.txt"

def test_the_oldest_python_can_parse_it():
    major, minor = map(int, settings['min_python'].split('.'))
    assert (major, minor) == (3, 11)
    for p in (root/'clsnb').rglob('*.py'):
        ast.parse(p.read_text(encoding='utf-8'), feature_version=(major, minor))
