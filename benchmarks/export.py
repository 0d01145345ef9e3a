"""All backbones through ONNX and torch.export: do the files answer as the network does, at any batch?

usage: export.py [PATTERN ...] [--pictures 50] [--full] [--out table.md]

Each network is the small variant of tests/data/backbones.json (with --full: the class's smallest named config) with a
linear head whose scores vary over the photographs. Both files are asked about the packaged photographs in batches of
1, 2 and 5. The older ONNX exporter is tried where the newer one fails or is off by more than 1e-4.
"""
import argparse, fnmatch, importlib.util, json, tempfile, time
from pathlib import Path
import cv2, numpy as np, torch
from torch import nn
from clsnb.all import MODELS, Config, build_classifier, list_configs
from clsnb.core.errors import ClsnbError
from clsnb.data.sets.packaged import sample_photos
from clsnb.export.onnx_graph import onnx_graph
from clsnb.export.parity import compare_answers
from clsnb.export.torch_graphs import exported_program

rows = json.loads((Path(__file__).parents[1]/'tests/data/backbones.json').read_text())
if importlib.util.find_spec('timm'):
    rows['TIMMBackbone'] = dict(args=dict(model_name='mobilenetv3_small_050'), picture=[3, 64, 64])
limit = 1e-4

def photographs(shape, count):
    "Packaged photographs as (n, channels, height, width), normalised"
    channels,height,width = shape
    found = [cv2.resize(cv2.imread(path), (width, height)) for path in sample_photos(count)]
    found = np.stack(found).astype(np.float32).transpose(0, 3, 1, 2)/64-2
    return np.ascontiguousarray(found[:, :channels])

def last_map(x):
    "The last tensor of a backbone, as one vector for each picture"
    while isinstance(x, (tuple, list)): x = x[-1]
    return x.flatten(2).mean(2) if x.dim()>2 else x

class Scores(nn.Module):
    "A backbone with ten classes, whose scores vary over the photographs"
    def __init__(self, net, pictures):
        super().__init__()
        self.net = net.eval().requires_grad_(False)
        with torch.no_grad():
            features = last_map(self.net(pictures))
            self.register_buffer('weight', torch.randn(10, features.shape[1], generator=torch.Generator().manual_seed(0)))
            logits = features@self.weight.T
            self.register_buffer('shift', logits.mean(0))
            self.register_buffer('scale', 3/logits.std(0).clamp_min(1e-6))
        self.eval()

    def forward(self, img):
        return ((last_map(self.net(img))@self.weight.T-self.shift)*self.scale).softmax(1)

def smallest_config(kind):
    "The named config with the fewest parameters whose backbone is of a class"
    found = []
    for name in list_configs():
        backbone = Config.fromfile(name).model.backbone
        if isinstance(backbone, dict) and backbone.get('type')==kind: found.append(name)
    sizes = {}
    for name in found:
        with torch.device('meta'): model = build_classifier(Config.fromfile(name).model)
        sizes[name] = sum(p.numel() for p in model.parameters())
    return min(sizes, key=sizes.get) if sizes else None

def build(kind, full):
    "The backbone of a row, and the shape of its pictures"
    torch.manual_seed(0)
    name = smallest_config(kind) if full else None
    if name is None: return MODELS.build(dict(type=kind, **rows[kind]['args'])),rows[kind]['picture']
    cfg = Config.fromfile(name)
    return build_classifier(cfg.model).backbone,(3, *cfg.facts.input_size)

def worst(net, file, pictures):
    "The largest difference, and how many best classes are the same, over batches of 1, 2 and 5"
    def ask(x):
        with torch.inference_mode(): return net(torch.from_numpy(x)).numpy()
    found = [compare_answers(ask, file, pictures, batch) for batch in (1, 2, 5)]
    return max(o.difference for o in found),min(o.same_class+o.ties for o in found)

def onnx_session(graph):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=['CPUExecutionProvider'])
    return lambda x: session.run(None, dict(img=x))[0]

def try_onnx(net, pictures):
    "Exporter, difference and agreement"
    example,found = torch.from_numpy(pictures[:2]),('fails', float('nan'), 0)
    for name,opset in (('new', 20), ('old', 17)):
        try: found = name,*worst(net, onnx_session(onnx_graph(net, example, opset=opset)), pictures)
        except ClsnbError as e: print(' ', e)
        if found[1]<=limit: return found
    return found

def try_program(net, pictures):
    "Difference and agreement of a torch.export program that was saved and loaded"
    try: program = exported_program(net, torch.from_numpy(pictures[:2]))
    except ClsnbError as e:
        print(' ', e)
        return float('nan'),0
    with tempfile.TemporaryDirectory() as folder:
        torch.export.save(program, f'{folder}/m.pt2')
        module = torch.export.load(f'{folder}/m.pt2').module()
    def ask(x):
        with torch.inference_mode(): return module(torch.from_numpy(x)).numpy()
    return worst(net, ask, pictures)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('patterns', nargs='*', default=['*'])
    p.add_argument('--pictures', type=int, default=50)
    p.add_argument('--full', action='store_true')
    p.add_argument('--out')
    a = p.parse_args()
    lines = ['| backbone | ONNX exporter | ONNX difference | same class | torch.export difference | same class |',
             '|---|---|---|---|---|---|']
    for kind in rows:
        if not any(fnmatch.fnmatch(kind, pattern) for pattern in a.patterns): continue
        began = time.time()
        net,shape = build(kind, a.full)
        pictures = photographs(shape, a.pictures)
        net = Scores(net, torch.from_numpy(pictures))
        exporter,difference,same = try_onnx(net, pictures)
        difference2,same2 = try_program(net, pictures)
        lines.append(f'| {kind} | {exporter} | {difference:.0e} | {same}/{len(pictures)} '
                     f'| {difference2:.0e} | {same2}/{len(pictures)} |')
        print(lines[-1], f'{time.time()-began:.0f} s', flush=True)
    if a.out: Path(a.out).write_text('\n'.join(lines)+'\n', encoding='utf-8')

if __name__=='__main__': main()
