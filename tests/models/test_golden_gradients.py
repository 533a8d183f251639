"""Loss and gradients of the whole network against the original's, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.shared import shared
from yolojax.losses.detection import yolov5_loss
from yolojax.models.detector import build_model
from yolojax.weights.mapping import from_state_dict, to_state_dict


def padded_targets(rows, batch_size, size):
    """Boxes in pixels, labels and validity from the original's rows of targets."""
    counts = [0] * batch_size
    boxes = np.zeros((batch_size, len(rows), 4))
    labels = np.zeros((batch_size, len(rows)), np.int32)
    valid = np.zeros((batch_size, len(rows)), bool)
    h, w = size
    for image, label, *box in rows.astype(np.float64):
        index, (x, y, width, height) = int(image), box
        corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        slot = index, counts[index]
        boxes[slot] = np.multiply(corners, (w, h, w, h))
        labels[slot], valid[slot] = int(label), True
        counts[index] += 1
    return boxes, labels, valid


@pytest.mark.slow
def test_loss_and_every_gradient_match_the_original():
    golden = np.load(shared("golden", "loss_model_n_seed0_f64.npz"))
    with np.load(shared("golden", "state_n_seed0.npz")) as file:
        state = {name: np.asarray(array, np.float64) for name, array in file.items()}
    images = golden["input_u8_rgb_chw"].transpose(0, 2, 3, 1) / 255
    targets = padded_targets(golden["targets"], len(images), images.shape[1:3])
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        model = build_model("yolov5n", num_classes=80, dtype="float64")
        variables = from_state_dict(model, state)

        arrays = [jnp.asarray(target) for target in targets]

        def loss(params):
            maps, _ = model.apply({**variables, "params": params}, images, train=True)
            anchors = model.anchors.astype(np.float64)
            return yolov5_loss(maps, *arrays, anchors=anchors, strides=model.strides)[0]

        value, gradients = jax.jit(jax.value_and_grad(loss))(variables["params"])
        ours = to_state_dict(model, {**variables, "params": gradients})
    np.testing.assert_allclose(value, golden["total"].item(), rtol=1e-12)
    compared = 0
    for name in golden.files:
        if name.startswith("grad/"):
            theirs = golden[name].astype(np.float64)
            error = np.linalg.norm(ours[name.removeprefix("grad/")] - theirs)
            # Most of the file's gradients were rounded to float32.
            assert error < 1e-7 * np.linalg.norm(theirs), name
            compared += 1
    assert compared == len(jax.tree.leaves(variables["params"]))
