import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data import bombs
from tests.peaks import peak_kb
from tests.shared import ROOT
from yolojax.data import cache, media
from yolojax.data.check import scan
from yolojax.data.decode import ImageError, decode, decode_image, image_size
from yolojax.data.headers import read_header
from yolojax.data.report import Report
from yolojax.data.sources.folder import FolderSource
from yolojax.records import Decoding

HOSTILE = ROOT / "data" / "hostile"
# Of these nothing but the header is read.
CLAIMS = {
    "png": bombs.png(8000, 8000, rows=1),  # 64 million pixels, three bytes and a copy
    "16 bits": bombs.png(5000, 5000, depth=16, colour=6, rows=1),
    "gif": bombs.gif(8000, 8000),
    "pnm": b"P6 8000 8000 255\n",
    "ascii": b"P3 8000 8000 255\n1 2 3",
    "tiff": bombs.tiff_of(8000, 8000),
    "tiles": bombs.tiff_of(64, 64, t322=65520, t323=65520),
    "samples": bombs.tiff_of(2000, 2000, t277=60000),
}


@pytest.mark.parametrize("data", CLAIMS.values(), ids=CLAIMS.keys())
def test_what_needs_too_much_is_refused_before_it_is_decoded(data):
    before = peak_kb()
    with pytest.raises(
        ImageError,
        match=r"pixels: decoding needs [\d,]+ MB, more than 300 MB \(config\.data\.dec",
    ):
        decode_image(data)
    grown = peak_kb() - before
    assert grown < 50_000  # KiB


def test_the_limit_is_that_of_the_config():
    data = bombs.png(400, 400, colour=2)  # 976,000 bytes
    assert decode_image(data).shape == (400, 400, 3)
    with pytest.raises(ImageError, match=r"needs 1 MB, more than 1 MB"):
        decode_image(data, decoding=Decoding(max_bytes=900_000))


def test_the_estimate_of_a_jpeg_counts_its_coefficients():
    # Two bytes a sample: 1 + 1/4 + 1/4 for a pixel, or three.
    for options, held in (({}, 3.0), ({"subsampling": 0}, 6.0)):
        plain = read_header(bombs.jpeg(64, 32, **options))
        progressive = read_header(bombs.jpeg(64, 32, progressive=True, **options))
        assert plain.decoding_bytes() == 64 * 32 * 3
        assert progressive.decoding_bytes() == 64 * 32 * (3 + held)
        assert progressive.decoding_bytes(8) == 8 * 4 * 3 + 64 * 32 * held


def test_a_jpeg_over_the_limit_comes_smaller_where_the_caller_can_use_it():
    data = bombs.jpeg(800, 400)  # 960,000 bytes
    small = Decoding(max_bytes=300_000)
    with pytest.raises(ImageError, match="800 x 400 pixels: decoding needs 1 MB"):
        decode_image(data, decoding=small)
    pixels, _, size = decode(data, decoding=small, may_shrink=True)
    assert pixels.shape == (200, 400, 3) and size == (400, 800)
    # With a size wanted that is too large, too.
    assert decode_image(data, decoding=small, min_size=(400, 800)).shape[0] == 200


def test_boxes_fit_a_jpeg_that_training_decodes_smaller(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    pixels = np.zeros((400, 800, 3), np.uint8)
    pixels[:, 400:] = 200
    for name in "ab":
        Image.fromarray(pixels).save(tmp_path / name / "1.jpg", quality=95)
    source = FolderSource(root=str(tmp_path), fractions=(1,))
    source.decoding = Decoding(max_bytes=300_000)
    report, keep = scan(source)
    assert len(keep) == 2 and not report.counts
    for scaled in (True, False):
        picture = cache.read_picture(source[0], (400, 800), scaled=scaled)
        assert picture.shape == (400, 800, 3)
        assert picture[:, :390].max() < 20 and picture[:, 410:].min() > 180


def test_predict_knows_the_full_size(tmp_path):
    (tmp_path / "a.jpg").write_bytes(bombs.jpeg(800, 400))
    (item,) = media.expand_sources([tmp_path])
    decoded = media.decode_item(item, Report(), Decoding(max_bytes=300_000))
    assert decoded is not None
    assert decoded.size == (400, 800) and decoded.pixels.shape == (200, 400, 3)


@pytest.mark.parametrize("name", [b"zTXt", b"iTXt", b"iCCP"])
def test_texts_and_profiles_of_a_png_are_never_unpacked(name):
    data = bombs.png(8, 8, extras=bombs.texts(name, 4_000_000, 200))  # 800 MB
    before = peak_kb()
    start = time.process_time()
    assert decode_image(data).shape == (8, 8, 3)
    assert time.process_time() - start < 30  # a hang limit
    assert peak_kb() - before < 50_000


@pytest.mark.parametrize(
    "data, reason",
    [
        (bombs.png(8, 8, extras=[bombs.chunk(b"aaAa", b"")] * 250_000), "chunks"),
        (b"\xff\xd8" + b"\xff\xe2\0\2" * 300_000, "segments"),
        (b"\xff\xd8" + b"\xff" * 5_000_000, "the header is cut short"),
        (b"\xff\xd8" + b"\xff\0" * 300_000, "segments"),
        (bombs.many_scans(1600, 1600, 2000), "scans of 1600 x 1600 pixels"),
    ],
    ids=["chunks", "segments", "padding", "junk", "scans"],
)
def test_endless_parts_are_an_error(data, reason):
    start = time.process_time()
    with pytest.raises(ImageError, match=reason):
        decode_image(data)
    assert time.process_time() - start < 30  # a hang limit


def test_a_photo_of_many_scans_is_read():
    assert decode_image(bombs.many_scans(640, 480, 30)).shape == (480, 640, 3)


def test_a_file_that_no_image_is_as_large_as_is_not_read(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(bombs.jpeg(8, 8))
    os.truncate(path, 2**40)  # takes no room on the disk
    with pytest.raises(ImageError, match=r"a\.jpg: 1,099,511,627,776 bytes; at most"):
        decode_image(path)
    assert image_size(path) == (8, 8)


def peak_of(code: str, *arguments: str) -> tuple[int, str]:
    """MB that a process took at most, and what it printed last."""
    code += "\nfrom tests.peaks import peak_kb\nprint(peak_kb() // 1024)"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        cwd=Path(__file__).parents[2],
    )
    *lines, last = done.stdout.splitlines()
    return int(last), "\n".join(lines)


ONE = """
import sys, time
from yolojax.data.decode import ImageError, decode
data = open(sys.argv[1], 'rb').read()
from tests.peaks import peak_kb
before = peak_kb() // 1024
start = time.process_time()
try:
    decode(data, may_shrink=True)
except ImageError as error:
    pass
print(before, time.process_time() - start)
"""


@pytest.mark.slow
def test_no_image_takes_more_than_300_mb_or_5_seconds(tmp_path):
    for name, data in bombs.bombs():
        path = tmp_path / name
        path.write_bytes(data)
        peak, printed = peak_of(ONE, str(path))
        before, seconds = map(float, printed.split())
        print(
            f"{name:26} {len(data):>9} bytes: {peak - before:4.0f} MB {seconds:.1f} s"
        )
        assert peak - before < 320, name
        assert seconds < 5, name
        path.unlink()


@pytest.mark.slow
def test_check_of_all_hostile_images_stays_below_a_gigabyte(tmp_path):
    folder, labels = tmp_path / "images", tmp_path / "labels"
    folder.mkdir()
    labels.mkdir()
    for name, data in bombs.bombs():
        (folder / name).write_bytes(data)
    for number, path in enumerate(sorted(HOSTILE.rglob("*"))):
        if path.is_file() and path.suffix.lower() not in (".db", ".txt", ".xml", ""):
            (folder / f"{number:03}{path.suffix}").symlink_to(path)
    for path in folder.iterdir():
        (labels / f"{path.stem}.txt").write_text("0 .5 .5 .5 .5")
    (tmp_path / "data.yaml").write_text("train: images\nnames: [thing]")
    arguments = [
        *("--config", "configs/coco128.py:smoke", f"--config.data.root={tmp_path}"),
        *("--config.data.train.yaml=data.yaml", "--config.data.val={}"),
        *("--config.data.num_threads=2", "--config.model.num_classes=0"),
    ]
    # The peak of the command alone: a worker's other children may have taken more.
    code = (
        "import atexit, runpy, sys\n"
        "from tests.peaks import peak_kb\n"
        "atexit.register(lambda: print('peak', peak_kb() // 1024, flush=True))\n"
        "sys.argv = ['check', *sys.argv[1:]]\n"
        "runpy.run_module('yolojax.check', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=300,
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 1
    peak = int(re.findall(r"^peak (\d+)$", done.stdout, re.MULTILINE)[-1])
    assert "Traceback" not in done.stderr
    assert re.search(r"unreadable picture: \d\d", done.stdout)
    assert peak < 1000
