"""Figures of what a config does before it trains: the schedule, which is what training logs, and the pipeline, whose
pictures are what training sees."""
import numpy as np, pytest
from clsnb.all import ClsnbError, Config, Run, build_classifier, build_dataset, fit, list_configs, read_log
from clsnb.apis.vis_lr import steps_in_epoch, vis_lr

# ---- The schedule

def run_config(**changes):
    cfg = Config.fromfile('resnet18-tiny_1xb16_photos')
    cfg.merge_from_dict({'log_config.interval': 1, 'log_level': 'ERROR', 'runner.max_epochs': 3, 'data.samples_per_gpu': 40})
    cfg.update(changes)
    return cfg

cosine = dict(policy='CosineAnnealing', min_lr=1e-5, by_epoch=False, warmup='linear', warmup_iters=1, warmup_by_epoch=True)
runs = dict(
    cosine=dict(lr_config=cosine),
    by_epoch=dict(lr_config=dict(policy='step', step=[1, 2], warmup='exp', warmup_iters=2, warmup_ratio=.01)),
    iterations=dict(runner=dict(type='IterBasedRunner', max_iters=7), lr_config=dict(policy='poly', power=2)),
    momentum=dict(optimizer=dict(type='SGD', lr=.01, momentum=.9), lr_config=dict(policy='OneCycle', max_lr=.05),
                  momentum_config=dict(policy='OneCycle')),
    not_dropped=dict(lr_config=dict(policy='exp', gamma=.5, by_epoch=False), drop_last=False),
)

@pytest.mark.parametrize('name', runs)
def test_the_figure_shows_what_training_logs(name, tmp_path):
    changes = dict(runs[name])
    cfg = run_config(**{k: v for k,v in changes.items() if k!='drop_last'})
    if 'drop_last' in changes: cfg.data['train_dataloader'] = dict(drop_last=changes['drop_last'])
    log = read_log(fit(cfg, tmp_path, validate=False, device='cpu').folder)
    log = log[log['mode']=='train']
    table = vis_lr(cfg).schedule
    assert len(table)==table.attrs['max_iters']==len(log)
    np.testing.assert_allclose(table.lr, log.lr, rtol=1e-5)
    if 'momentum' in log: np.testing.assert_allclose(table.momentum, log.momentum, rtol=1e-5)

def kinds():
    "One packaged config of each kind of schedule and optimiser"
    found = {}
    for name in list_configs():
        cfg = Config.fromfile(name)
        lr, optimizer = cfg.facts.lr_config, cfg.facts.part('optimizer')
        if not optimizer: continue
        special = str(sorted(optimizer.get('paramwise_cfg') or ()))
        key = lr['policy'], lr.get('warmup'), optimizer.get('type'), special, cfg.facts.length.unit
        found.setdefault(key, name)
    return sorted(found.values())

@pytest.mark.parametrize('name', kinds())
def test_every_kind_of_packaged_schedule(name):
    fig = vis_lr(name, dataset_size=2000, ngpus=2)
    table = fig.schedule
    assert table.lr.gt(0).any() and np.isfinite(table.lr).all() and table.attrs['max_iters']>0
    assert len(fig.axes[0].lines)==table.group.nunique()

def test_parameter_groups_have_lines_of_their_own():
    cfg = run_config(optimizer=dict(type='SGD', lr=.1, momentum=.9, paramwise_cfg=dict(custom_keys={'head': dict(lr_mult=10.)})))
    table = vis_lr(cfg).schedule
    highest = table.groupby('group').lr.max()
    assert len(highest)==2 and highest.max()/highest.min()==pytest.approx(10, rel=1e-3)
    parameters = sum(p.numel() for p in build_classifier(cfg.model).parameters())
    assert table.groupby('group')['count'].first().sum()==parameters
    legend = fig_texts(vis_lr(cfg))
    assert any('774 parameters' in o for o in legend), legend

def fig_texts(fig): return [t.get_text() for ax in fig.axes if ax.get_legend() for t in ax.get_legend().get_texts()]

@pytest.mark.parametrize('ngpus, batch, more, expected', [
    (1, 32, {}, 32), (2, 32, {}, 16), (3, 32, {}, 11), (8, 100, {}, 2), (1, 32, dict(drop_last=True), 31), (8, 1000, {}, 1),
])
def test_iterations_in_an_epoch(ngpus, batch, more, expected):
    cfg = Config(dict(data=dict(samples_per_gpu=batch, train_dataloader=more)))
    assert steps_in_epoch(cfg, 1000, ngpus)==expected

def test_samples_are_counted_with_their_wrappers():
    cfg = run_config()
    samples, plain = len(build_dataset(cfg.data.train)), steps_in_epoch(cfg)
    cfg.data.train = dict(type='RepeatDataset', times=5, dataset=cfg.data.train)
    assert (plain, steps_in_epoch(cfg))==(samples//40, samples*5//40) # drop_last

def test_figure_is_written_and_titled(tmp_path):
    for name in ('lr.png', 'lr.jpg', 'new/lr.svg', 'lr.pdf'):
        vis_lr(run_config(), save_path=tmp_path/name, title='Mine', window_size='6*4')
        assert (tmp_path/name).stat().st_size>1000
    assert vis_lr('resnet18-tiny_1xb16_photos').axes[0].get_title(loc='left')=='resnet18-tiny_1xb16_photos'
    assert vis_lr(run_config(), title='Mine').axes[0].get_title(loc='left')=='Mine'

def test_a_work_folder_and_a_run(tmp_path):
    run_config().dump(tmp_path/'config.py')
    tables = [vis_lr(source).schedule for source in (tmp_path, Run(tmp_path), tmp_path/'config.py', run_config())]
    assert all(tables[0].equals(o) for o in tables)

@pytest.mark.parametrize('options, message', [
    (dict(dataset_size=0), 'at least 1, not 0'), (dict(ngpus=0), 'at least 1, not 0'),
    (dict(window_size='12'), "'12' is not a width"),
    (dict(style='whitegrit'), "Did you mean 'whitegrid'"), (dict(save_path='lr.txt'), 'has to end with'),
    (dict(save_path='/proc/none/lr.png'), 'cannot be written'), (dict(cfg='resnet50_8xb32_in1k'), 'Set dataset_size'),
    (dict(cfg='resnet50_8xb32_in2k'), "Did you mean 'resnet50_8xb32_in1k'"),
    (dict(options={'lr_config.policy': 'cosin'}), "'cosin'"),
    (dict(cfg=dict(optimizer=dict(type='SGD', lr=.1))), 'samples_per_gpu'), (dict(options={'optimizer.type': 'SDG'}), 'SGD'),
    (dict(cfg=dict(data=dict(samples_per_gpu=2))), 'no data.train'), (dict(cfg='absent/config.py'), 'absent'),
], ids=str)
def test_schedules_that_cannot_be_shown(options, message):
    with pytest.raises(ClsnbError) as e: vis_lr(**dict(cfg='resnet18-tiny_1xb16_photos') | options)
    assert message in str(e.value) and '\n' not in str(e.value)
