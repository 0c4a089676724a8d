"""Private names of Keras, `tf_keras`, TensorFlow and the Model Garden, each used here alone.

Each function stands for one private name, and says what for. `tests/unit/_utils/test_compat.py`
calls them all, so that a new release that moves one shows in this file.

Private methods that a subclass overrides stay in the subclass. They are:

- `_maybe_build_checkpoint_manager` of `official.core.train_lib.OrbitExperimentRunner`, in
  `garden/runner.py`; that class's docstring shows it as what to override.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorflow as tf

# --- garden


def create_slots(optimizer: Any, variables: Sequence[Any]) -> None:
    """Makes the variables that a Keras 2 optimizer keeps, before its first step.

    A legacy optimizer has `_create_all_weights` for it, and nothing public; it would make them in
    its first step, which is then traced a second time. All others have `build`.

    Args:
        optimizer: A `tf_keras.optimizers.Optimizer` or `tf_keras.optimizers.legacy.Optimizer`.
        variables: What it trains.
    """
    import tf_keras

    if isinstance(optimizer, tf_keras.optimizers.legacy.Optimizer):
        optimizer._create_all_weights(variables)
    else:
        optimizer.build(variables)


def set_latest_checkpoint(manager: tf.train.CheckpointManager, path: str | None) -> None:
    """Has a checkpoint manager restore another checkpoint than its own directory's newest.

    `tf.train.CheckpointManager.latest_checkpoint` can only be read. A worker that is not the chief
    saves in a directory of its own, where the Model Garden's manager would look for checkpoints.

    Args:
        manager: The manager.
        path: The checkpoint's prefix, or `None` for none.
    """
    manager._latest_checkpoint = path
