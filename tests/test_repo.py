"What is shipped, and the notebook hooks"
import ast, io, json, os, re, shutil, subprocess, sys, zipfile
from configparser import ConfigParser
from pathlib import Path
import pytest

pytestmark = pytest.mark.dev
root = Path(__file__).resolve().parents[1]
leave_out = shutil.ignore_patterns('__pycache__', '_modidx.py', '*.egg-info', '.ipynb_checkpoints')

def sh(*cmd, cwd, **kw):
    r = subprocess.run([str(o) for o in cmd], cwd=cwd, capture_output=True, text=True, **kw)
    assert r.returncode == 0, r.stdout[-2000:] + r.stderr[-2000:]
    return r.stdout

# ---- The wheel

@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    "The wheel, built from the source distribution as an installer would build it"
    src, out = tmp_path_factory.mktemp('src'), tmp_path_factory.mktemp('dist')
    shutil.copytree(root/'clsnb', src/'clsnb', ignore=leave_out)
    for p in root.iterdir():
        if p.is_file(): shutil.copy(p, src)
    sh(sys.executable, '-m', 'build', '--no-isolation', '--outdir', out, src, cwd=src)
    assert list(out.glob('*.tar.gz'))
    with zipfile.ZipFile(next(out.glob('*.whl'))) as z: yield z

def shipped(wheel, pattern):
    return {o for o in wheel.namelist() if Path(o).match(pattern)}

def test_wheel_holds_every_source_file(wheel):
    ours = {
        p.relative_to(root).as_posix()
        for p in (root/'clsnb').rglob('*')
        if p.is_file() and '__pycache__' not in p.parts and p.name != '_modidx.py'
    }
    assert ours <= set(wheel.namelist()), sorted(ours - set(wheel.namelist()))[:10]
    assert not [
        o
        for o in wheel.namelist()
        if o.split('/')[0] in ('nbs', 'tests', 'tools', 'benchmarks')
    ]

def test_wheel_tells_type_checkers_about_our_annotations(wheel):
    assert 'clsnb/py.typed' in wheel.namelist()

def test_wheel_holds_the_photographs(wheel):
    from PIL import Image
    photos = shipped(wheel, 'clsnb/photos/*/*.jpg')
    assert len(photos) == 184
    for o in photos:
        Image.open(io.BytesIO(wheel.read(o))).load()
    lists = [wheel.read(f'clsnb/photos/{o}.txt').decode().splitlines() for o in ('train', 'val')]
    names = [
        line.rsplit(maxsplit=1)[0] if line.split()[-1].isdigit() else line
        for o in lists
        for line in o
    ]
    assert {f'clsnb/photos/{n}' for n in names} == photos and len(names) == 184
    assert 'Public Domain' in wheel.read('clsnb/photos/ATTRIBUTION.md').decode()

def test_wheel_holds_configs_and_commands(wheel):
    assert shipped(wheel, 'clsnb/configs/*/*.py')
    entry = wheel.read(next(iter(shipped(wheel, '*.dist-info/entry_points.txt')))).decode()
    for line in ('clsnb = clsnb.cli:main', 'clsnb-test = clsnb.selftest:main'):
        assert line in entry.replace('=', ' = ').replace('  =  ', ' = ')
    meta = wheel.read(next(iter(shipped(wheel, '*.dist-info/METADATA')))).decode()
    assert 'Requires-Python: >=3.11' in meta
    assert 'License' in meta
    assert not [o for o in meta.split('\n') if o.startswith('Requires-Dist: nbdev') and 'extra' not in o]

def test_commands_lead_somewhere():
    ini = ConfigParser(delimiters=['='])
    ini.read(root/'settings.ini')
    for line in ini['DEFAULT']['console_scripts'].split('\n'):
        module, func = line.split('=')[1].strip().split(':')
        tree = ast.parse((root/Path(*module.split('.'))).with_suffix('.py').read_text())
        assert func in {o.name for o in tree.body if isinstance(o, ast.FunctionDef)}, line

# ---- Notebooks under git

def notebook(*sources):
    cells = [
        dict(cell_type='code', id=f'c{i}', metadata={}, execution_count=7, outputs=[], source=s)
        for i, s in enumerate(sources)
    ]
    meta = dict(
        kernelspec=dict(display_name='mine', language='python', name='python3'),
        language_info=dict(name='python'),
    )
    return json.dumps(dict(cells=cells, metadata=meta, nbformat=4, nbformat_minor=5), indent=1) + '\n'

@pytest.fixture
def repo(tmp_path):
    "A small repository with this one's hooks switched on"
    for o in ('.githooks', 'tools'):
        shutil.copytree(root/o, tmp_path/o, ignore=leave_out)
    for o in ('settings.ini', 'pyproject.toml', '.gitattributes'):
        shutil.copy(root/o, tmp_path)
    (tmp_path/'nbs').mkdir()
    (tmp_path/'clsnb').mkdir()
    env = (
        {k: v for k, v in os.environ.items() if not k.startswith('GIT_')}
        | {'PATH': f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    )
    env.update({
        f'GIT_{w}_{k}': v
        for w in ('AUTHOR', 'COMMITTER')
        for k, v in (('NAME', 'a'), ('EMAIL', 'a@b.c'))
    })
    def git(*a, ok=True, **more):
        r = subprocess.run(['git', *a], cwd=tmp_path, env=env | more, capture_output=True, text=True)
        assert r.returncode == 0 or not ok, r.stdout + r.stderr
        return r.stdout + ('' if ok else r.stderr)
    git('init', '-q', '-b', 'main')
    git('config', '--local', 'include.path', '../.githooks/config')
    git.path = tmp_path
    return git

def test_commit_hook_cleans_and_exports(repo):
    (repo.path/'nbs/one.ipynb').write_text(notebook('#| default_exp one', '#| export\ndef f(): return 1'))
    repo('add', '-A')
    repo('commit', '-qm', 'one')
    kept = json.loads(repo('show', 'HEAD:nbs/one.ipynb'))
    assert kept['cells'][0]['execution_count'] is None and 'language_info' not in kept['metadata']
    assert 'def f(): return 1' in repo('show', 'HEAD:clsnb/one.py')
    assert not repo('status', '--porcelain', '--', 'nbs', 'clsnb/one.py')

def test_commit_hook_stops_at_what_ruff_finds(repo):
    (repo.path/'tests').mkdir()
    (repo.path/'nbs'/'one.ipynb').write_text(notebook(
        '#| default_exp one', '#| export\ndef f(): return missing'
    ))
    (repo.path/'tests'/'test_two.py').write_text('import os\n')
    repo('add', '-A')
    said = repo('commit', '-m', 'both', ok=False)
    assert 'F821' in said and 'clsnb/one.py' in said and 'F401' in said and 'tests/test_two.py' in said
    assert 'Correct what ruff found' in said and not repo('log', '--all', '--oneline')
    (repo.path/'nbs'/'one.ipynb').write_text(notebook('#| default_exp one', '#| export\ndef f(): return 1'))
    (repo.path/'tests'/'test_two.py').write_text('')
    repo('add', '-A')
    (repo.path/'tests'/'test_two.py').write_text('import os  # not staged\n')
    repo('commit', '-qm', 'both')
    assert 'test_two.py' in repo('show', '--stat', 'HEAD')

def test_commit_hook_passes_over_deleted_files_and_packaged_configs(repo):
    (repo.path/'clsnb'/'configs').mkdir()
    (repo.path/'clsnb'/'configs'/'a.py').write_text("model = missing\n")
    (repo.path/'clsnb'/'b.py').write_text('')
    repo('add', '-A')
    repo('commit', '-qm', 'one')
    (repo.path/'clsnb'/'b.py').unlink()
    repo('commit', '-qam', 'two')

def test_commit_hook_says_that_ruff_is_missing(repo, tmp_path_factory):
    tools = tmp_path_factory.mktemp('bin')
    for name, program in dict(
        python=sys.executable, git=shutil.which('git'), sh=shutil.which('sh')
    ).items():
        (tools/name).write_text(f'#!/bin/sh\nexec {program} "$@"\n')
        (tools/name).chmod(0o755)
    (repo.path/'tests').mkdir()
    (repo.path/'tests'/'test_two.py').write_text('import os\n')
    repo('add', '-A')
    said = repo('commit', '-qm', 'one', ok=False, PATH=str(tools))
    assert 'ruff is not installed' in said and repo('log', '--oneline')

def test_conflicting_notebooks_stay_notebooks(repo):
    nb = repo.path/'nbs/one.ipynb'
    def commit(*sources):
        nb.write_text(notebook(*sources))
        repo('add', 'nbs')
        repo('commit', '-qm', 'x', '--no-verify')
    commit('a = 1', 'b = 1')
    repo('checkout', '-qb', 'other')
    commit('a = 2', 'b = 1')
    repo('checkout', '-q', 'main')
    commit('a = 3', 'b = 1')
    repo('merge', 'other', ok=False)
    cells = json.loads(nb.read_text())['cells']
    src = [''.join(c['source']) for c in cells]
    assert 'a = 2' in src and 'a = 3' in src and src.count('b = 1') == 1 and any('<<<<<<<' in o for o in src)

def test_diffs_show_text(repo):
    nb = repo.path/'nbs/one.ipynb'
    for s in ('a = 1', 'a = 2'):
        nb.write_text(notebook(s))
        repo('add', 'nbs')
        repo('commit', '-qm', s, '--no-verify')
    said = repo('diff', 'HEAD~1', '--', 'nbs')
    assert '-a = 1' in said and '+a = 2' in said and 'execution_count' not in said

# ---- The ruler

def test_measures_are_the_same_in_every_python():
    import measure
    text = '"doc"\ndef f(x):\n    "what"\n    return f"{x + 1} {f\'{x!r}\'}"  # why\n'
    assert len(measure.code_tokens(text)) == 8  # the f-string counts as one
    assert measure.code_lines(text) == [2, 4]

def test_every_place_past_a_mark_is_listed_with_its_line(tmp_path):
    (tmp_path/'a.py').write_text(
        'from .b import _x\na, b = 1, 2; c = 3\n\ndef _f(): return ' + 'c + '*40 + 'c\n'
    )
    (tmp_path/'b.py').write_text('_x = 1\n\n@patch\ndef _f(self:A): return 1 if self else 2 if _x else 3\n')
    said = sh(sys.executable, root/'tools'/'measure.py', tmp_path, '--where', cwd=tmp_path)
    found = [o.split('/')[-1] for o in said.splitlines()]
    assert found == [
        'a.py:1: private imports', 'a.py:2: `;`', 'a.py:4: lines over 120',
        'b.py:4: conditionals inside a conditional', 'b.py:4: methods added with `@patch`',
        'a.py: private names with several meanings: _f, also in b.py']
    table = sh(sys.executable, root/'tools'/'measure.py', tmp_path, cwd=tmp_path).splitlines()
    assert table[-1].split()[:2] == ['8', '2'] and table[-1].endswith('in all')

# ---- What the hosting site reads

github = root/'.github'

def yaml_of(path):
    import yaml
    return yaml.safe_load(path.read_text(encoding='utf-8'))

def settings():
    ini = ConfigParser(delimiters=['='])
    ini.read(root/'settings.ini')
    return ini['DEFAULT']

def test_workflow_runs_ci_on_the_oldest_python_and_newer_ones():
    flow = yaml_of(github/'workflows'/'ci.yml')
    assert {'push', 'pull_request', 'schedule'} <= set(flow[True])  # YAML reads the key `on` as true
    steps = flow['jobs']['all']['steps']
    oldest = [o['with']['python-version'] for o in steps if 'setup-python' in o.get('uses', '')]
    assert oldest == [settings()['min_python']]
    assert steps[-1]['run'] == '.ci/run' and os.access(root/'.ci'/'run', os.X_OK)
    newer = flow['jobs']['newer-python']
    assert newer['steps'][-1]['run'] == 'clsnb-test'
    assert settings()['min_python'] not in newer['strategy']['matrix']['python']

@pytest.mark.parametrize('name', ['bug', 'feature'])
def test_issue_forms_ask_under_one_name_each(name):
    form = yaml_of(github/'ISSUE_TEMPLATE'/f'{name}.yml')
    assert form['name'] and form['description'] and form['labels']
    assert {o['type'] for o in form['body']} <= {'markdown', 'textarea', 'input', 'dropdown', 'checkboxes'}
    ids = [o['id'] for o in form['body']]
    assert len(ids) == len(set(ids)) and all(o['attributes']['label'] for o in form['body'])
    assert any(o.get('validations', {}).get('required') for o in form['body'])

def test_the_bug_form_asks_for_what_a_command_prints():
    parts = {o['id']: o['attributes'] for o in yaml_of(github/'ISSUE_TEMPLATE'/'bug.yml')['body']}
    text = parts['versions']['description']
    assert 'clsnb --version' in text and 'python -m torch.utils.collect_env' in text
    assert sh(sys.executable, '-m', 'clsnb', '--version', cwd=root).strip() == settings()['version']

def test_citation_is_that_of_this_version():
    cff = yaml_of(root/'CITATION.cff')
    assert {'cff-version', 'message', 'title', 'authors'} <= set(cff) and cff['cff-version'] == '1.2.0'
    assert cff['type'] == 'software' and cff['license'] == 'Apache-2.0'
    assert [set(o) for o in cff['authors']] == [{'name'}]
    assert cff['version'] == settings()['version'] and cff['repository-code'] == settings()['git_url']

def test_paths_in_contributing_exist():
    named = re.findall(
        r'(?:nbs|tests|tools|clsnb)/[\w./]*', (root/'CONTRIBUTING.md').read_text(encoding='utf-8')
    )
    named = [o.rstrip('.') for o in named if 'NAME' not in o and o != 'clsnb/clsnb']  # the second is an address
    assert len(named) > 20
    assert not [o for o in named if not (root/o).exists()]

def test_links_between_the_papers_of_the_repository_lead_somewhere():
    for name in ('CONTRIBUTING.md', 'SECURITY.md', '.github/pull_request_template.md'):
        text = (root/name).read_text(encoding='utf-8')
        for target in re.findall(r'\]\((?!https?:)([^)#]+)', text):
            assert (root/name).parent.joinpath(target).exists(), target
