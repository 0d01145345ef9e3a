"What `clsnb-test` runs when it is asked for a part, and what it remembers"
import json, os, shutil, subprocess, sys
from pathlib import Path
import pytest
from clsnb.selection import Selection, changed_files, select_changed, select_path

pytestmark = pytest.mark.dev
root = Path(__file__).resolve().parents[1]

def notebook(*sources):
    cells = [dict(cell_type='code', id=f'c{i}', metadata={}, execution_count=None, outputs=[], source=source)
             for i, source in enumerate(sources)]
    meta = dict(kernelspec=dict(display_name='python3', language='python', name='python3'))
    return json.dumps(dict(cells=cells, metadata=meta, nbformat=4, nbformat_minor=5))

@pytest.fixture
def checkout(tmp_path):
    "A small checkout with its own `clsnb`, two modules, notebooks and tests"
    for folder in ('clsnb', 'nbs', 'tests'): (tmp_path/folder).mkdir()
    shutil.copy(root/'settings.ini', tmp_path)
    for name in ('selftest.py', 'selection.py'):
        shutil.copy(root/'clsnb'/name, tmp_path/'clsnb')
    files = {
        'clsnb/__init__.py': '', 'clsnb/one.py': 'x = 1\n', 'clsnb/two.py': 'y = 2\n',
        'clsnb/all.py': 'from clsnb.two import y\n',
        'nbs/one.ipynb': notebook('#| default_exp one', '#| export\nx = 1', 'assert x == 1'),
        'nbs/user.ipynb': notebook('from clsnb.one import x', '%matplotlib inline', 'assert x == 2'),
        'nbs/star.ipynb': notebook('from clsnb.all import *', 'assert y == 2'),
        'nbs/apart.ipynb': notebook('assert True'),
        'tests/test_one.py': 'def test_right(): pass\n\ndef test_wrong():\n'
                             '    from clsnb.one import x\n    assert x == 2\n',
        'tests/test_two.py': 'code = "import clsnb.two"\ndef test_two(): pass\n',
        '.gitignore': '.clsnb-test.json\n__pycache__/\n.pytest_cache/\n'}
    for name, text in files.items(): (tmp_path/name).write_text(text)
    return tmp_path

def git(folder, *args):
    names = {f'GIT_{who}_{what}': 'a@b.c' for who in ('AUTHOR', 'COMMITTER') for what in ('NAME', 'EMAIL')}
    subprocess.run(['git', *args], cwd=folder, env=os.environ | names, check=True, capture_output=True)

@pytest.fixture
def repo(checkout):
    "The same as a git repository in which nothing has changed"
    git(checkout, 'init', '-q', '-b', 'main')
    git(checkout, 'add', '-A')
    git(checkout, 'commit', '-qm', 'all')
    return checkout

def clsnb_test(folder, *args):
    "Exit status and lines of `clsnb-test` in a checkout"
    cmd = [sys.executable, '-c', 'from clsnb.selftest import main; main()', *args]
    env = (
        {k: v for k, v in os.environ.items() if not k.startswith('PYTEST_')}
        | {'PYTHONPATH': str(folder)}
    )
    done = subprocess.run(cmd, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    return done.returncode, (done.stdout + done.stderr).splitlines()

def remembered(folder): return json.loads((folder/'.clsnb-test.json').read_text())['failed']

def test_paths_are_run_and_failures_are_run_again(checkout):
    status, lines = clsnb_test(checkout, 'nbs', 'tests/test_one.py')
    assert status == 1 and '2 failed, 4 passed in ' in lines[-1], lines
    assert remembered(checkout) == ['nbs/user.ipynb', 'tests/test_one.py::test_wrong']
    heading = next(i for i, line in enumerate(lines) if line.startswith('slowest of '))
    listed = {line.split()[-1] for line in lines[heading+1:] if '%' in line}
    assert {'nbs/one.ipynb', 'nbs/user.ipynb', 'nbs/star.ipynb', 'nbs/apart.ipynb'} <= listed, lines
    (checkout/'clsnb'/'one.py').write_text('x = 2\n')
    status, lines = clsnb_test(checkout, '--failed')
    assert status == 0 and '2 passed in ' in lines[-1], lines
    assert remembered(checkout) == []
    status, lines = clsnb_test(checkout, '--failed')
    assert status == 0 and lines[0] == 'nothing to run' and 'no tests ran in' in lines[-1]

def test_a_run_of_a_part_keeps_the_failures_of_the_rest(checkout):
    assert clsnb_test(checkout, 'tests', '--workers', '1')[0] == 1
    assert clsnb_test(
        checkout, 'tests/test_two.py', 'tests/test_one.py::test_right', '--workers', '1'
    )[0] == 0
    assert remembered(checkout) == ['tests/test_one.py::test_wrong']

def test_a_file_that_cannot_be_collected_is_remembered(checkout):
    (checkout/'tests'/'test_two.py').write_text('import no_such_module\n')
    status, lines = clsnb_test(checkout, '--only', 'tests', '--workers', '1')
    assert status == 1 and '1 error' in lines[-1], lines
    assert 'tests/test_two.py' in remembered(checkout)

def test_nothing_changed_is_nothing_to_run(repo):
    status, lines = clsnb_test(repo, '--changed')
    assert status == 0 and lines[0] == 'nothing to run' and 'no tests ran in' in lines[-1]

@pytest.mark.parametrize('file, notebooks, tests', [
    ('clsnb/one.py', ['nbs/one.ipynb', 'nbs/user.ipynb'], ['tests/test_one.py']),
    ('nbs/one.ipynb', ['nbs/one.ipynb', 'nbs/user.ipynb'], ['tests/test_one.py']),
    ('clsnb/two.py', ['nbs/star.ipynb'], ['tests/test_two.py']),
    ('nbs/apart.ipynb', ['nbs/apart.ipynb'], []),
    ('tests/test_new.py', [], ['tests/test_new.py']),
    ('tests/conftest.py', [], ['tests']),
    ('README.md', [], [])])
def test_a_change_selects_what_it_concerns(repo, file, notebooks, tests):
    old = (repo/file).read_text() if (repo/file).exists() else ''
    (repo/file).write_text(old + '\n')
    assert changed_files(repo) == [file]
    assert select_changed(changed_files(repo), repo) == Selection(notebooks, tests)

def test_a_branch_is_compared_with_its_base(repo):
    git(repo, 'checkout', '-qb', 'work')
    (repo/'clsnb'/'two.py').unlink()
    git(repo, 'commit', '-qam', 'gone')
    git(repo, 'checkout', '-q', 'main')
    (repo/'clsnb'/'one.py').write_text('x = 3\n')
    git(repo, 'commit', '-qam', 'what others did meanwhile')
    git(repo, 'checkout', '-q', 'work')
    assert changed_files(repo) == [] and changed_files(repo, 'main') == ['clsnb/two.py']
    status, lines = clsnb_test(repo, '--changed', 'main', '--only', 'tests')
    assert status == 0 and lines[0] == 'tests/test_two.py' and '1 passed in ' in lines[-1], lines

def test_what_cannot_be_run_is_named(repo, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp('elsewhere')/'test_x.py'
    elsewhere.write_text('')
    (repo/'notes.txt').write_text('')
    messages = {
        'nbs/none.ipynb': 'There is no nbs/none.ipynb',
        'notes.txt': 'There are no notebooks or tests in notes.txt',
        str(elsewhere): 'is not in the checkout'}
    for path, said in messages.items():
        with pytest.raises(SystemExit, match=said): select_path(path, repo)
    with pytest.raises(SystemExit, match="no changes against 'nowhere'"):
        changed_files(repo, 'nowhere')
    status, lines = clsnb_test(repo, '--failed', '--changed')
    assert status == 2 and lines[-1] == 'clsnb-test: error: give PATHs, --changed or --failed, one of them'
