"""Features as points in the plane: principal components and t-SNE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

# Neighbours that a point has, about, and the components that t-SNE is given.
PERPLEXITY, COMPONENTS = 30.0, 50
# t-SNE cannot do with fewer points.
FEWEST = 5
_FEW = 500


def principal_components(
    parts: Sequence[np.ndarray],
) -> tuple[list[np.ndarray], list[float]]:
    """Coordinates along the two directions in which the first part varies most.

    Args:
        parts: [n, d] each, of which the first one decides; all are put into its plane.

    Returns:
        float64 [n, 2] a part, and the shares that both directions have of the first
        part's variance. Their signs are such that the largest coefficient is positive.
    """
    points, shares = _components(parts, 2)
    return points, shares.tolist()


def _components(
    parts: Sequence[np.ndarray], count: int
) -> tuple[list[np.ndarray], np.ndarray]:
    first = np.asarray(parts[0], np.float64)
    mean = first.mean(axis=0)
    _, sizes, directions = np.linalg.svd(first - mean, full_matrices=False)
    largest = np.abs(directions).argmax(axis=1)
    directions *= np.sign(directions[np.arange(len(directions)), largest])[:, None]
    # Where there are fewer, the others do not vary.
    missing = max(0, count - len(directions))
    directions = np.pad(directions[:count], ((0, missing), (0, 0)))
    variances = np.pad(sizes**2, (0, missing))
    shares = variances[:count] / max(variances.sum(), np.finfo(np.float64).tiny)
    return [(part - mean) @ directions.T for part in parts], shares


def neighbour_embedding(parts: Sequence[np.ndarray], *, seed: int) -> list[np.ndarray]:
    """t-SNE of all parts together: points whose neighbours are those of the features.

    It begins from the first two principal components and is the same in every call;
    distances between far points say little. 30 neighbours count, or a third of the
    points where that is less.

    Args:
        parts: [n, d] each, at least 5 rows together.
        seed: any integer.

    Returns:
        float32 [n, 2] a part.

    Raises:
        ValueError: fewer points.

    Sources: van der Maaten and Hinton 2008, "Visualizing data using t-SNE", with the
    features reduced before (section 4.2; to 50 components); Kobak and Berens 2019,
    "The art of using t-SNE for single-cell transcriptomics", for the start.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    values = np.concatenate(parts)
    if len(values) < FEWEST:
        raise ValueError(
            f"t-SNE needs at least {FEWEST} pictures, but there are {len(values)}"
        )
    (reduced,), _ = _components([values], COMPONENTS)
    start = reduced[:, :2]
    spread = start[:, 0].std()
    if spread <= 0:
        start = np.random.default_rng(seed).normal(size=start.shape)
        spread = 1.0
    first: Any = (start / spread * 1e-4).astype(np.float32)
    method = TSNE(
        perplexity=min(PERPLEXITY, (len(values) - 1) / 3),
        init=first,
        learning_rate="auto",
        random_state=seed % 2**32,
    )
    # Threads that wait for each other cost more than few points do.
    with threadpool_limits(1 if len(values) < _FEW else None):
        points = method.fit_transform(reduced.astype(np.float32))
    return np.split(points, np.cumsum([len(part) for part in parts])[:-1])
