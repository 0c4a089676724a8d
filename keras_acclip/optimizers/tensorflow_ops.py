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
    equal,
    floor,
    logical_and,
    logical_not,
    maximum,
    minimum,
    ones_like,
    reshape,
    sort,
    sqrt,
    square,
    stack,
    where,
    zeros_like,
)

all = tf.reduce_all
arange = tf.range
copy = tf.identity
isfinite = tf.math.is_finite
isnan = tf.math.is_nan
max = tf.reduce_max
scatter_update = tf.tensor_scatter_nd_update
sum = tf.reduce_sum


def concatenate(arrays: Sequence[tf.Tensor], axis: int = 0) -> tf.Tensor:
    """Joins arrays along an axis."""
    return tf.concat(arrays, axis)


def convert_to_numpy(tensor: tf.Tensor | tf.Variable) -> np.ndarray:
    """Returns an eager tensor's or a variable's value as a NumPy array."""
    return tensor.numpy()
