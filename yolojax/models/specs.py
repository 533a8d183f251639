"""What the detectors are made of, as tables: one line a variant."""

from __future__ import annotations

import dataclasses
import math

# Of channels and blocks; published multiples are at most 5.
MAX_MULTIPLE = 100

# Width and height of the published COCO anchors in pixels, a row per level: strides
# 8, 16, 32 of pictures of 640 px, and 8, 16, 32, 64 of pictures of 1280 px.
COCO_ANCHORS_P5 = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)
COCO_ANCHORS_P6 = (
    ((19, 27), (44, 40), (38, 94)),
    ((96, 68), (86, 152), (180, 137)),
    ((140, 301), (303, 264), (238, 542)),
    ((436, 615), (739, 380), (925, 792)),
)


def scaled(channels: int, width: float) -> int:
    """Channels times a multiple, rounded up to a multiple of 8."""
    return math.ceil(channels * width / 8) * 8


def check_multiple(value: float, what: str) -> None:
    """Check a multiple of channels or blocks.

    Raises:
        ValueError: it is no number above 0 and at most 100.
    """
    if not isinstance(value, (int, float)) or not 0 < value <= MAX_MULTIPLE:
        raise ValueError(
            f"{what} is {value!r}; it must be above 0 and at most {MAX_MULTIPLE}"
        )


@dataclasses.dataclass(frozen=True)
class CspSpec:
    """A CSP-Darknet with PANet neck and anchor head.

    Attributes:
        depth: multiple of the numbers of bottlenecks.
        width: multiple of the numbers of channels.
        channels: of the stem (stride 2) and of every stage (strides 4, 8, ...),
            before `width`.
        blocks: bottlenecks of every stage, before `depth`.
        neck_blocks: bottlenecks of every stage of the neck, before `depth`.
        anchors: (width, height) in pixels per level, finest level first; the levels
            are the last stages.
    """

    depth: float
    width: float
    channels: tuple[int, ...] = (64, 128, 256, 512, 1024)
    blocks: tuple[int, ...] = (3, 6, 9, 3)
    neck_blocks: int = 3
    anchors: tuple[tuple[tuple[float, float], ...], ...] = COCO_ANCHORS_P5

    @property
    def stage_features(self) -> tuple[int, ...]:
        """Channels of the stem and the stages: rounded up to a multiple of 8."""
        return tuple(scaled(c, self.width) for c in self.channels)

    @property
    def stage_blocks(self) -> tuple[int, ...]:
        """Bottlenecks of the stages, at least one each."""
        return tuple(self._scaled(n) for n in self.blocks)

    @property
    def neck_stage_blocks(self) -> int:
        """Bottlenecks of every stage of the neck, at least one."""
        return self._scaled(self.neck_blocks)

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of the levels, finest first."""
        last = len(self.channels)
        return tuple(2**i for i in range(last - len(self.anchors) + 1, last + 1))

    def _scaled(self, blocks: int) -> int:
        return max(round(blocks * self.depth), 1)


def _p6(depth: float, width: float) -> CspSpec:
    return CspSpec(
        depth,
        width,
        channels=(64, 128, 256, 512, 768, 1024),
        blocks=(3, 6, 9, 3, 3),
        anchors=COCO_ANCHORS_P6,
    )


# Depth and width multiples of the published YOLOv5 v6.0 sizes.
YOLOV5 = {
    "yolov5n": CspSpec(depth=0.33, width=0.25),
    "yolov5s": CspSpec(depth=0.33, width=0.50),
    "yolov5m": CspSpec(depth=0.67, width=0.75),
    "yolov5l": CspSpec(depth=1.00, width=1.00),
    "yolov5x": CspSpec(depth=1.33, width=1.25),
    "yolov5n6": _p6(depth=0.33, width=0.25),
    "yolov5s6": _p6(depth=0.33, width=0.50),
    "yolov5m6": _p6(depth=0.67, width=0.75),
    "yolov5l6": _p6(depth=1.00, width=1.00),
    "yolov5x6": _p6(depth=1.33, width=1.25),
}
