import cv2
import pytest

from yolojax.vis import results


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
    output = results.plot_results(metrics, tmp_path / "plots" / "results.png")
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
    read_png(results.plot_results(metrics, tmp_path / "results.png"))


def test_a_missing_and_a_foreign_file_are_clear_errors(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        results.plot_results(tmp_path / "metrics.csv", tmp_path / "a.png")
    (tmp_path / "metrics.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="a column 'step'"):
        results.plot_results(tmp_path / "metrics.csv", tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_a_panel_comes_with_its_columns(tmp_path):
    metrics = write_metrics(tmp_path / "metrics.csv", ["10,1,1,0.1,,,0\n"])
    before = read_png(results.plot_results(metrics, tmp_path / "a.png"))
    names = "step,loss,val/loss,loss/picture_q10,loss/picture_max,update_ratio/bias"
    names += ",gradient_norm,targets/level3,skipped_share,val/mAP75"
    rows = "\n".join(f"{s}{9 * ',0.5'}" for s in range(1, 30))
    metrics.write_text(f"{names}\n{rows}\n")
    after = read_png(results.plot_results(metrics, tmp_path / "b.png"))
    # 5 panels in 2 rows, and 10 in 4.
    assert 1.9 < after.shape[0] / before.shape[0] < 2.1


@pytest.mark.parametrize(
    "name", ["val/accuracy", "train/accuracy", "val/nll", "val/ece", "val/loss"]
)
def test_a_classifiers_column_has_one_panel(name):
    assert sum(choose(name) for _, choose in results.PANELS) == 1
