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
