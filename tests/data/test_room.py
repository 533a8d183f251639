import dataclasses
import re

import numpy as np
import pytest

from tests.data.test_cache import make_example, smooth
from tests.data.test_picture_file import small_disk
from yolojax.data import cache, pipeline, room
from yolojax.data.picture_file import CacheError
from yolojax.data.report import Report
from yolojax.data.room import NO_LIMIT, Room
from yolojax.data.sources.digits import DigitsSource

SIZE = (48, 64)


@dataclasses.dataclass
class Files:
    """Pictures on disk, without a box."""

    paths: list[str]
    class_names: tuple[str, ...] = ("a",)
    category_ids: tuple[int, ...] = (0,)
    report: Report = dataclasses.field(default_factory=Report)

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return make_example(self.paths[index], (96, 128))


@pytest.fixture
def files(tmp_path):
    """Twelve pictures of 96 x 128 that differ."""
    from yolojax.vis.draw import save_image

    (tmp_path / "data").mkdir()
    paths = [str(tmp_path / "data" / f"{k}.png") for k in range(12)]
    for k, path in enumerate(paths):
        save_image(path, np.roll(smooth(96, 128), 5 * k, axis=1))
    return Files(paths)


def read_all(store, source, keep):
    return [store.read(k, source[k], SIZE) for k in keep]


def test_what_is_told_is_near_what_a_full_cache_takes():
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
    mean = room.mean_encoded_bytes(source, np.arange(100), (48, 48))
    assert 100 * mean == pytest.approx(held, rel=0.15)
    assert f"will take about {100 * mean / 2**20:.1f} MiB" in batches.cache_note
    exact = sum(len(cache.encode(source[k], (32, 48))) for k in range(20))
    few = room.mean_encoded_bytes(source, np.arange(20), (48, 48))
    assert 20 * few == pytest.approx(exact)
    assert room.mean_encoded_bytes(source, [], (48, 48)) == 0


def test_a_cache_that_memory_cannot_hold_is_refused_with_both_figures(monkeypatch):
    source = DigitsSource(length=50)
    monkeypatch.setattr(room, "available_bytes", lambda: 100_000)
    message = (
        r"for 50 pictures at 64x64 will take about 0\.\d MiB; 100,000 bytes are free"
    )
    with pytest.raises(ValueError, match=message):
        room.CACHES["encoded"](source, range(50), (64, 64), NO_LIMIT)
    # A part of them fits, if that is what the user wants.
    _, note = room.CACHES["encoded"](source, range(50), (64, 64), Room(50_000))
    assert re.search(r"there is room for \d+%; the others are read anew", note)
    with pytest.raises(ValueError, match="config.data.cache_bytes"):
        room.CACHES["encoded"](source, range(50), (64, 64), Room(200_000))


def test_a_cache_that_the_disk_cannot_hold_is_refused_with_both_figures(
    tmp_path, files, monkeypatch
):
    usage = type("Usage", (), {"free": 10_000})
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ValueError, match="; 10,000 bytes are free.*cache_dir"):
        room.CACHES["disk"](files, range(12), SIZE, Room(folder=str(tmp_path / "c")))


def test_the_disk_cache_tells_what_it_has_and_serves_the_same_pixels(tmp_path, files):
    limits = Room(folder=str(tmp_path / "cache"))
    store, note = room.CACHES["disk"](files, range(12), SIZE, limits)
    assert f"in {tmp_path / 'cache' / 'pictures'} has 0 of 12 pictures at 48x64" in note
    first = read_all(store, files, range(8))
    store.file.close()
    store, note = room.CACHES["disk"](files, range(12), SIZE, limits)
    assert "has 8 of 12" in note
    before = store.num_bytes
    again = read_all(store, files, range(8))
    np.testing.assert_array_equal(first, again)
    assert store.num_bytes == before
    memory, _ = room.CACHES["encoded"](files, range(12), SIZE, NO_LIMIT)
    np.testing.assert_array_equal(again, read_all(memory, files, range(8)))
    store.file.close()
    _, note = room.CACHES["disk"](files, range(12), (24, 32), limits)
    assert "has 0 of 12 pictures at 24x32" in note


def test_pictures_of_other_runs_make_way_within_the_budget(tmp_path, files):
    limits = Room(folder=str(tmp_path / "cache"))
    store, _ = room.CACHES["disk"](files, range(8), SIZE, limits)
    read_all(store, files, range(8))
    budget = store.num_bytes
    store.file.close()
    limits = limits._replace(num_bytes=budget)
    store, note = room.CACHES["disk"](files, range(6, 12), SIZE, limits)
    assert "has 2 of 6" in note and "went)" in note
    pixels = read_all(store, files, range(6, 12))
    assert store.num_bytes <= budget
    assert "room for" not in note
    store.file.close()
    store, note = room.CACHES["disk"](files, range(6, 12), SIZE, limits)
    assert "has 6 of 6" in note
    np.testing.assert_array_equal(pixels, read_all(store, files, range(6, 12)))


def test_the_users_cache_folder_is_the_default_and_the_data_are_left_alone(
    tmp_path, files, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    before = sorted((tmp_path / "data").iterdir())
    store, note = room.CACHES["disk"](files, range(12), SIZE, NO_LIMIT)
    read_all(store, files, range(12))
    assert str(tmp_path / "home" / "yolojax" / "pictures") in note
    assert sorted((tmp_path / "data").iterdir()) == before


def test_a_picture_that_vanished_is_named(tmp_path, files):
    files.paths[5] = str(tmp_path / "gone.png")
    with pytest.raises(cache.ImageError, match="cannot be read any more"):
        room.CACHES["disk"](files, range(12), SIZE, Room(folder=str(tmp_path / "c")))


def test_some_memory_is_available():
    assert 2**20 < room.available_bytes() < 2**50


@pytest.mark.parametrize("threads", [1, 3])
def test_a_disk_that_fills_up_while_batches_are_made_is_an_error(
    tmp_path, files, threads
):
    with small_disk(tmp_path / "disk", 200 * 1024) as disk:
        batches = pipeline.make_train_batches(
            files,
            np.arange(12),
            image_size=SIZE,
            batch_size=2,
            max_boxes=1,
            seed=0,
            num_threads=threads,
            cache="disk",
            room=Room(folder=str(disk)),
        )
        next(batches)
        with pytest.raises(OSError):
            (disk / "other").write_bytes(bytes(200 * 1024))
        with pytest.raises(CacheError, match="No space left .*config.data.cache_dir"):
            for _ in range(6):
                next(batches)
        batches.close()
        (disk / "other").unlink()
        store, note = room.CACHES["disk"](files, range(12), SIZE, Room(0, str(disk)))
        found = int(re.findall(r"has (\d+) of 12", note)[0])
        assert 0 < found < 12
        alone = [cache.EncodedCache().read(k, files[k], SIZE) for k in range(12)]
        np.testing.assert_array_equal(read_all(store, files, range(12)), alone)
        store.file.close()
