"""Gradients that hold some rows of an array, whatever the backend: `tf.IndexedSlices`, JAX's BCOO.

Backends are told apart by the gradient's type, so that none is imported for another's sake.
"""

from __future__ import annotations

from collections.abc import Callable

from keras_acclip._utils.typing import Array, Gradient, Variable


def is_sparse(gradient: Gradient) -> bool:
    """Whether the gradient holds rows that a step can be taken of: a `tf.IndexedSlices`."""
    return type(gradient).__name__ == "IndexedSlices"


def dense(gradient: Gradient) -> Array:
    """The gradient as one array; rows with the same index are summed."""
    if is_sparse(gradient):
        import tensorflow as tf

        return tf.convert_to_tensor(gradient)
    if type(gradient).__name__ in ("BCOO", "JAXSparse"):
        return gradient.todense()
    return gradient


def map_rows(function: Callable[[Array], Array], gradient: Gradient) -> Gradient:
    """Applies a coordinate-wise function that keeps 0 to a dense or sparse gradient."""
    if not is_sparse(gradient):
        return function(gradient)
    return type(gradient)(function(gradient.values), gradient.indices, gradient.dense_shape)


def rows(gradient: Gradient) -> Array:
    """The coordinates that a dense or sparse gradient holds."""
    return gradient.values if is_sparse(gradient) else gradient


def sum_repeated_rows(gradient: Gradient) -> Gradient:
    """Sums the rows of a sparse gradient that have the same index, in static shapes.

    The number of rows stays, so that XLA can compile it: the surplus ones are 0, with an index that
    occurs anyway.
    """
    if not is_sparse(gradient):
        return dense(gradient)
    import tensorflow as tf

    count = tf.shape(gradient.indices)[0]
    order = tf.argsort(gradient.indices, stable=True)
    indices = tf.gather(gradient.indices, order)
    is_first = tf.concat([tf.ones_like(indices[:1], tf.bool), indices[1:] != indices[:-1]], 0)
    segment = tf.cumsum(tf.cast(is_first, tf.int32)) - 1
    values = tf.math.unsorted_segment_sum(tf.gather(gradient.values, order), segment, count)
    summed = tf.math.unsorted_segment_max(indices, segment, count)
    indices = tf.maximum(summed, tf.reduce_min(indices))
    return tf.IndexedSlices(values, indices, gradient.dense_shape)


def subtract_rows(variable: Variable, indices: Array, step: Array) -> None:
    """Subtracts rows from a `tf.Variable` in place."""
    import tensorflow as tf

    variable.scatter_sub(tf.IndexedSlices(tf.cast(step, variable.dtype), indices))
