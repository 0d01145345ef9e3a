"The README does what it says: its blocks run in order, in an empty folder"
import json, os, re, shutil, subprocess, sys
from pathlib import Path
import clsnb

root = Path(__file__).resolve().parents[1]
photos = Path(clsnb.__file__).parent/'photos'

RUN_BLOCKS = """
import json, subprocess
from pathlib import Path

def run_blocks(blocks):
    "Run Python blocks in one namespace and shell blocks in a shell; a block that begins with `# name.py` is that file"
    namespace = {}
    for kind, code in blocks:
        print('>>>', code.splitlines()[0], flush=True)
        first = code.splitlines()[0]
        if kind == 'sh': subprocess.run(['bash', '-euc', code], check=True)
        elif first.startswith('# ') and first.endswith('.py'): Path(first[2:]).write_text(code + '\\n')
        else: exec(compile(code, first, 'exec'), namespace)

if __name__ == '__main__': run_blocks(json.loads(Path('blocks.json').read_text()))
"""

def readme_blocks():
    "(language, code) of all blocks of the README but the installation, which .ci/run does"
    blocks = re.findall(r'^```(python|sh)\n(.*?)\n```$', (root/'README.md').read_text(encoding='utf-8'), re.M | re.S)
    return [(kind, code) for kind, code in blocks if not code.startswith('pip install')]

def own_pictures(folder, classes=('fish', 'tool', 'windmill')):
    "What a reader of the README has: pictures/{train,val} with a folder for each class, and a folder of other pictures"
    for name in classes:
        files = sorted((photos/name).iterdir())
        for split, some in (('train', files[:9]), ('val', files[9:13])):
            (folder/'pictures'/split/name).mkdir(parents=True)
            for file in some: shutil.copy(file, folder/'pictures'/split/name)
    (folder/'holiday').mkdir()
    for file in sorted((photos/'fish').iterdir())[-3:]: shutil.copy(file, folder/'holiday')

def test_readme_runs_as_it_is_read(tmp_path, pretrained_home):
    blocks = readme_blocks()
    assert len(blocks) > 10 and any('fit(' in code for _, code in blocks) and any(kind == 'sh' for kind, _ in blocks)
    own_pictures(tmp_path)
    (tmp_path/'blocks.json').write_text(json.dumps(blocks))
    (tmp_path/'run_blocks.py').write_text(RUN_BLOCKS)
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'  # where the command clsnb is
    done = subprocess.run(
        [sys.executable, 'run_blocks.py'],
        cwd=tmp_path, env=dict(os.environ, PATH=path), capture_output=True, text=True, timeout=1200,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert 'Warning' not in done.stderr, done.stderr[-3000:]
    answers = re.findall(r'^holiday/\S+.*$', done.stdout, re.M)
    assert len(answers) == 3 and all(re.search('fish|tool|windmill', o) for o in answers), done.stdout[-2000:]
    assert (tmp_path/'work_dirs/mine/report.html').exists()
