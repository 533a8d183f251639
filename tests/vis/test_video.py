import os

import numpy as np
import pytest

from yolojax.data.media import Video
from yolojax.data.report import Report
from yolojax.vis.video import _check_whole, write_video


def frames(count, size=(48, 64)):
    for index in range(count):
        yield np.full((*size, 3), (40 * index, 20, 200), np.uint8)


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mov", ".mkv"])
@pytest.mark.parametrize("size", [(48, 64), (33, 47)])
def test_a_video_comes_back_with_its_frames_rate_and_colours(tmp_path, suffix, size):
    path = tmp_path / "deeper" / f"a{suffix}"
    assert write_video(path, frames(5, size), 12.5) == 5
    report = Report()
    with Video(path) as video:
        assert video.fps == pytest.approx(12.5)
        back = list(video.frames(report))
    assert not report.counts
    assert len(back) == 5
    for index, frame in enumerate(back):
        assert frame.dtype == np.uint8
        # Both codecs may drop the last row or column of odd sizes.
        assert np.abs(np.array(frame.shape[:2]) - size).max() <= 1
        middle = frame[size[0] // 2, size[1] // 2].astype(int)
        assert np.abs(middle - (40 * index, 20, 200)).max() < 16
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_names_that_are_not_utf8_are_written_and_read(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9") / os.fsdecode(b"caf\xe9.mp4")
    assert write_video(path, frames(5), 5.0) == 5
    with Video(path) as film:
        assert len(list(film.frames(Report()))) == 5
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_frames_that_found_no_room_are_missed(tmp_path):
    whole = tmp_path / "a.mp4"
    write_video(whole, frames(20, (240, 320)), 5.0)
    _check_whole(tmp_path / "b.mp4", whole, 20)
    # Its table of frames would be at the end.
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(OSError, match=r"b\.mp4"):
        _check_whole(tmp_path / "b.mp4", cut, 20)


def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="no frame to write"):
        write_video(tmp_path / "a.mp4", iter(()), 25)
    with pytest.raises(ValueError, match="above 0, got 0"):
        write_video(tmp_path / "a.mp4", frames(1), 0)
    with pytest.raises(ValueError, match="written as .avi"):
        write_video(tmp_path / "a.wmv", frames(1), 25)
    mixed = [*frames(1), *frames(1, (20, 20))]
    with pytest.raises(ValueError, match=r"frame 1 has \(20, 20\) pixels"):
        write_video(tmp_path / "a.mp4", mixed, 25)
    assert list(tmp_path.iterdir()) == []
