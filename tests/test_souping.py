import numpy as np
import pytest

from tests.tiny import DESCRIPTION, tiny_config
from yolojax import class_file, experiment, inference, settings, souping
from yolojax.engine import checkpoint

MODEL = {"name": "yaml", "description": DESCRIPTION}


def test_the_mean_is_that_of_numpy_in_float64():
    several = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    mean = souping.mean_variables([{"params": {"a": row}} for row in several])
    expected = several.astype(np.float64).mean(axis=0).astype(np.float32)
    np.testing.assert_array_equal(mean["params"]["a"], expected)
    assert mean["params"]["a"].dtype == np.float32


def test_a_greedy_soup_takes_what_makes_it_no_worse():
    # The nearer to 3, the better. 2 -> 2; with 5: 3.5, taken; with 0: 2.33, not.
    def score(value):
        return -abs(value - 3.0)

    values = [0.0, 2.0, 5.0]
    soup = souping.greedy_soup(
        ["zero", "two", "five"],
        values,
        [score(value) for value in values],
        mix=lambda several: float(np.mean(several)),
        score=score,
    )
    assert (soup.names, soup.variables, soup.score) == (("two", "five"), 3.5, -0.5)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs with the weights of two seeds."""
    folder = tmp_path_factory.mktemp("runs")
    model = experiment.make_model(tiny_config(model=MODEL))
    for seed in (0, 1):
        workdir = folder / str(seed)
        settings.write_config(tiny_config(model=MODEL, data__val={}), workdir)
        class_file.write_classes([str(n) for n in range(10)], range(10), workdir)
        variables = model.init(seed)
        checkpoint.save_weights(workdir, variables)
    return folder


def test_a_uniform_soup_needs_no_val_and_is_a_working_directory(runs, tmp_path):
    paths = [str(runs / "0"), str(runs / "1")]
    text = souping.make_soup(
        runs / "0", tmp_path / "soup", checkpoints=paths, method="uniform"
    )
    assert "uniform soup" in text
    one, two, both = (
        inference.load(p).variables["params"]["head"]
        for p in (*paths, tmp_path / "soup")
    )
    path = next(iter(both))
    np.testing.assert_allclose(
        both[path]["kernel"],
        (one[path]["kernel"].astype(np.float64) + two[path]["kernel"]) / 2,
        rtol=1e-6,
    )
    with pytest.raises(ValueError, match="holds a run already"):
        souping.make_soup(runs / "0", tmp_path / "soup", checkpoints=paths)


def test_soups_that_cannot_be_are_refused(runs, tmp_path):
    paths = [str(runs / "0"), str(runs / "1")]
    with pytest.raises(ValueError, match="two checkpoints or more, found 1"):
        souping.make_soup(runs / "0", tmp_path / "a")
    with pytest.raises(ValueError, match="is no run's directory: no .*checkpoints"):
        souping.make_soup(tmp_path / "none", tmp_path / "a")
    step = next((runs / "0" / "checkpoints").iterdir()).name
    for name in ("7777", str(tmp_path / "other")):
        with pytest.raises(ValueError, match=f"there is no .*{name}.*has .* {step}"):
            souping.make_soup(runs / "0", tmp_path / "a", checkpoints=[step, name])
    with pytest.raises(ValueError, match="greedy soup needs config.data.val"):
        souping.make_soup(runs / "0", tmp_path / "a", checkpoints=paths)
    with pytest.raises(ValueError, match="greedy or uniform, not 'best'"):
        souping.make_soup(runs / "0", tmp_path / "a", method="best")
