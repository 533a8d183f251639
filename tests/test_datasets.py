"""From settings to batches."""

import dataclasses
import json

import numpy as np
import pytest

from tests.data.classified import paint
from tests.tiny import tiny_config
from yolojax import datasets, experiment
from yolojax.data.sources import SOURCES


@pytest.mark.parametrize(
    "letterbox, shape",
    # 64 px and half a stride of 32, rounded up to a multiple of the stride
    [("square", (64, 64)), ("rectangular", (96, 96))],
)
def test_the_letterbox_of_the_config_decides_the_canvas(letterbox, shape):
    settings = tiny_config(evaluate__letterbox=letterbox, evaluate__batch_size=6)
    source = datasets.open_source(settings, "val")
    data = datasets.look_at_pictures(settings, source)
    batches = datasets.make_eval_batches(settings, data, stride=32)
    assert batches.shapes == (shape,)
    served = list(batches)
    assert [batch.image.shape for batch in served] == [(6, *shape, 3)] * 2
    ids = np.concatenate([batch.image_id for batch in served])
    assert sorted(ids) == [-1] * 4 + list(range(8))


def test_a_fraction_is_trained_on_and_the_steps_follow():
    run = experiment.build(tiny_config(data__sampling={"fraction": 0.5}))
    assert len(run.train.keep) == 12 and run.steps_per_epoch == 2
    whole = experiment.build(tiny_config())
    assert set(run.train.keep) < set(whole.train.keep)
    assert run.val is not None and len(run.val.keep) == 8


def test_a_sampler_decides_how_often_pictures_come():
    sampling = {"name": "repeat_factor", "threshold": 1.0}
    run = experiment.build(tiny_config(data__sampling=sampling))
    assert run.repeats is not None and run.repeats.min() >= 1
    length = round(run.repeats.sum())
    assert run.steps_per_epoch == -(-length // 8) > 3


@pytest.mark.parametrize(
    "sampling, message",
    [
        ({"name": "shufle"}, "no sampler named 'shufle'. Did you mean 'shuffle'"),
        ({"name": "shuffle", "threshold": 1.0}, "has no argument 'threshold'"),
        ({"name": "repeat_factor", "labels": 1}, "has no argument 'labels'"),
        ({"fraction": 0.0}, "data.sampling .*fraction is 0.0, expected above 0"),
        ({"fraction": "half"}, "fraction must be a number, not 'half'"),
        ({"name": "repeat_factor", "threshold": 2.0}, "threshold is 2.0, expected"),
    ],
)
def test_wrong_sampling_is_named(sampling, message):
    with pytest.raises(ValueError, match=message):
        experiment.build(tiny_config(data__sampling=sampling))


def test_pictures_without_any_label_are_no_training_data(tmp_path):
    for name in ("a", "b"):
        paint(tmp_path / f"{name}.png")
    part = {"source": "folder", "root": str(tmp_path)}
    settings = tiny_config(data__unlabelled=part)
    settings["data"]["train"] = part
    with pytest.raises(ValueError, match="config.data.train .* 2 pictures, but none"):
        datasets.open_source(settings, "train")
    assert len(datasets.open_source(settings, "unlabelled")) == 2


def test_pictures_for_pseudo_labels_are_not_parted(tmp_path):
    for number in range(10):
        paint(tmp_path / f"-1_{number}.png")
    part = {"source": "filename", "root": str(tmp_path)}

    def found(**more):
        chosen = tiny_config(data__unlabelled={**part, **more})
        return len(datasets.open_source(chosen, "unlabelled"))

    assert found() == found(split="train") == 10
    # Asked for, it is done.
    assert found(fractions=(0.5, 0.5)) == 5
    assert found(split="val", fractions=(0.7, 0.3)) == 3


@pytest.mark.parametrize("name", ["folder", "filename"])
def test_pictures_that_lie_as_another_source_takes_them_are_told(tmp_path, name):
    for part in ("train", "val"):
        for kind in ("cat", "dog"):
            file = f"{kind}_1.png" if name == "folder" else f"{kind}/p1x.png"
            paint(tmp_path / part / file)
    settings = tiny_config()
    settings["data"]["train"] = {"source": name, "root": str(tmp_path)}
    other = {"folder": "filename", "filename": "folder"}[name]
    message = rf"classes \(cat, dog\): take --config.data.train.source={other}"
    with pytest.raises(ValueError, match=message):
        datasets.open_source(settings, "train")


def test_a_single_class_is_noted(tmp_path):
    paint(tmp_path / "roses" / "a.png")
    paint(tmp_path / "roses" / "b.png")
    settings = tiny_config()
    settings["data"]["train"] = {"source": "folder", "root": str(tmp_path)}
    text = datasets.open_source(settings, "train").report.render()
    assert "only one class" in text and "'roses'; there is nothing to tell" in text


def class_folders(root, *names):
    for name in names:
        for number in range(2):
            paint(root / name / f"{number}.png")


@pytest.mark.parametrize(
    "names, advice",
    [
        (("images/cat", "images/dog"), "--config.data.root={}/images"),
        (("a/b/cat", "a/b/dog", "a/b/cow"), "--config.data.root={}/a/b"),
        (("pets/train/cat", "pets/val/cat"), "--config.data.root={}/pets"),
        (("train/train/cat", "train/train/dog"), "--config.data.root={}/train/train"),
        (("train/train/cat", "train/val/cat"), "--config.data.root={}/train"),
        (
            ("train/train/cat", "train/train/dog", "val/cat", "val/dog"),
            "--config.data.train.root={}/train/train --config.data.train.split=train "
            "--config.data.train.fractions='(1.0,)'",
        ),
    ],
)
def test_class_folders_that_lie_deeper_are_an_error_with_their_root(
    tmp_path, names, advice
):
    class_folders(tmp_path, *names)
    settings = tiny_config(data__root=str(tmp_path))
    settings["data"]["train"] = {"source": "folder", "root": ""}
    with pytest.raises(ValueError) as caught:
        datasets.open_source(settings, "train")
    message = str(caught.value)
    assert message.startswith("config.data.train (source 'folder'): found ")
    assert advice.format(tmp_path) in message
    assert "If not: --config.data.train.classes=(" in message
    # The advice is right.
    flags = dict(part.split("=", 1) for part in advice.format(tmp_path).split(" --"))
    settings["data"]["root"] = flags.get("--config.data.root", "")
    if "--config.data.train.root" in flags:
        settings["data"]["train"]["root"] = flags["--config.data.train.root"]
        settings["data"]["train"]["fractions"] = (1.0,)
    source = datasets.open_source(settings, "train")
    assert set(source.class_names) == {name.rpartition("/")[2] for name in names}


def test_a_val_folder_whose_classes_lie_deeper_is_an_error(tmp_path):
    class_folders(tmp_path, "train/cat", "train/dog", "val/val/cat", "val/val/dog")
    settings = tiny_config(data__root=str(tmp_path))
    settings["data"]["val"] = {"source": "folder", "root": "", "split": "val"}
    with pytest.raises(ValueError, match=r"val/val holds cat, dog.*data.val.root="):
        datasets.open_source(settings, "val")


def test_a_single_class_with_folders_is_kept_where_the_config_names_it(tmp_path):
    class_folders(tmp_path, "cat/day1", "cat/day2")
    settings = tiny_config(data__root=str(tmp_path))
    settings["data"]["train"] = {"source": "folder", "root": "", "classes": ("cat",)}
    assert datasets.open_source(settings, "train").class_names == ("cat",)
    # Without labels, folders mean nothing.
    settings["data"]["unlabelled"] = {"source": "folder", "root": ""}
    assert len(datasets.open_source(settings, "unlabelled")) == 4


def test_one_folder_in_the_only_class_is_no_class(tmp_path):
    class_folders(tmp_path, "cat/day1", "cat")
    settings = tiny_config(data__root=str(tmp_path))
    settings["data"]["train"] = {"source": "folder", "root": ""}
    assert "only one class" in datasets.open_source(settings, "train").report.render()


def test_one_class_by_names_in_class_folders_is_an_error(tmp_path):
    for number, kind in enumerate(("cat", "cat", "dog", "dog")):
        paint(tmp_path / kind / f"IMG_{number}.png")
    settings = tiny_config(data__root=str(tmp_path))
    settings["data"]["train"] = {"source": "filename", "root": ""}
    message = (
        "found one class, 'IMG'.*cat, dog.*: take --config.data.train.source=folder"
    )
    with pytest.raises(ValueError, match=message):
        datasets.open_source(settings, "train")


@pytest.mark.parametrize("policy, expected", [(("yolov5_low",), 1), ((), None)])
def test_classes_that_a_mirror_changes_are_noted_once(tmp_path, policy, expected):
    class_folders(tmp_path, "left", "right")
    settings = tiny_config(data__root=str(tmp_path), augment__policy=policy)
    part = {"source": "folder", "root": ""}
    settings["data"]["train"] = settings["data"]["val"] = part
    train, val = (datasets.open_source(settings, p) for p in ("train", "val"))
    kind = "class that a mirror changes"
    assert train.report.notes.get(kind) == expected and kind not in val.report.notes
    if expected:
        assert "set swap=((0, 1),) in its entry" in train.report.render()


def test_a_val_set_that_is_not_there_may_be_left_out(tmp_path):
    (tmp_path / "data.yaml").write_text("names: [cat]\ntrain: images\n")
    settings = tiny_config()
    settings["data"]["val"] = {"source": "yolo", "yaml": str(tmp_path / "data.yaml")}
    settings["data"]["val"]["split"] = "val"
    with pytest.raises(ValueError, match=r"no split 'val'.*\n.*c.data.val = ConfigDi"):
        datasets.open_source(settings, "val")


def test_paths_of_a_table_start_at_the_root_of_the_config(tmp_path):
    paint(tmp_path / "pictures" / "a.png")
    (tmp_path / "labels.csv").write_text("a.png,cat\n")
    part = {"source": "csv", "csv": "labels.csv", "root": "pictures"}
    settings = tiny_config(data__root=str(tmp_path))
    settings["data"]["train"] = {**part, "fractions": (1.0,)}
    assert datasets.open_source(settings, "train").class_names == ("cat",)


def test_tables_of_train_and_val_are_whole_and_have_the_classes_of_train(tmp_path):
    for name in "abcdefgh":
        paint(tmp_path / f"{name}.png", ord(name))
    (tmp_path / "train.csv").write_text(
        "a.png,cat\nb.png,dog\nc.png,cat\nd.png,dog\ne.png,emu\n"
    )
    (tmp_path / "val.csv").write_text("f.png,dog\ng.png,cat\nh.png,yak\n")
    settings = tiny_config(data__root=str(tmp_path))
    for part in ("train", "val"):
        settings["data"][part] = {"source": "csv", "csv": f"{part}.csv"}
    train, val = (datasets.open_source(settings, part) for part in ("train", "val"))
    assert (len(train), len(val)) == (5, 2)
    assert train.class_names == val.class_names == ("cat", "dog", "emu")
    # One table is split as it says.
    settings["data"]["val"] = {"source": "csv", "csv": "train.csv", "split": "val"}
    parts = [datasets.open_source(settings, part) for part in ("train", "val")]
    assert sum(map(len, parts)) == 5 and len(parts[1])


@dataclasses.dataclass(frozen=True)
class Classes:
    class_names: tuple[str, ...] = ()
    category_ids: tuple[int, ...] = (0,)


def test_classes_of_val_are_those_of_train_in_any_order(tmp_path):
    names = {"train": ("cat", "dog"), "val": ("dog", "cat")}
    sources = {}
    for part, own in names.items():
        categories = [{"id": n, "name": name} for n, name in enumerate(own)]
        boxes = {"image_id": 1, "category_id": own.index("dog"), "bbox": [1, 1, 5, 5]}
        content = {
            "images": [{"id": 1, "file_name": "a.png", "height": 8, "width": 8}],
            "annotations": [boxes],
            "categories": categories,
        }
        (tmp_path / f"{part}.json").write_text(json.dumps(content))
        (tmp_path / "a.png").touch()
        arguments = {"images": str(tmp_path), "annotations": f"{tmp_path}/{part}.json"}
        sources[part] = SOURCES["coco"](**arguments)
    train, val = sources["train"], sources["val"]
    assert datasets.match_classes(train, train, part="val") is train
    matched = datasets.match_classes(val, train, part="val")
    assert train[0].labels.tolist() == matched[0].labels.tolist() == [1]
    others = dataclasses.replace(Classes(), class_names=("cow",))
    with pytest.raises(ValueError, match="train has the classes cow, val has dog, cat"):
        datasets.match_classes(val, others, part="val")
