"Tables of positions of wide and tall pictures keep their rows and columns on the way through a checkpoint"
import pytest, torch
from clsnb.core.checkpoint import save_checkpoint
from clsnb.core.errors import CheckpointError
from clsnb.core.load import load_checkpoint, load_state_dict
from clsnb.core.registry import MODELS

small = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=16)
swin = dict(embed_dims=8, depths=[1]*4, num_heads=[1]*4)
TABLES = [ # backbone, name of the table, tokens without a place
    (dict(type='VisionTransformer', arch=small, patch_size=16), 'pos_embed', 1),
    (dict(type='VisionTransformer', arch=small, patch_size=16, interpolate_mode='bilinear'), 'pos_embed', 1),
    (dict(type='DistilledVisionTransformer', arch=small, patch_size=16), 'pos_embed', 2),
    (dict(type='T2T_ViT', embed_dims=16, num_layers=1, t2t_cfg=dict(token_dims=8, use_performer=False),
          layer_cfgs=dict(num_heads=2, feedforward_channels=16)), 'pos_embed', 1),
    (dict(type='TNT', arch=dict(embed_dims_outer=16, embed_dims_inner=8, num_layers=1, num_heads_outer=2,
                                num_heads_inner=2)), 'patch_pos', 1),
    (dict(type='SwinTransformer', arch=swin, window_size=4, use_abs_pos_embed=True), 'absolute_pos_embed', 0),
    (dict(type='MViT', arch=dict(embed_dims=8, num_layers=1, num_heads=1, downscale_indices=[]),
          use_abs_pos_embed=True), 'pos_embed', 0),
]
ids = [o[0]['type'] for o in TABLES]
wide,tall = (64, 128),(128, 64)

def build(cfg, size, head=None):
    backbone = dict(cfg, img_size=size)
    return MODELS.build(dict(type='ImageClassifier', backbone=backbone, head=head))

def filled(cfg, size, name, extra):
    "A model whose table holds its row and column numbers in the first two channels"
    model = build(cfg, size)
    table,(h, w) = getattr(model.backbone, name).data,model.backbone.patch_resolution
    table[0, extra:, 0] = (torch.arange(h)[:, None]+torch.zeros(w)).flatten()/(h-1)
    table[0, extra:, 1] = (torch.arange(w)+torch.zeros(h)[:, None]).flatten()/(w-1)
    return model

def check_grid(model, name, extra):
    "Rows grow downward and not to the right, columns the other way"
    h,w = model.backbone.patch_resolution
    rows,columns = (getattr(model.backbone, name).data[0, extra:, i].reshape(h, w) for i in (0, 1))
    assert (rows.diff(dim=0)>-1e-5).all() and (rows[-1]>rows[0]).all() and rows.diff(dim=1).abs().max()<1e-5
    assert (columns.diff(dim=1)>-1e-5).all() and (columns[:, -1]>columns[:, 0]).all() and columns.diff(dim=0).abs().max()<1e-5

SIZES = [(wide, tall), (tall, wide), (wide, (96, 192)), (wide, 96), (96, wide), (tall, (64, 192)), (wide, wide)]

@pytest.mark.parametrize('old,new', SIZES, ids=str)
@pytest.mark.parametrize('cfg,name,extra', TABLES, ids=ids)
def test_rows_stay_rows(cfg, name, extra, old, new, tmp_path):
    a = filled(cfg, old, name, extra)
    b = build(cfg, new)
    assert load_state_dict(b, a.state_dict()).lost==[]
    check_grid(b, name, extra)
    save_checkpoint(a, tmp_path/'a.pth')
    c = build(cfg, new)
    load_checkpoint(c, tmp_path/'a.pth', complete=True)
    assert torch.equal(getattr(c.backbone, name), getattr(b.backbone, name))

def test_through_prefixes_and_parts(tmp_path):
    cfg,name,extra = TABLES[0]
    a = filled(cfg, wide, name, extra)
    for save,prefix in ((a, None), (a.backbone, None), (a, 'backbone')):
        save_checkpoint(save, tmp_path/'a.pth')
        init = dict(type='Pretrained', checkpoint=str(tmp_path/'a.pth'), **(dict(prefix=prefix) if prefix else {}))
        for whole in (True, False):
            if save is a.backbone and whole: continue
            b = build(dict(cfg, init_cfg=init), tall)
            if whole and not prefix: load_checkpoint(b, tmp_path/'a.pth')
            else: b.init_weights()
            check_grid(b, name, extra)
    wrapped = {f'module.{k}': v for k,v in a.state_dict().items()} # nothing noted, and of another shape
    assert 'pos_embed' in str(load_state_dict(build(cfg, (96, 192)), wrapped).skipped)

def test_without_notes_a_square_is_square_and_the_same_shape_is_the_same():
    cfg,name,extra = TABLES[0]
    for old,new in ((64, wide), (wide, wide)):
        a,b = filled(cfg, old, name, extra),build(cfg, new)
        assert load_state_dict(b, dict(a.state_dict())).lost==[]
        check_grid(b, name, extra)

def test_a_mixer_of_other_rows_and_columns_is_refused():
    cfg = dict(type='MlpMixer', arch=dict(embed_dims=8, num_layers=1, tokens_mlp_dims=4, channels_mlp_dims=8), patch_size=16)
    a = build(cfg, wide)
    assert load_state_dict(build(cfg, wide), a.state_dict()).whole
    with pytest.raises(CheckpointError, match='4 x 8 .* 8 x 4'): load_state_dict(build(cfg, tall), a.state_dict())
