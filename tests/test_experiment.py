"""What is wrong with a config is said before anything is compiled."""

import json

import numpy as np
import pytest

from tests.tiny import tiny_config
from yolojax import experiment


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"image_size": (64, 65)}, r"\(64, 65\).* divisible by 32.*\(64, 64\)"),
        ({"image_size": (0,)}, "one or two positive integers"),
        ({"batch_size": 6, "devices": 4}, "batch_size 6.*4 devices.*Nearest: 8"),
        ({"devices": 64}, "config.devices is 64"),
        ({"checkpoint__keep": 0}, "checkpoint.keep must be at least 1"),
        ({"dtype": "int8"}, "config.dtype must be one of.*'int8'"),
        ({"model__name": "yolov5z"}, "no model named 'yolov5z'.*Did you mean"),
        ({"model__wdth": 1}, "config.model has no argument 'wdth'"),
        ({"model__num_classes": 3}, "num_classes is 3.*10 classes.*num_classes=10"),
        ({"data__train": {}}, "config.data.train needs source="),
        ({"data__train": {"source": "cocoo"}}, "no source named 'cocoo'.*'coco'"),
        ({"data__train": {"source": "digits", "splt": 1}}, "no argument 'splt'"),
        ({"data__cache": "disc"}, "'disc'"),
        ({"loss__name": "yolov9"}, "no loss named 'yolov9'"),
        (
            {"loss__name": "yolov3", "loss__arguments": {"a": 1}},
            "'yolov3' is for other heads than that of yolov5n",
        ),
        ({"optim__name": "sdg"}, "no optimizer named 'sdg'.*'sgd'"),
        ({"optim__schedule": "cos"}, "no schedule named 'cos'.*cosine"),
        (
            {"augment__policy": ({"name": "mosiac"},)},
            "no augmentation named 'mosiac'.*'mosaic'",
        ),
        (
            {"data__val": {}, "early_stopping__patience": 3},
            "patience needs config.data.val",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_configs_are_named_with_the_way_out(changes, message):
    with pytest.raises(ValueError, match=message):
        experiment.build(tiny_config(**changes)).train_batches()


def test_boxes_without_room_are_reported():
    run = experiment.build(tiny_config(data__max_boxes=4))
    counts = [len(run.train.source[i].labels) for i in run.train.keep.tolist()]
    assert run.train.report.notes["box without room"] == sum(
        max(0, count - 4) for count in counts
    )
    assert "config.data.max_boxes is 4" in run.train.report.render()
    # Their places are known all the same.
    assert run.max_boxes >= max(counts) > 4


def test_the_share_of_boxes_that_may_have_no_row_is_reported_before_training():
    run = experiment.build(tiny_config(augment__max_boxes=6))
    most = 4 * max(len(run.train.source[i].labels) for i in run.train.keep.tolist())
    (note,) = [note for note in run.notes if "rows for them" in note]
    assert f"can show {most} boxes, but has 6 rows" in note
    assert f"config.augment.max_boxes={most}" in note
    assert not [n for n in experiment.build(tiny_config()).notes if "rows for" in n]


def test_missing_folder_is_named(tmp_path):
    source = {"source": "voc", "root": str(tmp_path / "nothing"), "split": "train"}
    with pytest.raises(ValueError, match="nothing"):
        experiment.build(tiny_config(data__train=source))


def test_class_names_of_train_and_val_must_agree(tmp_path):
    annotations = tmp_path / "a.json"
    annotations.write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "a.png", "height": 8, "width": 8}],
                "annotations": [],
                "categories": [{"id": 1, "name": "cat"}],
            }
        )
    )
    from yolojax.vis.draw import save_image

    save_image(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    val = {"source": "coco", "images": str(tmp_path), "annotations": str(annotations)}
    with pytest.raises(ValueError, match="val has cat; they must be the same"):
        experiment.build(tiny_config(data__val=val))


def test_a_training_set_without_any_box_is_refused(tmp_path):
    from yolojax.vis.draw import save_image

    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    save_image(tmp_path / "images" / "a.png", np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "labels" / "a.txt").write_text("")
    (tmp_path / "data.yaml").write_text("train: images\nnames: [cat]\n")
    source = {"source": "yolo", "yaml": str(tmp_path / "data.yaml")}
    changes = {"data__train": source, "data__val": {}, "model__num_classes": 0}
    with pytest.raises(ValueError, match="no picture has a box"):
        experiment.build(tiny_config(**changes))
