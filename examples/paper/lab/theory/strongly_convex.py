"""Theorem 4's rate: projected GClip on a strongly convex function."""

import numpy as np
import tensorflow as tf
from keras import ops

from keras_acclip import rules

from . import simulate, slopes
from .exponents import ALPHAS, bound_exponent
from .instances import BOUND, RADIUS, SIGMA, noise_law, schedules, symmetric_noise


@simulate.compiled
def projected_gclip(checkpoints, seed, seeds, excess):
    """Errors f(x̄_k) of projected GClip on x²/2, shape `(checkpoints, α, seeds)`."""
    law = noise_law(ALPHAS, SIGMA, excess)
    constants = schedules(BOUND, ALPHAS)

    def advance(k, x, average):
        rate, threshold = constants(k)
        average = rules.linear_average(average, x, tf.cast(k, tf.float64))
        g = x + symmetric_noise(seed, k, (seeds,), law)
        x = x - rate * rules.GClip().factor(tf.abs(g), threshold, ops) * g
        return x * rules.projection_factor(tf.abs(x), RADIUS, ops), average

    start = tf.fill((len(ALPHAS), seeds), tf.constant(RADIUS, tf.float64))
    return simulate.record(
        advance, [start, start], checkpoints, lambda k, x, average: average**2 / 2
    )


def theorem_4_bound(steps, alpha, gradient_moment, strong_convexity=1.0):
    """The error that Theorem 4's proof allows at each of the steps.

    With the schedules of `strongly_convex_constants` the proof's recursion, multiplied by k, sums
    to K(K+1)/2·E(f(x̄) − f*) ≤ 3·G²/μ·Σ k^{2/α−1}: variance gives twice that sum, bias once.
    """
    sums = np.cumsum(np.arange(1.0, max(steps) + 1) ** (2 / alpha - 1))
    steps = np.asarray(steps)
    return 6 * gradient_moment**2 / strong_convexity / (steps * (steps + 1.0)) * sums[steps - 1]


def expected_error(steps, alpha, excess):
    """The error of projected GClip up to a constant: truncated variance over k (see above)."""
    (index,), (scale,) = noise_law(np.array([alpha]), SIGMA, excess)
    steps = np.asarray(steps, float)
    threshold = rules.power_threshold(steps, BOUND, alpha)
    cut = np.minimum(threshold, RADIUS * (steps + 1) / 4)
    return simulate.truncated_second_moment(index, scale, cut) / steps


def fitted_from(alpha, steps):
    """The k from which the slope is fitted: the last two decades, past the projection's part.

    In `expected_error` the cut is τ_k = G·k^{1/α} from k = (4G/μR)^{α/(α−1)} on; where that is
    beyond the last decade, the fit begins there nevertheless.
    """
    clipped = (4 * BOUND / RADIUS) ** (alpha / (alpha - 1))
    return min(max(steps / 100, clipped), steps / 10)


def strongly_convex(options):
    """Theorem 4's rate: a fit for each α over the late k."""
    steps = simulate.checkpoints(10, options.steps, per_decade=4)
    errors = projected_gclip(tf.constant(steps), 0, options.seeds, options.excess).numpy()
    fits = []
    for alpha, by_step in zip(ALPHAS, errors.swapaxes(0, 1), strict=True):
        first = fitted_from(alpha, options.steps)
        fitted = slopes.fit(steps, by_step, first)
        late = steps >= first
        bound = bound_exponent(alpha)
        limits = theorem_4_bound(steps, alpha, BOUND)
        expected = slopes.slope(steps[late], expected_error(steps[late], alpha, options.excess))
        fits.append(
            {"alpha": alpha, "bound": bound, "verdict": slopes.verdict(fitted, bound)}
            | {
                "first": first,
                "expected": float(expected),
                "share": float(np.max(by_step.mean(-1) / limits)),
            }
            | fitted
        )
    return fits
