"""Where the results of an evaluation go."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.tiny import tiny_config
from yolojax import measuring


class Given(SimpleNamespace):
    """Flags of the command, as absl has them."""

    def __init__(self, **given):
        names = "config split letterbox output views merge data_root".split()
        super().__init__(augment=False, **{name: given.get(name) for name in names})
        self.augment = given.get("augment", False)

    def __getitem__(self, name):
        return SimpleNamespace(value=getattr(self, name))


@pytest.mark.parametrize(
    "given, weights, expected",
    [
        ({}, ["run"], "run"),
        ({"split": "test"}, ["run"], "run/test"),
        ({"letterbox": "rectangular"}, ["run"], "run/evaluation_run_rectangular"),
        ({"data_root": "/sets/other"}, ["run"], "run/evaluation_run_other"),
        ({"output": "there"}, ["run"], "there"),
        ({"augment": True, "merge": "nms"}, ["run"], "run/nms_augment"),
        ({"views": 3, "split": "test"}, ["run", "run"], "run/test_views_ensemble"),
        ({}, ["run/checkpoints/12"], "run/evaluation_12"),
        ({"config": "c", "split": "test"}, ["net.pt"], "runs/evaluate/net_test"),
    ],
)
def test_what_a_run_wrote_is_only_renewed_by_a_plain_call(
    given, weights, expected, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "checkpoints" / "12").mkdir(parents=True)
    (tmp_path / "net.pt").touch()
    found = measuring.output_of(Given(**given), weights)
    assert found.resolve() == Path(expected).resolve()


def test_a_file_needs_a_config(tmp_path):
    (tmp_path / "net.pt").touch()
    with pytest.raises(ValueError, match="net.pt says nothing about data: give --conf"):
        measuring.output_of(Given(), [str(tmp_path / "net.pt")])


@pytest.mark.parametrize(
    "given, val, count",
    [
        ({}, {}, 3),
        # Moved data: what the fold held out of them.
        ({"data_root": "new"}, {}, 3),
        ({"data_root": "new"}, {"source": "digits"}, 0),
        ({"split": "test"}, {"source": "digits"}, 0),
    ],
)
def test_a_fold_is_evaluated_on_what_it_held_out_also_where_that_moved(
    given, val, count
):
    chosen = tiny_config(data__val=val, data__folds={"count": 3, "kind": "plain"})
    flags = Given(**given)
    measuring._change_of(flags, measuring._changes(flags))(chosen)
    assert chosen["data"]["folds"]["count"] == count
    assert chosen["data"]["root"] == given.get("data_root", "")
