"""The augmentations that a policy can name, in the order that they happen in."""

from __future__ import annotations

from collections.abc import Callable

from yolojax.augment import colour, crops, erase, geometry, mix, noise
from yolojax.augment.colour import ColourStep
from yolojax.augment.elastic import elastic
from yolojax.augment.mix import MixStep
from yolojax.augment.mosaic import mosaic, mosaic9
from yolojax.augment.scene import GeometryStep

AUGMENTATIONS: dict[str, Callable[..., GeometryStep | ColourStep | MixStep]] = {
    "identity": geometry.identity,
    "letterbox": geometry.letterbox,
    "random_resized_crop": crops.random_resized_crop,
    "mosaic": mosaic,
    "mosaic9": mosaic9,
    "random_crop": crops.random_crop,
    "pad": crops.pad,
    "affine": geometry.affine,
    "rotate": geometry.rotate,
    "shear_x": geometry.shear_x,
    "shear_y": geometry.shear_y,
    "translate_x": geometry.translate_x,
    "translate_y": geometry.translate_y,
    "quarter_turn": geometry.quarter_turn,
    "flip_up_down": geometry.flip_up_down,
    "flip_left_right": geometry.flip_left_right,
    "elastic": elastic,
    "hsv": colour.hsv,
    "brightness": colour.brightness,
    "contrast": colour.contrast,
    "colour": colour.colour,
    "gamma": colour.gamma,
    "to_gray": colour.to_gray,
    "channel_shuffle": colour.channel_shuffle,
    "invert": colour.invert,
    "solarise": colour.solarise,
    "posterise": colour.posterise,
    "autocontrast": colour.autocontrast,
    "equalise": colour.equalise,
    "sharpen": noise.sharpen,
    "gaussian_blur": noise.gaussian_blur,
    "box_blur": noise.box_blur,
    "gaussian_noise": noise.gaussian_noise,
    "salt_and_pepper": noise.salt_and_pepper,
    "compression": noise.compression,
    "copy_paste": mix.copy_paste,
    "mixup": mix.mixup,
    "cutmix": mix.cutmix,
    "random_erasing": erase.random_erasing,
    "cutout": erase.cutout,
}
