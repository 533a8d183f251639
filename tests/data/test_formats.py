import json
import os
import socket
import struct

import cv2
import numpy as np
import pytest

from yolojax.data import formats, heic, media
from yolojax.data.check import scan
from yolojax.data.decode import ImageError, UnreadFormat, decode_image, image_size
from yolojax.data.headers import gif_moves, read_header
from yolojax.data.report import Report
from yolojax.data.sources.base import list_pictures
from yolojax.data.sources.coco import CocoSource
from yolojax.data.sources.csv import CsvSource
from yolojax.data.sources.filename import FilenameSource
from yolojax.data.sources.folder import FolderSource
from yolojax.data.sources.voc import VocSource
from yolojax.data.sources.yolo import YoloSource

HEIC = struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + bytes(200)
JPEG_2000 = b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40)


@pytest.fixture(autouse=True)
def without_heif(monkeypatch):
    """As if pillow-heif were not installed."""
    monkeypatch.setattr(heic, "is_available", lambda: False)


def write_jpeg(path, value=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((20, 30, 3), value, np.uint8)
    path.write_bytes(cv2.imencode(".jpg", pixels)[1].tobytes())


def tiff(entries):
    """A little-endian TIFF of (tag, value) pairs, each a LONG, without pixels."""
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    return head + body + bytes(64)


@pytest.mark.parametrize(
    "content, name",
    [
        (HEIC, "HEIC"),
        (HEIC.replace(b"ftypheic", b"ftypmif1"), "HEIC"),
        (HEIC.replace(b"heic", b"hevx"), "HEIC"),
        (JPEG_2000, "JPEG 2000"),
        (b"\xff\x4f\xff\x51" + bytes(40), "JPEG 2000"),
        (b"\xff\x0a" + bytes(40), "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "JPEG XL"),
        (b"\0\0\0\x18ftypcrx " + bytes(40), "camera raw (CR3)"),
        (b"II*\0\x10\0\0\0CR\x02\0" + bytes(40), "camera raw (CR2)"),
        (tiff([(254, 1), (256, 160), (257, 120), (330, 900)]), "camera raw"),
        (tiff([(256, 160), (257, 120), (50706, 4)]), "camera raw"),
        (b"8BPS\0\x01" + bytes(40), "Photoshop"),
        (b"<?xml version='1.0'?>\n<svg width='4'></svg>", "SVG"),
        (b"%PDF-1.7\n", "PDF"),
        (b"\0\0\1\0\1\0\x10\x10" + bytes(40), "ICO"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_formats_are_known_by_their_first_bytes_whatever_the_suffix(
    content, name, tmp_path
):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    for function in (decode_image, image_size):
        with pytest.raises(UnreadFormat) as caught:
            function(path)
        assert str(caught.value).startswith(f"{path}: not read: {name}; convert it")
        assert caught.value.format == name


@pytest.mark.parametrize(
    "suffix, name",
    [
        (".nef", "camera raw (NEF)"),
        (".DNG", "camera raw (DNG)"),
        (".tga", "TGA"),
        (".heif", "HEIC"),
        (".jxl", "JPEG XL"),
        (".psd", "Photoshop"),
        (".ico", "ICO"),
    ],
)
def test_where_the_bytes_say_nothing_the_suffix_does(suffix, name, tmp_path):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(bytes(range(1, 200)))
    with pytest.raises(UnreadFormat, match=f"not read: {name.partition('(')[0]}"):
        decode_image(path)


def test_a_raw_file_that_looks_like_a_small_tiff_is_not_taken_for_it(tmp_path):
    preview = cv2.imencode(".tiff", np.zeros((4, 6, 3), np.uint8))[1].tobytes()
    (tmp_path / "a.arw").write_bytes(preview)
    (tmp_path / "a.tif").write_bytes(preview)
    assert image_size(tmp_path / "a.tif") == (4, 6)
    with pytest.raises(UnreadFormat, match=r"not read: camera raw \(ARW\)"):
        image_size(tmp_path / "a.arw")


def test_a_jpeg_with_the_suffix_of_heic_is_read(tmp_path):
    write_jpeg(tmp_path / "a.heic")
    assert decode_image(tmp_path / "a.heic").shape == (20, 30, 3)


def test_avif_with_a_general_brand_is_not_taken_for_heic():
    done, encoded = cv2.imencode(".avif", np.zeros((8, 8, 3), np.uint8))
    if not done:
        pytest.skip("OpenCV without AVIF")
    data = encoded.tobytes().replace(b"ftypavif", b"ftypmif1")
    assert read_header(data).format == "avif"


def test_pillow_heif_is_named_where_it_would_help(tmp_path):
    (tmp_path / "a.heic").write_bytes(HEIC)
    with pytest.raises(UnreadFormat, match=r"or install pillow-heif .*yolojax\[heif\]"):
        image_size(tmp_path / "a.heic")


@pytest.fixture(params=["yolo", "voc", "coco", "csv", "folder", "filename"])
def source(request, tmp_path):
    """A set of two images, of which one is HEIC."""
    kind, home = request.param, tmp_path
    folder = home / {"folder": "cat", "voc": "images"}.get(kind, "images")
    write_jpeg(folder / "cat_1.jpg")
    (folder / "cat_2.HEIC").write_bytes(HEIC)
    if kind == "yolo":
        (home / "labels").mkdir()
        for name in ("cat_1", "cat_2"):
            (home / "labels" / f"{name}.txt").write_text("0 .5 .5 .4 .4")
        (home / "data.yaml").write_text("train: images\nnames: [cat]")
        return YoloSource(yaml=str(home / "data.yaml"))
    if kind == "voc":
        (home / "annots").mkdir()
        for name in ("cat_1", "cat_2"):
            box = "<xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax>"
            text = f"<object><name>cat</name><bndbox>{box}</bndbox></object>"
            (home / "annots" / f"{name}.xml").write_text(
                f"<annotation>{text}</annotation>"
            )
        return VocSource(root=str(home))
    if kind == "coco":
        images = [
            {"id": number, "file_name": name, "width": 30, "height": 20}
            for number, name in enumerate(("cat_1.jpg", "cat_2.HEIC"))
        ]
        content = {
            "images": images,
            "annotations": [],
            "categories": [{"id": 1, "name": "cat"}],
        }
        (home / "a.json").write_text(json.dumps(content))
        return CocoSource(images=str(folder), annotations=str(home / "a.json"))
    if kind == "csv":
        (home / "a.csv").write_text("cat_1.jpg,cat\ncat_2.HEIC,cat\n")
        return CsvSource(csv=str(home / "a.csv"), root=str(folder), fractions=(1,))
    if kind == "folder":
        return FolderSource(root=str(home), fractions=(1,))
    return FilenameSource(root=str(home), fractions=(1,))


def test_every_source_names_what_is_not_read(source):
    report, keep = scan(source)
    assert len(keep) == 1
    report.merge(source.report)
    assert report.counts["unreadable picture"] == 1
    (entry,) = report.entries("unreadable picture")
    assert entry.file.endswith("cat_2.HEIC")
    assert entry.message.startswith("not read: HEIC; convert it to JPEG")


@pytest.mark.parametrize("source_kind", ["voc", "coco"])
def test_the_jpeg_is_taken_where_a_heic_of_the_same_name_lies_beside(
    source_kind, tmp_path
):
    write_jpeg(tmp_path / "images" / "IMG_1.jpg")
    (tmp_path / "images" / "IMG_1.HEIC").write_bytes(HEIC)
    if source_kind == "voc":
        (tmp_path / "annots").mkdir()
        box = "<xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax>"
        text = f"<object><name>cat</name><bndbox>{box}</bndbox></object>"
        file = tmp_path / "annots" / "IMG_1.xml"
        file.write_text(f"<annotation>{text}</annotation>")
        source = VocSource(root=str(tmp_path))
    else:
        content = {
            "images": [{"id": 1, "file_name": "IMG_1.png", "width": 30, "height": 20}],
            "annotations": [
                {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 8, 7]}
            ],
            "categories": [{"id": 1, "name": "cat"}],
        }
        (tmp_path / "a.json").write_text(json.dumps(content))
        source = CocoSource(
            images=str(tmp_path / "images"), annotations=str(tmp_path / "a.json")
        )
    assert len(source) == 1
    assert source[0].name.endswith("IMG_1.jpg")
    assert source[0].boxes.tolist() == [[1, 2, 9, 9]]


def test_images_without_labels_are_named_as_well(tmp_path):
    write_jpeg(tmp_path / "a.jpg")
    (tmp_path / "b.jp2").write_bytes(JPEG_2000)
    source = FolderSource(root=str(tmp_path))
    assert len(source) == 1
    (entry,) = source.report.entries("unreadable picture")
    assert entry.message == "not read: JPEG 2000; convert it to JPEG; left out"


def test_documents_are_noted_and_other_files_passed_over(tmp_path):
    write_jpeg(tmp_path / "a.jpg")
    for name in ("readme.txt", "a.json", "Thumbs.db", ".DS_Store", "._a.jpg"):
        (tmp_path / name).write_bytes(b"\0\x05\x16\x07")
    (tmp_path / "manual.pdf").write_bytes(b"%PDF-1.4")
    report = Report()
    found = list_pictures(tmp_path, report)
    assert [os.path.basename(path) for path in found] == ["a.jpg"]
    assert report.counts == {}
    assert report.notes == {"document left out": 1, "hidden file left out": 1}
    (entry,) = report.entries("document left out")
    assert entry.message == "not read: PDF; convert it to JPEG"


def test_predict_counts_what_is_not_read_and_passes_over_the_rest(tmp_path):
    write_jpeg(tmp_path / "a.jpg")
    (tmp_path / "b.NEF").write_bytes(b"MM\0*" + bytes(40))
    (tmp_path / "c").write_bytes(HEIC)
    (tmp_path / "d.pdf").write_bytes(b"%PDF-1.4")
    for name in ("readme.txt", "x.json", "Thumbs.db", ".DS_Store", "._a.jpg"):
        (tmp_path / name).write_bytes(b"\0\x05\x16\x07")
    report = Report()
    items = media.expand_sources([str(tmp_path)], report=report)
    assert [item.path.name for item in items] == ["a.jpg", "b.NEF", "c", "d.pdf"]
    assert report.counts == {}
    read = [media.read_image(item, report) is not None for item in items]
    assert read == [True, False, False, False]
    messages = [entry.message for entry in report.entries("unreadable image")]
    for message, name in zip(
        messages, ("camera raw (NEF)", "HEIC", "PDF"), strict=True
    ):
        assert message.startswith(f"not read: {name}; convert it to JPEG")


def test_typescript_is_no_video(tmp_path):
    for name in ("app.ts", "mod.mts", "go.mod"):
        (tmp_path / name).write_text("export const ä = 1;\n" * 100, encoding="utf-8")
    write_jpeg(tmp_path / "a.jpg")
    assert [i.path.name for i in media.expand_sources([tmp_path])] == ["a.jpg"]
    with pytest.raises(ValueError, match=r"app\.ts' is neither a picture nor a video"):
        media.expand_sources([tmp_path / "app.ts"])


def test_a_transport_stream_is_a_video_and_so_is_any_other_binary(tmp_path):
    packet = b"\x47\x1f\xff\x10" + b"\xff" * 184
    (tmp_path / "a.ts").write_bytes(packet * 4)
    (tmp_path / "b.TS").write_bytes(bytes(range(256)))
    kinds = [item.kind for item in media.expand_sources([tmp_path])]
    assert kinds == ["video", "video"]


@pytest.mark.parametrize(
    "suffix",
    ".mp4 .AVI .mov .mkv .webm .m4v .mpg .mpeg .wmv .asf .flv .mts .m2ts "
    ".3gp .3g2 .ogv .vob .mxf .mjpeg".split(),
)
def test_suffixes_of_videos(suffix, tmp_path):
    (tmp_path / f"a{suffix}").write_bytes(b"\0\1\2\3")
    (item,) = media.expand_sources([tmp_path])
    assert item.kind == "video"
    with pytest.raises(ValueError, match="not a video that OpenCV can read"):
        media.Video(item.path)


def test_a_video_without_a_known_suffix_is_known_by_its_start(tmp_path):
    writer = cv2.VideoWriter(
        str(tmp_path / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (32, 24)
    )
    writer.write(np.zeros((24, 32, 3), np.uint8))
    writer.release()
    (tmp_path / "a.avi").rename(tmp_path / "film")
    (item,) = media.expand_sources([tmp_path])
    assert item.kind == "video"
    (tmp_path / "film").rename(tmp_path / "film.dat")
    (item,) = media.expand_sources([tmp_path / "film.dat"])
    assert item.kind == "video"


def test_a_playlist_is_not_followed(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_text(f"ffconcat version 1.0\nfile {tmp_path}/secret.avi\n")
    with pytest.raises(ValueError, match=r"a\.mp4: not a video .*, but text"):
        media.Video(path)


def special_files(folder):
    """A pipe, a socket, a link to a device and a folder, called like images."""
    os.mkfifo(folder / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as own:
        old = os.getcwd()
        os.chdir(folder)  # a socket's path must be short
        own.bind("socket.png")
        os.chdir(old)
    (folder / "device.bmp").symlink_to("/dev/zero")
    (folder / "folder.tif").mkdir()


def test_what_is_no_regular_file_is_reported_and_never_waited_for(tmp_path):
    special_files(tmp_path)
    write_jpeg(tmp_path / "z.jpg")
    items = media.expand_sources([tmp_path])
    report = Report()
    read = [media.read_image(item, report) is not None for item in items]
    assert read == [False, False, False, False, True]
    for entry in report.entries("unreadable image"):
        assert "not a regular file" in entry.message
    found = Report()
    source = FolderSource(root=str(tmp_path))
    assert len(source) == 1
    found = source.report.entries("unreadable picture")
    assert [os.path.basename(entry.file) for entry in found] == [
        *("device.bmp", "pipe.jpg", "socket.png")
    ]


def test_a_video_that_is_no_regular_file_is_an_error(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match=r"a\.mp4' is not a regular file"):
        media.expand_sources([tmp_path / "a.mp4"])
    (item,) = media.expand_sources([tmp_path])
    with pytest.raises(ValueError, match=r"a\.mp4: not a regular file but a named"):
        media.Video(item.path)
    with pytest.raises(ImageError, match="not a regular file but a device"):
        image_size("/dev/zero")


def test_every_suffix_belongs_to_one_kind():
    assert not formats.IMAGE_SUFFIXES & formats.VIDEO_SUFFIXES
    assert not formats.IMAGE_SUFFIXES & formats.DOCUMENT_SUFFIXES
    assert all(s == s.lower() and s[0] == "." for s in formats.VIDEO_SUFFIXES)


def test_a_gif_moves_if_it_has_two_images_and_damage_is_no_error():
    head = b"GIF89a" + bytes([1, 0, 1, 0, 0x80, 0, 0, 255, 0, 0, 0, 0, 255])
    frame = b"\x21\xf9\x04\0\x0a\0\0\0\x2c" + bytes([0, 0, 0, 0, 1, 0, 1, 0, 0])
    frame += b"\x02\x02\x44\x01\0"
    assert not gif_moves(head + frame + b";")
    assert gif_moves(head + frame * 2 + b";")
    for length in range(len(head + frame) + 1):
        assert not gif_moves((head + frame)[:length])
