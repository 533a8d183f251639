"""Whole runs with each cache: labels edited, killed and resumed, two at once."""

import dataclasses
import os
import signal
import subprocess
import time

import cv2
import jax
import numpy as np
import pytest

from tests.test_training import command, environment, final_arrays, without_clock
from tests.tiny import tiny_config
from yolojax import experiment
from yolojax.engine.log import read_metrics

CACHES = ("none", "encoded", "disk", "device")
CONFIG = """
from ml_collections import ConfigDict
def get_config():
    return ConfigDict({settings!r})
"""


def write_data(folder, count=24, size=(80, 96)):
    """Smooth PNGs of their own, a box or two each."""
    rng = np.random.default_rng(0)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for k in range(count):
        coarse = rng.integers(0, 256, (8, 10, 3), np.uint8)
        picture = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
        assert cv2.imwrite(str(folder / "images" / f"{k}.png"), picture)
        rows = [
            f"{rng.integers(3)} {x:.3f} {y:.3f} .3 .3" for x, y in rng.random((2, 2))
        ]
        (folder / "labels" / f"{k}.txt").write_text("\n".join(rows[: 1 + k % 2]))
    (folder / "data.yaml").write_text("train: images\nnames: [a, b, c]\n")


def settings_of(folder, cache, **changes):
    return tiny_config(
        data__train={"source": "yolo", "yaml": str(folder / "data.yaml")},
        data__val={},
        data__cache=cache,
        model__num_classes=3,
        **changes,
    )


def epoch_of(run):
    """Pictures and boxes by index, over an epoch."""
    feed = run.feed()
    feed.fill(None)
    found = {}
    for _ in range(run.steps_per_epoch):
        batch = feed.put(next(feed.batches))
        rows = getattr(batch, "rows", np.arange(8))
        batch = jax.tree.map(np.asarray, getattr(batch, "pictures", batch))
        for row in np.asarray(rows).tolist():
            boxes = batch.boxes[row][batch.valid[row]]
            found[int(batch.image_id[row])] = (batch.image[row], boxes)
    feed.batches.close()
    return found


@pytest.mark.parametrize("cache", CACHES)
def test_labels_that_changed_between_runs_are_seen_at_once(tmp_path, cache):
    write_data(tmp_path / "data", count=8)
    chosen = settings_of(
        tmp_path / "data", cache, data__cache_dir=str(tmp_path / "cache")
    )
    before = epoch_of(experiment.build(chosen, workdir=tmp_path))
    label = tmp_path / "data" / "labels" / "3.txt"
    stamp = label.stat().st_mtime_ns
    label.write_text("1 0.5 0.5 0.25 0.5")
    # Also where the time of the change does not tell, nor a length.
    os.utime(label, ns=(stamp, stamp))
    after = epoch_of(experiment.build(chosen, workdir=tmp_path))
    # 80 x 96 pixels at 53 x 64.
    expected = [[24.0, 0.25 * 53, 40.0, 0.75 * 53]]
    np.testing.assert_allclose(after[3][1], expected, rtol=1e-5)
    for k in range(8):
        np.testing.assert_array_equal(before[k][0], after[k][0])
        assert np.array_equal(before[k][1], after[k][1]) == (k != 3)


def start(tmp_path, config, workdir, *options, devices=1):
    flags = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        command("train", "--config", config, "--workdir", workdir, *options),
        env={**environment(tmp_path), "XLA_FLAGS": flags},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )


def finish(process):
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return output


def assert_same_bits(one, other):
    (step, arrays), (other_step, other_arrays) = map(final_arrays, (one, other))
    assert step == other_step
    jax.tree.map(np.testing.assert_array_equal, arrays, other_arrays)
    rows = [without_clock(read_metrics(workdir)) for workdir in (one, other)]
    assert rows[0] == rows[1]


def write_config(tmp_path, cache, devices, **changes):
    write_data(tmp_path / "data")
    path = tmp_path / "config.py"
    chosen = settings_of(
        tmp_path / "data",
        cache,
        devices=devices,
        epochs=6,
        checkpoint__every_steps=2,
        log__every_steps=1,
        log__tensorboard=False,
        **changes,
    )
    path.write_text(CONFIG.format(settings=chosen))
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    "cache, devices, sampling",
    [
        ("disk", 1, dict(name="shuffle")),
        ("device", 1, dict(name="shuffle")),
        ("disk", 4, dict(name="shuffle")),
        ("device", 4, dict(name="shuffle")),
        ("disk", 1, dict(name="image_weighted", by="loss")),
        ("device", 4, dict(name="image_weighted", by="loss")),
    ],
)
def test_a_killed_run_resumed_ends_with_the_same_bits(
    tmp_path, cache, devices, sampling
):
    """SIGKILL in the first epoch, which is also half-way through building the cache.

    And in the midst of a later one, whose pictures may go by the losses at its start.
    """
    config = write_config(tmp_path, cache, devices, data__sampling=sampling)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    own, other = (f"--config.data.cache_dir={tmp_path / name}" for name in "ab")
    output = finish(start(tmp_path, config, whole, own, devices=devices))
    assert f"cache '{cache}'" in output
    for last in (1, 13):
        process = start(tmp_path, config, killed, other, devices=devices)
        while process.poll() is None:
            rows = read_metrics(killed)
            if rows and rows[-1]["step"] >= last:
                process.send_signal(signal.SIGKILL)
                process.wait()
            time.sleep(0.005)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    output = finish(start(tmp_path, config, killed, other, devices=devices))
    assert "going on from step" in output
    assert_same_bits(whole, killed)
    saved = [path.read_text() for path in killed.glob("checkpoints/*/data/*")]
    by_loss = sampling.get("by") == "loss"
    assert any('"losses": "e' in text for text in saved) == by_loss


@pytest.mark.slow
def test_two_runs_that_build_one_disk_cache_at_once_end_with_the_same_bits(tmp_path):
    config = write_config(tmp_path, "disk", 1)
    workdirs = [tmp_path / name for name in ("alone", "one", "other")]
    own, shared = (f"--config.data.cache_dir={tmp_path / name}" for name in "ab")
    finish(start(tmp_path, config, workdirs[0], own))
    both = [start(tmp_path, config, workdir, shared) for workdir in workdirs[1:]]
    for process in both:
        finish(process)
    for workdir in workdirs[1:]:
        assert_same_bits(workdirs[0], workdir)
    output = finish(start(tmp_path, config, tmp_path / "more", shared))
    assert "has 24 of 24 pictures" in output


@pytest.mark.slow
@pytest.mark.parametrize(
    "cache, option, message",
    [
        ("disk", "--config.data.cache_dir=data/data.yaml", "config.data.cache_dir"),
        ("device", "--config.data.cache_bytes=2", "allows 2 bytes: it does not fit"),
    ],
)
def test_a_refused_cache_is_one_message_and_then_another_may_be_chosen(
    tmp_path, cache, option, message
):
    config = write_config(tmp_path, cache, 1)
    # A folder in a file cannot be made; for the device a byte is not enough.
    process = start(tmp_path, config, "run", option)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 2
    assert message in errors and "Traceback" not in errors
    config.write_text(config.read_text().replace(f"'{cache}'", "'none'"))
    finish(start(tmp_path, config, "run"))


def jpeg_data(folder):
    """JPEGs of the training size that the encoded caches keep as they are."""
    write_data(folder, size=(64, 64))
    for path in (folder / "images").iterdir():
        picture = cv2.imread(str(path))
        path.unlink()
        quality = [cv2.IMWRITE_JPEG_QUALITY, 80]
        assert cv2.imwrite(str(path.with_suffix(".jpg")), picture, quality)
        assert path.with_suffix(".jpg").stat().st_size <= 64 * 64 * 3 / 6


def stream_of(run, cache, **changes):
    """Three epochs of the host's batches, and what the cache says."""
    data = {**run.settings["data"], "cache": cache, **changes}
    run = dataclasses.replace(run, settings={**run.settings, "data": data})
    feed = run.feed()
    batches = [next(feed.batches) for _ in range(3 * run.steps_per_epoch)]
    feed.batches.close()
    return jax.tree.map(lambda *x: np.stack(x), *batches), feed.note


def assert_equal_streams(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_no_cache_encoded_and_disk_give_the_same_batches_to_the_bit(tmp_path):
    """Of JPEGs that need no shrinking, whose own bytes are kept."""
    jpeg_data(tmp_path)
    run = experiment.build(settings_of(tmp_path, "none"))
    none, _ = stream_of(run, "none")
    encoded, _ = stream_of(run, "encoded")
    assert_equal_streams(none, encoded)
    folder = str(tmp_path / "cache")
    for has in (0, 24):
        disk, note = stream_of(run, "disk", cache_dir=folder)
        assert f"has {has} of 24" in note
        assert_equal_streams(none, disk)


def test_encoded_and_disk_give_the_same_batches_whatever_they_hold(tmp_path):
    """Of pictures that are shrunk, and so encoded: empty, full, and with little room.

    Without a cache these differ from them, by what JPEG loses.
    """
    write_data(tmp_path)
    run = experiment.build(settings_of(tmp_path, "none"))
    encoded, _ = stream_of(run, "encoded")
    few, note = stream_of(run, "encoded", cache_bytes=5000)
    assert "the others are read anew" in note
    assert_equal_streams(encoded, few)
    folder = str(tmp_path / "cache")
    for has in (0, 24):
        disk, note = stream_of(run, "disk", cache_dir=folder)
        assert f"has {has} of 24" in note
        assert_equal_streams(encoded, disk)
    none, _ = stream_of(run, "none")
    difference = np.abs(none.image.astype(int) - encoded.image)
    assert 0 < difference.mean() < 4
    np.testing.assert_array_equal(none.boxes, encoded.boxes)


def test_outlines_of_the_labels_reach_the_step_with_every_cache(tmp_path):
    write_data(tmp_path, count=8)
    for path in (tmp_path / "labels").iterdir():
        path.write_text("2 .25 .25 .75 .25 .5 .75")
    chosen = settings_of(tmp_path, "none")
    chosen["data"]["train"] |= {"polygons": True}
    run = experiment.build(chosen)
    assert run.num_edges == 8
    # 80 x 96 pixels at 53 x 64.
    corners = np.float32([[16, 13.25], [48, 13.25], [32, 39.75]])
    for cache in ("none", "encoded", "device"):
        data = {**chosen["data"], "cache": cache}
        feed = dataclasses.replace(run, settings={**chosen, "data": data}).feed()
        feed.fill(None)
        batch = feed.put(next(feed.batches))
        outlines = np.asarray(getattr(batch, "pictures", batch).polygons)
        feed.batches.close()
        assert outlines.shape == (8, run.max_boxes, 8, 4)
        np.testing.assert_allclose(outlines[3, 0, :3, :2], corners, atol=1e-4)
        np.testing.assert_array_equal(outlines[:, 0, 3:, :2], outlines[:, 0, 3:, 2:])
