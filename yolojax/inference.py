"""A trained detector, loaded to be used: on a data set, on pictures, on videos."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from yolojax import datasets, experiment, folding, settings
from yolojax.class_file import read_classes
from yolojax.data import pipeline
from yolojax.data.report import Report
from yolojax.engine import checkpoint, evaluate, sharding
from yolojax.engine.log import write_json
from yolojax.engine.predictions import write_predictions
from yolojax.lookup import listed
from yolojax.metrics.detection import format_table, jsonable
from yolojax.models.model import Model
from yolojax.ops.letterbox import letterbox_shape
from yolojax.ops.views import PLAIN, View
from yolojax.records import Detections, Example, Id
from yolojax.trees import flatten
from yolojax.weights.published import placeholder_names, read_published

Found = tuple[np.ndarray, np.ndarray, np.ndarray]
Classes = tuple[tuple[str, ...], tuple[Id, ...]]


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A network with its averaged weights, and what its classes are called."""

    settings: dict[str, Any]
    model: Model
    variables: dict[str, Any]
    class_names: tuple[str, ...]
    category_ids: tuple[Id, ...]
    mesh: Mesh
    step: int
    origin: str = ""


def load(
    weights: str | Path,
    change: Callable[[dict[str, Any]], None] | None = None,
    *,
    cfg: str = "",
) -> Loaded:
    """Load a run's best weights, those of one of its checkpoints, or a file's.

    Args:
        weights: a working directory, one checkpoint in it, a PyTorch or
            `.safetensors` file with a YOLOv5, or a Darknet `.weights` file.
        change: alters the run's settings before the network is built.
        cfg: the description of a `.weights` file; by default that beside it.

    Raises:
        ValueError: there are none, or they do not fit the settings.
    """
    chosen, found, step, (names, numbers) = _read(weights, cfg)
    if not isinstance(chosen["batch_size"], int):
        raise ValueError(
            f"{weights}: config.batch_size is {chosen['batch_size']!r}, but the config "
            "of a run holds the number that was found for it"
        )
    # Where it was trained there may have been more or fewer; the results are the same.
    batch_size = math.gcd(chosen["batch_size"], chosen["evaluate"]["batch_size"])
    chosen["devices"] = sharding.fitting_devices(chosen["devices"], batch_size)
    if change is not None:
        change(chosen)
    stored = isinstance(found, checkpoint.SavedWeights)
    try:
        model = experiment.make_model(chosen, names)
    except ValueError as error:
        raise ValueError(f"the network of {weights}: {error}") from error
    # Before any array of a run is read, so that none is larger than the network's.
    _check_shapes(weights, found.shapes if stored else found, model)
    return Loaded(
        settings=chosen,
        model=model,
        variables=found.read() if stored else found,
        class_names=names,
        category_ids=numbers,
        mesh=experiment.make_mesh(chosen),
        step=step,
        origin=str(weights),
    )


def _check_shapes(weights: str | Path, found: dict[str, Any], model: Model) -> None:
    there, wanted = (
        {path: tuple(np.shape(leaf)) for path, leaf in flatten(tree).items()}
        for tree in (found, model.shapes())
    )
    paths = sorted(there.keys() | wanted.keys())
    differing = [path for path in paths if there.get(path) != wanted.get(path)]
    if differing:
        path = differing[0]
        raise ValueError(
            f"the weights in {weights} do not fit {model.name}: {len(differing)} of "
            f"{len(paths)} arrays differ; {path} is {there.get(path, 'missing')}, "
            f"expected {wanted.get(path, 'none')}"
        )


def _read(
    weights: str | Path, cfg: str
) -> tuple[dict[str, Any], dict[str, Any] | checkpoint.SavedWeights, int, Classes]:
    """Settings, variables, step and classes of a run or of a file."""
    # A pipe or a device is no run: its reader says so.
    if Path(weights).exists() and not Path(weights).is_dir():
        found = read_published(weights, cfg)
        numbers = tuple(range(len(found.class_names)))
        chosen = settings.complete(found.settings)
        return chosen, found.variables, 0, (found.class_names, numbers)
    saved = checkpoint.find_weights(weights)
    workdir = checkpoint.workdir_of(weights)
    chosen, classes = settings.read_config(workdir), read_classes(workdir)
    return chosen, saved, saved.step, classes


def evaluate_detector(
    loaded: Loaded, output: Path, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """COCO's and the published numbers on `data.val`, printed and written.

    Args:
        loaded: the detector.
        output: gets evaluation.json, which also says what was evaluated and how, and
            predictions.json.
        progress: `progress(done, total)` in pictures.

    Raises:
        ValueError: no data, or data with other classes than the detector.
    """
    loaded, data = labelled_data(loaded)
    total = len(data.keep)
    batches = datasets.make_eval_batches(
        loaded.settings, data, stride=loaded.model.max_stride
    )
    if len(batches.shapes) > 1:
        print(f"{len(batches)} batches of {len(batches.shapes)} shapes, each compiled")
    metrics, results = evaluate.evaluate(
        experiment.make_predict(loaded.settings, loaded.model, loaded.mesh),
        loaded.variables,
        batches,
        data.source,
        data.keep,
        mesh=loaded.mesh,
        progress=functools.partial(_report, progress, total) if progress else None,
    )
    write_evaluation(metrics, results, output, loaded, data, conditions(loaded))
    return metrics


def labelled_data(loaded: Loaded) -> tuple[Loaded, datasets.Data]:
    """The detector, with the names of its classes, and the pictures of `data.val`.

    Raises:
        ValueError: see `evaluate_detector`.
    """
    source, fold = folding.open_evaluated(loaded.settings)
    if loaded.class_names == placeholder_names(len(source.class_names)):
        # The weights do not say what their classes are called.
        loaded = dataclasses.replace(loaded, class_names=source.class_names)
    try:
        source = datasets.match_classes(source, loaded, part="val")
    except ValueError as error:
        raise ValueError(
            f"the data have the classes {listed(source.class_names)}, the network "
            f"knows {listed(loaded.class_names)}. Evaluate on the data that it was "
            f"trained on, or train from these weights: --config.init.weights="
            f"{loaded.origin}"
        ) from error
    data = datasets.look_at_pictures(loaded.settings, source)
    if fold is not None:
        data = folding.held_out_part(fold, data)
        print(fold.note)
    if text := data.report.render():
        print(text)
    return loaded, data


def write_evaluation(
    metrics: dict[str, Any],
    results: list[dict[str, Any]],
    output: Path,
    loaded: Loaded,
    data: datasets.Data,
    evaluated: dict[str, Any],
) -> None:
    """Print the numbers, and write them and the detections; see `evaluate_detector`.

    Args:
        metrics: the numbers.
        results: the detections in the COCO results format.
        output: the folder.
        loaded: gives the classes.
        data: the images.
        evaluated: what the numbers are of.
    """
    print(format_table(metrics, loaded.class_names))
    if jax.process_index() == 0:
        write_json(
            output / "evaluation.json",
            jsonable(metrics) | {"evaluated": evaluated},
        )
        source = data.source
        examples = (source[index] for index in data.keep.tolist())
        write_predictions(
            output,
            results,
            file_names={example.image_id: example.name for example in examples},
            class_names=dict(zip(source.category_ids, source.class_names, strict=True)),
        )


def conditions(loaded: Loaded) -> dict[str, Any]:
    """What the numbers are of: weights, data and the settings that decide them."""
    chosen = loaded.settings["evaluate"]
    keys = ("letterbox", "score_threshold", "iou_threshold", "max_detections")
    return {
        "weights": loaded.origin,
        "model": loaded.model.name,
        "step": loaded.step,
        **_data(loaded.settings),
        "image_size": loaded.settings["image_size"],
        "batch_size": chosen["batch_size"] or loaded.settings["batch_size"],
        **{key: chosen[key] for key in (*keys, "multi_label")},
    }


def _data(chosen: Mapping[str, Any]) -> dict[str, Any]:
    folds = chosen["data"]["folds"]
    if not folds["count"]:
        return {"data": chosen["data"]["val"]}
    return {"data": chosen["data"]["train"], "folds": folds}


def _report(progress: Callable[[int, int], None], total: int, done: int) -> None:
    progress(done, total)


class Predictor:
    """Finds objects on pictures of any size, a few at a time.

    Args:
        loaded: the detector.
        score_threshold: what is less sure is left out.
        iou_threshold: overlap above which the less sure box of a class goes.
        batch_size: pictures that go through the network together.
        views: how each picture is looked at; what is found on several is left for the
            caller to merge.
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        score_threshold: float,
        iou_threshold: float,
        batch_size: int,
        views: Sequence[View] = (PLAIN,),
    ):
        # One device: the pictures of a folder come one after the other.
        self._mesh = sharding.make_mesh(1)
        self._variables = sharding.put_replicated(loaded.variables, self._mesh)
        self._loaded = loaded
        self.batch_size = batch_size
        self._predict = evaluate.make_predict_step(
            loaded.model,
            self._mesh,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            multi_label=False,
            views=views,
        )

    def __call__(self, pictures: Sequence[np.ndarray]) -> list[Found]:
        """What is found on each picture.

        Args:
            pictures: uint8 RGB [h, w, 3], at most `batch_size`, of any sizes.

        Returns:
            For each its boxes [k, 4] (corners, pixels of that picture), labels [k]
            and scores [k], best first.
        """
        if not pictures:
            return []
        found = self.detect(pictures)
        return [rows_of(found, i) for i in range(len(pictures))]

    def detect(self, pictures: Sequence[np.ndarray]) -> Detections:
        """What is found on each of some pictures, padded; see `__call__`."""
        batches = pipeline.make_eval_batches(
            DecodedPictures(pictures),
            range(len(pictures)),
            image_size=datasets.image_size_of(self._loaded.settings),
            batch_size=self.batch_size,
            num_threads=datasets.num_threads(self._loaded.settings),
            place=letterbox_shape,
        )
        parts: list[Detections] = []
        for batch in batches:
            on_device = sharding.put_batch(batch, self._mesh)
            parts.append(jax.device_get(self._predict(self._variables, on_device)))
        return jax.tree.map(lambda *x: np.concatenate(x)[: len(pictures)], *parts)


def rows_of(found: Detections, picture: int) -> Found:
    """Boxes, labels and scores of one picture, without padding."""
    valid = found.valid[picture]
    return (
        found.boxes[picture][valid],
        found.labels[picture][valid],
        found.scores[picture][valid],
    )


class DecodedPictures:
    """Decoded pictures in the form of a source without labels."""

    class_names: tuple[str, ...] = ()
    category_ids: tuple[Id, ...] = ()

    def __init__(self, pictures: Sequence[np.ndarray]):
        self.report = Report()
        self._pictures = pictures

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> Example:
        picture = self._pictures[index]
        return Example(
            image=picture,
            boxes=np.zeros((0, 4), np.float32),
            labels=np.zeros(0, np.int32),
            crowd=np.zeros(0, np.bool_),
            areas=np.zeros(0, np.float32),
            image_id=index,
            size=(picture.shape[0], picture.shape[1]),
            name=f"picture {index}",
        )


def settings_changes(changes: Mapping[str, Any]) -> Callable[[dict[str, Any]], None]:
    """A function that sets dotted keys of settings where the value is not None."""

    def change(chosen: dict[str, Any]) -> None:
        for key, value in changes.items():
            if value is None:
                continue
            *parents, last = key.split(".")
            node = chosen
            for parent in parents:
                node = node[parent]
            node[last] = value

    return change
