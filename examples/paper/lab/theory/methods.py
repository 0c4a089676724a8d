"""The methods that the lower bounds hold for, side by side: a gradient in, a step out.

A method takes the gradient, its slots (two arrays like the gradient, or none), rate and threshold,
which go with arrays of the gradient's shape, and the step number; it returns step and new slots.
"""

import numpy as np
import tensorflow as tf
from keras import ops

from keras_acclip import rules

from . import slopes


def sgd(g, slots, rate, threshold, k):
    """Stochastic gradient descent."""
    return rate * g, slots


def gclip(g, slots, rate, threshold, k):
    """SGD with the gradient's norm clipped."""
    norm = tf.norm(g, axis=-1, keepdims=True)
    return rate * rules.GClip().factor(norm, threshold, ops) * g, slots


def cclip(g, slots, rate, threshold, k):
    """SGD with each coordinate clipped."""
    return rate * rules.clipped_coordinates(g, threshold, ops), slots


def acclip(g, slots, rate, threshold, k):
    """ACClip with the package's defaults."""
    return rules.ACClip().step(g, slots, learning_rate=rate, threshold=threshold, ops=ops)


def adam(g, slots, rate, threshold, k):
    """Adam (Kingma and Ba, 2015) with its usual constants."""
    m, v = 0.9 * slots[0] + 0.1 * g, 0.999 * slots[1] + 0.001 * g * g
    return rate * (m / (1 - 0.9**k)) / (tf.sqrt(v / (1 - 0.999**k)) + 1e-8), [m, v]


class Plan:
    """Runs side by side: a method for each, its rate and the power of k by which the rate falls.

    Args:
        runs: List of `(name, method, rates, powers)`: one run for each rate and power.
        rank: Of the state; its first axis is the run.
    """

    def __init__(self, runs, rank):
        self.names, self.parts, self.settings = [], [], []
        for name, method, rates_, powers in runs:
            grid = [(rate, power) for power in powers for rate in rates_]
            shape = (-1,) + (1,) * (rank - 1)
            columns = [
                tf.reshape(tf.constant(c, tf.float64), shape) for c in zip(*grid, strict=True)
            ]
            self.parts.append((method, *columns, len(grid)))
            self.names += [name] * len(grid)
            self.settings += grid

    def slots(self, start):
        """The slots of all methods before step 1, for the state `start`."""
        zeros = tf.split(tf.zeros_like(start), self.sizes())
        return [
            [zero, zero] if method in (acclip, adam) else []
            for (method, *_), zero in zip(self.parts, zeros, strict=True)
        ]

    def sizes(self):
        """The number of runs of each method."""
        return [size for *_, size in self.parts]

    def step(self, g, slots, threshold, k, scales=None):
        """All methods' steps for their gradients, and their new slots.

        Args:
            g: Gradients, the runs along the first axis.
            slots: As `slots` or this made them.
            threshold: τ, for the methods that clip.
            k: Step number, float64 from 1.
            scales: The unit of each method's rates; 1 by default.
        """
        steps, kept = [], []
        scales = scales or [1.0] * len(self.parts)
        gradients = tf.split(g, self.sizes())
        for part, scale, own, slot in zip(self.parts, scales, gradients, slots, strict=True):
            method, rate, power, _ = part
            step, slot = method(own, slot, scale * rate * k**-power, threshold, k)
            steps.append(step)
            kept.append(slot)
        return tf.concat(steps, 0), kept

    def tuned(self, errors):
        """The best run of each name: chosen on the first half of the seeds, taken on the other.

        Args:
            errors: Shape `(runs, ..., seeds)`; an axis between is another choice to be tuned.

        Returns:
            Dict from name to the pair of its errors, shape `(seeds/2,)`, and its rate and power.
        """
        half = errors.shape[-1] // 2
        errors = errors.reshape(len(errors), -1, errors.shape[-1])
        best = {}
        for name in dict.fromkeys(self.names):
            rows = [i for i, other in enumerate(self.names) if other == name]
            scores = errors[rows, :, :half].mean(-1)
            row, column = np.unravel_index(scores.argmin(), scores.shape)
            best[name] = errors[rows[row], column, half:], self.settings[rows[row]]
        return best


def summary(alpha, lengths, tuned, bounds):
    """The methods' errors beside the bounds, as JSON.

    Args:
        alpha: α.
        lengths: K, ascending.
        tuned: For each K, what `Plan.tuned` returns.
        bounds: The bound for each K.
    """
    methods = {}
    for name in tuned[0]:
        fitted = slopes.fit(lengths, np.array([row[name][0] for row in tuned]))
        fitted["settings"] = [row[name][1] for row in tuned]
        fitted["ratio"] = (np.array(fitted["mean"]) / bounds).tolist()
        # Above 1: the method's error is below the bound, whatever seeds were drawn.
        fitted["below_bound"] = bool(np.any(np.array(fitted["mean_high"]) < bounds))
        methods[name] = fitted
    slope = float(slopes.slope(lengths, bounds))
    return {"alpha": alpha, "steps": lengths.tolist(), "bounds": list(map(float, bounds))} | {
        "bound_slope": slope,
        "methods": methods,
    }
