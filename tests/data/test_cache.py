import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import simplejpeg

from yolojax.data import cache, pipeline
from yolojax.data.decode import ImageError, decode_image
from yolojax.data.sources.digits import DigitsSource
from yolojax.records import Example

SIZE = (48, 64)


def smooth(height, width):
    """A picture without fine detail, which JPEG keeps nearly as it is."""
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def make_example(image, size):
    nothing = np.zeros((0,), np.float32)
    return Example(
        image=image,
        boxes=nothing.reshape(0, 4),
        labels=nothing.astype(np.int32),
        crowd=nothing.astype(bool),
        areas=nothing,
        image_id=0,
        size=size,
        name="some/picture",
    )


@pytest.mark.parametrize("form", ["pixels", "png", "jpeg"])
def test_first_and_later_uses_give_the_same_pixels(form):
    pixels = smooth(96, 128)
    image = {
        "pixels": pixels,
        "png": cv2.imencode(".png", pixels[..., ::-1])[1].tobytes(),
        "jpeg": simplejpeg.encode_jpeg(pixels, quality=95),
    }[form]
    store = cache.EncodedCache()
    example = make_example(image, (96, 128))
    first = store.read(0, example, SIZE)
    again = store.read(0, example, SIZE)
    fresh = cache.EncodedCache().read(0, example, SIZE)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, fresh)
    uncached = cache.NoCache().read(0, example, SIZE)
    assert first.shape == uncached.shape == (*SIZE, 3)
    assert np.abs(first.astype(int) - uncached).mean() < 4


def test_a_jpeg_that_needs_no_shrinking_keeps_its_own_bytes(tmp_path):
    encoded = simplejpeg.encode_jpeg(smooth(*SIZE), quality=80)
    path = tmp_path / "small.jpg"
    path.write_bytes(encoded)
    for image in (encoded, str(path)):
        store = cache.EncodedCache()
        pixels = store.read(0, make_example(image, SIZE), SIZE)
        assert store.num_bytes == len(encoded)
        np.testing.assert_array_equal(pixels, decode_image(encoded))


def test_the_original_is_not_looked_at_again(tmp_path):
    path = tmp_path / "picture.png"
    assert cv2.imwrite(str(path), smooth(*SIZE))
    example = make_example(str(path), SIZE)
    store = cache.EncodedCache()
    first = store.read(0, example, SIZE)
    path.unlink()
    np.testing.assert_array_equal(store.read(0, example, SIZE), first)
    with pytest.raises(ImageError, match="some/picture: cannot be read any more"):
        store.read(1, example, SIZE)


def test_threads_that_encode_the_same_picture_at_once_count_it_once(monkeypatch):
    both = threading.Barrier(2)
    encode = cache.encode

    def slow(*arguments):
        both.wait(timeout=10)
        return encode(*arguments)

    monkeypatch.setattr(cache, "encode", slow)
    example = make_example(smooth(*SIZE), SIZE)
    store = cache.EncodedCache()
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: store.read(0, example, SIZE), range(2))
    np.testing.assert_array_equal(first, second)
    assert store.num_bytes == len(encode(example, SIZE))


def test_bytes_are_counted_once_whatever_the_threads():
    source = DigitsSource(length=8, size=64)
    store = cache.EncodedCache()
    with ThreadPoolExecutor(8) as pool:
        reads = [k % 8 for k in range(64)]
        list(pool.map(lambda k: store.read(k, source[k], (64, 64)), reads))
    expected = sum(len(cache.encode(source[k], (64, 64))) for k in range(8))
    assert store.num_bytes == expected


def test_estimate_is_near_what_a_full_cache_takes():
    source = DigitsSource(length=100, size=(64, 96))
    batches = pipeline.make_train_batches(
        source,
        np.arange(100),
        image_size=(48, 48),
        batch_size=50,
        max_boxes=6,
        seed=0,
        num_threads=2,
        cache="encoded",
    )
    next(batches), next(batches)
    held = batches.stats["cache_bytes"]
    batches.close()
    assert batches.cache_bytes_estimate == pytest.approx(held, rel=0.15)
    small = cache.encoded_bytes_estimate(source, np.arange(20), (48, 48))
    exact = sum(len(cache.encode(source[k], (32, 48))) for k in range(20))
    assert small == exact
    assert cache.encoded_bytes_estimate(source, [], (48, 48)) == 0


def test_a_cache_that_memory_cannot_hold_is_refused_with_figures(monkeypatch):
    monkeypatch.setattr(cache, "available_bytes", lambda: 1000)
    with pytest.raises(ValueError, match="GiB for 50 pictures at 64x64, but 0.0 GiB"):
        cache.CACHES["encoded"](DigitsSource(length=50), range(50), (64, 64))


def test_some_memory_is_available():
    assert 2**20 < cache.available_bytes() < 2**50


def test_area_averages_when_shrinking_and_never_aliases():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    np.testing.assert_array_equal(cache.resize(stripes, (32, 32)), 100)


def test_the_decoders_own_scaling_is_no_error():
    pixels = smooth(203, 307)
    example = make_example(simplejpeg.encode_jpeg(pixels, quality=95), (203, 307))
    quick = cache.read_picture(example, (50, 76))
    exact = cache.read_picture(example, (50, 76), scaled=False)
    assert quick.shape == exact.shape == (50, 76, 3)
    assert np.abs(quick.astype(int) - exact).mean() < 2
