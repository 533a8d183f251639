"""Several detectors and views as one, with detectors whose answers are known."""

import numpy as np
import pytest

from tests.engine.test_evaluate import KnownDetector, raw_maps, sigmoid
from tests.tiny import tiny_config
from yolojax import class_file, ensembling, inference, settings
from yolojax.engine import checkpoint, sharding
from yolojax.models.detector import build_model
from yolojax.ops.views import PLAIN, USUAL, View


@pytest.mark.parametrize(
    "texts, expected",
    [
        (["1", "0.83m", "0.67"], USUAL),
        ([" 1.5 ", ".5m"], (View(1.5), View(0.5, True))),
    ],
)
def test_views_are_their_scales_and_an_m_for_mirrored(texts, expected):
    assert ensembling.parse_views(texts) == expected


@pytest.mark.parametrize("text", ["0", "x", "1.5k", "-1", "", "9", "m"])
def test_what_is_no_view_is_refused(text):
    with pytest.raises(ValueError, match=f"no view '{text}': give a scale above 0"):
        ensembling.parse_views([text])


def asked(num_weights=1, **given):
    flags = dict(augment=False, scales=None, merge=None, merge_iou=None)
    return ensembling.asked_for(num_weights, **flags | given)


def test_flags_say_whether_and_how_to_merge():
    assert asked() is None
    assert asked(augment=True) == ensembling.Merging(USUAL, "wbf", None)
    assert asked(2, merge="nms") == ensembling.Merging((PLAIN,), "nms", None)
    found = asked(2, augment=True, scales=["2m"], merge_iou=0.7)
    assert found == ensembling.Merging((View(2, True),), "wbf", 0.7)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"merge": "nms"}, "--merge is for several views or networks: add --augment"),
        ({"scales": ["1"]}, "--scales are those of --augment"),
        ({"num_weights": 2, "merge": "wfb"}, "no merge named 'wfb'. Did you mean 'wbf"),
        ({"augment": True, "merge_iou": 2.0}, "the iou of a merge is from 0 to 1"),
    ],
)
def test_flags_that_nothing_uses_or_that_cannot_be_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        asked(**given)


def known(*rows, names=("a", "b", "c"), name="yolov5n"):
    """A loaded detector that answers with these rows of `raw_maps`."""
    return inference.Loaded(
        settings={
            "image_size": (64, 64),
            "data": {"num_threads": 1},
            "model": {"name": name},
            "loss": {"name": "cross_entropy"},
        },
        model=KnownDetector(),  # type: ignore[arg-type]
        variables=raw_maps([rows]),
        class_names=names,
        category_ids=(0, 1, 2),
        mesh=sharding.make_mesh(1),
        step=0,
        origin="/".join(names),
    )


def test_detectors_of_other_classes_are_no_ensemble():
    with pytest.raises(ValueError, match="a/b/c knows a, b, c; b/a knows b, a"):
        ensembling.check_members([known(), known(names=("b", "a"))])
    with pytest.raises(ValueError, match="is a detector, a/b/c is a classifier of one"):
        ensembling.check_members([known(), known(name="resnet18")])


def test_networks_of_several_folds_are_told_to_flatter_themselves():
    def of_fold(index, count=3):
        member = known(names=(str(index),))
        folds = {"count": count, "index": index, "kind": "plain", "groups": ""}
        member.settings["data"]["folds"] = folds
        return member

    note = ensembling.fold_note([of_fold(1), of_fold(0), of_fold(1), of_fold(2)])
    assert "those that fold 1 left out, and 0, 2 may have trained on them" in note
    assert ensembling.fold_note([of_fold(1), of_fold(1)]) is None
    # Judged on other pictures: no folds in the first one's settings.
    assert ensembling.fold_note([of_fold(0, count=0), of_fold(1)]) is None


def test_two_detectors_agree_on_one_box_and_halve_the_other():
    members = [known((3, 3, 2.0, 0)), known((3, 3, 1.0, 0), (6, 6, 3.0, 1))]
    find = ensembling.MergedPredictor(
        members,
        ensembling.Merging((PLAIN,)),
        score_threshold=0.25,
        iou_threshold=0.45,
        batch_size=2,
    )
    assert find([]) == []
    [(boxes, labels, scores)] = find([np.zeros((64, 64, 3), np.uint8)])
    np.testing.assert_allclose(boxes, [[22, 19, 34, 37], [46, 43, 58, 61]], atol=1e-4)
    np.testing.assert_array_equal(labels, [0, 1])
    expected = [(sigmoid(2) + sigmoid(1)) / 2, sigmoid(3) / 2]
    np.testing.assert_allclose(scores, expected, atol=1e-6)


@pytest.mark.slow
def test_a_detector_twice_is_that_detector(tmp_path):
    # Small boxes, of which few are cut by the picture's sides.
    anchors = (((3, 3), (4, 4), (5, 5)),) * 3
    config = tiny_config(evaluate__score_threshold=1e-6, model__anchors=anchors)
    settings.write_config(config, tmp_path)
    names = [str(i) for i in range(10)]
    class_file.write_classes(names, range(10), tmp_path)
    checkpoint.save_weights(tmp_path, build_model(**config["model"]).init(0))
    loaded = inference.load(tmp_path)
    once = inference.evaluate_detector(loaded, tmp_path / "one")
    how = ensembling.Merging((PLAIN,), "nms", 0.999)
    seen = []
    twice = ensembling.evaluate_detectors(
        [loaded, loaded], how, tmp_path / "two", lambda done, total: seen.append(done)
    )
    assert once["counts"]["detections"] == twice["counts"]["detections"] > 0
    rows = [(tmp_path / n / "predictions.json").read_text() for n in ("one", "two")]
    assert rows[0] == rows[1]
    assert once["mAP50"] == twice["mAP50"] and seen[-1] == 8
