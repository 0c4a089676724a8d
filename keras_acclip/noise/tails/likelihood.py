"""Maximum likelihood for the laws of norms."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from scipy import optimize, special

from keras_acclip.noise.tails.laws import norm_law

Fit: TypeAlias = tuple[float, float, float]
"""The α, the dimension and the scale of a law."""

LEAST_ALPHA = 0.5
MOST_DIMENSIONS = 5e5


def log_likelihood(norms: np.ndarray, law: Any, scale: float) -> float:
    """Returns the log-likelihood of norms under a law of standard norms, scaled."""
    return np.sum(law.logpdf(norms / scale)) - len(norms) * math.log(scale)


def fit_gaussian(norms: np.ndarray, dimension: float | None = None) -> Fit:
    """Fits a scaled χ law by maximum likelihood: squares follow a gamma law with shape d/2.

    SciPy's `chi.fit` and `gamma.fit` lose the many digits that narrow samples need: of 500 norms of
    dimension 10,000 `chi.fit` finds 3,758, at 105 nats less.

    Args:
        norms: The norms.
        dimension: d, or `None` to fit it as well.
    """
    mean = np.mean((norms / norms.max()) ** 2)
    if dimension is None:
        deviations = (norms / norms.max()) ** 2 / mean - 1
        # Near 0 a deviation has more digits than its square; near -1 it has none of them.
        near = np.log1p(np.maximum(deviations, -0.5))
        far = 2 * np.log(norms / norms.max()) - math.log(mean)
        gap = np.mean(deviations - np.where(deviations > -0.5, near, far))

        def excess(log_dimension: float) -> float:
            return _log_minus_digamma(math.exp(log_dimension) / 2) - gap

        dimension = 1.0
        if excess(0.0) > 0:
            root: Any = optimize.brentq(excess, 0.0, 2 - math.log(gap))
            dimension = math.exp(root)
    return 2.0, dimension, norms.max() * math.sqrt(mean / dimension)


def _log_minus_digamma(x: float) -> float:
    if x > 1e4:
        return 1 / (2 * x) + 1 / (12 * x**2)
    return math.log(x) - special.digamma(x)


def fit_stable(
    norms: np.ndarray, alpha: float | None = None, dimension: float | None = None
) -> Fit:
    """Fits the law of the norms of isotropic α-stable vectors by maximum likelihood.

    It looks over a grid, and goes on from the best point by Nelder-Mead.

    Args:
        norms: The norms.
        alpha: α, or `None` to fit it as well.
        dimension: d, or `None` to fit it as well.
    """
    median = np.median(norms)
    center = norms / median
    core = np.subtract(*np.quantile(np.log(center), [0.75, 0.25])) / 1.35
    dimensions = np.clip([0.5 / core**2, 1 / core**2, 4 / core**2], 1, MOST_DIMENSIONS)
    starts = [
        (a, d, 1 / norm_law(a, d).ppf(0.5))
        for a in ([1.0, 1.4, 1.7, 1.9, 1.99] if alpha is None else [alpha])
        for d in (np.unique(dimensions) if dimension is None else [dimension])
    ]

    def loss(alpha: float, dimension: float, scale: float) -> float:
        return -log_likelihood(center, norm_law(alpha, dimension), scale)

    best = min(starts, key=lambda start: loss(*start))
    bounds = ((LEAST_ALPHA, 2.0), (0.0, math.log(MOST_DIMENSIONS)), (None, None))
    free = [i for i, given in enumerate((alpha, dimension, None)) if given is None]
    point = np.array([best[0], math.log(best[1]), math.log(best[2])])

    def free_loss(values: np.ndarray) -> float:
        point[free] = values
        return loss(point[0], math.exp(point[1]), math.exp(point[2]))

    point[free] = optimize.minimize(
        free_loss,
        point[free],
        method="Nelder-Mead",
        bounds=[bounds[i] for i in free],
        options={"xatol": 1e-3, "fatol": 1e-3},
    ).x
    return point[0], math.exp(point[1]), math.exp(point[2]) * median
