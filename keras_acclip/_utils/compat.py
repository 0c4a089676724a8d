"""Private names of Keras, `tf_keras`, TensorFlow and the Model Garden, each used here alone.

Each function stands for one private name, and says what for. `tests/unit/_utils/test_compat.py`
calls them all, so that a new release that moves one shows in this file.

Subclasses also override hooks that their base classes call and that are private by name:

- Keras 3's `Optimizer`: `_backend_update_step`, `_apply_weight_decay` and
  `_update_model_variables_moving_average` (`keras_acclip.optimizers.base`);
- Keras 2's `Optimizer`: `_internal_apply_gradients`, `_deduplicate_sparse_grad`,
  `_apply_weight_decay`, `_update_model_variables_moving_average`, and those of its legacy
  optimizers that the Model Garden's moving average calls (`keras_acclip.tf_keras.base`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from keras_acclip._utils.typing import Array, Variable

# --- optimizers -------------------------------------------------------------------------------


def variable_index(optimizer: Any, variable: Variable) -> int:
    """A variable's place among those that a Keras 3 optimizer was built with.

    `Optimizer._get_variable_index`: nothing public tells it.

    Raises:
        KeyError: If the optimizer was not built with it.
    """
    return optimizer._get_variable_index(variable)


def decays(optimizer: Any, variable: Variable) -> bool:
    """Whether weight decay applies to a variable, after `exclude_from_weight_decay`.

    `Optimizer._use_weight_decay` of Keras 3 and of Keras 2.
    """
    return optimizer._use_weight_decay(variable)


def trainable_variables(optimizer: Any) -> list[Variable]:
    """The variables that a Keras 3 optimizer was built with.

    `Optimizer._trainable_variables`: `variables` holds the optimizer's own.
    """
    return optimizer._trainable_variables


def learning_rate(optimizer: Any) -> Any:
    """The learning rate as the optimizer holds it: a variable, a schedule or a callable.

    `Optimizer._learning_rate` of Keras 3 and of Keras 2: `learning_rate` is its current value.
    """
    return optimizer._learning_rate


def set_learning_rate(base: Any, optimizer: Any, learning_rate: Any) -> None:
    """Sets the learning rate as the class `base` does it, of an optimizer that checks it first.

    The setter of a property is not to be had through `super()`.
    """
    base.learning_rate.fset(optimizer, learning_rate)


def moving_averages(optimizer: Any) -> list[Variable | None]:
    """The exponential moving averages that an optimizer keeps with `use_ema=True`.

    `Optimizer._model_variables_moving_average` of Keras 3 and of Keras 2.
    """
    return optimizer._model_variables_moving_average


def counter(optimizer: Any) -> Variable:
    """The variable that counts a Keras 3 optimizer's calls of `apply`.

    `Optimizer._iterations`: with gradient accumulation `iterations` is no variable.
    """
    return optimizer._iterations


def layout(variable: Variable) -> Any:
    """How a Keras 3 variable is laid out over devices, or `None`.

    `Variable._layout`, as Keras's `add_variable_from_reference` reads it.
    """
    return getattr(variable, "_layout", None)


def maybe_merge_call(
    function: Callable[..., Any], strategy: Any, *arguments: Array | Sequence[Array] | None
) -> Any:
    """Calls `function(strategy, *arguments)` once for all replicas, where they can be merged.

    `tf.__internal__.distribute.interim.maybe_merge_call`, as Keras's optimizers call it: the
    public `merge_call` fails inside an XLA computation over several GPUs.
    """
    import tensorflow as tf

    merge_call = tf.__internal__.distribute.interim.maybe_merge_call
    return merge_call(function, strategy, *arguments)


def build_learning_rate(optimizer: Any, learning_rate: Any) -> Any:
    """What a Keras 2 optimizer keeps as `_learning_rate`, of a float or a schedule.

    `tf_keras.optimizers.Optimizer._build_learning_rate`, as every subclass of Keras 2 calls it.
    """
    return optimizer._build_learning_rate(learning_rate)


def tf_keras_variable_index(optimizer: Any, variable: Variable) -> int | None:
    """A variable's place among those that a Keras 2 optimizer was built with, or `None`.

    `tf_keras.optimizers.Optimizer._index_dict` and `._var_key`.
    """
    return optimizer._index_dict.get(optimizer._var_key(variable))


def mark_built(optimizer: Any) -> None:
    """Tells a Keras 2 optimizer that its slots are made.

    `tf_keras.optimizers.Optimizer._built`, as every subclass of Keras 2 sets it.
    """
    optimizer._built = True


def add_to_variables(optimizer: Any, variable: Variable) -> None:
    """Adds a variable to those that a Keras 2 optimizer saves.

    `tf_keras.optimizers.Optimizer._variables`: its public `add_variable` places none beside
    another.
    """
    optimizer._variables.append(variable)


def uses_dtensor(optimizer: Any) -> bool:
    """Whether a Keras 2 optimizer's variables are laid out over a DTensor mesh.

    `tf_keras.optimizers.Optimizer._mesh` and `._run_with_dtensor`.
    """
    return bool(optimizer._mesh or optimizer._run_with_dtensor)


def untracked(trackable: Any, value: Any) -> Any:
    """A value that `trackable` holds without saving it in checkpoints.

    `AutoTrackable._no_dependency` of TensorFlow.
    """
    return trackable._no_dependency(value)


def shared_name(variable: Any) -> str:
    """A `tf.Variable`'s name without `:0`, the same on all replicas.

    `Variable._shared_name`, as Keras 2 names slots.
    """
    return variable._shared_name
