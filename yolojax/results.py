"""What a finished run leaves: its evaluation, its pictures, a verdict, a summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from yolojax import (
    class_report,
    datasets,
    evaluating,
    inference,
    objectives,
    resuming,
)
from yolojax.data.decode import decode_image
from yolojax.datasets import Data
from yolojax.engine import evaluate, loop, verdict
from yolojax.engine.log import RunLog, read_metrics, write_json
from yolojax.engine.pictures import PictureLosses
from yolojax.experiment import Experiment
from yolojax.inference import Loaded, Predictor
from yolojax.losses.weights import count_classes
from yolojax.metrics.detection import format_table, jsonable
from yolojax.models.classifier import Classifier
from yolojax.vis import draw, plots, results
from yolojax.vis.cells import draw_cell

# Pictures that go through the network together; 0.25 and 0.45 are what `predict` uses.
_TOGETHER = 8
_CELL = (320, 320)
# Two pictures side by side, as labelled and as predicted.
_PAIR = (240, 484)


def finish(
    run: Experiment,
    evaluation: Any,
    workdir: Path,
    outcome: loop.Outcome,
    pictures: PictureLosses,
    log: RunLog,
    minutes: float,
) -> None:
    """Evaluate the best weights, draw the pictures, write the summary.

    Args:
        run: what was trained.
        evaluation: from variables to their numbers on val; None without one.
        workdir: the run's directory, with its checkpoints.
        outcome: how it ended.
        pictures: the last loss of each training picture, where no better is known.
        log: of the run.
        minutes: what it took.
    """
    final: dict[str, Any] = {}
    drawn: list[str] = []
    classifies = isinstance(run.model, Classifier)
    # Not the last state but the checkpoint that is handed on.
    loaded = inference.load(workdir)
    if run.val is not None and evaluation is not None:
        which = " (SWA)" if outcome.book.best_weights == "swa" else ""
        print(f"\nbest weights (step {loaded.step}{which}) on val:")
        if classifies:
            final, drawn = _judge_classifier(run, loaded, workdir)
        else:
            final, drawn = evaluation(loaded.variables), ["evaluation.json"]
            print(format_table(final, run.val.source.class_names))
    if jax.process_index() > 0:
        return
    if final and not classifies:
        write_json(workdir / "evaluation.json", jsonable(final))
    show = draw_classified if classifies else draw_pictures
    drawn = drawn + show(run, loaded, pictures, workdir)
    found = verdict_of(workdir)
    results.plot_results(workdir / "metrics.csv", workdir / "plots" / "results.png")
    log.write_summary(
        {
            "finished": True,
            "stopped_early": outcome.reason == "patience",
            "reason": outcome.reason,
            "steps": int(outcome.state.step),
            "best_step": outcome.book.best_step,
            "weights": _weights_of(outcome.book.best_weights, run.settings),
            "skipped_steps": int(outcome.state.skipped),
            "boxes_cut": outcome.book.boxes_cut,
            "minutes": minutes,
            "model": run.model.name,
            "seed": run.settings["seed"],
            "verdict": found.name,
            "changes": outcome.book.changes,
            **{k: v for k, v in final.items() if isinstance(v, int | float)},
        }
    )
    more = ""
    if found.name == "still improving":
        step = int(outcome.state.step)
        more = resuming.more_of(run, workdir, step, outcome.reason)
    print(f"\n{found.text(more)}")
    print(f"\nfinished in {minutes:.1f} minutes. Results in {workdir}:")
    print("  summary.json, metrics.csv, plots/results.png")
    for line in drawn:
        print(f"  {line}")
    if outcome.book.boxes_cut:
        print(
            f"{outcome.book.boxes_cut:.0f} boxes had no row after augmentation and "
            f"were left out of the loss: raise config.augment.max_boxes"
        )
    if run.settings["message"]:
        # Not `format`: other braces are text.
        message = run.settings["message"].replace("{workdir}", str(workdir))
        print(f"\n{message}")


def verdict_of(workdir: Path) -> verdict.Verdict:
    """The verdict on the run's metrics.csv."""
    rows = read_metrics(workdir)
    names = ("val/mAP50_95", "val/mean_average_precision", "val/accuracy")
    name = next((n for n in names if any(n in row for row in rows)), names[0])
    return verdict.judge_curves(*verdict.curves_of(rows, name))


def _weights_of(kind: str, settings: Mapping[str, Any]) -> str:
    """What the weights are: `ema`, `swa`, or `raw` where nothing is averaged."""
    return "raw" if kind == "ema" and settings["ema"]["name"] == "none" else kind


def _judge_classifier(
    run: Experiment, loaded: Loaded, workdir: Path
) -> tuple[dict[str, Any], list[str]]:
    """The numbers of a classifier on val, printed and written with pictures."""
    assert run.val is not None
    return evaluating.evaluate_classifier(
        run.settings,
        run.model,
        run.mesh,
        run.val,
        loaded.variables,
        loaded.class_names,
        workdir,
    )


def draw_classified(
    run: Experiment, loaded: Loaded, pictures: PictureLosses, workdir: Path
) -> list[str]:
    """Draw the training pictures that a classifier fails on; a line about each file."""
    count = run.settings["log"]["worst"]
    if not count:
        return []
    pictures = final_losses(run, loaded, pictures)
    worst = pictures.worst(count, run.train.keep)
    if not worst:
        return []
    class_report.draw_losses(
        [run.train.source[index] for index in worst],
        [float(pictures.last[index]) for index in worst],
        loaded.class_names,
        workdir,
    )
    return [
        "plots/worst.png, worst.json: training pictures with the highest loss; look "
        "for wrong labels there"
    ]


def loss_of(run: Experiment) -> Any:
    """The loss that the run trains with."""
    labels = (run.train.source[i].labels for i in run.train.keep.tolist())
    counts = count_classes(labels, run.model.num_classes)
    return objectives.make_loss(run.settings, run.model, counts)


def final_losses(
    run: Experiment, loaded: Loaded, pictures: PictureLosses
) -> PictureLosses:
    """The loss of each training picture alone, by the weights that are handed on.

    Without augmentation, so that neither a mosaic's other pictures nor a crop tell; it
    costs a forward pass over the training pictures. On several hosts, of which only one
    draws, the last losses of the training are taken instead.
    """
    if jax.process_count() > 1:
        return pictures
    settings = run.settings
    batches = datasets.make_eval_batches(
        datasets.of_one_shape(settings), run.train, stride=run.model.max_stride
    )
    values = evaluate.make_own_loss_step(run.model, loss_of(run), run.mesh)
    found = PictureLosses(len(run.train.source))
    for image_id, losses in evaluate.own_losses(
        values, loaded.variables, batches, mesh=run.mesh
    ):
        found.add(image_id, losses)
    return found


def draw_pictures(
    run: Experiment, loaded: Loaded, pictures: PictureLosses, workdir: Path
) -> list[str]:
    """Draw what the detector finds on val, and the training pictures it fails on.

    Returns:
        A line about each file.
    """
    chosen, train = run.settings["log"], run.train
    shown = run.val.keep.tolist()[: chosen["pictures"]] if run.val is not None else []
    worst = []
    if chosen["worst"]:
        pictures = final_losses(run, loaded, pictures)
        worst = pictures.worst(chosen["worst"], train.keep)
    if not shown and not worst:
        return []
    # One for both, which is compiled once.
    predictor = Predictor(
        loaded,
        score_threshold=0.25,
        iou_threshold=0.45,
        batch_size=min(max(len(shown), len(worst)), _TOGETHER),
    )
    lines = []
    if run.val is not None and shown:
        cells = [
            draw.fit_into(found, _CELL)
            for _, found in _pairs(predictor, loaded, run.val, shown)
        ]
        sheet = draw.contact_sheet(cells, 4, cell_size=_CELL)
        draw.save_image(workdir / "plots" / "predictions.png", sheet)
        lines += ["plots/predictions.png: what the detector finds on val"]
    if worst:
        draw_worst(predictor, loaded, train, pictures, worst, workdir)
        lines += [
            "plots/worst.png, worst.json: training pictures with the highest loss, as "
            "labelled and as predicted; look for wrong labels there"
        ]
    return lines


def draw_worst(
    predictor: Predictor,
    loaded: Loaded,
    data: Data,
    pictures: PictureLosses,
    worst: Sequence[int],
    workdir: Path,
) -> None:
    """Draw pictures side by side, as labelled and as predicted, and list them.

    Args:
        predictor: finds boxes.
        loaded: its network.
        data: where the pictures are from.
        pictures: their losses.
        worst: their indices in the source.
        workdir: gets plots/worst.png and worst.json.
    """
    examples = [data.source[index] for index in worst]
    losses = [float(pictures.last[index]) for index in worst]
    # Photographs are large: only a few of them are held as they are.
    pairs = [
        draw.fit_into(_side_by_side(*pair), _PAIR)
        for pair in _pairs(predictor, loaded, data, worst)
    ]
    captions = [
        f"{loss:.3g}  {Path(example.name).name}"
        for loss, example in zip(losses, examples, strict=True)
    ]
    sheet = draw.contact_sheet(pairs, 4, cell_size=_PAIR, captions=captions)
    draw.save_image(workdir / "plots" / "worst.png", sheet)
    rows: list[Mapping[str, Any]] = [
        {
            "name": example.name,
            "image_id": example.image_id,
            "loss": loss,
            "boxes": len(example.labels),
        }
        for loss, example in zip(losses, examples, strict=True)
    ]
    write_json(workdir / "worst.json", rows)


def _pairs(predictor: Predictor, loaded: Loaded, data: Data, indices: Sequence[int]):
    """Each picture drawn with its labels, and with what is found on it."""
    size = predictor.batch_size
    for start in range(0, len(indices), size):
        examples = [data.source[index] for index in indices[start : start + size]]
        decoded = [
            decode_image(example.image, decoding=example.decoding, may_shrink=True)
            for example in examples
        ]
        for example, picture, found in zip(
            examples, decoded, predictor(decoded), strict=True
        ):
            names = loaded.class_names
            # A picture that takes too much memory comes smaller.
            boxes = example.boxes * (picture.shape[0] / example.size[0])
            labelled = draw_cell(picture, boxes, example.labels, None, names)
            yield labelled, draw_cell(picture, *found, names)


def _side_by_side(left: np.ndarray, right: np.ndarray, gap: int = 8) -> np.ndarray:
    between = np.full((left.shape[0], gap, 3), 255, np.uint8)
    return np.concatenate([left, between, right], axis=1)


def draw_labels(run: Experiment, workdir: Path) -> None:
    """Draw how often each class occurs, and how large boxes or pictures are."""
    data = run.train
    if hasattr(data.source, "multi_label"):
        parts = datasets.parts_by_name(data, run.val)
        class_report.draw_data(parts, data.source.class_names, workdir)
        return
    examples = [data.source[i] for i in data.keep.tolist()]
    shares = [
        e.boxes / np.tile(np.array(e.size[::-1], np.float32), 2) for e in examples
    ]
    plots.plot_labels(
        np.concatenate(shares),
        np.concatenate([e.labels for e in examples]),
        data.source.class_names,
        workdir / "plots" / "labels.png",
    )
