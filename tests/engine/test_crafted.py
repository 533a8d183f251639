"""Checkpoints from elsewhere whose description asks for more memory than there is."""

import json
import shutil
import time

import pytest
import tensorstore

from tests.engine.saving import make_state, save_all
from tests.peaks import peak_kb
from tests.tiny import DESCRIPTION, tiny_config
from yolojax import class_file, experiment, inference, settings
from yolojax.engine import checkpoint, sharding
from yolojax.engine.book import Bookkeeping

HUGE = 10**12


def craft(step, name, **changes):
    """Change what the description of an array says; its digests go, as in old runs."""
    kept = {"driver": "ocdbt", "base": f"file://{step / 'state'}/"}
    store = tensorstore.KvStore.open(kept).result()
    key = f"{name}/.zarray"
    described = json.loads(store.read(key).result().value)
    store.write(key, json.dumps(described | changes).encode()).result()
    shutil.rmtree(step / "digest", ignore_errors=True)
    listed = step / "_CHECKPOINT_METADATA"
    listed.write_text(listed.read_text().replace('"digest"', '"other"'))


def refuse(action, message):
    """One message, within 5 s and 300 MB."""
    before = peak_kb()
    start = time.monotonic()
    with pytest.raises(ValueError, match=message) as caught:
        action()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1500
    assert time.monotonic() - start < 60
    after = peak_kb()
    assert after - before < 300 * 1024


def resume(workdir, mesh):
    again = checkpoint.Checkpoints(workdir, keep=2)
    try:
        again.restore(lambda step: make_state(mesh, 7))
    finally:
        again.close()


def test_a_huge_array_does_not_fit_the_config_of_a_run_that_goes_on(tmp_path):
    mesh = sharding.make_mesh(1)
    save_all(tmp_path, mesh, [0.1]).close()
    craft(tmp_path / "checkpoints" / "0", "params.head.kernel", shape=[HUGE, 3])
    message = r"checkpoint 0 does not fit the config: 1 arrays differ.*\(1000000000000"
    refuse(lambda: resume(tmp_path, mesh), message)


def test_a_huge_chunk_of_a_small_array_is_damage(tmp_path):
    mesh = sharding.make_mesh(1)
    save_all(tmp_path, mesh, [0.1]).close()
    step = tmp_path / "checkpoints" / "0"
    craft(step, "ema.params.head.kernel", chunks=[HUGE, 3])
    message = r"ema/params/head/kernel \(2, 3\) has chunks \(1000000000000, 3\)"
    refuse(lambda: resume(tmp_path, mesh), message)
    refuse(lambda: checkpoint.load_weights(step), message)


def test_arrays_of_a_run_are_no_larger_than_its_files(tmp_path):
    """As where no network is known, such as when training starts from weights."""
    save_all(tmp_path, sharding.make_mesh(1), [0.1]).close()
    step = tmp_path / "checkpoints" / "0"
    craft(step, "ema.params.head.kernel", shape=[HUGE, 3], chunks=[1000, 3])
    message = "said to have 12,000,000,000,012 bytes, but their files have"
    refuse(lambda: checkpoint.load_weights(step), message)


LISTS = {
    "null": ("null", "expected an object, got None"),
    "deep": ("[" * 10**6, "nested too deeply"),
    "empty": ("{}", "tree_metadata"),
    "list": ('{"tree_metadata": [1]}', "'list' object has no attribute"),
    "number": ('{"tree_metadata": {"a": 1}}', "object is not subscriptable"),
    "other format": ('{"use_zarr3": true, "tree_metadata": {}}', "does not write"),
    "nameless": (
        '{"tree_metadata": {"a": {"key_metadata": [], '
        '"value_metadata": {"value_type": "jax.Array"}}}}',
        "without a name",
    ),
    "many": (
        json.dumps({"tree_metadata": {str(n): 0 for n in range(20_001)}}),
        "20001 arrays are more than a network has",
    ),
}


@pytest.mark.parametrize("text, message", LISTS.values(), ids=LISTS)
def test_a_crafted_list_of_arrays_is_damage(tmp_path, text, message):
    mesh = sharding.make_mesh(1)
    save_all(tmp_path, mesh, [0.1]).close()
    step = tmp_path / "checkpoints" / "0"
    (step / "state" / "_METADATA").write_text(text)
    named = f"0.* is damaged: state/_METADATA: .*{message}"
    refuse(lambda: checkpoint.load_weights(step), named)
    refuse(lambda: resume(tmp_path, mesh), named)


@pytest.mark.parametrize(
    "progress, message",
    [
        ({"best_step": "10"}, "best_step is '10'"),
        ({"best": None}, "best is None"),
        ({"window": [1]}, r"window is \[1\]"),
        ({"window": {"loss": "a"}}, "window is {'loss': 'a'}"),
        ({"epoch": [0.0]}, r"epoch is \[0.0\]"),
        ({"pictures": 5}, "pictures is 5"),
        ({"more": 5}, "the entry 'more' is unknown"),
    ],
    ids=["text", "null", "list", "in it", "short", "number", "unknown"],
)
def test_other_types_in_the_bookkeeping_are_damage(tmp_path, progress, message):
    mesh = sharding.make_mesh(1)
    saver = checkpoint.Checkpoints(tmp_path, keep=2)
    saver.save(make_state(mesh), data={}, progress=progress)
    saver.close()
    refuse(
        lambda: resume(tmp_path, mesh), f"0 is damaged: progress/metadata: {message}"
    )
    with pytest.raises(ValueError, match=message):
        Bookkeeping.restored(progress)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A working directory with a tiny detector."""
    workdir = tmp_path_factory.mktemp("run")
    chosen = tiny_config(model={"name": "yaml", "description": DESCRIPTION})
    names = [str(number) for number in range(10)]
    model = experiment.make_model(chosen, names)
    settings.write_config(chosen, workdir)
    class_file.write_classes(names, range(10), workdir)
    checkpoint.save_weights(workdir, model.init(0))
    return workdir


def test_weights_of_another_shape_are_refused_before_they_are_read(weights, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(weights, workdir)
    inference.load(workdir)
    files = workdir / "checkpoints" / "0" / "state"
    listed = json.loads((files / "_METADATA").read_text())["tree_metadata"].values()
    paths = [[key["key"] for key in entry["key_metadata"]] for entry in listed]
    name = next(".".join(p) for p in paths if p[0] == "ema" and p[-1] == "kernel")
    craft(workdir / "checkpoints" / "0", name, shape=[HUGE, 3, 3, 16])
    refuse(lambda: inference.load(workdir), "the weights in .* do not fit yaml")
