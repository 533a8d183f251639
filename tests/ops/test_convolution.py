import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.ops import convolution
from yolojax.ops.convolution import convolve


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch):
    """Kernels of several positions become products at sizes that tests can hold."""
    monkeypatch.setattr(convolution, "LARGER", (1024, 32, 1))


# height, width, channels in and out, kernel, stride, padding, groups, and whether the
# kernel's gradient is one of products: enough channels and pixels, few positions.
CASES = [
    (24, 23, 32, 5, (3, 3), (1, 1), (1, 1), 1, True),
    (47, 26, 32, 4, (3, 3), (2, 1), (1, 0), 1, True),
    (30, 36, 32, 3, (1, 7), (1, 2), (0, 3), 1, True),
    (20, 59, 33, 2, (1, 1), (1, 2), (0, 0), 1, True),
    (4, 6, 32, 5, (3, 3), (1, 1), (1, 1), 1, False),
    (24, 23, 6, 5, (3, 3), (1, 1), (1, 1), 1, False),
    (24, 23, 64, 4, (3, 3), (1, 1), (1, 1), 2, False),
    (36, 34, 32, 2, (6, 6), (1, 1), (2, 2), 1, False),
    # Channels by themselves: products of maps, no dot.
    (12, 13, 6, 6, (3, 3), (1, 1), (1, 1), 6, False),
    (13, 12, 5, 5, (5, 5), (2, 2), (2, 2), 5, False),
    (9, 11, 4, 4, (3, 1), (2, 1), (0, 0), 4, False),
    (4, 5, 128, 128, (3, 3), (1, 2), (1, 1), 128, False),
    # Two from each channel.
    (12, 13, 3, 6, (3, 3), (1, 1), (1, 1), 3, False),
]


def drawn(height, width, channels, features, size, groups):
    generator = np.random.default_rng(height)
    x = generator.standard_normal((2, height, width, channels))
    kernel = generator.standard_normal((*size, channels // groups, features))
    return jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)


def written_out(x, kernel, stride, padding, groups):
    """The sum of the definition, in float64."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    x = np.pad(x, ((0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0)))
    rows, columns, each, features = kernel.shape
    high = (x.shape[1] - rows) // stride[0] + 1
    wide = (x.shape[2] - columns) // stride[1] + 1
    y = np.zeros((len(x), high, wide, features))
    for i in range(high):
        for j in range(wide):
            top, left = i * stride[0], j * stride[1]
            seen = x[:, top : top + rows, left : left + columns]
            for out in range(features):
                first = out // (features // groups) * each
                part = seen[..., first : first + each]
                y[:, i, j, out] = (part * kernel[..., out]).sum((1, 2, 3))
    return y


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case[:5])))
def test_convolution_and_its_derivatives_are_those_of_the_definition(case):
    *shape, size, stride, padding, groups, products = case
    x, kernel = drawn(*shape, size, groups)
    function = functools.partial(
        convolve, stride=stride, padding=padding, groups=groups
    )
    expected = written_out(x, kernel, stride, padding, groups)
    y, pull = jax.vjp(jax.jit(lambda x, k: function(x, k)), x, kernel)
    np.testing.assert_allclose(y, expected, atol=1e-4)

    # It is linear in the picture and in the kernel: both derivatives are itself.
    dx, dkernel = drawn(*shape, size, groups)
    dx, dkernel = dx[::-1], dkernel[::-1]
    _, tangent = jax.jvp(function, (x, kernel), (dx, dkernel))
    moved = written_out(dx, kernel, stride, padding, groups) + written_out(
        x, dkernel, stride, padding, groups
    )
    np.testing.assert_allclose(tangent, moved, atol=2e-4)

    # <dy, J v> = <J^T dy, v>.
    dy = jnp.asarray(np.random.default_rng(1).standard_normal(y.shape), jnp.float32)
    to_x, to_kernel = pull(dy)
    pairs = ((to_x, dx, (dx, kernel)), (to_kernel, dkernel, (x, dkernel)))
    for gradient, direction, arguments in pairs:
        forward = (
            np.asarray(dy) * written_out(*arguments, stride, padding, groups)
        ).sum()
        np.testing.assert_allclose(jnp.vdot(gradient, direction), forward, rtol=1e-3)

    gradient = jax.jit(jax.grad(lambda k: jnp.sum(function(x, k) * dy)))
    text = gradient.lower(kernel).as_text()
    count = text.count("stablehlo.dot_general")
    assert count == (np.prod(size) if products else 0)


def test_what_is_not_asked_for_is_not_computed():
    x, kernel = drawn(24, 23, 32, 5, (3, 3), 1)
    function = jax.jit(jax.grad(lambda k: jnp.sum(convolve(x, k, (1, 1), (1, 1)) ** 2)))
    # One forward; none for the picture.
    assert function.lower(kernel).as_text().count("stablehlo.convolution") == 1
    still = jax.grad(lambda a: a * jnp.sum(convolve(x, kernel, (1, 1), (1, 1))))
    assert np.isfinite(still(1.0))


@pytest.mark.parametrize("channels", [4, 32])
def test_gradients_of_single_pictures_add_up(channels):
    x, kernel = drawn(33, 32, channels, 3, (3, 3), 1)
    loss = lambda k, x: jnp.sum(convolve(x, k, (1, 1), (1, 1)) ** 2)  # noqa: E731
    single = jax.vmap(jax.grad(loss), (None, 0))(kernel, x[:, None])
    whole = jax.grad(loss)(kernel, x)
    np.testing.assert_allclose(single.sum(0), whole, rtol=1e-4, atol=1e-2)
    second = jax.grad(lambda k: jnp.sum(jax.grad(loss)(k, x) ** 2))(kernel)
    assert np.isfinite(second).all() and np.abs(second).max() > 0


def test_other_platforms_take_the_convolution():
    x, kernel = drawn(24, 23, 32, 5, (3, 3), 1)
    gradient = jax.jit(
        jax.grad(lambda k: jnp.sum(convolution.convolve(x, k, (1, 1), (1, 1)) ** 2))
    )
    for platform, products in (("cpu", 9), ("cuda", 0), ("tpu", 0)):
        text = jax.export.export(gradient, platforms=[platform])(kernel).mlir_module()
        assert text.count("stablehlo.dot_general") == products, platform


@pytest.mark.parametrize("channels, of_kernel", [(16, 1), (128, 0)])
def test_a_cpu_takes_channels_by_themselves_as_products(channels, of_kernel):
    x, kernel = drawn(9, 8, channels, channels, (3, 3), channels)
    function = jax.jit(lambda x, k: convolve(x, k, (1, 1), (1, 1), channels))
    gradient = jax.jit(jax.grad(lambda x, k: jnp.sum(function(x, k) ** 2), (0, 1)))

    def convolutions(form, platform):
        exported = jax.export.export(form, platforms=[platform])(x, kernel)
        return exported.mlir_module().count("stablehlo.convolution")

    assert convolutions(function, "cpu") == 0
    assert convolutions(function, "cuda") == convolutions(function, "tpu") == 1
    # Of a gradient's three convolutions at most that for the kernel remains.
    assert convolutions(gradient, "cpu") == of_kernel
    assert convolutions(gradient, "cuda") == 3


def test_channels_by_themselves_are_summed_as_exactly_as_by_a_convolution():
    x, kernel = drawn(9, 8, 4, 4, (5, 5), 4)
    x, kernel = jnp.bfloat16(x), jnp.bfloat16(kernel)
    y = convolve(x, kernel, (1, 1), (2, 2), 4)
    assert y.dtype == jnp.bfloat16
    expected = written_out(x, kernel, (1, 1), (2, 2), 4)
    # Half a unit in the last of 8 binary places: the sums themselves were exact.
    np.testing.assert_allclose(np.float64(y), expected, rtol=2**-8, atol=1e-5)


@pytest.mark.parametrize(
    "size, channels, features, side, products",
    [
        (1, 32, 1, 32, 1),
        (1, 31, 8, 32, 0),
        (1, 32, 8, 31, 0),
        (3, 64, 128, 222, 9),
        (3, 63, 128, 222, 0),
        (3, 64, 127, 222, 0),
        (3, 64, 128, 221, 0),
        (5, 64, 128, 222, 0),
    ],
)
def test_products_are_for_sizes_where_they_pay(
    size, channels, features, side, products, monkeypatch
):
    monkeypatch.undo()
    x = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
    kernel = jax.ShapeDtypeStruct((size, size, channels, features), jnp.float32)
    padding = (size // 2, size // 2)
    gradient = jax.jit(
        jax.grad(lambda k, x: jnp.sum(convolve(x, k, (1, 1), padding) ** 2))
    )
    text = gradient.lower(kernel, x).as_text()
    assert text.count("stablehlo.dot_general") == products
