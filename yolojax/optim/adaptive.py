"""Optimisers that scale each component by what its gradients were: Adam and others."""

from __future__ import annotations

import optax

from yolojax.optim import transforms
from yolojax.optim.borrowed import borrowed, scheduled
from yolojax.optim.pieces import Pieces, coupled, decoupled
from yolojax.optim.transforms import Transform


def adam(
    pieces: Pieces,
    *,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    nesterov: bool = False,
) -> Transform:
    """Adam; the weight decay is part of the gradient.

    Args:
        pieces: see `Pieces`.
        b2: decay rate of the average of squares.
        eps: added to the root of the average of squares.
        eps_root: added under the root.
        nesterov: `nadam`.

    Source: Kingma and Ba 2015, arXiv:1412.6980.
    """
    direction = transforms.scheduled_adam(
        pieces.momentum, b2=b2, eps=eps, eps_root=eps_root, nesterov=nesterov
    )
    return optax.named_chain(
        ("decay", pieces.decay), ("adam", direction), ("rates", pieces.rates)
    )


def nadam(
    pieces: Pieces, *, b2: float = 0.999, eps: float = 1e-8, eps_root: float = 0.0
) -> Transform:
    """Adam with Nesterov's correction; the weight decay is part of the gradient.

    Source: Dozat 2016, "Incorporating Nesterov momentum into Adam".
    """
    return adam(pieces, b2=b2, eps=eps, eps_root=eps_root, nesterov=True)


def adamw(
    pieces: Pieces,
    *,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    nesterov: bool = False,
) -> Transform:
    """Adam; the weight decay acts beside the averages.

    Args:
        pieces: see `Pieces`.
        b2: decay rate of the average of squares.
        eps: added to the root of the average of squares.
        eps_root: added under the root.
        nesterov: whether to look one gradient ahead.

    Source: Loshchilov and Hutter 2019, arXiv:1711.05101, Algorithm 2.
    """
    direction = transforms.scheduled_adam(
        pieces.momentum, b2=b2, eps=eps, eps_root=eps_root, nesterov=nesterov
    )
    return optax.named_chain(
        ("adam", direction), ("decay", pieces.decay), ("rates", pieces.rates)
    )


def radam(
    pieces: Pieces, *, b2: float = 0.999, eps: float = 1e-8, threshold: float = 5.0
) -> Transform:
    """Rectified Adam; the weight decay is part of the gradient.

    Args:
        pieces: see `Pieces`.
        b2: decay rate of the average of squares.
        eps: added to the root of the average of squares.
        threshold: length of the average from which squares are used.

    Source: Liu et al. 2020, arXiv:1908.03265, Algorithm 2.
    """

    def make(b1):
        return optax.scale_by_radam(b1, b2, eps, threshold=threshold)

    return coupled(pieces, scheduled(make, pieces.momentum, corrected=True))


def adamax(pieces: Pieces, *, b2: float = 0.999, eps: float = 1e-8) -> Transform:
    """Adam with the largest gradient in place of squares; decay in the gradient.

    Source: Kingma and Ba 2015, arXiv:1412.6980, Algorithm 2.
    """

    def make(b1):
        return optax.scale_by_adamax(b1, b2, eps)

    return coupled(pieces, scheduled(make, pieces.momentum, corrected=True))


def yogi(pieces: Pieces, *, b2: float = 0.999, eps: float = 1e-3) -> Transform:
    """Adam whose squares move by their sign; the decay is part of the gradient.

    Source: Zaheer et al. 2018, "Adaptive methods for nonconvex optimization",
    Algorithm 2.
    """

    def make(b1):
        return optax.scale_by_yogi(b1, b2, eps)

    return coupled(pieces, scheduled(make, pieces.momentum, corrected=True))


def adagrad(
    pieces: Pieces, *, initial_accumulator_value: float = 0.1, eps: float = 1e-7
) -> Transform:
    """Adagrad, without momentum; the weight decay is part of the gradient.

    Source: Duchi et al. 2011, JMLR 12, section 1.3.
    """
    return coupled(pieces, borrowed(optax.scale_by_rss(initial_accumulator_value, eps)))


def adadelta(pieces: Pieces, *, rho: float = 0.9, eps: float = 1e-6) -> Transform:
    """Adadelta, without momentum; the weight decay is part of the gradient.

    Source: Zeiler 2012, arXiv:1212.5701, Algorithm 1.
    """
    return coupled(pieces, borrowed(optax.scale_by_adadelta(rho, eps)))


def rmsprop(
    pieces: Pieces,
    *,
    decay: float = 0.9,
    eps: float = 1e-8,
    initial_scale: float = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    bias_correction: bool = False,
    use_momentum: bool = False,
    nesterov: bool = False,
) -> Transform:
    """RMSProp; the weight decay is part of the gradient.

    Args:
        pieces: see `Pieces`.
        decay: of the average of squares.
        eps: added to the average, or to its root.
        initial_scale: where the average of squares starts.
        eps_in_sqrt: whether `eps` is added under the root.
        centered: whether the squared mean is taken off the squares.
        bias_correction: whether the averages are corrected for their start.
        use_momentum: whether the config's momentum acts on the steps, after the
            learning rate.
        nesterov: whether that has Nesterov's correction.

    Source: Tieleman and Hinton 2012, lecture 6.5; centred: Graves 2013,
    arXiv:1308.0850, section 4.2.
    """
    make = optax.scale_by_stddev if centered else optax.scale_by_rms
    direction = make(
        decay=decay,
        eps=eps,
        initial_scale=initial_scale,
        eps_in_sqrt=eps_in_sqrt,
        bias_correction=bias_correction,
    )
    chain = coupled(pieces, borrowed(direction))
    if not use_momentum:
        return chain
    trace = transforms.scheduled_trace(pieces.momentum, nesterov=nesterov)
    return optax.named_chain(("steps", chain), ("trace", trace))


def lion(pieces: Pieces, *, b2: float = 0.99) -> Transform:
    """Steps of the size of the rate in each component; the decay is beside.

    Args:
        pieces: see `Pieces`.
        b2: decay rate of the average of gradients that is kept.

    Source: Chen et al. 2023, arXiv:2302.06675, Algorithm 2.
    """

    def make(b1):
        return optax.scale_by_lion(b1, b2)

    return decoupled(pieces, scheduled(make, pieces.momentum))
