"""HEIC by pillow-heif; the tests skip where that is not installed."""

import io

import numpy as np
import pytest
from PIL import Image

from yolojax.data import heic, media
from yolojax.data.check import scan
from yolojax.data.decode import ImageError, decode_image, image_size
from yolojax.data.report import Report
from yolojax.data.sources.folder import FolderSource

if not heic.is_available():
    pytest.skip("needs pillow-heif, the extra heif", allow_module_level=True)
pillow_heif = pytest.importorskip("pillow_heif")


def quadrants():
    """Red, green, blue and white quarters: 40 high, 64 wide."""
    pixels = np.zeros((40, 64, 3), np.uint8)
    pixels[:20, :32], pixels[:20, 32:] = (220, 0, 0), (0, 200, 0)
    pixels[20:, :32], pixels[20:, 32:] = (0, 0, 210), (230, 230, 230)
    return pixels


def encode(pixels, orientation=1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = pillow_heif.from_pillow(Image.fromarray(pixels))
    stream = io.BytesIO()
    file.save(stream, quality=95, exif=exif.tobytes())
    return stream.getvalue()


def test_pixels_are_rgb_and_the_size_needs_no_decoding():
    data = encode(quadrants())
    assert image_size(data) == (40, 64)
    pixels = decode_image(data)
    assert pixels.dtype == np.uint8 and pixels.flags.writeable
    for y, x in ((5, 5), (5, 60), (35, 5), (35, 60)):
        expected = quadrants()[y, x].astype(int)
        assert np.abs(pixels[y, x] - expected).max() <= 12


@pytest.mark.parametrize(
    "orientation, first, size",
    [
        # The colour in the top left corner once it is shown.
        *((1, (220, 0, 0), (40, 64)), (3, (230, 230, 230), (40, 64))),
        *((6, (0, 0, 210), (64, 40)), (8, (0, 200, 0), (64, 40))),
        *((2, (0, 200, 0), (40, 64)), (5, (220, 0, 0), (64, 40))),
    ],
)
def test_an_orientation_is_applied_once(orientation, first, size):
    data = encode(quadrants(), orientation)
    assert image_size(data) == size
    pixels = decode_image(data)
    assert pixels.shape == (*size, 3)
    assert np.abs(pixels[4, 4].astype(int) - first).max() <= 12


def test_data_sets_and_predict_read_it(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "IMG_1.HEIC").write_bytes(encode(quadrants(), 6))
    (tmp_path / "a" / "misnamed.jpg").write_bytes(encode(quadrants()))
    source = FolderSource(root=str(tmp_path), fractions=(1,))
    report, keep = scan(source)
    assert len(keep) == 3 and report.counts == {}
    assert source[0].size == (64, 40)
    (item, _) = media.expand_sources([tmp_path / "a"])
    assert media.read_image(item, Report()) is not None


def test_damage_is_one_line(tmp_path):
    data = encode(quadrants())
    for cut in (30, len(data) // 3, len(data) - 20):
        with pytest.raises(ImageError) as caught:
            decode_image(data[:cut])
        assert "\n" not in str(caught.value)
