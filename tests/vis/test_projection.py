"""Points in the plane: by hand, and what must not change."""

import cv2
import numpy as np
import pytest

from yolojax.vis import embedding, projection


def test_principal_components_of_a_line_by_hand():
    steps = np.array([-2.0, -1.0, 0.0, 3.0])
    first = steps[:, None] * [0.6, -0.8, 0.0] + [5.0, 6.0, 7.0]
    other = np.array([[5.0, 6.0, 7.0], [5.6, 5.2, 9.0]])
    (points, placed), shares = projection.principal_components([first, other])
    # The largest coefficient, that of the second number, is made positive.
    np.testing.assert_allclose(points, np.stack([-steps, 0 * steps], 1), atol=1e-9)
    # What the first part does not vary in has no direction.
    np.testing.assert_allclose(placed[:, 0], [0, -1], atol=1e-9)
    np.testing.assert_allclose(shares, [1, 0], atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 4), (3, 1), (4, 3)])
def test_parts_that_hardly_vary_have_points(shape):
    points, shares = projection.principal_components([np.zeros(shape)])
    assert points[0].shape == (shape[0], 2) and not points[0].any()
    assert shares == [0, 0]


def test_neighbours_stay_neighbours_and_every_call_gives_the_same():
    generator = np.random.default_rng(0)
    labels = np.arange(24) % 2
    values = generator.normal(size=(24, 80)) + 6 * labels[:, None]
    parts = [values[:16], values[16:]]
    found = projection.neighbour_embedding(parts, seed=6666)
    assert [part.shape for part in found] == [(16, 2), (8, 2)]
    points = np.concatenate(found)
    gaps = np.linalg.norm(points[:, None] - points, axis=2) + np.eye(24) * 1e9
    assert (labels[gaps.argmin(axis=1)] == labels).mean() > 0.9
    again = projection.neighbour_embedding(parts, seed=6666)
    np.testing.assert_array_equal(np.concatenate(again), points)


def test_equal_points_have_places():
    (points,) = projection.neighbour_embedding([np.ones((6, 3))], seed=1)
    assert np.isfinite(points).all()


def test_too_few_points_are_refused():
    with pytest.raises(ValueError, match="at least 5 pictures, but there are 4"):
        projection.neighbour_embedding([np.ones((3, 2)), np.ones((1, 2))], seed=0)


def test_classes_have_colours_of_their_own(tmp_path):
    points = np.stack([np.arange(30.0), np.zeros(30)], axis=1)
    parts = {
        "train": (points, np.arange(30) // 10 - 1),
        "val": (points[:0], np.zeros(0)),
    }
    path = embedding.plot_embedding(parts, ("a$b", "猫"), tmp_path / "a.png", title="t")
    image = cv2.imread(str(path))
    assert image is not None
    # Okabe and Ito's orange and sky blue, blue first.
    for colour in ((0, 159, 230), (233, 180, 86)):
        near = np.abs(image.astype(int) - colour).max(axis=2) < 20
        assert near.sum() > 100
