"""Methods on Theorem 6's chain, and what they reach beside its bound."""

import numpy as np
import tensorflow as tf

from keras_acclip import thresholds

from . import simulate
from .chain import LIPSCHITZ, SIGMA, SMOOTHNESS, chain, chain_gradient, newest
from .methods import Plan, acclip, adam, cclip, gclip, sgd, summary


def chain_plan():
    """The runs of Theorem 6: shape `(runs, seeds, d)`; rates in units of `step`'s scales."""
    slow, fast = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0), (1e-4, 1e-3, 0.003, 0.01, 0.03, 0.1, 1.0)
    return [
        ("SGD", sgd, slow, (0.0,)),
        ("GClip", gclip, slow, (0.0,)),
        ("CClip", cclip, slow, (0.0,)),
        ("ACClip", acclip, fast, (0.0,)),
        ("Adam", adam, fast, (0.0,)),
        ("GClip, Theorem 2", gclip, (1.0,), (0.0,)),
    ]


@simulate.compiled
def chain_errors(steps, length, gamma, p, rate, threshold, seed, seeds, width):
    """‖∇f(x_k)‖, averaged over k < steps and at its least; shape `(runs, 2, seeds)`.

    Args:
        steps: K.
        length: T ≤ width.
        gamma: γ.
        p: The chance that the newest coordinate shows.
        rate: Theorem 2's η.
        threshold: Theorem 2's τ, for GClip and CClip alike.
        seed: An integer scalar.
        seeds: How many.
        width: The state's last axis.
    """
    plan = Plan(chain_plan(), rank=3)
    unit = LIPSCHITZ * gamma / SMOOTHNESS  # λ, the size of x where v = x/λ is 1.
    scales = [1 / SMOOTHNESS] * 3 + [unit] * 2 + [rate]

    def advance(k, x, total, least, slots):
        v = x / unit
        gradient = gamma * chain_gradient(v, length)
        norm = tf.norm(gradient, axis=-1)
        seen = tf.abs(simulate.uniform(seed, k, (seeds, 1))) < p
        g = tf.where(newest(v), tf.where(seen, gradient / p, 0.0), gradient)
        step, slots = plan.step(g, slots, threshold, tf.cast(k, tf.float64), scales)
        return x - step, total + norm, tf.minimum(least, norm), slots

    def errors(k, x, total, least, slots):
        return tf.stack([total / tf.cast(k, tf.float64), least], 1)

    start = tf.zeros((len(plan.names), seeds, width), tf.float64)
    state = [start, start[..., 0], start[..., 0] + np.inf, plan.slots(start)]
    return simulate.record(advance, state, tf.reshape(steps, (1,)), errors)[0]


def theorem_6(options, alpha):
    """For one α and each method: ‖∇f‖ over K, averaged and at its least, and the bound."""
    lengths = simulate.checkpoints(options.chain_shortest, options.chain_longest, per_decade=2)
    plan = Plan(chain_plan(), rank=3)
    averages, leasts, bounds, chains = [], [], [], []
    for number, steps in enumerate(lengths.tolist()):
        length, gamma, p, bound = chain(alpha, steps, options.initial_gap)
        constants = (gamma, p, *gclip_constants(alpha, steps, options))
        found = chain_errors(
            tf.constant(steps),
            tf.constant(length),
            *(tf.constant(v, tf.float64) for v in constants),
            tf.constant(number),
            options.chain_seeds,
            2 ** int(np.ceil(np.log2(length + 1))),  # Few widths, so that few programs compile.
        ).numpy()
        averages.append(plan.tuned(found[:, 0]))
        leasts.append(plan.tuned(found[:, 1]))
        bounds.append(bound)
        chains.append({"length": length, "gamma": gamma, "p": p})
    least = summary(alpha, lengths, leasts, np.array(bounds))["methods"]
    return summary(alpha, lengths, averages, np.array(bounds)) | {"least": least, "chains": chains}


def gclip_constants(alpha, steps, options):
    """Theorem 2's η and τ with τ's last term alone, which is the one that gives the rate."""
    gap = options.initial_gap
    threshold = thresholds.balanced_threshold(SMOOTHNESS, SIGMA, alpha, steps, gap)
    return min(1 / 4, (SIGMA / threshold) ** alpha) / SMOOTHNESS, threshold
