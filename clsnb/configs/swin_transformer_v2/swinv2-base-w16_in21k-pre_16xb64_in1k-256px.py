_base_ = './swinv2-base-w16_16xb64_in1k-256px.py'

model = dict(backbone=dict(drop_path_rate=0.2, pretrained_window_sizes=[12, 12, 12, 6]))
