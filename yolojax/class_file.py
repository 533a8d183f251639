"""classes.json of a run: the names of its classes, and the source's numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from yolojax.files import replace_text
from yolojax.json_files import read_json
from yolojax.records import Id


def write_classes(
    class_names: Sequence[str], category_ids: Sequence[Id], workdir: Path
) -> None:
    """Write `classes.json`, which prediction needs: names and the source's numbers."""
    ids = [i if isinstance(i, str) else int(i) for i in category_ids]
    content = {"names": list(class_names), "category_ids": ids}
    replace_text(workdir / "classes.json", json.dumps(content, ensure_ascii=False))


def read_classes(workdir: Path) -> tuple[tuple[str, ...], tuple[Id, ...]]:
    """Class names and the source's numbers for them, as `write_classes` wrote them.

    Raises:
        ValueError: there is no `classes.json`, or it is damaged.
    """
    path = workdir / "classes.json"
    if not path.exists():
        raise ValueError(f"{path} is missing: is {workdir} a run's directory?")
    form = '{"names": ["cat", "dog"], "category_ids": [0, 1]}'
    advice = f"Put it back from a copy; it looks like {form}"
    content = read_json(path, advice=f"{advice}.")
    names, numbers = content.get("names"), content.get("category_ids")
    for values, kinds in ((names, (str,)), (numbers, (int, str))):
        if not isinstance(values, list) or {*map(type, values)} - {*kinds}:
            raise ValueError(f"{path} holds no names and category_ids. {advice}")
    # COCO files may have two categories of one name, but not of one id.
    if not len(names) == len(numbers) == len(set(numbers)):
        raise ValueError(
            f"{path} has {len(names)} names and {len(numbers)} category_ids, "
            f"{len(set(numbers))} of them different. {advice}"
        )
    return tuple(names), tuple(numbers)
