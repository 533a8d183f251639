import types

import pytest
from ml_collections import ConfigDict

from tests.data.classified import paint
from tests.tiny import tiny_config
from yolojax import check, command


def checked(monkeypatch, capsys, **changes):
    given = types.SimpleNamespace(config=ConfigDict(tiny_config(**changes)))
    monkeypatch.setattr(command, "FLAGS", given)
    code = check.main()
    return code, capsys.readouterr().out


def test_what_a_run_reads_is_checked(monkeypatch, capsys):
    code, text = checked(monkeypatch, capsys)
    assert code == 0 and "== train ==" in text and "== val ==" in text
    # With folds val is a part of train, and data.val is not read.
    code, text = checked(monkeypatch, capsys, data__folds__count=3)
    assert code == 0 and "== train ==" in text and "== val ==" not in text
    assert "fold 0 of 3" in text and "config.data.val is not read" in text
    with pytest.raises(ValueError, match="99"):
        checked(monkeypatch, capsys, data__folds__count=99)


def test_pictures_of_val_that_are_in_train_are_an_error(monkeypatch, capsys, tmp_path):
    for part, number in (("train", 0), ("train", 1), ("val", 2)):
        for kind in ("cat", "dog"):
            path = tmp_path / part / f"{kind}_{number}.png"
            path.parent.mkdir(exist_ok=True)
            paint(path, 20 * number + 9 * (kind == "dog"))
    given = {"source": "filename", "root": str(tmp_path)}
    changes = {
        "data__train": given,
        "data__val": {**given, "split": "val"},
        "model": {"name": "cnn5"},
        "loss__name": "cross_entropy",
    }
    code, text = checked(monkeypatch, capsys, **changes)
    assert code == 0, text
    copy = tmp_path / "val" / "cat_3.png"
    copy.write_bytes((tmp_path / "train" / "cat_0.png").read_bytes())
    code, text = checked(monkeypatch, capsys, **changes)
    assert code == 1 and "picture of another part: 1" in text
