"""Hill's estimator of the tail index."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from keras_acclip.noise.tails.samples import (
    LEAST_FOR_TAIL,
    checked_count,
    checked_level,
    checked_sample,
    two_sided,
    varying,
)

LEAST_COUNT = 10
_EXHAUSTIVE_SCAN = 1000
_SCAN_POINTS = 300
# Choosing k from the same data spreads the estimate more than a given k does: on Pareto samples of
# 30 to 3,000 norms the variance of log(alpha) is 1.1 to 1.35 times as large.
CHOICE_INFLATION = 1.35


@dataclass(frozen=True)
class TailEstimate:
    """Hill's estimate of a tail index.

    Attributes:
        alpha: Tail index: P(X > x) falls like x^-alpha. The variance is infinite below 2.
        stderr: Standard error of `alpha`; with a data-chosen `k`, the choice's spread included.
        low: Lower end of the confidence interval of `alpha`.
        high: Upper end of the confidence interval of `alpha`.
        k: How many of the largest norms the estimate rests on.
        threshold: The norm above which those `k` lie, in the sample's unit.

    Example:

    >>> import numpy as np
    >>> from keras_acclip.noise import tails
    >>> estimate = tails.hill(np.random.default_rng(0).pareto(1.5, 1000) + 1)
    >>> estimate.low < 1.5 < estimate.high
    True
    """

    alpha: float
    stderr: float
    low: float
    high: float
    k: int
    threshold: float


def hill(sample: ArrayLike, k: int | None = None, confidence: float = 0.95) -> TailEstimate:
    """Hill's estimator of the tail index of a sample of norms.

    Over the k largest values X_(1) ≥ … ≥ X_(k) and the next one, X_(k+1):
    `alpha = k / Σ log(X_(i) / X_(k+1))`. On a Pareto tail 2k·alpha_true/alpha follows a χ² law with
    2k degrees of freedom, which the interval is taken from.

    Without `k` the threshold X_(k+1) is chosen by the rule of Clauset, Shalizi and Newman: the one
    above which the fitted Pareto law is nearest to the sample by the Kolmogorov-Smirnov distance,
    with at least 10 norms above it; of more than 1,000 norms, 300 are tried, evenly in log k. The
    choice makes the estimate vary more than a given k does, so the interval is wider by √1.35,
    which is what that costs on Pareto samples.

    No interval covers the bias of a tail that isn't yet a power law at the threshold: for α-stable
    noise with α near 2, Hill's index of a few hundred norms lies well above α. `classify` allows
    for that.

    Args:
        sample: Norms, shape `(n,)`, finite and non-negative; at least 20.
        k: How many of the largest norms to use, 2 ≤ k < n. Default: chosen from the data.
        confidence: Level of the interval, between 0 and 1. Defaults to 0.95.

    Returns:
        A `TailEstimate`.

    Raises:
        ValueError: If the sample is too small, not one-dimensional or constant, or holds NaN,
            infinite or negative values; if `k` or `confidence` is out of range.

    Example:
        >>> norms = 1 + np.random.default_rng(0).pareto(1.5, size=100_000)
        >>> round(hill(norms).alpha, 1)
        1.5

    References:
        B. M. Hill, "A simple general approach to inference about the tail of a distribution",
        Annals of Statistics 3 (1975). A. Clauset, C. R. Shalizi, M. E. J. Newman, "Power-law
        distributions in empirical data", SIAM Review 51 (2009), section 3; their exponent is the
        density's, alpha + 1, and counts the threshold among the k.
    """
    norms = varying(checked_sample(sample, LEAST_FOR_TAIL))
    confidence = checked_level(confidence)
    logs = descending_logs(norms)
    if k is None:
        k = choose_count(logs, candidates(len(logs)))
        if k is None:
            raise ValueError(
                f"Fewer than {LEAST_COUNT} norms exceed the next smaller, positive one."
            )
        effective = k / CHOICE_INFLATION
    else:
        k = effective = checked_count(k, norms)
    alpha = hill_of_logs(logs, k)
    low, high = hill_interval(alpha, effective, confidence)
    return TailEstimate(
        alpha=float(alpha),
        stderr=float(alpha / math.sqrt(effective)),
        low=float(low),
        high=float(high),
        k=int(k),
        threshold=float(np.sort(norms)[-k - 1]),
    )


def descending_logs(norms: np.ndarray) -> np.ndarray:
    """Returns the logarithms of the positive norms, over the largest, in descending order."""
    positive = norms[norms > 0]
    return np.log(np.sort(positive)[::-1] / positive.max(initial=0.0))


def hill_of_logs(logs: np.ndarray, k: Any) -> Any:
    """Returns Hill's estimate of the `k` largest, for one k or an array of them."""
    return k / (np.cumsum(logs)[np.subtract(k, 1)] - k * logs[k])


def hill_interval(alpha: Any, k: Any, confidence: float) -> tuple[Any, Any]:
    """Returns the ends of the interval of an estimate of `k` largest, or of an array of them."""
    degrees = 2 * np.asarray(k)
    low, high = (alpha * stats.chi2.ppf(q, degrees) / degrees for q in two_sided(confidence))
    return low, high


def candidates(n: int, points: int | None = None) -> np.ndarray:
    """Returns the numbers of largest norms to try, of n: all, or about `points`."""
    if points is None:
        if n <= _EXHAUSTIVE_SCAN:
            return np.arange(LEAST_COUNT, n)
        points = _SCAN_POINTS
    return np.unique(np.geomspace(LEAST_COUNT, max(n - 1, LEAST_COUNT), points).round().astype(int))


def choose_count(logs: np.ndarray, counts: np.ndarray) -> int | None:
    """Returns the number of norms above the threshold of Clauset, Shalizi and Newman's rule."""
    nearest, best = math.inf, None
    for k in counts:
        if k >= len(logs) or logs[k] == logs[0] or (k + 1 < len(logs) and logs[k] == logs[k + 1]):
            continue
        excesses = logs[: k + 1] - logs[k]
        fitted = -np.expm1(-(k + 1) / excesses.sum() * excesses)
        empirical = np.arange(k, -1, -1) / (k + 1)
        distance = np.abs(fitted - empirical).max()
        if distance < nearest:
            nearest, best = distance, int(k)
    return best
