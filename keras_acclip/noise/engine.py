"""What evaluates gradients for the noise: the part that TensorFlow and JAX share."""

import abc
from typing import NamedTuple

import numpy as np

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
    def is_finite(self):
        """Whether every coordinate of g is finite, and ‖g‖² in float32."""
        return bool(np.isfinite(self.squares).all())


class Engine(abc.ABC):
    """Evaluates gradients at fixed weights, and returns what noise norms need of them.

    Between `open` and `close` it holds the weighted sum of the gradients, as large as one gradient,
    besides the gradient of the present batch.

    Args:
        loss: A `CompiledLoss` or `LegacyLoss` whose model is built.
        sketch: A `CountSketch` over the loss's variables.
    """

    def __init__(self, loss, sketch):
        self._loss = loss
        self._sketch = sketch

    def open(self):
        """Starts a measurement: no gradients summed, the model's present random state."""
        self._scale = self._loss.scale
        self._start()
        self.rewind()

    def absorb(self, batch, weight):
        """Adds `weight` times a batch's gradient to the sum if it is finite; returns a `Digest`."""
        while True:
            loss, squares, sketch, seeds = self._absorb(batch, weight)
            digest = Digest(float(loss), np.asarray(squares), np.asarray(sketch))
            if digest.is_finite or self._scale <= 1:
                self._seeds = seeds
                return digest
            self._scale = max(1.0, self._scale / _SCALE_STEP)

    def deviate(self, batch, total):
        """Compares a batch's gradient g with the mean gradient ḡ.

        Args:
            batch: `(x, y, sample_weight)`.
            total: Sum of the weights absorbed.

        Returns:
            The batch's loss, a float, and ‖g − ḡ‖² of each group, float32, shape `(groups,)`.
        """
        loss, squares, self._seeds = self._deviate(batch, total)
        return float(loss), np.asarray(squares)

    @abc.abstractmethod
    def rewind(self):
        """Sets the random state to what it was at `open`, for another pass."""

    @abc.abstractmethod
    def mean_squares(self, total):
        """Returns ‖ḡ‖² of each group, given the sum of the weights absorbed."""

    @abc.abstractmethod
    def close(self):
        """Frees the sum, and puts back whatever the evaluations have written."""

    @abc.abstractmethod
    def _start(self): ...

    @abc.abstractmethod
    def _absorb(self, batch, weight): ...

    @abc.abstractmethod
    def _deviate(self, batch, total): ...
