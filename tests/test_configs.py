"Every named config equals what mmcls 0.25 resolves to, and names only what exists"
import gzip, json, logging, time
from pathlib import Path
import pytest
from clsnb.config.config import Config, configs_dir, list_configs

def tuples(o):
    "Undo the form of tuples in the data file: {'()': [...]}"
    if isinstance(o, list): return [tuples(v) for v in o]
    if not isinstance(o, dict): return o
    if list(o) == ['()']: return tuple(map(tuples, o['()']))
    return {k: tuples(v) for k, v in o.items()}

record = tuples(json.loads(gzip.decompress((Path(__file__).parent/'data/configs.json.gz').read_bytes())))
names, old = record['configs'], record['old']

def differences(a, b, path=''):
    "Lines `path: ours | theirs`; types count, so 1 is not 1.0 and a list not a tuple"
    if type(a) is not type(b): return [f'{path}: {a!r} | {b!r}']
    if isinstance(a, dict):
        return [
            d
            for k in {**a, **b}
            for d in (
                [f'{path}.{k}: {"missing" if k not in a else "too much"}'] if k not in a or k not in b
                else differences(a[k], b[k], f'{path}.{k}')
            )
        ]
    if isinstance(a, (list, tuple)) and len(a) == len(b):
        return [
            d
            for i, (x, y) in enumerate(zip(a, b))
            for d in differences(x, y, f'{path}.{i}')
        ]
    return [] if a == b else [f'{path}: {a!r} | {b!r}']

def resolved(name): return Config.fromfile(name).to_dict()

def test_every_config_equals_the_record_in_seconds():
    start = time.process_time()
    wrong = {
        n: d[:5]
        for n, cfg in names.items()
        if (d := differences(resolved(n), cfg))
    }
    wrong |= {
        n: d[:5]
        for n, new in old.items()
        if (d := differences(resolved(n), names[new]))
    }
    assert not wrong, json.dumps(wrong, indent=1)[:4000]
    assert time.process_time()-start < 10
    assert len(names)+len(old) == 280

def test_the_comparison_sees_a_change():
    cfg = resolved('resnet50_8xb32_in1k')
    for change in (
        dict(optimizer=dict(lr=0.2)),
        dict(optimizer=dict(weight_decay=1)),
        dict(model=dict(head=dict(topk=[1, 5]))),
        dict(extra=1),
    ):
        other = Config(cfg)
        other.merge_from_dict({f'{k}': v for k, v in change.items() if k != 'extra'})
        other = other.to_dict() | ({'extra': 1} if 'extra' in change else {})
        assert differences(other, names['resnet50_8xb32_in1k'])

def test_old_names_have_a_notice_and_a_new_name():
    # in the package on PyPI only
    more = {
        'swin_base_224_b16x64_300e_imagenet': 'swin-base_16xb64_in1k',
        'swin_base_384_evalonly_imagenet': 'swin-base_16xb64_in1k-384px',
    }
    assert json.loads((configs_dir/'deprecated.json').read_text()) == old | more
    assert not set(old) & set(list_configs()) and set(names) <= set(list_configs())
    said, log = [], logging.getLogger('clsnb')
    hear = logging.Handler()
    hear.emit = lambda r: said.append(r.getMessage())
    log.addHandler(hear)
    try:
        for n in (
            'van-base_8xb128_in1k',
            'configs/resnet/resnet50_b32x8_imagenet.py',
            'configs/fp16/resnet50_b32x8_fp16_imagenet.py',
        ):
            cfg = Config.fromfile(n)
            said[-1].index(
                f"{Path(n).name.removesuffix('.py')} is the old name of "
                f"{Path(cfg.filename).name.removesuffix('.py')}"
            )
    finally: log.removeHandler(hear)
    assert len(said) == 3

def test_configs_are_short_and_plain():
    files = [p for p in configs_dir.rglob('*.py') if p.name != '__init__.py']
    lines = [p.read_text().splitlines() for p in files]
    assert all(len(line) <= 120 for ls in lines for line in ls)
    assert sum(map(len, lines)) < 10*len(lines), 'a config should mostly be what differs from its bases'
    assert not [
        p
        for p, ls in zip(files, lines)
        if any(line.startswith(('import ', 'from ', 'def ', 'class ')) for line in ls)
    ]

# ---- What they name

def types(o, part=''):
    "Pairs (part of the config, type) of every dict with a type"
    if isinstance(o, dict):
        if isinstance(o.get('type'), str): yield part, o['type']
        for k, v in o.items(): yield from types(v, 'pipeline' if k == 'pipeline' else part)
    elif isinstance(o, (list, tuple)):
        for v in o: yield from types(v, part)

# What other work will bring; a name that exists by then can go from here
not_yet = set('CUB ImageNet21k StanfordCars VOC Lamb EMAHook PreciseBNHook'.split())

@pytest.mark.parametrize(
    'part, registry',
    dict(
        pipeline='TRANSFORMS', data='DATASETS', optimizer='OPTIMIZERS', custom_hooks='HOOKS',
        sampler='SAMPLERS'
    ).items(),
)
def test_the_named_parts_exist(part, registry):
    import clsnb.core.registry as registries
    found = {
        t
        for c in names.values()
        for k in ('data', 'optimizer', 'custom_hooks', 'sampler')
        if k in c
        for p, t in types(c[k], k)
        if p == part
    }
    lacking = {t for t in found if getattr(registries, registry).get(t) is None}
    assert found and lacking <= not_yet

def test_every_pipeline_can_be_built():
    from clsnb.data.transforms.pipeline import Compose
    for p in {
        repr(p): p
        for c in names.values()
        for k in ('train', 'val', 'test')
        for p in [c['data'][k]['pipeline']]
    }.values():
        Compose(p)

def test_every_schedule_exists():
    from clsnb.train.schedules import Schedule
    for lr in {json.dumps(c['lr_config']): c['lr_config'] for c in names.values()}.values():
        Schedule(**lr)

@pytest.mark.slow
def test_every_model_can_be_built():
    import torch
    from clsnb.models.classifier import build_classifier
    from clsnb.zoo.index import zoo_entry
    failed, counts = {}, {}
    for name, cfg in names.items():
        if (key := repr(cfg['model'])) not in counts and cfg['model']['backbone']['type'] not in not_yet:
            try:
                with torch.device('meta'):
                    counts[key] = sum(
                        p.numel()
                        for p in build_classifier(resolved(name)['model']).parameters()
                    )
            except Exception as e: failed[name] = f'{type(e).__name__}: {e}'
        if counts.get(key, n := zoo_entry(name)['params']) != n:
            failed[name] = f'{counts[key]:,} parameters, and the zoo says {n:,}'
    assert not failed, json.dumps(failed, indent=1)[:3000]
