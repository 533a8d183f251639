"""Cross-validation: folds in a config, their numbers together, whole runs."""

import csv
import json
import math
import os
import signal
import subprocess

import numpy as np
import pytest

from tests.test_training import command, environment, run, write_config
from tests.tiny import tiny_config
from yolojax import (
    class_file,
    crossvalidating,
    datasets,
    experiment,
    folding,
    inference,
    pooling,
    settings,
)
from yolojax.engine import checkpoint
from yolojax.engine.log import read_metrics


def folds(index=0, count=3, **changes):
    chosen = {"count": count, "index": index, "kind": "plain", **changes}
    return tiny_config(data__val={}, data__folds=chosen)


def test_a_run_holds_one_fold_out():
    train = experiment.build(folds(1))
    source = train.train.source
    assert train.val is not None and train.val.source is source
    both = np.concatenate([train.train.keep, train.val.keep])
    np.testing.assert_array_equal(np.sort(both), np.arange(24))
    assert (len(train.val.keep), train.steps_per_epoch) == (8, 2)
    assert "fold 1 of 3 (plain): held out from config.data.train" in train.notes[0]
    # What is evaluated later is the same, and with all folds every picture.
    found = []
    for index in range(3):
        opened, fold = folding.open_evaluated(folds(index))
        data = datasets.Data(opened, np.arange(24), opened.report)
        found.append(folding.held_out_part(fold, data).keep)
    np.testing.assert_array_equal(found[1], train.val.keep)
    np.testing.assert_array_equal(np.sort(np.concatenate(found)), np.arange(24))


def test_without_folds_val_is_what_it_was():
    settings = tiny_config()
    source, fold = folding.open_evaluated(settings)
    assert fold is None and len(source) == 8
    data = datasets.Data(source, np.arange(8), source.report)
    assert folding.parts_of(fold, data) == (data, None)
    assert folding.training_part(fold, data) is folding.held_out_part(fold, data)


def test_a_fold_without_a_readable_picture_is_refused():
    fold = folding.Fold(2, 1, "plain", np.array([0, 0, 1]))
    source = datasets.open_source(tiny_config(), "train")
    data = datasets.Data(source, np.array([0, 1]), source.report)
    with pytest.raises(ValueError, match="fold 1 of 2.*held out none can be read"):
        fold.part(data, held_out=True)
    assert fold.num_training == 2


@pytest.mark.parametrize(
    "change, message",
    [
        ({"count": 1}, "count is 1"),
        ({"index": 3}, "index is 3, but there are 3 folds"),
        ({"count": 30}, "30, but there are only 24 pictures"),
        ({"kind": "stratified", "count": 20}, "class '.' has only"),
    ],
    ids=["one", "index", "pictures", "class"],
)
def test_wrong_folds_are_named_before_a_run(change, message):
    with pytest.raises(ValueError, match=message):
        experiment.build(folds(**change))


def test_cross_validation_is_refused_where_it_cannot_be(tmp_path):
    with pytest.raises(ValueError, match="give --folds"):
        crossvalidating.cross_validate(tiny_config(), tmp_path)
    fold = crossvalidating.fold_directory(tmp_path, 1)
    fold.mkdir()
    begun = crossvalidating.fold_settings(tiny_config(), 3, 1, "plain")
    (fold / "config.json").write_text(json.dumps(begun))
    message = "fold1 holds a run with another config: data.folds.count was 3, now 4"
    with pytest.raises(ValueError, match=message):
        crossvalidating.cross_validate(tiny_config(), tmp_path, count=4, kind="plain")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="holds a run; give another --workdir"):
        crossvalidating.cross_validate(tiny_config(), tmp_path, count=4)


def test_a_fold_that_was_begun_again_is_not_finished(tmp_path):
    chosen = tiny_config()
    assert not crossvalidating.is_finished(chosen, tmp_path)
    settings.write_config(chosen, tmp_path)
    assert not crossvalidating.is_finished(chosen, tmp_path)
    (tmp_path / "summary.json").write_text("{}")
    assert crossvalidating.is_finished(chosen, tmp_path)
    assert not crossvalidating.is_finished(tiny_config(epochs=3), tmp_path)
    os.utime(tmp_path / "summary.json", ns=(0, 0))
    assert not crossvalidating.is_finished(chosen, tmp_path)


def test_sigterm_ends_in_order_also_between_the_folds(capfd):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, crossvalidating.ending_on_sigterm():
        signal.raise_signal(signal.SIGTERM)
    assert ended.value.code == 128 + signal.SIGTERM
    assert "the same command goes on from there" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_mean_and_spread_are_over_the_folds_that_have_a_number():
    metrics = [
        {
            "mAP50": value,
            "small": None,
            "counts": {"images": 4},
            "per_class": {"cat": {"AP": value, "num_boxes": 3}},
            "confusion": [[1, 0], [0, 1]],
            "evaluated": {"score_threshold": 0.1},
        }
        for value in (0.2, 0.4, None)
    ]
    numbers = [crossvalidating.numbers_in(m) for m in metrics]
    assert list(numbers[0]) == ["mAP50", "small", "per_class/cat/AP"]
    found = crossvalidating.spread(numbers)
    assert found["mAP50"]["mean"] == pytest.approx(0.3)
    # The square root of (0.1^2 + 0.1^2) / (2 - 1).
    assert found["mAP50"]["std"] == pytest.approx(math.sqrt(0.02))
    assert math.isnan(found["small"]["mean"]) and math.isnan(found["small"]["std"])
    assert math.isnan(crossvalidating.spread(numbers[:1])["mAP50"]["std"])
    text = crossvalidating.format_spread(found).splitlines()
    assert text[2].split() == ["mAP50", "0.3000", "0.1414", "0.2000", "0.4000", "-"]
    assert text[-3].split() == ["class", "AP", "mean", "std"]
    assert text[-1].split() == ["cat", "0.3000", "0.1414"]


def classified(**changes):
    digits = {"source": "handwritten", "split": "test", "size": 32}
    given = {
        "image_size": (32, 32),
        "batch_size": 64,
        "model": {"name": "squeezenet1_1"},
        "data__train": digits,
        "data__val": {},
        "augment__policy": (),
        "loss__name": "cross_entropy",
    }
    return tiny_config(**given | changes)


def test_probabilities_of_all_folds_are_one_table_and_one_number(tmp_path):
    several = [
        crossvalidating.fold_settings(classified(), 2, i, "stratified") for i in (0, 1)
    ]
    source = datasets.open_source(several[0], "train")
    model = experiment.make_model(several[0], source.class_names)
    variables, runs, seen = model.init(0), [], []
    for index, chosen in enumerate(several):
        runs.append(crossvalidating.fold_directory(tmp_path, index))
        settings.write_config(chosen, runs[-1])
        class_file.write_classes(source.class_names, range(10), runs[-1])
        checkpoint.save_weights(runs[-1], variables)
        loaded = inference.load(runs[-1])
        pooling.predict_held_out(loaded, runs[-1], lambda *at: seen.append(at))
    data = datasets.Data(source, np.arange(len(source)), source.report)
    metrics, name = pooling.pool(data, runs, tmp_path)
    assert name == "out_of_fold.csv"
    with (tmp_path / name).open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["name", "label", "fold", *"0123456789"]
    labels = [int(source[index].labels[0]) for index in range(len(source))]
    assert [row[:2] for row in rows] == [
        [f"handwritten test {index}", str(label)] for index, label in enumerate(labels)
    ]
    assert sum(row[2] == "1" for row in rows) == seen[-1][1] == seen[-1][0]
    probabilities = np.array([row[3:] for row in rows], np.float64)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    assert metrics["accuracy"] == np.mean(probabilities.argmax(1) == labels)
    with pytest.raises(ValueError, match="hold [0-9]+ pictures, but config.data.train"):
        pooling.pool(
            datasets.Data(source, data.keep[1:], source.report), runs, tmp_path
        )


@pytest.mark.slow
def test_a_detector_is_cross_validated_and_goes_on_after_a_stop(tmp_path):
    config = write_config(tmp_path, epochs=2, data__val={}, log__pictures=0)
    arguments = ("crossval", "--config", config, "--workdir", "cv", "--folds", "2")
    options = ("--kind", "plain", "--config.log.worst=0")
    process = subprocess.Popen(
        command(*arguments, *options),
        env=environment(tmp_path),
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )
    second = tmp_path / "cv" / "fold1"
    while not any(row["step"] >= 2 for row in read_metrics(second / "metrics.csv")):
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=300) == 128 + signal.SIGTERM
    first = (tmp_path / "cv" / "fold0" / "predictions.json").stat().st_mtime_ns
    assert not (tmp_path / "cv" / "crossval.json").exists()

    done = run(tmp_path, *arguments, *options)
    assert done.returncode == 0, done.stderr
    assert "fold0 is finished" in done.stdout and "going on from step" in done.stdout
    parts = [tmp_path / "cv" / f"fold{index}" for index in range(2)]
    assert (parts[0] / "predictions.json").stat().st_mtime_ns == first
    found = json.loads((tmp_path / "cv" / "crossval.json").read_text())
    numbers = [json.loads((part / "evaluation.json").read_text()) for part in parts]
    values = [one["AR100"] for one in numbers]
    assert found["metrics"]["AR100"]["folds"] == values
    assert found["metrics"]["AR100"]["mean"] == pytest.approx(np.mean(values))
    assert found["metrics"]["AR100"]["std"] == pytest.approx(np.std(values, ddof=1))
    # Every picture was held out once, and is in the numbers of all together.
    assert found["out_of_fold"]["counts"]["images"] == 24
    assert sum(one["counts"]["images"] for one in numbers) == 24
    rows = json.loads((tmp_path / "cv" / "predictions.json").read_text())
    own = [json.loads((part / "predictions.json").read_text()) for part in parts]
    assert len(rows) == len(own[0]) + len(own[1])
    ids = [{row["image_id"] for row in part} for part in own]
    assert not ids[0] & ids[1]

    # A fold is a run like any other, and is evaluated on what it held out.
    done = run(tmp_path, "evaluate", "--workdir", "cv/fold1", "--output", "again")
    assert done.returncode == 0, done.stderr
    assert "fold 1 of 2 (plain): held out" in done.stdout
    again = json.loads((tmp_path / "again" / "evaluation.json").read_text())
    assert again["counts"] == numbers[1]["counts"]
    assert again["mAP50"] == numbers[1]["mAP50"]


@pytest.mark.slow
def test_a_classifier_is_cross_validated(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.test_training.tiny_config", classified)
    config = write_config(
        tmp_path, epochs=1, log__pictures=0, log__worst=0, optim__name="adamw"
    )
    arguments = ("crossval", "--config", config, "--workdir", "cv", "--folds", "2")
    done = run(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "cv" / "crossval.json").read_text())
    numbers = [
        json.loads((tmp_path / "cv" / f"fold{index}" / "evaluation.json").read_text())
        for index in range(2)
    ]
    values = [one["accuracy"] for one in numbers]
    counts = [one["num_pictures"] for one in numbers]
    assert found["metrics"]["accuracy"]["folds"] == values
    # Of a share, all together is the mean by the pictures of each fold.
    expected = np.average(values, weights=counts)
    assert found["out_of_fold"]["accuracy"] == pytest.approx(expected)
    assert found["out_of_fold"]["num_pictures"] == sum(counts)
    with (tmp_path / "cv" / "out_of_fold.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == sum(counts) + 1
    # Nothing is trained or predicted again.
    parts = [tmp_path / "cv" / f"fold{index}" / "out_of_fold.csv" for index in (0, 1)]
    before = [part.stat().st_mtime_ns for part in parts]
    done = run(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("is finished") == 2 and "epoch" not in done.stdout
    assert [part.stat().st_mtime_ns for part in parts] == before
