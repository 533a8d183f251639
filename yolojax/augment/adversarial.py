"""Pictures changed as little as is needed to raise the loss of the current network.

It costs a forward and a backward pass for each iteration, on the share of the batch
that is changed, and as many copies of the network in the compiled step: the iterations
are a Python loop, because XLA's CPU backend runs the gradient of a convolution 20 to 33
times slower inside of a loop of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from yolojax.records import Batch, labels_of

Attack = Callable[[Array, Callable[..., Any], Callable[..., Any], Any, Batch], Batch]

NORMS = ("linf", "l2")
# Folded into the step's key; above all places in a batch, below the policy's numbers.
ADVERSARY = 2**29
# Keeps a vanishing gradient from becoming 0/0. Its square is still a float32, since XLA
# turns a / b / c into a / (b c).
TINY = 1e-15


def perturb(
    key: Array,
    images: Float[Array, "b h w c"],
    loss_of_images: Callable[[Float[Array, "b h w c"]], Float[Array, ""]],
    *,
    norm: str = "linf",
    epsilon: float | int = 4 / 255,
    step_size: float | int = 0.0,
    iterations: int = 1,
    random_start: bool = False,
) -> Float[Array, "b h w c"]:
    """Pictures nearby, with a larger loss.

    One iteration without a random start is the fast gradient sign method, several are
    projected gradient descent (PGD).

    Args:
        key: of the step; a picture's start depends on it and on its place only.
        images: in [0, 1].
        loss_of_images: the sum of the pictures' losses, or what is proportional to it.
        norm: "linf": no value changes by more than epsilon; "l2": the Euclidean length
            of a picture's change is at most epsilon.
        epsilon: how far pictures may be moved.
        step_size: of an iteration, in the same norm; 0 stands for epsilon if there is
            one iteration, or else for 2.5 epsilon / iterations, so that the border of
            the ball is reached from anywhere within.
        iterations: gradients that are taken.
        random_start: whether to start at a point uniform in the ball of radius epsilon.

    Returns:
        Pictures in [0, 1], no farther than epsilon from `images`.

    Raises:
        ValueError: an argument out of range.

    Source: Goodfellow et al. 2014, arXiv:1412.6572, section 4, and Madry et al. 2017,
    arXiv:1706.06083, section 2.1; 2.5 from their experiments.
    """
    check_arguments(norm, epsilon, step_size, iterations)
    if not step_size:
        step_size = epsilon if iterations == 1 else 2.5 * epsilon / iterations
    gradient = jax.grad(loss_of_images)
    change = jnp.zeros_like(images)
    if random_start:
        change = _valid(images, _start(key, images, norm, epsilon))
    for _ in range(iterations):
        ascent = _steepest(gradient(images + change), norm)
        change = _valid(images, _project(change + step_size * ascent, norm, epsilon))
    # Added and taken away, a change may come out of [0, 1] by rounding.
    return jnp.clip(images + change, 0.0, 1.0)


def make_attack(
    *,
    share: float | int = 0.25,
    norm: str = "linf",
    epsilon: float | int = 4 / 255,
    step_size: float | int = 0.0,
    iterations: int = 1,
    random_start: bool = False,
) -> Attack:
    """The adversarial part of a training step.

    Pictures are changed after augmentation, against the current parameters and running
    statistics: the extra passes run in evaluation mode. They change no statistics, and
    what becomes of a picture does not depend on its neighbours in the batch. In the
    first hundred steps or so the statistics are not yet those of pictures, and the
    changes little more than noise.

    Args:
        share: of each batch that is changed, at least one picture. As a fraction of
            at most sixteenths, k / m: the first k of every m pictures, if m divides the
            batch, so that each of several devices has as many; or else the first ones.
        norm: see `perturb`, as all the others.
        epsilon: in units of pictures in [0, 1].
        step_size: of an iteration.
        iterations: gradients that are taken.
        random_start: whether to start off the picture.

    Returns:
        `attack(key, apply, loss, variables, pictures) -> pictures`: `apply` and `loss`
        as of `make_train_step`; only `image` changes.

    Raises:
        ValueError: an argument out of range.
    """
    if not 0 < share <= 1:
        raise ValueError(
            f"adversarial: share is {share}, expected more than 0, at most 1"
        )
    check_arguments(norm, epsilon, step_size, iterations)

    def attack(
        key: Array,
        apply: Callable[..., Any],
        loss: Callable[..., Any],
        variables: Any,
        pictures: Batch,
    ) -> Batch:
        count, of = _fraction(pictures.image.shape[0], share)

        def some(values: Array) -> Array:
            groups = values.reshape(-1, of, *values.shape[1:])
            return groups[:, :count].reshape(-1, *values.shape[1:])

        labels = [some(x) for x in labels_of(pictures)]

        def loss_of_images(images: Array) -> Array:
            maps, _ = apply(variables, images, train=False)
            return loss(maps, *labels)[0]

        changed = perturb(
            jax.random.fold_in(key, ADVERSARY),
            some(pictures.image),
            loss_of_images,
            norm=norm,
            epsilon=epsilon,
            step_size=step_size,
            iterations=iterations,
            random_start=random_start,
        )
        shape = pictures.image.shape
        groups = pictures.image.reshape(-1, of, *shape[1:])
        changed = changed.reshape(-1, count, *shape[1:])
        image = jnp.concatenate([changed, groups[:, count:]], axis=1).reshape(shape)
        return pictures._replace(image=image)

    return attack


def check_arguments(
    norm: str, epsilon: float | int, step_size: float | int, iterations: int
) -> None:
    """Raise a ValueError if one of these arguments of `perturb` is out of range."""
    if norm not in NORMS:
        raise ValueError(
            f"adversarial: norm is {norm!r}, expected {' or '.join(NORMS)}"
        )
    if not 0 < epsilon < math.inf:
        raise ValueError(f"adversarial: epsilon is {epsilon}, expected more than 0")
    if not 0 <= step_size < math.inf:
        raise ValueError(
            f"adversarial: step_size is {step_size}, expected more than 0, or 0 for "
            "one that suits epsilon and iterations"
        )
    if not 1 <= iterations <= 100:
        raise ValueError(f"adversarial: iterations is {iterations}, expected 1 to 100")


def _fraction(num: int, share: float | int) -> tuple[int, int]:
    """How many pictures out of how many are changed; the latter divides `num`."""
    near = Fraction(share).limit_denominator(16)
    if near > 0 and num % near.denominator == 0:
        return near.numerator, near.denominator
    return max(1, round(share * num)), num


def _lengths(change: Float[Array, "b h w c"]) -> Float[Array, "b 1 1 1"]:
    """The Euclidean length of each picture's change."""
    return jnp.sqrt(jnp.sum(change**2, axis=(1, 2, 3), keepdims=True))


def _steepest(gradient: Float[Array, "b h w c"], norm: str) -> Float[Array, "b h w c"]:
    """The change of length 1 in the norm that raises the loss most."""
    if norm == "linf":
        return jnp.sign(gradient)
    # Scaled first, since the squares of a small gradient are not to be computed.
    largest = jnp.max(jnp.abs(gradient), axis=(1, 2, 3), keepdims=True)
    gradient = gradient / jnp.maximum(largest, TINY)
    return gradient / jnp.maximum(_lengths(gradient), TINY)


def _project(
    change: Float[Array, "b h w c"], norm: str, epsilon: float | int
) -> Float[Array, "b h w c"]:
    """The nearest change that is no longer than epsilon."""
    if norm == "linf":
        return jnp.clip(change, -epsilon, epsilon)
    return change * jnp.minimum(1.0, epsilon / jnp.maximum(_lengths(change), TINY))


def _valid(
    images: Float[Array, "b h w c"], change: Float[Array, "b h w c"]
) -> Float[Array, "b h w c"]:
    """The change, less what would leave [0, 1]; it gets no longer in either norm."""
    return jnp.clip(images + change, 0.0, 1.0) - images


def _start(
    key: Array, images: Float[Array, "b h w c"], norm: str, epsilon: float | int
) -> Float[Array, "b h w c"]:
    """Changes that are uniform in the ball of radius epsilon."""
    num, *shape = images.shape
    keys = jax.vmap(lambda place: jax.random.fold_in(key, place))(jnp.arange(num))
    if norm == "linf":
        draw = jax.vmap(lambda own: jax.random.uniform(own, shape, minval=-1.0))
        return epsilon * draw(keys)

    def inside(own: Array) -> Array:
        way, far = jax.random.split(own)
        radius = jax.random.uniform(far) ** (1.0 / math.prod(shape))
        way = jax.random.normal(way, shape)
        return radius * way / jnp.sqrt(jnp.sum(way**2))

    return epsilon * jax.vmap(inside)(keys)
