"""The order in which a training sees its examples."""

import jax
import jax.numpy as jnp
import numpy as np


def passes(count: int, batch: int, seed: int, steps: int) -> jax.Array:
    """Numbers of examples, of shape `(steps, batch)`: as many passes in random orders as it takes.

    A part of the steps sees the beginning of what all of them see.

    Args:
        count: Number of examples.
        batch: Examples a step.
        seed: Of the orders.
        steps: How many.
    """
    order = [
        np.random.default_rng((seed, p)).permutation(count)
        for p in range(-(-steps * batch // count))
    ]
    return jnp.asarray(np.concatenate(order)[: steps * batch].reshape(steps, batch), "int32")
