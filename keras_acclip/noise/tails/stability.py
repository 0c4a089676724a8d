"""The index of an α-stable law, from the growth of sums."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from keras_acclip._utils import arguments
from keras_acclip.noise.tails.samples import LEAST_FOR_TAIL, checked_sample


@dataclass(frozen=True)
class StableIndex:
    """The index of an α-stable law, read off the growth of sums.

    Attributes:
        alpha: Index in (0, 2]; 2 is Gaussian. An estimate beyond 2 is given as 2.
        stderr: Standard error of `alpha`.
        block: How many terms each sum has.

    Example:

    >>> import numpy as np
    >>> from keras_acclip.noise import tails
    >>> index = tails.stable_index(np.random.default_rng(0).normal(size=2000))
    >>> abs(index.alpha - 2) < 0.2
    True
    """

    alpha: float
    stderr: float
    block: int


def stable_index(
    sample: ArrayLike, block: int | None = None, orders: int = 8, seed: int = 0
) -> StableIndex:
    """Estimates the index of α-stable noise from how fast its sums grow.

    It is there to compare with publications on gradient noise that report this estimate, and for
    noise vectors, which `hill` can't take. To judge a tail, take `hill` or `classify`.

    A sum of m independent α-stable terms is m^{1/α} times as large as one term, so
    `1/alpha = (mean log|sums| − mean log|terms|) / log(block)`, with Euclidean norms for vectors.

    The identity needs terms that are symmetric about zero, which norms aren't: taken as they are,
    a sample of norms always gives about 1. So terms are differences of random pairs, whose law is
    symmetric whatever the sample's mean and skewness, with the same index. The estimate is averaged
    over several random pairings.

    It presumes exactly α-stable noise. Elsewhere it tells how sums of this length grow, not how the
    far tail falls, and can err either way: 500 norms of a Pareto law with index 1.5 give about 1.
    `classify` doesn't use it. Trust it where another block length gives the same index.

    Args:
        sample: Scalars, shape `(n,)`, or vectors, shape `(n, dimensions)`: finite, of any sign; at
            least 20. Noise vectors g − ∇f, coordinates of them, or norms.
        block: Terms a sum, from 2 to n/4. Default: √(n/2), rounded down.
        orders: Number of random pairings to average, at least 2. Defaults to 8.
        seed: Seed of the pairings. Defaults to 0.

    Returns:
        A `StableIndex`.

    Raises:
        ValueError: If the sample is too small, has more than two dimensions, holds NaN or infinite
            values, or repeats one value so often that pairs cancel; if `block` or `orders` is out
            of range.

    Example:
        >>> noise = np.random.default_rng(0).standard_cauchy(size=10_000)
        >>> round(stable_index(noise).alpha)
        1

    References:
        M. Mohammadi, A. Mohammadpour, H. Ogata, "On estimating the tail index and the spectral
        measure of multivariate α-stable distributions", Metrika 78 (2015), corollary 2.4;
        U. Şimşekli, L. Sagun, M. Gürbüzbalaban, "A tail-index analysis of stochastic gradient noise
        in deep neural networks", ICML 2019, section 4.
    """
    terms = checked_sample(sample, LEAST_FOR_TAIL, signed=True, dimensions=(1, 2))
    terms = terms.reshape(len(terms), -1)
    pairs = len(terms) // 2
    if block is None:
        block = math.isqrt(pairs)
    elif not 2 <= arguments.positive_integer("block", block) <= pairs // 2:
        raise ValueError(
            f"Argument `block` must be from 2 to {pairs // 2} for a sample of {len(terms)}. "
            f"Received: {block}"
        )
    orders = arguments.positive_integer("orders", orders)
    if orders < 2:
        raise ValueError(f"Argument `orders` must be at least 2. Received: {orders}")
    generator = np.random.default_rng(seed)
    inverses, variances = [], []
    for _ in range(orders):
        order = generator.permutation(len(terms))[: 2 * (pairs // block) * block]
        differences = (terms[order[::2]] - terms[order[1::2]]).reshape(-1, block, terms.shape[1])
        growth = _log_sizes(differences.sum(axis=1)) - _log_sizes(differences).mean(axis=1)
        growth /= math.log(block)
        inverses.append(growth.mean())
        variances.append(growth.var(ddof=1) / len(growth))
    # One pairing varies by what all share, the sample, and by the pairing, which averages out.
    pairing = np.var(inverses, ddof=1)
    variance = max(np.mean(variances) - pairing, 0.0) + pairing / orders
    alpha = min(2.0, 1 / max(float(np.mean(inverses)), 0.5))
    return StableIndex(alpha, float(alpha**2 * math.sqrt(variance)), block)


def _log_sizes(vectors: np.ndarray) -> np.ndarray:
    sizes = np.linalg.norm(vectors, axis=-1)
    rounded = sizes == 0
    if rounded.mean() > 0.01:
        raise ValueError("Too many values of the sample are equal: their differences vanish.")
    return np.log(np.where(rounded, sizes[~rounded].min(), sizes))
