"""How JAX and PyTorch run a step: op by op, within whatever compiles the training around it.

It has the functions of `execution`, which is TensorFlow's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_acclip._utils.typing import Gradient, Ops, Variable
from keras_acclip.optimizers.step import Scalars, Step, take

ops: Ops = keras.ops


def run(
    make_step: Callable[[], Step],
    variables: Sequence[Variable],
    gradients: Sequence[Gradient],
    scalars: Scalars,
    **_: Any,
) -> None:
    """Takes one step.

    Args:
        make_step: Returns what the step reads and assigns.
        variables: The variables of its cells.
        gradients: One gradient a cell.
        scalars: Learning rate and thresholds.
    """
    gradients = [
        g if hasattr(g, "dtype") else ops.convert_to_tensor(g, dtype=v.dtype)
        for g, v in zip(gradients, variables, strict=True)
    ]
    take(make_step(), gradients, scalars, ops)


def strategy() -> None:
    """There is none."""
    return None


def overwrite(
    pairs: Sequence[tuple[Variable, Variable]], unless_zero: Variable, strategy: None = None
) -> None:
    """Assigns averages to their variables, unless a counter is 0."""
    for variable, average in pairs:
        value = ops.cast(average, variable.dtype)
        old = ops.convert_to_tensor(variable)
        variable.assign(ops.where(ops.convert_to_tensor(unless_zero) > 0, value, old))


def colocated(variable: Variable, make: Callable[[], Variable], strategy: None = None) -> Variable:
    """Returns `make()`, a variable placed where the backend places them."""
    return make()
