"""Images with more than 8 bits, and with fewer than their 16 bits could hold."""

import collections
import struct
import zlib

import cv2
import numpy as np
import pytest

from yolojax import datasets, settings
from yolojax.automatic import as_begun
from yolojax.data import media
from yolojax.data.cache import picture_key, read_picture
from yolojax.data.check import scan
from yolojax.data.decode import ImageError, decode, decode_image
from yolojax.data.report import Report
from yolojax.data.sources.folder import FolderSource
from yolojax.data.sources.joined import JoinedSource
from yolojax.decoding import set_white, with_white
from yolojax.records import Decoding


def ramp(largest, height=4, width=64):
    """Values that rise from 0 to `largest` along x, uint16 [h, w]."""
    return np.linspace(0, largest, width).astype(np.uint16)[None].repeat(height, 0)


def encode(pixels, suffix=".png", *options) -> bytes:
    done, data = cv2.imencode(suffix, pixels, *options)
    assert done
    return data.tobytes()


def with_chunk(png, name, body):
    """A PNG with one more chunk behind its header."""
    check = zlib.crc32(name + body)
    chunk = struct.pack(">I", len(body)) + name + body + struct.pack(">I", check)
    return png[:33] + chunk + png[33:]


def tiff(bits, values, *entries) -> bytes:
    """A gray TIFF whose samples take `bits` each, packed, with further SHORT tags."""
    rows = b""
    for row in values.tolist():
        text = "".join(f"{value:0{bits}b}" for value in row)
        text += "0" * (-len(text) % 8)
        rows += int(text, 2).to_bytes(len(text) // 8, "big")
    height, width = values.shape
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 0, 277: 1}
    tags = dict(sorted({**tags, 278: height, 279: len(rows), **dict(entries)}.items()))
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    body = b"".join(struct.pack(">HHII", t, 4, 1, value) for t, value in tags.items())
    head = b"MM\0*" + struct.pack(">IH", 8, len(tags))
    return head + body + bytes(4) + rows


@pytest.mark.parametrize(
    "largest, white",
    [
        *((65535, 65535), (16384, 65535), (16383, 16383), (4096, 16383)),
        *((4095, 4095), (4000, 4095), (1024, 4095), (1000, 1023), (255, 255)),
    ],
)
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_white_follows_from_the_bits_that_the_largest_value_needs(
    largest, white, suffix
):
    values = ramp(largest)
    pixels, own, _ = decode(encode(values, suffix))
    assert own == white
    expected = np.rint(values.astype(float) * 255 / white)
    np.testing.assert_array_equal(pixels[..., 1], expected)


def test_black_stays_black():
    pixels, white, _ = decode(encode(ramp(0)))
    assert white == 255 and pixels.max() == 0


@pytest.mark.parametrize("shape", [(), (3,), (4,)], ids=["gray", "rgb", "rgba"])
def test_all_kinds_of_channels_are_scaled_alike(shape):
    values = np.broadcast_to(ramp(4095)[..., *[None] * len(shape)], (4, 64, *shape))
    pixels = decode_image(encode(np.ascontiguousarray(values)))
    assert pixels.shape == (4, 64, 3) and pixels[0, -1].tolist() == [255] * 3


def test_a_given_white_goes_before_the_file_and_clips():
    values = np.array([[0, 2048, 4095, 8191, 65535]], np.uint16)
    pixels = decode_image(encode(values), decoding=Decoding(white=8191))
    assert pixels[0, :, 0].tolist() == [0, 64, 127, 255, 255]


@pytest.mark.parametrize(
    "bits, largest, white",
    [(12, 4095, 4095), (12, 900, 4095), (10, 200, 1023), (12, 65520, 65535)],
    ids=["full", "dark", "10 bits", "scaled by the writer"],
)
def test_png_may_say_its_significant_bits(bits, largest, white):
    png = with_chunk(encode(ramp(largest)), b"sBIT", bytes([bits]))
    assert decode(png).white == white


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_packed_tiff_is_scaled_by_its_bits_however_dark(bits):
    values = ramp(2**bits // 8)
    pixels, white, _ = decode(tiff(bits, values))
    assert white == 0  # the file says it
    expected = values * 255.0 / (2**bits - 1)
    assert np.abs(pixels[..., 0] - expected).max() <= 1


def test_tiff_may_say_its_largest_sample():
    pixels, white, _ = decode(tiff(16, ramp(2000), (281, 4000)))
    assert white == 0
    assert pixels[0, -1, 0] == round(2000 * 255 / 4000)


@pytest.mark.parametrize("bits", [10, 12])
def test_avif_is_scaled_by_its_bits(bits):
    gray = np.full((16, 16, 3), 2 ** (bits - 4), np.uint16)  # a sixteenth of white
    try:
        data = encode(gray, ".avif", [cv2.IMWRITE_AVIF_DEPTH, bits])
    except (cv2.error, AttributeError, AssertionError):
        pytest.skip("OpenCV without AVIF")
    assert abs(int(decode_image(data).mean()) - 16) <= 1


def test_one_bit_and_float_and_32_bit_images():
    mask = np.array([[0, 1, 1, 0, 1, 0, 0, 1]])
    assert decode_image(tiff(1, mask))[0, :, 0].tolist() == (mask[0] * 255).tolist()
    for kind in ("float32", "float64", "int32", "uint32"):
        try:
            data = encode(np.ones((4, 4), kind), ".tiff")
        except cv2.error:
            continue  # this build does not write it
        with pytest.raises(ImageError, match=f"of type {kind}; only 8 and 16 bit"):
            decode_image(data)


@pytest.fixture
def folder(tmp_path):
    """Two classes: 12 bits in train, of which one image is dark; the same in val."""
    for name, largest in (
        *(("train/a/1", 4000), ("train/a/2", 250), ("train/b/1", 2100)),
        *(("val/a/1", 900), ("val/b/1", 3000)),
    ):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(ramp(largest, 32)))
    return tmp_path


def config(**data):
    return settings.complete({"data": data})


def test_a_set_has_one_white_with_a_line(folder):
    source = FolderSource(root=str(folder))
    data = datasets.look_at_pictures(config(), source)
    assert data.white == 4095
    assert {source[index].decoding.white for index in range(3)} == {4095}
    pixels = [read_picture(source[n], (32, 64))[0, -1, 0] for n in range(3)]
    assert pixels == [round(v * 255 / 4095) for v in (4000, 250, 2100)]
    (entry,) = data.report.entries("16-bit image that uses fewer bits")
    assert entry.message.startswith("the largest value has 12 bits: 4095 becomes white")


def test_a_scan_that_remembers_still_knows_the_white(folder, tmp_path):
    cache = tmp_path / "scan.json"
    for _ in range(2):
        source = FolderSource(root=str(folder))
        data = datasets.look_at_pictures(config(), source, cache_path=cache)
        assert data.white == 4095


def test_train_val_and_later_commands_have_the_same_white(folder):
    parts = [FolderSource(root=str(folder), split=split) for split in ("train", "val")]
    train, val = (datasets.look_at_pictures(config(), source) for source in parts)
    assert (train.white, val.white) == (4095, 4095)
    (folder / "val/a/2.png").write_bytes(encode(ramp(9000)))
    val = datasets.look_at_pictures(
        config(), FolderSource(root=str(folder), split="val")
    )
    assert val.white == 16383
    chosen = with_white(config(), [train, val])
    assert chosen["data"]["white"] == 16383
    assert train.source[0].decoding.white == val.source[0].decoding.white == 16383
    # A run that goes on, and one that is evaluated, take it from config.json.
    assert as_begun(config(), chosen)["data"]["white"] == 16383
    later = datasets.look_at_pictures(chosen, FolderSource(root=str(folder)))
    assert later.source[0].decoding.white == 16383
    assert as_begun(config(white=4095), chosen)["data"]["white"] == 4095


def test_a_set_of_16_bits_notes_its_images_of_fewer(folder):
    (folder / "train/b/2.png").write_bytes(encode(ramp(50000)))
    data = datasets.look_at_pictures(config(), FolderSource(root=str(folder)))
    assert data.white == 65535
    (entry,) = data.report.entries("16-bit image that uses fewer bits")
    assert entry.message.startswith(
        "3 of 4 images with 16 bits have no value above 4095 and stay dark"
    )


def test_images_brighter_than_the_given_white_are_noted(folder):
    source = FolderSource(root=str(folder))
    report = datasets.look_at_pictures(config(white=1023), source).report
    assert "what is brighter becomes white" in report.render()


def test_ordinary_sets_have_no_line_and_no_white(tmp_path):
    for name, values in (("a/1", np.full((8, 8), 9, np.uint8)), ("b/1", ramp(3))):
        (tmp_path / name).parent.mkdir()
        (tmp_path / f"{name}.png").write_bytes(encode(values.astype(np.uint8)))
    source = FolderSource(root=str(tmp_path), fractions=(1,))
    data = datasets.look_at_pictures(config(), source)
    assert data.white == 0 and "16-bit" not in data.report.render()
    (tmp_path / "b/2.png").write_bytes(encode(ramp(60000)))
    source = FolderSource(root=str(tmp_path), fractions=(1,))
    data = datasets.look_at_pictures(config(), source)
    assert data.white == 65535 and "16-bit" not in data.report.render()


def test_joined_sources_have_one_white(folder):
    one, two = (FolderSource(root=str(folder), split=s) for s in ("train", "val"))
    joined = JoinedSource(one, two)
    set_white([joined], 777)
    assert {joined[n].decoding.white for n in range(len(joined))} == {777}


def test_caches_keep_images_of_another_white_apart(folder):
    source = FolderSource(root=str(folder))
    before = picture_key(source[0], (32, 64))
    set_white([source], 4095)
    assert picture_key(source[0], (32, 64)) != before


def test_predict_takes_the_runs_white_or_says_what_it_took(folder):
    (item, *_) = media.expand_sources([folder / "val" / "a"])
    report = Report()
    decoded = media.decode_item(item, report, Decoding(white=4095))
    assert decoded is not None and report.render() == ""
    assert decoded.pixels[0, -1, 0] == round(900 * 255 / 4095)
    alone = media.decode_item(item, report)
    assert alone is not None and alone.pixels[0, -1, 0] == round(900 * 255 / 1023)
    (entry,) = report.entries("16-bit image that uses fewer bits")
    assert entry.file.endswith("1.png") and "10 bits: 1023 becomes white" in str(entry)


def test_scan_counts_whites_of_usable_images_only(folder):
    (folder / "train/a/3.png").write_bytes(encode(ramp(60000))[:-30])
    whites: collections.Counter[int] = collections.Counter()
    scan(FolderSource(root=str(folder)), whites=whites)
    assert whites == {4095: 2, 255: 1}
