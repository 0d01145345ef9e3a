_base_ = './resnet50.py'

model = dict(head=dict(loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1)))
