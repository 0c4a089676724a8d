"""Contestants on TensorFlow: a Keras optimizer eagerly, in a graph and as one XLA computation."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import keras
import tensorflow as tf

from contest import methods
from contest.memory import tensorflow_peak
from contest.race import Contestant

MODES = ("eager", "graph", "XLA")


def prepare() -> None:
    """Has the process's first compilation set up the compiler, at nobody's expense."""
    # It warns of retracing, but these are different functions made in the same place.
    tf.get_logger().setLevel("ERROR")
    tf.function(lambda: tf.zeros(8) + 1.0, jit_compile=True)()


def contestants(
    name: str, variables: list[keras.Variable], gradients: list[tf.Tensor], modes: list[str]
) -> Iterator[Contestant]:
    """An entry of METHODS in every mode; the modes share the slots."""
    optimizer = methods.METHODS[name].make()
    optimizer.build(variables)
    slot_bytes = sum(4 * math.prod(v.shape) for v in optimizer.variables if len(v.shape))

    def eager(gradients):
        optimizer.apply(gradients, variables)

    functions = {
        "eager": eager,
        "graph": tf.function(eager),
        "XLA": tf.function(eager, jit_compile=True),
    }

    def finished(mode):
        functions[mode](gradients)
        # On a GPU the call returns before the step is done.
        variables[-1].value[:1].numpy()

    for mode in modes:
        step = functools.partial(finished, mode)
        yield Contestant(name, mode, step, slot_bytes, tensorflow_peak)
