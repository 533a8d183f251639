import types

import pytest
from ml_collections import ConfigDict

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
