"""Remark 1: SGD's mean error under heavy-tailed noise, beside its median and GClip's."""

import numpy as np
import tensorflow as tf
from keras import ops

from keras_acclip import rules

from . import simulate, slopes
from .exponents import ALPHAS
from .instances import BOUND, RADIUS, SIGMA, noise_law, schedules, symmetric_noise

CONSTANT_RATE, ROOT_RATE = 0.1, 0.5  # SGD's η and η·√k.
METHODS = ("SGD, constant", "SGD, 1/√k", "SGD, 1/k", "GClip, 1/k")


@simulate.compiled
def last_iterates(checkpoints, seed, seeds, excess):
    """Errors f(x_k) on x²/2 without projection, shape `(checkpoints, METHODS, α, seeds)`."""
    law = noise_law(ALPHAS, SIGMA, excess)
    constants = schedules(BOUND, ALPHAS)

    def advance(k, x):
        g = x + symmetric_noise(seed, k, (seeds,), law)
        rate, threshold = constants(k)
        root = ROOT_RATE / tf.sqrt(tf.cast(k, tf.float64))
        step_sizes = tf.stack([tf.constant(CONSTANT_RATE, tf.float64), root, rate, rate])
        clipped = g[3] * rules.GClip().factor(tf.abs(g[3]), threshold, ops)
        return (x - step_sizes[:, None, None] * tf.stack([g[0], g[1], g[2], clipped]),)

    start = tf.fill((len(METHODS), len(ALPHAS), seeds), tf.constant(RADIUS, tf.float64))
    return simulate.record(advance, [start], checkpoints, lambda k, x: x**2 / 2)


def mean_by_seeds(errors):
    """The mean over n seeds, for n = 1, 2, 4, …: the median over disjoint sets of n seeds.

    Returns:
        The pair of lists n and mean.
    """
    counts = 2 ** np.arange(int(np.log2(len(errors) / 16)) + 1)
    means = [
        np.median(errors[: len(errors) // n * n].reshape(-1, n).mean(1)) for n in counts.tolist()
    ]
    return counts.tolist(), [float(mean) for mean in means]


def sgd(options):
    """Remark 1: SGD's median and mean error over time, and its mean over more and more seeds."""
    steps = simulate.checkpoints(10, options.sgd_steps, per_decade=4)
    errors = last_iterates(tf.constant(steps), 1, options.sgd_seeds, options.excess).numpy()
    runs = []
    for i, method in enumerate(METHODS):
        for j, alpha in enumerate(ALPHAS):
            median = np.median(errors[:, i, j], axis=-1)
            counts, means = mean_by_seeds(errors[-1, i, j])
            late = steps >= options.sgd_steps / 30
            many = np.array(counts) >= counts[-1] / 8
            growth = slopes.slope(np.array(counts)[many], np.array(means)[many])
            runs.append(
                {"method": method, "alpha": alpha, "steps": steps.tolist()}
                | {"median": median.tolist(), "mean": errors[:, i, j].mean(-1).tolist()}
                | {"median_slope": float(slopes.slope(steps[late], median[late]))}
                | {"counts": counts, "mean_by_seeds": means, "growth": float(growth)}
                | {"expected_growth": 2 / (alpha + options.excess) - 1}
                | {"largest_share": float(errors[-1, i, j].max() / errors[-1, i, j].sum())}
            )
    return runs
