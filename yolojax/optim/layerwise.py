"""Optimisers that look at a parameter as a whole: its size, its rows and columns."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon
from optax.contrib._muon import scale_by_shape

from yolojax import trees
from yolojax.optim import transforms
from yolojax.optim.borrowed import borrowed, scheduled
from yolojax.optim.pieces import Pieces, decoupled, kernels
from yolojax.optim.transforms import Transform


def lamb(
    pieces: Pieces,
    *,
    b2: float = 0.999,
    eps: float = 1e-6,
    eps_root: float = 0.0,
    kernels_only: bool = False,
) -> Transform:
    """Adam at the size of each parameter; the decay is added before that.

    Args:
        pieces: see `Pieces`.
        b2: decay rate of the average of squares.
        eps: added to the root of the average of squares.
        eps_root: added under the root.
        kernels_only: whether biases and scales take plain steps of Adam.

    Source: You et al. 2020, arXiv:1904.00962, Algorithm 2.
    """
    direction = transforms.scheduled_adam(
        pieces.momentum, b2=b2, eps=eps, eps_root=eps_root
    )
    trust = borrowed(optax.scale_by_trust_ratio())
    return optax.named_chain(
        ("adam", direction),
        ("decay", pieces.decay),
        ("trust", _on_kernels(trust, pieces, kernels_only)),
        ("rates", pieces.rates),
    )


def lars(
    pieces: Pieces,
    *,
    trust_coefficient: float = 0.001,
    eps: float = 0.0,
    nesterov: bool = False,
    kernels_only: bool = False,
) -> Transform:
    """SGD at the size of each parameter; the decay is part of the gradient.

    The momentum acts after the learning rate.

    Args:
        pieces: see `Pieces`.
        trust_coefficient: norm of a step over that of the parameter, before the rate.
        eps: added to the norm of the gradient.
        nesterov: whether to use Nesterov's correction.
        kernels_only: whether biases and scales take plain steps.

    Source: You et al. 2017, arXiv:1708.03888, Algorithm 1.
    """
    trust = borrowed(
        optax.scale_by_trust_ratio(trust_coefficient=trust_coefficient, eps=eps)
    )
    return optax.named_chain(
        ("decay", pieces.decay),
        ("trust", _on_kernels(trust, pieces, kernels_only)),
        ("rates", pieces.rates),
        ("trace", transforms.scheduled_trace(pieces.momentum, nesterov=nesterov)),
    )


def _on_kernels(inner: Transform, pieces: Pieces, kernels_only: bool) -> Transform:
    if not kernels_only:
        return inner
    return borrowed(optax.masked(inner, kernels(pieces.params)))


def adafactor(
    pieces: Pieces,
    *,
    min_dim_size_to_factor: int = 128,
    decay_rate: float = 0.8,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: float | None = 1.0,
    eps: float = 1e-30,
    factored: bool = True,
    use_momentum: bool = False,
) -> Transform:
    """Adam's squares by rows and columns; the decay is beside.

    Optax's own weight decay of it is not multiplied by the learning rate; here it is,
    as for all others.

    Args:
        pieces: see `Pieces`.
        min_dim_size_to_factor: smaller kernels keep all squares.
        decay_rate: exponent of the decay of the average of squares.
        multiply_by_parameter_scale: whether steps have the size of the parameters.
        clipping_threshold: root mean square of a step, at most; None: any.
        eps: added to the squares.
        factored: whether to factor at all.
        use_momentum: whether steps are averaged by the config's momentum, after the
            learning rate.

    Source: Shazeer and Stern 2018, arXiv:1804.04235, Algorithm 4.
    """
    chosen = [
        optax.scale_by_factored_rms(
            factored, decay_rate, 0, min_dim_size_to_factor, eps
        )
    ]
    if clipping_threshold is not None:
        chosen.append(optax.clip_by_block_rms(clipping_threshold))
    if multiply_by_parameter_scale:
        chosen.append(optax.scale_by_param_block_rms())
    chain = decoupled(pieces, *(borrowed(piece) for piece in chosen))
    if not use_momentum:
        return chain

    def make(momentum):
        return optax.ema(momentum, debias=False)

    average = scheduled(make, pieces.momentum)
    return optax.named_chain(("steps", chain), ("average", average))


def muon(
    pieces: Pieces,
    *,
    ns_steps: int = 5,
    eps: float = 1e-8,
    nesterov: bool = True,
    adaptive: bool = False,
    consistent_rms: float | None = None,
    adam_b2: float = 0.999,
    adam_paths: Sequence[str] = (),
) -> Transform:
    """Orthogonal steps for kernels, Adam for biases and scales; the decay is beside.

    A convolution's kernel [h, w, in, out] counts as the matrix [h w in, out].

    Args:
        pieces: see `Pieces`.
        ns_steps: iterations of Newton and Schulz.
        eps: keeps divisions finite.
        nesterov: whether to look one gradient ahead.
        adaptive: whether steps scale with the gradient.
        consistent_rms: root mean square of a step of a kernel; None: that of an
            orthogonal one, times the root of out / in where that is above 1.
        adam_b2: decay rate of Adam's average of squares.
        adam_paths: regular expressions of kernels that Adam moves, too; the source
            has it move the first and the last layer.

    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural
    networks"; consistent_rms: Liu et al. 2025, arXiv:2502.16982, section 2.2.
    """
    patterns = (adam_paths,) if isinstance(adam_paths, str) else adam_paths
    by_adam = trees.flatten(trees.match_mask(pieces.params, patterns))
    labels = {
        path: "muon"
        if path.endswith("kernel") and len(leaf.shape) > 1 and not by_adam[path]
        else "adam"
        for path, leaf in trees.flatten(pieces.params).items()
    }

    def dimensions(tree):
        return jax.tree.map(
            lambda x: MuonDimensionNumbers(tuple(range(x.ndim - 1)), x.ndim - 1), tree
        )

    def make(beta):
        return scale_by_muon(
            ns_steps=ns_steps,
            beta=beta,
            eps=eps,
            nesterov=nesterov,
            adaptive=adaptive,
            weight_dimension_numbers=dimensions,
        )

    shape = scale_by_shape(dimensions, consistent_rms)
    orthogonal = optax.named_chain(
        ("muon", scheduled(make, pieces.momentum)), ("shape", borrowed(shape))
    )
    by_squares = transforms.scheduled_adam(
        pieces.momentum, b2=adam_b2, eps=eps, nesterov=nesterov
    )
    parts = optax.partition(
        {"muon": orthogonal, "adam": by_squares}, trees.unflatten(labels)
    )
    return decoupled(pieces, optax.with_extra_args_support(parts))
