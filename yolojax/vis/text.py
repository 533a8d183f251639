"""Text in pictures: what the font can draw, how large it is, how to shorten it."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable, Sequence

import cv2
import numpy as np

# Version 5 brought outline fonts for most scripts; before, letters are lines of
# ASCII only.
OUTLINES = int(cv2.__version__.split(".")[0]) >= 5
FONT = cv2.FONT_HERSHEY_SIMPLEX
# A character of the private use area, which no font has: OpenCV draws its box for
# missing ones.
MISSING = "\ue000"


def stroke(scale: float) -> int:
    """The thickness to give to OpenCV; for outline fonts it stands for a weight."""
    return 1 if OUTLINES else max(1, round(1.4 * scale))


def measure(text: str, scale: float) -> tuple[int, int, int]:
    """Width, height above the base line, and depth below it, in pixels."""
    (width, height), depth = cv2.getTextSize(text, FONT, scale, stroke(scale))
    return int(width), int(height), int(depth)


def scale_for_height(pixels: float) -> float:
    """The font scale at which a line is `pixels` high above its base line."""
    return pixels / measure("Ag0", 10.0)[1] * 10.0


def put_text(
    image: np.ndarray,
    text: str,
    left: int,
    base: int,
    scale: float,
    colour: tuple[int, int, int],
) -> None:
    """Draws `text` into `image`, its base line starting at (left, base)."""
    thickness = stroke(scale)
    cv2.putText(image, text, (left, base), FONT, scale, colour, thickness, cv2.LINE_AA)


@functools.lru_cache(maxsize=4096)
def has_glyph(character: str) -> bool:
    """Whether OpenCV can draw the character."""
    if character.isascii():
        return character.isprintable()
    if not OUTLINES or not character.isprintable():
        return False

    def drawn(text: str) -> np.ndarray:
        canvas = np.zeros((48, 64), np.uint8)
        cv2.putText(canvas, text, (16, 36), FONT, 1.0, 255, 1, cv2.LINE_AA)
        return canvas

    return not np.array_equal(drawn(character), drawn(MISSING))


def drawable_name(
    name: str, label: int, has_glyph: Callable[[str], bool] = has_glyph
) -> str:
    """The class name in characters that the font has.

    Accents that the font lacks are dropped, other unknown characters left out; where
    no letter or digit remains, the result is `class N`.

    Args:
        name: the class name, any Unicode.
        label: the class index, for the fall-back.
        has_glyph: whether the font has a character.
    """
    kept = []
    for character in unicodedata.normalize("NFC", name):
        plain = unicodedata.normalize("NFKD", character)
        if has_glyph(character):
            kept.append(character)
        elif character.isspace():
            kept.append(" ")
        else:
            kept += [part for part in plain if has_glyph(part)]
    text = " ".join("".join(kept).split())
    return text if any(c.isalnum() for c in text) else f"class {label}"


def class_title(
    class_names: Sequence[str],
    label: int,
    has_glyph: Callable[[str], bool] = has_glyph,
) -> str:
    """What a reader is shown for a class; `class N` where the list has no such name."""
    name = class_names[label] if 0 <= label < len(class_names) else ""
    return drawable_name(str(name), label, has_glyph)


def shorten(text: str, fits: Callable[[str], bool], ending: str = "") -> str:
    """The longest beginning of `text`, plus `ending`, that fits; "" if none does.

    Args:
        text: a name.
        fits: whether a candidate has room.
        ending: kept whole, such as a score.
    """
    if fits(text + ending):
        return text + ending
    for length in range(len(text) - 1, 1, -1):
        candidate = text[:length].rstrip() + ".." + ending
        if fits(candidate):
            return candidate
    return ""
