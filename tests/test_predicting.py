from pathlib import Path

import pytest

from yolojax import predicting
from yolojax.data.media import MediaItem


@pytest.mark.parametrize(
    "files, expected",
    [
        (["000139.jpg", "7.png"], [139, 7]),
        (["2.jpg", "cat.jpg"], [1, 2]),
        (["a/1.jpg", "b/1.jpg"], [1, 2]),
        ([], []),
    ],
    ids=["numbers", "names", "equal numbers", "nothing"],
)
def test_files_have_different_image_ids(files, expected):
    items = [MediaItem(Path(f), "image", str(i)) for i, f in enumerate(files)]
    assert predicting.image_ids(items) == expected
