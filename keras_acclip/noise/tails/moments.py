"""Moments of a sample, with their standard errors, and whether they are finite."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from keras_acclip._utils import arguments
from keras_acclip.noise.tails.samples import LEAST_FOR_MOMENTS, checked_sample, varying


class Estimate(NamedTuple):
    """A number with its standard error.

    Attributes:
        value: The estimate.
        stderr: Its standard error, in the same unit.

    Example:

    >>> from keras_acclip.noise import tails
    >>> round(tails.kurtosis([1.0, 2.0, 3.0, 4.0]).value, 6)
    -1.2
    """

    value: float
    stderr: float


@dataclass(frozen=True)
class VarianceGrowth:
    """Empirical variance as a sample grows, in several random orders.

    Attributes:
        sizes: Sample sizes 2, 3, …, n; shape `(n - 1,)`.
        variances: Unbiased variance of the first `sizes[j]` norms in order i, in the sample's unit
            squared; shape `(orders, n - 1)`. All orders end at the same value.

    Example:

    >>> from keras_acclip.noise import tails
    >>> growth = tails.variance_growth([1.0, 2.0, 3.0], orders=2)
    >>> growth.sizes.tolist(), growth.variances[:, -1].tolist()
    ([2, 3], [1.0, 1.0])
    """

    sizes: np.ndarray
    variances: np.ndarray


def variance_growth(sample: ArrayLike, orders: int = 8, seed: int = 0) -> VarianceGrowth:
    """Empirical variance of a sample as it grows, in several random orders.

    With a finite variance the curves settle; with an infinite one they keep jumping up.

    Args:
        sample: Norms, shape `(n,)`, finite and non-negative; at least 2.
        orders: Number of random orders, each a curve. Defaults to 8.
        seed: Seed of the orders. Defaults to 0.

    Returns:
        A `VarianceGrowth`.

    Raises:
        ValueError: If the sample is too small, not one-dimensional, or holds NaN, infinite or
            negative values; if `orders` is no positive whole number.

    Example:
        >>> growth = variance_growth([1.0, 2.0, 3.0, 4.0], orders=2)
        >>> growth.variances.shape
        (2, 3)

    References:
        Zhang et al. (2020), Figure 1 (d) and (h).
    """
    norms = checked_sample(sample, 2)
    generator = np.random.default_rng(seed)
    orders = arguments.positive_integer("orders", orders)
    largest = norms.max() or 1.0
    shuffled = np.stack([generator.permutation(norms) for _ in range(orders)]) / largest
    shuffled -= np.median(shuffled[0])
    counts = np.arange(1, len(norms) + 1)
    sums = shuffled.cumsum(axis=1)
    squares = (shuffled**2).cumsum(axis=1)
    variances = (squares - sums**2 / counts)[:, 1:] / (counts[1:] - 1)
    return VarianceGrowth(counts[1:], np.maximum(variances, 0) * largest**2)


def max_to_sum(sample: ArrayLike, p: float) -> float:
    """Share of the sum of p-th powers that the largest norm alone holds.

    It tells whether a mean (p = 1) or a variance (p = 2) rests on one batch. As the sample grows it
    falls to 0 if the p-th moment is finite, and only then: one sample proves nothing, so see
    whether it falls as norms are added.

    Args:
        sample: Norms, shape `(n,)`, finite and non-negative, not all zero; at least 1.
        p: Order of the moment, above 0.

    Returns:
        The ratio, from 1/n to 1.

    Raises:
        ValueError: If the sample is empty, not one-dimensional, all zero, or holds NaN, infinite
            or negative values; if `p` isn't above 0.

    Example:
        >>> max_to_sum([3.0, 4.0], p=2)
        0.64

    References:
        P. Embrechts, C. Klüppelberg, T. Mikosch, Modelling Extremal Events (1997), section 6.2.6.
    """
    norms = checked_sample(sample, 1)
    p = arguments.positive("p", p)
    if norms.max() == 0:
        raise ValueError("All norms are zero: they have no largest one.")
    return float(1 / np.sum((norms / norms.max()) ** p))


def alpha_moment(sample: ArrayLike, alpha: float) -> float:
    """Empirical α-moment: the mean of the norms to the power α.

    The paper's σ of Assumption 1, E‖g − ∇f‖^α ≤ σ^α, is this to the power 1/α.

    Args:
        sample: Norms, shape `(n,)`, finite and non-negative; at least 1.
        alpha: Order α in (1, 2].

    Returns:
        The moment, in the sample's unit to the power α.

    Raises:
        ValueError: If the sample is empty, not one-dimensional, or holds NaN, infinite or negative
            values; if `alpha` is out of range.

    Example:
        >>> sigma = alpha_moment([1.0, 4.0], 1.5) ** (1 / 1.5)

    References:
        Zhang et al. (2020), Assumption 1.
    """
    norms = checked_sample(sample, 1)
    alpha = arguments.moment_order("alpha", alpha, open_low=True)
    largest = float(norms.max()) or 1.0
    return largest**alpha * float(np.mean((norms / largest) ** alpha))


def kurtosis(sample: ArrayLike) -> Estimate:
    """Excess kurtosis of a sample, 0 for a Gaussian one.

    The bias-corrected G₂; the standard error comes from the influence function, so it holds for
    samples that aren't Gaussian, as long as eight moments are finite. For heavier tails both grow
    with the sample and mean no more than that.

    Args:
        sample: Norms, shape `(n,)`, finite and non-negative, not constant; at least 4.

    Returns:
        An `Estimate(value, stderr)`.

    Raises:
        ValueError: If the sample is too small, not one-dimensional or constant, or holds NaN,
            infinite or negative values.

    Example:
        >>> round(kurtosis([1.0, 2.0, 3.0, 4.0]).value, 3)
        -1.2

    References:
        D. N. Joanes, C. A. Gill, "Comparing measures of sample skewness and kurtosis", The
        Statistician 47 (1998).
    """
    deviations = _standardized(sample)
    third, fourth = np.mean(deviations**3), np.mean(deviations**4)
    influence = deviations**4 - fourth - 4 * third * deviations - 2 * fourth * (deviations**2 - 1)
    return Estimate(
        float(stats.kurtosis(deviations, bias=False)),
        float(influence.std() / math.sqrt(len(deviations))),
    )


def skewness(sample: ArrayLike) -> Estimate:
    """Skewness of a sample, 0 for a symmetric one.

    The bias-corrected G₁, with a standard error from the influence function, which holds as long
    as six moments are finite.

    Args:
        sample: Norms, shape `(n,)`, finite and non-negative, not constant; at least 4.

    Returns:
        An `Estimate(value, stderr)`.

    Raises:
        ValueError: As `kurtosis`.

    Example:
        >>> skewness([1.0, 2.0, 3.0, 4.0]).value
        0.0

    References:
        Joanes and Gill (1998).
    """
    deviations = _standardized(sample)
    third = np.mean(deviations**3)
    influence = deviations**3 - third - 3 * deviations - 1.5 * third * (deviations**2 - 1)
    return Estimate(
        float(stats.skew(deviations, bias=False)),
        float(influence.std() / math.sqrt(len(deviations))),
    )


def _standardized(sample: ArrayLike) -> np.ndarray:
    """Returns (x − mean)/deviation, which SciPy can take powers of without cancellation."""
    norms = varying(checked_sample(sample, LEAST_FOR_MOMENTS))
    scaled = norms / norms.max()
    deviations = scaled - scaled.mean()
    return deviations / deviations.std()
