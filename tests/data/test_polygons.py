import numpy as np
import pytest

from tests.data.test_source_coco import box, make_set, picture
from tests.data.test_source_yolo import make_set as make_yolo_set
from yolojax.data import pipeline, polygons
from yolojax.data.loading import Layout, Loader
from yolojax.data.sources.coco import CocoSource
from yolojax.data.sources.yolo import YoloSource
from yolojax.ops.letterbox import Letterbox

BOX = np.float32([1, 2, 5, 8])


def area(edges):
    """Of what the edges enclose, by the shoelace formula; parts add up."""
    x1, y1, x2, y2 = edges.astype(np.float64).T
    return abs((x1 * y2 - x2 * y1).sum()) / 2


def blob(num_points, radius=100.0, seed=0):
    """A polygon with bumps, clockwise on the screen."""
    generator = np.random.default_rng(seed)
    angle = np.linspace(0, 2 * np.pi, num_points, endpoint=False)
    bumps = sum(
        generator.uniform(-1, 1) * np.sin(k * angle + generator.uniform(0, 6))
        for k in (2, 3, 5)
    )
    radius = radius * (1 + 0.1 * bumps)
    points = [200, 150] + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
    return points.astype(np.float32)


def test_an_outline_is_its_edges_and_padding_has_no_length():
    triangle = np.float32([[1, 1], [5, 1], [1, 4]])
    edges = polygons.outline_edges([triangle], BOX, 5)
    np.testing.assert_array_equal(
        edges,
        [[1, 1, 5, 1], [5, 1, 1, 4], [1, 4, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]],
    )
    assert edges.dtype == np.float32


def test_parts_stand_side_by_side():
    parts = [np.float32([[0, 0], [2, 0], [2, 2]]), np.float32([[5, 5], [7, 5], [7, 9]])]
    edges = polygons.outline_edges(parts, BOX, 6)
    np.testing.assert_array_equal(edges[:3, :2], parts[0])
    np.testing.assert_array_equal(edges[3:, :2], parts[1])
    np.testing.assert_array_equal(edges[[2, 5], 2:], [[0, 0], [5, 5]])


@pytest.mark.parametrize("parts", [(), (np.float32([[0, 0], [9, 9]]),)])
def test_an_object_without_a_polygon_is_its_box(parts):
    edges = polygons.outline_edges(parts, BOX, 4)
    np.testing.assert_array_equal(
        edges, [[1, 2, 5, 2], [5, 2, 5, 8], [5, 8, 1, 8], [1, 8, 1, 2]]
    )


@pytest.mark.parametrize("num_points", [33, 200, 2000])
def test_long_outlines_are_simplified_within_their_box(num_points):
    part = blob(num_points)
    edges = polygons.outline_edges([part], BOX, 32)
    assert len(edges) == 32
    low, high = edges[:, :2].min(0), edges[:, :2].max(0)
    np.testing.assert_array_equal(low, part.min(0))
    np.testing.assert_array_equal(high, part.max(0))
    np.testing.assert_array_equal(edges[:-1, 2:], edges[1:, :2])
    whole = np.concatenate([part, np.roll(part, -1, 0)], axis=1)
    assert abs(area(edges) / area(whole) - 1) < 0.02
    # Every point that is left out lies near to an edge.
    start, way = edges[:, None, :2], (edges[:, 2:] - edges[:, :2])[:, None]
    length = np.maximum((way**2).sum(-1), 1e-9)
    along = np.clip(((part - start) * way).sum(-1) / length, 0, 1)
    distance = np.linalg.norm(part - start - along[..., None] * way, axis=-1).min(0)
    assert distance.max() < 3


def test_of_too_many_parts_the_largest_stay():
    parts = [blob(20, radius, seed) for seed, radius in enumerate(range(5, 45, 2))]
    edges = polygons.outline_edges(parts, BOX, 16)
    assert len(edges) == 16
    # The largest four of twenty reach over 30 px from the common centre.
    assert edges[:, 0].max() > 230 and edges[:, 0].min() < 170


def test_degenerate_outlines_pass():
    point = np.float32([[3, 3]] * 50)
    edges = polygons.outline_edges([point], BOX, 8)
    np.testing.assert_array_equal(edges, polygons.outline_edges([], BOX, 8))
    line = np.float32([[x, x] for x in range(50)])
    edges = polygons.outline_edges([line], BOX, 8)
    assert edges.min() >= 0 and edges.max() <= 49


def test_coco_polygons_come_with_their_boxes(tmp_path):
    triangle, square = [10, 20, 40, 20, 40, 60], [50, 50, 60, 50, 60, 60, 50, 60]
    arguments = make_set(
        tmp_path,
        [picture(1, "a.png"), picture(2, "b.png")],
        [
            box(2, bbox=(10, 20, 50, 40), segmentation=[triangle, square]),
            box(1, bbox=(300, 20, 30, 40), segmentation=[triangle]),
            box(1, segmentation={"counts": "abc", "size": [100, 200]}),
            box(1, bbox=(0, 0, 8, 8), segmentation=[[1, 2, 3]]),
            box(1, bbox=(190, 90, 20, 20), segmentation=[[190, 90, 210, 90, 190, 130]]),
        ],
    )
    source = CocoSource(**arguments, polygons=True)
    assert source[1].polygons is not None
    (parts,) = source[1].polygons
    assert [part.dtype for part in parts] == [np.float32] * 2
    np.testing.assert_array_equal(parts[0], [[10, 20], [40, 20], [40, 60]])
    np.testing.assert_array_equal(parts[1][2], [60, 60])
    # The box outside is gone, and so is its polygon; the last is cut to the picture.
    assert source[0].polygons is not None
    assert [len(parts) for parts in source[0].polygons] == [0, 0, 1]
    np.testing.assert_array_equal(
        source[0].polygons[2][0], [[190, 90], [200, 90], [190, 100]]
    )
    assert source.report.notes["box without a polygon, taken as its outline"] == 2
    assert CocoSource(**arguments)[1].polygons is None


def test_yolo_polygons_come_with_their_boxes(tmp_path):
    yaml = make_yolo_set(tmp_path, ["0 .5 .5 .2 .2\n1 0.1 0.5 0.3 0.2 0.2 0.9", ""])
    source = YoloSource(yaml=yaml, polygons=True)
    example = source[0]
    assert example.polygons is not None and example.polygons[0] == ()
    np.testing.assert_allclose(
        example.polygons[1][0], [[20, 50], [60, 20], [40, 90]], atol=1e-4
    )
    np.testing.assert_allclose(example.boxes[1], [20, 20, 60, 90], atol=1e-4)
    assert source[1].polygons == ()
    plain = YoloSource(yaml=yaml)[0]
    assert plain.polygons is None
    np.testing.assert_array_equal(plain.boxes, example.boxes)


def load(source, num_edges):
    """The first two pictures at half their size."""
    layout = Layout(
        image_size=(50, 100),
        max_boxes=3,
        fill=0,
        place=lambda size: Letterbox((size[0] // 2, size[1] // 2), (0, 0), 0.5),
        read=lambda _, example, size, out: out.fill(0),
        num_edges=num_edges,
    )
    loader = Loader(source, 1)
    batch, _ = loader.load([0, 1], layout)
    loader.close()
    return batch


def test_polygons_lie_in_the_batch_as_boxes_do(tmp_path):
    yaml = make_yolo_set(tmp_path, ["0 .5 .5 .2 .2\n1 0.1 0.5 0.3 0.2 0.2 0.9", ""])
    batch = load(YoloSource(yaml=yaml, polygons=True), 8)
    assert batch.polygons.shape == (2, 3, 8, 4)
    np.testing.assert_allclose(
        batch.polygons[0, 1, :3],
        [[10, 25, 30, 10], [30, 10, 20, 45], [20, 45, 10, 25]],
        atol=1e-4,
    )
    pairs = zip(batch.boxes[0, :2], batch.polygons[0, :2], strict=True)
    for corners, edges in pairs:
        points = edges.reshape(-1, 2)
        expected = [*points.min(0), *points.max(0)]
        np.testing.assert_allclose(corners, expected, atol=1e-4)
    assert not batch.polygons[0, 2].any() and not batch.polygons[1].any()


def test_a_source_that_was_not_asked_brings_no_edges(tmp_path):
    yaml = make_yolo_set(tmp_path, ["1 0.1 0.5 0.3 0.2 0.2 0.9", ""])
    assert load(YoloSource(yaml=yaml), 0).polygons.shape == (2, 3, 0, 4)


def test_the_number_of_edges_is_that_of_the_longest_outline_and_limited(tmp_path):
    many = " ".join(f"{x:.4f}" for x in blob(100).ravel() / 400)
    yaml = make_yolo_set(tmp_path, ["1 0.1 0.5 0.3 0.2 0.2 0.9", f"0 {many}"])
    source = YoloSource(yaml=yaml, polygons=True)
    assert pipeline.num_edges_of(source, [0]) == 8
    assert pipeline.num_edges_of(source, [0, 1]) == 32
    assert pipeline.num_edges_of(YoloSource(yaml=yaml), [0, 1]) == 0
