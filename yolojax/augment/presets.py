"""Policies by name, with the published hyper-parameters by their own names.

A preset is a function of its hyper-parameters that returns the entries of a policy; its
signature is the schema of its policy entry. What it leaves at 0 is left out.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

Entries = tuple[dict[str, Any], ...]
Number = float | int


def yolov5(
    *,
    hsv_h: Number = 0.015,
    hsv_s: Number = 0.7,
    hsv_v: Number = 0.4,
    degrees: Number = 0.0,
    translate: Number = 0.1,
    scale: Number = 0.5,
    shear: Number = 0.0,
    perspective: Number = 0.0,
    flipud: Number = 0.0,
    fliplr: Number = 0.5,
    mosaic: Number = 1.0,
    mixup: Number = 0.0,
    copy_paste: Number = 0.0,
) -> Entries:
    """The training of YOLOv5, without the blurs of an optional package.

    Args:
        hsv_h: `hue` of `hsv`.
        hsv_s: `saturation`.
        hsv_v: `value`.
        degrees: that of `affine`, like the next four.
        translate: see `degrees`.
        scale: see `degrees`.
        shear: see `degrees`.
        perspective: see `degrees`.
        flipud: probability of `flip_up_down`.
        fliplr: probability of `flip_left_right`.
        mosaic: probability of `mosaic`.
        mixup: probability of `mixup`.
        copy_paste: `share` of objects that `copy_paste` pastes.

    Source: the hyper-parameter files of YOLOv5 v7.0, `hyp.scratch-low` (these),
    `-med` and `-high`.
    """
    moves = dict(
        scale=scale,
        translate=translate,
        degrees=degrees,
        shear=shear,
        perspective=perspective,
    )
    gains = dict(hue=hsv_h, saturation=hsv_s, value=hsv_v)
    entries = (
        (mosaic, dict(name="mosaic", probability=mosaic)),
        (any(moves.values()), dict(name="affine", **moves)),
        (flipud, dict(name="flip_up_down", probability=flipud)),
        (fliplr, dict(name="flip_left_right", probability=fliplr)),
        (any(gains.values()), dict(name="hsv", **gains)),
        (copy_paste, dict(name="copy_paste", share=copy_paste)),
        (mixup, dict(name="mixup", probability=mixup)),
    )
    return tuple(entry for wanted, entry in entries if wanted)


def randaugment(*, num: int = 2, magnitude: Number = 9) -> Entries:
    """For classifiers: a stretched crop, a mirror, and `num` of fourteen changes.

    Args:
        num: how many of them change a sample; no two are the same, and they come in the
            order of the table.
        magnitude: 10 is the largest that the paper names for each; the strength is
            uniform up to it, in either direction, the paper's "random magnitude".

    Raises:
        ValueError: `magnitude` is not from 0 to 20.

    Source: Cubuk et al. 2019, arXiv:1909.13719, section 3; ranges as in Cubuk et al.
    2018, arXiv:1805.09501, table 6.
    """
    if not 0 <= magnitude <= 20:
        raise ValueError(f"randaugment: magnitude is {magnitude}, expected 0 to 20")
    share = magnitude / 10
    factor = (max(0.0, 1 - 0.9 * share), 1 + 0.9 * share)
    return _classification(
        num,
        dict(name="rotate", degrees=30.0 * share),
        dict(name="shear_x", factor=0.3 * share),
        dict(name="shear_y", factor=0.3 * share),
        dict(name="translate_x", share=min(1.0, 150 / 331 * share)),
        dict(name="translate_y", share=min(1.0, 150 / 331 * share)),
        dict(name="solarise", threshold=(max(0.0, 256.0 * (1 - share)), 256.0)),
        dict(name="posterise", bits=(max(1, 8 - round(4 * share)), 8)),
        factor=factor,
    )


def trivialaugment() -> Entries:
    """For classifiers: a stretched crop, a mirror, and one of fourteen changes.

    Its strength is uniform over the paper's wide range.

    Source: Mueller and Hutter 2021, arXiv:2103.10158, section 3 and table 8; 32 px as
    a share of ImageNet's 224.
    """
    return _classification(
        1,
        dict(name="rotate", degrees=135.0),
        dict(name="shear_x", factor=0.99),
        dict(name="shear_y", factor=0.99),
        dict(name="translate_x", share=32 / 224),
        dict(name="translate_y", share=32 / 224),
        dict(name="solarise", threshold=(0.0, 256.0)),
        dict(name="posterise", bits=(2, 8)),
        factor=(0.01, 1.99),
    )


def _classification(
    num: int, *changes: dict[str, Any], factor: tuple[float, float]
) -> Entries:
    """Crop, mirror and a choice of these changes and of those that all have."""
    enhancements = ("brightness", "contrast", "colour", "sharpen")
    of = (
        dict(name="identity"),
        *changes,
        *(dict(name=name, factor=factor) for name in enhancements),
        dict(name="autocontrast"),
        dict(name="equalise"),
    )
    return (
        dict(name="random_resized_crop"),
        dict(name="flip_left_right", probability=0.5),
        dict(name="choice", count=num, of=of),
    )


PRESETS: dict[str, Callable[..., Entries]] = {
    "yolov5_low": yolov5,
    "yolov5_medium": functools.partial(yolov5, scale=0.9, mixup=0.1),
    "yolov5_high": functools.partial(yolov5, scale=0.9, mixup=0.1, copy_paste=0.1),
    "randaugment": randaugment,
    "trivialaugment": trivialaugment,
}
