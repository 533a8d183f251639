import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.models.blocks import Bottleneck, CspStage, PyramidPooling
from yolojax.models.initial import draw_variables


def run(block, x, *, train=False):
    shapes = jax.eval_shape(lambda x: block.init(jax.random.key(0), x, train=False), x)
    variables = draw_variables(shapes, 0)
    return jax.jit(lambda v, x: block.apply(v, x, train=train, mutable=True)[0])(
        variables, x
    )


def maps(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_a_shortcut_adds_the_input():
    x = maps(2, 5, 4, 8)
    added, plain = run(Bottleneck(8), x), run(Bottleneck(8, shortcut=False), x)
    np.testing.assert_allclose(added - plain, x, atol=1e-6)


def test_half_of_the_channels_go_past_the_bottlenecks():
    x = maps(1, 4, 4, 6)
    shapes = jax.eval_shape(
        lambda x: CspStage(16, 2).init(jax.random.key(0), x, train=False), x
    )["params"]
    kernels = {k: v["conv"]["kernel"].shape for k, v in shapes.items() if "conv" in v}
    assert kernels == {"main": (6, 8), "bypass": (6, 8), "merge": (16, 16)}
    assert shapes["block1"]["spatial"]["conv"]["kernel"].shape == (3, 3, 8, 8)
    assert run(CspStage(16, 2), x).shape == (1, 4, 4, 16)


def test_pyramid_pooling_sees_six_pixels_far_and_no_further():
    x = np.zeros((1, 15, 15, 4), np.float32)
    marked = x.copy()
    marked[0, 7, 7] = 100
    changed = run(PyramidPooling(8), marked) != run(PyramidPooling(8), x)
    rows, columns = np.nonzero(np.asarray(changed)[0].any(-1))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (1, 13, 1, 13)


@pytest.mark.parametrize("dtype, tolerance", [("bfloat16", 2e-2), ("float16", 3e-3)])
def test_half_precision_stays_near_float32(dtype, tolerance):
    x = maps(4, 16, 16, 8)
    exact = run(CspStage(16, 1), x, train=True)
    ours = run(CspStage(16, 1, dtype=dtype), x, train=True)
    assert ours.dtype == jnp.dtype(dtype)
    error = np.abs(np.asarray(ours, np.float32) - exact).max() / np.abs(exact).max()
    # Both have a step of their mantissa in each of five layers to lose.
    assert 0 < error < tolerance
