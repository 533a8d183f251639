"""Files that a command may write over, and files that it may not."""

import os

import cv2
import numpy as np
import pytest

from yolojax import outputs
from yolojax.vis import draw, plots

ASKED = {"command": "predict", "weights": ["/runs/a"], "conf": 0.25}
NAMES = ["a.jpg", "predictions.json"]


def write(folder, *names, content="x"):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(content)


def test_the_same_command_renews_its_files(tmp_path):
    folder = tmp_path / "new" / "out"
    outputs.claim(folder, ASKED, NAMES)
    write(folder, *NAMES)
    outputs.claim(folder, dict(ASKED), NAMES)
    # With one more image the next time, and one fewer after that.
    outputs.claim(folder, ASKED, [*NAMES, "b.jpg"])
    write(folder, "b.jpg")
    outputs.claim(folder, ASKED, ["predictions.json"])
    outputs.claim(folder, ASKED, ["b.jpg"])


@pytest.mark.parametrize(
    "asked, message",
    [
        (
            {**ASKED, "conf": 0.5},
            r"out holds .* another command \(conf was 0.25, now 0",
        ),
        (
            {**ASKED, "weights": ["/runs/b"]},
            r"weights\[0\] was /runs/a, now /runs/b\): give another --output, or --ov",
        ),
        ({"command": "evaluate"}, r"results of another command \(predict\)"),
    ],
)
def test_files_of_another_command_stay(asked, message, tmp_path):
    folder = tmp_path / "out"
    outputs.claim(folder, ASKED, NAMES)
    write(folder, *NAMES)
    with pytest.raises(ValueError, match=message):
        outputs.claim(folder, asked, NAMES)
    # The refusal changed nothing.
    outputs.claim(folder, ASKED, NAMES)
    outputs.claim(folder, asked, NAMES, overwrite=True)
    with pytest.raises(ValueError, match="another command"):
        outputs.claim(folder, ASKED, NAMES)
    # Other files than those may be written beside them.
    outputs.claim(folder, {"command": "features"}, ["features.npz"])


@pytest.mark.parametrize("record", [None, "", "[]", "{", '{"command": 1, "files": 2}'])
def test_files_from_elsewhere_stay(record, tmp_path):
    write(tmp_path, "predictions.json", "a.jpg")
    if record is not None:
        (tmp_path / outputs.RECORD).write_text(record)
    with pytest.raises(
        ValueError, match="a.jpg and 1 more would be replaced, but is f"
    ):
        outputs.claim(tmp_path, ASKED, NAMES)
    outputs.claim(tmp_path, ASKED, NAMES, assumed=NAMES)


def test_a_killed_command_goes_over_its_own_files(tmp_path):
    outputs.claim(tmp_path, ASKED, NAMES)
    write(tmp_path, "a.jpg")  # then it was killed
    outputs.claim(tmp_path, ASKED, NAMES)


def link(source, target):
    target.symlink_to(source)


@pytest.mark.parametrize("put", [link, os.link], ids=["link", "hard link"])
def test_a_link_to_an_input_is_an_input(put, tmp_path):
    write(tmp_path / "data", "a.jpg")
    (tmp_path / "out").mkdir()
    put(tmp_path / "data" / "a.jpg", tmp_path / "out" / "a.jpg")
    with pytest.raises(
        ValueError, match=r"data/a.jpg is read and would be written ove"
    ):
        outputs.claim(
            tmp_path / "out",
            ASKED,
            NAMES,
            inputs=[tmp_path / "data" / "a.jpg"],
            overwrite=True,
        )


def test_inputs_are_known_under_every_name_of_their_folder(tmp_path):
    write(tmp_path / "data", "a.jpg")
    (tmp_path / "other").symlink_to(tmp_path / "data")
    for folder in ("other", "data/../data"):
        with pytest.raises(ValueError, match="is read and would be written over"):
            outputs.check_inputs(
                [tmp_path / folder / "a.jpg"], [tmp_path / "data" / "a.jpg"]
            )
    outputs.check_inputs([tmp_path / "a.jpg"], [tmp_path / "data" / "a.jpg"])


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path):
    (tmp_path / "a.jpg").mkdir()
    with pytest.raises(ValueError, match="a.jpg is a folder, and a file is to be writ"):
        outputs.claim(tmp_path, ASKED, NAMES, overwrite=True)


def test_a_free_folder_has_a_number_and_the_same_command_finds_it_again(tmp_path):
    other, third = {**ASKED, "conf": 0.5}, {**ASKED, "conf": 0.75}
    for asked, name in ((ASKED, "out"), (other, "out-2"), (third, "out-3")):
        for _ in range(2):
            folder = outputs.free_folder(tmp_path / "out", asked, NAMES)
            assert folder == tmp_path / name
            outputs.claim(folder, asked, NAMES)
            write(folder, *NAMES)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_images_of_ours_are_known_and_read_as_before(suffix, tmp_path):
    image = np.zeros((40, 50, 3), np.uint8)
    image[:, 25:] = (200, 100, 50)
    path = tmp_path / f"ours{suffix}"
    outputs.check_file(path, "--output")
    draw.save_image(path, image)
    outputs.check_file(path, "--output")
    read = cv2.imread(str(path))
    assert read is not None
    np.testing.assert_allclose(read[:, :20, ::-1], image[:, :20], atol=3)
    # Somebody else's, the same otherwise.
    cv2.imwrite(str(tmp_path / f"theirs{suffix}"), read)
    with pytest.raises(ValueError, match="--output .* and yolojax did not write it"):
        outputs.check_file(tmp_path / f"theirs{suffix}", "--output")


def test_plots_are_known_as_ours(tmp_path):
    with plots.open_figure(tmp_path / "a.png", 1, 1, (2, 2)) as (_, axes):
        axes[0, 0].plot([1, 2])
    outputs.check_file(tmp_path / "a.png", "--output")
    assert cv2.imread(str(tmp_path / "a.png")) is not None


def test_other_files_are_known_by_their_marks(tmp_path):
    (tmp_path / "a.json").write_text('{"anchors": [], "before": {}}')
    marks = (b'"anchors": [', b'"before": {')
    outputs.check_file(tmp_path / "a.json", "--output", marks=marks)
    (tmp_path / "b.json").write_text('{"anchors": []}')
    with pytest.raises(ValueError, match=r"--output .*b\.json is there already"):
        outputs.check_file(tmp_path / "b.json", "--output", marks=marks)
    with pytest.raises(ValueError, match="is a folder; give a file in it"):
        outputs.check_file(tmp_path, "--output")
