"""Theorem 8 and Corollary 7: how the errors of GClip and CClip grow with the dimension."""

import numpy as np
import tensorflow as tf
from keras import ops

from keras_acclip import rules

from . import simulate, slopes
from .instances import noise_law, schedules, symmetric_noise

DIMENSION_ALPHA = 1.2


@simulate.compiled
def both_clips(steps, seed, seeds, dimension, excess):
    """Errors f(x̄_K) of GClip and of CClip on ‖x‖²/2 with the same noise, shape `(2, seeds)`."""
    alphas = np.array([DIMENSION_ALPHA])
    coordinate_moment = dimension**-0.5
    moment = dimension ** (1 / DIMENSION_ALPHA) * coordinate_moment
    law = noise_law(alphas, coordinate_moment, excess)
    globally, by_coordinate = schedules(moment, alphas), schedules(coordinate_moment, alphas)

    def advance(k, x, average):
        average = rules.linear_average(average, x, tf.cast(k, tf.float64))
        g = x + symmetric_noise(seed, k, (seeds, dimension), law)
        rate, threshold = globally(k)
        norm = tf.norm(g[0], axis=-1, keepdims=True)
        clipped = [
            g[0] * rules.GClip().factor(norm, threshold, ops),
            rules.clipped_coordinates(g[1], by_coordinate(k)[1], ops),
        ]
        return x - rate * tf.stack(clipped), average

    start = tf.fill((2, seeds, dimension), tf.constant(coordinate_moment, tf.float64))
    return simulate.record(
        advance,
        [start, start],
        tf.reshape(steps, (1,)),
        lambda k, x, average: tf.reduce_sum(average**2, -1) / 2,
    )[0]


def dimension_free(options):
    """Errors of GClip and CClip for growing dimension; a block of seeds where d is small."""
    dimensions = simulate.checkpoints(1, options.dimension, per_decade=1)
    errors = []
    for dimension in dimensions.tolist():
        block = round((options.dimension / dimension) ** 0.5)
        run = (2, block * options.dimension_seeds, dimension, options.excess)
        found = both_clips(tf.constant(options.dimension_steps), *run).numpy()
        errors.append(found.reshape(2, options.dimension_seeds, block).mean(-1))
    fits = []
    for method, by_dimension in zip(("GClip", "CClip"), np.stack(errors, 1), strict=True):
        fitted = slopes.fit(dimensions, by_dimension)
        bound = 2 / DIMENSION_ALPHA - 1 if method == "GClip" else 0.0
        fits.append(
            {"method": method, "bound": bound, "verdict": slopes.verdict(fitted, bound)} | fitted
        )
    return fits
