"""Whether a power law can be read from a sample of norms: its fit, its end, its order."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from keras_acclip.noise.tails.excesses import ExcessEstimate
from keras_acclip.noise.tails.samples import LEAST_FOR_TAIL, checked_sample, varying
from keras_acclip.noise.tails.tail_index import TailEstimate


def fit_p_value(fit: ExcessEstimate) -> float:
    """How often excesses that do follow a generalized Pareto law lie as far from its fit.

    A mixture of batches of very different sizes has a gap that no power law has, though its index
    looks small. The statistic is √k times the Kolmogorov-Smirnov distance D. As the law was fitted
    to the same excesses, its quantiles are not Kolmogorov's: p = 7.2·exp(−6.95·k·D²), at most 1,
    was fitted to simulations, for shapes from 0.3 to 1 and 48 to 200 excesses; below 0.1 it is
    within a half of what they gave.

    Args:
        fit: What `generalized_pareto` returned, best with `k` given: a threshold chosen for its
            small distance makes p too large.

    Returns:
        The p-value, from 0 to 1.

    Example:
        >>> norms = 1 + np.random.default_rng(0).pareto(1.5, size=500)
        >>> fit_p_value(generalized_pareto(norms, k=67)) > 0.01
        True

    References:
        V. Choulakian, M. A. Stephens, "Goodness-of-fit tests for the generalized Pareto
        distribution", Technometrics 43 (2001), by simulation alike.
    """
    return min(1.0, 7.2 * math.exp(-6.95 * fit.k * fit.distance**2))


def end_p_value(sample: ArrayLike, fit: TailEstimate) -> float:
    """How often the largest norm of a power law is as small as this one.

    A tail that ends (a model that knows its examples by heart, a cut gradient, a lighter law far
    out) looks like a power law below its end. With the k largest above τ and the index α, the
    probability is exp(−k·(τ/largest)^α).

    Args:
        sample: The norms, shape `(n,)`, that the fit is of.
        fit: What `hill` returned.

    Returns:
        The p-value, from 0 to 1.

    Raises:
        ValueError: As `hill`.

    Example:
        >>> norms = np.minimum(1 + np.random.default_rng(0).pareto(1.0, size=500), 20)
        >>> end_p_value(norms, hill(norms)) < 0.04
        True

    References:
        I. B. Aban, M. M. Meerschaert, A. K. Panorska, "Parameter estimation for the truncated
        Pareto distribution", Journal of the American Statistical Association 101 (2006), section 3.
    """
    largest = checked_sample(sample, LEAST_FOR_TAIL).max()
    return math.exp(-fit.k * (fit.threshold / largest) ** fit.alpha)


def trend_p_value(sample: ArrayLike) -> float:
    """How often norms that don't depend on each other rise or fall as steadily along the sample.

    Norms that shrink while the weights move spread as a heavy tail does, and are none. The test is
    Spearman's rank correlation between a norm and its place.

    Args:
        sample: Norms in the order taken, shape `(n,)`, finite and non-negative; at least 20.

    Returns:
        The p-value, from 0 to 1.

    Raises:
        ValueError: If the sample is too small, not one-dimensional or constant, or holds NaN,
            infinite or negative values.

    Example:
        >>> trend_p_value(1 / np.arange(1.0, 257.0)) < 0.001
        True
    """
    norms = varying(checked_sample(sample, LEAST_FOR_TAIL))
    result = stats.spearmanr(np.arange(len(norms)), norms)
    return float(result.pvalue)  # pyright: ignore[reportAttributeAccessIssue]
