import os
import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import simplejpeg

from yolojax.data import cache
from yolojax.data.decode import ImageError, decode_image
from yolojax.data.picture_file import PictureFile
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
    encoded = simplejpeg.encode_jpeg(smooth(*SIZE), quality=80, colorsubsampling="420")
    assert len(encoded) <= SIZE[0] * SIZE[1] * 3 / 6
    path = tmp_path / "small.jpg"
    path.write_bytes(encoded)
    for image in (encoded, str(path)):
        store = cache.EncodedCache()
        pixels = store.read(0, make_example(image, SIZE), SIZE)
        assert store.num_bytes == len(encoded)
        np.testing.assert_array_equal(pixels, decode_image(encoded))


def test_a_jpeg_of_more_than_a_sixth_of_its_pixels_is_encoded_anew():
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    pixels = cv2.addWeighted(smooth(96, 128), 0.9, noise, 0.1, 0)
    own = simplejpeg.encode_jpeg(pixels, quality=100)
    assert len(own) > pixels.size / 6
    encoded = cache.encode(make_example(own, (96, 128)), (96, 128))
    assert len(encoded) < len(own)
    kept = decode_image(encoded).astype(int)
    assert np.abs(kept - decode_image(own)).mean() < 8


def test_a_picture_is_kept_under_its_path_length_time_and_sizes(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"picture")
    os.utime(path, ns=(10**18, 10**18))
    example = make_example(str(path), (96, 128))
    key = cache.picture_key(example, SIZE)
    assert (
        cache.picture_key(make_example(os.path.relpath(path), (96, 128)), SIZE) == key
    )
    others = {cache.picture_key(example, (24, 32))}
    others.add(cache.picture_key(make_example(str(path), (192, 256)), SIZE))
    os.utime(path, ns=(10**18, 10**18 + 1))
    others.add(cache.picture_key(example, SIZE))
    path.write_bytes(b"picture, longer")
    os.utime(path, ns=(10**18, 10**18))
    others.add(cache.picture_key(example, SIZE))
    path.rename(tmp_path / "b.jpg")
    moved = make_example(str(tmp_path / "b.jpg"), (96, 128))
    others.add(cache.picture_key(moved, SIZE))
    for image in (b"picture", b"Picture", np.zeros((96, 128, 3), np.uint8)):
        others.add(cache.picture_key(make_example(image, (96, 128)), SIZE))
    assert len(others - {key}) == 8


def test_a_changed_picture_is_read_anew_and_its_old_one_never_served(tmp_path):
    path = tmp_path / "a.png"
    folder = tmp_path / "cache"
    for grey in (10, 200, 90):
        assert cv2.imwrite(str(path), np.full((*SIZE, 3), grey, np.uint8))
        os.utime(path, ns=(10**18, 10**18 + grey))
        store = cache.EncodedCache(PictureFile(folder, budget=2**30))
        picture = store.read(0, make_example(str(path), SIZE), SIZE)
        assert np.abs(picture.astype(int) - grey).max() <= 1
        store.file.close()


@pytest.mark.parametrize("folder", [None, "disk"])
def test_without_room_the_pixels_are_the_same(tmp_path, folder):
    """Also of pictures that were thrown out, and of those that never came in."""
    source = DigitsSource(length=12, size=64)
    place = folder and tmp_path / folder
    pixels = {}
    for budget in (0, 6000, 2**30):
        file = PictureFile(place, budget=budget)
        store = cache.EncodedCache(file)
        for _ in range(2):
            for k in range(12):
                picture = store.read(k, source[k], (48, 48))
                np.testing.assert_array_equal(picture, pixels.setdefault(k, picture))
            assert store.num_bytes <= budget
            file.make_room({cache.picture_key(source[3], (48, 48))}, budget)
        file.close()


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_with_room_for_a_part_that_part_is_found(share):
    """What came in stays, which no order of the pictures can make worse."""
    source = DigitsSource(length=20, size=64)
    sizes = [len(cache.encode(source[k], (64, 64))) for k in range(20)]
    file = PictureFile(None, budget=int(share * sum(sizes)))
    store = cache.EncodedCache(file)
    for epoch in range(4):
        order = np.random.default_rng(epoch).permutation(20)
        keys = [cache.picture_key(source[k], (64, 64)) for k in order]
        found = sum(key in file for key in keys)
        if epoch:
            assert found >= share * 20 - 1
        for k in order:
            store.read(int(k), source[int(k)], (64, 64))


def test_pictures_go_where_they_are_wanted():
    """In new memory and in a part of a larger array, also when they are resized."""
    encoded = simplejpeg.encode_jpeg(smooth(96, 128), quality=95)
    example = make_example(encoded, (96, 128))
    for store in (cache.NoCache(), cache.EncodedCache()):
        for size in ((96, 128), (48, 64), (50, 61)):
            alone = store.read(0, example, size).copy()
            canvas = np.full((130, 140, 3), 7, np.uint8)
            area = canvas[3 : 3 + size[0], 5 : 5 + size[1]]
            store.read(0, example, size, area)
            np.testing.assert_array_equal(area, alone)
            area[...] = 7
            assert (canvas == 7).all()
            store = type(store)()


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
