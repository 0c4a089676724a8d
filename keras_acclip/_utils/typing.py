"""Names for what no type checker can tell apart: the arrays and variables of every backend."""

from __future__ import annotations

from typing import Any, TypeAlias

Array: TypeAlias = Any
"""A tensor of TensorFlow, JAX or PyTorch, a NumPy array, or a scalar of one of them."""

Variable: TypeAlias = Any
"""A `keras.Variable` or a `tf.Variable`."""

Gradient: TypeAlias = Any
"""A dense array, or a sparse gradient such as `tf.IndexedSlices`."""

Ops: TypeAlias = Any
"""A namespace of array functions with the names of `keras.ops`."""
