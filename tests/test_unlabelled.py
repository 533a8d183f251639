"""Pictures without labels in a classifier's training."""

import dataclasses
import os
import signal
import types

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests.data.classified import paint
from tests.tiny import tiny_config
from yolojax import datasets, training, unlabelled
from yolojax.data.pseudo import PseudoLabelled
from yolojax.engine import sharding
from yolojax.engine.log import read_metrics

DIGITS = {"source": "handwritten"}


def config(**changes):
    """140 labelled digits of 16 px, of others a part without labels."""
    given = {
        "image_size": (16, 16),
        "batch_size": 16,
        "epochs": 3,
        "model": {"name": "cnn5"},
        "loss": {"name": "cross_entropy"},
        "data__train": {**DIGITS, "split": "val", "size": 16},
        "data__unlabelled": {**DIGITS, "split": "test", "size": 16},
        "data__val": {},
        "data__sampling": {"fraction": 0.25},
        "data__pseudo_labels": {"threshold": 0.1},
        "augment__policy": ({"name": "mixup", "probability": 0.5},),
        "checkpoint": {"every_epochs": 1, "best": "loss"},
        "early_stopping": {"metric": "loss"},
        "log__pictures": 0,
        "log__worst": 0,
    }
    return tiny_config(**(given | changes))


def test_pictures_without_labels_stand_behind_the_others():
    settings = config(data__sampling={})
    source = datasets.open_source(settings, "train")
    data = datasets.look_at_pictures(settings, source)
    joined = unlabelled.join(settings, data)
    others = unlabelled.unlabelled_of(joined)
    assert len(joined.keep) == len(data.keep) + len(others) == 140 + 355
    assert others.tolist() == list(range(140, 495))
    assert joined.report.notes["picture of data.unlabelled"] == 355
    parts = datasets.parts_by_name(joined, data)
    assert [len(keep) for _, keep in parts.values()] == [140, 355, 140]
    assert list(parts) == ["train", "unlabelled", "val"]
    plain = config(data__unlabelled={})
    assert unlabelled.join(plain, data) is data
    assert unlabelled.pseudo_labelled(plain, data, data) is data
    assert unlabelled.make_refresh(plain, None, None, data, None) is None
    assert list(datasets.parts_by_name(data, None)) == ["train"]


def test_unreadable_pictures_without_labels_are_left_out(tmp_path):
    for name in "abc":
        paint(tmp_path / f"{name}.png", size=(16, 16))
    (tmp_path / "b.png").write_bytes(b"no picture")
    part = {"source": "folder", "root": str(tmp_path)}
    settings = config(data__unlabelled=part)
    source = datasets.open_source(settings, "train")
    data = datasets.look_at_pictures(settings, source)
    joined = unlabelled.join(settings, data, workdir=tmp_path)
    assert len(joined.keep) == len(data.keep) + 2
    assert joined.report.counts == {"unreadable picture": 1}
    assert (tmp_path / "scan_unlabelled.json").exists()


def test_a_threshold_above_what_smoothing_aims_at_is_told():
    # 1 - 0.1 + 0.1 / 10
    for threshold, told in ((0.92, True), (0.91, False)):
        settings = config(
            data__pseudo_labels={"threshold": threshold},
            loss={"name": "cross_entropy", "label_smoothing": 0.1},
        )
        source = datasets.open_source(settings, "train")
        data = datasets.Data(source, np.arange(5), source.report)
        text = unlabelled.join(settings, data).report.render()
        assert ("label smoothing of 0.1 aims at a probability of 0.91" in text) == told


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"data__cache": "device"}, "needs config.data.cache 'encoded', 'disk' or"),
        ({"stages": ({"epochs": 1, "data_fraction": 0.5},)}, "epochs of the same len"),
        ({"data__unlabelled": {"root": "x"}}, "config.data.unlabelled needs source="),
    ],
)
def test_what_does_not_go_with_pseudo_labels_is_refused(changes, message):
    settings = config(**changes)
    source = datasets.open_source(settings, "train")
    data = datasets.Data(source, np.arange(len(source)), source.report)
    with pytest.raises(ValueError, match=message):
        unlabelled.join(settings, data)


def test_pseudo_labels_are_of_one_class_a_picture():
    class Boxes:
        pass

    with pytest.raises(ValueError, match="is for classifiers, but config.data.train"):
        unlabelled.check(config(), Boxes())
    several = Boxes()
    several.multi_label = True
    with pytest.raises(ValueError, match="needs pictures with one label each"):
        unlabelled.check(config(), several)
    unlabelled.check(config(data__unlabelled={}), several)


def test_probabilities_above_the_threshold_are_labels_when_they_are_due():
    # Class 1 is much ink, class 0 little.
    def apply(variables, images, *, train):
        assert not train
        ink = jnp.mean(images, axis=(1, 2, 3))
        ink = variables["gain"] * (ink - 0.3)
        return (jnp.stack([jnp.zeros_like(ink), ink], 1),), {}

    settings = config(data__pseudo_labels={"threshold": 0.6, "every_epochs": 2})
    source = datasets.open_source(settings, "train")
    data = datasets.Data(source, np.arange(len(source)), source.report)
    joined = unlabelled.join(settings, data)
    keep = np.r_[joined.keep[:10], joined.keep[-10:]]
    joined = dataclasses.replace(joined, keep=keep)
    stream = types.SimpleNamespace(steps_per_epoch=5)
    batches = unlabelled.pseudo_labelled(settings, stream, joined)
    mesh, model = sharding.make_mesh(1), types.SimpleNamespace(apply=apply)
    refresh = unlabelled.make_refresh(settings, model, mesh, joined, batches)
    variables = {"gain": np.float32(40)}
    assert refresh is not None and refresh(5, variables) == {}
    numbers = refresh(10, variables)
    expected = np.full(len(joined.source), -1)
    for index in keep[10:]:
        ink = joined.source[index].image.astype(np.float64).mean() / 255
        likely = 1 / (1 + np.exp(40 * (0.3 - ink)))
        expected[index] = 1 if likely >= 0.6 else 0 if likely <= 0.4 else -1
    assert len(set(expected.tolist())) == 3
    np.testing.assert_array_equal(batches.table, expected)
    share = (expected >= 0).sum() / 10
    assert numbers == {"pseudo/labelled_share": share, "pseudo/changed_share": share}


def final_arrays(workdir):
    steps = [int(p.name) for p in (workdir / "checkpoints").iterdir()]
    folder = (workdir / "checkpoints" / str(max(steps)) / "state").resolve()
    with ocp.StandardCheckpointer() as reader:
        return reader.restore(folder)


@pytest.mark.slow
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path, monkeypatch):
    tables, next_batch, count = [], PseudoLabelled.__next__, [0]

    def counted(self):
        count[0] += 1
        tables.append(self.table)
        # In the midst of the second epoch, with labels from the end of the first.
        if count[0] == 12:
            os.kill(os.getpid(), signal.SIGTERM)
        return next_batch(self)

    settings = config()
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert training.train(settings, whole) == 0
    monkeypatch.setattr(PseudoLabelled, "__next__", counted)
    assert training.train(settings, parts) == 128 + signal.SIGTERM
    labelled = [int((table >= 0).sum()) for table in tables]
    assert labelled[:8] == [0] * 8 and labelled[8] > 0
    assert training.train(settings, parts) == 0
    assert count[0] == 3 * 8
    jax.tree.map(
        np.testing.assert_array_equal, final_arrays(whole), final_arrays(parts)
    )
    rows = [row for row in read_metrics(whole) if "pseudo/labelled_share" in row]
    shares = [row["pseudo/labelled_share"] for row in rows]
    assert sum(np.isfinite(shares)) == 3 and np.nanmax(shares) > 0
