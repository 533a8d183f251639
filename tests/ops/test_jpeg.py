import functools
import io

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from yolojax.ops import jpeg

SUBSAMPLING = {"4:4:4": 0, "4:2:0": 2}
QUALITIES = (1, 10, 30, 50, 75, 90, 95, 100)


@functools.cache
def compiled(chroma):
    return jax.jit(functools.partial(jpeg.compress, chroma=chroma))


def photo(height, width, seed=0):
    """Smooth patches of colour with a little noise, like a photograph."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(
        0, 256, (max(2, height // 12), max(2, width // 12), 3), np.uint8
    )
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    noisy = smooth + generator.normal(0, 4, smooth.shape)
    return noisy.clip(0, 255).round().astype(np.uint8)


def coded(picture, quality, chroma):
    """Through a file of libjpeg-turbo, by Pillow."""
    file = io.BytesIO()
    Image.fromarray(picture).save(
        file, "JPEG", quality=quality, subsampling=SUBSAMPLING[chroma]
    )
    return np.asarray(Image.open(file)).astype(np.float64)


def compressed(pictures, quality, chroma):
    images = jnp.asarray(pictures, jnp.float32) / 255.0
    qualities = jnp.broadcast_to(jnp.asarray(quality, jnp.float32), images.shape[:-3])
    out = compiled(chroma)(images, qualities)
    assert out.shape == images.shape and out.dtype == jnp.float32
    return np.asarray(out, np.float64) * 255


@pytest.mark.parametrize(
    "size, chroma",
    [((64, 80), "4:2:0"), ((61, 83), "4:2:0"), ((61, 83), "4:4:4")],
    ids=["blocks", "odd", "full colour"],
)
def test_agrees_with_libjpeg(size, chroma):
    pictures = np.stack([photo(*size, seed) for seed in range(len(QUALITIES))])
    out = compressed(pictures, QUALITIES, chroma)
    for picture, mine, quality in zip(pictures, out, QUALITIES, strict=True):
        theirs = coded(picture, quality, chroma)
        # A coefficient half-way between two steps may go the other way.
        assert np.abs(mine - theirs).mean() < 0.7
        lost = np.abs(theirs - picture).mean()
        assert abs(np.abs(mine - picture).mean() - lost) < 0.02 * lost + 0.02


def test_tables_are_those_in_a_file_of_libjpeg():
    for quality in QUALITIES:
        file = io.BytesIO()
        Image.fromarray(photo(16, 16)).save(file, "JPEG", quality=quality)
        file.seek(0)
        given = Image.open(file).quantization
        for number, base in enumerate((jpeg.LUMINANCE_STEPS, jpeg.COLOUR_STEPS)):
            table = jpeg.quantisation_steps(base, jnp.asarray(quality, jnp.int32))
            # Pillow undoes the order of the file, along diagonals, by itself.
            np.testing.assert_array_equal(np.asarray(table).ravel(), given[number])


# Five small pictures, so that all tests share one compiled function.
SMALL = (16, 24, 3)


def test_one_block_by_hand():
    # A flat block of grey 138 is 8 * (138 - 128) = 80 in its first coefficient: 5 steps
    # of 16 at quality 50, 2.5 of 32 at 25, where halves are rounded away from 0, and 80
    # of 1 at 100.
    flat = np.full((5, *SMALL), 138, np.uint8)
    for chroma in SUBSAMPLING:
        out = compressed(flat, (50, 25, 100, 100, 100), chroma)
        for row, expected in enumerate((128 + 80 / 8, 128 + 96 / 8, 138, 138)):
            np.testing.assert_allclose(out[row], expected, atol=1e-4)


def test_loss_grows_as_quality_falls_and_blocks_appear():
    pictures = np.stack([photo(64, 80)] * len(QUALITIES))
    out = compressed(pictures, QUALITIES, "4:2:0")
    assert all(np.diff(np.abs(out - pictures).mean((1, 2, 3))) < 0)
    # At quality 1 little more than the means of blocks is left.
    inside, across = np.abs(np.diff(out[0], axis=0)), out[0, 8::8] - out[0, 7:-1:8]
    assert np.abs(across).mean() > 3 * inside.mean()


@pytest.mark.parametrize("chroma", SUBSAMPLING)
def test_any_picture(chroma):
    grey = photo(16, 24)[..., :1].repeat(3, axis=-1)
    noise = np.random.default_rng(0).integers(0, 256, SMALL, np.uint8)
    edge = 255 * (np.indices((16, 24)).sum(0) % 2)[..., None].repeat(3, -1)
    pictures = np.stack([grey, noise, edge, 0 * noise, 0 * noise + 255])
    mapped = jax.jit(jax.vmap(functools.partial(jpeg.compress, chroma=chroma)))
    for quality in (1, 40, 100):
        out = compressed(pictures, quality, chroma)
        assert out.min() >= 0 and out.max() <= 255 + 1e-4
        np.testing.assert_allclose(out, out.round(), atol=1e-4)
        assert np.ptp(out[[0, 2, 3, 4]], axis=-1).max() < 1e-3
        images = jnp.asarray(pictures, jnp.float32) / 255.0
        again = mapped(images, jnp.full((5,), quality, jnp.float32))
        np.testing.assert_allclose(again * 255, out, atol=1e-3)
    np.testing.assert_allclose(out[3:], pictures[3:], atol=1e-4)
    none = jax.eval_shape(compiled(chroma), images[:0], jnp.zeros((0,)))
    assert none.shape == (0, *SMALL)


def test_a_picture_of_one_pixel():
    picture = photo(1, 1)
    out = compressed(picture, 60, "4:2:0")
    assert np.abs(out - coded(picture, 60, "4:2:0")).max() < 2.01


def test_gradient_is_finite():
    images = jnp.asarray(photo(16, 16)[None], jnp.float32) / 255.0
    slopes = jax.jit(jax.grad(lambda *a: jnp.sum(jpeg.compress(*a)), argnums=(0, 1)))(
        images, jnp.asarray([50.0])
    )
    assert all(np.isfinite(slope).all() for slope in slopes)


def test_another_chroma_is_refused():
    with pytest.raises(ValueError, match="chroma is '4:1:1', expected one of 4:2:0, 4"):
        jpeg.compress(jnp.zeros((8, 8, 3)), jnp.float32(50), chroma="4:1:1")
