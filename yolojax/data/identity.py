"""What the data of a run are: a digest of its images and labels, and a list to compare.

A run goes on with the data that it was begun with, wherever these lie now. Compared are
the names of the files without their folders, the sizes, the bytes of the images as the
scan has read them, the labels, the classes and the order. The digests are in every
checkpoint; the list, which tells what has changed, lies in the run's folder.
"""

from __future__ import annotations

import collections
import hashlib
import json
import os
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from yolojax.data.sources.base import Source
from yolojax.files import replace_text
from yolojax.lookup import listed
from yolojax.records import Example

FILE = "data.json"
FORMAT = "yolojax data 1"
# Names of images that a message has, of each kind of change.
_SHOWN = 5


class Item(NamedTuple):
    """One image of a part.

    Attributes:
        name: of its file, or what its source calls it.
        image: its size and the digest of its bytes, where these are known.
        labels: a digest of its labels and boxes.
        use: what it is for, as `train` or `val`; empty: it is left out.
    """

    name: str
    image: str
    labels: str
    use: str


class Part(NamedTuple):
    """The images of `data.train`, `data.val` or `data.unlabelled`.

    Attributes:
        classes: the names of its classes.
        items: its images, in the source's order.
    """

    classes: tuple[str, ...]
    items: tuple[Item, ...]

    @property
    def digest(self) -> str:
        """32 hexadecimal digits; the same wherever the files lie."""
        rows = [[_base(item.name), *item[1:]] for item in self.items]
        text = json.dumps([list(self.classes), rows])
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def describe_part(
    source: Source,
    rows: range,
    uses: Mapping[str, np.ndarray],
    digests: Mapping[str, str],
) -> Part:
    """The images of a source and their labels.

    Args:
        source: the data set.
        rows: which of its images.
        uses: by what they are for, the indices of the images that are used.
        digests: of the images' bytes by absolute path, see `check.known_digests`.
    """
    use_of = {
        index: name for name, indices in uses.items() for index in indices.tolist()
    }
    items = []
    for index in rows:
        example = source[index]
        items.append(
            Item(
                name=example.name,
                image=_image(example, digests),
                labels=_labels(example),
                use=use_of.get(index, ""),
            )
        )
    return Part(tuple(source.class_names), tuple(items))


def _image(example: Example, digests: Mapping[str, str]) -> str:
    height, width = example.size
    digest = ""
    if isinstance(example.image, str):
        digest = digests.get(os.path.abspath(example.image), "")
    elif isinstance(example.image, bytes):
        digest = hashlib.blake2b(example.image, digest_size=16).hexdigest()
    return f"{height} {width} {digest}"


def _labels(example: Example) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for array, dtype in (
        (example.labels, "<i4"),
        (example.boxes, "<f4"),
        (example.crowd, "?"),
        (example.areas, "<f4"),
    ):
        digest.update(np.ascontiguousarray(array, dtype).tobytes())
    for outlines in example.polygons or ():
        digest.update(b"box")
        for outline in outlines:
            digest.update(b"outline")
            digest.update(np.ascontiguousarray(outline, "<f4").tobytes())
    return digest.hexdigest()


def _base(name: str) -> str:
    # macOS writes accents in two parts, most others in one.
    return ascii(unicodedata.normalize("NFC", os.path.basename(name)))


def difference(before: Part, now: Part) -> str:
    """How the images of a part differ, with names; empty where they are the same."""
    if before.digest == now.digest:
        return ""
    found = []
    if before.classes != now.classes:
        old, new = (listed(part.classes) or "none" for part in (before, now))
        found.append(f"the classes were {old}, and are {new}")
    old, new = _by_tail(before.items, now.items)
    found += _told("added", [name for name in new if name not in old])
    found += _told("removed", [name for name in old if name not in new])
    both = [name for name in new if name in old]
    for what, field in (
        ("with another image", "image"),
        ("with other labels", "labels"),
        ("used in another way", "use"),
    ):
        names = [n for n in both if getattr(old[n], field) != getattr(new[n], field)]
        # Which ones are held out, or make a share, follows from all that there are.
        if field != "use" or not found:
            found += _told(what, names)
    return "; ".join(found) or "the images are in another order"


def _told(what: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    shown = [name.encode("ascii", "backslashreplace").decode() for name in names]
    images = "image" if len(names) == 1 else "images"
    return [f"{len(names)} {images} {what}: {listed(shown, _SHOWN)}"]


def _by_tail(*parts: Sequence[Item]) -> list[dict[str, Item]]:
    """The items by as much of the ends of their paths as tells them apart."""
    names = [[_words(item.name) for item in items] for items in parts]
    deepest = max((len(words) for own in names for words in own), default=1)
    for depth in range(1, deepest + 1):
        tails = [["/".join(words[-depth:]) for words in own] for own in names]
        if all(len(set(own)) == len(own) for own in tails):
            break
    else:
        tails = [_numbered(own) for own in tails]
    return [
        dict(zip(own, items, strict=True))
        for own, items in zip(tails, parts, strict=True)
    ]


def _words(name: str) -> list[str]:
    return unicodedata.normalize("NFC", name).replace(os.sep, "/").split("/")


def _numbered(names: Sequence[str]) -> list[str]:
    """The names, told apart by how often each came before."""
    seen: collections.Counter[str] = collections.Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(f"{name} ({seen[name]})" if seen[name] > 1 else name)
    return found


def digests_of(parts: Mapping[str, Part]) -> dict[str, str]:
    """The digest of each part."""
    return {name: part.digest for name, part in parts.items()}


def read_parts(folder: Path, digests: Mapping[str, str]) -> dict[str, Part]:
    """The parts that a run's folder has of these digests; () where it has none."""
    return next(
        (parts for parts in _read(folder) if digests_of(parts) == dict(digests)), {}
    )


def write_parts(
    folder: Path, parts: Mapping[str, Part], saved: Mapping[str, str]
) -> None:
    """Write the list of a run's images.

    That of the last checkpoint stays in the file, since a run that is killed before the
    next one goes on from that.

    Args:
        folder: of the run.
        parts: the images that are trained on now.
        saved: the digests in the checkpoint that the run goes on from.
    """
    wanted, known = [digests_of(parts), dict(saved)], _read(folder)
    if known and digests_of(known[0]) == wanted[0]:
        return
    kept = [old for old in known if digests_of(old) in wanted[1:]]
    versions = [
        {
            name: {"classes": part.classes, "images": part.items}
            for name, part in version.items()
        }
        for version in (parts, *kept[:1])
    ]
    # Names that are no UTF-8 stand as escapes.
    text = json.dumps({"format": FORMAT, "versions": versions})
    replace_text(folder / FILE, text)


def _read(folder: Path) -> list[dict[str, Part]]:
    """What the file holds, newest first; nothing where it is missing or damaged."""
    try:
        content: Any = json.loads((folder / FILE).read_bytes())
        if content["format"] != FORMAT:
            return []
        return [
            {
                name: Part(
                    tuple(part["classes"]),
                    tuple(Item(*map(str, row)) for row in part["images"]),
                )
                for name, part in version.items()
            }
            for version in content["versions"]
        ]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []
