import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import tiny_config
from yolojax import experiment, objectives, recipe
from yolojax.augment import adversarial
from yolojax.engine import sharding
from yolojax.records import Batch

KEY = jax.random.key(0)


def perturbed(images, loss, *arrays, seed=0, **arguments):
    run = functools.partial(
        adversarial.perturb, loss_of_images=lambda x: loss(x, *arrays), **arguments
    )
    return np.asarray(jax.jit(run)(jax.random.key(seed), images))


def pictures(num=3, side=4, low=0.0, high=1.0, seed=0):
    generator = np.random.default_rng(seed)
    return generator.uniform(low, high, (num, side, side, 3)).astype(np.float32)


def weights_like(images, seed=1):
    return np.random.default_rng(seed).normal(size=images.shape).astype(np.float32)


def lengths(change):
    return np.sqrt((change.astype(np.float64) ** 2).sum((1, 2, 3)))


def linear(images, weights):
    return jnp.sum(images * weights)


def hill(images, tops):
    return -jnp.sum((images - tops) ** 2)


def test_the_fast_gradient_sign_step_is_epsilon_times_the_sign():
    images = pictures(low=0.2, high=0.8)
    weights = weights_like(images)
    found = perturbed(images, linear, weights, epsilon=0.1)
    np.testing.assert_allclose(found, images + 0.1 * np.sign(weights), atol=1e-6)


def test_in_l2_the_step_follows_the_gradient_of_each_picture():
    images = pictures(low=0.4, high=0.6)
    weights = weights_like(images) * np.float32([1, 1e-12, 1e6])[:, None, None, None]
    found = perturbed(images, linear, weights, norm="l2", epsilon=0.3)
    scale = 0.3 / lengths(weights)[:, None, None, None]
    np.testing.assert_allclose(found, images + scale * weights, atol=1e-6)


@pytest.mark.parametrize("norm", adversarial.NORMS)
@pytest.mark.parametrize("random_start", [False, True])
def test_pictures_stay_in_range_and_within_epsilon(norm, random_start):
    images = pictures(num=8)
    images[0], images[1] = 0, 1
    epsilon = 0.5 if norm == "l2" else 0.05
    found = perturbed(
        images,
        linear,
        weights_like(images),
        norm=norm,
        epsilon=epsilon,
        iterations=4,
        step_size=epsilon,
        random_start=random_start,
    )
    assert found.min() >= 0 and found.max() <= 1
    change = found.astype(np.float64) - images
    size = np.abs(change).max((1, 2, 3)) if norm == "linf" else lengths(change)
    assert (size <= epsilon + 1e-6).all()
    assert (size > 0.5 * epsilon).all()


@pytest.mark.parametrize("random_start", [False, True])
def test_pgd_in_l2_goes_to_the_top_or_to_the_nearest_point_of_the_ball(random_start):
    images = pictures(low=0.3, high=0.7)
    way = weights_like(images)
    way /= lengths(way)[:, None, None, None]
    far = np.float32([0.05, 0.2, 0.6])[:, None, None, None]
    found = perturbed(
        images,
        hill,
        images + far * way,
        norm="l2",
        epsilon=0.3,
        iterations=60,
        step_size=0.01,
        random_start=random_start,
    )
    # The first two tops lie in the ball, about which PGD steps to and fro.
    np.testing.assert_allclose(found, images + np.minimum(far, 0.3) * way, atol=0.012)


def test_pgd_in_linf_goes_to_the_nearest_point_of_the_cube():
    images = pictures(low=0.3, high=0.7)
    away = np.random.default_rng(2).uniform(-0.2, 0.2, images.shape)
    tops = (images + away).astype(np.float32)
    found = perturbed(images, hill, tops, epsilon=0.1, iterations=40, step_size=0.005)
    expected = images + np.clip(away, -0.1, 0.1)
    np.testing.assert_allclose(found, expected, atol=0.0051)


def test_the_step_that_is_left_out_suits_the_iterations():
    images = pictures(low=0.3, high=0.7)
    # Of 2.5 epsilon / 5, three steps reach the border and one is half as long.
    for iterations, moved in ((1, 0.1), (5, 0.1)):
        found = perturbed(
            images, linear, np.ones_like(images), epsilon=0.1, iterations=iterations
        )
        np.testing.assert_allclose(found, images + moved, atol=1e-6)
    found = perturbed(
        images, linear, np.ones_like(images), epsilon=0.1, iterations=2, step_size=0.03
    )
    np.testing.assert_allclose(found, images + 0.06, atol=1e-6)


@pytest.mark.parametrize("norm", adversarial.NORMS)
def test_without_a_gradient_nothing_happens(norm):
    images = pictures()
    found = perturbed(images, linear, np.zeros_like(images), norm=norm, iterations=2)
    np.testing.assert_array_equal(found, images)


def test_starts_are_uniform_in_the_ball():
    images = np.full((10_000, 1, 1, 3), 0.5, np.float32)
    flat = np.zeros_like(images)
    cube = perturbed(images, linear, flat, epsilon=0.2, random_start=True) - images
    np.testing.assert_allclose(
        np.quantile(cube, [0.1, 0.25, 0.5, 0.9]), [-0.16, -0.1, 0, 0.16], atol=0.005
    )
    ball = (
        perturbed(images, linear, flat, norm="l2", epsilon=0.2, random_start=True)
        - images
    )
    # In three dimensions the cube of the radius is uniform, and so is each direction.
    radius = lengths(ball)
    np.testing.assert_allclose(
        np.quantile((radius / 0.2) ** 3, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.02
    )
    cosine = ball[:, 0, 0, 0] / radius
    np.testing.assert_allclose(
        np.quantile(cosine, [0.1, 0.5, 0.9]), [-0.8, 0, 0.8], atol=0.04
    )


def test_a_start_depends_on_the_key_and_on_the_place_alone():
    images = pictures(num=6)
    flat = np.zeros_like(images)
    first, again, other = (
        perturbed(images, linear, flat, random_start=True, seed=seed)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).mean() > 1e-3
    half = perturbed(images[:3], linear, flat[:3], random_start=True, seed=1)
    np.testing.assert_array_equal(half, first[:3])


@pytest.mark.slow
def test_vmap_is_the_loop():
    images = np.stack([pictures(seed=seed) for seed in (0, 1)])
    weights = np.stack([weights_like(pictures(), seed) for seed in (2, 3)])

    def one(images, weights):
        loss = functools.partial(linear, weights=weights)
        return adversarial.perturb(KEY, images, loss, norm="l2", random_start=True)

    together = jax.jit(jax.vmap(one))(images, weights)
    for i in range(2):
        alone = jax.jit(one)(images[i], weights[i])
        np.testing.assert_allclose(alone, together[i], atol=1e-6)


def batch_of(num, side=2):
    return Batch(
        image=jnp.full((num, side, side, 3), 0.5),
        size=jnp.full((num, 2), side),
        boxes=jnp.zeros((num, 1, 4)),
        labels=jnp.arange(num, dtype=jnp.int32)[:, None],
        valid=jnp.ones((num, 1), bool),
        image_id=jnp.arange(num, dtype=jnp.int32),
        origin=jnp.zeros((num, 4)),
    )


@pytest.mark.parametrize(
    "share, num, expected",
    [
        (0.25, 8, [0, 4]),
        (0.5, 6, [0, 2, 4]),
        (0.75, 8, [0, 1, 2, 4, 5, 6]),
        (1.0, 3, [0, 1, 2]),
        (0.25, 6, [0, 1]),
        (0.01, 5, [0]),
    ],
    ids=["quarter", "half", "three", "all", "uneven", "least"],
)
def test_the_share_of_the_batch_is_changed_with_its_own_labels(share, num, expected):
    def apply(variables, images, train):
        assert not train
        return images * variables, None

    def loss(maps, boxes, labels, valid):
        # Pictures of an even label get lighter, others darker.
        way = jnp.where(labels[:, 0] % 2 == 0, 1.0, -1.0)[:, None, None, None]
        return jnp.sum(maps * way), {}

    attack = adversarial.make_attack(share=share, epsilon=0.125)
    before = batch_of(num)
    after = attack(KEY, apply, loss, jnp.float32(3.0), before)
    changed = np.asarray(after.image - before.image)[:, 0, 0, 0]
    wanted = np.zeros(num)
    wanted[expected] = np.where(np.array(expected) % 2 == 0, 0.125, -0.125)
    np.testing.assert_array_equal(changed, wanted)
    for name in set(Batch._fields) - {"image"}:
        assert getattr(after, name) is getattr(before, name)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(share=0), "adversarial: share is 0, expected more than 0, at most 1"),
        (dict(share=1.5), "adversarial: share is 1.5, expected"),
        (dict(norm="l1"), "adversarial: norm is 'l1', expected linf or l2"),
        (dict(epsilon=0.0), "adversarial: epsilon is 0.0, expected more than 0"),
        (dict(step_size=-1), "adversarial: step_size is -1, expected more than 0"),
        (dict(iterations=0), "adversarial: iterations is 0, expected 1 to 100"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        adversarial.make_attack(**arguments)


def test_the_config_is_checked_before_anything_is_compiled():
    chosen = tiny_config(augment__adversarial={"shares": 0.5})
    with pytest.raises(
        ValueError, match="augment.adversarial has no argument 'shares'"
    ):
        experiment.build(chosen)


@pytest.fixture(scope="module")
def trained():
    """A run with it, the states around its two steps, and the second batch."""
    run = experiment.build(
        tiny_config(
            augment__adversarial=dict(share=0.5, random_start=True, epsilon=0.02),
            optim__learning_rate=1e-3,
            optim__warmup_bias_rate=1e-3,
        )
    )
    state, states = run.initial_state(), []
    batches = run.train_batches()
    for _ in range(2):
        batch = sharding.put_batch(next(batches), run.mesh)
        states.append(jax.tree.map(np.array, state))
        state, numbers = run.step(state, batch)
        assert float(numbers["finite"]) == 1 and float(numbers["loss"]) > 0
    states.append(jax.tree.map(np.array, state))
    return run, states, batch


@pytest.mark.slow
def test_training_with_it_compiles_once_and_repeats_to_the_bit(trained):
    run, states, batch = trained
    again, _ = run.step(sharding.put_replicated(states[1], run.mesh), batch)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(states[2]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert run.step._cache_size() == 1


@pytest.mark.slow
def test_each_attack_raises_the_loss_of_a_network_and_pgd_most(trained):
    run, states, batch = trained
    settings, model = run.settings, run.model
    loss = objectives.make_loss(settings, model)
    variables = {name: getattr(states[2], name) for name in ("params", "batch_stats")}
    augment = recipe.make_augmentation(settings, run.max_boxes)

    shown, _ = jax.jit(augment)(KEY, batch, mosaic_on=False)
    # Running statistics that are those of the batch, as after a while of training: at
    # first hardly anything of a picture comes through.
    _, moved = jax.jit(functools.partial(model.apply, train=True))(
        variables, shown.image
    )
    variables["batch_stats"] = jax.tree.map(
        lambda before, after: before + (after - before) / 0.03,
        variables["batch_stats"],
        moved,
    )

    # Compiled once for all attacks, its gradient too.
    @jax.jit
    def objective(images):
        maps, _ = model.apply(variables, images, train=False)
        return loss(maps, shown.boxes, shown.labels, shown.valid)[0]

    def after(norm, epsilon, iterations):
        images = adversarial.perturb(
            KEY,
            shown.image,
            objective,
            norm=norm,
            epsilon=epsilon,
            iterations=iterations,
        )
        return objective(images)

    before = objective(shown.image)
    for norm, epsilon in (("linf", 0.02), ("l2", 1.0)):
        fgsm, pgd = (after(norm, epsilon, iterations) for iterations in (1, 4))
        assert fgsm > before and pgd >= fgsm
