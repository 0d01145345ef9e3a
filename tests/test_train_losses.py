"Losses are finite, with finite gradients, for all finite scores of any precision"
import pytest, torch
from clsnb.core.registry import MODELS

HARD = torch.tensor([0, 1, 2, 2])
ROWS = torch.nn.functional.one_hot(HARD, 3)
SOFT = torch.tensor([[.7, .2, .1], [0., 1., 0.], [.3, .3, .4], [.1, 0., .9]])
WEIGHTS = [1., 2., 3.]
SIGNS = torch.tensor([[1., -1., 0.], [-1., -1., 1.], [1., 1., -1.], [-1., 1., 1.]])

def cross_entropies():
    yield dict(type='CrossEntropyLoss', class_weight=WEIGHTS), HARD
    yield dict(type='CrossEntropyLoss', use_soft=True, class_weight=WEIGHTS), SOFT
    yield dict(type='CrossEntropyLoss', use_sigmoid=True, pos_weight=[5.]*3, class_weight=WEIGHTS), ROWS
    for mode, labels in (('original', HARD), ('classy_vision', SOFT), ('multi_label', ROWS)):
        yield dict(type='LabelSmoothLoss', label_smooth_val=.1, mode=mode), labels

def rebalancing():
    yield dict(type='SeesawLoss', num_classes=3), HARD
    for gamma in (0., .3, .5, 1., 2.): yield dict(type='FocalLoss', gamma=gamma), ROWS
    for gamma in (0., .5, 1., 4.):
        for clip in (0, .05):
            for use_sigmoid in (True, False):
                yield dict(
                    type='AsymmetricLoss', gamma_pos=gamma, gamma_neg=gamma, clip=clip, use_sigmoid=use_sigmoid), ROWS

CASES = [*cross_entropies(), *rebalancing()]

@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('cfg, labels', CASES, ids=lambda o: '-'.join(map(str, o.values())) if isinstance(o, dict) else '')
def test_losses_of_extreme_scores_are_finite(cfg, labels, dtype, autocast):
    for size in (0, 1, 20, 88, 104, 1e3, 6e4):
        score = (SIGNS*size).to(dtype).requires_grad_()
        with torch.autocast('cpu', torch.bfloat16, enabled=autocast): loss = MODELS.build(cfg)(score, labels, avg_factor=4)
        loss.backward()
        assert loss.isfinite() and score.grad.isfinite().all(), (size, loss, score.grad)

@pytest.mark.parametrize('cfg, labels', CASES, ids=lambda o: '-'.join(map(str, o.values())) if isinstance(o, dict) else '')
def test_half_precision_gives_the_loss_of_float32(cfg, labels):
    score = (torch.randn(4, 3, generator=torch.Generator().manual_seed(0))*9).half()
    assert MODELS.build(cfg)(score, labels)==MODELS.build(cfg)(score.float(), labels)
