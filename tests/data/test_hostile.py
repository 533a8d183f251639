"""Every awkward file of the test bed, against what Pillow makes of it."""

import json
import os

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.shared import ROOT, shared
from yolojax.data.check import scan
from yolojax.data.decode import ImageError, decode_image, image_size
from yolojax.data.report import Report
from yolojax.data.sources.base import list_pictures
from yolojax.data.sources.yolo import YoloSource
from yolojax.records import Decoding

HOSTILE = ROOT / "data" / "hostile"

# Files that Pillow loads and we refuse, and why that is right.
REFUSED = {
    "images/badadler.png": "data checksum is wrong",
    "images/badcrc.png": "chunk checksum is wrong",
    "images/broken_data_stream.png": "data are damaged; Pillow fills in black",
    "images/hopper.Lab.tif": "Lab colours, which OpenCV takes for RGB",
    "images/huge_IDAT.png": "a chunk claims a gigabyte that is not there",
    "images/mmap_error.bmp": "pixels start inside the palette",
    "images/truncated_end_chunk.png": "the end is missing",
}
# Files that Pillow refuses and we read.
READ = {"images/png_decompression_dos.png": "the bomb is in a text that we skip"}
# OpenCV's published builds read these formats from 4.12 on.
OLD_OPENCV = tuple(map(int, cv2.__version__.split(".")[:2])) < (4, 12)


def entries(only=lambda entry: True) -> list:
    if not HOSTILE.exists():
        return []
    files = json.loads((HOSTILE / "expected.json").read_text())["files"]
    return [entry for entry in files if "opens" in entry and only(entry)]


def name(entry):
    return entry["file"][-40:]


def loads(entry) -> bool:
    """Whether we are to read the file."""
    if OLD_OPENCV and entry["file"].endswith((".gif", ".avif")):
        return False
    return entry["file"] in READ or entry["loads"] and entry["file"] not in REFUSED


@pytest.mark.parametrize("entry", entries(), ids=name)
def test_reads_what_pillow_reads_and_names_what_it_refuses(entry):
    path = shared("data", "hostile", entry["file"])
    if not loads(entry):
        with pytest.raises(ImageError) as caught:
            decode_image(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
        return
    pixels = decode_image(path)
    assert pixels.dtype == np.uint8 and pixels.shape[2] == 3
    assert image_size(path) == pixels.shape[:2]
    if "size" in entry:
        width, height = entry["size"]
        turned = entry.get("exif_orientation") in (5, 6, 7, 8)
        assert pixels.shape[:2] == ((width, height) if turned else (height, width))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about the files
@pytest.mark.parametrize("entry", entries(lambda e: loads(e) and e["loads"]), ids=name)
def test_pixels_are_those_that_pillow_shows(entry):
    path = shared("data", "hostile", entry["file"])
    with Image.open(path) as image:
        try:
            shown = ImageOps.exif_transpose(image)
        except OSError as error:
            pytest.skip(f"Pillow: {error}")
        assert shown is not None
        if shown.mode.startswith("I"):  # 16 bit
            expected = np.rint(np.asarray(shown) / 257)[..., None]
        elif shown.mode in ("P", "PA", "LA"):
            expected = np.asarray(shown.convert("RGBA"))[..., :3]
        else:
            expected = np.asarray(shown.convert("RGB"))
    # Pillow's white; our own follows from the largest value.
    pixels = decode_image(path, decoding=Decoding(white=65535))
    # Rounding of 16 bit, CMYK and the builds' JPEG transforms.
    expected = np.broadcast_to(expected, pixels.shape).astype(np.uint8)
    assert cv2.absdiff(pixels, expected).max() <= 3


def test_the_eight_orientations_show_the_same_picture():
    upright = decode_image(shared("data", "hostile", "images", "hopper.jpg"))
    for orientation in range(2, 9):
        path = shared(
            "data", "hostile", "images", f"hopper_orientation_{orientation}.jpg"
        )
        difference = np.abs(decode_image(path).astype(int) - upright)
        # Compressed anew after the turn, at lower quality.
        assert difference.mean() < 6


def test_hard_names_are_listed_read_and_reported():
    report = Report()
    found = list_pictures(shared("data", "hostile", "names"), report)
    names = {os.path.basename(path) for path in found}
    assert {"-leading-dash.jpg", "with space.jpg", "😀.jpg", "UPPER.JPG"} <= names
    assert names.isdisjoint(
        {".hidden.jpg", "._hopper.jpg", "Thumbs.db", "no_extension"}
    )
    assert report.notes == {"hidden file left out": 2}
    readable = 0
    for path in found:
        try:
            readable += decode_image(path).shape == (128, 128, 3)
        except ImageError as error:
            assert os.path.basename(path) in ("empty.jpg", "error_page.jpg"), error
    assert readable == len(found) - 2


def test_a_large_photo_is_decoded_small_where_that_is_enough():
    path = shared("data", "hostile", "sizes", "big_9000x6000.jpg")
    assert decode_image(path, min_size=(640, 640)).shape == (750, 1125, 3)
    with pytest.raises(ImageError, match="9000 x 6000 pixels; more than 50,000,000"):
        decode_image(path, max_pixels=50_000_000)


def test_a_whole_folder_of_awkward_files_is_scanned_without_a_stop(tmp_path):
    """All of the files as one YOLO set: what is bad is left out, no more."""
    folder = tmp_path / "images"
    folder.mkdir()
    (tmp_path / "labels").mkdir()
    expected = set()
    for number, entry in enumerate(entries()):
        suffix = os.path.splitext(entry["file"])[1]
        if suffix.lower() in (".db", ""):
            continue
        link = folder / f"{number:03}{suffix}"
        link.symlink_to(shared("data", "hostile", entry["file"]))
        if loads(entry):
            expected.add(link.name)
        (tmp_path / "labels" / f"{number:03}.txt").write_text("0 .5 .5 .5 .5")
    if not expected:
        pytest.skip("needs ../shared/data/hostile, which is not here")
    (tmp_path / "data.yaml").write_text("train: images\nnames: [thing]")
    source = YoloSource(yaml=str(tmp_path / "data.yaml"))
    report, keep = scan(source)
    kept = {os.path.basename(source[int(index)].name) for index in keep}
    assert kept == expected
    left_out = sum(r.counts["unreadable picture"] for r in (source.report, report))
    assert left_out + len(kept) == len(os.listdir(folder))
