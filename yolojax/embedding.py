"""Where a network puts its pictures: features of a layer, and points in the plane."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from yolojax import datasets, folding, outputs
from yolojax.data.sources.base import Source
from yolojax.engine import classify, sharding
from yolojax.files import replace_file
from yolojax.inference import Loaded
from yolojax.metrics.classification import labels_of
from yolojax.models import features
from yolojax.records import Batch, Example
from yolojax.vis.embedding import plot_embedding
from yolojax.vis.projection import (
    FEWEST,
    neighbour_embedding,
    principal_components,
)

TITLES = {"tsne": "t-SNE", "pca": "PCA"}


def claim_output(
    given: Any, changes: Mapping[str, Any], methods: Sequence[str]
) -> None:
    """Check the output folder before any work; see `outputs.claim`.

    Args:
        given: the flags of `features`.
        changes: what they change in the settings of the run.
        methods: see `write_features`.

    Raises:
        ValueError: it has the results of another command.
    """
    asked = {
        "command": "features",
        "weights": os.path.abspath(given.weights),
        "settings": {key: value for key, value in changes.items() if value is not None},
        **{key: given[key].value for key in ("split", "layer", "pictures")},
        "methods": methods,
    }
    outputs.claim(
        Path(given.output),
        asked,
        ["features.npz", *(f"{method}.png" for method in methods)],
        inputs=[Path(given.weights)],
        overwrite=given.overwrite,
    )


class Features(NamedTuple):
    """Features of pictures of one part of a data set.

    Attributes:
        values: float32 [n, d].
        labels: int64 [n], see `metrics.classification.labels_of`.
        names: of the pictures.
    """

    values: np.ndarray
    labels: np.ndarray
    names: list[str]


def write_features(
    loaded: Loaded,
    output: Path,
    *,
    splits: Sequence[str] = ("train", "val"),
    layer: str = "",
    methods: Sequence[str] = tuple(TITLES),
    most: int = 1000,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Write features.npz, and a picture a method, coloured by class.

    Args:
        loaded: a classifier, or a detector; of a picture with boxes the class of the
            largest one counts.
        output: the folder.
        splits: `train` and `val` as the run has them, or other splits of the source of
            `data.val`, each once.
        layer: see `models.features`; by default what the head's last layer sees.
        methods: of `TITLES`, see `principal_components` and `neighbour_embedding`.
        most: pictures of each split, taken at random by the run's seed.
        progress: `progress(done, total)` in pictures of a split.

    Returns:
        A line about each file.

    Raises:
        ValueError: an unknown layer or split, no data, too few pictures.
    """
    layer = layer or features.default_layer(loaded.model)
    features.check_layer(loaded.model, layer)
    if most < FEWEST:
        raise ValueError(f"{most} pictures are too few to draw; take at least {FEWEST}")
    if not splits or len(set(splits)) < len(splits):
        raise ValueError(f"splits must be names, each once, not {', '.join(splits)!r}")
    sources = {split: Sample(loaded.settings, split, most) for split in splits}
    first = sources[splits[0]]
    sources = {
        split: datasets.match_classes(source, first, part=split, of=splits[0])
        for split, source in sources.items()
    }
    class_names = first.class_names
    step = make_feature_step(loaded, layer)
    found = {
        split: _features_of(loaded, source, step, progress)
        for split, source in sources.items()
    }
    values = [own.values for own in found.values()]
    if not all(np.isfinite(own).all() for own in values):
        raise ValueError(f"{layer} of {loaded.model.name} gives no finite numbers")
    planes: dict[str, Sequence[np.ndarray]] = {}
    for method in methods:
        named: Sequence[str] = ()
        if method == "pca":
            planes[method], shares = principal_components(values)
            named = [
                f"component {number} ({share:.0%} of the variance)"
                for number, share in enumerate(shares, 1)
            ]
        else:
            seed = loaded.settings["seed"]
            planes[method] = neighbour_embedding(values, seed=seed)
        plot_embedding(
            {
                split: (points, own.labels)
                for (split, own), points in zip(
                    found.items(), planes[method], strict=True
                )
            },
            class_names,
            output / f"{method}.png",
            title=f"{TITLES[method]} of {layer} in {loaded.model.name}",
            axes_named=named,
        )
    _save(output / "features.npz", found, planes, layer, class_names)
    sizes = ", ".join(f"{len(own.names)} of {split}" for split, own in found.items())
    return [
        f"features.npz: {values[0].shape[1]} features of {layer}, pictures: {sizes}",
        *(f"{method}.png: {TITLES[method]}, coloured by class" for method in methods),
    ]


class Sample:
    """Some pictures of one part of a config's data set, as a source.

    Args:
        settings: a complete config.
        split: `train`, `val`, or another split of the source of `data.val`.
        most: how many at most, taken at random by the config's seed.

    Raises:
        ValueError: no such data.
    """

    def __init__(self, settings: Mapping[str, Any], split: str, most: int) -> None:
        self._source, indices = _open(settings, split)
        if len(indices) > most:
            generator = np.random.default_rng(settings["seed"])
            indices = np.sort(generator.choice(indices, most, replace=False))
        self._indices = indices
        self.class_names = self._source.class_names
        self.category_ids = self._source.category_ids
        self.report = self._source.report

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int, /) -> Example:
        return self._source[int(self._indices[index])]


def _open(settings: Mapping[str, Any], split: str) -> tuple[Source, np.ndarray]:
    """The source of a split, and the indices of its pictures."""
    if split in ("train", "val"):
        folds = settings["data"]["folds"]["count"]
        source = datasets.open_source(settings, "train" if folds else split)
        if fold := folding.fold_of(settings, source) if folds else None:
            return source, np.flatnonzero(
                (fold.numbers == fold.index) == (split == "val")
            )
        return source, np.arange(len(source))
    data = {**settings["data"], "val": {**settings["data"]["val"], "split": split}}
    source = datasets.open_source({**settings, "data": data}, "val")
    return source, np.arange(len(source))


def make_feature_step(loaded: Loaded, layer: str) -> classify.ProbabilityStep:
    """The jitted function from variables and a batch to features float32 [b, d].

    Args:
        loaded: the network.
        layer: see `models.features`.
    """

    def features_of(variables: Any, image: jax.Array) -> jax.Array:
        image = image.astype(jnp.float32) / jnp.float32(255)
        return features.layer_features(loaded.model, variables, image, layer)

    jitted = jax.jit(features_of, out_shardings=sharding.split(loaded.mesh))

    def step(variables: Any, batch: Batch) -> jax.Array:
        return jitted(variables, batch.image)

    return step


def _features_of(
    loaded: Loaded,
    source: Source,
    step: classify.ProbabilityStep,
    progress: Callable[[int, int], None] | None,
) -> Features:
    data = datasets.look_at_pictures(loaded.settings, source)
    if text := data.report.render():
        print(text)
    # One shape, which is compiled once.
    chosen = datasets.of_one_shape(loaded.settings)
    batches = datasets.make_eval_batches(chosen, data, stride=loaded.model.max_stride)
    rows, values = classify.predict_all(
        step,
        loaded.variables,
        batches,
        mesh=loaded.mesh,
        progress=progress and (lambda done: progress(done, len(data.keep))),
    )
    names = [source[int(row)].name for row in rows]
    return Features(values, labels_of(source, rows), names)


def _save(
    path: Path,
    found: Mapping[str, Features],
    planes: Mapping[str, Sequence[np.ndarray]],
    layer: str,
    class_names: Sequence[str],
) -> None:
    """Write all parts, one after the other, as NumPy arrays by name."""
    rows = [(split, name) for split, own in found.items() for name in own.names]
    arrays: dict[str, Any] = {
        "features": np.concatenate([own.values for own in found.values()]),
        "labels": np.concatenate([own.labels for own in found.values()]),
        "split": np.array([split for split, _ in rows]),
        "name": np.array([name for _, name in rows]),
        "class_names": np.array(class_names),
        "layer": np.array(layer),
        **{method: np.concatenate(points) for method, points in planes.items()},
    }
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    replace_file(path, content.getvalue())
