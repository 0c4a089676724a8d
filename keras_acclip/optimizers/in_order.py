"""How JAX and PyTorch run a step: op by op, within whatever compiles the training around it.

It has the functions of `execution`, which is TensorFlow's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from keras_acclip._utils.typing import Array, Gradient, Ops, Variable
from keras_acclip.optimizers import keras_ops, sparse
from keras_acclip.optimizers.step import Scalars, Step, take

ops: Ops = keras_ops
NORM_SLICES = 1
"""The slices of `rules.global_norm`."""


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
    take(make_step(), _arrived(gradients, variables), scalars, ops)


def run_around(
    clip: Callable[[Sequence[Gradient], Scalars], tuple[list[Gradient], Array | None]],
    take: Callable[[list[Gradient], Array], None],
    take_summed: Callable[[list[Gradient], Array], None],
    variables: Sequence[Variable],
    gradients: Sequence[Gradient],
    scalars: Scalars,
    *,
    unless_finite: Sequence[Variable] | None,
    **_: Any,
) -> None:
    """Clips, then lets another optimizer take its step.

    Args:
        clip: Function from gradients and scalars to the clipped gradients and whether they were
            finite, or `None`.
        take: Takes the step, given the gradients and the learning rate.
        take_summed: Not used.
        variables: The variables that have a gradient.
        gradients: One gradient a variable.
        scalars: Learning rate and thresholds.
        unless_finite: `None`, or the variables to put back where the gradients were not finite.
    """
    clipped, finite = clip(_arrived(gradients, variables), scalars)
    back = unless_finite or ()
    before = [ops.copy(variable) for variable in back]
    take(clipped, scalars.learning_rate)
    for variable, old in zip(back, before, strict=True):
        variable.assign(ops.where(finite, ops.convert_to_tensor(variable), old))


def watch(
    keep: Callable[[Sequence[Array], Ops], None], gradients: Sequence[Gradient], *_: Any, **__: Any
) -> None:
    """Hands dense float32 gradients to `keep`."""
    keep([ops.cast(sparse.dense(g), "float32") for g in gradients], ops)


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


def _arrived(gradients: Sequence[Gradient], variables: Sequence[Variable]) -> list[Gradient]:
    return [
        g if hasattr(g, "dtype") else ops.convert_to_tensor(g, dtype=v.dtype)
        for g, v in zip(gradients, variables, strict=True)
    ]
