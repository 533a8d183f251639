import json
import shutil

import cv2
import numpy as np
import pytest

from yolojax.data import check, identity
from yolojax.data.sources import make_source
from yolojax.data.sources.joined import JoinedSource


def write_image(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((40, 60, 3), value, np.uint8)
    path.write_bytes(cv2.imencode(".png", image)[1])


def yolo_set(root, names=("a", "b", "c")):
    for number, name in enumerate(names):
        write_image(root / "images" / "train" / f"{name}.png", 10 * number)
        label = root / "labels" / "train" / f"{name}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(f"{number % 2} 0.5 0.5 0.25 0.5\n")
    (root / "data.yaml").write_text("train: images/train\nnames: [cat, dog]")


def part_of(tmp_path, use=slice(None), **arguments):
    """The part as a run sees it: after a scan, which reads the images."""
    source = make_source(**arguments)
    cache = tmp_path / "scan.json"
    check.scan(source, cache_path=cache)
    uses = {"train": np.arange(len(source))[use]}
    rows = range(len(source))
    return identity.describe_part(source, rows, uses, check.known_digests(cache))


def yolo(tmp_path, root, **options):
    return part_of(tmp_path, source="yolo", yaml=str(root / "data.yaml"), **options)


def test_a_moved_set_is_the_same_and_a_list_of_it_comes_back(tmp_path):
    yolo_set(tmp_path / "one")
    before = yolo(tmp_path, tmp_path / "one")
    shutil.move(tmp_path / "one", tmp_path / "images" / "deeper")
    now = yolo(tmp_path, tmp_path / "images" / "deeper")
    assert before.digest == now.digest and identity.difference(before, now) == ""
    identity.write_parts(tmp_path, {"train": before}, {})
    digests = {"train": now.digest}
    assert identity.read_parts(tmp_path, digests) == {"train": before}
    assert identity.read_parts(tmp_path, {"train": "other"}) == {}


def changed_label(root):
    (root / "labels" / "train" / "b.txt").write_text("0 0.5 0.5 0.25 0.5\n")


def moved_box(root):
    (root / "labels" / "train" / "b.txt").write_text("1 0.5 0.5 0.25 0.6\n")


def lost_label(root):
    (root / "labels" / "train" / "b.txt").unlink()


def another_image(root):
    write_image(root / "images" / "train" / "b.png", 99)


def larger_image(root):
    image = np.zeros((80, 120, 3), np.uint8)
    path = root / "images" / "train" / "b.png"
    path.write_bytes(cv2.imencode(".png", image)[1])


def added(root):
    write_image(root / "images" / "train" / "aa.png", 3)


def removed(root):
    (root / "images" / "train" / "a.png").unlink()


def renamed(root):
    for folder, end in (("images", "png"), ("labels", "txt")):
        path = root / folder / "train" / f"c.{end}"
        path.rename(path.with_stem("d"))


def other_classes(root):
    (root / "data.yaml").write_text("train: images/train\nnames: [cat, cow]")


@pytest.mark.parametrize(
    "change, words",
    [
        (changed_label, "1 image with other labels: b.png"),
        (moved_box, "1 image with other labels: b.png"),
        (lost_label, "1 image with other labels: b.png"),
        (another_image, "1 image with another image: b.png"),
        (added, "1 image added: aa.png"),
        (removed, "1 image removed: a.png"),
        (renamed, "1 image added: d.png; 1 image removed: c.png"),
        (other_classes, "the classes were cat, dog, and are cat, cow"),
        (
            larger_image,
            "1 image with another image: b.png; 1 image with other labels: b.png",
        ),
    ],
)
def test_what_changed_is_named(tmp_path, change, words):
    root = tmp_path / "set"
    yolo_set(root)
    before = yolo(tmp_path, root)
    change(root)
    now = yolo(tmp_path, root)
    assert before.digest != now.digest
    assert identity.difference(before, now) == words


def test_many_names_are_cut(tmp_path):
    root = tmp_path / "set"
    yolo_set(root)
    before = yolo(tmp_path, root)
    for number in range(7):
        write_image(root / "images" / "train" / f"n{number}.png", number)
    found = identity.difference(before, yolo(tmp_path, root))
    names = "n0.png, n1.png, n2.png, n3.png, n4.png, ... (7 in all)"
    assert found == f"7 images added: {names}"


def test_another_order_and_another_use_are_changes(tmp_path):
    yolo_set(tmp_path)
    files = [str(tmp_path / "images" / "train" / f"{name}.png") for name in "abc"]
    (tmp_path / "data.yaml").write_text("train: list.txt\nnames: [cat, dog]")
    (tmp_path / "list.txt").write_text("\n".join(files))
    before = yolo(tmp_path, tmp_path)
    held_out = yolo(tmp_path, tmp_path, use=slice(0, 2))
    found = identity.difference(before, held_out)
    assert found == "1 image used in another way: c.png"
    (tmp_path / "list.txt").write_text("\n".join(reversed(files)))
    found = identity.difference(before, yolo(tmp_path, tmp_path))
    assert found == "the images are in another order"


def test_equal_names_are_told_apart_by_their_folders(tmp_path):
    for label in ("x", "y"):
        for number in range(2):
            write_image(tmp_path / "set" / label / f"{number}.png", 7)
    arguments = {"source": "folder", "fractions": (1.0,)}
    before = part_of(tmp_path, root=str(tmp_path / "set"), **arguments)
    write_image(tmp_path / "set" / "y" / "1.png", 8)
    shutil.move(tmp_path / "set", tmp_path / "moved")
    now = part_of(tmp_path, root=str(tmp_path / "moved"), **arguments)
    assert identity.difference(before, now) == "1 image with another image: y/1.png"
    # The class of an image is its folder.
    shutil.move(tmp_path / "moved" / "y" / "0.png", tmp_path / "moved" / "x" / "2.png")
    now = part_of(tmp_path, root=str(tmp_path / "moved"), **arguments)
    assert "1 image removed: y/0.png" in identity.difference(before, now)


def test_labels_of_a_table_and_of_coco_and_voc_count(tmp_path):
    for name in ("a", "b"):
        write_image(tmp_path / "images" / f"{name}.png", ord(name))
    table = tmp_path / "labels.csv"
    table.write_text("path,label\nimages/a.png,cat\nimages/b.png,dog\n")
    given = {"source": "csv", "csv": str(table), "fractions": (1.0,)}
    before = part_of(tmp_path, **given)
    table.write_text("path,label\nimages/a.png,dog\nimages/b.png,cat\n")
    assert "2 images with other labels: a.png, b.png" == identity.difference(
        before, part_of(tmp_path, **given)
    )

    images = [
        {"id": number, "file_name": f"{name}.png", "width": 60, "height": 40}
        for number, name in enumerate("ab")
    ]
    box = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [5, 5, 20, 10]}
    content = {"images": images, "categories": [{"id": 3, "name": "cat"}]}
    file = tmp_path / "coco.json"
    given = {
        "source": "coco",
        "images": str(tmp_path / "images"),
        "annotations": str(file),
    }
    file.write_text(json.dumps({**content, "annotations": [box | {"area": 100}]}))
    before = part_of(tmp_path, **given)
    # The area decides to which sizes the evaluation counts the box.
    file.write_text(json.dumps({**content, "annotations": [box | {"area": 150}]}))
    found = identity.difference(before, part_of(tmp_path, **given))
    assert found == "1 image with other labels: b.png"

    xml = (
        "<annotation><filename>a.png</filename><object><name>cat</name><bndbox>"
        "<xmin>{}</xmin><ymin>2</ymin><xmax>30</xmax><ymax>30</ymax></bndbox></object>"
        "</annotation>"
    )
    (tmp_path / "images" / "a.xml").write_text(xml.format(3))
    given = {"source": "voc", "root": str(tmp_path / "images")}
    before = part_of(tmp_path, **given)
    (tmp_path / "images" / "a.xml").write_text(xml.format(4))
    found = identity.difference(before, part_of(tmp_path, **given))
    assert found == "1 image with other labels: a.png"


def test_made_images_are_known_by_their_names_and_labels():
    def digits(seed):
        source = make_source(source="digits", length=3, size=64, seed=seed)
        return identity.describe_part(source, range(3), {}, {})

    assert digits(0) == digits(0)
    assert digits(0).digest != digits(1).digest


def test_images_without_labels_are_a_part_of_their_own(tmp_path):
    for name in ("x/0", "y/1"):
        write_image(tmp_path / "set" / f"{name}.png", 5)
    write_image(tmp_path / "more" / "u.png", 6)
    labelled = make_source(
        source="folder", root=str(tmp_path / "set"), fractions=(1.0,)
    )
    others = make_source(source="folder", root=str(tmp_path / "more"))
    joined = JoinedSource(labelled, others)
    uses = {"train": np.array([0, 1, 2])}
    part = identity.describe_part(joined, range(2, 3), uses, {})
    assert [item.name for item in part.items] == [str(tmp_path / "more" / "u.png")]
    assert part.items[0].use == "train"


def test_the_list_of_the_last_checkpoint_stays_until_the_next(tmp_path):
    def part(label):
        return {"train": identity.Part(("x",), (identity.Item("a", "1", label, ""),))}

    first, second, third = map(part, "123")
    digests = [identity.digests_of(parts) for parts in (first, second, third)]
    identity.write_parts(tmp_path, first, {})
    identity.write_parts(tmp_path, second, digests[0])
    assert identity.read_parts(tmp_path, digests[0]) == first
    assert identity.read_parts(tmp_path, digests[1]) == second
    # Killed before a checkpoint; the data changed again.
    identity.write_parts(tmp_path, third, digests[0])
    assert identity.read_parts(tmp_path, digests[0]) == first
    assert identity.read_parts(tmp_path, digests[1]) == {}
    assert identity.read_parts(tmp_path, digests[2]) == third


@pytest.mark.parametrize(
    "content",
    ["", "{", "null", "[]", '{"format": "other"}', "\x00", "[" * 5000],
    ids=["empty", "torn", "null", "list", "format", "byte", "deep"],
)
def test_a_damaged_list_is_made_anew(tmp_path, content):
    (tmp_path / identity.FILE).write_text(content)
    assert identity.read_parts(tmp_path, {"train": "x"}) == {}
    parts = {"train": identity.Part((), ())}
    identity.write_parts(tmp_path, parts, {})
    assert identity.read_parts(tmp_path, identity.digests_of(parts)) == parts
