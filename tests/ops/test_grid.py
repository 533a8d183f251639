import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.shared import shared
from yolojax.ops import grid
from yolojax.ops.boxes import corners_to_centres

ANCHORS = np.array(
    [
        [[10, 13], [16, 30], [33, 23]],
        [[30, 61], [62, 45], [59, 119]],
        [[116, 90], [156, 198], [373, 326]],
    ],
    np.float32,
)
STRIDES = (8, 16, 32)
YOLOV5 = grid.Decoding("square", (2.0, 2.0, 2.0))


@pytest.mark.parametrize("sizes, scale", [("square", 2.0), ("exponential", 1.05)])
def test_zero_logits_give_the_anchor_in_the_middle_of_its_cell(sizes, scale):
    raw = jnp.zeros((1, 2, 3, 1, 6))
    boxes, objectness, probabilities = grid.decode_maps(
        [raw],
        anchors=np.array([[[20, 10]]]),
        strides=(8,),
        decoding=grid.Decoding(sizes, (scale,)),
    )
    centres = [(x, y) for y in (4, 12) for x in (4, 12, 20)]
    expected = [(x - 10, y - 5, x + 10, y + 5) for x, y in centres]
    np.testing.assert_allclose(boxes[0], expected, atol=1e-5)
    np.testing.assert_array_equal(objectness, np.full((1, 6), 0.5))
    np.testing.assert_array_equal(probabilities, np.full((1, 6, 1), 0.5))


def test_large_logits_reach_four_anchors_and_half_a_cell_beyond():
    logits = jnp.array([[-40.0, 40.0, 40.0, -40.0]])
    decoded = grid.decode_offsets(logits, jnp.array([[20.0, 10.0]]))
    np.testing.assert_allclose(decoded, [[-0.5, 1.5, 80, 0]], atol=1e-6)


def test_exponential_sizes_and_a_scale_of_the_centre_worked_out_by_hand():
    # sigmoid(log 3) = 3/4, sigmoid(-log 3) = 1/4.
    logits = jnp.array([[np.log(3.0), -np.log(3.0), np.log(2.0), np.log(0.5)]])
    decoded = grid.decode_offsets(
        logits, jnp.array([[20.0, 10.0]]), scale=1.2, sizes="exponential"
    )
    np.testing.assert_allclose(decoded, [[0.8, 0.2, 40, 5]], rtol=1e-6)
    with pytest.raises(ValueError, match="square or exponential, not 'cubic'"):
        grid.decode_offsets(logits, jnp.ones((1, 2)), sizes="cubic")


@pytest.mark.parametrize("state", ["seed0", "real"])
def test_decoding_matches_the_original(state):
    golden = np.load(shared("golden", f"forward_n_{state}_small2x96x128.npz"))
    maps = [
        jnp.asarray(golden[f"raw{level}"].transpose(0, 2, 3, 1, 4))
        for level in range(3)
    ]
    boxes, objectness, probabilities = jax.jit(
        lambda maps: grid.decode_maps(
            maps, anchors=ANCHORS, strides=STRIDES, decoding=YOLOV5
        )
    )(maps)
    decoded = golden["decoded"]
    centres = corners_to_centres(boxes)
    np.testing.assert_allclose(centres, decoded[..., :4], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(objectness, decoded[..., 4], atol=1e-6)
    np.testing.assert_allclose(probabilities, decoded[..., 5:], atol=1e-6)


@pytest.mark.parametrize("sizes", ["square", "exponential"])
def test_extreme_logits_have_finite_boxes_and_gradients(sizes):
    raw = jnp.full((1, 1, 2, 3, 7), 1e4) * jnp.array([[[[[1.0]], [[-1.0]]]]])

    def total(raw):
        parts = grid.decode_maps(
            [raw],
            anchors=ANCHORS[:1],
            strides=(8,),
            decoding=grid.Decoding(sizes, (2.0,)),
        )
        return sum(jnp.sum(part) for part in parts)

    value, gradient = jax.jit(jax.value_and_grad(total))(raw)
    assert np.isfinite(value) and np.isfinite(gradient).all()


def test_levels_must_be_as_many_as_anchors():
    with pytest.raises(ValueError, match="zip"):
        grid.decode_maps(
            [jnp.zeros((1, 1, 1, 3, 6))],
            anchors=ANCHORS,
            strides=(8,),
            decoding=YOLOV5,
        )
