"The explorer of schedules without a browser: round trips of all configs, the real hooks, guards, overlays"
import json, subprocess, sys
import numpy as np, pytest
from clsnb.analysis.schedule_chart import landmarks
from clsnb.analysis.schedule_plan import SchedulePlan, save_schedule
from clsnb.analysis.schedule_walk import schedule_table
from clsnb.apis.lr_find import LrFind
from clsnb.apis.scale_lr import scale_lr
from clsnb.apis.schedule_source import schedule_plan, training_samples
from clsnb.config.config import Config, configs_dir, list_configs
from clsnb.config.facts import drop_pretrained
from clsnb.config.dict import plain, pretty
from clsnb.core.registry import SCHEDULES
from clsnb.train.schedules import lr_curve
from clsnb.widgets.schedule import ScheduleControls, ScheduleExplorer

old_names = list(json.loads((configs_dir/'deprecated.json').read_text()))
all_names = [*list_configs(), *old_names]
cosine = dict(policy='CosineAnnealing', min_lr=0)

def shown(desk):
    "What the controls of a desk show before anything is touched"
    return {name: getattr(spec, 'value', None) for name,spec in desk.specs.items()}|desk.start

def edits():
    "Changes of controls, by what they do"
    yield dict(policy='step', step='3, 5', gamma=.25)
    yield dict(policy='OneCycle', momentum_policy='OneCycle', warmup='none')
    yield dict(policy='CosineAnnealing', min_lr_ratio='0.05', warmup='exp', warmup_iters=77, by_epoch=False)
    yield dict(policy='cyclic', target_ratio='4, 0.01', anneal_strategy='linear')
    yield dict(base_lr=0., batch_size=48, accumulation=3, momentum_policy='step', momentum_step='2')

def test_all_configs_read_back_equal_untouched_and_edited(tmp_path):
    assert len(all_names)>=280
    changes = list(edits())
    for i,name in enumerate(all_names):
        desk = ScheduleControls(schedule_plan(name))
        left = desk.plan(shown(desk))
        assert left.cfg==Config.fromfile(name), name
        assert Config.fromstring(left.text)==left.settings, name
        plan = desk.plan(shown(desk)|changes[i%len(changes)])
        assert plan.cfg!=desk.source.cfg
        assert Config.fromstring(plan.text)==plan.settings, name
        for control in desk.specs.values(): getattr(control, 'close', lambda: None)()
        if i%8: continue # what was edited, opened once more and as a file that extends the config
        again = ScheduleControls(SchedulePlan(Config(plan.cfg), plan.epoch_len, plan.samples))
        assert again.plan(shown(again)).cfg==plan.cfg, name
        save_schedule(plan.cfg, tmp_path/'edited.py', base=name)
        assert Config.fromfile(tmp_path/'edited.py')==plan.cfg, name

base_schedules = sorted(str(path.relative_to(configs_dir)) for path in configs_dir.glob('_base_/schedules/[a-z]*.py'))

@pytest.mark.parametrize('name', base_schedules)
def test_base_schedules(name):
    desk = ScheduleControls(schedule_plan(name))
    assert plain(desk.plan(shown(desk)).cfg)==plain(Config.fromfile(name))

@pytest.mark.parametrize('name', ['resnet50_8xb32_in1k', 'swin-tiny_16xb64_in1k', 'mobilenet-v2_1xb16-ft_photos',
                                  'swin-small_16xb64_ipu_in1k', 'digits_lenet5'])
def test_curve_is_that_of_the_hooks(name):
    if name not in list_configs(): name = 'lenet5_mnist'
    w = ScheduleExplorer(name)
    cfg = Config.fromfile(name)
    whole = schedule_table(cfg, w.plan.epoch_len, iterations=w.table['iter'].unique().tolist())
    assert not w.errors
    np.testing.assert_allclose(w.table.lr, whole.lr, rtol=1e-12)
    np.testing.assert_allclose(w.table.momentum.astype(float), whole.momentum.astype(float), rtol=1e-12)
    w.close()

def test_a_run_sets_what_was_drawn(tmp_path):
    from clsnb.apis.fit import fit
    from clsnb.core.registry import HOOKS
    from clsnb.train.hooks import Hook
    seen = []
    @HOOKS.register(force=True)
    class NoteRates(Hook):
        priority = 'LOW'
        def before_train_iter(self, runner):
            group = runner.optimizer.param_groups[0]
            seen.append((group['lr'], group['betas'][0]))
    changes = dict(policy='OneCycle', momentum_policy='OneCycle', epochs=2, base_lr=.02)
    w = ScheduleExplorer('mobilenet-v2_1xb16-ft_photos', warmup='none', batch_size=48, **changes)
    assert not w.errors
    cfg = Config(w.plan.cfg)
    cfg.custom_hooks = [dict(type='NoteRates')]
    cfg.evaluation = None
    drop_pretrained(cfg)
    fit(cfg, work_dir=tmp_path/'run', device='cpu')
    rows = w.plan.at(*range(w.plan.max_iters))
    rows = rows[rows.group==0]
    assert len(seen)==w.plan.max_iters
    np.testing.assert_allclose(rows[['lr', 'momentum']], seen, rtol=1e-9)
    w.compare(tmp_path/'run')
    assert not w.errors
    logged = w.overlays[0]
    np.testing.assert_allclose(logged.lr, w.plan.at(*logged.iters.tolist()).groupby('iter').lr.first(), rtol=2e-3)
    w.close()

def test_controls_without_effect_are_disabled():
    w = ScheduleExplorer(dict(cosine), epochs=10)
    off = lambda *names: [w._ctl[name].disabled for name in names]
    assert off('gamma', 'min_lr', 'warmup_iters', 'step', 'momentum_gamma') == [True, False, True, True, True]
    w.policy = 'OneCycle'
    assert off('gamma', 'min_lr', 'by_epoch', 'max_lr', 'pct_start') == [True, True, True, False, False]
    w.set(policy='step', warmup='linear', momentum_policy='step')
    assert off('gamma', 'warmup_iters', 'momentum_gamma', 'pct_start') == [False, False, False, True]
    assert off('iters_per_epoch', 'base_batch', 'ranks') == [False, True, True]
    w.set(samples=1000, batch_size=10, ranks=2, scale_lr=True)
    assert w.plan.epoch_len==50 and off('iters_per_epoch', 'base_batch', 'ranks') == [True, False, False]
    w.set(policy='CosineAnnealing', min_lr_ratio='0.1')
    assert off('min_lr') == [True] and not w.errors
    w.close()

def test_every_policy_from_every_other():
    w = ScheduleExplorer(dict(policy='step', step=[3, 6]), epochs=9)
    for policy in SCHEDULES:
        w.set(policy=policy, momentum_policy='none')
        assert not w.errors, (policy, w.errors)
        again = Config.fromstring(pretty(dict(lr_config=w.lr_config))).lr_config
        np.testing.assert_allclose(w.lrs, np.array(lr_curve(again, 9, 100, .1))[w.its])
    for policy in SCHEDULES:
        w.momentum_policy = policy
        assert not w.errors, (policy, w.errors)
    w.close()

def test_a_rate_of_zero_stays_zero():
    w = ScheduleExplorer(dict(optimizer=dict(type='SGD', lr=0), runner=dict(type='EpochBasedRunner', max_epochs=3),
                              lr_config=cosine))
    assert w.base_lr==0 and not w.lrs.any() and not w.errors
    w.base_lr = .5
    assert w.lrs[0]==.5
    w.base_lr = 0
    assert w.plan.cfg.optimizer.lr==0 and not w.lrs.any() and not w.errors
    w.close()

@pytest.mark.parametrize('name', ['swin-tiny_16xb64_in1k', 'resnet50_8xb32_in1k'])
def test_scaling_is_that_of_a_run(name):
    w = ScheduleExplorer(name, scale_lr=True, ranks=3)
    cfg = Config.fromfile(name)
    scale_lr(cfg, 3, enable=True)
    assert w.plan.run_config.optimizer.lr==cfg.optimizer.lr and not w.errors
    assert 'becomes' in w.readout.value
    w.close()

def test_steps_follow_the_data():
    w = ScheduleExplorer('resnet50_8xb32_in1k', ranks=8)
    assert (w.samples, w.plan.epoch_len, w.iters_per_epoch) == (1281167, 5005, 5005)
    w.batch_size = 256
    assert w.plan.epoch_len==626 and w.plan.cfg.data.samples_per_gpu==256
    w.set(samples=0, iters_per_epoch=7)
    assert w.plan.epoch_len==7 and w.table.attrs['max_iters']==700
    assert training_samples(Config.fromfile('mobilenet-v2_1xb16-ft_photos'))==130
    w.close()

def test_read_outs():
    w = ScheduleExplorer(dict(policy='OneCycle', max_lr=1.2), epochs=300, iters_per_epoch=1251, cursor=1000)
    marks = w.marks.set_index('mark')
    assert marks.lr['peak']==pytest.approx(1.2, abs=1e-8) and marks.iter['final']==300*1251-1
    assert marks.iter['cursor']==1000 and marks.lr['cursor']==w.plan.at(1000).lr[0]
    warm = schedule_plan(dict(cosine, warmup='linear', warmup_iters=3, warmup_by_epoch=True), epochs=9)
    assert landmarks(warm).set_index('mark').iter['end of warm-up']==300
    w.close()

def test_overlays(tmp_path):
    w = ScheduleExplorer(dict(policy='step', step=[3, 6]), epochs=9)
    w.keep()
    w.gamma = .5
    w.table.to_csv(tmp_path/'saved.csv')
    sweep = LrFind([10**(-5+.05*i) for i in range(100)], [2.-1.5/(1+2.718**(-.2*(i-50))) for i in range(100)])
    for other in (tmp_path/'saved.csv', sweep, .03, 'resnet50_8xb32_in1k', w.plan): w.compare(other)
    assert len(w.overlays)==6 and not w.errors
    assert (w.overlays[0].lr[-1], w.overlays[1].lr[-1]) == (pytest.approx(.001), pytest.approx(.025))
    for bad in ('nothing', tmp_path/'no.csv', LrFind([], []), -1., tmp_path):
        before = len(w.errors)
        w.compare(bad)
        assert len(w.errors)==before+1 and len(w.overlays)==6 and '⚠' in w._status.value
    w.clear()
    assert not w.overlays and '⚠' not in w._status.value
    w.close()

@pytest.mark.parametrize('bad', ['resnet5O_8xb32_in1k', 'missing/file.py', dict(policy='cosin'), 3, dict(model=1),
                                 dict(policy='step', step='x'), dict(optimizer=dict(type='SGD', lr=-1), lr_config=cosine)])
def test_bad_input_is_shown_in_place(bad):
    w = ScheduleExplorer(bad)
    assert w.errors and '⚠' in w._status.value and '\n' not in str(w.errors[0])
    w.close()

def test_bad_values_are_shown_and_go_away():
    w = ScheduleExplorer(dict(policy='step', step=[3, 6]), epochs=9)
    for name,value,good in (('step', 'a, b', '3, 6'), ('gamma', -1., .1), ('step', '-3', '3')):
        setattr(w, name, value)
        assert '⚠' in w._status.value
        setattr(w, name, good)
        assert '⚠' not in w._status.value
    w.close()

def test_momentum_is_not_offered_where_there_is_none():
    cfg = dict(optimizer=dict(type='SGD', lr=.1), runner=dict(type='EpochBasedRunner', max_epochs=3), lr_config=cosine)
    w = ScheduleExplorer(cfg)
    assert w._ctl['momentum_policy'].disabled and not w.errors
    w.close()

def test_a_policy_of_ones_own_has_its_options():
    code = '''
from clsnb.all import SCHEDULES, ScheduleExplorer
@SCHEDULES.register('Sawtooth')
def sawtooth(base, t, T, teeth=4): return base*(1-t*teeth%T/T)
w = ScheduleExplorer(dict(policy='fixed'), epochs=9)
w.set(policy='Sawtooth', teeth=3)
print(w.lr_config, w._ctl['teeth'].disabled, w.errors)
'''
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout
    assert out=="{'policy': 'Sawtooth', 'teeth': 3} False []\n"

def test_openings_leave_no_widgets():
    from ipywidgets.widgets.widget import _instances
    before = len(_instances)
    for _ in range(5):
        w = ScheduleExplorer('mobilenet-v2_1xb16-ft_photos')
        w.policy = 'poly'
        w.close()
    assert len(_instances)==before

def test_the_plan_needs_no_widgets():
    code = ("import sys\nfrom clsnb.apis.schedule_source import schedule_plan\n"
            "from clsnb.analysis.schedule_chart import plot_plan\nplot_plan(schedule_plan('resnet50_8xb32_in1k'))\n"
            "print('ipywidgets' in sys.modules)")
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout=='False\n'
