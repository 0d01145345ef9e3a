"The explorer of the zoo without a browser: filters, unknown numbers, background measurements, cards"
import json, subprocess, sys, threading, time
import numpy as np, pytest
from clsnb.analysis.zoo_chart import plot_zoo, zoo_front
from clsnb.apis import zoo_latency
from clsnb.apis.zoo_card import zoo_card
from clsnb.apis.zoo_latency import kept_latencies, latency_file, measure_zoo
from clsnb.core.errors import ConfigError
from clsnb.widgets.zoo import ZooExplorer
from clsnb.zoo.filtered import filter_zoo, sort_keys, zoo_datasets, zoo_families
from clsnb.zoo.index import zoo

@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch): monkeypatch.setenv('CLSNB_HOME', str(tmp_path))

def test_filters_are_those_of_pandas():
    df = zoo()
    assert len(filter_zoo())==len(df)
    assert set(filter_zoo(family='resnet').family)=={'resnet'}
    assert len(filter_zoo(params=(5e6, 10e6)))==int(df.params.between(5e6, 10e6).sum())
    assert len(filter_zoo(top1=(80, 85)))==int(df.top1.between(80, 85).sum())
    assert len(filter_zoo(pretrained=True))==int(df.weights.notna().sum())
    assert set(filter_zoo(dataset='CIFAR-10').training_data)=={'CIFAR-10'}
    assert all('swin' in name for name in filter_zoo('SWIN 384').name)

@pytest.mark.parametrize('key', sort_keys)
@pytest.mark.parametrize('descending', [False, True])
def test_sorting_keeps_unknown_numbers_at_the_end(key, descending):
    column = filter_zoo(sort=key, descending=descending, latencies=dict(lenet5_mnist=.4))[key]
    known = column.dropna()
    assert column.iloc[:len(known)].notna().all()
    assert known.is_monotonic_decreasing if descending else known.is_monotonic_increasing

def test_unknown_accuracy_passes_no_bound():
    assert filter_zoo().top1.isna().any() and not filter_zoo(top1=(0, 99)).top1.isna().any()
    assert filter_zoo(top1=(1, 100)).top1.notna().all() and filter_zoo(params=(1, 1e12)).params.notna().all()

@pytest.mark.parametrize('bad', [dict(family='resnt'), dict(dataset='ImageNet'), dict(sort='size'), dict(top1=(90, 10)),
                                 dict(params=(float('nan'), 3))])
def test_mistakes_are_named(bad):
    with pytest.raises(ConfigError) as e: filter_zoo(**bad)
    assert '\n' not in str(e.value)

def test_front():
    rng = np.random.default_rng(0)
    cost, merit = rng.random(200), rng.random(200)
    front = set(zoo_front(cost, merit).tolist())
    for i in range(200):
        beaten = ((cost<=cost[i]) & (merit>=merit[i]) & (np.arange(200)!=i)).any()
        assert (i in front)==(not beaten)

def test_every_model_has_a_card():
    for name in zoo().name:
        card = zoo_card(name)
        assert card['model']==name and card['use'].count('\n')==2
        compile(card['use'].replace('import *', 'import zoo'), name, 'exec')
    assert 'licence applies' in zoo_card('convnext-tiny_3rdparty_32xb128_in1k')['licence']
    assert zoo_card('lenet5_mnist')['weights']=='not published'

def test_every_figure():
    for by in ('params', 'flops', 'latency'):
        assert 'models have both' in plot_zoo(filter_zoo(), by).alt
    assert '0 of 0' in plot_zoo(filter_zoo('nothing')).alt
    with pytest.raises(ConfigError): plot_zoo(zoo(), 'price')

def test_controls_filter():
    w = ZooExplorer('swin')
    assert w.models.name.str.contains('swin').all() and not w.errors
    w.set(text='', family='mobilenet_v2', sort='params')
    assert set(w.models.family)=={'mobilenet_v2'} and 'sorted by params' in w._status.value
    w.set(family=None, dataset='ImageNet-1k', weights=True, top1=(75, 100), least_params=5, most_params=10)
    assert w.models.params.between(5e6, 10e6).all() and w.models.top1.min()>=75 and w.models.weights.notna().all()
    w.set(text='nothing at all', top1=(0, 100))
    assert not len(w.models) and not w.errors and '0 models' in w._status.value
    w.set(text='', least_params=50)
    assert '⚠' in w._status.value # above the upper bound
    w.set(least_params=0)
    assert '⚠' not in w._status.value
    w.close()

def test_a_pick_stays_while_the_filter_changes():
    w = ZooExplorer(model='resnet50_8xb32_in1k')
    assert 'zoo://resnet50' in w.card.value and 'Apache' in w.card.value and 'download' in w.card.value
    w.text = 'swin'
    assert w.model=='resnet50_8xb32_in1k' and 'resnet50' in w.card.value
    w.pick('swin-t') if 'swin-t' in set(zoo().name) else w.pick('swin-tiny_16xb64_in1k')
    assert 'swin' in w.card.value and '▸' in w.table.value
    w.model = None
    assert w.card.value=='' and not w.errors
    w.close()

def test_names_are_escaped():
    w = ZooExplorer('<script>alert(1)</script>')
    assert '<script>' not in w.table.value and not w.errors
    w.close()

def wait_for(condition, seconds=60):
    end = time.time()+seconds
    while not condition() and time.time()<end: time.sleep(.01)
    assert condition()

def test_latency_is_measured_in_the_background_and_kept(monkeypatch):
    gate = threading.Event()
    def slow(name, device, seconds):
        gate.wait(30)
        if name=='lenet5_mnist': raise RuntimeError('no memory')
        return 5.
    monkeypatch.setattr(zoo_latency, 'config_latency', slow)
    w = ZooExplorer('mnist')
    configs = filter_zoo('mobilenet-v2').config.dropna().unique().tolist()
    w.text = 'mobilenet-v2'
    began = time.time()
    w.measure()
    assert time.time()-began<5 and w.models.latency.isna().all()
    gate.set()
    wait_for(lambda: w.measurement.bar.value==len(configs))
    w.measurement.thread.join()
    assert w.models.latency.dropna().eq(5).all() and kept_latencies()==dict.fromkeys(configs, 5.)
    w.set(text='lenet5_mnist')
    w.measure()
    w.measurement.thread.join()
    assert list(w.measurement.failed)==['lenet5_mnist'] and '1 failed' in w.measurement.words.value and not w.errors
    again = ZooExplorer('mobilenet-v2', axis='latency')
    assert again.models.latency.notna().all() and not again.errors
    for o in (w, again): o.close()

def test_stop(monkeypatch):
    seen = []
    monkeypatch.setattr(zoo_latency, 'config_latency', lambda name, device, seconds: seen.append(name) or time.sleep(.05) or 1.)
    w = ZooExplorer('resnet')
    w.measure()
    wait_for(lambda: len(seen)>=2)
    w.measurement.stop_button.click()
    w.measurement.thread.join(10)
    assert len(seen)<len(w.models.config.dropna().unique()) and w.measurement.stop_button.disabled
    w.close()

def test_a_real_measurement():
    assert measure_zoo(['lenet5_mnist'], seconds=.05)['lenet5_mnist']>0
    before = latency_file().read_text()
    measure_zoo(['lenet5_mnist'], seconds=.05)
    assert latency_file().read_text()==before

@pytest.mark.parametrize('text', ['', '{"a": 1', '[1]', '{"lenet5_mnist": "x"}', '\0'])
def test_a_damaged_file_counts_as_empty(text):
    latency_file().write_text(text)
    assert kept_latencies()=={} and not ZooExplorer('lenet').errors

def test_no_widgets_are_left():
    from ipywidgets.widgets.widget import _instances
    before = len(_instances)
    for _ in range(3):
        w = ZooExplorer(model='resnet50_8xb32_in1k')
        w.close()
    assert len(_instances)==before

def test_lists_are_complete_and_plain_calls_need_no_widgets():
    assert {'ImageNet-1k', 'CIFAR-10', 'MNIST'} <= set(zoo_datasets()) and 'resnet' in zoo_families()
    code = ("import sys\nfrom clsnb.all import filter_zoo, plot_zoo\nplot_zoo(filter_zoo('swin'))\n"
            "print('ipywidgets' in sys.modules)")
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout=='False\n'
    assert json.dumps(filter_zoo('swin').name.tolist())
