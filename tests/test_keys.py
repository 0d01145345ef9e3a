"Keys of a config: all that is read is declared, as it is read; facts of a config of any form"
import ast, inspect, json, subprocess, sys
from pathlib import Path

import jsonschema, pytest

import clsnb
from clsnb.config.config import Config, list_configs
from clsnb.config.facts import Facts
from clsnb.config.keys import KEYS, ConfigKeys, config_schema, mistyped_values
from clsnb.config.override import check_keys
from clsnb.core.errors import ConfigError

package = Path(clsnb.__file__).parent


def keys_read(tree):
    "Top-level keys that a module asks a variable `cfg` for"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ('cfg', 'self.cfg'):
            yield node.attr
        if (
            isinstance(node, ast.Subscript)
            and ast.unparse(node.value)=='cfg'
            and isinstance(node.slice, ast.Constant)
        ):
            yield node.slice.value
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            if ast.unparse(node.func).endswith(('cfg.get', 'facts.part', 'self.part')):
                yield node.args[0].value.split('.')[0]


@pytest.mark.parametrize('name', [
    'apis/fit', 'apis/scale_lr', 'apis/trial', 'apis/batch_size', 'apis/open_model', 'train/fsdp', 'config/facts',
])
def test_every_key_that_is_read_is_declared(name):
    read = set(keys_read(ast.parse((package/f'{name}.py').read_text())))
    assert read and read - set(dir(Config)) - {'get', '_source'} <= set(KEYS.below())


def test_defaults_are_those_of_the_functions():
    from clsnb.data.feed.loader import build_dataloader
    from clsnb.train.fsdp import shard_model
    for part, function in (('data', build_dataloader), ('fsdp', shard_model)):
        parameters = inspect.signature(function).parameters
        both = parameters.keys() & KEYS.below(part).keys()
        assert both
        for name in both:
            default = parameters[name].default
            assert (
                KEYS.below(part)[name].default == (None if default is inspect.Parameter.empty else default)
            ), name


def test_keys_are_known_without_torch():
    code = """
        import sys
        from clsnb.config.config import Config
        from clsnb.config.keys import KEYS
        cfg = Config(dict(model={})).merge_from_dict({'channels_last': True, 'data.samples_per_gpu': 8})
        print('torch' in sys.modules, 'channels_last' in KEYS, cfg.facts.batch_size)
    """
    run = subprocess.run(
        [sys.executable, '-c', inspect.cleandoc(code)], capture_output=True, text=True, timeout=60
    )
    assert run.stdout.split()==['False', 'True', '8'], run.stderr


def test_imported_modules_declare_what_their_source_says():
    "A declaration means the same read from the source and run"
    import clsnb.apis.batch_size, clsnb.apis.fit # noqa: F401, which declare
    found = {key.name: key for home in KEYS.homes for key in ConfigKeys((home,))}
    assert found=={key.name: key for key in KEYS if key.home.startswith('clsnb.')}
    assert all(key.help and '\n' not in key.help for key in KEYS)


def test_a_key_has_one_home():
    keys = ConfigKeys()
    for home in ('a', 'a', '__main__', 'b'): # a module that is loaded again, a notebook that tries something
        exec("keys.declare('x', int, 'A number')", dict(__name__=home, keys=keys))
    assert keys['x'].home=='__main__'
    keys = ConfigKeys()
    exec("keys.declare('x', int, 'A number')", dict(__name__='a', keys=keys))
    with pytest.raises(ConfigError, match="b declares the config key 'x', which a has declared already"):
        exec("keys.declare('x', int, 'A number')", dict(__name__='b', keys=keys))


def test_packaged_configs_have_no_mistyped_values():
    validator = jsonschema.Draft202012Validator(config_schema())
    for name in list_configs():
        cfg = Config.fromfile(name)
        assert mistyped_values(cfg)==[], name
        assert not list(validator.iter_errors(json.loads(json.dumps(cfg)))), name


@pytest.mark.parametrize('options, text', [
    ({'cudnn_benchmark': 'ture'}, "'cudnn_benchmark' takes bool, not 'ture'"),
    ({'data.workers_per_gpu': '2'}, "'data.workers_per_gpu' takes int, not '2'"),
    ({'auto_scale_lr': {'enabled': True}}, "'auto_scale_lr' has no key 'enabled'. Did you mean 'enable'?"),
    ({'evaluation': [1]}, "'evaluation' takes dict or None, not"),
])
def test_mistyped_values_end_a_run(options, text):
    cfg = Config.fromfile('resnet18-tiny_1xb16_photos').merge_from_dict(options)
    with pytest.raises(ConfigError) as e: check_keys(cfg, 'mine.py')
    assert text in str(e.value) and '\n' not in str(e.value)
    rows = {(o[0], o[1]) for o in cfg.check(paths=False)}
    assert any(
        level=='error' and key.startswith(next(iter(options)).split('.')[0])
        for level,key in rows
    )


# ---- Facts

facts_without_arguments = [k for k,v in inspect.getmembers(Facts) if isinstance(v, property)]


@pytest.mark.parametrize(
    'cfg',
    [
        {},
        dict(model=None, data=None),
        dict(model=3, data=[], optimizer='SGD', runner=0),
        dict(
            model=dict(backbone=[], head=None, init_cfg=3),
            data=dict(train=[], val=dict(dataset={}), test=None),
        ),
        dict(
            model=dict(train_cfg=None),
            data=dict(test=dict(pipeline=None)),
            lr_config=None,
            optimizer_config=None,
        ),
    ],
)
def test_facts_of_incomplete_configs(cfg):
    "A missing part is an empty answer, or a line that says which key to write"
    facts = Facts(Config(cfg))
    assert facts.input_size==(224, 224) and facts.accumulation==1 and facts.lr is None and facts.init_cfgs==[]
    for name in facts_without_arguments:
        try: getattr(facts, name)
        except ConfigError as e:
            assert name in ('batch_size', 'length') and '\n' not in str(e)
    for ask in (facts.split_name, facts.steps):
        with pytest.raises(ConfigError, match=r'no data\.'): ask('train')
    assert facts.pipeline('test')==[] and facts.class_count('train') is None


def test_facts_look_into_wrappers_and_splits():
    steps = [dict(type='LoadImageFromFile'), dict(type='RandomResizedCrop', size=160)]
    inner = dict(type='CustomDataset', classes=['a', 'b'], pipeline=steps)
    data = dict(
        train=[dict(type='RepeatDataset', times=2, dataset=inner)],
        val=inner,
        train_dataloader=dict(samples_per_gpu=4),
    )
    facts = Config(dict(data=data, optimizer_config=dict(cumulative_iters=8), total_epochs=3)).facts
    assert (
        (facts.input_size, facts.class_count('train'), facts.classes) == ((160, 160), 2, ['a', 'b'])
    )
    assert (
        (facts.split_name('test'), facts.batch_size*facts.accumulation, str(facts.length))
        == ('val', 32, '3 epochs')
    )
    assert facts.steps('test', loads=False)==steps[1:]


def test_facts_follow_the_config():
    cfg = Config.fromfile('resnet18-tiny_1xb16_photos')
    facts = cfg.facts
    cfg.merge_from_dict({'data.samples_per_gpu': 5, 'runner.max_epochs': 7})
    assert (facts.batch_size, facts.length) == (5, (7, 'epochs'))
