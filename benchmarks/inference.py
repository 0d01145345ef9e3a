"Pictures per second of `predict` on a folder of JPEGs, against timm's recipe for inference and mmcls's loop over single pictures"
import argparse, sys, tempfile, time
from pathlib import Path
import numpy as np, torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from clsnb.all import inference_model, init_model, predict
from clsnb.data.sets.packaged import Photos

def make_pictures(folder, count, seed=0):
    "JPEGs of about 500 x 375, cut out of the packaged photographs"
    rng = np.random.default_rng(seed)
    photos = Photos('train')
    sources = [Image.open(Path(photos.data_prefix)/o['img_info']['filename']).convert('RGB') for o in photos.data_infos]
    for i in range(count):
        photo = sources[i%len(sources)]
        width, height = (500, 375) if rng.random()<.7 else (375, 500)
        left, top = (int(rng.integers(0, max(1, n//10))) for n in photo.size)
        box = (left, top, photo.width-left, photo.height-top)
        photo.resize((width, height), Image.Resampling.BICUBIC, box).save(folder/f'{i:05}.jpg', quality=90)

class Folder(Dataset):
    "The pictures of a folder after a transform, as timm's ImageDataset gives them"
    def __init__(self, folder, transform): self.files, self.transform = sorted(folder.glob('*.jpg')), transform
    def __len__(self): return len(self.files)
    def __getitem__(self, i): return self.transform(Image.open(self.files[i]).convert('RGB'))

def timm_recipe(model, folder, workers, size):
    "What timm's inference.py does: its transform in a DataLoader, the model, the best classes; and the share of waiting"
    from timm.data import create_transform
    transform = create_transform((3, size, size), is_training=False, interpolation='bicubic', crop_pct=size/(size*256//224))
    loader = iter(DataLoader(Folder(folder, transform), 32, num_workers=workers))
    waiting, start, found = 0., time.perf_counter(), []
    device = next(model.parameters()).device
    while True:
        began = time.perf_counter()
        batch = next(loader, None)
        waiting += time.perf_counter()-began
        if batch is None: break
        with torch.inference_mode(): scores = model.head.fc(model.neck(model.backbone(batch.to(device)))[-1]).softmax(1)
        found.append(scores.topk(5)[1].cpu())
    return waiting/(time.perf_counter()-start)

def ours(model, folder, workers):
    return predict(model, folder, topk=5, workers=workers, progress=False).attrs['waiting']

def one_at_a_time(model, folder, limit):
    for file in sorted(folder.glob('*.jpg'))[:limit]: inference_model(model, str(file))

def speed(count, call):
    start = time.perf_counter()
    waiting = call()
    return count/(time.perf_counter()-start), waiting

def compare(name, args, folder):
    "Speeds of the three, alternating"
    model = init_model(name, 'none', device=args.device)
    size = model.cfg.facts.input_size[0]
    single = max(20, args.count//10)
    calls = dict(
        clsnb=(args.count, lambda: ours(model, folder, args.workers)),
        timm=(args.count, lambda: timm_recipe(model, folder, args.workers, size)),
        single=(single, lambda: one_at_a_time(model, folder, single)))
    best = {}
    for _ in range(args.repeats):
        for kind, (count, call) in calls.items(): best[kind] = max(best.get(kind, (0, None)), speed(count, call))
    ours_, timm_, single_ = (best[kind][0] for kind in calls)
    print(f'{name}: clsnb {ours_:.0f} pictures/s (waiting {best["clsnb"][1]:.0%}), timm {timm_:.0f} '
          f'(waiting {best["timm"][1]:.0%}), one at a time {single_:.0f}; '
          f'{ours_/timm_:.2f} x timm (mark 1.2), {ours_/single_:.2f} x one at a time (mark 3)', flush=True)
    return ours_/timm_>=1.2 and ours_/single_>=3

def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--count', type=int, default=2000)
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--repeats', type=int, default=2)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--models', nargs='+', default=['resnet18_8xb32_in1k', 'resnet50_8xb32_in1k'])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        make_pictures(Path(tmp), args.count)
        print(f'{args.count} JPEGs, {args.workers} workers, {args.device}, {torch.get_num_threads()} threads', flush=True)
        reached = [compare(name, args, Path(tmp)) for name in args.models]
    sys.exit(not reached[0]) # the first is the small model; where computing dominates no loader can win

if __name__=='__main__': main()
