"""Classes of pictures, by classifiers whose answers are known: the mean colour."""

import types

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax import classifying, evaluating, inference, settings
from yolojax.classifying import ClassPredictor, Views
from yolojax.engine import sharding

RED, GREEN = (255, 0, 0), (0, 255, 0)


def apply(variables, images, *, train):
    assert not train and images.shape[1:] == (16, 16, 3)
    return (variables["gain"] * jnp.mean(images, axis=(1, 2)),), {}


def known(
    gain=4.0,
    *,
    names=("red", "green", "blue"),
    loss="cross_entropy",
    policy=(),
    letterbox="square",
):
    """A loaded classifier that answers with the mean colour times `gain`."""
    chosen = settings.complete(
        {
            "image_size": (16, 16),
            "model": {"name": "cnn11"},
            "loss": {"name": loss},
            "data": {"num_threads": 1},
            "augment": {"policy": policy},
            "evaluate": {"letterbox": letterbox},
        }
    )
    return inference.Loaded(
        settings=chosen,
        model=types.SimpleNamespace(apply=apply, name="known"),  # type: ignore[arg-type]
        variables={"gain": np.float32(gain)},
        class_names=names,
        category_ids=(0, 1, 2),
        mesh=sharding.make_mesh(1),
        step=0,
        origin=f"runs/{loss}/{'-'.join(names)}",
    )


def plain(*colour, size=(20, 20)):
    return np.full((*size, 3), colour, np.uint8)


def softmax(*logits):
    powers = np.exp(logits)
    return powers / powers.sum()


def test_a_centre_crop_sees_nothing_of_the_ends_of_a_picture():
    picture = plain(*GREEN, size=(20, 60))
    picture[:, 15:45] = RED
    found = [
        ClassPredictor([known(letterbox=letterbox)], batch_size=1)([picture])[0]
        for letterbox in ("centre_crop", "square")
    ]
    np.testing.assert_allclose(found[0], softmax(4, 0, 0), atol=1e-6)
    # A third of the canvas is the picture, half of it green; the rest is grey.
    assert found[1][0] < 0.5


def test_probabilities_are_the_mean_over_the_members():
    predict = ClassPredictor([known(4.0), known(1.0)], batch_size=2)
    assert predict([]).shape == (0, 3)
    found = predict([plain(*RED), plain(*GREEN)])
    assert found.dtype == np.float32
    expected = (softmax(4, 0, 0) + softmax(1, 0, 0)) / 2
    np.testing.assert_allclose(found, [expected, expected[[1, 0, 2]]], atol=1e-6)
    # Fewer than go through together.
    np.testing.assert_allclose(predict([plain(*RED)]), [expected], atol=1e-6)
    with pytest.raises(ValueError, match="at most 2 pictures at a time"):
        predict([plain(*RED)] * 3)


def test_classifiers_of_several_labels_decide_each_by_itself():
    predict = ClassPredictor([known(loss="multi_label")], batch_size=1)
    expected = 1 / (1 + np.exp([-4.0, -4.0, 0.0]))
    np.testing.assert_allclose(predict([plain(255, 255, 0)]), [expected], atol=1e-6)


BRIGHT = ({"name": "brightness", "factor": 0.9},)
HALF_RED = np.array(RED) // 2


def find(batch_size, pictures, first=0, **views):
    loaded = known(policy=BRIGHT)
    predict = ClassPredictor([loaded], batch_size=batch_size, views=Views(**views))
    return predict(pictures, first)


def test_views_are_weighed_and_go_by_the_place_of_the_picture():
    one = plain(*HALF_RED)
    [without] = find(1, [one])
    seen = find(3, [one] * 3, count=2, plain_weight=0.0)
    assert np.ptp(seen[:, 0]) > 1e-3  # each picture has its own views
    # The second picture, in a batch of its own.
    [both] = find(1, [one], first=1, count=2, plain_weight=0.25)
    np.testing.assert_allclose(both, 0.25 * without + 0.75 * seen[1], atol=1e-6)


@pytest.mark.slow
def test_the_seed_decides_the_views():
    first, again, other = (
        find(2, [plain(*HALF_RED)] * 2, count=1, plain_weight=0.0, seed=seed)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(other - first)[:, 0].min() > 1e-4


def test_a_policy_without_entries_shows_the_plain_view():
    predict = ClassPredictor([known()], batch_size=1, views=Views(3, 0.0))
    found = predict([plain(*RED, size=(16, 16))])
    np.testing.assert_allclose(found, [softmax(4, 0, 0)], atol=1e-5)
    note = classifying.views_note([known()], Views(3))
    assert "config.augment.policy): its views are the picture itself" in note
    assert classifying.views_note([known()], Views(0)) == ""


def test_wrong_views_and_members_are_refused():
    with pytest.raises(ValueError, match="weight is from 0 to 1, not 2 and 1.5"):
        Views(2, 1.5)
    with pytest.raises(ValueError, match="0 or more, .* not -1 and 0.5"):
        Views(-1)
    other = known(names=("red", "blue", "green"))
    with pytest.raises(ValueError, match="same classes in the same order: runs/cross"):
        ClassPredictor([known(), other], batch_size=1)
    with pytest.raises(
        ValueError,
        match="is a classifier of one label, .* is a classifier of several labels",
    ):
        ClassPredictor([known(), known(loss="multi_label")], batch_size=1)


def test_an_ensemble_is_evaluated_on_the_pictures_of_val(tmp_path, monkeypatch):
    for part in ("train", "val"):
        for number, name in enumerate(("a", "b", "c")):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            # Blue first; the last class is painted wrongly.
            colour = np.roll([0, 0, 255], -min(number, 1))
            picture = np.full((16, 16, 3), colour, np.uint8)
            cv2.imwrite(str(folder / "1.png"), picture)
            cv2.imwrite(str(folder / "2.png"), picture[:8])
    members = [known(gain, names=("a", "b", "c")) for gain in (4.0, 1.0)]
    chosen = members[0].settings
    val = {"source": "folder", "root": str(tmp_path), "split": "val"}
    chosen["data"]["val"], chosen["batch_size"] = val, 4
    written = []
    monkeypatch.setattr(
        evaluating.class_report,
        "write_report",
        lambda *given, **more: written.append((given, more)) or ["evaluation.json"],
    )
    seen = []
    metrics, lines = classifying.evaluate_classifiers(
        members, Views(), tmp_path, lambda done, total: seen.append((done, total))
    )
    assert lines == ["evaluation.json"] and seen == [(4, 6), (6, 6)]
    np.testing.assert_allclose(metrics["accuracy"], 4 / 6)
    [((probabilities, *_), more)] = written
    expected = (softmax(4, 0, 0) + softmax(1, 0, 0)) / 2
    np.testing.assert_allclose(probabilities[0], expected, atol=1e-6)
    assert more["conditions"]["weights"] == [member.origin for member in members]
