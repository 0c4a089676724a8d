"""The norms of Gaussian and of α-stable vectors, fitted to a sample."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from keras_acclip._utils import arguments
from keras_acclip.noise.tails.laws import norm_law
from keras_acclip.noise.tails.likelihood import (
    LEAST_ALPHA,
    MOST_DIMENSIONS,
    Fit,
    fit_gaussian,
    fit_stable,
    log_likelihood,
)
from keras_acclip.noise.tails.samples import (
    LEAST_FOR_TAIL,
    all_positive,
    checked_sample,
    varying,
)

_LEAST_LOG_SPREAD = 1e-3


@dataclass(frozen=True)
class Reference:
    """The law of the norms of Gaussian or α-stable vectors, scaled to a sample.

    Attributes:
        family: `"gaussian"` or `"stable"`.
        alpha: Stability index of the vectors; 2 for Gaussian ones.
        dimension: Effective dimension of the vectors, at least 1; not a whole number in general.
        scale: Factor on the norm of a vector of standard coordinates, in the sample's unit.
        log_likelihood: Log-likelihood of the sample, in nats.
        ks: Kolmogorov-Smirnov distance between sample and law.
        p_value: Probability of a distance as large if the norms follow a law of this family.
        sample_quantiles: The sorted sample; shape `(n,)`.
        reference_quantiles: The law's quantiles at (i − ½)/n; shape `(n,)`. With
            `sample_quantiles`, the data of a quantile-quantile plot.

    Example:

    >>> import numpy as np
    >>> from keras_acclip.noise import tails
    >>> norms = np.linalg.norm(np.random.default_rng(0).normal(size=(500, 10)), axis=1)
    >>> reference = tails.gaussian_reference(norms)
    >>> reference.family, round(reference.dimension)
    ('gaussian', 10)
    """

    family: str
    alpha: float
    dimension: float
    scale: float
    log_likelihood: float
    ks: float
    p_value: float
    sample_quantiles: np.ndarray
    reference_quantiles: np.ndarray

    def pdf(self, x: ArrayLike) -> np.ndarray:
        """Density at `x`, per unit of the sample; the shape of `x`."""
        return np.exp(self.logpdf(x))

    def logpdf(self, x: ArrayLike) -> np.ndarray:
        """Log-density at `x`; the shape of `x`."""
        return norm_law(self.alpha, self.dimension).logpdf(np.asarray(x) / self.scale) - math.log(
            self.scale
        )

    def cdf(self, x: ArrayLike) -> np.ndarray:
        """Probability of a norm of at most `x`; the shape of `x`."""
        return norm_law(self.alpha, self.dimension).cdf(np.asarray(x) / self.scale)

    def ppf(self, q: ArrayLike) -> np.ndarray:
        """Norm that a share `q` lies below, in the sample's unit; the shape of `q`."""
        return self.scale * norm_law(self.alpha, self.dimension).ppf(q)

    def rvs(self, size: int | tuple[int, ...], seed: int = 0) -> np.ndarray:
        """Draws norms of random vectors of this law, for `size` of any shape.

        A Gaussian norm is `scale` times a χ variable; an α-stable one is that times √A, A a
        positive stable variable of index α/2 drawn with `scipy.stats.levy_stable`.
        """
        return self.scale * norm_law(self.alpha, self.dimension).rvs(
            size=size, random_state=np.random.default_rng(seed)
        )


def gaussian_reference(
    sample: ArrayLike, dimension: float | None = None, seed: int = 0
) -> Reference:
    """Fits the norms of Gaussian vectors to a sample of norms.

    The norm of a d-dimensional vector of independent N(0, scale²) coordinates is `scale` times a χ
    variable with d degrees of freedom. Scale and d are those of maximum likelihood. Unless given,
    d is an effective dimension: noise whose coordinates differ in variance, as a gradient's do, has
    norms like those of fewer, equal ones.

    Args:
        sample: Norms, shape `(n,)`, finite and positive, not constant; at least 20.
        dimension: d, at least 1. Default: fitted.
        seed: Seed of the random half that `p_value` is computed with. Defaults to 0.

    Returns:
        A `Reference`. Its `p_value` allows for the fit: the law is fitted to a random half and then
        compared with the whole, which restores the Kolmogorov-Smirnov law (Durbin's device).

    Raises:
        ValueError: If the sample is too small, not one-dimensional or constant, or holds NaN,
            infinite, negative or zero values; if `dimension` is below 1.

    Example:
        >>> norms = np.linalg.norm(np.random.default_rng(0).normal(size=(500, 100)), axis=1)
        >>> gaussian_reference(norms).p_value > 0.01
        True

    References:
        Zhang et al. (2020), Figure 1 (c). M. A. Stephens, "On the half-sample method for
        goodness-of-fit", Journal of the Royal Statistical Society B 40 (1978).
    """
    norms = all_positive(varying(checked_sample(sample, LEAST_FOR_TAIL)))
    if dimension is not None:
        dimension = arguments.real("dimension", dimension, low=1)
    fit = functools.partial(fit_gaussian, dimension=dimension)
    return _reference("gaussian", norms, fit, seed)


def stable_reference(
    sample: ArrayLike,
    alpha: float | None = None,
    dimension: float | None = None,
    seed: int = 0,
) -> Reference:
    """Fits the norms of isotropic α-stable vectors to a sample of norms.

    Such a vector is √A times a Gaussian one, A positive and stable with index α/2; in one dimension
    its norm is |X| of a symmetric α-stable X, and α = 2 is the Gaussian reference. Vectors of many
    independent α-stable coordinates have norms of the same law, at large d. α, d and the scale are
    those of maximum likelihood, with an exact density by Fourier inversion of the law of log-norms.

    Args:
        sample: Norms, shape `(n,)`, finite and positive; at least 20. The standard deviation of
            their logarithms must be at least 0.001 for the law to be resolved.
        alpha: Stability index in [0.5, 2]. Default: fitted.
        dimension: Effective dimension, from 1 to 500,000. Default: fitted.
        seed: Seed of the random half that `p_value` is computed with. Defaults to 0.

    Returns:
        A `Reference`, its `p_value` as in `gaussian_reference`.

    Raises:
        ValueError: If the sample is too small, not one-dimensional or varies too little, or holds
            NaN, infinite, negative or zero values; if `alpha` or `dimension` is out of range.

    Example:
        >>> norms = np.abs(np.random.default_rng(0).standard_cauchy(size=500))
        >>> round(stable_reference(norms, dimension=1).alpha)
        1

    References:
        Zhang et al. (2020), Figure 1 (g); G. Samorodnitsky, M. S. Taqqu, Stable Non-Gaussian Random
        Processes (1994), section 2.5 (sub-Gaussian vectors). p-value: Stephens (1978).
    """
    norms = all_positive(varying(checked_sample(sample, LEAST_FOR_TAIL)))
    if np.log(norms).std() < _LEAST_LOG_SPREAD:
        raise ValueError(
            f"The norms' logarithms have a standard deviation of {np.log(norms).std():.2g}; an "
            f"α-stable reference needs at least {_LEAST_LOG_SPREAD:g}."
        )
    if alpha is not None:
        alpha = arguments.real("alpha", alpha, low=LEAST_ALPHA, high=2)
    if dimension is not None:
        dimension = arguments.real("dimension", dimension, low=1, high=MOST_DIMENSIONS)
    fit = functools.partial(fit_stable, alpha=alpha, dimension=dimension)
    return _reference("stable", norms, fit, seed)


def _reference(
    family: str, norms: np.ndarray, fit: Callable[[np.ndarray], Fit], seed: int
) -> Reference:
    alpha, dimension, scale = fit(norms)
    law = norm_law(alpha, dimension)
    half = np.random.default_rng(seed).choice(norms, size=len(norms) // 2, replace=False)
    half_alpha, half_dimension, half_scale = fit(half)
    p_value = stats.kstest(norms / half_scale, norm_law(half_alpha, half_dimension).cdf).pvalue
    return Reference(
        family=family,
        alpha=float(alpha),
        dimension=float(dimension),
        scale=float(scale),
        log_likelihood=float(log_likelihood(norms, law, scale)),
        ks=float(stats.kstest(norms / scale, law.cdf).statistic),
        p_value=float(p_value),
        sample_quantiles=np.sort(norms),
        reference_quantiles=scale * law.ppf((np.arange(len(norms)) + 0.5) / len(norms)),
    )
