"""What the norms of a sample of gradient noise say, and how two samples differ."""

import numpy as np
from scipy import stats

from keras_acclip.noise import tails


def describe(sample):
    """The numbers of one sample: its spread, its tail with intervals, its verdict.

    Args:
        sample: A `NoiseSample`.

    Returns:
        dict: `norm` (mean), `spread` (standard deviation of the norms over their mean), `largest`
        (over the median), `variance_at_quarter` (variance of the norms in a quarter of the sample
        over that in all of it; lowest and highest of 8 random orders), `kurtosis` (excess), `hill`,
        `excess` (index, low, high; shape ξ, low, high), fits of the references, verdict, reason.
    """
    norms, verdict = sample.norms, sample.classify()
    growth = tails.variance_growth(norms)
    quarter = growth.variances[:, len(norms) // 4 - 2] / growth.variances[:, -1]
    found = {
        "norms": len(norms),
        "nonfinite": sample.nonfinite,
        "norm": sample.norm,
        "mean_gradient_norm": sample.mean_gradient_norm,
        "spread": spread(norms),
        "largest": float(norms.max() / np.median(norms)),
        "variance_at_quarter": [float(quarter.min()), float(quarter.max())],
        "kurtosis": verdict.kurtosis,
        "verdict": verdict.label,
        "reason": verdict.reason,
    }
    if verdict.hill:
        found["hill"] = [verdict.hill.alpha, verdict.hill.low, verdict.hill.high]
        found["excess"] = [verdict.excess.shape, verdict.excess.low, verdict.excess.high]
    for family, fit in (
        ("gaussian", tails.gaussian_reference),
        ("stable", tails.stable_reference),
    ):
        try:
            law = fit(norms)
        except ValueError:  # Too few norms, or too little spread: there is no such law.
            continue
        found[family] = {"alpha": law.alpha, "p_value": law.p_value, "ks": law.ks}
    return found


def spread(norms, axis=-1):
    """Standard deviation of the norms over their mean."""
    return np.std(norms, axis=axis, ddof=1) / np.mean(norms, axis=axis)


def tail_weight(norms, axis=-1):
    """One over Hill's tail index, from the largest tenth of the norms; above 1/2 is heavy."""
    k = largest_count(norms.shape[axis])
    largest = np.sort(np.moveaxis(norms, axis, -1), axis=-1)[..., -k - 1 :]
    return np.mean(np.log(largest[..., 1:] / largest[..., :1]), axis=-1)


def largest_count(count):
    """How many of so many norms are the largest tenth; at least 10."""
    return max(10, count // 10)


def difference(first, second, confidence=0.95):
    """How much wider one network's noise spreads than another's, over batches that both saw.

    Args:
        first: `NoiseSample` of the one.
        second: Of the other, on the same rows with the same masks in the same order.
        confidence: Of the intervals.

    Returns:
        dict from `"spread"` and `"tail_weight"` to the difference, first − second, with the ends of
        its paired bootstrap interval (percentiles of 2,000 resamples of the batches).
    """
    found = {}
    for statistic in (spread, tail_weight):
        result = stats.bootstrap(
            (first.norms, second.norms),
            lambda a, b, axis=-1, statistic=statistic: statistic(a, axis) - statistic(b, axis),
            paired=True,
            vectorized=True,
            n_resamples=2000,
            method="percentile",
            confidence_level=confidence,
            rng=0,
        )
        value = statistic(first.norms) - statistic(second.norms)
        interval = result.confidence_interval
        found[statistic.__name__] = [float(v) for v in (value, interval.low, interval.high)]
    return found
