"""Pictures of a step's samples, and what is said of them."""

import re
import types

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict

from tests.tiny import tiny_config
from yolojax import command, preview, previewing

POLICY = (
    dict(name="mosaic", probability=0.5),
    dict(name="flip_left_right", probability=0.5),
    dict(name="mixup", probability=0.5),
)


def config(**changes):
    return tiny_config(augment__policy=POLICY, **changes)


def boxes_of(lines):
    """The boxes that the text lists, by class."""
    found = [line.split() for line in lines if line.startswith("box ")]
    return sorted((name.rstrip(":"), *map(float, sides)) for _, name, *sides in found)


def test_a_sample_alone_and_each_augmentation_are_two_pictures(monkeypatch):
    given = types.SimpleNamespace(
        config=ConfigDict(config()), output="x.png", step=0, each=True, index=3
    )
    monkeypatch.setattr(command, "FLAGS", given)
    with pytest.raises(ValueError, match="--each draws no single sample"):
        preview.main()


@pytest.mark.parametrize(
    "cache, devices, index",
    [("none", 1, 1), pytest.param("device", 2, 6, marks=pytest.mark.slow)],
)
def test_a_sample_is_told_with_its_pictures_and_matrices(
    tmp_path, cache, devices, index
):
    settings = config(data__cache=cache, devices=devices)
    path = tmp_path / "sample.png"
    lines = previewing.draw_sample(settings, path, step=1, index=index)
    assert lines[0] == f"sample {index} of step 1, seed 0, 64x64 px"
    (changed,) = re.findall("changed by: (.*)", lines[1])
    assert set(changed.split(", ")) <= {entry["name"] for entry in POLICY}
    pictures = [line for line in lines if line.startswith("digits train ")]
    assert len(pictures) == (4 if "mosaic" in changed else 1)
    assert all(", 64x64 px, into the sample by" in line for line in pictures)
    matrix = np.array([lines[i].split() for i in (3, 4, 5)], float)
    np.testing.assert_array_equal(matrix[2], [0, 0, 1])
    assert (matrix[0, 0] < 0) == ("flip_left_right" in changed)
    mixed = [line for line in lines if line.startswith("mixup: with sample ")]
    assert len(mixed) == ("mixup" in changed)
    assert cv2.imread(str(path)).shape[1] > 600


def test_a_sample_without_changes_keeps_its_boxes(tmp_path):
    settings = tiny_config(augment__policy=(), augment__multi_scale=(0.5,))
    lines = previewing.draw_sample(settings, tmp_path / "p.png", step=0, index=2)
    assert lines[0].endswith("32x32 px")
    assert lines[1] == "changed by: "
    matrix = np.array([line.split() for line in lines[3:6]], float)
    np.testing.assert_array_equal(matrix, np.diag([0.5, 0.5, 1]))
    number = int(re.findall("digits train (\\d+)", lines[2])[0])
    run = previewing.experiment.build(settings)
    example = run.train.source[number]
    names = run.train.source.class_names
    expected = sorted(
        (names[label], *(box / 2).tolist())
        for label, box in zip(example.labels, example.boxes, strict=True)
    )
    for found, wanted in zip(boxes_of(lines), expected, strict=True):
        assert found[0] == wanted[0]
        np.testing.assert_allclose(found[1:], wanted[1:], atol=0.06)


@pytest.mark.slow
def test_the_preview_of_a_batch_is_a_sheet(tmp_path):
    path = tmp_path / "batch.png"
    assert previewing.draw_batch(config(), path, step=3) == 8
    assert cv2.imread(str(path)) is not None


def test_a_place_that_is_not_in_the_batch_is_refused(tmp_path):
    with pytest.raises(ValueError, match="--index is 8, but a step has 8 samples"):
        previewing.draw_sample(config(), tmp_path / "p.png", step=0, index=8)


def test_each_augmentation_has_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr(previewing, "AUGMENTATIONS", ("identity", "mosaic", "hsv"))
    told = []
    settings = tiny_config(augment__policy=(dict(name="hsv", probability=0.0),))
    path = tmp_path / "each.png"
    count = previewing.draw_each(
        settings, path, step=0, progress=lambda done, total: told.append((done, total))
    )
    assert count == 3
    assert told == [(1, 3), (2, 3), (3, 3)]
    image = cv2.imread(str(path))
    assert image.shape[0] > 3 * 224 and image.shape[1] < 5 * 240


@pytest.mark.slow
def test_classes_are_captions_and_only_what_suits_them_is_shown(tmp_path, monkeypatch):
    settings = tiny_config(
        image_size=(32, 32),
        model={"name": "cnn5"},
        loss={"name": "cross_entropy"},
        data__train={"source": "handwritten"},
        data__val={},
        augment__policy=(dict(name="cutmix", probability=1.0),),
    )
    path = tmp_path / "sample.png"
    lines = previewing.draw_sample(settings, path, step=0, index=1)
    assert not boxes_of(lines)
    # Two digits and their shares, or one where both are the same.
    shares = re.findall(r"(\d+)% (\d)", lines[-1].removeprefix("classes: "))
    assert lines[-1].startswith("classes: ")
    assert not shares or len(shares) == 2 and sum(int(n) for n, _ in shares) == 100
    assert cv2.imread(str(path)) is not None
    names = ("identity", "mosaic", "copy_paste", "cutmix")
    monkeypatch.setattr(previewing, "AUGMENTATIONS", names)
    path = tmp_path / "each.png"
    told = []
    count = previewing.draw_each(
        settings, path, step=0, progress=lambda done, total: told.append((done, total))
    )
    assert count == 2 and told == [(1, 2), (2, 2)]
