import json
import os

import cv2
import numpy as np
import pytest

from tests.shared import shared
from yolojax.data.sources.coco import CocoSource
from yolojax.data.sources.yolo import YoloSource

CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]


def picture(image_id, name, **more):
    return {"id": image_id, "file_name": name, "height": 100, "width": 200, **more}


def box(image_id, category_id=3, bbox=(10, 20, 30, 40), **more):
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, **more}


def make_set(root, pictures, annotations, categories=CATEGORIES):
    """Arguments of `CocoSource` for a JSON whose pictures all exist."""
    for index, annotation in enumerate(annotations):
        annotation.setdefault("id", 100 + index)
    for record in pictures:
        path = root / "pictures" / record["file_name"].replace("\\", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", np.zeros((100, 200, 3), np.uint8))[1])
    content = {
        "images": pictures,
        "annotations": annotations,
        "categories": categories,
    }
    (root / "boxes.json").write_text(json.dumps(content))
    return dict(images=str(root / "pictures"), annotations=str(root / "boxes.json"))


def test_ids_with_gaps_become_labels_in_the_order_of_the_ids(tmp_path):
    annotations = [box(900, 7), box(12, 3, area=5.5), box(900, 3, (0, 0, 5, 5))]
    pictures = [picture(900, "b.png"), picture(12, "a.png")]
    source = CocoSource(**make_set(tmp_path, pictures, annotations))
    assert source.class_names == ("cat", "dog")
    assert source.category_ids == (3, 7)
    assert [example.image_id for example in source] == [900, 12]
    # The order of the annotations within a picture stays.
    assert source[0].labels.tolist() == [1, 0]
    np.testing.assert_array_equal(source[0].boxes, [[10, 20, 40, 60], [0, 0, 5, 5]])
    np.testing.assert_array_equal(source[0].areas, [1200, 25])
    np.testing.assert_array_equal(source[1].areas, [5.5])
    assert source[0].size == (100, 200)
    assert source.report.render() == ""


def test_crowds_are_kept_and_marked(tmp_path):
    annotations = [
        box(1, segmentation={"counts": [1, 2], "size": [100, 200]}, iscrowd=1),
        box(1, bbox=(0, 0, 9, 9), segmentation=[[0, 0, 9, 0, 9, 9]], iscrowd=1),
        box(1, bbox=(1, 1, 9, 9), iscrowd=0),
    ]
    source = CocoSource(**make_set(tmp_path, [picture(1, "a.png")], annotations))
    assert source[0].crowd.tolist() == [True, True, False]


def test_a_crowd_over_the_same_box_is_no_repeat(tmp_path):
    annotations = [box(1), box(1, iscrowd=1), box(1)]
    source = CocoSource(**make_set(tmp_path, [picture(1, "a.png")], annotations))
    assert source[0].crowd.tolist() == [False, True]
    (entry,) = source.report.entries("box given twice")
    assert entry.message.startswith("annotation 102: ")


def test_pictures_without_annotations_are_kept(tmp_path):
    pictures = [picture(1, "a.png"), picture(2, "b.png")]
    source = CocoSource(**make_set(tmp_path, pictures, [box(2)]))
    assert [len(example.boxes) for example in source] == [0, 1]
    assert source.report.counts == {}
    assert source.report.notes == {"picture without a box (background)": 1}


@pytest.mark.parametrize("name", ["sub/a.png", "sub\\a.png"])
def test_names_may_hold_folders(tmp_path, name):
    source = CocoSource(**make_set(tmp_path, [picture(1, name)], [box(1)]))
    assert source[0].image == str(tmp_path / "pictures/sub/a.png")


def test_a_folder_that_is_part_of_the_name_may_be_missing(tmp_path):
    arguments = make_set(tmp_path, [picture(1, "a.png")], [box(1)])
    path = tmp_path / "boxes.json"
    path.write_text(path.read_text().replace("a.png", "train2017/a.png"))
    assert len(CocoSource(**arguments)) == 1


def test_a_size_that_is_missing_is_read_from_the_file(tmp_path):
    record = {"id": 1, "file_name": "a.png"}
    source = CocoSource(**make_set(tmp_path, [record], [box(1)]))
    assert source[0].size == (100, 200)
    assert len(source[0].boxes) == 1


def test_polygons_stand_in_for_a_missing_bbox(tmp_path):
    annotation = box(1, segmentation=[[5, 6, 30, 8, 9, 20], [40, 1, 41, 2, 40, 3]])
    del annotation["bbox"]
    source = CocoSource(**make_set(tmp_path, [picture(1, "a.png")], [annotation]))
    np.testing.assert_array_equal(source[0].boxes, [[5, 1, 41, 20]])


@pytest.mark.parametrize(
    "bad, kind, message",
    [
        (box(99), "label without a picture", "image id 99"),
        (box(1, 5), "class out of range", "category id 5"),
        (box(1, bbox=(1, 2, 3)), "box with the wrong number of fields", r"\[1, 2, 3\]"),
        (box(1, bbox=None), "box with the wrong number of fields", "came None"),
        (box(1, bbox=("a", 1, 2, 3)), "box with the wrong number of fields", "'a'"),
        (box(1, bbox=(1, 2, float("nan"), 3)), "box that is not finite", "finite"),
        (box(1, bbox=(1, 2, 0, 3)), "box without area", "came x1 y1 x2 y2 = 1 2 1 5"),
        (box(1, bbox=(9, 2, -5, 3)), "box with corners out of order", "9 2 4 5"),
        (box(1, bbox=(300, 2, 5, 3)), "box outside its picture", "300 2 305 5"),
    ],
)
def test_a_bad_annotation_is_dropped_and_named(tmp_path, bad, kind, message):
    annotations = [box(1), dict(bad, id=55), box(1, 7)]
    source = CocoSource(**make_set(tmp_path, [picture(1, "a.png")], annotations))
    assert source[0].labels.tolist() == [0, 1]
    assert source.report.counts == {kind: 1}
    assert str(source.report.entries(kind)[0]).startswith(
        f"{tmp_path / 'boxes.json'}: annotation 55: "
    )
    with pytest.raises(ValueError, match=message):
        source.report.raise_if_any()


def test_missing_pictures_and_ids_of_two_files_are_left_out(tmp_path):
    pictures = [picture(1, "a.png"), picture(2, "b.png"), picture(1, "c.png")]
    pictures += [picture(3, "d.png"), picture(3, "./d.png")]
    arguments = make_set(tmp_path, pictures, [box(1), box(2), box(3, 7)])
    (tmp_path / "pictures/b.png").unlink()
    source = CocoSource(**arguments)
    # The box of image 1 may belong to a.png or to c.png.
    assert [example.image_id for example in source] == [3]
    assert source[0].labels.tolist() == [1]
    assert source.report.counts == {"image id given twice": 2, "missing picture": 1}
    first, second = source.report.entries("image id given twice")
    assert "id 1 stands for 'a.png' and for 'c.png'; both are left out" in first.message
    assert "id 3 stands for './d.png' twice; the second" in second.message


@pytest.mark.parametrize(
    "name", ["./a.png", "pictures/a.png", ".\\a.png", "b/../a.png", "A.PNG"]
)
@pytest.mark.parametrize("first_has_boxes", [True, False])
def test_of_two_records_of_one_file_one_is_kept(tmp_path, name, first_has_boxes):
    boxes = [box(2, 7, (1, 2, 3, 4))]
    boxes += [box(1)] if first_has_boxes else []
    arguments = make_set(tmp_path, [picture(1, "a.png")], boxes)
    path = tmp_path / "boxes.json"
    content = json.loads(path.read_text())
    content["images"].append(picture(2, name))
    path.write_text(json.dumps(content))
    source = CocoSource(**arguments)
    assert len(source) == 1
    if name == "A.PNG":  # it may be another file, which is missing
        assert source[0].image_id == 1
        assert source.report.counts == {"missing picture": 1}
        return
    # Never the boxes of both; without boxes of the first, those of the second.
    expected = [[10, 20, 40, 60]] if first_has_boxes else [[1, 2, 4, 6]]
    np.testing.assert_array_equal(source[0].boxes, expected)
    assert source.report.counts == {"image file named by two records": 1}


def test_names_of_another_spelling_suffix_or_folder_are_found_and_noted(tmp_path):
    pictures = [picture(n, f"{n}.png") for n in (1, 2, 3)]
    arguments = make_set(tmp_path, pictures, [box(1), box(2, 7), box(3)])
    path = tmp_path / "boxes.json"
    text = path.read_text().replace("1.png", "1.PNG").replace("2.png", "2.jpg")
    path.write_text(text.replace("3.png", "val/3.png"))
    source = CocoSource(**arguments)
    names = [str(tmp_path / "pictures" / f"{n}.png") for n in (1, 2, 3)]
    assert [example.name for example in source] == names
    assert source.report.counts == {}
    kinds = ("spelling", "suffix", "folder")
    expected = {f"image found under another {kind}": 1 for kind in kinds}
    assert source.report.notes == expected
    (entry,) = source.report.entries("image found under another folder")
    assert "image id 3: 'val/3.png' is taken to be 3.png, the only" in entry.message


def test_boxes_never_move_to_a_file_of_the_same_name_elsewhere(tmp_path):
    pictures = [picture(1, "cam1/1.png"), picture(2, "cam2/1.png")]
    arguments = make_set(tmp_path, pictures, [box(1), box(2, 7)])
    (tmp_path / "pictures/cam2/1.png").unlink()
    source = CocoSource(**arguments)
    assert [example.image_id for example in source] == [1]
    assert source[0].labels.tolist() == [0]
    assert source.report.counts == {"missing picture": 1}


@pytest.mark.parametrize(
    "record, found",
    [
        ({"coco_url": "http://a.org/train2017/a.png"}, True),
        ({"flickr_url": "https://a.org/x/a.png?size=big"}, True),
        ({"file_name": "", "url": "a%2Epng"}, True),
        ({"file_name": None, "coco_url": "", "flickr_url": "http://a/a.png"}, True),
        ({"coco_url": "http://a.org/"}, False),
        ({"coco_url": 5}, False),
        ({"coco_url": "http://[a"}, False),
        ({"file_name": 5}, False),
        ({}, False),
    ],
)
def test_an_image_without_file_name_has_that_of_its_url(tmp_path, record, found):
    pictures = [picture(1, "a.png"), picture(2, "b.png")]
    arguments = make_set(tmp_path, pictures, [box(1), box(2, 7)])
    path = tmp_path / "boxes.json"
    content = json.loads(path.read_text())
    content["images"][0] = {"id": 1, "height": 100, "width": 200, **record}
    path.write_text(json.dumps(content))
    source = CocoSource(**arguments)
    assert [example.image_id for example in source] == ([1, 2] if found else [2])
    kind = "image record without id or file_name"
    assert source.report.counts == ({} if found else {kind: 1})


def test_double_annotation_ids_are_reported_and_kept(tmp_path):
    annotations = [box(1, id=5), box(1, 7, id=5)]
    source = CocoSource(**make_set(tmp_path, [picture(1, "a.png")], annotations))
    assert len(source[0].labels) == 2
    assert source.report.counts == {"annotation id given twice": 1}


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "is not JSON"),
        ("[]", "holds a list; expected COCO's object"),
        ('{"images": [], "annotations": []}', "no list 'categories'.*has images, anno"),
        ('{"images": [], "annotations": [], "categories": []}', "has no categories"),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}',
            "none of the 0 pictures",
        ),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, '
            '{"id": 1, "name": "b"}]}',
            "category id 1 stands for both 'a' and 'b'",
        ),
    ],
)
def test_a_file_that_is_no_coco_json_is_a_clear_error(tmp_path, content, message):
    (tmp_path / "boxes.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        CocoSource(images=str(tmp_path), annotations=str(tmp_path / "boxes.json"))


def test_wrong_paths_say_what_is_there_instead(tmp_path):
    arguments = make_set(tmp_path, [picture(1, "a.png")], [box(1)])
    with pytest.raises(ValueError, match=r"no folder .*nix .*holds boxes\.json, pict"):
        CocoSource(**{**arguments, "images": str(tmp_path / "nix")})
    with pytest.raises(
        ValueError, match=r"no annotation file .*nix\.json; .*holds box"
    ):
        CocoSource(**{**arguments, "annotations": str(tmp_path / "nix.json")})
    with pytest.raises(ValueError, match="none of the 1 pictures.*is called 'a.png'"):
        CocoSource(**{**arguments, "images": str(tmp_path)})


def test_coco128_agrees_with_its_yolo_form_but_for_its_crowds():
    folder = shared("data", "coco128")
    annotations = folder / "annotations" / "instances_train2017.json"
    source = CocoSource(
        images=str(folder / "images/train2017"), annotations=str(annotations)
    )
    assert sum(len(example.labels) for example in source) == 939
    assert sum(example.crowd.sum() for example in source) == 10
    assert source.category_ids[-1] == 90
    other = YoloSource(yaml=str(folder / "data.yaml"))
    assert source.class_names == other.class_names
    by_name = {example.name: example for example in other}
    for example in source:
        same = by_name[example.name]
        assert same.size == example.size
        single = ~example.crowd
        # Six decimals of a share are 5e-7 of up to 640 px, twice for centre and size.
        distance = np.abs(example.boxes[single][:, None] - same.boxes[None]).max(-1)
        distance += 1e3 * (example.labels[single][:, None] != same.labels[None])
        assert distance.shape[0] == distance.shape[1]
        if len(distance):
            assert distance.min(0).max() < 5e-4 and distance.min(1).max() < 5e-4
        # Masks are smaller than their boxes.
        width, height = (example.boxes[:, 2:] - example.boxes[:, :2]).T
        assert (example.areas <= width * height * 1.01).all()


def test_masks_are_read_as_their_readme_describes_them():
    folder = shared("data", "masks_coco")
    expected = {"train": (200, [29, 658, 156]), "val": (60, [7, 263, 65])}
    for split, (pictures, boxes) in expected.items():
        source = CocoSource(
            images=str(folder / f"{split}2017"),
            annotations=str(folder / "annotations" / f"custom_{split}.json"),
        )
        assert len(source) == pictures
        labels = np.concatenate([example.labels for example in source])
        assert np.bincount(labels).tolist() == boxes
        assert source.category_ids == (0, 1, 2)
        assert source.report.counts == {}


def test_texts_are_ids_of_images_and_categories(tmp_path):
    categories = [{"id": "dog", "name": "Dog"}, {"id": "cat", "name": "Cat"}]
    pictures = [picture("x/1", "a.png"), picture("2", "b.png"), picture(3.0, "c.png")]
    annotations = [box("x/1", "cat"), box(2.0, "dog"), box("3", "cat", id="b7")]
    annotations += [box("x/1", "bird", (1, 2, 3, 4))]
    source = CocoSource(**make_set(tmp_path, pictures, annotations, categories))
    # Texts have no order of their own: that of the file.
    assert source.class_names == ("Dog", "Cat")
    assert source.category_ids == ("dog", "cat")
    assert [example.image_id for example in source] == ["x/1", 2, 3]
    assert [example.labels.tolist() for example in source] == [[1], [0], [1]]
    (entry,) = source.report.entries("class out of range")
    assert "category id 'bird' is not among" in entry.message


def test_1_and_its_text_are_one_id_given_twice(tmp_path):
    pictures = [picture(1, "a.png"), picture("1", "b.png"), picture(2, "c.png")]
    source = CocoSource(**make_set(tmp_path, pictures, [box(2)]))
    assert [example.image_id for example in source] == [2]
    assert source.report.counts == {"image id given twice": 1}


@pytest.mark.parametrize(
    "crowd, expected", [("1", True), ("false", False), (None, False), (1.0, True)]
)
def test_crowds_in_other_forms(tmp_path, crowd, expected):
    annotations = [box(1, iscrowd=crowd), box(1, 7)]
    source = CocoSource(**make_set(tmp_path, [picture(1, "a.png")], annotations))
    assert source[0].crowd.tolist() == [expected, False]


def test_a_crowd_that_is_not_clear_is_dropped_and_named(tmp_path):
    annotations = [box(1, iscrowd="maybe"), box(1, 7)]
    source = CocoSource(**make_set(tmp_path, [picture(1, "a.png")], annotations))
    assert source[0].labels.tolist() == [1]
    (entry,) = source.report.entries("iscrowd that is not 0 or 1")
    assert entry.message == "annotation 100: expected 0 or 1, came 'maybe'; dropped"


# Images are 200 x 100 px. The boxes 10 20 40 60 and 100 50 180 90 in shares of them:
# of the first x - width / 2 is below 0, of the second the width is less than x.
SHARES = [(0.05, 0.2, 0.15, 0.4), (0.5, 0.5, 0.4, 0.4)]


def test_boxes_in_shares_of_the_image_are_scaled_and_noted(tmp_path):
    outline = [[0.05, 0.2, 0.2, 0.2, 0.2, 0.6]]
    annotations = [box(1, bbox=SHARES[0], area=0.06, segmentation=outline)]
    annotations += [box(1, 7, bbox=SHARES[1], area=0.16)]
    arguments = make_set(tmp_path, [picture(1, "a.png")], annotations)
    source = CocoSource(**arguments, polygons=True)
    expected = [[10, 20, 40, 60], [100, 50, 180, 90]]
    np.testing.assert_allclose(source[0].boxes, expected, atol=1e-4)
    np.testing.assert_allclose(source[0].areas, [1200, 3200], rtol=1e-5)
    assert source[0].polygons is not None
    np.testing.assert_allclose(
        source[0].polygons[0][0], [[10, 20], [40, 20], [40, 60]], atol=1e-4
    )
    assert source.report.counts == {}
    assert source.report.notes["file with boxes in shares of the image"] == 1


@pytest.mark.parametrize(
    "boxes, message",
    [
        # Also the second box alone: it could be a centre and a size.
        (SHARES[1:], "could also be centres or second corners, not only x y width"),
        # Centres and sizes, as in YOLO's files.
        ([(0.9, 0.5, 0.2, 0.4), (0.3, 0.3, 0.1, 0.1)], "do not fit as x y width"),
    ],
    ids=["not clear", "centres"],
)
def test_shares_of_another_form_are_an_error(tmp_path, boxes, message):
    annotations = [box(1, bbox=values) for values in boxes]
    arguments = make_set(tmp_path, [picture(1, "a.png")], annotations)
    with pytest.raises(ValueError, match=f"boxes.json: all . boxes lie in.*{message}"):
        CocoSource(**arguments)


def test_a_box_in_shares_among_boxes_in_pixels_is_dropped(tmp_path):
    annotations = [box(1), box(1, 7, bbox=SHARES[0]), box(1, 7, bbox=(0, 0, 2, 2))]
    source = CocoSource(**make_set(tmp_path, [picture(1, "a.png")], annotations))
    np.testing.assert_array_equal(source[0].boxes, [[10, 20, 40, 60], [0, 0, 2, 2]])
    (entry,) = source.report.entries("box within the first pixel")
    assert "annotation 101: came x y width height = 0.05 0.2 0.15 0.4" in entry.message


@pytest.mark.parametrize(
    "boxes, areas, message",
    [
        # Corners of 10 20 60 70 and 120 30 190 90.
        ([(10, 20, 60, 70), (120, 30, 190, 90)], (None, None), "1 of 2 boxes leave"),
        # Both fit when they are read as sizes; the areas are 50 x 50 and 20 x 10.
        ([(10, 20, 60, 70), (1, 2, 21, 12)], (2500, 200), "the areas are those of"),
    ],
    ids=["outside", "areas"],
)
def test_corners_in_place_of_sizes_are_an_error(tmp_path, boxes, areas, message):
    annotations = [
        box(1, bbox=values, area=area)
        for values, area in zip(boxes, areas, strict=True)
    ]
    arguments = make_set(tmp_path, [picture(1, "a.png")], annotations)
    with pytest.raises(ValueError, match=f"looks like x1, y1, x2, y2: {message}"):
        CocoSource(**arguments)


def test_boxes_with_a_mask_of_another_area_are_no_corners(tmp_path):
    annotations = [box(1, bbox=(10, 20, 60, 70), area=2000), box(1, 7, area=1200)]
    source = CocoSource(**make_set(tmp_path, [picture(1, "a.png")], annotations))
    np.testing.assert_array_equal(source[0].boxes, [[10, 20, 70, 90], [10, 20, 40, 60]])


# A mask of 100 rows: rows 20 to 29 of the columns 5 and 6.
RUNS = [520, 10, 90, 10, 19370]
MASKS = {
    "polygons": [[5, 20, 7, 20, 7, 30]],
    "runs": {"size": [100, 200], "counts": RUNS},
    # 520 is 8 + 16 x 32, then a sign: "X`0". 10 is ":". 90 is 26 + 2 x 32: "j2". Then
    # 10 - 10 is "0", and 19370 - 90 is 16 + 26 x 32 + 18 x 1024, with a sign: "`jb0".
    "text": {"size": [100, 200], "counts": "X`0:j20`jb0"},
}


@pytest.mark.parametrize("bbox", [None, [], "", [0, 0, 0, 0], "missing"])
@pytest.mark.parametrize("form", MASKS)
def test_masks_stand_in_for_a_box_that_is_empty(tmp_path, form, bbox):
    annotation = box(1, bbox=bbox, segmentation=MASKS[form])
    if bbox == "missing":
        del annotation["bbox"]
    source = CocoSource(**make_set(tmp_path, [picture(1, "a.png")], [annotation]))
    np.testing.assert_array_equal(source[0].boxes, [[5, 20, 7, 30]])
    assert source.report.render() == "note: box of a mask, where there is no bbox: 1"


@pytest.mark.parametrize(
    "mask, message",
    [
        ({"size": [10, 10], "counts": [1, 2]}, "size .* is not that of the image"),
        ([[1, 2, 3]], "3 numbers; expected pairs"),
        ("text", "neither polygons nor run lengths"),
    ],
)
def test_a_mask_that_cannot_be_read_drops_its_box(tmp_path, mask, message):
    annotations = [box(1, 7), box(1, bbox=None, segmentation=mask, id=5)]
    source = CocoSource(**make_set(tmp_path, [picture(1, "a.png")], annotations))
    assert source[0].labels.tolist() == [1]
    assert source.report.counts == {"mask that cannot be read": 1}
    with pytest.raises(ValueError, match=f"annotation 5: no bbox, and .*{message}"):
        source.report.raise_if_any()


@pytest.mark.parametrize(
    "bbox",
    ["1234", "10,20,30,40", {"x": 1, "y": 2, "w": 3, "h": 4}, [1, 2, 3, True], 5]
    + [[1, 2, [3], 4], [1, 2, "1_0", 4], [[1, 2, 3, 4]]],
    ids=str,
)
def test_a_bbox_that_is_no_list_of_four_numbers_is_dropped(tmp_path, bbox):
    annotations = [box(1, 7), box(1, bbox=bbox)]
    source = CocoSource(**make_set(tmp_path, [picture(1, "a.png")], annotations))
    assert source[0].labels.tolist() == [1]
    assert source.report.counts == {"box with the wrong number of fields": 1}


def test_quoted_numbers_are_numbers(tmp_path):
    record = picture(1, "a.png") | {"height": "100", "width": 200.0}
    annotations = [box(1, bbox=["10", " 20.5 ", "3e1", "40"], area="7")]
    source = CocoSource(**make_set(tmp_path, [record], annotations))
    np.testing.assert_array_equal(source[0].boxes, [[10, 20.5, 40, 60.5]])
    assert source[0].size == (100, 200)
    assert source[0].areas.tolist() == [7]


@pytest.mark.parametrize("area", [-1, float("nan"), 1e300, 10**400, None, [], "big"])
def test_an_area_that_is_none_is_that_of_the_box(tmp_path, area):
    arguments = make_set(tmp_path, [picture(1, "a.png")], [box(1, area=area)])
    assert CocoSource(**arguments)[0].areas.tolist() == [1200]


@pytest.mark.parametrize("side", [0, -3, 10**30, "x", None, [1], 99.5])
def test_a_size_that_is_none_is_read_from_the_file(tmp_path, side):
    record = picture(1, "a.png") | {"height": side}
    source = CocoSource(**make_set(tmp_path, [record], [box(1)]))
    assert source[0].size == (100, 200)


def test_a_file_without_one_good_annotation_is_an_error(tmp_path):
    arguments = make_set(tmp_path, [picture(1, "a.png")], [box(1, 5), box(1, bbox=[])])
    with pytest.raises(
        ValueError,
        match="none of the 2 annotations can be used; .*annotation 100: category id 5",
    ) as error:
        CocoSource(**arguments)
    assert "\n" not in str(error.value)


def test_keys_that_stand_twice_drop_the_record(tmp_path):
    annotations = [box(1, 7), box(1)]
    arguments = make_set(tmp_path, [picture(1, "a.png")], annotations)
    path = tmp_path / "boxes.json"
    text = path.read_text()
    path.write_text(text.replace('"id": 101', '"id": 101, "bbox": [1, 2, 3, 4]'))
    source = CocoSource(**arguments)
    assert source[0].labels.tolist() == [1]
    (entry,) = source.report.entries("key given twice")
    assert "annotation 101: bbox stands twice" in entry.message
    path.write_text(text[:-1] + ', "annotations": []}')
    with pytest.raises(ValueError, match="has 'annotations' twice"):
        CocoSource(**arguments)


@pytest.mark.parametrize(
    "categories, message",
    [
        ([{"id": None, "name": "a"}], r"categories\[0\] is \{"),
        ([{"id": 1, "name": None}], "category without id or name"),
        ([{"id": 1, "name": " "}], "category without id or name"),
        ([{"id": True, "name": "a"}], "category without id or name"),
        ([{"id": [1], "name": "a"}], r"id of categories\[0\] is a list"),
        ([None], r"categories\[0\] is null"),
    ],
)
def test_categories_that_are_not_clear_are_an_error(tmp_path, categories, message):
    arguments = make_set(tmp_path, [picture(1, "a.png")], [box(1, 1)], categories)
    with pytest.raises(ValueError, match=message):
        CocoSource(**arguments)


def test_categories_that_stand_twice_share_a_name_or_lie_above_are_noted(tmp_path):
    categories = [
        {"id": -1, "name": "masks", "supercategory": "none"},
        {"id": 0, "name": "with", "supercategory": "masks"},
        {"id": 0, "name": "with", "supercategory": "masks"},
        {"id": 2, "name": "with", "supercategory": "masks"},
        {"id": 3, "name": 5},
    ]
    arguments = make_set(tmp_path, [picture(1, "a.png")], [box(1, 0)], categories)
    source = CocoSource(**arguments)
    assert source.class_names == ("masks", "with", "with", "5")
    assert source.category_ids == (-1, 0, 2, 3)
    assert source[0].labels.tolist() == [1]
    assert source.report.counts == {}
    assert source.report.notes == {
        "category given twice, with the same id and name": 1,
        "class name given twice": 1,
        "class that is a supercategory": 1,
    }


@pytest.mark.parametrize(
    "content, message",
    [
        ([{"image_id": 1, "score": 0.5}], "a list; .*results.*annotation file"),
        ({"images": [], "annotations": [{"caption": "x"}]}, "a file of captions"),
        ({"images": [], "annotations": [{"segments_info": []}]}, "of panoptic masks"),
        ({"images": {}, "annotations": [], "categories": []}, "no list 'images'"),
    ],
)
def test_other_files_of_coco_are_called_so(tmp_path, content, message):
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        CocoSource(images=str(tmp_path), annotations=str(tmp_path / "boxes.json"))


def test_key_points_are_noted_and_their_boxes_kept(tmp_path):
    annotations = [box(1, keypoints=[1, 2, 2], num_keypoints=1)]
    source = CocoSource(**make_set(tmp_path, [picture(1, "a.png")], annotations))
    np.testing.assert_array_equal(source[0].boxes, [[10, 20, 40, 60]])
    notes = {"annotation with key points, which are not used": 1}
    assert source.report.notes == notes


def test_a_named_pipe_is_no_annotation_file(tmp_path):
    arguments = make_set(tmp_path, [picture(1, "a.png")], [box(1)])
    (tmp_path / "boxes.json").unlink()
    os.mkfifo(tmp_path / "boxes.json")
    with pytest.raises(ValueError, match="boxes.json: not a regular file"):
        CocoSource(**arguments)
