"""Forward, and forward with backward, of our models beside timm's (torchvision's where timm has none): in one process,
taking turns, median of ratios.

usage: models.py [PATTERN ...] [--rounds 7] [--batch 4] [--threads 1] [--device cpu|cuda] [--compile]

`kept` is what the forward keeps for the backward pass, in MB a picture (ours, theirs); on CUDA the peak of
allocated memory.
"""
import argparse, copy, fnmatch, math, statistics, time
import torch
from clsnb.all import Config, build_backbone

#        our config                              timm (tv: torchvision)      side
rows = [('vgg11_8xb32_in1k',                     'vgg11',                    224),
        ('resnet18_8xb32_in1k',                  'resnet18',                 224),
        ('resnet50_8xb32_in1k',                  'resnet50',                 224),
        ('resnext50-32x4d_8xb32_in1k',           'resnext50_32x4d',          224),
        ('seresnet50_8xb32_in1k',                'seresnet50',               224),
        ('resnest50_32xb64_in1k',                'resnest50d',               224),
        ('res2net50-w14-s8_8xb32_in1k',          'res2net50_14w_8s',         224),
        ('regnetx-400mf_8xb128_in1k',            'regnetx_004',              224),
        ('repvgg-A0_4xb64-coslr-120e_in1k',      'repvgg_a0',                224),
        ('densenet121_4xb256_in1k',              'densenet121',              224),
        ('mobilenet-v2_8xb32_in1k',              'mobilenetv2_100',          224),
        ('mobilenet-v3-small_8xb32_in1k',        'tv:mobilenet_v3_small',    224),
        ('shufflenet-v2-1x_16xb64_in1k',         'tv:shufflenet_v2_x1_0',    224),
        ('efficientnet-b0_8xb32_in1k',           'tf_efficientnet_b0',         224),
        ('hrnet-w18_4xb32_in1k',                 'hrnet_w18',                224),
        ('cspdarknet50_8xb32_in1k',              'cspdarknet53',             224),
        ('cspresnet50_8xb32_in1k',               'cspresnet50',              224),
        ('cspresnext50_8xb32_in1k',              'cspresnext50',             224),
        ('convnext-tiny_32xb128_in1k',           'convnext_tiny',            224),
        ('convmixer-768-32_10xb64_in1k',         'convmixer_768_32',         224),
        ('vit-base-p16_pt-64xb64_in1k-224',      'vit_base_patch16_224',     224),
        ('deit-tiny_pt-4xb256_in1k',             'deit_tiny_patch16_224',    224),
        ('deit-tiny-distilled_pt-4xb256_in1k',   'deit_tiny_distilled_patch16_224', 224),
        ('tnt-s-p16_16xb64_in1k',                'tnt_s_legacy_patch16_224', 224),
        ('swin-tiny_16xb64_in1k',                'swin_tiny_patch4_window7_224', 224),
        ('swinv2-tiny-w8_16xb64_in1k-256px',     'swinv2_tiny_window8_256',  256),
        ('twins-pcpvt-small_8xb128_in1k',        'twins_pcpvt_small',        224),
        ('twins-svt-small_8xb128_in1k',          'twins_svt_small',          224),
        ('mlp-mixer-base-p16_64xb64_in1k',       'mixer_b16_224',            224),
        ('poolformer-s12_32xb128_in1k',          'poolformer_s12',           224),
        ('efficientformer-l1_8xb128_in1k',       'efficientformer_l1',       224),
        ('mvitv2-tiny_8xb256_in1k',              'mvitv2_tiny',              224)]

def theirs(name):
    "The same trunk, without its classifier"
    if name.startswith('tv:'):
        import torchvision
        m = torchvision.models.get_model(name[3:], weights=None)
        if hasattr(m, 'classifier'): m.classifier = torch.nn.Identity()
        return m
    import timm
    return timm.create_model(name, num_classes=0)

def tensors(o):
    return [t for v in o for t in tensors(v)] if isinstance(o, (tuple, list)) else [o]

class Clock:
    "Times of one model: forward, and forward with backward"
    def __init__(self, net, x):
        self.net = net
        self.x = x
        self.sync = torch.cuda.synchronize if x.is_cuda else lambda: None
    def timed(self, f):
        self.sync()
        t = time.perf_counter()
        f()
        self.sync()
        return time.perf_counter()-t
    def forward(self):
        with torch.inference_mode(): self.net(self.x)
    def backward(self):
        sum(o.float().mean() for o in tensors(self.net(self.x))).backward()
        for p in self.net.parameters(): p.grad = None
    def __call__(self):
        return (
            self.timed(self.net.eval() and self.forward),
            self.timed(self.net.train() and self.backward),
        )
    def kept(self):
        if self.x.is_cuda:
            torch.cuda.reset_peak_memory_stats()
            self.backward()
            return torch.cuda.max_memory_allocated()/len(self.x)/2**20
        held = {}
        own = {
            p.untyped_storage().data_ptr()
            for p in (*self.net.parameters(), *self.net.buffers())
        }
        def note(t):
            s = t.untyped_storage()
            if s.data_ptr() not in own: held[s.data_ptr()] = s.nbytes()
            return t
        with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            out = self.net.train()(self.x)
        del out
        return sum(held.values())/len(self.x)/2**20

def compare(cfg, other, side, o):
    x = torch.randn(o.batch, 3, side, side, device=o.device)
    net = build_backbone(copy.deepcopy(Config.fromfile(cfg).model.backbone)).to(o.device)
    peer = theirs(other).to(o.device)
    for m in (net, peer):
        for p in m.parameters(): p.requires_grad = True
        for d in m.modules(): # the same work on both sides: no dropout, no dropped paths
            for k in {'p', 'drop_prob'} & vars(d).keys():
                setattr(d, k, 0.)
        if o.compile: m.compile()
    pair = Clock(net, x),Clock(peer, x)
    for c in pair: c()
    times = [tuple(c() for c in pair) for _ in range(o.rounds)]
    out = []
    for k in (0, 1):
        a,b = ([t[i][k] for t in times] for i in (0, 1))
        out += [
            statistics.median(a)*1e3,
            statistics.median(b)*1e3,
            statistics.median(p/q for p,q in zip(a, b)),
        ]
    return out,[c.kept() for c in pair]

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('patterns', nargs='*', default=['*'])
    ap.add_argument('--rounds', type=int, default=7)
    ap.add_argument('--batch', type=int, default=4)
    ap.add_argument('--threads', type=int, default=1)
    ap.add_argument('--device', default='cpu')
    ap.add_argument('--compile', action='store_true')
    o = ap.parse_args()
    torch.set_num_threads(o.threads)
    all_ratios = []
    print(
        f"{'config':38} {'forward, ms':>17} {'ratio':>6} {'with backward, ms':>19} "
        f"{'ratio':>6} {'kept, MB':>15}"
    )
    for cfg,other,side in rows:
        if not any(fnmatch.fnmatch(cfg, p) for p in o.patterns): continue
        try:
            (a, b, r, c, d, s),(m, n) = compare(cfg, other, side, o)
        except Exception as e:
            print(f'{cfg:38} {type(e).__name__}: {str(e)[:120]}')
            continue
        all_ratios.append((r, s))
        print(f'{cfg:38} {a:8.1f} {b:8.1f} {r:6.2f} {c:9.1f} {d:9.1f} {s:6.2f} {m:7.0f} {n:7.0f}', flush=True)
    if all_ratios:
        print(
            'geometric mean of the ratios:',
            *(f'{math.exp(statistics.mean(map(math.log, v))):.3f}' for v in zip(*all_ratios)),
        )

if __name__ == '__main__': main()
