import json
import re

import jax
import numpy as np
import pytest

from tests.tiny import tiny_config
from yolojax import class_file, converting, experiment, inference, settings
from yolojax.engine import checkpoint
from yolojax.engine.step import init_state
from yolojax.engine.warm_start import first_variables
from yolojax.models.detector import build_model
from yolojax.models.yolov5_rows import rows_of
from yolojax.trees import flatten
from yolojax.weights.mapping import to_state_dict
from yolojax.weights.published import write_published


def tiny(num_classes=10, **changes):
    given = {"width": 0.125, "depth": 0.33} | changes
    return build_model("yolov5n", num_classes=num_classes, **given)


@pytest.fixture(scope="module")
def trained():
    return tiny().init(5)


@pytest.fixture(scope="module")
def file(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    write_published(path, tiny(), trained, [f"class{i}" for i in range(10)])
    return path


@pytest.fixture(scope="module")
def workdir(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    settings.write_config(tiny_config(), path)
    class_file.write_classes([f"{i}" for i in range(10)], range(10), path)
    checkpoint.save_weights(path, trained)
    return path


def taken(found, trained):
    """The paths whose values are the trained ones."""
    found, trained = flatten(found), flatten(trained)
    return {
        path
        for path, array in found.items()
        if path in trained and np.array_equal(array, trained[path])
    }


def test_without_weights_it_starts_from_scratch():
    start = first_variables(tiny(), seed=3)
    assert taken(start.variables, tiny().init(3)) == set(flatten(start.variables))
    assert start.notes == ()


@pytest.mark.parametrize("kind", ["file", "workdir", "checkpoint"])
def test_every_kind_of_weights_is_taken_whole(kind, file, workdir, trained):
    places = {"file": file, "workdir": workdir, "checkpoint": workdir / "checkpoints/0"}
    start = first_variables(tiny(), seed=3, weights=str(places[kind]))
    assert taken(start.variables, trained) == set(flatten(trained))
    (note,) = start.notes
    count = len(flatten(trained))
    assert f"(yolov5n): {count} of {count} arrays taken, 0 fresh" in note


def test_what_is_skipped_keeps_its_fresh_values(file, trained):
    start = first_variables(
        tiny(), seed=3, weights=str(file), skip=("^head/", "backbone/stem")
    )
    # Norms start alike everywhere, so only kernels and the head's biases can differ.
    fresh = set(flatten(trained)) - taken(start.variables, trained)
    assert fresh == {"params/backbone/stem/conv/kernel"} | {
        f"params/head/level{n}/{leaf}" for n in (3, 4, 5) for leaf in ("kernel", "bias")
    }
    assert taken(start.variables, tiny().init(3)) >= fresh
    assert "11 fresh" in start.notes[0]


def test_statistics_of_skipped_parts_stay_fresh_too(trained, tmp_path):
    moved = {
        "params": trained["params"],
        "batch_stats": jax.tree.map(lambda a: a + 1, trained["batch_stats"]),
    }
    path = tmp_path / "w.safetensors"
    write_published(path, tiny(), moved, ["x"] * 10)
    start = first_variables(tiny(), seed=3, weights=str(path), skip=("^neck/",))
    statistics = start.variables["batch_stats"]
    assert all((a >= 1).all() for a in jax.tree.leaves(statistics["backbone"]))
    for name, array in flatten(statistics["neck"]).items():
        assert (array == (1 if name.endswith("var") else 0)).all()


def test_a_head_for_other_classes_is_made_anew_and_said_so(file, trained):
    model = tiny(num_classes=2)
    start = first_variables(model, seed=3, weights=str(file))
    same = taken(start.variables, trained)
    assert same == {p for p in flatten(trained) if not p.startswith("params/head/")}
    assert taken(start.variables["params"]["head"], model.init(3)["params"]["head"])
    assert "made anew: 10 classes in the weights, 2 classes here" in start.notes[1]


def test_other_anchors_are_pointed_out(file):
    model = tiny(anchors=[[[1, 2], [3, 4], [5, 6]]] * 3)
    notes = first_variables(model, seed=3, weights=str(file)).notes
    assert any("set config.model.anchors to [[[10.0, 13.0]" in note for note in notes)


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        (
            {"width": 0.25},
            [
                r"mis-shaped \(\d+\):",
                r"expected \(3, 3, 16, 32\), came \(3, 3, 8, 16\)",
            ],
        ),
        ({"depth": 0.67}, [r"missing \(\d+\): params/backbone/stage\d/block\d"]),
    ],
)
def test_other_misfits_are_one_error_that_lists_them(changes, messages, file):
    with pytest.raises(ValueError) as caught:
        first_variables(tiny(**changes), seed=3, weights=str(file))
    for message in messages:
        assert re.search(message, str(caught.value))
    few = "config.init.skip keeps parameters fresh" in str(caught.value)
    assert few == ("depth" in changes)


def test_weights_of_another_network_are_counted_and_not_listed(file):
    other = build_model(
        "yaml", num_classes=2, description=WITHOUT_NORMALISATION["yaml"]
    )
    path = file.with_name("other.safetensors")
    write_published(path, other, other.init(0), ("a", "b"))
    with pytest.raises(ValueError) as caught:
        first_variables(tiny(), seed=3, weights=str(path))
    message, count = str(caught.value), len(flatten(tiny().shapes()))
    assert f"0 of {count} arrays do; this is another network than" in message
    assert "set config.model to that of the weights (yaml)" in message
    assert "config.init.skip" not in message
    # A head and one convolution: a kernel and a bias each.
    for part in (f"missing ({count}):", f", and {count - 3} more", "unused (4):"):
        assert part in message
    assert len(message.splitlines()) == 1


def test_unused_arrays_are_named_unless_their_part_is_skipped(tmp_path, file):
    deep = tiny(depth=0.67)
    path = tmp_path / "w.safetensors"
    write_published(path, deep, deep.init(0), ["x"] * 10)
    with pytest.raises(ValueError, match=r"unused \(\d+\):"):
        first_variables(tiny(), seed=3, weights=str(path))
    skip = ("/stage", "top_down", "bottom_up")
    assert first_variables(tiny(), seed=3, weights=str(path), skip=skip).notes


def test_wrong_skips_and_files_are_named(file):
    with pytest.raises(ValueError, match="'haed' matches no parameter; paths start wi"):
        first_variables(tiny(), seed=3, weights=str(file), skip=("haed",))
    with pytest.raises(ValueError, match="skip is given without config.init.weights"):
        first_variables(tiny(), seed=3, skip=("^head/",))
    with pytest.raises(ValueError, match="no weights at .*nothing"):
        first_variables(tiny(), seed=3, weights="nothing")


def test_a_run_that_goes_on_does_not_read_them(workdir):
    start = first_variables(tiny(), seed=3, weights="gone.pt", workdir=workdir)
    assert start.notes == ()


def test_the_first_state_and_its_average_are_the_trained_weights(file, trained):
    run = experiment.build(tiny_config(init__weights=str(file)))
    state = run.initial_state()
    for tree in (state.ema, {"params": state.params, "batch_stats": state.batch_stats}):
        assert taken(jax.device_get(tree), trained) == set(flatten(trained))


def test_an_older_run_without_the_key_still_goes_on(tmp_path):
    chosen = tiny_config()
    settings.write_config(chosen, tmp_path)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    del content["init"]
    path.write_text(json.dumps(content))
    settings.write_config(chosen, tmp_path)
    with pytest.raises(ValueError, match="another config: init.weights was"):
        settings.write_config(tiny_config(init__weights="x.pt"), tmp_path)


@pytest.mark.parametrize("described_first", [False, True])
def test_a_yolov5_fits_its_own_description_and_the_reverse(described_first, tmp_path):
    by_name = build_model("yolov5n", num_classes=3, width=0.0625, depth=0.1)
    by_rows = build_model(
        "yaml",
        num_classes=3,
        description=json.dumps(rows_of(by_name.spec)),
    )
    source, target = (by_rows, by_name) if described_first else (by_name, by_rows)
    variables, path = source.init(3), tmp_path / "a.safetensors"
    write_published(path, source, variables, ("a", "b", "c"))
    start = first_variables(target, seed=0, weights=str(path))
    state, again = (
        to_state_dict(model, leaves)
        for model, leaves in ((source, variables), (target, start.variables))
    )
    assert set(state) == set(again)
    for name, array in state.items():
        np.testing.assert_array_equal(array, again[name], err_msg=name)
    assert "0 fresh" in start.notes[0]


WITHOUT_NORMALISATION = {
    "yaml": """
nc: 2
anchors: [[10, 14]]
backbone: [[-1, 1, nn.Conv2d, [8, 2, 2]]]
head: [[[-1], 1, Detect, [nc, anchors]]]
""",
    "darknet": """
[net]
[convolutional]
filters=8
stride=2
activation=leaky
[convolutional]
filters=7
activation=linear
[yolo]
anchors=10,14
classes=2
""",
}


@pytest.mark.parametrize("name", WITHOUT_NORMALISATION)
def test_a_network_without_normalisation_is_kept_and_started_from(name, tmp_path):
    text = WITHOUT_NORMALISATION[name]
    model = build_model(name, num_classes=2, description=text)
    variables = model.init(3)
    assert variables["batch_stats"] == {}
    path = tmp_path / f"x.{'weights' if name == 'darknet' else 'safetensors'}"
    write_published(path, model, variables, ("a", "b"))
    converting.convert(path, tmp_path / "run")
    assert inference.load(tmp_path / "run").variables["batch_stats"] == {}
    for weights in (path, tmp_path / "run"):
        start = first_variables(model, seed=0, weights=str(weights)).variables
        for leaf, array in flatten(variables).items():
            np.testing.assert_array_equal(flatten(start)[leaf], array, err_msg=leaf)
    optimizer = experiment.make_optimizer(tiny_config(), model, 1)
    assert init_state(start, optimizer).batch_stats == {}
