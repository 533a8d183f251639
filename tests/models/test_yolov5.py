"""The network against the original's outputs for fixed parameters."""

from pathlib import Path

import jax
import numpy as np
import pytest

from tests.shared import shared
from yolojax.models.detector import build_model
from yolojax.trees import flatten
from yolojax.weights.mapping import from_state_dict, to_state_dict

# The original's layer number -> our module, for the layers that have parameters.
LAYERS = {
    0: "backbone/stem",
    1: "backbone/down2",
    2: "backbone/stage2",
    3: "backbone/down3",
    4: "backbone/stage3",
    5: "backbone/down4",
    6: "backbone/stage4",
    7: "backbone/down5",
    8: "backbone/stage5",
    9: "backbone/pool",
    10: "neck/lateral5",
    13: "neck/top_down4",
    14: "neck/lateral4",
    17: "neck/top_down3",
    18: "neck/down4",
    20: "neck/bottom_up4",
    21: "neck/down5",
    23: "neck/bottom_up5",
}


def relative(ours, theirs):
    """The largest difference, as a share of the largest value."""
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


@pytest.fixture(scope="module")
def model():
    return build_model("yolov5n", num_classes=80)


def load(model, state):
    with np.load(shared("golden", f"state_n_{state}.npz")) as file:
        return from_state_dict(model, dict(file))


@pytest.mark.parametrize("state", ["seed0", "real"])
def test_every_layer_matches_the_original(model, state):
    variables = load(model, state)
    golden = np.load(shared("golden", f"forward_n_{state}_small2x96x128.npz"))
    images = golden["input"].transpose(0, 2, 3, 1)

    @jax.jit
    def forward(variables, images):
        return model.module.apply(
            variables,
            images,
            train=False,
            capture_intermediates=True,
            mutable=["intermediates"],
        )

    maps, captured = forward(variables, images)
    outputs = flatten(captured["intermediates"])
    for number, path in LAYERS.items():
        theirs = golden[f"layer{number:02d}"].transpose(0, 2, 3, 1)
        assert relative(outputs[f"{path}/__call__"][0], theirs) < 2e-5, path
    for level, ours in enumerate(maps):
        theirs = golden[f"raw{level}"].transpose(0, 2, 3, 1, 4)
        assert ours.shape == theirs.shape
        assert relative(ours, theirs) < 2e-5, level


def test_training_mode_matches_maps_and_running_statistics_of_the_original(model):
    variables = load(model, "seed0")
    golden = np.load(shared("golden", "loss_model_n_seed0.npz"))
    pixels = golden["input_u8_rgb_chw"].transpose(0, 2, 3, 1).astype(np.float32)
    forward = jax.jit(lambda v, x: model.apply(v, x, train=True))
    maps, batch_stats = forward(variables, pixels / np.float32(255))
    for level, ours in enumerate(maps):
        theirs = golden[f"raw{level}"].transpose(0, 2, 3, 1, 4)
        # Normalising by the batch amplifies rounding: the original's own float32
        # lies as far from its float64.
        assert relative(ours, theirs) < 3e-5, level
    after = to_state_dict(
        model, {"params": variables["params"], "batch_stats": batch_stats}
    )
    compared = 0
    for name in golden.files:
        if name.startswith("after/") and not name.endswith("num_batches_tracked"):
            ours = after[name.removeprefix("after/")]
            assert relative(ours, golden[name]) < 5e-6, name
            compared += 1
    assert compared == 2 * 57


def test_parameter_paths_are_the_published_ones(model):
    # Paths are public: a change here breaks checkpoints and freeze patterns.
    listed = Path(__file__).with_name("yolov5n_variables.txt").read_text().splitlines()
    shapes = flatten(model.shapes())
    ours = [f"{k} {'x'.join(map(str, v.shape))}" for k, v in sorted(shapes.items())]
    assert ours == listed
