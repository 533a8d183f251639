from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.shared import shared
from yolojax.data.sources.voc import VocSource


def item(name="cat", corners=(10, 20, 40, 60), difficult=0):
    tags = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=False)
    inner = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags)
    return (
        f"\n<object><name>{name}</name><difficult>{difficult}</difficult>"
        f"<bndbox>{inner}</bndbox></object>"
    )


def xml(*items, size=(200, 100), filename="old.jpg"):
    stated = ""
    if size:
        stated = "<size><width>{}</width><height>{}</height></size>".format(*size)
    return (
        f"<annotation><filename>{filename}</filename>{stated}"
        f"{''.join(items)}\n</annotation>"
    )


def make_set(
    root, files, splits=None, folders=("JPEGImages", "Annotations"), suffix=".jpg"
):
    """A data set of one picture of 200 x 100 an XML text."""
    pictures, annotations = root / folders[0], root / folders[1]
    for folder in (pictures, annotations):
        folder.mkdir(parents=True, exist_ok=True)
    data = cv2.imencode(suffix, np.zeros((100, 200, 3), np.uint8))[1].tobytes()
    for name, text in files.items():
        (pictures / f"{name}{suffix}").write_bytes(data)
        (annotations / f"{name}.xml").write_text(text)
    if splits:
        (root / "ImageSets/Main").mkdir(parents=True)
        for split, names in splits.items():
            (root / "ImageSets/Main" / f"{split}.txt").write_text("\n".join(names))
    return str(root)


def test_corners_are_taken_as_they_stand(tmp_path):
    text = xml(item("dog", (10, 20, 40, 60)), item("cat", ("1.5", " 2 ", 3, 4)))
    root = make_set(tmp_path, {"a": text}, {"train": ["a"]})
    example = (source := VocSource(root=root))[0]
    np.testing.assert_array_equal(example.boxes, [[10, 20, 40, 60], [1.5, 2, 3, 4]])
    assert example.labels.tolist() == [1, 0]
    np.testing.assert_array_equal(example.areas, [1200, 3])
    assert example.size == (100, 200)
    assert example.image == str(tmp_path / "JPEGImages/a.jpg")
    assert source.class_names == ("cat", "dog") and source.category_ids == (0, 1)
    assert source.report.render() == ""


def test_class_names_come_from_all_splits(tmp_path):
    files = {"a": xml(item("dog")), "b": xml(item("ape")), "c": xml(item("cat"))}
    root = make_set(tmp_path, files, {"train": ["a"], "val": ["b"]})
    train, val = VocSource(root=root), VocSource(root=root, split="val")
    assert train.class_names == val.class_names == ("ape", "cat", "dog")
    assert train[0].labels.tolist() == [2] and val[0].labels.tolist() == [0]


def test_class_names_that_are_given_fix_the_order(tmp_path):
    text = xml(item("cat"), item("ape", (1, 1, 9, 9)), item("dog"))
    root = make_set(tmp_path, {"a": text}, {"train": ["a"]})
    source = VocSource(root=root, class_names=("dog", "cat"))
    assert source[0].labels.tolist() == [1, 0]
    (entry,) = source.report.entries("class out of range")
    assert entry.line == 3
    assert entry.message == "class 'ape' is not one of dog, cat; dropped"


@pytest.mark.parametrize(
    "difficult, labels, crowd",
    [
        ("ignore", [0, 0], [False, True]),
        ("keep", [0, 0], [False, False]),
        ("drop", [0], [False]),
    ],
)
def test_difficult_boxes(tmp_path, difficult, labels, crowd):
    text = xml(item(), item(corners=(1, 1, 9, 9), difficult=1))
    root = make_set(tmp_path, {"a": text}, {"train": ["a"]})
    example = VocSource(root=root, difficult=difficult)[0]
    assert example.labels.tolist() == labels
    assert example.crowd.tolist() == crowd


def test_an_unknown_way_with_difficult_boxes_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="ignore, keep, drop, not 'ignored'.*'ignore'"):
        VocSource(root=str(tmp_path), difficult="ignored")


@pytest.mark.parametrize(
    "folders",
    [
        ("JPEGImages", "Annotations"),
        ("images", "annots"),
        ("images", "annotations"),
        (".", "."),
    ],
)
def test_folder_names_that_are_in_use(tmp_path, folders):
    root = make_set(tmp_path, {"a": xml(item())}, folders=folders, suffix=".png")
    source = VocSource(root=root)
    assert len(source[0].boxes) == 1
    assert source.report.notes == {"set without splits": 1}


def test_a_split_may_be_a_folder(tmp_path):
    make_set(tmp_path / "train", {"a": xml(item("dog"))}, folders=(".", "."))
    make_set(tmp_path / "valid", {"b": xml(item("cat"))}, folders=(".", "."))
    train, valid = (VocSource(root=str(tmp_path), split=s) for s in ("train", "valid"))
    assert train.class_names == valid.class_names == ("cat", "dog")
    assert (len(train), len(valid)) == (1, 1)
    assert train.report.notes == {}


def test_lists_may_carry_marks_blank_lines_and_extensions(tmp_path):
    files = {"a b": xml(item()), "c": xml(item()), "d": xml(item())}
    splits = {"train": ["a b  1", "", "c -1", "d.jpg", "c"]}
    assert len(VocSource(root=make_set(tmp_path, files, splits))) == 3


def test_the_name_of_a_part_is_not_the_name_of_the_object(tmp_path):
    text = xml(item()).replace("</object>", "<part><name>head</name></part></object>")
    source = VocSource(root=make_set(tmp_path, {"a": text}, {"train": ["a"]}))
    assert source.class_names == ("cat",)


@pytest.mark.parametrize(
    "bad, kind",
    [
        (item(corners=(1, 2, 3)), "box with the wrong number of fields"),
        (item(corners=(1, 2, 3, "x")), "box with the wrong number of fields"),
        (item(corners=(1, 2, 30, "nan")), "box that is not finite"),
        (item(corners=(30, 2, 1, 4)), "box with corners out of order"),
        (item(corners=(1, 2, 1, 2)), "box without area"),
        (item(corners=(201, 2, 230, 9)), "box outside its picture"),
        (item(), "box given twice"),
    ],
)
def test_a_bad_box_is_dropped_and_reported_with_its_line(tmp_path, bad, kind):
    text = xml(item(), bad, item("dog"))
    source = VocSource(root=make_set(tmp_path, {"a": text}, {"train": ["a"]}))
    assert source[0].labels.tolist() == [0, 1]
    assert source.report.counts == {kind: 1}
    (entry,) = source.report.entries(kind)
    assert (entry.file, entry.line) == (str(tmp_path / "Annotations/a.xml"), 3)
    assert entry.message.startswith("cat: ") and entry.message.endswith("dropped")


def test_counting_pixels_from_one_overshoots_by_one_and_is_clipped(tmp_path):
    text = xml(item(corners=(150, 50, 201, 101)))
    source = VocSource(root=make_set(tmp_path, {"a": text}, {"train": ["a"]}))
    np.testing.assert_array_equal(source[0].boxes, [[150, 50, 200, 100]])
    assert source.report.counts == {}


@pytest.mark.parametrize("text", [xml(item(), size=(0, 0)), xml(item(), size=())])
def test_a_size_that_is_missing_is_read_from_the_picture(tmp_path, text):
    source = VocSource(root=make_set(tmp_path, {"a": text}, {"train": ["a"]}))
    assert source[0].size == (100, 200)
    assert source.report.counts == {}


def test_a_wrong_size_is_reported_and_the_pictures_own_is_used(tmp_path):
    files = {"a": xml(item(), size=(640, 480))}
    source = VocSource(root=make_set(tmp_path, files, {"train": ["a"]}))
    assert source[0].size == (100, 200)
    (entry,) = source.report.entries("size that the picture does not have")
    assert "640 x 480 stated, a.jpg shows 200 x 100" in entry.message


def test_a_picture_that_exif_turns_away_from_its_boxes_is_left_out(tmp_path):
    files = {"a": xml(item()), "b": xml(item())}
    root = make_set(tmp_path, files, {"train": ["a", "b"]})
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(np.zeros((100, 200, 3), np.uint8))
    image.save(tmp_path / "JPEGImages/a.jpg", exif=exif)
    source = VocSource(root=root)
    assert [example.name[-5:] for example in source] == ["b.jpg"]
    (entry,) = source.report.entries("size that the picture turns")
    assert "200 x 100 stated, a.jpg shows 100 x 200" in entry.message


def test_faulty_files_are_left_out_and_reported(tmp_path):
    good = xml(item())
    files = {"a": good, "b": "<annotation><object>", "c": good, "d": good}
    root = make_set(tmp_path, files, {"train": ["a", "b", "c", "d", "e"]})
    (tmp_path / "JPEGImages/c.jpg").unlink()
    (tmp_path / "JPEGImages/d.jpg").write_bytes(b"")
    source = VocSource(root=root)
    assert len(source) == 1
    assert source.report.counts == {
        "missing annotation file": 1,
        "unreadable annotation file": 1,
        "label without a picture": 1,
        "unreadable picture": 1,
    }


def test_the_filename_tag_finds_a_picture_of_another_name(tmp_path):
    root = make_set(tmp_path, {"a": xml(item(), filename="z.jpg")}, {"train": ["a"]})
    (tmp_path / "JPEGImages/a.jpg").rename(tmp_path / "JPEGImages/z.jpg")
    assert VocSource(root=root)[0].name.endswith("z.jpg")


def test_wrong_paths_and_empty_sets_are_clear_errors(tmp_path):
    with pytest.raises(ValueError, match="no folder .*nix; .* holds nothing"):
        VocSource(root=str(tmp_path / "nix"))
    with pytest.raises(ValueError, match="no .xml file in .*nor in its folders Annot"):
        VocSource(root=str(tmp_path))
    root = make_set(tmp_path, {"a": xml()}, {"train": ["a"], "val": ["q"]})
    with pytest.raises(ValueError, match="no split 'test' in .*; it has train, val"):
        VocSource(root=root, split="test")
    with pytest.raises(ValueError, match="split 'val' names 1 pictures, none of them"):
        VocSource(root=root, split="val")
    with pytest.raises(ValueError, match="no object in any XML file"):
        VocSource(root=root)
    (tmp_path / "JPEGImages/a.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"not one picture can(.|\n)*file is empty"):
        VocSource(root=root, class_names=("cat",))


def test_bccd_is_read_as_its_readme_describes_it():
    root = str(shared("data", "bccd_voc"))
    counts = {}
    for split, faults in (("train", 1), ("val", 1), ("test", 0)):
        source = VocSource(root=root, split=split)
        assert source.class_names == ("Platelets", "RBC", "WBC")
        boxes = sum(len(example.labels) for example in source)
        assert sum(source.report.counts.values()) == faults
        assert all(example.size == (480, 640) for example in source)
        counts[split] = (len(source), boxes + faults)
    assert counts == {"train": (205, 2805), "val": (87, 1138), "test": (72, 945)}


def test_kangaroos_with_meaningless_orientations_are_upright():
    source = VocSource(root=str(shared("data", "hostile", "kangaroo_voc")))
    assert [example.size for example in source] == [(277, 480), (393, 590), (321, 480)]
    assert source.report.counts == {}


def names_and_boxes(source):
    """Corners of the boxes by the picture's file name."""
    return {Path(e.name).name: e.boxes.astype(int).tolist() for e in source}


def at(x):
    """An XML text with one box whose left side is x."""
    return xml(item(corners=(x, 20, 40, 60)))


def test_a_mark_is_cut_only_where_no_file_has_the_whole_name(tmp_path):
    files = {"photo": at(1), "photo 1": at(2), "other -1": at(3), "last": at(4)}
    splits = {"car_train": ["photo 1", "other -1", "photo  -1", "last  0", "photo 1 1"]}
    source = VocSource(root=make_set(tmp_path, files, splits), split="car_train")
    assert names_and_boxes(source) == {
        "photo 1.jpg": [[2, 20, 40, 60]],
        "other -1.jpg": [[3, 20, 40, 60]],
        "photo.jpg": [[1, 20, 40, 60]],
        "last.jpg": [[4, 20, 40, 60]],
    }
    assert source.report.counts == {}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "gbk"])
def test_lists_in_other_encodings(tmp_path, encoding):
    files = {"a": at(1), "汽车 2": at(2)}
    root = make_set(tmp_path, files, {"train": ["a"]})
    content = "a\r\n\r\n汽车 2\r\n".encode(encoding)
    (tmp_path / "ImageSets/Main/train.txt").write_bytes(content)
    source = VocSource(root=root)
    assert list(names_and_boxes(source)) == ["a.jpg", "汽车 2.jpg"]
    assert source.report.render() == ""


@pytest.mark.parametrize(
    "line",
    [
        "a.JPG",
        "a.xml",
        "A",
        '"a"',
        "./a",
        "JPEGImages/a.jpg",
        "JPEGImages\\a.jpg",
        "VOCdevkit/VOC2007/JPEGImages/a.jpg",
        "/home/somebody/data/Annotations/a.xml",
        "JPEGImages/a.jpg Annotations/a.xml",
        "images/a.jpg 1",
    ],
)
def test_a_line_may_have_a_path_or_a_suffix(tmp_path, line):
    source = VocSource(root=make_set(tmp_path, {"a": at(1)}, {"train": [line]}))
    assert list(names_and_boxes(source)) == ["a.jpg"]
    assert source.report.render() == ""


def nested(root, names, suffixes=(".jpg", ".xml"), flat=False):
    """A set with folders in its folders; the box of file n begins at x = n + 1."""
    make_set(root, {})
    data = cv2.imencode(".jpg", np.zeros((100, 200, 3), np.uint8))[1].tobytes()
    for number, name in enumerate(names):
        image = root / "JPEGImages" / (Path(name).name if flat else name)
        for file, content in (
            (f"{image}{suffixes[0]}", data),
            (root / f"Annotations/{name}{suffixes[1]}", at(number + 1).encode()),
        ):
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            Path(file).write_bytes(content)
    return str(root)


def paths_and_boxes(source, root):
    return {
        str(Path(e.name).relative_to(root / "JPEGImages")): e.boxes.astype(int).tolist()
        for e in source
    }


def test_files_lie_in_folders_below_and_one_name_may_be_in_two(tmp_path):
    root = nested(tmp_path, ["day1/a", "day2/a", "b"])
    source = VocSource(root=root)
    assert paths_and_boxes(source, tmp_path) == {
        "b.jpg": [[3, 20, 40, 60]],
        "day1/a.jpg": [[1, 20, 40, 60]],
        "day2/a.jpg": [[2, 20, 40, 60]],
    }
    assert source.report.counts == {}


def test_lists_name_files_in_folders(tmp_path):
    root = nested(tmp_path, ["day1/a", "day2/a", "day2/b"])
    lists = tmp_path / "ImageSets/Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("day2/a\nJPEGImages/day1/a.jpg\nday9/b\na\n")
    source = VocSource(root=root)
    assert paths_and_boxes(source, tmp_path) == {
        "day2/a.jpg": [[2, 20, 40, 60]],
        "day1/a.jpg": [[1, 20, 40, 60]],
        "day2/b.jpg": [[3, 20, 40, 60]],
    }
    # The bare "a" can mean two files; "b" can only mean one, which is said.
    (entry,) = source.report.entries("missing annotation file")
    assert entry.message == "a is listed in split 'train'; left out"
    (entry,) = source.report.entries("listed with another folder")
    assert entry.message.startswith("day9/b is listed in split 'train', and this is")


def test_two_names_never_share_a_file_by_its_bare_name(tmp_path):
    root = nested(tmp_path, ["a", "b"])
    lists = tmp_path / "ImageSets/Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("day1/a\nday2/a\nb")
    source = VocSource(root=root)
    assert list(paths_and_boxes(source, tmp_path)) == ["b.jpg"]
    assert source.report.counts == {"missing annotation file": 2}


def test_xml_in_folders_and_pictures_in_one(tmp_path):
    source = VocSource(root=nested(tmp_path, ["x/a", "y/b"], flat=True))
    assert paths_and_boxes(source, tmp_path) == {
        "a.jpg": [[1, 20, 40, 60]],
        "b.jpg": [[2, 20, 40, 60]],
    }
    # Of two with one name neither is taken for the picture.
    other = tmp_path / "other"
    with pytest.raises(ValueError, match="(?s)not one picture can.*no picture x/a"):
        VocSource(root=nested(other, ["x/a", "y/a"], flat=True), class_names=("cat",))


def test_suffixes_in_capitals(tmp_path):
    root = nested(tmp_path, ["a", "day/B"], suffixes=(".JPG", ".XML"))
    (tmp_path / "JPEGImages/a.JPG").rename(tmp_path / "JPEGImages/A.JPG")
    source = VocSource(root=root)
    assert source.class_names == ("cat",)
    assert list(paths_and_boxes(source, tmp_path)) == ["A.JPG", "day/B.JPG"]


def test_folders_that_are_links_are_followed(tmp_path):
    nested(tmp_path / "pool", ["b"])
    root = tmp_path / "set"
    nested(root, ["a"])
    (root / "JPEGImages/day2").symlink_to(tmp_path / "pool/JPEGImages")
    (root / "Annotations/day2").symlink_to("../../pool/Annotations")
    (root / "Annotations/loop").symlink_to("..")
    source = VocSource(root=str(root))
    assert list(paths_and_boxes(source, root)) == ["a.jpg", "day2/b.jpg"]
    assert source.report.notes["link in a circle"] == 1


def test_a_name_in_filename_never_takes_the_picture_of_another_file(tmp_path):
    """Copied XML files keep the <filename> of the first."""
    files = {
        "a": xml(item(corners=(1, 20, 40, 60)), filename="a.jpg"),
        "b": xml(item(corners=(2, 20, 40, 60)), filename="a.jpg"),
        "c": xml(item(corners=(3, 20, 40, 60)), filename="z.jpg"),
        "d": xml(item(corners=(4, 20, 40, 60)), filename="z.jpg"),
    }
    root = make_set(tmp_path, files, {"train": ["a", "b", "c", "d"]})
    for name in "bcd":
        (tmp_path / f"JPEGImages/{name}.jpg").unlink()
    (tmp_path / "JPEGImages/z.jpg").write_bytes(
        (tmp_path / "JPEGImages/a.jpg").read_bytes()
    )
    source = VocSource(root=root)
    assert names_and_boxes(source) == {"a.jpg": [[1, 20, 40, 60]]}
    assert source.report.counts == {
        "label without a picture": 1,
        "image with several XML files": 2,
    }


def test_of_two_pictures_with_one_name_that_of_filename_is_taken(tmp_path):
    root = make_set(tmp_path, {"a": xml(item(), filename="a.png")}, {"train": ["a"]})
    cv2.imwrite(str(tmp_path / "JPEGImages/a.png"), np.zeros((100, 200, 3), np.uint8))
    source = VocSource(root=root)
    assert list(names_and_boxes(source)) == ["a.png"]
    (entry,) = source.report.entries("image that shares its XML file")
    assert entry.file == str(tmp_path / "JPEGImages/a.jpg")


def test_pictures_without_an_xml_file_are_named(tmp_path):
    root = make_set(tmp_path, {"a": at(1), "b": at(2)})
    (tmp_path / "Annotations/b.xml").unlink()
    source = VocSource(root=root)
    (entry,) = source.report.entries("image without an XML file")
    assert entry.file == str(tmp_path / "JPEGImages/b.jpg")


def test_two_xml_files_with_one_name_are_reported(tmp_path):
    root = make_set(tmp_path, {"a": at(1)})
    (tmp_path / "Annotations/a.XML").write_text(at(2))
    source = VocSource(root=root)
    assert len(source) == 1
    assert source.report.counts == {"annotation file given twice": 1}


@pytest.mark.parametrize("lists", [{"train": ["a", "b"]}, None])
@pytest.mark.parametrize("class_names", [None, ("cat",)])
def test_where_everything_fails_the_first_reasons_are_given(
    tmp_path, lists, class_names
):
    root = make_set(tmp_path, {"a": "", "b": ""}, lists)
    text = '<?xml version="1.0" encoding="UTF-8"?>' + xml(item("汽车"))
    for name in "ab":
        (tmp_path / f"Annotations/{name}.xml").write_bytes(text.encode("gbk"))
    with pytest.raises(ValueError) as caught:
        VocSource(root=root, class_names=class_names)
    message = str(caught.value)
    assert "a.xml: declares UTF-8, but byte " in message
    assert "b.xml: declares UTF-8, but byte " in message


@pytest.mark.parametrize(
    "stated, corners, kept",
    [
        ((400, 200), (10, 20, 40, 60), False),  # of the same shape: resized
        ((401, 200), (10, 20, 40, 60), False),  # but for rounding
        ((640, 480), (10, 20, 320, 60), False),  # no room for the box
        ((640, 480), (10, 20, 40, 60), True),
        ((640, 480), (10, 20, 999, 60), True),  # a box that fits neither
    ],
)
def test_boxes_of_a_resized_picture_are_left_out(tmp_path, stated, corners, kept):
    files = {"a": xml(item(corners=corners), size=stated), "b": at(1)}
    source = VocSource(root=make_set(tmp_path, files, {"train": ["a", "b"]}))
    assert ("a.jpg" in names_and_boxes(source)) is kept
    (entry,) = source.report.entries("size that the picture does not have")
    assert ("resized, so its boxes do not fit; left out" in entry.message) is not kept


@pytest.mark.parametrize("name", ["<name></name>", "", "<name> \n </name>"])
def test_an_object_without_a_name_is_dropped_and_reported(tmp_path, name):
    nameless = item().replace("<name>cat</name>", name)
    files = {"a": xml(nameless, item("dog"))}
    source = VocSource(root=make_set(tmp_path, files, {"train": ["a"]}))
    assert source.class_names == ("dog",)
    (entry,) = source.report.entries("object without a name")
    assert (entry.line, entry.message) == (2, "expected <name> with a class; dropped")


def test_white_space_and_forms_of_accents_make_no_new_class(tmp_path):
    files = {"a": xml(item("  red\n light "), item("re\u0301d", (1, 1, 9, 9)))}
    root = make_set(tmp_path, files, {"train": ["a"]})
    assert VocSource(root=root).class_names == ("red light", "réd")
    given = VocSource(root=root, class_names=("re\u0301d", "red light"))
    assert given[0].labels.tolist() == [1, 0]
