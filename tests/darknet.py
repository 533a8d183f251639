"""A small Darknet description with a layer of each kind, for tests."""

CLASSES = 2
CFG = """\
[net]
# as in published files
width = 64
height=64
channels=3
batch=1

[convolutional]   ; 0
batch_normalize=1
filters=4
size=3
stride=2
pad=1
activation=mish

[convolutional]
# 1
batch_normalize=1
filters=4
size=1
stride=1
pad=1
activation=leaky

[shortcut]
# 2
from=-2
activation=linear

[dropout]
# 3
probability=.5

[maxpool]
# 4
size=2
stride=2

[convolutional]
# 5
filters=8
size=3
stride=2
pad=1
groups=2
activation=swish

[route]
# 6: the second half of 5
layers=-1
groups=2
group_id=1

[maxpool]
# 7
size=3
stride=1

[route]
# 8
layers=-1, 6

[convolutional]
# 9
size=1
filters=14
activation=linear

[yolo]
# 10
mask=2,3
anchors=4,6, 8,10, 12,8, 30,40
num=4
classes=2
scale_x_y=1.05
ignore_thresh=.7
iou_loss=ciou
obj_normalizer=.4

[route]
# 11
layers=-3

[upsample]
# 12
stride=2

[route]
# 13
layers=-1,4

[convolutional]
# 14
size=1
filters=14
activation=linear

[yolo]
# 15
mask=0,1
anchors=4,6, 8,10, 12,8, 30,40
num=4
classes=2
scale_x_y=1.1
ignore_thresh=.7
iou_loss=ciou
obj_normalizer=1
"""
