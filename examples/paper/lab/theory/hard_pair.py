"""Theorem 5's hard instance: two parabolas that hardly any gradient tells apart."""

import numpy as np
import tensorflow as tf
from keras import ops

from keras_acclip import rules

from . import simulate
from .exponents import ALPHAS, bound_exponent
from .methods import Plan, acclip, adam, gclip, sgd, summary

RADIUS = 0.5  # Of the domain; with it G = μ = 1.


def pair(alpha, steps):
    """The hard pair for K steps.

    Returns:
        The tuple of p, the gradient's jump p^{−1/α}/2, the distance q of the minimum from 0, and
        the bound.
    """
    a = -bound_exponent(alpha)
    p = a / (a + steps)
    distance = RADIUS * p ** (1 - 1 / alpha)
    return p, RADIUS * p ** (-1 / alpha), distance, distance**2 / 2 * (1 - p) ** steps


def pair_plan():
    """The runs of Theorem 5: shape `(runs, sign, α, seeds, 1)`."""
    powers, rates_ = (0.5, 1.0), (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    tuned = (("SGD", sgd), ("GClip", gclip), ("ACClip", acclip), ("Adam", adam))
    return [(name, method, rates_, powers) for name, method in tuned] + [
        # 4/(μ(k + 1)) is the rate 4 at power 1 for the step number k + 1.
        ("GClip, Theorem 4", gclip, (4.0,), (1.0,))
    ]


@simulate.compiled
def pair_errors(steps, p, jump, distance, seed, seeds):
    """Errors of last iterate and linear average, over both signs; shape `(runs, 2, α, seeds)`."""
    plan = Plan(pair_plan(), rank=5)
    p, jump, distance = (c[:, None, None] for c in (p, jump, distance))  # (α, seeds, 1)
    signs = tf.constant([1.0, -1.0], tf.float64)[:, None, None, None]
    powers = tf.constant(ALPHAS)[:, None, None]

    def advance(k, x, average, slots):
        k = tf.cast(k, tf.float64)
        average = rules.linear_average(average, x, k)
        seen = tf.abs(simulate.uniform(seed, tf.cast(k, tf.int32), (seeds, 1))) < p
        g = x - signs * tf.where(seen, jump, 0.0)
        threshold = rules.power_threshold(k, 1.0, powers)
        step, slots = plan.step(g, slots, threshold, k + 1)
        return rules.clipped_coordinates(x - step, RADIUS, ops), average, slots

    def errors(k, x, average, slots):
        return tf.stack(
            [tf.reduce_mean((y - signs * distance) ** 2, (1, -1)) / 2 for y in (x, average)], 1
        )

    start = tf.fill((len(plan.names), 2, len(ALPHAS), seeds, 1), tf.constant(RADIUS, tf.float64))
    state = [start, start, plan.slots(start)]
    return simulate.record(advance, state, tf.reshape(steps, (1,)), errors)[0]


def theorem_5(options):
    """For each α and method: errors over K, and the bound."""
    lengths = simulate.checkpoints(options.shortest, options.longest, per_decade=2)
    plan = Plan(pair_plan(), rank=5)
    found, bounds = [], []
    for number, steps in enumerate(lengths.tolist()):
        p, jump, distance, bound = pair(ALPHAS, steps)
        law = (tf.constant(p), tf.constant(jump), tf.constant(distance))
        seed = tf.constant(number)
        errors = pair_errors(tf.constant(steps), *law, seed, options.seeds).numpy()
        found.append([plan.tuned(errors[:, :, i]) for i in range(len(ALPHAS))])
        bounds.append(bound)
    return [
        summary(alpha, lengths, [row[i] for row in found], np.array(bounds)[:, i])
        for i, alpha in enumerate(ALPHAS)
    ]
