"""The losses of YOLOv3 and YOLOv4 from their definition: loops over floats.

Nothing is shared with yolojax. Slopes are central differences of one number each, good
to ten digits; the weight of CIoU's aspect term is held constant, as published.
"""

import math
from dataclasses import dataclass

import numpy as np

STEP = 1e-5
EPS = 1e-7  # the published guard of the denominators at positives, in square cells


@dataclass(frozen=True)
class Setting:
    """What defines a loss; `squared` is the box part of YOLOv3, else CIoU."""

    anchors: np.ndarray
    priors: np.ndarray
    strides: tuple
    scales: tuple
    squared: bool
    sizes: str = "exponential"
    gains: tuple = (1.0, 1.0, 1.0)
    ignore: float = 0.5
    match: float = 1.0
    smooth: float = 0.0  # of the objectness
    smoothing: float = 0.0  # of the labels
    gamma: float = 0.0


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def entropy(x, target):
    """- t log p - (1 - t) log (1 - p), with logarithms that do not overflow."""
    log_chance = -max(-x, 0) - math.log1p(math.exp(-abs(x)))
    log_other = -max(x, 0) - math.log1p(math.exp(-abs(x)))
    return -target * log_chance - (1 - target) * log_other


def focal_entropy(x, target, gamma):
    chance = sigmoid(x)
    if gamma == 0:
        return entropy(x, target)
    truth = target * chance + (1 - target) * (1 - chance)
    alpha = target * 0.25 + (1 - target) * 0.75
    return entropy(x, target) * alpha * (1 - truth) ** gamma


def slope(function, x):
    return (function(x + STEP) - function(x - STEP)) / (2 * STEP)


def size_overlap(size, prior):
    common = min(size[0], prior[0]) * min(size[1], prior[1])
    return common / (size[0] * size[1] + prior[0] * prior[1] - common)


def overlap(p, q, eps=0.0):
    """IoU of two boxes given by centre and size."""
    sides = [
        max(
            min(p[k] + p[k + 2] / 2, q[k] + q[k + 2] / 2)
            - max(p[k] - p[k + 2] / 2, q[k] - q[k + 2] / 2),
            0,
        )
        for k in (0, 1)
    ]
    common = sides[0] * sides[1]
    return common / (p[2] * p[3] + q[2] * q[3] - common + eps)


def ciou_terms(p, q):
    """IoU less the distance term, and the aspect term without its weight."""
    diagonal = sum(
        (
            max(p[k] + p[k + 2] / 2, q[k] + q[k + 2] / 2)
            - min(p[k] - p[k + 2] / 2, q[k] - q[k + 2] / 2)
        )
        ** 2
        for k in (0, 1)
    )
    distance = (p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2
    angles = math.atan2(q[2], q[3]) - math.atan2(p[2], p[3])
    straight = overlap(p, q, EPS) - distance / (diagonal + EPS)
    return straight, 4 / math.pi**2 * angles**2


def decode(logits, anchor, scale, sizes):
    """Centre from the cell's corner, and size in the anchor's unit."""
    centre = [sigmoid(x) * scale - (scale - 1) / 2 for x in logits[:2]]
    if sizes == "square":
        sides = [
            (2 * sigmoid(x)) ** 2 * a for x, a in zip(logits[2:], anchor, strict=True)
        ]
    else:
        sides = [math.exp(x) * a for x, a in zip(logits[2:], anchor, strict=True)]
    return centre + sides


def find_positives(setting, grids, boxes):
    """Of one picture: cell -> all boxes that have taken it, in order."""
    found = {}
    for n, (x, y, w, h) in boxes.items():
        if w <= 0 or h <= 0:
            continue
        fits = [size_overlap((w, h), prior) for prior in setting.priors]
        best = tuple(setting.priors[fits.index(max(fits))])
        for level, anchors in enumerate(setting.anchors):
            for a, anchor in enumerate(anchors):
                fit = size_overlap((w, h), anchor)
                if tuple(anchor) == best or fit > setting.match:
                    stride, (rows, columns) = setting.strides[level], grids[level]
                    row = min(max(math.floor(y / stride), 0), rows - 1)
                    column = min(max(math.floor(x / stride), 0), columns - 1)
                    found.setdefault((level, row, column, a), []).append(n)
    return found


def box_part(setting, logits, target, anchor, scale, share):
    """Loss and slopes of `x y w h` of one cell; sizes in cells."""
    logits = [float(x) for x in logits]
    if setting.squared:
        weight, functions = 2 - min(share, 1), []
        for k in (0, 1):
            place = min(max((target[k] + (scale - 1) / 2) / scale, 0), 1)
            functions.append(lambda x, place=place: weight * entropy(x, place))
        for k in (2, 3):
            log = math.log(target[k] / anchor[k - 2])
            functions.append(lambda x, log=log: weight * (x - log) ** 2 / 2)
        loss = sum(f(x) for f, x in zip(functions, logits, strict=True))
        return loss, [slope(f, x) for f, x in zip(functions, logits, strict=True)]

    straight, aspect = ciou_terms(decode(logits, anchor, scale, setting.sizes), target)
    iou = overlap(decode(logits, anchor, scale, setting.sizes), target, EPS)
    weight = aspect / (aspect - iou + 1 + EPS)

    def loss(k, x):
        moved = logits[:k] + [x] + logits[k + 1 :]
        terms = ciou_terms(decode(moved, anchor, scale, setting.sizes), target)
        return 1 - terms[0] + weight * terms[1]

    slopes = [slope(lambda x, k=k: loss(k, x), logits[k]) for k in range(4)]
    return 1 - straight + weight * aspect, slopes


def plain_loss(setting, maps, corners, labels, valid):
    """Total, parts, gradients of the total, and how many cells were ignored."""
    maps = [np.asarray(raw, np.float64) for raw in maps]
    gradients = [np.zeros_like(raw) for raw in maps]
    grids = [raw.shape[1:3] for raw in maps]
    area = grids[0][0] * grids[0][1] * setting.strides[0] ** 2
    sums, targets, ignored = np.zeros(3), np.zeros(len(maps), int), 0
    for picture in range(len(maps[0])):
        boxes = {}
        for n in np.flatnonzero(valid[picture]):
            x1, y1, x2, y2 = (float(x) for x in corners[picture][n])
            boxes[n] = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
        positives = find_positives(setting, grids, boxes)
        for level, raw in enumerate(maps):
            stride, scale = setting.strides[level], setting.scales[level]
            for row, column, a in np.ndindex(raw.shape[1:4]):
                place = picture, row, column, a
                channels, gradient = raw[place], gradients[level][place]
                anchor = setting.anchors[level][a] / stride
                x, y, w, h = decode(channels[:4], anchor, scale, setting.sizes)
                predicted = (x + column) * stride, (y + row) * stride
                predicted += w * stride, h * stride
                takers = positives.get((level, row, column, a), [])
                targets[level] += len(takers)
                if not takers:
                    fits = [overlap(predicted, box) for box in boxes.values()]
                    if fits and max(fits) > setting.ignore:
                        ignored += 1
                        continue
                    sums[1] += entropy(channels[4], 0)
                    gradient[4] = setting.gains[1] * sigmoid(channels[4])
                    continue
                x, y, w, h = boxes[takers[-1]]
                target = x / stride - column, y / stride - row, w / stride, h / stride
                share = w * h / area
                loss, slopes = box_part(
                    setting, channels[:4], target, anchor, scale, share
                )
                sums[0] += loss
                gradient[:4] = np.multiply(setting.gains[0], slopes)
                local = decode(channels[:4], anchor, scale, setting.sizes)
                fit = overlap(local, target, EPS)
                truth = 1 - setting.smooth + setting.smooth * fit
                sums[1] += entropy(channels[4], truth)
                gradient[4] = setting.gains[1] * (sigmoid(channels[4]) - truth)
                for c in range(len(channels) - 5):
                    named = any(labels[picture][n] == c for n in takers)
                    truth = named * (1 - setting.smoothing) + setting.smoothing / 2

                    def part(x, truth=truth):
                        return focal_entropy(x, truth, setting.gamma)

                    sums[2] += part(channels[5 + c])
                    gradient[5 + c] = setting.gains[2] * slope(part, channels[5 + c])
    parts = sums * setting.gains / len(maps[0]) / 64
    total = parts.sum() * len(maps[0])
    return total, parts, [gradient / 64 for gradient in gradients], targets, ignored
