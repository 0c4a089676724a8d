"""Theorem 2's rate: GClip on a smooth function without a minimum."""

import numpy as np
import tensorflow as tf
from keras import ops

from keras_acclip import rules, thresholds

from . import simulate, slopes
from .exponents import ALPHAS, nonconvex_exponent
from .instances import SIGMA, column, noise_law

FLATNESS = 0.1  # q of the function.
START = 1.0  # Where it is started, in x.
GAP = (1 + START**2) ** (-FLATNESS / 2) / FLATNESS  # F₀; its smoothness L is 1.


def nonconvex_gradient(x, y):
    """∇f of f(x, y) = (1 + x²)^{−q/2}/q + y²/2."""
    return -x * (1 + x * x) ** (-FLATNESS / 2 - 1), y


@simulate.compiled
def mean_gradient_norm(steps, rate, threshold, seed, seeds, excess):
    """‖∇f(x_k)‖ of GClip, averaged over k = 0 … steps − 1; shape `(α, seeds)`."""
    law = [column(values) for values in noise_law(ALPHAS, SIGMA, excess)]

    def advance(k, x, y, total):
        gx, gy = nonconvex_gradient(x, y)
        total = total + tf.sqrt(gx * gx + gy * gy)
        u = simulate.uniform(seed, k, (2, seeds))
        radius = simulate.pareto_radius(u[0], *law)
        gx, gy = gx + radius * tf.cos(np.pi * u[1]), gy + radius * tf.sin(np.pi * u[1])
        factor = rate * rules.GClip().factor(tf.sqrt(gx * gx + gy * gy), threshold, ops)
        return x - factor * gx, y - factor * gy, total

    zero = tf.zeros((len(ALPHAS), seeds), tf.float64)
    only = tf.reshape(steps, (1,))
    total = simulate.record(advance, [zero + START, zero, zero], only, lambda k, x, y, total: total)
    return total[0] / tf.cast(steps, tf.float64)


def balanced_constants(alpha, steps):
    """Theorem 2's η and τ where K is large enough for τ's last term to be the largest."""
    threshold = thresholds.balanced_threshold(1.0, SIGMA, alpha, steps, GAP)
    return min(1 / 4, (SIGMA / threshold) ** alpha), threshold


def steps_of_the_literal_constants(alpha):
    """The K from which `nonconvex_constants` are the balanced ones."""
    other = thresholds.nonconvex_constants(1.0, SIGMA, alpha, 1, GAP).threshold
    return GAP * other ** (3 * alpha - 2) / SIGMA ** (3 * alpha)


def nonconvex(options):
    """Theorem 2's rate: a fit over runs of several lengths K, each with its own constants."""
    horizons = simulate.checkpoints(
        max(10, options.nonconvex_steps // 30), options.nonconvex_steps, per_decade=4
    )
    errors = []
    for number, steps in enumerate(horizons):
        constants = [balanced_constants(alpha, int(steps)) for alpha in ALPHAS]
        rate, threshold = map(column, zip(*constants, strict=True))
        run = (rate, threshold, tf.constant(number), options.nonconvex_seeds, options.excess)
        errors.append(mean_gradient_norm(tf.constant(steps), *run).numpy())
    fits = []
    for alpha, by_horizon in zip(ALPHAS, np.stack(errors, 1), strict=True):
        fitted = slopes.fit(horizons, by_horizon)
        bound = nonconvex_exponent(alpha)
        expected = 2 * bound * (FLATNESS + 1) / (FLATNESS + 2)
        fits.append(
            {"alpha": alpha, "bound": bound, "verdict": slopes.verdict(fitted, bound)}
            | {"expected": expected, "literal_from": steps_of_the_literal_constants(alpha)}
            | fitted
        )
    return fits
