"""Places of files that are written after long work."""

import pytest

from yolojax import files


def test_a_file_needs_a_folder_that_is_there(tmp_path):
    files.check_file_place(tmp_path / "new.json", "--output")
    with pytest.raises(ValueError, match="--output .*: there is no folder .*missing$"):
        files.check_file_place(tmp_path / "missing" / "new.json", "--output")
    with pytest.raises(ValueError, match="--output .* is a folder; give a file in it"):
        files.check_file_place(tmp_path, "--output")
    assert not list(tmp_path.iterdir())
