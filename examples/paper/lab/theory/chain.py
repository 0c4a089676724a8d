"""Theorem 6's hard instance: a chain that a method must enter coordinate by coordinate."""

import numpy as np
import tensorflow as tf
from scipy import optimize, stats

LIPSCHITZ, DROP = 152, 12  # Of ∇F; of F(0) − inf F for each coordinate.
LARGEST = np.exp(1.5)  # The gradient of F in its newest coordinate is below it.
SMOOTHNESS, SIGMA = 1.0, 1.0  # L and σ of Theorem 6: its units.
LONGEST_CHAIN = 2000  # Longer ones are not tried.


def psi(t):
    """Ψ and its derivative."""
    t = tf.convert_to_tensor(t)
    # Where 2t − 1 is small the value is 0 in float64.
    distance = tf.maximum(2 * t - 1, 1e-2)
    value = tf.where(t > 0.5, tf.exp(1 - 1 / distance**2), 0.0)
    return value, value * 4 / distance**3


def phi(t):
    """Φ and its derivative."""
    return (
        np.sqrt(np.e * np.pi / 2) * tf.math.erfc(-t / np.sqrt(2)),
        np.sqrt(np.e) * tf.exp(-(t**2) / 2),
    )


def chain_gradient(v, length):
    """∇F of the chain of `length` coordinates.

    Args:
        v: Shape `(..., d)` with d ≥ length; further coordinates do nothing.
        length: T, an integer scalar.
    """
    index = tf.range(v.shape[-1])
    one = tf.ones_like(v[..., :1])
    before = tf.concat([one, v[..., :-1]], -1)
    after = tf.concat([v[..., 1:], 0 * one], -1)
    own = -psi(tf.abs(before))[0] * phi(v)[1]
    following = -psi(tf.abs(v))[1] * phi(tf.sign(v) * after)[0]
    return tf.where(index < length, own, 0.0) + tf.where(index < length - 1, following, 0.0)


def newest(v):
    """Which coordinates are behind the last one over 1/4 in size."""
    index = tf.range(1, v.shape[-1] + 1)
    progress = tf.reduce_max(tf.where(tf.abs(v) > 0.25, index, 0), -1, keepdims=True)
    return index > progress


def chance(gradient, alpha, sigma=SIGMA):
    """The p at which the newest coordinate's noise has the α-moment sigma^α.

    Args:
        gradient: e^{3/2}·γ, the largest gradient that the noise multiplies.
        alpha: α.
        sigma: σ.
    """

    def excess(p):
        moment = p ** (1 - alpha) * (1 - p) ** alpha + 1 - p
        return alpha * np.log(gradient / sigma) + np.log(moment)

    return optimize.brentq(excess, 1e-300, 1 - 1e-12, xtol=1e-300, rtol=1e-12)


def chain(alpha, steps, initial_gap):
    """The hard chain for K steps.

    Returns:
        The tuple of the length T, γ, p and the bound.
    """
    lengths = np.arange(1, LONGEST_CHAIN + 1)
    gammas = np.sqrt(initial_gap * SMOOTHNESS / (DROP * LIPSCHITZ * lengths))
    chances = np.array([chance(LARGEST * gamma, alpha) for gamma in gammas])
    bounds = gammas * stats.binom.cdf(lengths - 1, steps, chances)
    best = bounds.argmax()
    return int(lengths[best]), gammas[best], chances[best], bounds[best]
