"""Which files of a YOLO set belong together: splits, lists, labels and images."""

import os
import re
import socket

import cv2
import numpy as np
import pytest

from yolojax.data.sources import image_lists
from yolojax.data.sources.yolo import YoloSource

A, B = "0 0.1875 0.291667 0.25 0.416667", "1 0.75 0.625 0.375 0.583333"
BOX_A, BOX_B = [10, 10, 50, 60], [90, 40, 150, 110]
PIXELS = cv2.imencode(".png", np.zeros((120, 160, 3), np.uint8))[1].tobytes()


def make(root, *, yaml="train: images/train\nnames: [cat, dog]"):
    """The `data.yaml` of a set: a.png has box A, and b.png box B."""
    (root / "data.yaml").write_text(yaml)
    put(root, {"images/train/a.png": PIXELS, "images/train/b.png": PIXELS})
    put(root, {"labels/train/a.txt": A, "labels/train/b.txt": B})
    return str(root / "data.yaml")


def put(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def boxes(source):
    """The rounded boxes of each image, by its name."""
    return {
        os.path.basename(example.name): np.rint(example.boxes).astype(int).tolist()
        for example in source
    }


BOTH = {"a.png": [BOX_A], "b.png": [BOX_B]}


@pytest.mark.parametrize(
    "lines",
    [
        "images/train/a.png\nimages/train/b.png",
        "images\\train\\a.png\r\nimages\\train\\b.png\r\n",
        ".\\images\\train\\a.png\n./images//train/b.png",
        "'images/train/a.png'\n \"images\\train\\b.png\" ",
        "# all of them\n\nimages/train/a.png\n  images/train/b.png  \n\n",
        "data/images/train/a.png\ndata/images/train/b.png",
        "/content/set/images/train/a.png\n/content/set/images/train/b.png",
        "C:\\Users\\me\\set\\images\\train\\a.png\nC:\\Users\\me\\set\\images\\train\\b.png",
        "../set/images/train/a.png\n../set/images/train/b.png",
        "images/train/A.png\nimages/train/b.PNG",
    ],
    ids=[
        "plain",
        "backslashes",
        "dots and slashes",
        "quotes",
        "comments and blanks",
        "a prefix",
        "another machine",
        "another system",
        "another folder",
        "case",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_lists_are_read_as_people_write_them(tmp_path, lines, encoding):
    yaml = make(tmp_path, yaml="train: train.txt\nnames: [cat, dog]")
    (tmp_path / "train.txt").write_bytes(lines.encode(encoding))
    source = YoloSource(yaml=yaml)
    assert boxes(source) == BOTH
    assert source.report.counts == {}


def test_a_list_may_lie_in_a_folder_and_start_at_the_set(tmp_path):
    yaml = make(tmp_path, yaml="train: lists\\train.txt\nnames: [cat, dog]")
    put(tmp_path, {"lists/train.txt": "images/train/a.png\nimages/train/b.png"})
    assert boxes(YoloSource(yaml=yaml)) == BOTH


def test_all_lines_of_a_moved_list_lose_the_same_folders(tmp_path):
    # x/train/b.png is missing: images/b.png, of another folder, must not be taken.
    yaml = make(tmp_path, yaml="train: train.txt\nnames: [cat, dog]")
    put(tmp_path, {"train/b.png": PIXELS, "b.png": PIXELS, "train/b.txt": B})
    lines = ["/x/images/train/a.png", "/x/images/train/b.png", "/x/images/val/b.png"]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    source = YoloSource(yaml=yaml)
    assert [example.name for example in source] == [
        str(tmp_path / "images/train/a.png"),
        str(tmp_path / "images/train/b.png"),
    ]
    (entry,) = source.report.entries("missing picture")
    assert entry.line == 3 and "/x/images/val/b.png does not exist" in entry.message
    (note,) = source.report.entries("list entry found in another place")
    assert f"means {tmp_path}/images/train/a.png" in note.message


def test_bare_names_are_not_taken_for_those_of_several_folders(tmp_path):
    yaml = make(tmp_path, yaml="train: train.txt\nnames: [cat, dog]")
    put(tmp_path, {"a.png": PIXELS, "a.txt": A})
    (tmp_path / "train.txt").write_text("/x/one/a.png\n/x/two/a.png\n")
    with pytest.raises(ValueError, match="no picture in train.txt .*/x/one/a.png does"):
        YoloSource(yaml=yaml)
    (tmp_path / "train.txt").write_text("/x/one/a.png\n")
    assert boxes(YoloSource(yaml=yaml)) == {"a.png": [BOX_A]}


def test_the_error_of_an_empty_split_has_the_reason_of_the_first_lines(tmp_path):
    yaml = make(tmp_path, yaml="train: train.txt\nnames: [cat, dog]")
    (tmp_path / "train.txt").write_text("x/1.png\nx/2.png\nx/3.png\n")
    with pytest.raises(ValueError) as caught:
        YoloSource(yaml=yaml)
    assert "train.txt:1: x/1.png does not exist in" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_list_of_50_million_bytes_or_of_too_many_lines_is_refused(
    tmp_path, monkeypatch
):
    yaml = make(tmp_path, yaml="train: train.txt\nnames: [cat, dog]")
    with (tmp_path / "train.txt").open("wb") as file:
        file.truncate(50_000_000)
    with pytest.raises(ValueError, match="train.txt: 50,000,000 bytes; at most"):
        YoloSource(yaml=yaml)
    monkeypatch.setattr(image_lists, "MOST_LINES", 2)
    (tmp_path / "train.txt").write_text("x\n" * 3)
    with pytest.raises(ValueError, match="train.txt: more than 2 lines; make two"):
        YoloSource(yaml=yaml)


DARKNET = """classes = 2
train  = data/train.txt
valid  = data/valid.txt
# the names
names = data/obj.names
backup = backup/
"""


@pytest.mark.parametrize("home", ["", "data"], ids=["cvat", "darknet"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_darknets_obj_data_is_read_as_yaml(tmp_path, home, encoding):
    folder = tmp_path / home
    put(
        folder,
        {
            "obj.data": DARKNET.encode(encoding),
            "obj.names": "yes\r\nfire truck\r\n\r\n",
            "train.txt": "data/obj_train_data/a.png\n",
            "valid.txt": "data/obj_valid_data/b.png\n",
            "obj_train_data/a.png": PIXELS,
            "obj_train_data/a.txt": A,
            "obj_valid_data/b.png": PIXELS,
            "obj_valid_data/b.txt": B,
        },
    )
    train = YoloSource(yaml=str(folder / "obj.data"))
    assert train.class_names == ("yes", "fire truck")
    assert boxes(train) == {"a.png": [BOX_A]}
    assert boxes(YoloSource(yaml=str(folder / "obj.data"), split="val")) == {
        "b.png": [BOX_B]
    }
    root = YoloSource(yaml=str(folder / "obj.data"), split="valid", root=str(folder))
    assert boxes(root) == {"b.png": [BOX_B]}


@pytest.mark.parametrize(
    "change, message",
    [
        (("classes = 2", "classes = 3"), "obj.data says nc: 3, but lists 2 names"),
        (("names = data/obj.names", ""), "obj.data needs names, .* it has the keys"),
        (("data/obj.names", "x.names"), "a name a line; x.names does not exist in"),
        (("backup = ", "backup "), "line 6: expected key = value; came 'backup backup"),
    ],
)
def test_an_obj_data_that_cannot_be_followed_is_a_clear_error(
    tmp_path, change, message
):
    put(tmp_path, {"obj.data": DARKNET.replace(*change), "obj.names": "a\nb"})
    with pytest.raises(ValueError, match=message):
        YoloSource(yaml=str(tmp_path / "obj.data"))


@pytest.mark.parametrize(
    "entry",
    [
        "/content/set/images/train",
        "D:\\set\\images\\train\\",
        "datasets/set/images/train",
        "..\\images\\train",
    ],
)
def test_a_split_of_another_machine_is_found_by_its_end_and_noted(tmp_path, entry):
    yaml = make(tmp_path, yaml=f"train: {entry}\nnames: [cat, dog]")
    source = YoloSource(yaml=yaml)
    assert boxes(source) == BOTH
    (note,) = source.report.entries("split found in another place")
    assert entry in note.message and f"{tmp_path}/images/train" in note.message


@pytest.mark.parametrize(
    "train, val",
    [("/x/one/images", "/x/two/images"), ("/x/train/images", "/x/valid/images")],
)
def test_splits_of_another_machine_do_not_become_the_same_folder(tmp_path, train, val):
    yaml = make(tmp_path, yaml=f"train: {train}\nval: {val}\nnames: [cat, dog]")
    for split in ("train", "val"):
        with pytest.raises(ValueError, match=f"split '{split}': .* does not exist"):
            YoloSource(yaml=yaml, split=split)


def test_labels_are_found_in_another_case_or_form_of_accents(tmp_path):
    yaml = make(tmp_path)
    composed, apart = "caf\u00e9", "cafe\u0301"
    put(tmp_path, {f"images/train/{apart}.png": PIXELS, "images/train/C.png": PIXELS})
    put(tmp_path, {f"labels/train/{composed}.txt": B, "labels/train/c.TXT": A})
    source = YoloSource(yaml=yaml)
    expected = BOTH | {f"{apart}.png": [BOX_B], "C.png": [BOX_A]}
    assert boxes(source) == expected
    assert source.report.counts == {}
    notes = source.report.entries("label file in another case")
    assert {os.path.basename(note.file) for note in notes} == {f"{apart}.png", "C.png"}


def test_a_label_of_another_case_is_not_taken_where_it_has_an_image_of_its_own(
    tmp_path,
):
    yaml = make(tmp_path)
    put(tmp_path, {"images/train/A.png": PIXELS, "labels/train/B.TXT": A})
    source = YoloSource(yaml=yaml)
    assert boxes(source) == BOTH | {"A.png": []}
    # b.png has b.txt; B.TXT has no image.
    assert source.report.counts == {"label without a picture": 1}


def test_two_label_files_of_an_image_are_reported(tmp_path):
    yaml = make(tmp_path)
    put(tmp_path, {"labels/train/a.TXT": B, "images/train/c.png": PIXELS})
    put(tmp_path, {"labels/train/C.txt": A, "labels/train/C.TXT": B})
    put(tmp_path, {"labels/train/d.txt": A, "images/train/D.png": PIXELS})
    source = YoloSource(yaml=yaml)
    assert boxes(source)["a.png"] == [BOX_A]
    assert boxes(source)["D.png"] == [BOX_A]
    messages = [e.message for e in source.report.entries("label without a picture")]
    assert any("a.txt is the label file of a.*" in message for message in messages)


@pytest.mark.parametrize("name", ["classes", "README", "train", "Labels"])
def test_names_of_lists_are_labels_only_where_an_image_has_that_name(tmp_path, name):
    yaml = make(tmp_path)
    put(tmp_path, {f"labels/train/{name}.txt": "cat\ndog\n"})
    source = YoloSource(yaml=yaml)
    assert boxes(source) == BOTH and source.report.render() == ""
    put(tmp_path, {f"labels/train/{name}.txt": A, f"images/train/{name}.png": PIXELS})
    source = YoloSource(yaml=yaml)
    assert boxes(source) == BOTH | {f"{name}.png": [BOX_A]}
    assert source.report.render() == ""


def test_images_with_one_label_file_are_named(tmp_path):
    yaml = make(tmp_path)
    put(tmp_path, {"images/train/a.bmp": PIXELS, "images/train/a.JPG": PIXELS})
    source = YoloSource(yaml=yaml)
    assert len(source) == 4
    (note,) = source.report.entries("label file of several images")
    assert note.file == str(tmp_path / "labels/train/a.txt")
    assert re.match(r"a.JPG, a.bmp, a.png: each of them", note.message)


def test_label_files_that_are_no_regular_file_are_reported_and_not_waited_for(
    tmp_path, monkeypatch
):
    yaml = make(tmp_path)
    for name in ("pipe", "socket", "device", "folder", "nowhere", "large"):
        put(tmp_path, {f"images/train/{name}.png": PIXELS})
    labels = tmp_path / "labels/train"
    os.mkfifo(labels / "pipe.txt")
    (labels / "device.txt").symlink_to("/dev/zero")
    (labels / "folder.txt").mkdir()
    (labels / "nowhere.txt").symlink_to("gone")
    with (labels / "large.txt").open("wb") as file:
        file.truncate(50_000_000)
    monkeypatch.chdir(labels)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.txt")
        source = YoloSource(yaml=yaml)
    assert boxes(source) == BOTH
    assert source.report.counts == {"unreadable label file": 6}
    text = " ".join(e.message for e in source.report.entries("unreadable label file"))
    assert "named pipe" in text and "device" in text and "folder" in text
    assert "50,000,000 bytes; at most" in text


def test_a_list_that_is_a_pipe_is_not_waited_for(tmp_path):
    yaml = make(tmp_path, yaml="train: train.txt\nnames: [cat, dog]")
    os.mkfifo(tmp_path / "train.txt")
    with pytest.raises(ValueError, match="train.txt: not a regular file but a named"):
        YoloSource(yaml=yaml)


@pytest.mark.parametrize("text", [b"\0" * 100, b"\xff\xfe\x00", b"0 \xff 1 1 1\n"])
def test_label_files_of_other_bytes_are_reported(tmp_path, text):
    yaml = make(tmp_path)
    put(tmp_path, {"labels/train/b.txt": text})
    source = YoloSource(yaml=yaml)
    assert boxes(source)["a.png"] == [BOX_A]
    assert sum(source.report.counts.values()) == 1
    assert "\n\n" not in source.report.render()


def test_the_other_splits_show_what_lines_mean(tmp_path):
    # Alone, five points that could be two key points without marks are not clear.
    unclear = "0 0.2 0.3 0.3 0.3 0.25 0.35 0.2 0.4 0.21 0.35"
    yaml = make(tmp_path, yaml="train: images/train\nval: images/val\nnames: [a, b]")
    put(tmp_path, {"images/val/a.png": PIXELS, "labels/val/a.txt": unclear})
    source = YoloSource(yaml=yaml, split="val")
    assert boxes(source) == {"a.png": []}
    assert source.report.counts == {"label line that can mean several things": 1}
    lines = "0 .2 .3 .3 .3 .25 .4\n0 .2 .3 .3 .3 .3 .4 .2 .5"
    put(tmp_path, {"labels/train/a.txt": lines})
    source = YoloSource(yaml=yaml, split="val")
    # Of 160 x 120 pixels: 0.2 to 0.3, and 0.3 to 0.4.
    assert boxes(source) == {"a.png": [[32, 36, 48, 48]]}
    assert source.report.counts == {}


@pytest.mark.parametrize(
    "said",
    ["kpt_shape: [2, 3]", "kpt_shape: [3, 2]", "task: pose", "flip_idx: [1, 0]"],
)
def test_key_points_that_are_said_leave_the_box(tmp_path, said):
    yaml = make(tmp_path, yaml=f"train: images/train\n{said}\nnames: [cat, dog]")
    put(tmp_path, {"labels/train/a.txt": f"{A} 0.1 0.2 0.2 0.3 0.2 0.1"})
    source = YoloSource(yaml=yaml)
    assert boxes(source) == BOTH
    assert source.report.counts == {}
    assert source.report.notes == {"label line with key points, which are not used": 1}


def test_a_task_that_is_said_makes_polygons(tmp_path):
    yaml = make(tmp_path, yaml="train: images/train\ntask: segment\nnames: [cat, dog]")
    line = "0 0.2 0.3 0.3 0.3 0.25 0.35 0.2 0.4 0.21 0.35"
    put(tmp_path, {"labels/train/a.txt": line})
    example = YoloSource(yaml=yaml, polygons=True)[0]
    assert np.rint(example.boxes).tolist() == [[32, 36, 48, 48]]
    assert len(example.polygons[0][0]) == 5
