"""What the theory scripts share: noise with a given moment, many runs at once, fitted rates.

All runs of a setting, its seeds and its values of α, are one array and one XLA program. Numbers are
float64: a float32 uniform has 2^23 values, which would cut off the tail that is to be shown.
"""

import functools
import sys

import numpy as np
import script
import tensorflow as tf
from scipy import stats

RESAMPLES = 1000

compiled = functools.partial(tf.function, jit_compile=True, autograph=False)


# --- Noise -----------------------------------------------------------------------------------


def uniform(seed, step, shape):
    """Uniform numbers in (−1, 1), a function of seed and step alone, shape as given, float64."""
    return tf.random.stateless_uniform(
        shape, tf.stack([seed, step]), -1.0, 1.0, dtype=tf.float64, alg="philox"
    )


def pareto_radius(u, index, scale):
    """Pareto radius scale·|u|^{−1/index} for u uniform in (−1, 1): P(r > x) = (scale/x)^index."""
    # XLA's power of two arrays costs twice what exp and log do.
    return scale * tf.exp(-tf.math.log(tf.abs(u)) / index)


def pareto_scale(index, order, moment):
    """The scale at which a Pareto radius r has E r^order = moment^order.

    Args:
        index: Tail index, above `order`.
        order: α.
        moment: σ, in the units of r.
    """
    return moment * (1 - order / index) ** (1 / order)


def truncated_second_moment(index, scale, cut):
    """E min(r, cut)² of a Pareto radius r, for cut ≥ scale and index ≠ 2."""
    return scale**2 * (1 + 2 / (2 - index) * ((cut / scale) ** (2 - index) - 1))


# --- Runs ------------------------------------------------------------------------------------


def record(advance, state, checkpoints, measure):
    """Advances a state step by step and measures it at some of the steps.

    To be called in a function under `compiled`: steps and checkpoints are loops of the program.

    Args:
        advance: `advance(k, *state)` makes step k, an int32 scalar from 1; returns the new state.
        state: List of tensors, the state before step 1.
        checkpoints: Ascending int32 tensor of step numbers, at least one.
        measure: `measure(k, *state)` returns a float64 tensor: what to keep after step k.

    Returns:
        The measurements, stacked along a new first axis.
    """

    def to_checkpoint(i, k, *rest):
        *state, kept = rest
        k, *state = tf.while_loop(
            lambda k, *_: k <= checkpoints[i],
            lambda k, *state: (k + 1, *advance(k, *state)),
            (k, *state),
        )
        return i + 1, k, *state, kept.write(i, measure(checkpoints[i], *state))

    count = checkpoints.shape[0]
    kept = tf.TensorArray(tf.float64, size=count)
    loop = tf.while_loop(
        lambda i, *_: i < count, to_checkpoint, (tf.constant(0), tf.constant(1), *state, kept)
    )
    return loop[-1].stack()


def checkpoints(first, last, per_decade):
    """Whole numbers from `first` to `last`, evenly spaced in their logarithm."""
    count = 1 + max(1, round(per_decade * np.log10(last / first)))
    return np.unique(np.round(np.geomspace(first, last, count)).astype(np.int32))


# --- Rates -----------------------------------------------------------------------------------


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


def slope_bars(axes, alphas, fits, **style):
    """Draws fitted slopes against α, a point and its interval each; style as for `errorbar`."""
    slopes, low, high = (np.array([row[key] for row in fits]) for key in ("slope", "low", "high"))
    # A bootstrap interval need not hold the slope itself.
    errors = np.maximum([slopes - low, high - slopes], 0)
    axes.errorbar(alphas, slopes, errors, **{"fmt": "o", "linestyle": "none", "capsize": 3} | style)


# --- The command -----------------------------------------------------------------------------


def run(doc, scales, output, report, arguments=None):
    """Reads a script's command line and has it report.

    Args:
        doc: The script's docstring.
        scales: As in `script.parser`.
        output: The default output folder.
        report: `report(parts, options)` computes what is missing among the `script.Parts`, prints
            and saves it.
        arguments: The command line; `sys.argv`'s by default.

    Returns:
        The exit status.
    """
    options = script.parse(script.parser(doc, scales, output), scales, arguments)
    settings = {name: getattr(options, name) for name in scales["small"]}
    try:
        parts = script.Parts(options.output, settings)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    report(parts, options)
    return 0
