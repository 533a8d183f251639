"""Colours that stay apart, also for colour-blind readers."""

from __future__ import annotations

import functools

import numpy as np

Colour = tuple[int, int, int]

NUM_COLOURS = 96

# Okabe and Ito 2008, "Color Universal Design", without black.
SEEDS = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)

# Linear RGB as seen without M cones and without L cones: Machado, Oliveira and
# Fernandes 2009, "A Physiologically-based Model for Simulation of Color Vision
# Deficiency", table 1, severity 1.0.
DEUTERANOPIA = np.array(
    [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ]
)
PROTANOPIA = np.array(
    [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ]
)

# Ottosson 2020, "A perceptual color space for image processing" (Oklab).
TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def linear_rgb(colours: np.ndarray) -> np.ndarray:
    """Light intensities in [0, 1] of sRGB colours [..., 3] in 0 to 255 (IEC 61966)."""
    share = np.asarray(colours, np.float64) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def perceived(colours: np.ndarray) -> np.ndarray:
    """Oklab coordinates [3, n, 3] of sRGB colours [n, 3] for three kinds of eyes.

    The first axis is normal sight, deuteranopia, protanopia. Distances are about
    equally visible everywhere; 0.02 is just noticeable.
    """
    light = linear_rgb(colours)
    seen = np.stack([light, light @ DEUTERANOPIA.T, light @ PROTANOPIA.T])
    return np.cbrt(np.clip(seen, 0, 1) @ TO_CONES.T) @ TO_LAB.T


@functools.cache
def make_palette() -> tuple[Colour, ...]:
    """`NUM_COLOURS` colours, the earlier ones the furthest apart.

    Starts from the seeds, then takes again and again the colour of a grid whose
    nearest chosen neighbour, through the eyes that tell the two apart the worst, is
    the furthest. Greys, near-blacks and near-whites are left out.
    """
    steps = np.linspace(0, 255, 10).round().astype(np.int64)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    lab = perceived(grid)[0]
    colourful = np.hypot(lab[:, 1], lab[:, 2]) > 0.07
    grid = grid[colourful & (lab[:, 0] > 0.5) & (lab[:, 0] < 0.93)]

    def distances(colour: Colour) -> np.ndarray:
        offsets = perceived(grid) - perceived(np.array([colour]))
        return np.linalg.norm(offsets, axis=-1).min(axis=0)

    chosen: list[Colour] = list(SEEDS)
    nearest = np.min([distances(colour) for colour in chosen], axis=0)
    while len(chosen) < NUM_COLOURS:
        red, green, blue = grid[int(nearest.argmax())].tolist()
        chosen.append((red, green, blue))
        nearest = np.minimum(nearest, distances(chosen[-1]))
    return tuple(chosen)


def class_colour(label: int) -> Colour:
    """The sRGB colour of a class; the same in every run, repeated after 96."""
    return make_palette()[label % NUM_COLOURS]


def text_colour(background: Colour) -> Colour:
    """Black or white, whichever has the higher WCAG 2.1 contrast on `background`."""
    red, green, blue = linear_rgb(np.array(background)).tolist()
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    contrast_white = 1.05 / (luminance + 0.05)
    contrast_black = (luminance + 0.05) / 0.05
    return (0, 0, 0) if contrast_black >= contrast_white else (255, 255, 255)
