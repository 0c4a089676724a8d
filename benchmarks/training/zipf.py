"""Softmax regression on classes of Zipf frequencies (Kunstner et al., 2024, in small).

Class k of n has the frequency 1/k, up to a factor. Its examples lie around a center of its own,
with Gaussian noise that makes the classes overlap: separable ones any method learns to a loss of 0.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import keras
import numpy as np

from training.workloads import Problem, Workload


def problem(workload: Workload, seed: int, steps: int) -> Problem:
    """The regression; each step sees all of one sample, or fresh examples.

    Args:
        workload: Its `sizes` has `classes`, `features`, `spread` (the standard deviation of the
            centers' coordinates; the noise has 1), `held_out` examples and `full`.
        seed: Draws centers, examples and initial weights.
        steps: Steps of the training; past the workload's own, its examples stay what they are.
    """
    sizes, count = workload.sizes, workload.batch
    random = np.random.default_rng((seed, 0))
    centers = random.normal(0, sizes["spread"], (sizes["classes"], sizes["features"]))
    planned, further = min(steps, workload.steps), max(0, steps - workload.steps)
    parts = [(1, 1)] if sizes["full"] else [(1, planned), (3, further)]
    drawn = [sample(centers, count * length, (seed, number)) for number, length in parts]
    seen = tuple(np.concatenate(part) for part in zip(*drawn, strict=True))
    unseen = sample(centers, sizes["held_out"], (seed, 2))
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((sizes["features"],))
    model = keras.Model(inputs, keras.layers.Dense(sizes["classes"])(inputs))
    own = {"seen": seen, "unseen": (unseen[0][None], unseen[1][None])}
    own = jax.tree.map(jnp.asarray, own)

    def batch(shared, own, step):
        return own["seen"] if sizes["full"] else slice_of(own["seen"], step, count)

    return Problem(model, cross_entropy, (), own, batch, lambda shared, own: own["unseen"])


def sample(centers, count, seed):
    """Examples of shape `(count, features)` in float32, and their classes."""
    random = np.random.default_rng(seed)
    classes = len(centers)
    frequencies = 1 / np.arange(1, classes + 1)
    labels = random.choice(classes, count, p=frequencies / frequencies.sum()).astype("int32")
    noise = random.standard_normal((count, centers.shape[1]))
    return (centers[labels] + noise).astype("float32"), labels


def slice_of(data, step, count):
    """The examples of a step, the next `count` at a time."""
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, step * count, count), data)


def cross_entropy(logits, labels):
    """Of each label, −log of its softmax probability."""
    logits = logits.astype("float32")
    chosen = jnp.take_along_axis(logits, labels[..., None], -1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen
