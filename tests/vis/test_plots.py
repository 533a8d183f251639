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


def write_metrics(path, rows):
    names = "step,loss,loss/box,learning_rate,val/mAP50,val/mAP50_95,time/wait_share"
    path.write_text(names + "\n" + "".join(rows))
    return path


def test_curves_of_a_run_become_a_picture(tmp_path):
    rows = [
        f"{s},{2 / s},{1 / s},0.01,{'' if s % 5 else s / 99},{''},0.02\n"
        for s in range(1, 60)
    ]
    metrics = write_metrics(tmp_path / "metrics.csv", rows)
    output = plots.plot_curves(metrics, tmp_path / "plots" / "curves.png")
    image = read_png(output)
    assert min(image.shape[:2]) > 500 and image.std() > 10


@pytest.mark.parametrize(
    "rows",
    [
        [],
        ["10,1,1,0.1,,,0\n"],
        ["10,nan,inf,0.1,nan,nan,nan\n", "20,nan,nan,0.1,nan,nan,nan\n"],
        ["10,1000,1,0.1,,,1\n", "20,0.001,1,0.1,,,1\n", "30,0.0"],
    ],
    ids=["no-row", "one-row", "not-finite", "wide-range-and-half-a-line"],
)
def test_curves_of_odd_runs_are_drawn_without_a_warning(tmp_path, rows):
    metrics = write_metrics(tmp_path / "metrics.csv", rows)
    read_png(plots.plot_curves(metrics, tmp_path / "curves.png"))


def test_series_leave_out_empty_cells_and_half_a_line(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,a,b\n1,0.5,\n2,,3\n4,oops,4\n5,0.25,1")
    series = plots.read_series(path)
    assert [values.tolist() for values in series["a"]] == [[1.0], [0.5]]
    assert [values.tolist() for values in series["b"]] == [[2.0, 4.0], [3.0, 4.0]]


def test_a_missing_and_a_foreign_file_are_clear_errors(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        plots.plot_curves(tmp_path / "metrics.csv", tmp_path / "a.png")
    (tmp_path / "metrics.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="a column 'step'"):
        plots.plot_curves(tmp_path / "metrics.csv", tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


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
