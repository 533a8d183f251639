"""The case of a run whose data moved before it went on."""

import shutil

import numpy as np
import pytest

from tests.shared import shared
from tests.tiny import tiny_config
from yolojax import experiment, resuming, settings
from yolojax.data import identity
from yolojax.engine.book import Bookkeeping


@pytest.fixture
def data(tmp_path):
    """The case's data, where the run was begun with them."""
    shutil.copytree(shared("cases", "resume_moved_data", "data"), tmp_path / "old")
    return tmp_path / "old"


def begun(data, workdir, **changes):
    """A run with a checkpoint after 3 steps, as far as its folder shows it."""
    train = {"source": "yolo", "yaml": "data.yaml"}
    given = {
        "data__root": str(data),
        "data__train": train,
        "data__val": {**train, "split": "val"},
        "batch_size": 2,
    }
    model = {"name": "yolov5n", "num_classes": 2, "width": 0.125, "depth": 0.33}
    chosen = tiny_config(model=model, **given | changes)
    settings.write_config(chosen, workdir)
    parts = resuming.parts_of(experiment.build(chosen, workdir=workdir), workdir)
    identity.write_parts(workdir, parts, {})
    return Bookkeeping(data=identity.digests_of(parts))


def go_on(workdir, given, book):
    """The run as `train --workdir W --config.KEY=VALUE` builds it."""
    before = settings.read_begun(workdir)
    assert before is not None
    now = settings.with_changes(before, given)
    settings.check_config(now, workdir)
    run = experiment.build(now, workdir=workdir)
    parts = resuming.parts_of(run, workdir)
    assert resuming.check_data(parts, workdir, book, 3, allowed=False) == ""
    assert resuming.note_course(before, run, book, 3) == ""
    return run


def test_resume_moved_data(data, tmp_path):
    book = begun(data, tmp_path / "run")
    new = tmp_path / "mnt" / "images" / "new"
    new.parent.mkdir(parents=True)
    data.rename(new)
    run = go_on(tmp_path / "run", {"data.root": str(new)}, book)
    found = {
        example.name: (example.boxes.round().tolist(), example.labels.tolist())
        for example in run.train.source
    }
    # 160 x 120: centre .1875 .2917, sides .25 .4167; centre .75 .625, .375 .5833.
    assert found == {
        str(new / "images" / "train" / "a.jpg"): ([[10, 10, 50, 60]], [0]),
        str(new / "images" / "train" / "b.jpg"): ([[90, 40, 150, 110]], [1]),
    }


@pytest.mark.parametrize("root", ["", "old"])
def test_the_place_may_be_said_in_another_key(data, tmp_path, monkeypatch, root):
    """Absolute in `yaml` or relative to a root, from another folder."""
    monkeypatch.chdir(tmp_path)
    book = begun(data, tmp_path / "run", data__root="old")
    data.rename(tmp_path / "new")
    monkeypatch.chdir("/")
    given = {
        "data.root": root,
        "data.train.yaml": str(tmp_path / "new" / "data.yaml"),
        "data.val.yaml": str(tmp_path / "new" / "data.yaml"),
    }
    run = go_on(tmp_path / "run", given, book)
    assert len(run.train.source) == 2


def test_data_that_moved_and_changed_are_refused(data, tmp_path):
    book = begun(data, tmp_path / "run")
    shutil.copytree(data, tmp_path / "new")
    (tmp_path / "new" / "labels" / "train" / "b.txt").write_text("1 .5 .5 .5 .5")
    shutil.copy(data / "images/train/a.jpg", tmp_path / "new/images/train/c.jpg")
    # Train and val are the same folder.
    how = "1 image added: c.jpg; 1 image with other labels: b.jpg"
    message = f"config.data.train: {how}; config.data.val: {how}. Put the data back"
    with pytest.raises(ValueError, match=message):
        go_on(tmp_path / "run", {"data.root": str(tmp_path / "new")}, book)


def test_the_order_of_the_images_does_not_go_by_where_they_lie(data, tmp_path):
    """Several folders: each by its own names, in the order of the file."""
    for folder in ("z", "a"):
        shutil.copytree(data / "images/train", data / "images" / folder)
        shutil.copytree(data / "labels/train", data / "labels" / folder)
    (data / "data.yaml").write_text(
        "train: [images/z, images/a]\nval: images/train\nnames: [car, bus]"
    )
    book = begun(data, tmp_path / "run")
    new = tmp_path / "Zz"
    data.rename(new)
    run = go_on(tmp_path / "run", {"data.root": str(new)}, book)
    names = [
        example.name.removeprefix(f"{new}/images/") for example in run.train.source
    ]
    assert names == ["z/a.jpg", "z/b.jpg", "a/a.jpg", "a/b.jpg"]
    assert np.array_equal(run.train.keep, np.arange(4))
