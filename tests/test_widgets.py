"Explorers without a browser: threads, messages of a front end, notebooks without a kernel, light imports"
import subprocess, sys, threading
import nbclient, nbformat
from clsnb.widgets.explorer import Explorer
from clsnb.widgets.training import LRExplorer

def test_threads_wait_for_each_other():
    "Callbacks may come from several threads; every one of them draws, one after the other"
    w = LRExplorer(epochs=20)
    inside, most = [], []
    draw = w.draw
    def watched(**kw):
        inside.append(1)
        most.append(len(inside))
        out = draw(**kw)
        inside.pop()
        return out
    object.__setattr__(w, 'draw', watched)
    def assign(k):
        for e in range(k, k+8): w.epochs = e
    ts = (
        [threading.Thread(target=assign, args=(k,)) for k in (2, 20, 40)]
        + [
            threading.Thread(target=lambda: [w.set(gamma=.1, warmup='exp') for _ in range(8)])
        ]
    )
    for t in ts: t.start()
    for t in ts: t.join()
    assert not w.errors and max(most) == 1 and len(most) >= 8
    w.close()

def test_message_of_a_front_end():
    w = LRExplorer(epochs=20)
    w._ctl['epochs'].set_state({'value': 7})
    assert w.epochs == 7 and w.drawn == 2 and '7 epochs' in w._status.value
    w._ctl['base_lr'].set_state({'value': 1e9}) # beyond the control's range
    assert w.base_lr == 1e3 and not w.errors
    w.close()

def test_as_quick_as_measured():
    "The part of a change that is ours; a browser adds 20 to 40 ms"
    w, took = LRExplorer(epochs=20), []
    for i in range(15):
        w.warmup_iters = 10+i
        took.append(w.ms)
    assert sorted(took)[7] < 120, took
    w.close()

def test_notebook_without_kernel_or_state_shows_the_picture():
    from nbconvert import HTMLExporter
    nb = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell('from clsnb.widgets.training import LRExplorer\nLRExplorer(epochs=20)')
        ],
        metadata=dict(kernelspec=dict(name='python3', display_name='python3')),
    )
    nbclient.NotebookClient(nb, timeout=120, store_widget_state=False).execute()
    page = HTMLExporter().from_notebook_node(nb)[0]
    assert 'alt="CosineAnnealing: starts at 0.1' in page and 'data:image/jpeg;base64' in page

def test_saved_page_stands_alone(tmp_path):
    w = LRExplorer(dict(policy='step', step=[3]), epochs=6)
    w.save_html(tmp_path/'lr.html')
    text = (tmp_path/'lr.html').read_text()
    assert 'policy: <b>step</b>' in text and 'src="data:' in text and 'http' not in text
    w.close()

def test_a_subclass_that_cannot_draw_still_appears():
    class Bad(Explorer):
        def controls(self): return dict(n=range(3))
        def draw(self, n): return 1/0
    w = Bad()
    assert isinstance(w.errors[0], ZeroDivisionError) and 'ZeroDivisionError' in w._status.value
    assert 'text/plain' in w._repr_mimebundle_()[0]
    w.close()

def test_all_offers_explorers_without_importing_widgets():
    code = (
        "import sys\nfrom clsnb.all import *\nprint('ipywidgets' in sys.modules); "
        "w = LRExplorer(epochs=5); print(type(w).__name__, w.errors)"
    )
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.split('\n')
    assert out[:2] == ['False', 'LRExplorer []']

def test_the_explorers_of_all_are_like_their_classes():
    import inspect
    import clsnb.all as everything
    lazy = everything.LRExplorer
    assert inspect.signature(lazy)==inspect.signature(LRExplorer) and inspect.getdoc(lazy)==LRExplorer.__doc__
    class Mine(lazy): "A subclass through `clsnb.all`"
    assert issubclass(Mine, LRExplorer)
    w = lazy(epochs=5)
    assert isinstance(w, lazy) and not isinstance(3, lazy) and type(w) is LRExplorer
    w.close()

def test_all_offers_every_explorer_and_what_works_without_them():
    "Lines of `clsnb/all.py` get lost where two branches meet; it is written by hand"
    import clsnb.all as everything
    explorers = ('Cleaner ConfigExplorer PipelineExplorer ResultsExplorer ScheduleExplorer LRExplorer TrainingMonitor '
                 'ZooExplorer explore').split()
    for name in explorers: assert getattr(everything, name)._real.__name__==name
    for name in 'schedule_plan plot_plan filter_zoo plot_zoo measure_zoo zoo_card EditedConfig'.split():
        assert callable(getattr(everything, name))
