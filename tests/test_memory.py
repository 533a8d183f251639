"""The batch that fits, from a faked and from the compiler's memory."""

import math
import re

import pytest

from tests.tiny import tiny_config
from yolojax import experiment, memory, sizing
from yolojax import settings as config
from yolojax.engine import device_cache, sharding
from yolojax.memory import Choice, StepMemory, choose_batch

MIB = 2**20
# One convolution and a head, so that it compiles in no time.
DESCRIPTION = """
nc: 10
depth_multiple: 1.0
width_multiple: 1.0
anchors: [[8, 8]]
backbone: [[-1, 1, Conv, [8, 3, 4]]]
head: [[[0], 1, Detect, [nc, anchors]]]
"""


def convex(fixed=100.0, floor=150.0, slope=10.0):
    """Bytes by batch: the larger of two phases, the second rising with the batch."""
    return lambda batch: max(floor, fixed + slope * batch)


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("budget", [1000, 123, 151, 5000])
def test_the_largest_fitting_batch_is_found_exactly_on_a_line(devices, budget):
    measured = []

    def measure(batch):
        measured.append(batch)
        return 100 + 2 * batch / devices

    found = choose_batch(measure, budget=budget, devices=devices, most=9999)
    assert found.batch_size == (budget - 100) // 2 * devices
    assert found.num_bytes == 100 + found.batch_size / devices * 2 <= budget
    assert len(set(measured)) == len(measured) <= 3
    assert found.measured == tuple(measured)


@pytest.mark.parametrize("floor", [100, 150, 200, 400])
def test_a_step_that_is_its_largest_phase_never_gets_more_than_fits(floor):
    measure = convex(floor=floor)
    for budget in range(max(floor, 110) + 60, 3000, 173):
        found = choose_batch(measure, budget=budget)
        best = max(n for n in range(1, 400) if measure(n) <= budget)
        assert measure(found.batch_size) <= budget
        assert len(found.measured) <= 3
        # With a kink beyond the small batches the line is not quite that of the end.
        assert found.batch_size >= (best if floor <= 140 else 0.4 * best)


def test_a_batch_has_no_more_pictures_than_there_are():
    measure = convex()
    assert choose_batch(measure, budget=1e9, most=50).batch_size == 50
    assert choose_batch(measure, budget=1e9, devices=4, most=50).batch_size == 48
    for most in (1, 2, 3, 4, 5, 7):
        assert choose_batch(measure, budget=1e9, most=most).batch_size == most
    # Memory that does not depend on the batch gives no slope.
    assert choose_batch(lambda batch: 7.0, budget=100, most=50).batch_size == 50


def test_where_the_data_are_not_read_a_batch_has_an_end():
    for devices in (1, 2):
        found = choose_batch(lambda batch: 7.0, budget=1e9, devices=devices)
        assert found.batch_size == 1024 * devices


def test_what_only_fits_in_small_is_interpolated_from_one_picture():
    # 1, 4 and 8 pictures: 110, 140 and 180.
    assert choose_batch(convex(floor=0), budget=139).batch_size == 3
    assert choose_batch(convex(floor=0), budget=179) == Choice(7, 170.0, (4, 8))
    assert choose_batch(convex(floor=0), budget=110) == Choice(1, 110.0, (4, 1))


def test_a_picture_that_does_not_fit_is_an_error_with_the_way_out():
    with pytest.raises(ValueError, match=r"4 picture\(s\).*needs 110 MiB.*100 MiB"):
        choose_batch(lambda b: (100 + 10 * b / 4) * MIB, budget=100 * MIB, devices=4)
    with pytest.raises(ValueError, match="Lower config.image_size"):
        choose_batch(convex(), budget=1)


def test_a_cpu_has_less_than_is_free_and_says_so(monkeypatch):
    monkeypatch.setattr(device_cache, "available_bytes", lambda: 4000)
    for devices, expected in ((1, 3200), (4, 800)):
        free, text = memory.room(sharding.make_mesh(devices))
        assert free == expected
        assert "assumed: 80% of this machine's free memory" in text
        assert ("over its 4 devices" in text) == (devices == 4)


def test_a_device_that_says_what_it_has_is_believed(monkeypatch):
    class Device:
        def memory_stats(self):
            return {"bytes_limit": 1000, "bytes_in_use": 250}

    class Mesh:
        local_devices = [Device()]

    assert memory.room(Mesh()) == (750, "free on the device")  # type: ignore[arg-type]


@pytest.fixture
def faked(monkeypatch):
    """A machine with 1,000 MiB, and steps of 100 MiB and 50 more a picture."""
    asked = []

    def step_memory(settings, model, mesh, **_):
        asked.append(settings["batch_size"])
        each = settings["batch_size"] // mesh.devices.size
        return StepMemory(60 * MIB, 20 * MIB, 20 * MIB, 0, 50 * MIB * each)

    monkeypatch.setattr(memory, "step_memory", step_memory)
    monkeypatch.setattr(memory, "room", lambda mesh: (1000 * MIB, "free, in a test"))
    return asked


def test_auto_becomes_a_number_that_decides_the_run(faked, tmp_path):
    chosen = tiny_config(
        batch_size="auto", optim__nominal_batch=64, init__statistics="batches"
    )
    run = experiment.build(chosen, workdir=tmp_path)
    # 0.9 * 1000 MiB hold 100 and 16 * 50.
    assert run.settings["batch_size"] == 16 and faked == [4, 8, 16]
    assert run.steps_per_epoch == math.ceil(24 / 16) and run.total_steps == 4
    assert chosen["batch_size"] == "auto"
    text = "\n".join(run.notes)
    assert "config.batch_size = 16 (auto)" in text and "1,000 MiB free, in a" in text
    assert "4 batches make an optimiser step of 64 pictures, as config" in text

    # The run goes on with its number, whatever the machine says then.
    config.write_config(run.settings, tmp_path)
    faked.clear()
    again = experiment.build(chosen, workdir=tmp_path)
    assert again.settings == run.settings and not faked and not again.notes
    config.check_config(again.settings, tmp_path)


def test_devices_share_and_number_of_pictures_limit_the_batch(faked):
    build = experiment.build
    run = build(tiny_config(batch_size="auto:0.5", devices=1))
    assert run.settings["batch_size"] == 8
    run = build(tiny_config(batch_size="auto", devices=4))
    # 16 for each of four would be more than the 24 pictures.
    assert run.settings["batch_size"] == 24
    assert "all pictures of an epoch" in run.notes[0]
    few = {"source": "digits", "split": "train", "size": 64, "length": 3}
    with pytest.raises(ValueError, match=r"3 picture\(s\) are fewer than 4 devices"):
        build(tiny_config(batch_size="auto", devices=4, data__train=few))


@pytest.mark.slow
def test_pictures_kept_on_the_device_take_their_share(faked, monkeypatch):
    free = 900 * MIB + 24 * 64 * 64 * 3
    monkeypatch.setattr(memory, "room", lambda mesh: (free, "free"))
    for cache, expected in (("none", 16), ("device", 15)):
        chosen = tiny_config(batch_size="auto:1", data__cache=cache)
        assert experiment.build(chosen).settings["batch_size"] == expected


@pytest.mark.parametrize(
    "batch_size, nominal, expected",
    [
        (64, 64, "each batch makes an optimiser step of 64 pictures, as config.optim"),
        (24, 64, "3 batches make an optimiser step of 72 pictures .*counts 1.12 times"),
        (
            256,
            64,
            "step of 256 pictures.* 4.00 times.*stays 0.01, which may be too low",
        ),
    ],
)
def test_what_a_batch_means_for_the_optimiser_is_said(batch_size, nominal, expected):
    chosen = tiny_config(batch_size=batch_size, optim__nominal_batch=nominal)
    assert re.search(expected, memory.consequences(chosen))


@pytest.mark.parametrize("value", ["autp", "auto:0", "auto:2", "auto:", "1.5", "-4"])
def test_other_words_than_auto_are_errors(value):
    with pytest.raises(ValueError, match="config.batch_size must be a number, 'auto'"):
        tiny_config(batch_size=value)


def test_numbers_may_be_text_as_a_command_line_gives_them():
    assert tiny_config(batch_size="32")["batch_size"] == 32
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        tiny_config(batch_size="0")


@pytest.mark.slow
def test_info_says_what_a_step_needs_before_anything_runs():
    small = {"batch_size": 2, "image_size": (32, 32), "augment__policy": ()}
    network = {"name": "yaml", "description": DESCRIPTION, "num_classes": 10}
    chosen = tiny_config(**small, optim__name="adam", model=network)
    model = experiment.make_model(chosen)
    mesh = experiment.make_mesh(chosen)
    found = memory.step_memory(chosen, model, mesh, max_boxes=4)
    shapes = model.shapes()
    numbers = [sum(math.prod(x.shape) for x in leaves(shapes[k])) for k in shapes]
    params, stats = numbers
    assert found.parameters == found.averages == 4 * (params + stats)
    # Two moments, the sum of four small batches, and some counters.
    assert 3 * 4 * params <= found.optimizer <= 3 * 4 * params + 64
    rows = 32 * 32 * 3 + 4 * (16 + 4 + 1) + 8 + 4 + 16
    assert found.pictures == 2 * rows
    # At least what the convolution leaves.
    assert found.temporaries > 2 * 8 * 8 * 8 * 4
    assert found.total == sum(
        (found.parameters, found.averages, found.optimizer, found.pictures)
    ) + (found.temporaries)


def leaves(tree):
    if not isinstance(tree, dict):
        return [tree]
    return [leaf for value in tree.values() for leaf in leaves(value)]


def test_the_table_names_all_parts(faked):
    text = sizing.describe_memory(tiny_config(batch_size="auto"))
    assert "config.batch_size = 16 (auto)" in text
    assert "a training step with 16 pictures on 1 device(s) needs of each:" in text
    lines = dict(re.findall(r"^(\S.+?) {2,}([\d,.]+) MiB$", text, re.MULTILINE))
    assert lines == {
        "parameters": "60.0",
        "averages": "20.0",
        "optimiser": "20.0",
        "pictures": "0.0",
        "activations": "800.0",
        "in all": "900.0",
    }
