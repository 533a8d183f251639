import contextlib

import numpy as np

from yolojax.vis import plots, rates


def test_a_constant_is_a_straight_line_and_what_changes_fills_its_panel(
    tmp_path, monkeypatch
):
    panels = []

    @contextlib.contextmanager
    def note(*given):
        with plots.open_figure(*given) as (figure, axes):
            yield figure, axes
            panels.extend(axis.get_ylim() for axis in axes.flat[:2])

    monkeypatch.setattr(rates, "open_figure", note)
    epochs = np.arange(3.0)
    momentum = np.array([0.937, 0.93700004, 0.937])
    rates.plot_schedule(
        epochs,
        {"momentum": {"all": momentum}, "rate": {"all": np.array([0.0, 1.0, 0.5])}},
        tmp_path / "schedule.png",
    )
    np.testing.assert_allclose(panels[0], [0.8433, 1.0307], rtol=1e-6)
    assert -0.2 < panels[1][0] <= 0.0 and 1.0 <= panels[1][1] < 1.2
