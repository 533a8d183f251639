"""Transforms of the gradient against their formulas."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax import trees
from yolojax.optim import build, gradients

RNG = np.random.default_rng(0)
GRADS = trees.unflatten(
    {
        "stem/conv/kernel": RNG.normal(size=(3, 3, 2, 4)).astype(np.float32),
        "stem/norm/scale": RNG.normal(size=4).astype(np.float32),
        "head/level3/kernel": RNG.normal(size=(4, 3)).astype(np.float32),
    }
)
PARAMS = jax.tree.map(lambda g: 0.1 * g[::-1], GRADS)


def apply(*entries, step=0, seed=0):
    grads = jax.tree.map(jnp.asarray, GRADS)
    for _, tx in gradients.make_transforms(entries, trees.flatten(GRADS), seed=seed):
        grads, _ = tx.update(grads, tx.init(PARAMS), PARAMS, step=step)
    return {path: np.asarray(leaf) for path, leaf in trees.flatten(grads).items()}


def norm_of(leaves):
    return np.sqrt(
        sum((np.asarray(leaf, np.float64) ** 2).sum() for leaf in leaves.values())
    )


def test_clip_value_cuts_each_component():
    for path, got in apply(dict(name="clip_value", limit=0.5)).items():
        np.testing.assert_array_equal(
            got, np.clip(trees.flatten(GRADS)[path], -0.5, 0.5)
        )


def test_norms_are_cut_or_set():
    assert norm_of(apply(dict(name="clip_norm", limit=2.0))) == pytest.approx(2.0)
    assert norm_of(apply(dict(name="normalize", norm=3.0))) == pytest.approx(3.0)
    np.testing.assert_allclose(norm_of(apply()), norm_of(trees.flatten(GRADS)))


def test_centralize_takes_the_mean_off_each_output_channel():
    for path, got in apply(dict(name="centralize")).items():
        expected = trees.flatten(GRADS)[path].astype(np.float64)
        if path.endswith("kernel"):
            means = expected.reshape(-1, expected.shape[-1]).mean(0)
            expected = expected - means
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_agc_holds_each_output_channel_to_a_share_of_its_weights():
    got = apply(dict(name="agc", clipping=0.2))
    before, weights = trees.flatten(GRADS), trees.flatten(PARAMS)
    np.testing.assert_array_equal(
        got["head/level3/kernel"], before["head/level3/kernel"]
    )
    kernel = before["stem/conv/kernel"].astype(np.float64).reshape(-1, 4)
    limit = 0.2 * np.linalg.norm(weights["stem/conv/kernel"].reshape(-1, 4), axis=0)
    norms = np.linalg.norm(kernel, axis=0)
    expected = kernel * np.where(norms < limit, 1.0, limit / norms)
    np.testing.assert_allclose(
        got["stem/conv/kernel"].reshape(-1, 4), expected, rtol=1e-5
    )
    every = apply(dict(name="agc", clipping=0.2, skip=()))
    assert norm_of(every) < norm_of(got)


def test_noise_has_the_published_variance_and_follows_from_the_step():
    entry = dict(name="noise", variance=0.25, decay=0.55)
    first, again = apply(entry, step=7), apply(entry, step=7)
    for path, got in first.items():
        np.testing.assert_array_equal(got, again[path])
    assert norm_of(apply(entry, step=8)) != norm_of(first)
    assert norm_of(apply(entry, step=7, seed=1)) != norm_of(first)
    tx = gradients.noise(variance=0.25, decay=0.55)
    zeros = {"a": jnp.zeros(20000)}
    for step in (0, 99):
        drawn, _ = tx.update(zeros, (), step=step)
        deviation = 0.5 / (1 + step) ** 0.275
        np.testing.assert_allclose(drawn["a"].std(), deviation, rtol=0.03)
        np.testing.assert_allclose(drawn["a"].mean(), 0, atol=0.03 * deviation)


def test_they_act_in_the_order_given_on_the_sum_and_before_the_clip():
    chosen = (dict(name="clip_value", limit=0.5), dict(name="normalize", norm=4.0))
    assert norm_of(apply(*chosen)) == pytest.approx(4.0)
    assert norm_of(apply(*chosen[::-1])) < 4.0
    recipe: dict[str, Any] = dict(
        learning_rate=1.0,
        schedule="constant",
        momentum=0.0,
        weight_decay=0.0,
        batch_size=4,
        nominal_batch=8,
        steps_per_epoch=4,
        epochs=2,
    )
    optimizer = build.build_optimizer(
        PARAMS, **recipe, clip_norm=2.0, transforms=chosen[:1]
    )
    state = optimizer.tx.init(PARAMS)
    for step in (0, 1):
        moves, state = optimizer.tx.update(GRADS, state, PARAMS, step=step)
    expected = np.clip(2 * trees.flatten(GRADS)["stem/norm/scale"], -0.5, 0.5)
    got = -trees.flatten(moves)["stem/norm/scale"]
    cosine = (got @ expected) / np.linalg.norm(got) / np.linalg.norm(expected)
    assert cosine == pytest.approx(1.0, abs=1e-6)
    assert norm_of(trees.flatten(moves)) == pytest.approx(2.0, rel=1e-5)


@pytest.mark.parametrize(
    "entry, message",
    [
        (dict(name="centralise"), "no gradient transform named .* mean 'centralize'"),
        (dict(name="clip_value"), r"transforms\[0\] needs limit"),
        (dict(name="clip_value", limit=0.0), "limit of clip_value must be above 0"),
        (dict(name="clip_norm", limits=1.0), "no argument 'limits'. Did you mean"),
        (dict(name="clip_norm", limit="1"), "limit must be a number, not '1'"),
        (dict(name="agc", skip=("^tail/",)), "matches no parameter"),
        (dict(name="noise", variance=-1.0), "noise has variance -1.0"),
        ("centralize", r"transforms\[0\] must be a dict"),
    ],
)
def test_transforms_that_cannot_be_are_refused(entry, message):
    with pytest.raises(ValueError, match=message):
        apply(entry)
