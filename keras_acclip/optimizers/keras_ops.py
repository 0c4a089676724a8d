"""The functions of `keras.ops` that the optimizers use, on the backend that Keras runs on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras.ops import (  # noqa: F401
    abs,
    all,
    arange,
    cast,
    concatenate,
    convert_to_numpy,
    convert_to_tensor,
    copy,
    equal,
    floor,
    isfinite,
    isnan,
    logical_and,
    logical_not,
    max,
    maximum,
    minimum,
    ones_like,
    reshape,
    scatter_update,
    sort,
    sqrt,
    square,
    stack,
    sum,
    where,
    zeros,
    zeros_like,
)

from keras_acclip._utils.typing import Array


def cond(pred: Array, true_fn: Callable[[], Any], false_fn: Callable[[], Any]) -> Any:
    """Returns `true_fn()` where `pred` holds, or else `false_fn()`.

    Eager code of JAX calls the one function: `jax.lax.cond` would compile both at each call.
    """
    if keras.backend.backend() == "jax" and not _is_traced(pred):
        return true_fn() if pred else false_fn()
    return keras.ops.cond(pred, true_fn, false_fn)


def _is_traced(value: Array) -> bool:
    from jax.core import Tracer

    return isinstance(value, Tracer)
