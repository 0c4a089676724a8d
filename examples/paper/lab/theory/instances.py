"""What the instances of `convergence_rates.py` share: their noise and Theorem 4's constants."""

import numpy as np
import tensorflow as tf

from keras_acclip import thresholds

from . import simulate

SIGMA = 0.3  # (E‖ξ‖^α)^{1/α}, in units of the gradient.
RADIUS = 1.0  # Of the domain of the strongly convex function.
BOUND = SIGMA + RADIUS  # G: Minkowski's inequality for noise and gradient.


def noise_law(alphas, sigma, excess):
    """Tail index and scale of the Pareto noise whose α-moment is sigma^α, one for each α."""
    indices = alphas + excess
    return indices, simulate.pareto_scale(indices, alphas, sigma)


def column(values):
    """One value for each α as a float64 column, which goes with arrays of shape `(α, seeds)`."""
    return tf.constant(np.asarray(values)[:, None], tf.float64)


def symmetric_noise(seed, k, shape, law):
    """Symmetric Pareto noise on the line, the same uniform numbers for every α."""
    u = simulate.uniform(seed, k, shape)
    return tf.sign(u) * simulate.pareto_radius(u, *map(column, law))


def schedules(gradient_moment, alphas):
    """Theorem 4's η_k, a scalar, and τ_k, a column, as a function of k."""
    made = [thresholds.strongly_convex_constants(gradient_moment, 1.0, a) for a in alphas]

    def at(k):
        taus = tf.stack([constants.threshold(k - 1) for constants in made])
        rate = made[0].learning_rate(k - 1)
        return tf.cast(rate, tf.float64), tf.cast(taus, tf.float64)[:, None]

    return at
