"""Data sets of TensorFlow Datasets, read without TensorFlow.

The records are read by ArrayRecord and the pictures decoded by us. TensorFlow is needed
only where a data set has to be built first and its builder asks for it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from yolojax.data.decode import ImageError, image_size
from yolojax.data.report import Report
from yolojax.data.sources.labelled import ClassifiedPictures, report_counts
from yolojax.lookup import pick

# Records that are read together when the labels are looked up.
_TOGETHER = 256


class TfdsSource(ClassifiedPictures):
    """Pictures and labels of a data set by its name there.

    Labels and sizes are read once, the pictures whenever they are asked for.
    """

    def __init__(
        self,
        *,
        name: str,
        split: str = "train",
        data_dir: str = "",
        image: str = "",
        label: str = "",
        download: bool = False,
    ) -> None:
        """Open a data set and read its labels.

        Args:
            name: as TensorFlow Datasets calls it: `name`, `name/config` or
                `name/config:1.2.3`.
            split: as it writes splits: `train`, `test`, `train[:80%]`, `train[80%:]`.
            data_dir: where data sets are kept; "" takes its default.
            image: the feature with the picture; "" takes the one that there is.
            label: the feature with the class or with several; "" takes the one that
                there is.
            download: whether to download and build what is not there.

        Raises:
            ValueError: the package is not installed, the data set not there or not of
                pictures with classes, or an argument that cannot be.
        """
        tfds = _package()
        builder = _builder(tfds, name, data_dir, download)
        features = builder.info.features
        pictures = _of_kind(features, tfds.features.Image, sequences=False)
        classes = _of_kind(features, tfds.features.ClassLabel, sequences=True)
        self._key = _choose(image, pictures, "image", "picture", name)
        label = _choose(label, classes, "label", "class", name)
        if pictures[self._key].np_dtype != np.uint8:
            raise ValueError(
                f"tfds data set {name!r}: feature {self._key!r} has "
                f"{np.dtype(pictures[self._key].np_dtype).name} pictures; only uint8 "
                "can be read"
            )
        self._records = _open(tfds, builder, split, pictures)
        report, where = Report(), f"{name} {split}"
        rows, sizes, labels = [], [], []
        for start in range(0, len(self._records), _TOGETHER):
            stop = min(start + _TOGETHER, len(self._records))
            for row, record in enumerate(_read(self._records, start, stop), start):
                try:
                    sizes.append(image_size(bytes(record[self._key])))
                except ImageError as error:
                    message = f"{str(error).removeprefix('picture: ')}; left out"
                    report.add("unreadable picture", f"{where} {row}", None, message)
                    continue
                rows.append(row)
                own = np.unique(np.asarray(record[label]).reshape(-1))
                labels.append(tuple(int(value) for value in own if value >= 0))
        self._rows = rows
        names = tuple(classes[label].names)
        report_counts(labels, names, where, report, training="train" in split)
        super().__init__(
            names=[f"{where} {row}" for row in rows],
            sizes=sizes,
            labels=labels,
            class_names=names,
            report=report,
            multi_label=not isinstance(features[label], tfds.features.ClassLabel),
        )

    def _image(self, index: int) -> bytes:
        return bytes(self._records[self._rows[index]][self._key])


def _package() -> Any:
    try:
        return importlib.import_module("tensorflow_datasets")
    except ImportError as error:
        raise ValueError(
            f"source 'tfds' needs TensorFlow Datasets ({error}): "
            "pip install 'yolojax[tfds]'"
        ) from error


def _builder(tfds: Any, name: str, data_dir: str, download: bool) -> Any:
    where = {"data_dir": data_dir} if data_dir else {}
    try:
        # It looks names up at their home unless told not to.
        builder = tfds.builder(name, try_gcs=False, **where)
        if download:
            builder.download_and_prepare(file_format="array_record")
        prepared = bool(builder.info.splits)
    except Exception as error:
        # Any of its many kinds: a name that is not known, a network that is not there.
        text = str(error).strip() or type(error).__name__
        raise ValueError(f"tfds data set {name!r}: {text.splitlines()[0]}") from error
    if not prepared:
        raise ValueError(
            f"tfds data set {name!r} is not in {Path(builder.data_dir)}; set data_dir, "
            "or download=True to have it built"
        )
    return builder


def _of_kind(features: Any, kind: type, *, sequences: bool) -> dict[str, Any]:
    """The features that are of a kind, or, if wanted, sequences of it."""
    found = {}
    for key, feature in features.items():
        inner = getattr(feature, "feature", feature) if sequences else feature
        if isinstance(inner, kind):
            found[key] = inner
    return found


def _choose(
    wanted: str, found: dict[str, Any], argument: str, kind: str, name: str
) -> str:
    """The feature's key; the only one where none is named."""
    if wanted:
        pick(found, wanted, f"{kind} feature of tfds data set {name!r}")
        return wanted
    if len(found) != 1:
        said = f"the features {', '.join(sorted(found))}; name one: {argument}=..."
        raise ValueError(
            f"tfds data set {name!r} has {said if found else 'no feature'} of the kind "
            f"{kind}"
        )
    return next(iter(found))


def _open(tfds: Any, builder: Any, split: str, pictures: Iterable[str]) -> Any:
    """The records of a split, their pictures as they are stored."""
    # Data sources know no partial decoding: other features are decoded for nothing.
    decoders = {key: tfds.decode.SkipDecoding() for key in pictures}
    try:
        return builder.as_data_source(split=split, decoders=decoders)
    except NotImplementedError as error:
        raise ValueError(
            f"tfds data set {builder.name!r} in {Path(builder.data_dir)} is not stored "
            "as array_record; build it with file_format='array_record'"
        ) from error
    except ValueError as error:
        known = ", ".join(builder.info.splits)
        raise ValueError(
            f"tfds data set {builder.name!r} has no split {split!r}; it has {known}"
        ) from error


def _read(records: Any, start: int, stop: int) -> list[Any]:
    return records.__getitems__(list(range(start, stop)))
