"""Metrics under mixed precision."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tf_keras


@contextlib.contextmanager
def metrics_in_full_precision() -> Iterator[None]:
    """Has metrics that are made here keep and take float32, as a context.

    With a mixed policy Keras 2 casts their variables as it does those of layers, which fails on
    mirrored ones: `call variable.read_value() inside variable_sync_on_read_context`, of AUC.
    """
    policy = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy("float32")
    try:
        yield
    finally:
        tf_keras.mixed_precision.set_global_policy(policy)
