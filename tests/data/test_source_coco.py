import json

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


def test_missing_and_double_pictures_are_left_out(tmp_path):
    pictures = [picture(1, "a.png"), picture(2, "b.png"), picture(1, "c.png")]
    arguments = make_set(tmp_path, pictures, [box(1), box(2)])
    (tmp_path / "pictures/b.png").unlink()
    source = CocoSource(**arguments)
    assert [example.image_id for example in source] == [1]
    assert source.report.counts == {"missing picture": 1, "image id given twice": 1}


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
