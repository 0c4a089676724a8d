"""The functions of `keras.ops` that the optimizers use, on TensorFlow whatever Keras runs on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorflow import (  # noqa: F401
    abs,
    cast,
    cond,
    convert_to_tensor,
    logical_and,
    logical_not,
    maximum,
    minimum,
    ones_like,
    reshape,
    sqrt,
    square,
    stack,
    where,
    zeros_like,
)

all = tf.reduce_all
copy = tf.identity
isfinite = tf.math.is_finite
isnan = tf.math.is_nan
sum = tf.reduce_sum


def concatenate(arrays: Sequence[tf.Tensor]) -> tf.Tensor:
    """Joins arrays along their first axis."""
    return tf.concat(arrays, axis=0)


def convert_to_numpy(tensor: tf.Tensor | tf.Variable) -> np.ndarray:
    """Returns an eager tensor's or a variable's value as a NumPy array."""
    return tensor.numpy()
