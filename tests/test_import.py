"What importing clsnb costs, in a clean interpreter"
import json, subprocess, sys

heavy = ['matplotlib', 'seaborn', 'pandas', 'sklearn', 'pytorch_grad_cam', 'fvcore', 'ipywidgets', 'cv2']

def after(code):
    "Which heavy libraries are loaded after `code`, and whether CUDA was initialised"
    tell = (
        f"import sys, json, torch; print(json.dumps([[o for o in {heavy} if o in "
        "sys.modules], torch.cuda.is_initialized()]))"
    )
    r = subprocess.run([sys.executable, '-c', f'{code}\n{tell}'], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    return json.loads(r.stdout.splitlines()[-1])

def test_nothing_heavy_is_loaded(): assert after('from clsnb.all import *') == [[], False]

def test_the_check_sees_heavy_libraries(): assert after('import cv2')[0] == ['cv2']

def test_star_import_keeps_the_users_names():
    "No builtin is hidden, and nothing private comes along"
    code = (
        "import builtins; ns = {}; exec('from clsnb.all import *', ns); "
        "print([o for o in ns if hasattr(builtins, o) and o[0] != '_'], "
        "[o for o in ns if o[0] == '_' and o != '__builtins__'])"
    )
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert r.stdout.strip() == '[] []', r.stdout + r.stderr

def test_star_import_gives_pytest_nothing_to_collect(tmp_path):
    (tmp_path/'test_mine.py').write_text('from clsnb.all import *\n\ndef test_mine(): assert fit\n')
    cmd = [sys.executable, '-m', 'pytest', '-q', '--collect-only', '-p', 'no:cacheprovider', 'test_mine.py']
    r = subprocess.run(cmd, cwd=tmp_path, capture_output=True, text=True)
    assert [o for o in r.stdout.splitlines() if '::' in o] == ['test_mine.py::test_mine'], r.stdout + r.stderr

def test_star_import_takes_no_common_words():
    import clsnb.all
    assert not {'build', 'cam', 'demo', 'pretty', 'search', 'show', 'split', 'test'} & set(clsnb.all.__all__)
