import json
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.engine.log import RunLog, read_metrics, write_json


def run(folder, steps, start=0, **options):
    """A run that logs a value without a short decimal form, and every third a score."""
    with RunLog(folder, start_step=start, tensorboard=False, **options) as log:
        for step in steps:
            log.write(step, {"loss": np.float32(1 / step), "loss/box": step / 3})
            if step % 3 == 0:
                log.write(step, {"val/mAP50": math.sqrt(step)})
    return (folder / "metrics.csv").read_bytes()


def test_rows_come_back_with_every_bit(tmp_path):
    values = {"a": 0.1 + 0.2, "b": float(np.float32(1 / 3)), "c": 1e-300, "d": 5e22}
    with RunLog(tmp_path, tensorboard=False) as log:
        log.write(3, values)
        log.write(4, {"a": math.inf, "b": -0.0, "c": math.nan})
    first, second = read_metrics(tmp_path)
    assert first == {"step": 3, **values}
    assert second["a"] == math.inf and str(second["b"]) == "-0.0"
    assert math.isnan(second["c"]) and "d" not in second


def test_scalars_of_numpy_and_jax_are_written_as_floats(tmp_path):
    with RunLog(tmp_path, tensorboard=False) as log:
        log.write(1, {"a": jnp.float32(0.5), "b": np.int64(3), "c": jnp.bfloat16(2)})
    assert read_metrics(tmp_path) == [{"step": 1, "a": 0.5, "b": 3.0, "c": 2.0}]


def test_a_new_column_extends_the_header_and_keeps_the_rows(tmp_path):
    with RunLog(tmp_path, columns=("loss",), tensorboard=False) as log:
        assert (tmp_path / "metrics.csv").read_text() == "step,loss\n"
        log.write(1, {"loss": 0.5})
        log.write(2, {"loss": 0.25, "a, b": 1.0})
    text = (tmp_path / "metrics.csv").read_text()
    assert text == 'step,loss,"a, b"\n1,0.5,\n2,0.25,1.0\n'
    assert read_metrics(tmp_path)[1] == {"step": 2, "loss": 0.25, "a, b": 1.0}


def test_a_row_is_in_the_file_when_write_returns(tmp_path):
    with RunLog(tmp_path, tensorboard=False) as log:
        for step in range(1, 5):
            log.write(step, {"loss": 1.0})
            assert len(read_metrics(tmp_path)) == step


@pytest.mark.parametrize("saved", [0, 3, 5, 9])
@pytest.mark.parametrize("cut", [0, 1, 7], ids=["whole", "no-newline", "half-a-line"])
def test_a_run_killed_and_resumed_leaves_the_same_file(tmp_path, saved, cut):
    expected = run(tmp_path / "through", range(1, 21))
    # Killed after step 11, perhaps while writing its row; last saved at `saved`.
    killed = run(tmp_path / "killed", range(1, 12))
    (tmp_path / "killed" / "metrics.csv").write_bytes(killed[: len(killed) - cut])
    resumed = run(tmp_path / "killed", range(saved + 1, 21), start=saved)
    assert resumed == expected


def test_a_run_from_the_start_takes_no_columns_from_an_earlier_one(tmp_path):
    with RunLog(tmp_path, tensorboard=False) as log:
        log.write(1, {"accuracy": 1.0})
    assert run(tmp_path, [1]) == b"step,loss,loss/box\n1,1.0,0.3333333333333333\n"


def test_an_empty_and_a_missing_table_have_no_rows(tmp_path):
    assert read_metrics(tmp_path) == []
    (tmp_path / "metrics.csv").write_text("")
    assert read_metrics(tmp_path) == []
    (tmp_path / "metrics.csv").write_text("step,lo")
    assert read_metrics(tmp_path) == []
    assert run(tmp_path, [1]).startswith(b"step,")


@pytest.mark.parametrize(
    "text, message",
    [
        ("name,size\n1,2\n", "line 1: expected a header that starts with 'step'"),
        ("step,loss\n1,2\n2,x\n3,1\n", "line 3: expected 2 numbers, got '2,x'"),
        ("step,loss\n1,2,3\n", "line 2: expected 2 numbers"),
    ],
)
def test_a_damaged_table_is_named_and_left_as_it_is(tmp_path, text, message):
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        RunLog(tmp_path, start_step=3, tensorboard=False)
    assert (tmp_path / "metrics.csv").read_text() == text


def test_steps_must_not_fall_and_values_must_be_scalars(tmp_path):
    with RunLog(tmp_path, tensorboard=False) as log:
        log.write(5, {"loss": 1.0})
        with pytest.raises(ValueError, match="step 4 come after those of step 5"):
            log.write(4, {"loss": 1.0})
        with pytest.raises(ValueError, match=r"'loss': expected a scalar, .*\(2,\)"):
            log.write(6, {"loss": np.zeros(2)})


def test_an_inactive_log_writes_nothing(tmp_path):
    with RunLog(tmp_path / "none", active=False) as log:
        log.write(1, {"loss": 1.0})
        log.write_image(1, "picture", np.zeros((4, 4, 3), np.uint8))
        log.write_summary({"a": 1})
        log.flush()
    assert not (tmp_path / "none").exists()


def events_of(folder: Path):
    """The events of a run in TensorBoard's record format, without their check sums."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.glob("events/*")):
        content, place = path.read_bytes(), 0
        while place < len(content):
            size = int.from_bytes(content[place : place + 8], "little")
            yield Event.FromString(content[place + 12 : place + 12 + size])
            place += 12 + size + 4


def test_tensorboard_gets_the_finite_values_and_pictures(tmp_path):
    with RunLog(tmp_path) as log:
        log.write(1, {"loss": 0.5, "bad": math.nan})
        log.write_image(1, "picture", np.full((4, 6, 3), 200, np.uint8))
    values = [v for event in events_of(tmp_path) for v in event.summary.value]
    assert {v.tag: v.simple_value for v in values if not v.HasField("image")} == {
        "loss": 0.5
    }
    assert [(v.tag, v.image.width) for v in values if v.HasField("image")] == [
        ("picture", 6)
    ]


@pytest.mark.parametrize("step", [0, 7])
def test_tensorboard_is_told_to_drop_what_comes_after_the_resumed_step(tmp_path, step):
    # Also at 0: a run may be killed before its first checkpoint.
    with RunLog(tmp_path, start_step=step) as log:
        log.write(step + 1, {"loss": 0.5})
    starts = [e.step for e in events_of(tmp_path) if e.HasField("session_log")]
    assert starts == [step + 1]


def test_json_is_strict_and_takes_numpy_and_jax_values(tmp_path):
    value = {
        "nan": math.nan,
        "deep": [np.float32("inf"), {"x": (1, True, None)}],
        "array": np.arange(3, dtype=np.int32),
        "jax": jnp.float32(0.5),
        "bool": np.bool_(True),
        "path": Path("a") / "b",
        5: "猫",
    }
    path = write_json(tmp_path / "deeper" / "a.json", value)
    assert json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail) == {
        "nan": None,
        "deep": [None, {"x": [1, True, None]}],
        "array": [0, 1, 2],
        "jax": 0.5,
        "bool": True,
        "path": str(Path("a") / "b"),
        "5": "猫",
    }


def test_what_json_cannot_hold_is_refused_and_the_old_file_stays(tmp_path):
    path = write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError, match="cannot write a object as JSON"):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_the_summary_lies_in_the_run_s_folder(tmp_path):
    with RunLog(tmp_path, tensorboard=False) as log:
        path = log.write_summary({"mAP50": np.float32(0.5), "finished": True})
    assert path == tmp_path / "summary.json"
    assert json.loads(path.read_text()) == {"mAP50": 0.5, "finished": True}


DAMAGED = {
    "zeros": (bytes(100), "metrics.csv holds only zeros"),
    "long field": (b"step,a\n1," + b"9" * 200_000 + b"\n", "metrics.csv: field larger"),
    "no header": (b"\x89PNG\r\n\x1a\n", "metrics.csv line 1: expected a header"),
    "cut inside": (b"step,a\n1,2\n2\n3,4\n", "metrics.csv line 3: expected 2 numbers"),
    "twice": (b"step,a\n2,2\n2,3\n", "metrics.csv line 3: step 2 comes after step 2"),
    "back": (b"step,a\n2,2\n1,3\n", "metrics.csv line 3: step 1 comes after step 2"),
    "binary": (b"step,a\n1,\xff\xfe\n", "metrics.csv line 2: expected 2 numbers"),
}


@pytest.mark.parametrize("content, message", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_table_is_one_message_that_names_file_and_line(
    tmp_path, content, message
):
    (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_metrics(tmp_path)
    with pytest.raises(ValueError, match=message):
        RunLog(tmp_path, start_step=3, tensorboard=False)
    assert (tmp_path / "metrics.csv").read_bytes() == content
