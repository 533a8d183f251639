import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from yolojax.engine import checkpoint, sharding
from yolojax.records import TrainState


def make_state(mesh, value=0.0):
    params = {"head": {"kernel": jnp.full((2, 3), value + 1 / 3, jnp.float32)}}
    stats = {"norm": {"mean": jnp.full(3, value, jnp.float32)}}
    zero = jnp.zeros((), jnp.int32)
    state = TrainState(
        step=jnp.asarray(int(value), jnp.int32),
        params=params,
        batch_stats=stats,
        opt_state=optax.adam(1e-3).init(params),
        ema={
            "params": jax.tree.map(jnp.copy, params),
            "batch_stats": jax.tree.map(jnp.copy, stats),
        },
        ema_updates=zero,
        skipped=zero + 0,
        skipped_in_a_row=zero + 0,
    )
    return sharding.put_replicated(state, mesh)


def save_all(tmp_path, mesh, fitnesses):
    (tmp_path / "config.json").write_text(json.dumps({"seed": 3}))
    saver = checkpoint.Checkpoints(tmp_path, keep=2)
    best = (-1.0, 0)
    for number, value in enumerate(fitnesses):
        step = 10 * number
        best = max(best, (value, step))
        saver.save(
            make_state(mesh, step),
            data={"position": number},
            progress={"best_step": best[1], "window": {"loss": 0.1}},
            fitness=value,
        )
    saver.wait()
    return saver


def test_state_comes_back_bit_for_bit_on_other_devices(tmp_path):
    saver = save_all(tmp_path, sharding.make_mesh(4), [0.5])
    saver.close()
    one = sharding.make_mesh(1)
    again = checkpoint.Checkpoints(tmp_path, keep=2)
    found = again.restore(make_state(one, 7))
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
        again.save(
            make_state(mesh, step), data={}, progress={"best_step": 10}, fitness=-1.0
        )
    again.close()
    steps = {int(p.name) for p in (tmp_path / "checkpoints").iterdir()}
    assert steps == {10, 40, 50}
    assert checkpoint.load_weights(tmp_path)[2] == 10


def test_no_checkpoint_restores_nothing(tmp_path):
    saver = checkpoint.Checkpoints(tmp_path, keep=1)
    assert saver.restore(make_state(sharding.make_mesh(1))) is None
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
        again.restore(other)
    again.close()


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(ValueError, match="no such file or folder"):
        checkpoint.load_weights(tmp_path / "nothing")
    with pytest.raises(ValueError, match="expected a working directory"):
        checkpoint.load_weights(tmp_path)


def test_a_damaged_checkpoint_is_one_message_that_names_the_others(tmp_path):
    mesh = sharding.make_mesh(1)
    save_all(tmp_path, mesh, [0.1, 0.5]).close()
    for path in (tmp_path / "checkpoints" / "10" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:7])
    message = r"checkpoint 10 .* cannot be read.*the others are \[0\]"
    with pytest.raises(ValueError, match=message):
        checkpoint.load_weights(tmp_path)
    again = checkpoint.Checkpoints(tmp_path, keep=2)
    with pytest.raises(ValueError, match=message):
        again.restore(make_state(mesh))
    again.close()
