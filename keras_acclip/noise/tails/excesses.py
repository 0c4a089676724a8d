"""The generalized Pareto law of what the largest norms exceed a threshold by."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from keras_acclip.noise.tails.samples import (
    LEAST_FOR_EXCESSES,
    LEAST_FOR_TAIL,
    checked_count,
    checked_level,
    checked_sample,
    varying,
)
from keras_acclip.noise.tails.tail_index import CHOICE_INFLATION, LEAST_COUNT


@dataclass(frozen=True)
class ExcessEstimate:
    """A generalized Pareto law fitted to what the largest norms exceed a threshold by.

    Attributes:
        shape: ξ, one over the tail index where positive. The variance is infinite from 1/2 on; an
            exponential tail has 0, a bounded one less.
        stderr: Standard error of `shape`; with a data-chosen `k`, the choice's spread included.
        low: Lower end of the confidence interval of `shape`.
        high: Upper end of the confidence interval of `shape`.
        scale: σ of the law, in the sample's unit.
        k: How many norms exceed the threshold.
        threshold: The threshold, in the sample's unit.
        distance: Kolmogorov-Smirnov distance between the law and the excesses.

    Example:

    >>> import numpy as np
    >>> from keras_acclip.noise import tails
    >>> excess = tails.generalized_pareto(np.random.default_rng(0).pareto(1.5, 1000) + 1)
    >>> excess.low < 1 / 1.5 < excess.high
    True
    """

    shape: float
    stderr: float
    low: float
    high: float
    scale: float
    k: int
    threshold: float
    distance: float

    @property
    def tail_index(self) -> tuple[float, float, float]:
        """One over the shape, and the ends of its interval; infinite where a shape is not above 0.

        How often the interval holds the index of known laws, beside Hill's, is measured in
        `docs/results/tail_verdicts.md`.
        """
        index, low, high = (
            1 / shape if shape > 0 else math.inf for shape in (self.shape, self.high, self.low)
        )
        return index, low, high


def generalized_pareto(
    sample: ArrayLike, k: int | None = None, confidence: float = 0.95
) -> ExcessEstimate:
    """Fits a generalized Pareto law to what the largest norms exceed a threshold by.

    Hill's estimate changes when a constant is added to every norm; the shape ξ of the excesses
    doesn't, which matters for gradient noise, whose norms lie far from zero. Where ξ > 0 the tail
    index is 1/ξ, so that the variance is infinite for ξ ≥ 1/2.

    The fit is Zhang and Stephens's, which always exists and is close to maximum likelihood. Without
    `k` the threshold is the one with the smallest Kolmogorov-Smirnov distance between law and
    excesses, among 15 with from 40 to n − 1 norms above them. The standard error is (1 + ξ)/√k, and
    √1.35 times that where k was chosen. With a given k below 100 a 95% interval covers somewhat
    less: 92% at k = 20.

    Args:
        sample: Norms, shape `(n,)`, finite and non-negative; at least 50, or 20 with `k` given.
        k: How many of the largest norms to use, 10 ≤ k < n. Default: chosen from the data.
        confidence: Level of the interval, between 0 and 1. Defaults to 0.95.

    Returns:
        An `ExcessEstimate`.

    Raises:
        ValueError: As `hill`; if ties leave fewer than 10 norms above the threshold.

    Example:
        >>> norms = np.linalg.norm(np.random.default_rng(0).normal(size=(500, 100)), axis=1)
        >>> generalized_pareto(norms, k=60).high < 0.5  # finite variance
        True

    References:
        J. Zhang, M. A. Stephens, "A new and efficient estimation method for the generalized Pareto
        distribution", Technometrics 51 (2009). A. Vehtari and others, "Pareto smoothed importance
        sampling", JMLR 25 (2024), judges by the same ξ whether a variance is finite.
    """
    norms = varying(checked_sample(sample, LEAST_FOR_EXCESSES if k is None else LEAST_FOR_TAIL))
    confidence = checked_level(confidence)
    ascending = np.sort(norms)
    if k is None:
        ks = np.unique(np.geomspace(40, len(norms) - 1, 15).round().astype(int))
        inflation = CHOICE_INFLATION
    else:
        ks = [checked_count(k, norms, least=LEAST_COUNT)]
        inflation = 1.0
    fits = []
    for candidate in ks:
        threshold = ascending[-candidate - 1]
        excesses = ascending[ascending > threshold] - threshold
        if len(excesses) >= LEAST_COUNT:
            fits.append((*_fit_excesses(excesses), len(excesses), threshold))
    if not fits:
        raise ValueError(f"Ties leave fewer than {LEAST_COUNT} norms above the threshold.")
    distance, shape, scale, count, threshold = min(fits)
    stderr = (1 + max(shape, -0.5)) * math.sqrt(inflation / count)
    margin = special.ndtri((1 + confidence) / 2) * stderr
    return ExcessEstimate(
        shape=float(shape),
        stderr=float(stderr),
        low=float(shape - margin),
        high=float(shape + margin),
        scale=float(scale),
        k=count,
        threshold=float(threshold),
        distance=float(distance),
    )


def _fit_excesses(excesses: np.ndarray) -> tuple[float, float, float]:
    """Kolmogorov-Smirnov distance, ξ and σ of Zhang and Stephens's fit to ascending excesses."""
    n = len(excesses)
    unit = excesses[-1]
    scaled = excesses / unit
    points = 30 + math.isqrt(n)
    quartile = scaled[int(n / 4 + 0.5) - 1]
    theta = 1 + (1 - np.sqrt(points / (np.arange(1, points + 1) - 0.5))) / (3 * quartile)
    theta[theta == 0] = 1e-12
    shapes = np.log1p(-theta[:, None] * scaled).mean(axis=1)
    log_likelihoods = n * (np.log(-theta / shapes) - shapes - 1)
    theta = special.softmax(log_likelihoods) @ theta
    logs = np.log1p(-theta * scaled)
    shape = logs.mean()
    law = -np.expm1(-logs / shape)
    steps = np.arange(n + 1) / n
    distance = max((law - steps[:-1]).max(), (steps[1:] - law).max())
    return distance, shape, -shape / theta * unit
