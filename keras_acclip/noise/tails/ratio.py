"""A test of one law against a wider one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from keras_acclip.noise.tails.references import Reference


@dataclass(frozen=True)
class LikelihoodRatio:
    """A test of one reference against a wider one on the same sample.

    Attributes:
        statistic: Twice the log-likelihood that the wider law gains, in nats.
        p_value: Probability of at least that gain if the narrower law holds.

    Example:

    >>> import numpy as np
    >>> from keras_acclip.noise import tails
    >>> norms = np.random.default_rng(0).pareto(1.5, 200) + 1
    >>> narrow, wide = tails.gaussian_reference(norms), tails.stable_reference(norms)
    >>> tails.likelihood_ratio(narrow, wide).p_value < 0.001
    True
    """

    statistic: float
    p_value: float


def likelihood_ratio(narrow: Reference, wide: Reference) -> LikelihoodRatio:
    """Tests the Gaussian reference against the α-stable one, which contains it as α = 2.

    It says whether the norms need α-stable vectors, or Gaussian ones will do. It compares the two
    with each other alone: look at the references' own `p_value` first, for norms of trained models
    often follow neither, and then the better one isn't true either.

    Args:
        narrow: The `Reference` held to be true unless the sample speaks against it: Gaussian.
        wide: The `Reference` of the wider family: stable, fitted to the same sample.

    Returns:
        A `LikelihoodRatio`. Its p-value is half the χ² law's with one degree of freedom, since
        α = 2 lies at the edge of the family. It errs on the large side: on Gaussian samples the
        gain is nearly always 0.

    Raises:
        ValueError: If the two don't belong to one sample.

    Example:
        >>> norms = np.abs(np.random.default_rng(0).standard_cauchy(size=500))
        >>> ratio = likelihood_ratio(gaussian_reference(norms), stable_reference(norms))
        >>> ratio.p_value < 0.001
        True

    References:
        S. G. Self, K.-Y. Liang, "Asymptotic properties of maximum likelihood estimators and
        likelihood ratio tests under nonstandard conditions", JASA 82 (1987), case 5.
    """
    if not np.array_equal(narrow.sample_quantiles, wide.sample_quantiles):
        raise ValueError("The two references are fitted to different samples.")
    statistic = 2 * (wide.log_likelihood - narrow.log_likelihood)
    if statistic <= 0:
        return LikelihoodRatio(float(statistic), 1.0)
    return LikelihoodRatio(float(statistic), float(0.5 * stats.chi2.sf(statistic, 1)))
