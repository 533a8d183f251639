import sys

import pytest

from yolojax import command


@pytest.mark.parametrize(
    "error, message",
    [
        (FileExistsError(17, "File exists", "out"), "out is a file, where a folder is"),
        (NotADirectoryError(20, "Not a directory", "x/y"), "x/y is a file, where a fo"),
        (FileExistsError("there is one"), "there is one"),
        (FileNotFoundError(2, "No such file", "z"), "No such file"),
        (ValueError("lr is 3, not 2"), "lr is 3, not 2"),
    ],
)
def test_errors_of_files_and_values_are_one_line(error, message, monkeypatch, capsys):
    def main():
        raise error

    monkeypatch.setattr(sys, "argv", ["train"])
    monkeypatch.setattr(command, "_set_up_jax", lambda: None)
    monkeypatch.delenv("YOLOJAX_TRACEBACK", raising=False)
    with pytest.raises(SystemExit) as caught:
        command.run(main, usage="")
    assert caught.value.code == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ") and message in text
    monkeypatch.setenv("YOLOJAX_TRACEBACK", "1")
    with pytest.raises(type(error)):
        command.run(main, usage="")
