import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore

from tests.engine.saving import make_state, save_all
from yolojax.engine import checkpoint, sharding, step_folder


def test_state_comes_back_bit_for_bit_on_other_devices(tmp_path):
    saver = save_all(tmp_path, sharding.make_mesh(4), [0.5])
    saver.close()
    one = sharding.make_mesh(1)
    again = checkpoint.Checkpoints(tmp_path, keep=2)
    found = again.restore(lambda step: make_state(one, 7))
    again.close()
    assert found is not None
    expected = make_state(one, 0)
    jax.tree.map(np.testing.assert_array_equal, found.state, expected)
    same = jax.tree.map(lambda a, b: a.sharding == b.sharding, found.state, expected)
    assert all(jax.tree.leaves(same))
    assert found.data == {"position": 0}
    assert found.progress["window"] == {"loss": 0.1}


def test_the_latest_two_and_the_best_are_kept_and_the_best_is_loaded(tmp_path):
    save_all(tmp_path, sharding.make_mesh(1), [0.1, 0.5, 0.3, 0.2, 0.4]).close()
    steps = {int(p.name) for p in (tmp_path / "checkpoints").iterdir()}
    assert steps == {10, 30, 40}
    config, variables, step = checkpoint.load_weights(tmp_path)
    assert (config, step) == ({"seed": 3}, 10)
    np.testing.assert_array_equal(
        variables["params"]["head"]["kernel"], np.full((2, 3), np.float32(10 + 1 / 3))
    )
    assert checkpoint.load_weights(tmp_path / "checkpoints" / "40")[2] == 40


def test_a_resumed_run_still_keeps_the_best(tmp_path):
    mesh = sharding.make_mesh(1)
    save_all(tmp_path, mesh, [0.1, 0.5, -1.0]).close()
    again = checkpoint.Checkpoints(tmp_path, keep=2)
    for step in (30, 40, 50):
        again.save(make_state(mesh, step), data={}, progress={"best_step": 10})
    again.close()
    steps = {int(p.name) for p in (tmp_path / "checkpoints").iterdir()}
    assert steps == {10, 40, 50}
    assert checkpoint.load_weights(tmp_path)[2] == 10


def test_no_checkpoint_restores_nothing(tmp_path):
    saver = checkpoint.Checkpoints(tmp_path, keep=1)
    assert saver.restore(lambda step: make_state(sharding.make_mesh(1))) is None
    saver.close()


def test_a_cut_off_checkpoint_is_passed_over(tmp_path):
    mesh = sharding.make_mesh(1)
    save_all(tmp_path, mesh, [0.1]).close()
    # What a killed writer leaves: a folder that never got its final name.
    (tmp_path / "checkpoints" / "10.orbax-checkpoint-tmp-1").mkdir()
    again = checkpoint.Checkpoints(tmp_path, keep=2)
    assert again.latest_step() == 0
    again.close()


def test_another_model_is_an_error_that_names_the_arrays(tmp_path):
    mesh = sharding.make_mesh(1)
    save_all(tmp_path, mesh, [0.1]).close()
    other = make_state(mesh)
    other = other._replace(params={"head": {"kernel": jnp.zeros((2, 4))}})
    other = sharding.put_replicated(other, mesh)
    again = checkpoint.Checkpoints(tmp_path, keep=2)
    with pytest.raises(ValueError, match=r"1 arrays differ.*kernel.*\(2, 3\).*\(2, 4"):
        again.restore(lambda step: other)
    again.close()


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(ValueError, match="no such file or folder"):
        checkpoint.load_weights(tmp_path / "nothing")
    with pytest.raises(ValueError, match="expected a working directory"):
        checkpoint.load_weights(tmp_path)


def files_of(step):
    return sorted(path for path in step.rglob("*") if path.is_file())


def restored(workdir, mesh):
    again = checkpoint.Checkpoints(workdir, keep=2)
    try:
        return again.restore(lambda step: make_state(mesh, 7))
    finally:
        again.close()


def test_a_damaged_best_checkpoint_is_one_message_that_names_the_others(tmp_path):
    save_all(tmp_path, sharding.make_mesh(1), [0.1, 0.5]).close()
    for path in files_of(tmp_path / "checkpoints" / "10" / "state"):
        path.write_bytes(path.read_bytes()[:7])
    message = r"checkpoint 10 in .* is damaged: state.*the others are \[0\].*/0$"
    with pytest.raises(ValueError, match=message):
        checkpoint.load_weights(tmp_path)
    # One that was asked for by its step is not replaced by another.
    with pytest.raises(ValueError, match=message):
        checkpoint.load_weights(tmp_path / "checkpoints" / "10")
    assert checkpoint.load_weights(tmp_path / "checkpoints" / "0")[2] == 0


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


DAMAGE = {
    "progress cut": ("progress/metadata", cut, "progress/metadata: not JSON"),
    "progress empty": (
        "progress/metadata",
        empty,
        "progress/metadata: the file is emp",
    ),
    "progress null": (
        "progress/metadata",
        lambda path: path.write_text("null"),
        "progress/metadata: expected an object, got None",
    ),
    "progress deep": (
        "progress/metadata",
        lambda path: path.write_text("[" * 100_000),
        "progress/metadata: nested too deeply",
    ),
    "progress changed": (
        "progress/metadata",
        lambda path: path.write_text('{"best_step": 0}'),
        "progress/metadata differs from its digest",
    ),
    "data gone": ("data/metadata", os.unlink, "data/metadata: No such file"),
    "data a list": (
        "data/metadata",
        lambda path: path.write_text("[1]"),
        "data/metadata: expected an object",
    ),
    "digest cut": ("digest/metadata", cut, "digest/metadata: not JSON"),
    "digest empty": ("digest/metadata", empty, "digest/metadata: the file is empty"),
    "digest of others": (
        "digest/metadata",
        lambda path: path.write_text(path.read_text().replace("[3]", "[4]")),
        "digest/metadata differs from its own digest",
    ),
    "tree cut": ("state/_METADATA", cut, "state"),
    "tree gone": ("state/_METADATA", os.unlink, "state"),
    "manifest empty": ("state/manifest.ocdbt", empty, "state/manifest.ocdbt"),
    "manifest gone": ("state/manifest.ocdbt", os.unlink, "state"),
}


@pytest.mark.parametrize("name, damage, message", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_taken(
    tmp_path, name, damage, message
):
    mesh = sharding.make_mesh(1)
    save_all(tmp_path, mesh, [0.1, 0.2, 0.3]).close()
    folder = tmp_path / "checkpoints"
    damage(folder / "20" / name)
    found = restored(tmp_path, mesh)
    assert int(found.state.step) == 10 and found.data == {"position": 1}
    jax.tree.map(np.testing.assert_array_equal, found.state, make_state(mesh, 10))
    (note,) = found.notes
    assert note.startswith(f"checkpoint 20 is damaged: {message}")
    assert "checkpoints/20.damaged" in note and "step 10" in note
    # Its place is free, and the run comes to the same step once more.
    assert {path.name for path in folder.iterdir()} == {"10", "20.damaged"}
    again = checkpoint.Checkpoints(tmp_path, keep=2)
    again.save(make_state(mesh, 20), data={}, progress={"best_step": 20})
    again.close()
    assert int(restored(tmp_path, mesh).state.step) == 20
    assert (folder / "20.damaged").is_dir()


def test_a_changed_array_is_named(tmp_path):
    """Stored as it would be stored if it had been written: only the digest knows."""
    mesh = sharding.make_mesh(1)
    save_all(tmp_path, mesh, [0.1, 0.2]).close()
    state = tmp_path / "checkpoints" / "10" / "state"
    store = tensorstore.open(
        {
            "driver": "zarr",
            "kvstore": {
                "driver": "ocdbt",
                "base": f"file://{state}/",
                "path": "ema.params.head.kernel/",
            },
        }
    ).result()
    store[1, 2].write(np.float32(7)).result()
    message = "state: the array ema/params/head/kernel differs from its digest"
    with pytest.raises(ValueError, match=f"checkpoint 10 in .* is damaged: {message}"):
        checkpoint.load_weights(tmp_path)
    found = restored(tmp_path, mesh)
    assert int(found.state.step) == 0 and message in found.notes[0]


def test_all_damaged_is_one_message(tmp_path):
    mesh = sharding.make_mesh(1)
    save_all(tmp_path, mesh, [0.1, 0.2]).close()
    for step in ("0", "10"):
        empty(tmp_path / "checkpoints" / step / "data" / "metadata")
    with pytest.raises(ValueError, match="no checkpoint can be read.*10 is damaged"):
        restored(tmp_path, mesh)
    # Nothing was renamed: a copy of the file can be put back.
    steps = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert steps == {"0", "10"}


def test_a_checkpoint_without_digests_is_read_with_a_note(tmp_path):
    mesh = sharding.make_mesh(1)
    save_all(tmp_path, mesh, [0.1]).close()
    step = tmp_path / "checkpoints" / "0"
    (step / "digest" / "metadata").unlink()
    for path in files_of(step / "digest"):
        path.unlink()
    (step / "digest").rmdir()
    # The list of items knows of digests, so that they are missing.
    with pytest.raises(ValueError, match="0 is damaged: digest is missing"):
        restored(tmp_path, mesh)
    described = step / "_CHECKPOINT_METADATA"
    described.write_text(described.read_text().replace('"digest"', '"metrics"'))
    found = restored(tmp_path, mesh)
    assert int(found.state.step) == 0
    assert "checkpoint 0 has no digests" in found.notes[0]


STRAYS = ("00012", "-5", "7.5", "lost+found", "40.tmp", "٣", "9" * 40)


def test_other_files_and_folders_neither_block_nor_vanish(tmp_path):
    mesh = sharding.make_mesh(1)
    save_all(tmp_path, mesh, [0.1, 0.5]).close()
    folder = tmp_path / "checkpoints"
    for name in STRAYS:
        (folder / name).mkdir()
        (folder / name / "notes.txt").write_text("mine")
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / "99").write_text("a file")
    (folder / "98").mkdir()
    (folder / "20").mkdir()
    (folder / "20" / "notes.txt").write_text("mine")
    (folder / "97").symlink_to(folder / "nothing")
    assert step_folder.steps_in(folder) == [0, 10]
    assert checkpoint.load_weights(tmp_path)[2] == 10
    assert int(restored(tmp_path, mesh).state.step) == 10
    again = checkpoint.Checkpoints(tmp_path, keep=1)
    assert again.latest_step() == 10
    for step in (20, 30):
        again.save(make_state(mesh, step), data={}, progress={"best_step": 0})
    again.close()
    assert step_folder.steps_in(folder) == [0, 30]
    for name in (*STRAYS, "20.old"):
        assert (folder / name / "notes.txt").read_text() == "mine"
    there = {path.name for path in folder.iterdir()}
    assert {".DS_Store", "99", "98", "97"} < there


def test_a_run_that_was_killed_while_it_removed_a_checkpoint_is_cleared(tmp_path):
    save_all(tmp_path, sharding.make_mesh(1), [0.1]).close()
    folder = tmp_path / "checkpoints"
    for name in ("10.removed", "20.orbax-checkpoint-tmp", "0.orbax-checkpoint-tmp-77"):
        (folder / name / "state").mkdir(parents=True)
    (folder / "mine.removed").mkdir()
    checkpoint.Checkpoints(tmp_path, keep=1).close()
    assert {path.name for path in folder.iterdir()} == {"0", "mine.removed"}


def test_a_missing_best_checkpoint_is_said(tmp_path, capsys):
    mesh = sharding.make_mesh(1)
    save_all(tmp_path, mesh, [0.1, 0.5, 0.3]).close()
    (tmp_path / "checkpoints" / "10").rename(tmp_path / "elsewhere")
    assert checkpoint.load_weights(tmp_path)[2] == 20
    assert "the best checkpoint, 10, is missing: taking 20" in capsys.readouterr().out


def test_a_file_in_the_place_of_the_checkpoints_is_said(tmp_path):
    (tmp_path / "checkpoints").write_text("mine")
    with pytest.raises(ValueError, match="checkpoints is not a folder; move it away"):
        checkpoint.Checkpoints(tmp_path, keep=1)
    assert (tmp_path / "checkpoints").read_text() == "mine"


def test_a_damaged_best_checkpoint_of_a_run_is_set_aside(tmp_path, capsys):
    mesh = sharding.make_mesh(1)
    # Of 0, 10, 20 and 30 the best is 10; it stays, with 20 and 30.
    save_all(tmp_path, mesh, [0.1, 0.9, 0.2, 0.3]).close()
    assert checkpoint.set_aside(tmp_path, 10) == ""
    assert checkpoint.set_aside(tmp_path, 0) == ""
    for path in files_of(tmp_path / "checkpoints" / "10" / "state"):
        path.write_bytes(path.read_bytes()[:7])
    note = checkpoint.set_aside(tmp_path, 10)
    assert note.startswith("checkpoint 10 is damaged: ")
    assert note.endswith(f"It is now {tmp_path / 'checkpoints' / '10.damaged'}")
    assert checkpoint.find_weights(tmp_path).step == 30
    assert "the best checkpoint, 10, is missing: taking 30" in capsys.readouterr().out
