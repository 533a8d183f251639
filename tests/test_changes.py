"""Which keys may be other ones when a run goes on, and the words for the others."""

import json

import pytest

from tests.tiny import tiny_config
from yolojax import changes, settings
from yolojax.trees import flatten

YOLO = {"source": "yolo", "yaml": "/old/data.yaml"}


@pytest.mark.parametrize(
    "key, before, now",
    [
        ("data__root", "/old", "/new"),
        ("data__train", YOLO, {**YOLO, "yaml": "/new/data.yaml"}),
        ("data__val", {**YOLO, "root": "/old"}, {**YOLO, "root": "/new"}),
        ("data__unlabelled", {"source": "folder", "root": "a"}, None),
        ("data__cache_dir", "", "/fast"),
        ("data__cache", "encoded", "disk"),
        ("data__num_threads", 1, 8),
        ("init__weights", "/old/yolov5n.pt", "/new/yolov5n.pt"),
        ("checkpoint__keep", 2, 5),
        ("log__every_steps", 1, 50),
        ("devices", 1, 4),
    ],
)
def test_where_things_lie_decides_no_numbers(key, before, now):
    now = {"source": "folder", "root": "b"} if now is None else now
    one, other = tiny_config(**{key: before}), tiny_config(**{key: now})
    assert changes.refusal(one, other) == ""
    assert changes.same_numbers(one, other) and not changes.course(one, other)


@pytest.mark.parametrize(
    "key, before, now, words",
    [
        ("epochs", 10, 20, {"epochs": " was 10, now 20"}),
        ("max_steps", 0, 5, {"max_steps": " was 0, now 5"}),
        ("max_hours", 1.0, 2.0, {"max_hours": " was 1.0, now 2.0"}),
        (
            "early_stopping__patience",
            3,
            6,
            {"early_stopping.patience": " was 3, now 6"},
        ),
        ("evaluate__every_epochs", 1, 5, {"evaluate.every_epochs": " was 1, now 5"}),
    ],
)
def test_the_course_of_a_run_may_change_and_is_told(key, before, now, words):
    one, other = tiny_config(**{key: before}), tiny_config(**{key: now})
    assert changes.refusal(one, other) == ""
    assert changes.course(one, other) == words
    assert not changes.same_numbers(one, other)


@pytest.mark.parametrize(
    "key, before, now, message",
    [
        ("seed", 0, 1, "seed was 0, now 1"),
        ("batch_size", 8, 4, "batch_size was 8, now 4 (to need less memory: config"),
        ("data__cache", "none", "encoded", "data.cache was none, now encoded ('enc"),
        ("init__weights", "", "x.pt", "init.weights was '', now given"),
        ("checkpoint__best", "fitness", "mAP50", "now mAP50 (the scores so far are"),
        ("evaluate__iou_threshold", 0.6, 0.7, "0.7 (python -m yolojax.evaluate"),
        ("data__train", YOLO, {**YOLO, "split": "val"}, "data.train.split was nothing"),
        (
            "stages",
            ({"epochs": 1}, {"epochs": 2}),
            ({"epochs": 2}, {"epochs": 2}),
            "stages[0].epochs was 1, now 2 (only the last stage's epochs may change",
        ),
    ],
)
def test_other_keys_are_refused_with_a_way_out(key, before, now, message, tmp_path):
    one, other = tiny_config(**{key: before}), tiny_config(**{key: now})
    assert message in changes.refusal(one, other)
    settings.write_config(one, tmp_path)
    with pytest.raises(ValueError) as raised:
        settings.check_config(other, tmp_path)
    text = str(raised.value)
    assert message in text and "\n" not in text
    assert f"--config.init.weights={tmp_path} starts from its weights" in text
    assert f"python -m yolojax.train --workdir {tmp_path}" in text


def test_every_group_names_keys_that_exist():
    paths = [*flatten(settings.DEFAULTS), "model/path", "data/train/yaml"]
    known = {path for path in (*changes.FREE, *changes.COURSE) if "data/" not in path}
    for start in known:
        assert any(path.startswith(start) for path in paths), start


def test_the_last_stage_takes_more_epochs():
    stages = ({"epochs": 2, "lr_scale": 0.5}, {"epochs": 3})
    before = tiny_config(stages=stages)
    longer = settings.with_changes(before, {"epochs": 9})
    assert longer["epochs"] == 9
    assert [stage["epochs"] for stage in longer["stages"]] == [2, 7]
    assert changes.refusal(before, longer) == ""
    assert changes.course(before, longer) == {"epochs": " was 5, now 9"}
    with pytest.raises(ValueError, match="leaves nothing to the last.*have 2 epochs"):
        settings.with_changes(before, {"epochs": 2})


def test_keys_of_a_run_change_by_their_dotted_names(tmp_path):
    before = settings.from_json(json.dumps(tiny_config()))
    given = {"data.root": "/new", "data.val.size": 32, "optim.sam.name": "sam"}
    now = settings.with_changes(before, given)
    assert now["data"]["root"] == "/new" and now["data"]["val"]["size"] == 32
    assert now["optim"]["sam"] == {"name": "sam"}
    assert before["data"]["root"] == "" and before["optim"]["sam"] == {}
    with pytest.raises(ValueError, match="epochs must be a int"):
        settings.with_changes(before, {"epochs": "many"})
    with pytest.raises(ValueError, match="unknown key 'epoch'"):
        settings.with_changes(before, {"epoch": 3})


def test_leave_for_changed_data_is_given_once(tmp_path):
    settings.write_config(tiny_config(data__allow_changes=True), tmp_path)
    saved = settings.read_begun(tmp_path)
    assert saved is not None and saved["data"]["allow_changes"] is False


def test_auto_stands_for_what_the_run_has_found(tmp_path):
    """Also where it found that its own anchors fit, and has none in its config."""
    model = {"name": "yolov5n", "num_classes": 10}
    found = ((1.0, 2.0),)
    for number, anchors in enumerate(({}, {"anchors": found})):
        folder = tmp_path / str(number)
        settings.write_config(tiny_config(model=model | anchors), folder)
        auto = tiny_config(model=model | {"anchors": "auto"}, batch_size="auto")
        settings.check_config(auto, folder)
    given = tiny_config(model=model | {"anchors": ((1.0, 3.0),)})
    with pytest.raises(ValueError, match=r"anchors\[0\]\[1\] was 2.0, now 3.0"):
        settings.check_config(given, folder)
