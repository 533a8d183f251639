import os

import cv2
import numpy as np
import pytest

from tests.shared import shared
from yolojax.data import media
from yolojax.data.report import Report


def write_picture(path, value=200, suffix=".png"):
    path.parent.mkdir(parents=True, exist_ok=True)
    done, encoded = cv2.imencode(suffix, np.full((6, 8, 3), value, np.uint8))
    assert done
    path.write_bytes(encoded.tobytes())
    return path


def write_film(path, count=4):
    code = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), code, 10.0, (32, 24))
    for index in range(count):
        writer.write(np.full((24, 32, 3), 50 * index % 256, np.uint8))
    writer.release()
    return path


def write_gif(path, num_frames):
    # GIF89a by hand: 1 x 1 pixel, two colours, each frame one LZW block.
    head = b"GIF89a" + bytes([1, 0, 1, 0, 0x80, 0, 0, 255, 0, 0, 0, 0, 255])
    frame = b"\x21\xf9\x04\x00\x0a\x00\x00\x00"
    frame += b"\x2c" + bytes([0, 0, 0, 0, 1, 0, 1, 0, 0]) + b"\x02\x02\x44\x01\x00"
    path.write_bytes(head + frame * num_frames + b"\x3b")
    return path


def names(items):
    return [item.path.name for item in items]


def test_a_folder_gives_its_pictures_and_videos_in_natural_order(tmp_path):
    for name in ["a10.png", "a2.PNG", "a1.png", ".hidden.png", "in/deep.png"]:
        write_picture(tmp_path / name)
    write_film(tmp_path / "a3.avi")
    (tmp_path / "notes.md").write_text("nothing to see")
    (tmp_path / "list.txt").write_text("a1.png")
    items = media.expand_sources([str(tmp_path)])
    assert names(items) == ["a1.png", "a2.PNG", "a3.avi", "a10.png"]
    assert [item.kind for item in items] == ["image", "image", "video", "image"]
    deep = media.expand_sources([tmp_path], recursive=True)
    assert names(deep) == ["a1.png", "a2.PNG", "a3.avi", "a10.png", "deep.png"]


def test_a_picture_without_a_suffix_is_known_by_its_content(tmp_path):
    write_picture(tmp_path / "no_extension")
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    assert names(media.expand_sources([tmp_path])) == ["no_extension"]


def test_each_file_comes_once_however_it_is_named(tmp_path, monkeypatch):
    write_picture(tmp_path / "b" / "x.png")
    write_picture(tmp_path / "b" / "y.png")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "b")
    sources = ["b/y.png", "b", "b/../b/*.png", str(tmp_path / "b"), "link"]
    assert names(media.expand_sources(sources)) == ["y.png", "x.png"]


def test_patterns_match_any_depth_and_only_files(tmp_path):
    for name in ["one/a.png", "one/two/b.png", "c.jpg"]:
        write_picture(tmp_path / name)
    found = media.expand_sources([f"{tmp_path}/**/*.png"])
    assert names(found) == ["a.png", "b.png"]
    assert names(media.expand_sources([f"{tmp_path}/*"])) == ["c.jpg"]
    assert names(media.expand_sources([f"{tmp_path}/one/[ax].png"])) == ["a.png"]


def test_names_with_brackets_are_taken_as_they_are(tmp_path):
    for name in ["set[1]/a[2].png", "set[1]/b.png", "set1/c.png", "a2.png"]:
        write_picture(tmp_path / name)

    def found(tail):
        return names(media.expand_sources([f"{tmp_path}/{tail}"]))

    assert found("set[1]/a[2].png") == ["a[2].png"]
    assert found("set[1]") == ["a[2].png", "b.png"]
    assert found("set[1]/*.png") == ["a[2].png", "b.png"]
    assert found("set[1]/a[2]*") == ["a[2].png"]
    assert found("a[2].png") == ["a2.png"]


def test_a_list_keeps_its_order_and_reports_what_is_missing(tmp_path, monkeypatch):
    for name in ["sets/pictures/b.png", "sets/pictures/a.png", "here.png"]:
        write_picture(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    lines = ["\ufeff./pictures/b.png", "", "# no", "pictures/a.png ", "here.png"]
    lines += ["pictures/gone.png", str(tmp_path / "here.png")]
    listed = tmp_path / "sets" / "list.txt"
    listed.write_text("\r\n".join(lines), encoding="utf-8")
    report = Report()
    items = media.expand_sources([str(listed)], report=report)
    assert names(items) == ["b.png", "a.png", "here.png"]
    assert report.counts == {"unreadable entry": 1}
    (entry,) = report.entries("unreadable entry")
    assert entry.line == 6 and "gone.png: no such file" in entry.message


def test_output_names_are_unique_also_where_case_and_accent_forms_are_one(tmp_path):
    for name in ["p/a.png", "q/a.jpg", "r/q_a.png", "s/A.png", "p/a.bmp"]:
        write_picture(tmp_path / name)
    write_picture(tmp_path / "t" / "é.png")
    write_picture(tmp_path / "t" / "e\u0301.png")
    sources = [f"{tmp_path}/{folder}" for folder in "pqrst"]
    found = [item.output_name for item in media.expand_sources(sources)]
    assert found[:5] == ["a", "p_a", "q_a", "r_q_a", "s_A"]
    assert len(found) == 7 and found[5][:2] != found[6][:2]


@pytest.mark.parametrize("source", ["a.png", "b"])
def test_a_path_that_is_not_there_names_the_nearest(tmp_path, source):
    write_picture(tmp_path / "a1.png")
    (tmp_path / "bb").mkdir()
    near = {"a.png": "a1.png", "b": "bb"}[source]
    with pytest.raises(ValueError, match=rf"{source}' does not exist; .*{near}'\?"):
        media.expand_sources([str(tmp_path / source)])


def test_errors_say_what_is_there_instead(tmp_path):
    with pytest.raises(ValueError, match="is empty"):
        media.expand_sources([str(tmp_path / "x" / "y.png")])
    write_picture(tmp_path / "in" / "a.png")
    with pytest.raises(ValueError, match=r"no picture or video.*it has 1 folders"):
        media.expand_sources([str(tmp_path)])
    with pytest.raises(ValueError, match=r"nothing matches; .* holds 1 entries: in"):
        media.expand_sources([f"{tmp_path}/*.jpg"])
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(ValueError, match="neither a picture nor a video"):
        media.expand_sources([tmp_path / "a.csv"])
    with pytest.raises(ValueError, match="1 matches, but no picture"):
        media.expand_sources([f"{tmp_path}/*.csv"])
    (tmp_path / "list.txt").write_text("no\nnor\n")
    with pytest.raises(ValueError, match="none of its 2 lines"):
        media.expand_sources([tmp_path / "list.txt"])
    with pytest.raises(ValueError, match="addresses are not read"):
        media.expand_sources(["https://example.org/a.jpg"])
    with pytest.raises(ValueError, match="no source"):
        media.expand_sources([])


def test_an_unreadable_picture_is_reported_and_left_out(tmp_path):
    write_picture(tmp_path / "good.png", value=9)
    (tmp_path / "bad.jpg").write_text("<html>not found</html>")
    report = Report()
    bad, good = media.expand_sources([tmp_path])
    assert media.read_image(bad, report) is None
    picture = media.read_image(good, report)
    assert picture is not None and (picture == 9).all()
    assert report.counts == {"unreadable image": 1}
    assert report.entries("unreadable image")[0].file == str(bad.path)


def test_a_gif_is_a_video_only_if_it_moves(tmp_path):
    still, moving = write_gif(tmp_path / "a.gif", 1), write_gif(tmp_path / "b.gif", 3)
    assert media.media_kind(still) == "image"
    assert media.media_kind(moving) == "video"
    with media.Video(moving) as video:
        assert len(list(video.frames(Report()))) == 3


def test_a_video_gives_frames_rate_and_count(tmp_path):
    report = Report()
    with media.Video(write_film(tmp_path / "a.avi", 4)) as video:
        assert (video.fps, video.count) == (10.0, 4)
        values = [int(frame.mean()) for frame in video.frames(report)]
    np.testing.assert_allclose(values, [0, 50, 100, 150], atol=3)
    assert not report.counts


def test_a_video_cut_short_is_reported(tmp_path):
    whole = write_film(tmp_path / "a.avi", 40).read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole[: len(whole) // 2])
    report = Report()
    with media.Video(cut) as video:
        video.count = 40  # the index, which tells, was cut off with the end
        assert 0 < len(list(video.frames(report))) < 40
    assert report.counts == {"video cut short": 1}


def test_a_file_that_is_no_video_is_a_clear_error(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_text("no")
    with pytest.raises(ValueError, match=r"a\.mp4: not a video"):
        media.Video(path)


def test_hard_names_and_false_suffixes_are_found_and_read():
    folder = shared("data", "hostile", "names")
    items = media.expand_sources([folder])
    report = Report()
    read = [media.read_image(item, report) is not None for item in items]
    unreadable = {
        item.path.name for item, done in zip(items, read, strict=True) if not done
    }
    assert unreadable == {"empty.jpg", "error_page.jpg"}
    expected = {n for n in os.listdir(folder) if n[0] != "." and n != "Thumbs.db"}
    assert {item.path.name for item in items} == expected
    assert len({item.output_name for item in items}) == len(items)
    one = media.expand_sources([folder / "100%_[a]{b}#1&2;.jpg"])
    assert names(one) == ["100%_[a]{b}#1&2;.jpg"]


def test_a_source_that_is_no_regular_file_is_named_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="a.jpg' is not a regular file"):
        media.expand_sources([tmp_path / "a.jpg"])


def test_folders_that_are_passed_over_are_named(tmp_path):
    for name in ("a.png", "day1/b.png", "day2/c.png", ".hidden/d.png"):
        write_picture(tmp_path / name)
    (tmp_path / "linked").symlink_to(tmp_path / "day1", target_is_directory=True)
    report = Report()
    assert len(media.expand_sources([tmp_path], report=report)) == 1
    assert report.notes == {"folders not looked into": 3}
    (entry,) = report.entries("folders not looked into")
    assert entry.message == "day1, day2, linked; --recursive takes them"
    whole = Report()
    media.expand_sources([tmp_path], recursive=True, report=whole)
    assert "folders not looked into" not in whole.notes
