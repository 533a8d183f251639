"""Published model descriptions, put together from what is known of their layers.

The facts are those of `arch.json` (which layer takes which, and how many parameters it
has) and of the releases' notes; nothing is copied.
"""

import json
from typing import Any

COCO_P5 = [
    [10, 13, 16, 30, 33, 23],
    [30, 61, 62, 45, 59, 119],
    [116, 90, 156, 198, 373, 326],
]
COCO_P6 = [
    [19, 27, 44, 40, 38, 94],
    [96, 68, 86, 152, 180, 137],
    [140, 301, 303, 264, 238, 542],
    [436, 615, 739, 380, 925, 792],
]
TINY = [[10, 14, 23, 27, 37, 58], [81, 82, 135, 169, 344, 319]]
P5 = (64, 128, 256, 512, 1024)
P6 = (64, 128, 256, 512, 768, 1024)
P7 = (64, 128, 256, 512, 768, 1024, 1280)
SIZES = {
    "n": (0.33, 0.25),
    "s": (0.33, 0.50),
    "m": (0.67, 0.75),
    "l": (1.00, 1.00),
    "x": (1.33, 1.25),
}


class Rows:
    """Rows that are being listed; `add` says the number of the new one."""

    def __init__(self) -> None:
        self.rows: list[list[Any]] = []

    def add(self, module: str, *arguments: Any, source: Any = -1, times: int = 1):
        self.rows.append([source, times, module, list(arguments)])
        return len(self.rows) - 1

    def description(self, size: str, backbone: int, detect: list[int], **more: Any):
        """All of it; the first `backbone` rows are the backbone."""
        self.add("Detect", "nc", "anchors", source=detect)
        depth, width = SIZES[size]
        return {
            "nc": 80,
            "depth_multiple": depth,
            "width_multiple": width,
            "anchors": COCO_P5,
            **more,
            "backbone": self.rows[:backbone],
            "head": self.rows[backbone:],
        }


def pyramid(
    size: str,
    channels: tuple[int, ...] = P5,
    *,
    stage: str = "C3",
    last_stage: str = "",
    conv: str = "Conv",
    focus: bool = False,
    finest: int = 3,
    coarsest: int = 0,
    shortcut_past: bool = False,
    **more: Any,
) -> dict[str, Any]:
    """A CSP backbone with the neck that goes down to `finest` and up again."""
    rows, depths = Rows(), (3, 9, 9) if focus else (3, 6, 9)
    if focus:
        rows.add("Focus", channels[0], 3)
    else:
        rows.add("Conv", channels[0], 6, 2, 2)
    maps, last = {}, len(channels)
    for level in range(2, last + 1):
        rows.add(conv, channels[level - 1], 3, 2)
        times = depths[level - 2] if level < 5 else 3
        if level < last:
            maps[level] = rows.add(stage, channels[level - 1], times=times)
        elif focus:
            rows.add("SPP", channels[-1], [5, 9, 13])
            rows.add(stage, channels[-1], False, times=3)
        else:
            rows.add(last_stage or stage, channels[-1], times=3)
            rows.add("SPPF", channels[-1], 5)
    backbone, laterals, mixed = len(rows.rows), {}, {}
    for level in range(last - 1, finest - 1, -1):
        narrow = channels[level - 1]
        laterals[level] = rows.add(conv, narrow, 1, 1)
        rows.add("nn.Upsample", "None", 2, "nearest")
        rows.add("Concat", 1, source=[-1, maps[level]])
        # At stride 4 the published one has a single block.
        times = 1 if level == 2 else 3
        mixed[level] = rows.add(stage, narrow, False, times=times)
    for level in range(finest + 1, (coarsest or last) + 1):
        rows.add(conv, channels[level - 2], 3, 2)
        past = [-1, laterals[level - 1]]
        if shortcut_past and level < last:
            past.append(maps[level])
        rows.add("Concat", 1, source=past)
        mixed[level] = rows.add(stage, channels[level - 1], False, times=3)
    detect = [mixed[level] for level in range(finest, (coarsest or last) + 1)]
    return rows.description(size, backbone, detect, **more)


def feature_pyramid() -> dict[str, Any]:
    """YOLOv5-l with a neck that only goes down."""
    whole = pyramid("l")
    rows = Rows()
    rows.rows = list(whole["backbone"])
    out = [rows.add("C3", 1024, False, times=3)]
    for channels, past in ((512, 6), (256, 4)):
        rows.add("nn.Upsample", "None", 2, "nearest")
        rows.add("Concat", 1, source=[-1, past])
        rows.add("Conv", channels, 1, 1)
        out.append(rows.add("C3", channels, False, times=3))
    return rows.description("l", len(whole["backbone"]), out[::-1])


def yolov3(pooling: bool) -> dict[str, Any]:
    """Darknet-53 of bottlenecks, and three levels."""
    rows = Rows()
    rows.add("Conv", 32, 3, 1)
    for channels, times in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        rows.add("Conv", channels, 3, 2)
        rows.add("Bottleneck", channels, times=times)
    rows.add("Bottleneck", 1024, False)
    rows.add(*(("SPP", 512, [5, 9, 13]) if pooling else ("Conv", 512, 1, 1)))
    rows.add("Conv", 1024, 3, 1)
    rows.add("Conv", 512, 1, 1)
    coarse = rows.add("Conv", 1024, 3, 1)
    rows.add("Conv", 256, 1, 1, source=-2)
    rows.add("nn.Upsample", "None", 2, "nearest")
    rows.add("Concat", 1, source=[-1, 8])
    rows.add("Bottleneck", 512, False)
    rows.add("Bottleneck", 512, False)
    rows.add("Conv", 256, 1, 1)
    middle = rows.add("Conv", 512, 3, 1)
    rows.add("Conv", 128, 1, 1, source=-2)
    rows.add("nn.Upsample", "None", 2, "nearest")
    rows.add("Concat", 1, source=[-1, 6])
    rows.add("Bottleneck", 256, False)
    fine = rows.add("Bottleneck", 256, False, times=2)
    return rows.description("l", 11, [fine, middle, coarse])


def yolov3_tiny() -> dict[str, Any]:
    """Convolutions and pooling, two levels."""
    rows = Rows()
    for channels in (16, 32, 64, 128, 256):
        rows.add("Conv", channels, 3, 1)
        rows.add("nn.MaxPool2d", 2, 2, 0)
    rows.add("Conv", 512, 3, 1)
    rows.add("nn.ZeroPad2d", [0, 1, 0, 1])
    rows.add("nn.MaxPool2d", 2, 1, 0)
    rows.add("Conv", 1024, 3, 1)
    rows.add("Conv", 256, 1, 1)
    coarse = rows.add("Conv", 512, 3, 1)
    rows.add("Conv", 128, 1, 1, source=-2)
    rows.add("nn.Upsample", "None", 2, "nearest")
    rows.add("Concat", 1, source=[-1, 8])
    fine = rows.add("Conv", 256, 3, 1)
    return rows.description("l", 13, [fine, coarse], anchors=TINY)


DESCRIPTIONS = {
    "yolov3-spp": yolov3(True),
    "yolov3-tiny": yolov3_tiny(),
    "yolov3": yolov3(False),
    "yolov5-bifpn": pyramid("l", shortcut_past=True),
    "yolov5-fpn": feature_pyramid(),
    "yolov5-p2": pyramid("l", finest=2, anchors=3),
    "yolov5-p34": pyramid("s", coarsest=4, anchors=3),
    "yolov5-p6": pyramid("l", P6, anchors=3),
    "yolov5-p7": pyramid("l", P7, anchors=3),
    "yolov5-panet": pyramid("l"),
    "yolov5s-LeakyReLU": pyramid("s", activation="nn.LeakyReLU(0.1)"),
    "yolov5s-ghost": pyramid("s", stage="C3Ghost", conv="GhostConv"),
    "yolov5s-transformer": pyramid("s", last_stage="C3TR"),
    **{f"yolov5{size}": pyramid(size) for size in SIZES},
    **{f"yolov5{size}6": pyramid(size, P6, anchors=COCO_P6) for size in SIZES},
}


def text_of(name: str) -> str:
    """A published description as text."""
    return json.dumps(DESCRIPTIONS[name])
