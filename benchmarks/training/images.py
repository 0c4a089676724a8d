"""A ResNet-8 learns scikit-learn's handwritten digits: no attention, and little noise."""

from __future__ import annotations

import jax.numpy as jnp
import keras
from paper.lab import digits, resnets

from training.order import passes
from training.workloads import Problem, Workload
from training.zipf import cross_entropy


def problem(workload: Workload, seed: int, steps: int) -> Problem:
    """The ResNet of `examples/paper/resnet.py` on its digits, pass after pass in random orders.

    Args:
        workload: Its `sizes` has `blocks` a stage and the `width` of the first.
        seed: Of the initial weights and the order of the images.
        steps: Steps of the training.
    """
    seen, unseen = digits.arrays()
    keras.utils.set_random_seed(seed)
    model = resnets.small_resnet(digits.SHAPE, digits.CLASSES, **workload.sizes)
    shared = {
        "seen": tuple(jnp.asarray(x) for x in seen),
        "unseen": tuple(jnp.asarray(x)[None] for x in unseen),
    }
    own = passes(len(seen[1]), workload.batch, seed, max(steps, workload.steps))

    def batch(shared, own, step):
        images, labels = shared["seen"]
        return images[own[step]], labels[own[step]]

    return Problem(model, cross_entropy, shared, own, batch, lambda shared, own: shared["unseen"])
