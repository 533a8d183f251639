"""What a classifier's predictions come to: numbers, plots, and its mistakes drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from yolojax.data.decode import decode_image
from yolojax.data.sources.base import Source
from yolojax.engine.log import write_json
from yolojax.metrics import classification as numbers
from yolojax.records import Example
from yolojax.vis import mistakes
from yolojax.vis.classification import plot_classes, plot_reliability
from yolojax.vis.confusion import confused_pairs, plot_confusion
from yolojax.vis.draw import contact_sheet, fit_into, save_image
from yolojax.vis.pictures import Pictures, plot_pictures

# Pairs and mistakes that are drawn, and pairs that evaluation.json lists.
PAIRS, WORST, LISTED = 10, 24, 50
# Above, the confusion matrix has too many cells for evaluation.json.
_MOST_CLASSES = 200


# What `write_report` may write.
FILES = (
    *("evaluation.json", "mistakes.json", "plots/classes.png", "plots/confusion.png"),
    *("plots/confused.png", "plots/mistakes.png", "plots/reliability.png"),
)


def report_numbers(
    probabilities: np.ndarray, source: Source, keep: Iterable[int]
) -> dict[str, Any]:
    """`class_metrics`, or `multi_label_metrics` of a source with several labels.

    Args:
        probabilities: [n, c], of the pictures in `keep`.
        source: has the labels.
        keep: indices in the source, [n].
    """
    if getattr(source, "multi_label", False):
        targets = numbers.targets_of(source, keep, probabilities.shape[1])
        return numbers.multi_label_metrics(probabilities, targets)
    return numbers.class_metrics(probabilities, numbers.labels_of(source, keep))


def write_report(
    probabilities: np.ndarray,
    source: Source,
    keep: Sequence[int] | np.ndarray,
    class_names: Sequence[str],
    output: Path,
    *,
    conditions: Mapping[str, Any] | None = None,
) -> list[str]:
    """Write evaluation.json and plots of a classifier's predictions.

    Pictures without a label only count in the distribution of predictions.

    Args:
        probabilities: [n, c], of the pictures in `keep`.
        source: has pictures and labels; its `multi_label` decides about the numbers.
        keep: indices in the source, [n], as `probabilities` has them.
        class_names: names by label.
        output: gets the files: evaluation.json with the numbers, `per_class` by name,
            up to 200 classes `confusion` by [label][prediction], the most frequent
            mistakes as `confused`, and the bins of `reliability`; mistakes.json and
            plots/.
        conditions: what the numbers are of, to stand in evaluation.json as `evaluated`.

    Returns:
        A line about each file, its path below `output` first.

    Raises:
        ValueError: the lengths disagree.
    """
    keep = [int(index) for index in keep]
    if np.shape(probabilities) != (len(keep), len(class_names)):
        raise ValueError(
            f"{len(keep)} pictures of {len(class_names)} classes, but probabilities "
            f"{list(np.shape(probabilities))}"
        )
    metrics = report_numbers(probabilities, source, keep)
    judged = _Judged(
        np.nan_to_num(np.asarray(probabilities, np.float64), posinf=0, neginf=0),
        numbers.targets_of(source, keep, len(class_names)),
        metrics,
        source,
        keep,
        class_names,
        output,
    )
    several = "threshold" in metrics
    lines, more = (_draw_answers if several else _draw_predictions)(judged)
    kept = {k: v for k, v in metrics.items() if k not in ("per_class", "confusion")}
    per_class = zip(distinct(class_names), metrics["per_class"], strict=True)
    if "confusion" in metrics and len(class_names) <= _MOST_CLASSES:
        more = {"confusion": metrics["confusion"]} | more
    evaluated = {"evaluated": conditions} if conditions is not None else {}
    write_json(
        output / "evaluation.json",
        kept | {"per_class": dict(per_class)} | more | evaluated,
    )
    return ["evaluation.json", *lines]


def distinct(class_names: Sequence[str]) -> list[str]:
    """The class names; those that occur twice with their label."""
    return [
        name if class_names.count(name) == 1 else f"{name} ({label})"
        for label, name in enumerate(class_names)
    ]


def draw_data(
    parts: Mapping[str, tuple[Source, Iterable[int]]],
    class_names: Sequence[str],
    output: Path,
) -> str:
    """Draw classes and sizes of the pictures, and give a line about the file.

    Args:
        parts: sources and the indices in use, by name, the training pictures first.
        class_names: names by label.
        output: gets plots/labels.png.
    """
    found = {}
    for name, (source, keep) in parts.items():
        examples = [source[int(index)] for index in keep]
        found[name] = Pictures(
            np.concatenate([np.zeros(0, np.int64), *(e.labels for e in examples)]),
            np.asarray([e.size for e in examples], np.int64).reshape(-1, 2),
        )
    plot_pictures(found, class_names, output / "plots" / "labels.png")
    return "plots/labels.png: classes and sizes of the pictures"


def draw_losses(
    examples: Sequence[Example],
    losses: Sequence[float],
    class_names: Sequence[str],
    output: Path,
) -> None:
    """Draw training pictures by their losses, and list them.

    Args:
        examples: the pictures, the worst first; at least one.
        losses: of each.
        class_names: names by label.
        output: gets plots/worst.png and worst.json.
    """
    labels = [[class_names[int(i)] for i in e.labels] for e in examples]
    cells = [_small(example) for example in examples]
    captions = [
        f"loss {loss:.3g}  {'+'.join(own)}  {Path(example.name).name}"
        for example, own, loss in zip(examples, labels, losses, strict=True)
    ]
    sheet = contact_sheet(
        cells,
        mistakes.COLUMNS,
        cell_size=mistakes.CELL,
        captions=captions,
    )
    save_image(output / "plots" / "worst.png", sheet)
    rows = [
        {"name": e.name, "image_id": e.image_id, "loss": float(loss), "labels": own}
        for e, own, loss in zip(examples, labels, losses, strict=True)
    ]
    write_json(output / "worst.json", rows)


class _Judged(NamedTuple):
    """Predictions beside what is right.

    Attributes:
        probabilities: float64 [n, c], finite.
        targets: bool [n, c], which labels each picture has.
        metrics: of both.
        source: where the pictures are from.
        keep: [n], their indices there.
        class_names: names by label.
        output: gets the files.
    """

    probabilities: np.ndarray
    targets: np.ndarray
    metrics: Mapping[str, Any]
    source: Source
    keep: Sequence[int]
    class_names: Sequence[str]
    output: Path

    def plot(self, name: str) -> Path:
        """The path of a plot."""
        return self.output / "plots" / name

    def shown(self, row: int, label: int, *, told: bool) -> mistakes.Shown:
        """A picture drawn as `label`; its caption says what it is where `told`."""
        example = self.source[self.keep[row]]
        caption = Path(example.name).name
        if told:
            own = np.flatnonzero(self.targets[row]).tolist()
            names = "+".join(self.class_names[i] for i in own) or "nothing"
            if label in own:
                names = f"{names}, missed {self.class_names[label]}"
            caption = f"is {names}  {caption}"
        score = float(self.probabilities[row, label])
        return mistakes.Shown(_small(example), label, score, caption)


def _small(example: Example) -> np.ndarray:
    """The picture fitted into a cell at once: photographs are large."""
    picture = decode_image(
        example.image,
        min_size=mistakes.CELL,
        decoding=example.decoding,
        may_shrink=True,
    )
    return fit_into(picture, mistakes.CELL)


def _draw_predictions(judged: _Judged) -> tuple[list[str], dict[str, Any]]:
    """The plots of one class a picture; a line about each, and the confused pairs."""
    metrics, class_names = judged.metrics, judged.class_names
    labels = numbers.labels_of(judged.source, judged.keep)
    predicted = judged.probabilities.argmax(axis=1)
    confidence = judged.probabilities.max(axis=1)
    some = labels >= 0
    confusion = np.asarray(metrics["confusion"])
    plot_confusion(confusion, class_names, judged.plot("confusion.png"))
    right = (predicted == labels)[some]
    bins = _draw_reliability(judged, confidence[some], right)
    counts = np.bincount(predicted, minlength=len(class_names))
    plot_classes(metrics, counts, class_names, judged.plot("classes.png"))
    lines = [
        "plots/confusion.png: which class is taken for which",
        "plots/reliability.png: how often it is right, by how sure it is",
        "plots/classes.png: predictions of each class, precision and recall",
    ]
    wrong = np.flatnonzero(some & (predicted != labels))
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
    lines += _draw_mistakes(judged, [(row, int(predicted[row])) for row in wrong])
    pairs = confused_pairs(confusion, LISTED)
    groups = []
    for label, taken, count in pairs[:PAIRS]:
        own = wrong[(labels[wrong] == label) & (predicted[wrong] == taken)]
        title = (
            f"{class_names[label]}, taken for {class_names[taken]}: "
            f"{count} of {metrics['per_class'][label]['support']}"
        )
        few = own[: mistakes.COLUMNS].tolist()
        groups.append((title, [judged.shown(row, taken, told=False) for row in few]))
    if groups:
        sheet = mistakes.titled_rows(groups, class_names)
        save_image(judged.plot("confused.png"), sheet)
        lines.append("plots/confused.png: pictures of the classes it confuses most")
    names = distinct(class_names)
    confused = [
        {"label": names[label], "prediction": names[taken], "pictures": count}
        for label, taken, count in pairs
    ]
    return lines, {"confused": confused, "reliability": bins}


def _draw_answers(judged: _Judged) -> tuple[list[str], dict[str, Any]]:
    """The plots of several labels a picture, and a line about each."""
    metrics, class_names = judged.metrics, judged.class_names
    answers = judged.probabilities >= metrics["threshold"]
    counts = answers.sum(axis=0)
    plot_classes(metrics, counts, class_names, judged.plot("classes.png"))
    confidence = np.where(answers, judged.probabilities, 1 - judged.probabilities)
    right = answers == judged.targets
    bins = _draw_reliability(judged, confidence.ravel(), right.ravel())
    lines = [
        "plots/reliability.png: how often an answer is right, by how sure it is",
        "plots/classes.png: answers of each class, precision and recall",
    ]
    wrong = np.argwhere(~right)
    order = np.argsort(-confidence[~right], kind="stable")
    pairs = [(int(row), int(label)) for row, label in wrong[order]]
    return lines + _draw_mistakes(judged, pairs), {"reliability": bins}


def _draw_reliability(
    judged: _Judged, confidence: np.ndarray, right: np.ndarray
) -> list[dict[str, float]]:
    """Plot how often predictions are right by confidence; the bins of the plot."""
    plot_reliability(confidence, right, judged.plot("reliability.png"))
    return numbers.reliability_rows(numbers.reliability(confidence, right))


def _draw_mistakes(judged: _Judged, wrong: Sequence[tuple[int, int]]) -> list[str]:
    """Draw and list mistakes, rows and classes, the surest first."""
    names = distinct(judged.class_names)
    listed, several = [], getattr(judged.source, "multi_label", False)
    for row, label in wrong:
        example = judged.source[judged.keep[row]]
        own = np.flatnonzero(judged.targets[row]).tolist()
        missed = bool(judged.targets[row, label])
        listed.append(
            {
                "name": example.name,
                "image_id": example.image_id,
                "labels": [names[i] for i in own],
                "class": names[label],
                **({"missed": missed} if several else {}),
                "probability": float(judged.probabilities[row, label]),
            }
        )
    write_json(judged.output / "mistakes.json", listed)
    if not wrong:
        return ["mistakes.json: none"]
    sheet = [judged.shown(*pair, told=True) for pair in wrong[:WORST]]
    picture = mistakes.sheet_of(sheet, judged.class_names)
    save_image(judged.plot("mistakes.png"), picture)
    return [
        "plots/mistakes.png, mistakes.json: its surest mistakes; look for wrong labels "
        "there"
    ]
