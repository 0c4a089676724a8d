"""What evaluates gradients for the noise: the part that TensorFlow and JAX share."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from keras_acclip._utils.typing import Array, Gradient, Variable

if TYPE_CHECKING:
    from keras_acclip.noise.sketch import CountSketch

Batch: TypeAlias = tuple[Any, Any, Any]
"""`(x, y, sample_weight)`: each an array, a structure of arrays, or `None`."""

GradientFunction: TypeAlias = Callable[[Batch, Array], tuple[Array, Sequence[Gradient | None]]]
"""`gradient(batch, seed)` of `NoiseMeter`: returns a loss and a gradient for each variable."""

# Overflow in float16 is met by lowering the loss scale by this factor, at most four times from
# 2^15, and by counting the batch as not finite after that.
_SCALE_STEP = 16.0


class Digest(NamedTuple):
    """What is kept of a batch's gradient g.

    Attributes:
        loss: The batch's loss.
        squares: ‖g‖² of each group; float32, shape `(groups,)`.
        sketch: The sketch of g; float32, shape `(sum(sketch.lengths),)`.
    """

    loss: float
    squares: np.ndarray
    sketch: np.ndarray

    @property
    def is_finite(self) -> bool:
        """Whether every coordinate of g is finite, and ‖g‖² in float32."""
        return bool(np.isfinite(self.squares).all())


class Source(Protocol):
    """What an engine takes gradients of."""

    @property
    def variables(self) -> list[Variable]:
        """The variables to differentiate by: the model's trainable ones, as `fit` has them."""
        ...

    @property
    def scale(self) -> float:
        """What the loss is multiplied by before differentiation, at the present step."""
        ...


class Engine(abc.ABC):
    """Evaluates gradients at fixed weights, and returns what noise norms need of them.

    Between `open` and `close` it holds the weighted sum of the gradients, as large as one gradient,
    besides the gradient of the present batch.

    Args:
        source: What to differentiate; its model is built.
        sketch: A `CountSketch` over the source's variables.
    """

    def __init__(self, source: Source, sketch: CountSketch) -> None:
        self._source = source
        self._sketch = sketch
        self._scale = 1.0
        self._seeds: list[Array] = []

    def open(self) -> None:
        """Starts a measurement: no gradients summed, the model's present random state."""
        self._scale = self._source.scale
        self._start()
        self.rewind()

    def absorb(self, batch: Batch, weight: float) -> Digest:
        """Adds `weight` times a batch's gradient to the sum if it is finite; returns a `Digest`."""
        while True:
            loss, squares, sketch, seeds = self._absorb(batch, weight)
            digest = Digest(float(loss), np.asarray(squares), np.asarray(sketch))
            if digest.is_finite or self._scale <= 1:
                self._seeds = seeds
                return digest
            self._scale = max(1.0, self._scale / _SCALE_STEP)

    def deviate(self, batch: Batch, total: float) -> tuple[float, np.ndarray]:
        """Compares a batch's gradient g with the mean gradient ḡ.

        Args:
            batch: `(x, y, sample_weight)`.
            total: Sum of the weights absorbed.

        Returns:
            The batch's loss, and ‖g − ḡ‖² of each group, float32, shape `(groups,)`.
        """
        loss, squares, self._seeds = self._deviate(batch, total)
        return float(loss), np.asarray(squares)

    @abc.abstractmethod
    def rewind(self) -> None:
        """Sets the random state to what it was at `open`, for another pass."""

    @abc.abstractmethod
    def mean_squares(self, total: float) -> Array:
        """Returns ‖ḡ‖² of each group, given the sum of the weights absorbed."""

    @abc.abstractmethod
    def close(self) -> None:
        """Frees the sum, and puts back whatever the evaluations have written."""

    @abc.abstractmethod
    def _start(self) -> None: ...

    @abc.abstractmethod
    def _absorb(self, batch: Batch, weight: float) -> tuple[Array, Array, Array, list[Array]]: ...

    @abc.abstractmethod
    def _deviate(self, batch: Batch, total: float) -> tuple[Array, Array, list[Array]]: ...
