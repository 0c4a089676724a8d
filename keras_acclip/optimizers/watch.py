"""Keeps something of every step's gradients, for who follows a training from outside."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras

from keras_acclip._utils import compat
from keras_acclip._utils.typing import Array, Gradient, Variable

Observe: TypeAlias = Callable[[Sequence[Array | None]], Array]
"""Function from all variables' gradients, float32, `None` where there is none, to one row."""


class Watch:
    """What an optimizer keeps of the gradients of its last steps: one row a step.

    The gradients are those of the whole batch, summed over replicas, before they are clipped. It
    is no part of the optimizer's step, nor of what is saved: the training stays as it is.

    Args:
        observe: Makes a row of the gradients.
        length: Numbers in a row.
        capacity: Rows that are kept; older ones are overwritten.

    Attributes:
        rows: float32, shape `(capacity, length)`, step k in row k mod capacity.
        count: How many steps there were; int32.
    """

    def __init__(self, observe: Observe, length: int, capacity: int) -> None:
        self.observe = observe
        self.capacity = capacity
        self._shape = (capacity, length)
        self.rows: Variable = None
        self.count: Variable = None
        self._compiled: dict[tuple[int, ...], Callable] = {}

    def open(self, make: Callable[..., Variable]) -> None:
        """Makes the variables.

        Args:
            make: Makes a variable of a shape, initializer, dtype and name, as `add_variable` does.
        """
        zeros = {"initializer": "zeros"}
        self.rows = make(shape=self._shape, dtype="float32", name="watch_rows", **zeros)
        self.count = make(shape=(), dtype="int32", name="watch_count", **zeros)

    def keep(self, gradients: Sequence[Array | None], ops: Any) -> None:
        """Writes the row of a step.

        Args:
            gradients: One a variable that the optimizer was built with, dense and float32.
            ops: Namespace of array functions.
        """
        row = self.observe(gradients)
        count = ops.convert_to_tensor(self.count)
        place = ops.reshape(count % self.capacity, (1, 1))
        rows = ops.convert_to_tensor(self.rows)
        self.rows.assign(ops.scatter_update(rows, place, ops.reshape(row, (1, -1))))
        self.count.assign(count + 1)

    def look(
        self,
        gradients: Sequence[Gradient],
        indices: tuple[int, ...],
        number: int,
        run: Callable[..., None],
    ) -> None:
        """Keeps the row of a step's gradients.

        Args:
            gradients: Those of this replica.
            indices: Their places among all variables.
            number: How many variables there are.
            run: Runs `keep`, as the backend does best.
        """

        def keep(gradients: Sequence[Array], ops: Any) -> None:
            by_place: list[Array | None] = [None] * number
            for index, gradient in zip(indices, gradients, strict=True):
                by_place[index] = gradient
            self.keep(by_place, ops)

        run(keep, gradients, self._compiled, indices)


def begin(optimizer: Any, watch: Watch) -> None:
    """Lets an optimizer keep rows, from its next step that is traced on.

    Args:
        optimizer: One of ours, of either Keras, built.
        watch: What it keeps.
    """
    make: Callable[..., Variable] = _untracked
    if not isinstance(optimizer, keras.optimizers.Optimizer) or _backend() == "tensorflow":
        from keras_acclip.optimizers import execution

        make = functools.partial(execution.unsaved, optimizer.made_under)
    elif _backend() == "jax":
        # A training step of JAX is handed its optimizer's variables, and reaches no others.
        make = optimizer.add_variable
    watch.open(make)
    optimizer.watch = watch


def end(optimizer: Any) -> None:
    """Lets go of the rows.

    Args:
        optimizer: That of `begin`.
    """
    watch, optimizer.watch = optimizer.watch, None
    if watch is not None and _backend() == "jax":
        compat.untrack(optimizer, (watch.rows, watch.count))


def _untracked(shape: tuple[int, ...], initializer: str, dtype: str, name: str) -> Variable:
    return keras.Variable(initializer, shape, dtype, trainable=False, name=name)


def _backend() -> str:
    return keras.backend.backend()
