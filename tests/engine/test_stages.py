"""Staged runs: the plan, its errors, what crosses a border, and resuming in a stage."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import tiny_config
from yolojax import experiment, recipe
from yolojax.engine import sharding, stages
from yolojax.engine.checkpoint import Checkpoints
from yolojax.engine.loop import Plan
from yolojax.engine.stages import Stage
from yolojax.engine.step import init_state
from yolojax.network import make_model
from yolojax.optim.build import build_optimizer
from yolojax.optim.freeze import NOTHING, Frozen, split

# The published three steps: half of the data, the backbone frozen, all at a tenth.
THREE = (
    dict(epochs=3, data_fraction=0.5),
    dict(epochs=2, data_fraction=0.5, freeze=dict(layers=10)),
    dict(epochs=4, lr_scale=0.1),
)


@functools.cache
def model():
    return make_model(tiny_config())


def plan(given, **changes):
    settings = tiny_config(stages=given, **changes)
    steps = {0.5: 5, 1.0: 10}
    return recipe.make_stages(settings, model(), steps.__getitem__)


def test_the_three_steps_follow_each_other():
    one, two, three = plan(THREE)
    assert [s.first_step for s in (one, two, three)] == [0, 15, 25]
    assert [s.first_epoch for s in (one, two, three)] == [0, 3, 5]
    assert [s.end for s in (one, two, three)] == [15, 25, 65]
    assert one.frozen == three.frozen == NOTHING
    paths = two.frozen.parameters
    assert paths and all(p.startswith("backbone/") for p in paths)
    assert two.frozen.norms
    assert tiny_config(stages=THREE)["epochs"] == 9


@pytest.mark.parametrize(
    "number, index, epochs",
    [
        (0, 0, (0, 0)),
        (14, 0, (2, 4)),
        (15, 1, (3, 0)),
        (64, 2, (8, 9)),
        (65, 2, (9, 0)),
    ],
)
def test_a_step_s_place(number, index, epochs):
    given = plan(THREE)
    assert stages.index_at(given, number) == index
    assert stages.epochs_before(given, number) == epochs


def test_mosaic_closes_at_the_end_of_the_run_not_of_each_stage():
    closed = tiny_config(stages=THREE, augment__close_mosaic_epochs=5)
    assert recipe.closing_step(closed, plan(THREE)) == 20
    assert [stages.step_of_epoch(plan(THREE), e) for e in (0, 3, 4, 9)] == [
        0,
        15,
        20,
        65,
    ]


def test_mosaic_of_a_plain_run_closes_the_given_epochs_before_the_end():
    for closed, step in ((3, 70), (0, 100)):
        chosen = dict(epochs=10, augment__close_mosaic_epochs=closed)
        given = plan((), **chosen)
        assert recipe.closing_step(tiny_config(**chosen), given) == step


def test_a_run_without_stages_is_one():
    (only,) = plan((), freeze__layers=1, epochs=7)
    assert (only.epochs, only.end, only.lr_scale) == (7, 70, 1.0)
    assert all(p.startswith("backbone/stem/") for p in only.frozen.parameters)
    stage = plan((dict(epochs=1), dict(epochs=1, freeze={})), freeze__layers=1)
    assert stage[0].frozen == only.frozen and stage[1].frozen == NOTHING


def test_the_plan_is_shown_where_there_is_one():
    params = model().shapes()["params"]
    assert stages.describe(plan(()), params) == ""
    head, one, two, three = stages.describe(plan(THREE), params).splitlines()
    assert head.split() == ["stage", "epochs", "steps", "data", "rate", "frozen"]
    assert one.split() == ["0", "3", "15", "0.5", "1", "nothing"]
    assert "of the parameters), statistics of" in two
    assert three.split() == ["2", "4", "40", "1", "0.1", "nothing"]


@pytest.mark.parametrize(
    "stage, message",
    [
        (dict(), r"config.stages\[1\] needs epochs"),
        (dict(epochs=1, freez={}), r"\[1\] has an unknown key 'freez'. Did you mean"),
        (dict(epochs=0), r"\[1\].epochs must be a whole number, at least 1, not 0"),
        (
            dict(epochs=1, data_fraction=2),
            r"fraction must be a number, above 0, at most 1, not 2",
        ),
        (
            dict(epochs=1, lr_scale=0),
            r"config.stages\[1\].lr_scale must be a number, above 0, ",
        ),
        (
            dict(epochs=1, freeze=dict(layer=1)),
            r"\[1\].freeze has an unknown key 'layer'. Did you mean 'layers'",
        ),
        (
            dict(epochs=1, freeze=dict(layers=40)),
            r"\[1\].freeze.layers is 40, but the network has 25 layers",
        ),
        (
            dict(epochs=1, freeze=dict(match=("^backbon/",))),
            r"\[1\].freeze.match: '\^backbon/' matches no parameter",
        ),
        (3, r"config.stages\[1\] must be a dict, not 3"),
    ],
)
def test_what_is_wrong_with_a_stage_is_said_before_data_are_read(stage, message):
    settings = tiny_config(
        stages=(dict(epochs=2), stage),
        optim__warmup_epochs=0.0,
        data__train={"source": "digits", "split": "train", "size": 64, "length": 8},
    )
    with pytest.raises(ValueError, match=message):
        experiment.build(settings)


def test_parts_of_the_data_do_not_go_with_a_cache_on_the_device():
    given = tiny_config(stages=THREE, data__cache="device")
    with pytest.raises(ValueError, match="data_fraction below 1, which needs config.d"):
        experiment.build(given)


def test_epochs_of_any_length_are_whole_to_the_loop():
    given = plan(THREE)

    def place(step):
        epochs, rest = stages.epochs_before(given, step)
        return epochs * 10 + rest

    found = Plan(65, 10, 7, 20, 10, place=place)
    ends = [n for n in range(1, 66) if found.due(n, found.steps_per_epoch)]
    assert ends == [5, 10, 15, 20, 25, 35, 45, 55, 65]
    # Every second epoch, and the last one.
    assert [n for n in range(1, 66) if found.due(n, 20)] == [10, 20, 35, 55, 65]
    assert [n for n in range(1, 66) if found.due(n, 7)] == [*range(7, 65, 7), 65]


PARAMS = {
    part: {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)} for part in ("one", "two")
}
ONE = frozenset({"one/kernel", "one/bias"})


def optimizer(frozen=(), **changes):
    trained, _ = split(PARAMS, frozen)
    made = build_optimizer(
        trained, batch_size=32, steps_per_epoch=1, epochs=4, network=PARAMS, **changes
    )
    return made._replace(frozen=Frozen(frozenset(frozen)))


def leaves_of(tree):
    found, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in found}


def crossed(before, after):
    """All of the optimiser's numbers at 5, then taken to the next stage."""
    state = init_state({"params": PARAMS, "batch_stats": {}}, before)
    fives = jax.tree.map(lambda x: jnp.full_like(x, 5), state.opt_state)
    state = stages.cross(state._replace(opt_state=fives), after)
    return leaves_of(state.opt_state)


def test_momentum_goes_on_for_what_is_trained_on_both_sides():
    fewer = crossed(optimizer(), optimizer(ONE))
    assert all("one" not in path for path in fewer)
    more = crossed(optimizer(ONE), optimizer())
    for path, leaf in (*fewer.items(), *more.items()):
        kept = "trace" in path and "two" in path
        # The gradients summed for a step that did not come are dropped.
        np.testing.assert_array_equal(leaf, 5.0 if kept else 0.0, err_msg=path)
    assert any("trace" in path and "two" in path for path in more)


def test_a_rate_that_was_reduced_starts_anew_and_momentum_goes_on():
    plateau = dict(schedule="reduce_on_plateau", nominal_batch=32)
    for before, after in ((frozenset(), ONE), (ONE, frozenset())):
        found = crossed(optimizer(before, **plateau), optimizer(after, **plateau))
        for path, start in ((".factor", 1), (".best", -np.inf), (".since", 0)):
            np.testing.assert_array_equal(found[path], start, err_msg=path)
        (momentum,) = [p for p in found if "trace" in p and "two']['kernel" in p]
        np.testing.assert_array_equal(found[momentum], 5)


def test_a_count_that_all_share_starts_anew_with_new_parameters_only():
    adam = dict(name="adamw", momentum=0.9, nominal_batch=32)
    fewer = crossed(optimizer(**adam), optimizer(ONE, **adam))
    assert fewer and all((leaf == 5).all() for leaf in fewer.values())
    more = crossed(optimizer(ONE, **adam), optimizer(**adam))
    assert more and all((leaf == 0).all() for leaf in more.values())


@pytest.mark.slow
def test_a_run_resumed_within_a_stage_ends_with_the_same_bits(tmp_path):
    settings = tiny_config(
        stages=(
            dict(epochs=1, data_fraction=0.7),
            dict(epochs=2, data_fraction=0.7, freeze=dict(layers=10)),
        ),
        optim__warmup_epochs=0.0,
        dtype="float16",
        loss_scale=dict(initial=2.0**10, growth_steps=3),
    )
    run = experiment.build(settings)
    assert [stage.end for stage in run.stages] == [3, 9]

    def advance(state, batches, steps):
        for _ in range(steps):
            batch = sharding.put_batch(next(batches), run.mesh)
            state, _ = run.step_at(int(state.step))(state, batch)
        return state

    def saved(state, batches, name):
        there = Checkpoints(tmp_path / name, keep=1, asynchronous=False)
        data = json.loads(json.dumps(batches.get_state()))
        there.save(state, data=data, progress={})
        there.close()

    def resumed(name):
        there = Checkpoints(tmp_path / name, keep=1, asynchronous=False)
        found = there.restore(run.initial_state)
        there.close()
        batches = run.train_batches()
        batches.set_state(found.data)
        return found.state, batches

    batches = run.train_batches()
    state = advance(run.initial_state(), batches, 3)
    saved(state, batches, "border")
    backbone = jax.tree.map(np.array, state.params["backbone"])
    statistics = jax.tree.map(np.array, state.batch_stats["backbone"])
    state = advance(state, batches, 2)
    saved(state, batches, "within")
    expected = leaves_of(advance(state, batches, 2))
    for name, steps in (("border", 4), ("within", 2)):
        again = leaves_of(advance(*resumed(name), steps))
        assert again.keys() == expected.keys()
        for path, leaf in expected.items():
            np.testing.assert_array_equal(again[path], leaf, err_msg=f"{name} {path}")
    for before, now in (
        (backbone, ".params['backbone']"),
        (statistics, ".batch_stats"),
    ):
        for path, leaf in leaves_of(before).items():
            start = now if "backbone" in now else f"{now}['backbone']"
            np.testing.assert_array_equal(expected[start + path], leaf)
    assert expected[".loss_scale['scale']"] not in (2.0**10, 0.0)
    assert isinstance(run.stages[0], Stage)
