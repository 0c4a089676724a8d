"""Gradient noise from the training's own gradients: no batch is evaluated twice."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_acclip._utils.typing import Array
from keras_acclip.noise.engines.choose import suitable
from keras_acclip.noise.groups import Patterns, divide
from keras_acclip.noise.sample import NoiseSample
from keras_acclip.noise.sketch import CountSketch
from keras_acclip.optimizers import watch

BUCKETS = 8191
"""Length of a group's sketch: of larger groups a norm's relative standard error is 0.8%."""
_NEIGHBOURS = 4
"""Steps on either side whose mean a step's noise is taken against: few, for the weights move."""


class OnlineNoise:
    """Follows the gradients that an optimizer gets, and turns the last of them into samples.

    The optimizer keeps a sketch of every step's gradient, of the whole batch and before clipping.
    The noise of a step is the difference from the mean of the 4 steps before and after it. That the
    mean is of few steps is taken off; that the weights move, and the gradient with them, is not: it
    makes the norms somewhat long. ‖∇f‖² can't be had so: at the rates of real trainings the
    gradient turns within a few steps, and what two steps share is less than it, so that the noise
    scale comes out as an upper bound.

    Args:
        num_batches: Most steps in a sample.
        groups: Break-down by variables.
        seed: Seed of the sketch's signs.
        batch_size: Examples a step, or `None` if unknown.
    """

    def __init__(
        self, *, num_batches: int, groups: Patterns, seed: int, batch_size: int | None
    ) -> None:
        self._num_batches = num_batches
        self._groups: Patterns = groups
        self._seed = seed
        self._batch_size = batch_size
        self._optimizer: Any = None
        self._sketch: CountSketch | None = None
        self._names: list[str] = []

    def begin(self, model: Any) -> bool:
        """Lets the model's optimizer keep its gradients, from the next step on.

        Args:
            model: A compiled model of either Keras.

        Returns:
            Whether it could: not before the model is built.

        Raises:
            ValueError: If neither the optimizer nor one inside it is of this package.
        """
        optimizer = watching(model.optimizer)
        variables = model.trainable_variables
        if not variables:
            return False
        if not optimizer.clipped_paths:
            build = model.optimizer.build
            build(variables)
        sizes = [math.prod(v.shape) for v in variables]
        self._names, members = divide(optimizer.clipped_paths, self._groups)
        xp, sweep = suitable(model)
        sketch = CountSketch(sizes, members, BUCKETS, self._seed, sweep)
        shapes = [tuple(v.shape) for v in variables]

        def observe(gradients: Sequence[Array | None]) -> Array:
            # The gradient of an embedding may come without a static shape.
            filled = [
                xp.zeros(shape, xp.float32) if gradient is None else xp.reshape(gradient, shape)
                for gradient, shape in zip(gradients, shapes, strict=True)
            ]
            return sketch.digest(xp, filled)[1]

        watch.begin(optimizer, watch.Watch(observe, sum(sketch.lengths), self._num_batches))
        # The training step was traced, if at all, without it.
        model.make_train_function(force=True)
        self._optimizer, self._sketch = optimizer, sketch
        return True

    def sample(self, model: Any, loss: float) -> NoiseSample | None:
        """Returns the sample of the last steps; `None` where there are fewer than two.

        Args:
            model: That of `begin`.
            loss: The mean loss of late, NaN if unknown.
        """
        rows = self._rows()
        finite = np.isfinite(rows).all(1)
        rows, nonfinite = rows[finite].astype(np.float64), int((~finite).sum())
        if self._sketch is None or len(rows) < 2:
            return None
        starts = np.cumsum([0, *self._sketch.lengths[:-1]])
        noise, squared = _noise(rows, starts)
        own = np.add.reduceat(rows**2, starts, axis=1)
        size = self._batch_size
        sample = NoiseSample(
            norms=np.sqrt(noise.sum(1)),
            gradient_norms=np.sqrt(own.sum(1)),
            losses=np.full(len(rows), loss),
            batch_sizes=np.full(len(rows), size or 1, np.int64),
            mean_gradient_norm=float(np.sqrt(max(squared.sum(), 0))),
            group_norms=np.zeros((0, len(rows))),
            group_gradient_norms=np.zeros((0, len(rows))),
            nonfinite=nonfinite,
            parameters=sum(self._sketch.sizes),
            model=model.name,
            step=int(_to_numpy(model.optimizer.iterations)),
            settings={
                "method": "training",
                "num_batches": self._num_batches,
                "seed": self._seed,
                "unit": "examples" if size else "batches",
            },
        )
        if self._groups is None:
            return sample
        return dataclasses.replace(
            sample,
            groups=tuple(self._names),
            group_norms=np.sqrt(noise.T),
            group_gradient_norms=np.sqrt(own.T),
            group_mean_gradient_norms=np.sqrt(np.maximum(squared, 0)),
            group_parameters=tuple(self._sketch.group_sizes),
        )

    def end(self, model: Any) -> None:
        """Lets go of the optimizer.

        Args:
            model: That of `begin`.
        """
        if self._optimizer is not None:
            watch.end(self._optimizer)
            model.make_train_function(force=True)
        self._optimizer = self._sketch = None

    def _rows(self) -> np.ndarray:
        """The rows in the order of their steps."""
        kept = self._optimizer.watch
        rows, count = (_to_numpy(v) for v in (kept.rows, kept.count))
        count = int(count)
        if count <= kept.capacity:
            return rows[:count]
        return np.roll(rows, -(count % kept.capacity), axis=0)


def _noise(rows: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared noise norms by step and group, and ‖ḡ‖² by group, as a sample at fixed weights has.

    The difference from the mean of m other steps is √(1 + 1/m) too long, and a sample's norms,
    against the mean of all n, √(1 − 1/n) too short. For ‖∇f‖² stands the mean product of successive
    gradients, which no noise enters twice.
    """
    n = len(rows)
    sums = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0)])
    places = np.arange(n)
    first, last = np.maximum(places - _NEIGHBOURS, 0), np.minimum(places + _NEIGHBOURS + 1, n)
    others = last - first - 1
    means = (sums[last] - sums[first] - rows) / others[:, None]
    factors = (1 - 1 / n) / (1 + 1 / others)
    noise = np.add.reduceat((rows - means) ** 2, starts, axis=1) * factors[:, None]
    products = np.add.reduceat(rows[1:] * rows[:-1], starts, axis=1).mean(0)
    return noise, products + noise.sum(0) / (n - 1) / n


def watching(optimizer: Any) -> Any:
    """The optimizer itself, or the one in it, that can keep its gradients.

    Raises:
        ValueError: If there is none.
    """
    inner = optimizer
    while inner is not None and not hasattr(inner, "clipping_variables"):
        inner = getattr(inner, "inner_optimizer", None)
    if inner is None:
        raise ValueError(
            "GradientNoise() without data follows the gradients that keras_acclip's optimizers "
            f"get. {type(optimizer).__name__} is none: put it in Clip (with Clip(optimizer, "
            "threshold=1e30) nothing is clipped), or pass what `fit` trains on, "
            "GradientNoise(dataset)."
        )
    return inner


def _to_numpy(variable: Any) -> np.ndarray:
    keras_3 = isinstance(variable, keras.Variable)
    return np.asarray(keras.ops.convert_to_numpy(variable) if keras_3 else variable.numpy())
