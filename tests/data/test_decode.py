import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps

from yolojax.data.decode import ImageError, decode_image, image_size
from yolojax.data.headers import read_header
from yolojax.data.tags import read_orientation


def photo(height=40, width=64) -> np.ndarray:
    """Smooth and unlike itself under every turn and mirror; RGB uint8."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [255 * x / width, 255 * y / height, 120 + 100 * np.sin(x / 9 + y / 17)]
    return np.stack(planes, -1).astype(np.uint8)


def encode(pixels, form, mode=None, **options) -> bytes:
    image = Image.fromarray(pixels)
    stream = io.BytesIO()
    (image.convert(mode) if mode else image).save(stream, form, **options)
    return stream.getvalue()


def with_orientation(value) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif.tobytes()


def pillow(data) -> np.ndarray:
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_give_back_the_pixels(form):
    data = encode(photo(), form)
    np.testing.assert_array_equal(decode_image(data), photo())
    assert image_size(data) == (40, 64)


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "GIF"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_lossy_formats_agree_with_pillow(form, mode, tmp_path):
    data = encode(photo(), form, mode)
    (path := tmp_path / "picture").write_bytes(data)
    if not cv2.haveImageReader(str(path)):
        pytest.skip("OpenCV reads GIF from 4.12 on")
    assert np.abs(decode_image(data) - pillow(data)).max() <= 1
    assert image_size(data) == (40, 64)


def test_lossless_webp_size_is_read_from_its_header():
    data = encode(photo(), "WEBP", lossless=True)
    assert read_header(data).size == image_size(data) == (40, 64)
    np.testing.assert_array_equal(decode_image(data), photo())


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA"])
def test_png_modes_become_rgb(mode):
    data = encode(photo(), "PNG", mode)
    decoded = decode_image(data)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, pillow(data))


def test_alpha_is_dropped_and_the_colours_below_it_stay():
    alpha = np.zeros((40, 64, 1), np.uint8)
    data = encode(np.concatenate([photo(), alpha], -1), "PNG")
    np.testing.assert_array_equal(decode_image(data), photo())


@pytest.mark.parametrize("form", [".png", ".tiff"])
def test_16_bit_is_divided_by_257(form):
    wide = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    _, data = cv2.imencode(form, wide)
    expected = np.rint(wide / 257).astype(np.uint8)
    np.testing.assert_array_equal(decode_image(data.tobytes())[..., 1], expected)


def test_16_bit_pgm_is_scaled_by_its_own_white():
    data = b"P5\n# a comment\n2 1\n1000\n" + struct.pack(">2H", 500, 1000)
    np.testing.assert_array_equal(decode_image(data)[0, :, 0], [128, 255])


def test_cmyk_jpeg_agrees_with_pillow():
    data = encode(photo(), "JPEG", "CMYK", quality=95)
    assert np.abs(decode_image(data) - pillow(data)).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied_the_same_in_every_format(form, orientation):
    options = {} if form in ("JPEG", "PNG", "TIFF") else {"lossless": True}
    data = encode(photo(), form, exif=with_orientation(orientation), **options)
    if form == "TIFF":
        image = Image.fromarray(photo())
        stream = io.BytesIO()
        image.save(stream, form, tiffinfo={0x0112: orientation})
        data = stream.getvalue()
    expected = pillow(data)
    assert np.abs(decode_image(data) - expected).max() <= 1
    assert image_size(data) == expected.shape[:2]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_16_bit_tiff_is_applied_once(orientation):
    deep = photo()[..., 0].astype(np.uint16) * 257
    stream = io.BytesIO()
    Image.fromarray(deep).save(stream, "TIFF", tiffinfo={0x0112: orientation})
    gray = encode(photo()[..., 0], "PNG", exif=with_orientation(orientation))
    np.testing.assert_array_equal(decode_image(stream.getvalue()), decode_image(gray))


@pytest.mark.parametrize("orientation", [0, 9, 255, 65535])
def test_an_orientation_that_means_nothing_is_ignored(orientation):
    data = encode(photo(), "PNG", exif=with_orientation(orientation))
    np.testing.assert_array_equal(decode_image(data), photo())


@pytest.mark.parametrize("block", [b"", b"II", b"xx*\0", b"II*\0\xff\xff\xff\xff"])
def test_broken_exif_reads_as_upright(block):
    assert read_orientation(block) == 1


def test_the_extension_is_not_believed(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode(photo(), "PNG"))
    np.testing.assert_array_equal(decode_image(path), photo())
    assert image_size(str(path)) == (40, 64)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(
    "least, expected",
    [
        ((600, 800), (600, 800)),
        ((301, 1), (600, 800)),
        ((300, 400), (300, 400)),
        ((150, 1), (150, 200)),
        ((76, 90), (150, 200)),
        ((1, 1), (75, 100)),
        ((9000, 9000), (600, 800)),
    ],
)
def test_jpeg_is_shrunk_by_a_power_of_two_but_not_below_the_least_size(
    least, expected, orientation
):
    # 600 x 800 as shown, stored lying when it is to be turned.
    stored = photo(600, 800) if orientation == 1 else photo(800, 600)
    data = encode(stored, "JPEG", exif=with_orientation(orientation))
    assert decode_image(data, min_size=least).shape == (*expected, 3)


def test_a_shrunk_jpeg_shows_the_same_picture():
    data = encode(photo(400, 640), "JPEG", quality=95)
    full = decode_image(data)
    half = decode_image(data, min_size=(200, 320))
    expected = cv2.resize(full, (320, 200), interpolation=cv2.INTER_AREA)
    assert np.abs(half.astype(int) - expected).max() <= 4


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_jpeg_that_is_cut_short_is_an_error(share, tmp_path):
    data = encode(photo(200, 300), "JPEG")
    path = tmp_path / "cut.jpg"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match=r"cut\.jpg: damaged JPEG"):
        decode_image(path)


def test_a_cut_jpeg_with_junk_in_its_header_is_an_error():
    data = encode(photo(200, 300), "JPEG")
    data = data[:2] + b"junk" + data[2 : len(data) * 2 // 3]
    with pytest.raises(ImageError, match="damaged JPEG, cut short"):
        decode_image(data)


def test_a_jpeg_of_a_colour_space_that_the_library_cannot_name_is_an_error(monkeypatch):
    def header(data, strict):
        raise KeyError(-1)  # found by tests/data/fuzz_images.py

    monkeypatch.setattr(simplejpeg, "decode_jpeg_header", header)
    with pytest.raises(ImageError, match="damaged JPEG.*colour space -1 is not known"):
        decode_image(encode(photo(), "JPEG"))


def test_junk_in_a_jpeg_header_changes_nothing():
    data = encode(photo(), "JPEG", exif=with_orientation(6))
    expected = decode_image(data)
    junk = data[:2] + b"junk" + data[2:]
    np.testing.assert_array_equal(decode_image(junk), expected)
    assert image_size(junk) == expected.shape[:2] == (64, 40)


@pytest.mark.parametrize("form", ["PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM"])
def test_other_formats_cut_short_are_errors(form):
    data = encode(photo(), form)
    with pytest.raises(ImageError, match="picture: "):
        decode_image(data[: len(data) // 2])


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "the file is empty"),
        (b"<!DOCTYPE html>", "starts with '<!DOCTYPE html>'"),
        (b"\x89PNG\r\n\x1a\n", "PNG without its header"),
        (b"\xff\xd8", "cut short"),
        (b"\xff\xd8\xff\xe1", "cut short"),
        (b"GIF89a", "cut short"),
        (b"BM", "cut short"),
        (b"RIFF\0\0\0\0WEBP", "WebP without a picture"),
        (b"II*\0\x08\0\0\0\0\0", "TIFF without a size"),
        (b"P6 -1 4 255 ", "bad header"),
    ],
)
def test_what_is_no_picture_is_an_error_that_says_why(data, reason):
    with pytest.raises(ImageError, match=reason):
        decode_image(data)
    with pytest.raises(ImageError, match=reason):
        image_size(data)


def test_files_that_cannot_be_opened_are_named(tmp_path):
    for function in (decode_image, image_size):
        with pytest.raises(ImageError, match=r"nix\.jpg: No such file"):
            function(tmp_path / "nix.jpg")
        with pytest.raises(ImageError, match="not a regular file but a folder"):
            function(str(tmp_path))
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageError, match=r"empty\.png: the file is empty"):
        image_size(tmp_path / "empty.png")


def bomb_png(width, height) -> bytes:
    def chunk(name, body):
        check = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [
        chunk(b"IHDR", head),
        chunk(b"IDAT", zlib.compress(b"")),
        chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_a_decompression_bomb_is_refused_from_its_header():
    with pytest.raises(
        ImageError, match=r"65000 x 65000 pixels; more than 268,435,456"
    ):
        decode_image(bomb_png(65000, 65000))
    with pytest.raises(ImageError, match="64 x 40 pixels; more than 2,559 are"):
        decode_image(encode(photo(), "PNG"), max_pixels=64 * 40 - 1)
    assert decode_image(encode(photo(), "PNG"), max_pixels=64 * 40).shape == (40, 64, 3)


def test_a_png_chunk_that_claims_more_than_the_file_is_refused():
    data = encode(photo(), "PNG")
    position = data.index(b"IDAT") - 4
    huge = data[:position] + struct.pack(">I", 2**30) + data[position + 4 :]
    with pytest.raises(ImageError, match="chunk IDAT claims 1073741824 bytes"):
        decode_image(huge)


def test_float_pixels_are_refused():
    _, data = cv2.imencode(".tiff", np.ones((4, 4, 3), np.float32))
    with pytest.raises(ImageError, match="pixels of type float32"):
        decode_image(data.tobytes())


def test_decoded_pixels_come_back_as_they_are():
    pixels = photo()
    assert decode_image(pixels) is pixels
    assert image_size(pixels) == (40, 64)
    for wrong in (pixels[..., 0], pixels.astype(np.float32)):
        with pytest.raises(ImageError, match=r"must be uint8 \[h, w, 3\]"):
            decode_image(wrong)


def test_the_result_can_be_written_to_and_is_contiguous():
    for orientation in range(1, 9):
        data = encode(photo(), "JPEG", exif=with_orientation(orientation))
        pixels = decode_image(data)
        assert pixels.flags.c_contiguous and pixels.flags.writeable
