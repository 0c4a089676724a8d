"""The gradients that a task hands to its optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import wrapt

from keras_acclip._utils.typing import Gradient, Variable


class Recorder(wrapt.ObjectProxy):
    """Keeps the gradients that are handed to an optimizer, in the optimizer's place.

    It passes for the optimizer in all else: tasks ask one of `tf_keras.mixed_precision` to scale
    the loss, and to undo it in the gradient.

    Args:
        optimizer: The optimizer.
    """

    def __init__(self, optimizer: Any) -> None:
        super().__init__(optimizer)
        # The proxy keeps what begins so; all other attributes are the optimizer's.
        self._self_pairs: list[tuple[Gradient | None, Variable]] = []
        self._self_arguments: Mapping[str, Any] = {}

    @property
    def pairs(self) -> list[tuple[Gradient | None, Variable]]:
        """The gradients that were handed over last, with their variables."""
        return self._self_pairs

    @property
    def further_arguments(self) -> Mapping[str, Any]:
        """What was handed over with them."""
        return self._self_arguments

    def apply_gradients(
        self, grads_and_vars: Iterable[tuple[Gradient | None, Variable]], **kwargs: Any
    ) -> None:
        """Keeps the gradients.

        Args:
            grads_and_vars: Pairs of a gradient and its variable.
            **kwargs: What else the optimizer takes.
        """
        self._self_pairs = list(grads_and_vars)
        self._self_arguments = kwargs
