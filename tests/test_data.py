"Batches do not depend on workers, start methods, restarts or the number of processes"
import random, re, warnings
import numpy as np, pytest, torch
from clsnb.core.errors import ConfigError, DataError
from clsnb.data.feed.loader import build_dataloader, collate
from clsnb.data.sets.packaged import Digits, Photos

steps = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', size=32),
    dict(type='RandomFlip'),
    dict(type='ColorJitter', brightness=.4, contrast=.4, saturation=.4),
    dict(type='RandomErasing', mode='rand', erase_prob=.5),
    dict(type='Normalize', mean=[0, 0, 0], std=[255, 255, 255]),
    dict(type='ImageToTensor', keys=['img']),
    dict(type='Collect', keys=['img', 'gt_label']),
]

def user_step(results):
    "A user's own transform, drawing from all three generators"
    results['img'] = (
        results['img']*random.random()+np.random.rand()*torch.rand(()).item()
    )
    return results

def photos(): return Photos('val', steps[:-1]+[user_step, steps[-1]])

def epochs(workers, which=(0,1), start=0, batch=9, **kw):
    loader = build_dataloader(photos(), batch, workers, seed=3, **kw)
    out = []
    for e in which:
        loader.set_epoch(e, start)
        out.append([(b.index, b['img'], b['gt_label'], b['img_metas']) for b in loader])
    return out

def same(a, b):
    assert [len(o) for o in a]==[len(o) for o in b]
    for x,y in zip(sum(a, []), sum(b, [])):
        assert x[0]==y[0]
        assert x[1].equal(y[1])
        assert x[2].equal(y[2])

@pytest.fixture(scope='module')
def want(): return epochs(0)

@pytest.mark.parametrize('workers', [1,4])
def test_workers(want, workers): same(want, epochs(workers))
@pytest.mark.parametrize('method', ['spawn','fork','forkserver'])
def test_start_method(want, method): same(want, epochs(2, multiprocessing_context=method))
def test_hash(want):
    "The same pixels as ever, unless a decoder changes"
    import hashlib
    h = lambda runs: hashlib.sha256(b''.join(
        o[1].numpy().tobytes()
        for e in runs
        for o in e
    )).hexdigest()
    assert h(want)==h(epochs(1))==h(epochs(0))
    assert want[0][0][0][:6]==[40, 29, 7, 24, 14, 25]
def test_not_persistent(want): same(want, epochs(2, persistent_workers=False))
def test_restart(want):
    same(want[1:], epochs(0, (1,)))
    same([want[1][3:]], epochs(2, (1,), start=3))
def test_epochs_differ(want):
    assert want[0][0][0]!=want[1][0][0]
    assert sorted(sum((b[0] for b in want[0]), []))==list(range(54))
    a,b = ({i:x for idx,img,*_ in e for i,x in zip(idx, img)} for e in want)
    assert not any(a[i].equal(b[i]) for i in a)
def test_world_size(want):
    "Three processes with batches of 3 see in each step what one sees with a batch of 9"
    parts = [epochs(0, batch=3, rank=r, world_size=3) for r in range(3)]
    for e,whole in enumerate(want):
        for b,(idx,img,*_) in enumerate(whole):
            pool = {i:x for p in parts for i,x in zip(p[e][b][0], p[e][b][1])}
            assert set(pool)==set(idx)
            assert all(pool[i].equal(x) for i,x in zip(idx, img))
def test_outer_generators_kept():
    loader = build_dataloader(photos(), 9, 0, seed=3)
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    free = torch.rand(3), random.random(), np.random.rand()
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    for _ in loader: pass
    assert free[0].equal(torch.rand(3))
    assert free[1:]==(random.random(), np.random.rand())
def test_seeds():
    one = lambda **kw: next(iter(build_dataloader(photos(), 9, **kw)))['img']
    assert not one(seed=1).equal(one(seed=2)) and not one().equal(one())

@pytest.mark.parametrize('workers', [0,2])
def test_one_line_errors(tmp_path, workers):
    (tmp_path/'bad.jpg').write_bytes(b'\xff\xd8\xff oh')
    (tmp_path/'list.txt').write_text('bad.jpg 0\n')
    from clsnb.data.sets.folder import CustomDataset
    ds = CustomDataset(str(tmp_path), steps, classes=['a'], ann_file=str(tmp_path/'list.txt'))
    with pytest.raises(DataError) as e:
        next(iter(build_dataloader(ds, 1, workers, seed=0)))
    assert str(e.value).count('\n')==0 and 'bad.jpg' in str(e.value) and 'JPEG' in str(e.value)
    uneven = Photos('val', [steps[0], *steps[-2:]])
    with pytest.raises(DataError, match=r'\(3, 160, \d+\).*Resize'):
        next(iter(build_dataloader(uneven, 8, workers, seed=0)))

class Broken(Digits):
    def __getitem__(self, i): raise ZeroDivisionError('a bug of the user')
def test_bugs_keep_their_class():
    for w in (0,1):
        with pytest.raises(ZeroDivisionError):
            next(iter(build_dataloader(Broken('val'), 4, w, seed=0)))

def test_unpicklable_falls_back():
    ds = Photos('val', steps[:-1]+[lambda o: o, steps[-1]])
    with pytest.warns(UserWarning, match='0 workers instead of 2.*cannot be pickled'):
        loader = build_dataloader(ds, 9, 2, seed=3, multiprocessing_context='spawn')
    assert loader.num_workers==0 and len(next(iter(loader)).index)==9
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        assert build_dataloader(ds, 9, 2, seed=3, multiprocessing_context='fork').num_workers==2

def test_repeat_aug():
    loader = build_dataloader(
        Photos('train', steps), 6, seed=0, sampler_cfg=dict(type='RepeatAugSampler', selected_round=0)
    )
    b = next(iter(loader))
    assert b.index[0]==b.index[1]==b.index[2]!=b.index[3]
    assert not b['img'][0].equal(b['img'][1])
    assert not b['img'][1].equal(b['img'][2])

def stuck(results):
    "One picture takes for ever, the others no time at all"
    import time
    if results['img_info']['filename'].endswith('moose.jpg'): time.sleep(1e5)
    return dict(img=torch.zeros(1))
def test_timeout_names_the_stuck_sample():
    """That it ends shows that it does not wait; on a machine so busy that quick samples seem stuck, longer waits tell
    them apart"""
    for timeout in (2, 15, 60):
        with pytest.raises(DataError, match='stuck|No batch came') as e:
            for _ in build_dataloader(
                Photos('train', [stuck]), 4, 2, seed=0, timeout=timeout, multiprocessing_context='fork'
            ):
                pass
        if 'moose' in str(e.value): break
    m = re.search(
        r'busy with sample (\d+) \(animal/moose.jpg\) for (\d+) s, and timeout is (\d+) s', str(e.value)
    )
    assert (
        m
        and int(m[3])==timeout<=int(m[2])+1
        and Photos('train').sample_name(int(m[1]))=='animal/moose.jpg'
    ), str(e.value)
def test_the_one_that_is_longest_at_work_is_named():
    import time
    loader = build_dataloader(
        Photos('train', [stuck]), 4, 3, seed=0, timeout=5, multiprocessing_context='fork'
    )
    busy = loader.reader.activity.times.numpy()
    now = time.time()
    timed_out = RuntimeError('DataLoader timed out after 5 seconds')
    busy[:] = [[7, now-2], [3, now-31], [-1, now-99]] # the last one has nothing to do
    assert f'sample 3 ({loader.dataset.sample_name(3)}) for 31 s' in loader.explain(timed_out, None)
    busy[:,0] = -1
    assert loader.explain(timed_out, None)=='No batch arrived for 5 s.'

def test_shared_memory_is_checked(monkeypatch):
    monkeypatch.setattr('clsnb.data.feed.workers.free_shared_memory', lambda: 1e5)
    with pytest.raises(DataError, match=r'/dev/shm has 0 MB free.*shm-size'):
        next(iter(build_dataloader(photos(), 18, 2, seed=0, multiprocessing_context='fork')))
    monkeypatch.undo()
    assert next(iter(build_dataloader(photos(), 18, 2, seed=0)))['img'].shape[0]==18

notebook = """
from clsnb.data.sets.dataset import ArraySamples, BaseDataset
from clsnb.data.feed.loader import build_dataloader
import multiprocessing, warnings, numpy as np
class Mine(BaseDataset):
    CLASSES = ['a','b']
    def load_annotations(self): return ArraySamples(np.arange(8*4).reshape(8,2,2), np.arange(8)%2)
out = []
for default in ['fork', 'spawn', 'forkserver']:
    for asked in [None, default]:
        multiprocessing.set_start_method(default, force=True)
        with warnings.catch_warnings(record=True) as w:
            warnings.simplefilter('always')
            context = {} if asked is None else dict(multiprocessing_context=asked)
            loader = build_dataloader(Mine('', []), 4, 2, seed=1, persistent_workers=False, **context)
            got = [b['img'].sum().item() for b in loader]
        told = [str(o.message) for o in w]
        told = [o.split(':')[0][:22] for o in told if 'orkers' in o and 'otebook' in o]
        out.append((default, asked, loader.num_workers, told, got))
"""
def test_classes_of_a_notebook():
    "Forked where they may be, else loaded here with a reason; never a hang, and always the same batches"
    import nbformat, json
    from nbclient import NotebookClient
    nb = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(notebook),
            nbformat.v4.new_code_cell('import json; print(json.dumps(out))'),
        ]
    )
    NotebookClient(nb, timeout=100, kernel_name='python3').execute()
    out = json.loads(nb.cells[1].outputs[0].text)
    assert [o[2:4] for o in out]==[
        [2,[]], [2,[]], [2,['Workers are forked']], [0,['Loading with 0 workers']],
        [2,['Workers are forked']], [0,['Loading with 0 workers']]
    ]
    assert all(o[4]==out[0][4] for o in out)

class Names(Digits):
    def load_annotations(self):
        from clsnb.data.sets.samples import FileSamples
        return FileSamples(
            '', [f'a folder with a long name/{i:08}.jpg' for i in range(200_000)], np.arange(200_000)%10
        )
    def __getitem__(self, i):
        o = self.data_infos
        return dict(
            img=torch.tensor(len(o.name(i))),
            mapped=int(isinstance(o.names.blob, np.memmap) and isinstance(o.labels, np.memmap)),
        )
def test_packed_lists_are_not_copied_into_workers():
    import glob, pickle, tempfile
    ds = Names('val')
    assert not isinstance(pickle.loads(pickle.dumps(ds)).data_infos.labels, np.memmap)
    for method,mapped in [('spawn',1), ('fork',0)]:
        b = next(iter(build_dataloader(ds, 8, 2, seed=0, multiprocessing_context=method)))
        assert b['mapped'].tolist()==[mapped]*8
    before = set(glob.glob(f'{tempfile.gettempdir()}/clsnb_*.npy'))
    del ds, b
    import gc
    gc.collect()
    assert len(before)>=2 and not before<=set(glob.glob(f'{tempfile.gettempdir()}/clsnb_*.npy'))

def test_drop_last_and_plain_samples():
    ds = Digits('val')
    loader = build_dataloader(ds, 50, drop_last=True, seed=0)
    assert len(loader)==len(list(loader))==len(ds)//50
    assert (
        collate([(torch.zeros(2), 1), (torch.ones(2), 0)])[1].tolist()==[1, 0]
    )
    assert build_dataloader(ds, 50, collate_fn=len, shuffle=False, seed=0).__iter__().__next__()==50
    assert build_dataloader(ds, 4, num_gpus=2, shuffle=False, seed=0).batch_size==8

def test_batch_survives_pinning(monkeypatch):
    from torch.utils.data._utils.pin_memory import pin_memory
    monkeypatch.setattr(torch.Tensor, 'pin_memory', lambda self, *a: self.clone())
    b = next(iter(build_dataloader(photos(), 4, seed=0)))
    p = pin_memory(b)
    assert p.index==b.index and p['img'].equal(b['img']) and type(p) is type(b)

def _share(rank, port, out):
    import os
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE='2')
    torch.distributed.init_process_group('gloo')
    loader = build_dataloader(Digits('val'), 8, dist=True) # no seed: both must agree on one
    out.put((rank, loader.seed, [b.index for b in loader]))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
def test_two_processes():
    import socket
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    ctx = torch.multiprocessing.get_context('spawn')
    out = ctx.Queue()
    ps = [ctx.Process(target=_share, args=(r, port, out)) for r in (0,1)]
    for p in ps: p.start()
    got = sorted(out.get(timeout=100) for _ in ps)
    for p in ps: p.join(30)
    assert got[0][1]==got[1][1]
    a,b = (sum(o[2], []) for o in got)
    assert len(a)==len(b)
    assert set(a)|set(b)==set(range(len(Digits('val'))))
    assert len(set(a)&set(b))<=1

def _end(how): # of the process that meets the first moose
    def end(results):
        import os, signal
        if results['img_info']['filename'].endswith('moose.jpg') and (how:=ends.get('how')):
            how(os) if callable(how) else os.kill(os.getpid(), getattr(signal, how))
        return results
    ends['how'] = how
    return Photos('train', [steps[0], end, *steps[1:]])
ends = {}
def _with_status(os): os._exit(3)
@pytest.mark.parametrize('persistent', [True,False])
@pytest.mark.parametrize(
    'how,words',
    [
        ('SIGKILL','was killed.*memory'),
        ('SIGSEGV','crashed.*clsnb verify'),
        ('SIGBUS', '/dev/shm'),
        (_with_status,'exit status 3.*__main__'),
    ],
)
def test_the_end_of_a_worker_is_explained_and_the_next_loop_has_new_ones(how, words, persistent):
    loader = build_dataloader(
        _end(how), 8, 2, seed=0, multiprocessing_context='fork', persistent_workers=persistent
    )
    for _ in range(2):
        # torch may tell of it between two batches
        with pytest.raises((DataError, RuntimeError), match=f'{words}|^DataLoader worker .pid'):
            for _ in loader: pass
    ends.clear()
    want = [b.index for b in build_dataloader(Photos('train', steps), 8, seed=0)]
    for _ in range(2): # if torch told of it, once more
        try:
            got = [b.index for b in loader]
            break
        except DataError: pass
    assert got==want

class Chatty(Digits):
    def sample_name(self, i): return f'digit no {i}'
    def __getitem__(self, i):
        if i==5: raise OSError(5, 'a bug of the user')
        return super().__getitem__(i)
def test_other_exceptions_name_the_sample():
    import traceback
    for w in (0,2):
        with pytest.raises(OSError) as e:
            list(build_dataloader(Chatty('val'), 4, w, seed=0, multiprocessing_context='fork'))
        assert 'This was sample 5 (digit no 5).' in ''.join(traceback.format_exception(e.value))

@pytest.mark.parametrize('workers,persistent', [(0,True), (2,True), (2,False)])
def test_loops_within_loops(workers, persistent):
    "Two at once, one that is left early, one within another: each gets all batches"
    loader = build_dataloader(Photos('train', steps), 16, workers, seed=0, persistent_workers=persistent)
    want = [b.index for b in build_dataloader(Photos('train', steps), 16, seed=0)]
    outer,inner = [],[]
    for i,b in enumerate(loader):
        outer.append(b.index)
        if i==1: inner.append(next(iter(loader)).index)
        if i==3: inner += [b.index for b in loader]
    assert outer==want and inner==want[:1]+want
    assert (
        [(a.index, b.index) for a,b in zip(loader, loader)]
        == [(o, o) for o in want]
    )
    for b in loader: break
    assert [b.index for b in loader]==want and not loader.running

def test_ctrl_c_leaves_the_workers_alive():
    "It goes to all processes of a terminal or of a notebook's kernel"
    import os, signal
    loader = build_dataloader(Photos('train', steps), 8, 2, seed=0, multiprocessing_context='fork')
    want = [b.index for b in build_dataloader(Photos('train', steps), 8, seed=0)]
    with pytest.raises(KeyboardInterrupt):
        for i,b in enumerate(loader):
            if i==3:
                for w in loader.loader._iterator._workers:
                    os.kill(w.pid, signal.SIGINT)
                raise KeyboardInterrupt
    pids = [w.pid for w in loader.loader._iterator._workers]
    assert [b.index for b in loader]==want and [w.pid for w in loader.loader._iterator._workers]==pids

def test_ctrl_c_while_a_worker_is_stuck():
    import os, signal, threading
    loader = build_dataloader(Photos('train', [stuck]), 4, 2, seed=0, multiprocessing_context='fork')
    t = threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT))
    t.start()
    with pytest.raises(KeyboardInterrupt): list(loader)
    assert loader.loader._iterator is None and not torch.multiprocessing.active_children()

@pytest.mark.parametrize(
    'args,kw,words',
    [
        ((0,), {}, 'samples_per_gpu.*from 1 on, not 0'),
        (('8',), {}, "not '8'"),
        ((8,-1), {}, 'workers_per_gpu.*not -1'),
        ((8, 2), dict(prefetch_factor=0), 'prefetch_factor.*not 0'),
        ((8,), dict(persistant_workers=True), "'persistant_workers'.*'persistent_workers'"),
        ((8,), dict(batch_size=4), "no 'batch_size'"),
    ],
)
def test_bad_arguments(args, kw, words):
    with pytest.raises(ConfigError, match=words):
        build_dataloader(Digits('val'), *args, **kw)

def test_files_of_arrays_go_with_their_owner_and_not_with_a_forked_copy():
    import gc, os, pickle
    from multiprocessing import context
    from clsnb.data.sets.samples import Shared
    owner = Shared()
    owner.labels = np.arange(10**6)
    context.set_spawning_popen(object())
    try: sent = pickle.dumps(owner)
    finally: context.set_spawning_popen(None)
    path = owner._array_files['labels'][1].path
    if not (child := os.fork()):
        del owner
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    owner._array_files.pop('labels') # as after a change of the labels: a process that starts may still open the old file
    gc.collect()
    assert np.array_equal(pickle.loads(sent).labels, owner.labels)
    del owner
    gc.collect()
    assert not os.path.exists(path)
