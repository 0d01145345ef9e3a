"Types: what an editor and a type checker know about our API without running it"
import inspect
import json
import subprocess
import sys
from pathlib import Path
import pytest
import clsnb.all

root = Path(clsnb.__file__).parents[1]
SCRIPT = """
from clsnb.all import *
run = fit('resnet18-tiny_1xb16_photos', work_dir='run')
print(run.folder, run.checkpoints, run.best, run.metrics, run.plot())
results = run.results or Results.load('results.npz')
print(results.accuracy, results.per_class(), results.confusion())
model = init_model(run, device='cpu')
print(model.CLASSES, model.eval(), Run('run').latest)
answer = predict(model, ['a.jpg'])
print(answer.shape, Config.fromfile('mine.py').diff_base(), finetune('resnet18', 'photos', 'run').best)
"""

def test_a_user_script_has_no_unknown_attribute(tmp_path):
    "pyright on ten lines of a user"
    pytest.importorskip('pyright')
    (tmp_path/'mine.py').write_text(SCRIPT)
    (tmp_path/'pyrightconfig.json').write_text(json.dumps(dict(
        extraPaths=[str(root)],
        typeCheckingMode='basic',
        reportUnknownMemberType='error',
        reportOptionalMemberAccess='none',
        reportAttributeAccessIssue='error',
    )))
    command = [
        sys.executable, '-m', 'pyright', '--pythonpath', sys.executable, '--outputjson', '-p', str(tmp_path)
    ]
    p = subprocess.run(command, capture_output=True, text=True, timeout=300)
    found = json.loads(p.stdout)
    said = [f"{o['range']['start']['line']}: {o['message']}" for o in found['generalDiagnostics']]
    assert found['summary']['filesAnalyzed'] == 1 and said == [], '\n'.join(said)

WANTED = {
    "fit('tiny').": {'folder', 'checkpoints', 'best', 'metrics', 'plot', 'model'},
    "Run('run').": {'config', 'log', 'latest', 'weights', 'results', 'plot'},
    "Results.load('results.npz').": {'accuracy', 'per_class', 'confusion', 'topk'},
    "init_model('tiny').": {'eval', 'state_dict', 'init_weights', 'CLASSES'},
    "predict(init_model('tiny'), ['a.jpg']).": {'columns', 'groupby'},
    "Config.fromfile('tiny').": {
        'where', 'leaves', 'diff_base', 'merge_from_dict', 'dump', 'check', 'facts', 'pretty_text'
    },
}

@pytest.mark.parametrize('code', WANTED)
def test_an_editor_completes_what_can_follow(code):
    jedi = pytest.importorskip('jedi')
    names = {
        o.name
        for o in jedi.Script(f'from clsnb.all import *\n{code}', project=jedi.Project(root)).complete()
    }
    assert WANTED[code] <= names, WANTED[code] - names

def unannotated(function):
    "Names of the parameters without a type, and 'return'"
    signature = inspect.signature(function)
    several = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    missing = [
        k
        for k, p in signature.parameters.items()
        if p.annotation is p.empty and p.kind not in several
    ]
    return missing + ['return']*(signature.return_annotation is signature.empty)

def test_every_function_of_the_api_is_annotated():
    functions = {
        k: v
        for k, v in vars(clsnb.all).items()
        if k in clsnb.all.__all__ and inspect.isfunction(v)
    }
    assert len(functions) > 50
    missing = {k: names for k, v in functions.items() if (names := unannotated(v))}
    assert not missing, missing

def test_the_list_of_missing_annotations_is_right():
    def half(a, b: int = 0, *rest, c=None, **more) -> int: return a
    assert unannotated(half) == ['a', 'c'] and unannotated(lambda x: x) == ['x', 'return']
