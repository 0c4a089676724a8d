"""Noise with a given moment, and many runs at once.

All runs of a setting, its seeds and its values of α, are one array and one XLA program. Numbers are
float64: a float32 uniform has 2^23 values, which would cut off the tail that is to be shown.
"""

import functools

import numpy as np
import tensorflow as tf

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
