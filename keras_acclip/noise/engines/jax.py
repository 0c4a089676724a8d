"""Gradients of a Keras model's loss on JAX, digested batch by batch in one jitted computation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import keras
import numpy as np

from keras_acclip._utils.typing import Array, Variable
from keras_acclip.noise.engines.base import Batch, Engine
from keras_acclip.noise.engines.losses import CompiledLoss

if TYPE_CHECKING:
    from keras_acclip.noise.sketch import CountSketch, Sweep, Term


def suitable_sweep() -> Sweep | None:
    """Returns `sweep` for a machine without GPUs, else `None`."""
    return sweep if jax.default_backend() == "cpu" else None


def sweep(term: Term, flats: Sequence[Array], size: int, count: int) -> Sequence[Array]:
    """Sums `term(i, *slabs)` over `count` slabs of `size` coordinates, as `CountSketch` asks."""

    def slabs(i: Any) -> list[Array]:
        return [jax.lax.dynamic_slice(flat, (i * size,), (size,)) for flat in flats]

    def add(i: Any, totals: tuple[Array, ...]) -> tuple[Array, ...]:
        terms = term(jnp.uint32(i), *slabs(i))
        return tuple(a + b for a, b in zip(totals, terms, strict=True))

    return jax.lax.fori_loop(1, count, add, tuple(term(jnp.uint32(0), *slabs(0))))


class JaxEngine(Engine):
    """An `Engine` for models of Keras 3 on JAX.

    A model that `fit` would not jit runs without `jax.jit`.

    Args:
        loss: What to differentiate; its model is built.
        sketch: A `CountSketch` over the loss's variables.
    """

    def __init__(self, loss: CompiledLoss, sketch: CountSketch) -> None:
        super().__init__(loss, sketch)
        self._loss = loss
        jit: Any = jax.jit if loss.model.jit_compile and not loss.model.run_eagerly else _plain
        self._absorb_jitted = jit(self._absorb_step, donate_argnums=0)
        self._deviate_jitted = jit(self._deviate_step)
        self._mean_squares_jitted = jit(self._mean_squares_step)
        self._traced = False
        self._sums: list[Array] = []
        self._values: list[Array] = []
        self._state: list[Array] = []
        self._others: list[Variable] = []

    def rewind(self) -> None:
        """Sets the random state to what it was at `open`, for another pass."""
        self._seeds = [seed.value for seed in self._loss.seeds]

    def mean_squares(self, total: float) -> Array:
        """Returns ‖ḡ‖² of each group, given the sum of the weights absorbed."""
        return self._mean_squares_jitted(self._sums, total)

    def close(self) -> None:
        """Frees the sum and lets go of the model's weights."""
        self._sums, self._values, self._state, self._seeds = [], [], [], []

    def _start(self) -> None:
        trainable = {id(v) for v in self._loss.variables}
        seeds = {id(v) for v in self._loss.seeds}
        others = {
            id(v): v
            for v in [*self._loss.model.variables, *self._loss.model.metrics_variables]
            if id(v) not in trainable | seeds
        }
        self._others = list(others.values())
        self._values = [v.value for v in self._loss.variables]
        self._state = [v.value for v in self._others]
        self._sums = [jnp.zeros(v.shape, jnp.float32) for v in self._loss.variables]

    def _absorb(self, batch: Batch, weight: float) -> tuple[Array, Array, Array, list[Array]]:
        arguments = self._scale, self._values, self._state, self._seeds, _arrays(batch)
        if not self._traced:
            # Losses that are built when first called make their variables here, outside the jit.
            with keras.StatelessScope():
                jax.eval_shape(self._gradient, *arguments)
            self._traced = True
        loss, squares, sketch, seeds, self._sums = self._absorb_jitted(
            self._sums, weight, *arguments
        )
        return loss, squares, sketch, seeds

    def _deviate(self, batch: Batch, total: float) -> tuple[Array, Array, list[Array]]:
        return self._deviate_jitted(
            self._sums, total, self._scale, self._values, self._state, self._seeds, _arrays(batch)
        )

    def _absorb_step(
        self, sums: list[Array], weight: Array, scale: Array, *arguments: Any
    ) -> tuple[Array, Array, Array, list[Array], list[Array]]:
        loss, gradients, seeds = self._gradient(scale, *arguments)
        squares, sketch = self._sketch.digest(jnp, gradients)
        finite = jnp.isfinite(jnp.sum(squares))
        sums = [
            summed + jnp.where(finite, weight / scale * gradient, 0)
            for summed, gradient in zip(sums, gradients, strict=True)
        ]
        return loss, squares / scale**2, sketch / scale, seeds, sums

    def _deviate_step(
        self, sums: list[Array], total: Array, scale: Array, *arguments: Any
    ) -> tuple[Array, Array, list[Array]]:
        loss, gradients, seeds = self._gradient(scale, *arguments)
        squares = self._sketch.deviations(jnp, gradients, sums, 1 / scale, 1 / total)
        return loss, squares, seeds

    def _mean_squares_step(self, sums: list[Array], total: Array) -> Array:
        return self._sketch.squares(jnp, sums) / total**2

    def _gradient(
        self,
        scale: Array,
        values: list[Array],
        state: list[Array],
        seeds: list[Array],
        batch: Batch,
    ) -> tuple[Array, list[Array], list[Array]]:
        """Returns the loss, `scale` times its gradient in float32, and the next seeds."""
        fixed = [
            *zip(self._others, state, strict=True),
            *zip(self._loss.seeds, seeds, strict=True),
        ]

        def scaled_loss(values: list[Array]) -> tuple[Array, tuple[Array, list[Array]]]:
            weights = zip(self._loss.variables, values, strict=True)
            loss, next_seeds = self._loss.evaluate([*weights, *fixed], batch)
            loss = loss.astype(jnp.float32)
            return loss * scale, (loss, next_seeds)

        gradients, (loss, seeds) = jax.grad(scaled_loss, has_aux=True)(values)
        return loss, [gradient.astype(jnp.float32) for gradient in gradients], seeds


def _plain(function: Callable[..., Any], **_: Any) -> Callable[..., Any]:
    return function


def _arrays(batch: Batch) -> Any:
    return keras.tree.map_structure(
        lambda leaf: leaf if leaf is None or isinstance(leaf, jax.Array) else np.asarray(leaf),
        batch,
    )
