"""Names of Keras 2's legacy optimizers that the Model Garden asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


class LegacyNames:
    """What the Model Garden's `ExponentialMovingAverage` calls on the optimizer in it."""

    @property
    def weights(self) -> list[tf.Variable]:
        """The optimizer's variables."""
        return getattr(self, "variables")  # noqa: B009

    def _create_hypers(self) -> None:
        """Does nothing: there are no hyperparameters to make."""

    def _create_slots(self, var_list: Sequence[tf.Variable]) -> None:
        getattr(self, "build")(var_list)  # noqa: B009

    def _get_hyper(self, name: str) -> Any:
        return getattr(self, name)

    def _set_hyper(self, name: str, value: Any) -> None:
        setattr(self, name, value)
