_base_ = './resnet50_32xb64-warmup_in1k.py'

model = dict(head=dict(loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, num_classes=1000)))
