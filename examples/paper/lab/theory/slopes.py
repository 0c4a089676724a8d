"""Slopes of errors over steps, fitted with intervals, and compared with a theorem's exponent."""

import numpy as np
from scipy import stats

RESAMPLES = 1000


def slope(steps, errors):
    """The least-squares slope of log error on log steps; errors of shape `(steps, ...)`."""
    return np.polyfit(np.log(steps), np.log(errors), 1)[0]


def fit(steps, errors, first=0, confidence=0.95):
    """Mean error and its log–log slope, with bootstrap intervals over seeds.

    A seed is drawn with its errors at all steps, so that the interval allows for their dependence.

    Args:
        steps: k or K, ascending, shape `(m,)`.
        errors: Shape `(m, seeds)`.
        first: The slope is fitted to the steps from here on.
        confidence: Of the percentile intervals.

    Returns:
        dict of `steps`, `mean`, `mean_low`, `mean_high` (lists), `slope`, `low` and `high`.
    """
    steps, errors = np.asarray(steps), np.asarray(errors)
    means = stats.bootstrap(
        (errors,),
        np.mean,
        axis=-1,
        n_resamples=RESAMPLES,
        batch=20,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    fitted = steps >= first
    slopes = slope(steps[fitted], means.bootstrap_distribution[fitted])
    low, high = np.quantile(slopes, [(1 - confidence) / 2, (1 + confidence) / 2])
    interval = means.confidence_interval
    return {
        "steps": steps.tolist(),
        "mean": errors.mean(-1).tolist(),
        "mean_low": interval.low.tolist(),
        "mean_high": interval.high.tolist(),
        "slope": float(slope(steps[fitted], errors.mean(-1)[fitted])),
        "low": float(low),
        "high": float(high),
    }


def verdict(fitted, bound):
    """A fitted slope beside a theorem's exponent, which bounds it from above."""
    if fitted["high"] < bound:
        return "below"
    return "above" if fitted["low"] > bound else "matches"


# --- To read ---------------------------------------------------------------------------------


def interval(fitted):
    """A fitted slope and its interval as text."""
    return f"{fitted['slope']:+.3f} [{fitted['low']:+.3f}, {fitted['high']:+.3f}]"


def bars(axes, alphas, fits, **style):
    """Draws fitted slopes against α, a point and its interval each; style as for `errorbar`."""
    slopes, low, high = (np.array([row[key] for row in fits]) for key in ("slope", "low", "high"))
    # A bootstrap interval need not hold the slope itself.
    errors = np.maximum([slopes - low, high - slopes], 0)
    axes.errorbar(alphas, slopes, errors, **{"fmt": "o", "linestyle": "none", "capsize": 3} | style)
