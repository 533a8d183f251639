import subprocess
import sys

import cv2
import numpy as np
import pytest

from yolojax.vis import plots


def read_png(path):
    image = cv2.imread(str(path))
    assert image is not None
    return image


def test_series_leave_out_empty_cells_and_half_a_line(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,a,b\n1,0.5,\n2,,3\n4,oops,4\n5,0.25,1")
    series = plots.read_series(path)
    assert [values.tolist() for values in series["a"]] == [[1.0], [0.5]]
    assert [values.tolist() for values in series["b"]] == [[2.0, 4.0], [3.0, 4.0]]


@pytest.mark.parametrize("length", [3, 10, 200])
def test_smoothing_keeps_a_constant_and_the_middle_of_a_line(length):
    np.testing.assert_allclose(plots.smooth(np.full(length, 3.0), 4), 3.0)
    line = np.arange(length, dtype=np.float64)
    middle = (length - 1) / 2
    smoothed = plots.smooth(line, 4)
    # By symmetry.
    assert smoothed.mean() == pytest.approx(middle)


def test_smoothing_goes_around_values_that_are_not_finite():
    values = np.array([1.0, np.nan, 1.0, np.inf, 1.0])
    np.testing.assert_allclose(plots.smooth(values, 1.0), 1.0)
    assert np.isnan(plots.smooth(np.full(5, np.nan), 1.0)).all()


def test_smoothing_weighs_by_a_gaussian():
    # Weights of places 0, 1, 2 from place 0: 1, exp(-1/2), exp(-2).
    weights = np.exp([0.0, -0.5, -2.0])
    expected = weights[1] * 6.0 / weights.sum()
    assert plots.smooth(np.array([0.0, 6.0, 0.0]), 1.0)[0] == pytest.approx(expected)


@pytest.mark.parametrize("num_classes", [1, 30, 100])
def test_labels_become_a_picture(tmp_path, num_classes):
    generator = np.random.default_rng(0)
    corners = np.sort(generator.random((300, 2, 2)), axis=1).reshape(300, 4)
    labels = generator.integers(0, num_classes, 300)
    names = [f"name {i}" for i in range(num_classes)]
    image = read_png(plots.plot_labels(corners, labels, names, tmp_path / "a.png"))
    assert image.std() > 10


def test_labels_under_hard_names_are_drawn_without_a_warning(tmp_path):
    names = ["猫", "a$b$c", "$\\frac{", "صورة", "", "x" * 300, "_^{}"]
    boxes = np.tile([[0.1, 0.1, 0.4, 0.5]], (7, 1))
    read_png(plots.plot_labels(boxes, np.arange(7), names, tmp_path / "a.png"))


@pytest.mark.parametrize("names", [[], ["a"]])
def test_a_set_without_boxes_is_drawn(tmp_path, names):
    output = tmp_path / "a.png"
    read_png(plots.plot_labels(np.zeros((0, 4)), np.zeros(0, int), names, output))


def test_lengths_of_boxes_and_labels_must_agree(tmp_path):
    with pytest.raises(ValueError, match="2 boxes, 1 labels"):
        plots.plot_labels(np.zeros((2, 4)), [0], ["a"], tmp_path / "a.png")


def test_matplotlib_is_not_loaded_before_it_is_used():
    code = "import sys, yolojax.vis.plots; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
