"""A checkpoint with one flipped bit is refused, or the bit has no meaning."""

import collections

import jax
import numpy as np

from tests.engine.saving import make_state, save_all
from yolojax.engine import checkpoint, sharding

ROWS = 100
# What says nothing of the contents: times, shardings, notes that a part is done.
MEANINGLESS = ("_CHECKPOINT_METADATA", "commit_success.txt", "_sharding", "process_0")


def flip(path, place, bit):
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def outcome(workdir, mesh):
    """`refused`, or `same` where all that is loaded is what was saved."""
    again = checkpoint.Checkpoints(workdir, keep=2)
    found = again.restore(lambda step: make_state(mesh, 7, ROWS))
    again.close()
    damaged = workdir / "checkpoints" / "10.damaged"
    if int(found.state.step) == 0:
        assert found.notes[0].startswith("checkpoint 10 is damaged")
        damaged.rename(damaged.with_suffix(""))
        return "refused"
    jax.tree.map(np.testing.assert_array_equal, found.state, make_state(mesh, 10, ROWS))
    assert found.data == {"position": 1}
    assert found.progress == {"best_step": 10, "window": {"loss": 0.1}}
    assert not damaged.exists()
    return "same"


def outcome_of_weights(workdir, mesh):
    try:
        _, variables, step = checkpoint.load_weights(workdir / "checkpoints" / "10")
    except ValueError as error:
        assert "checkpoint 10 in" in str(error)
        return "refused"
    expected = make_state(mesh, 10, ROWS).ema
    jax.tree.map(np.testing.assert_array_equal, variables, expected)
    assert step == 10
    return "same"


def test_no_flipped_bit_is_loaded_silently(tmp_path):
    mesh = sharding.make_mesh(1)
    save_all(tmp_path, mesh, [0.1, 0.5], ROWS).close()
    step = tmp_path / "checkpoints" / "10"
    rng = np.random.default_rng(0)
    files = sorted(p for p in step.rglob("*") if p.is_file() and p.stat().st_size)
    # Half of the flips in each file in turn, half where most bytes are.
    sizes = np.array([path.stat().st_size for path in files], np.float64)
    drawn = rng.choice(len(files), 50, p=sizes / sizes.sum()).tolist()
    counts = collections.defaultdict(collections.Counter)
    for number in [*(np.arange(50) % len(files)).tolist(), *drawn]:
        path = files[number]
        before = path.read_bytes()
        flip(path, int(rng.integers(len(before))), int(rng.integers(8)))
        state, weights = outcome(tmp_path, mesh), outcome_of_weights(tmp_path, mesh)
        # The weights are a part of the state.
        assert (state, weights) != ("same", "refused")
        counts[path.name if path.name in MEANINGLESS else "content"][state] += 1
        path.write_bytes(before)
    assert sum(sum(found.values()) for found in counts.values()) == 100
    print({name: dict(found) for name, found in counts.items()})
    # Even the index has bytes that are not used, such as those of older versions of it.
    assert counts["content"]["refused"] > counts["content"]["same"]
    assert all(not counts[name]["refused"] for name in MEANINGLESS)
