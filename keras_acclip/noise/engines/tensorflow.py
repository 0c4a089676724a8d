"""Gradients of a model's loss on TensorFlow, digested batch by batch in one XLA computation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from keras_acclip._utils import compat
from keras_acclip._utils.typing import Array
from keras_acclip.noise.engines.base import Batch, Engine
from keras_acclip.noise.engines.gradients import Gradients, TensorFlowSource

if TYPE_CHECKING:
    from keras_acclip.noise.sketch import CountSketch, Sweep, Term

tnp = tf.experimental.numpy

# Batches of more shapes than this are no longer compiled by XLA, which compiles each shape anew.
_COMPILED_SHAPES = 8

_REFUSALS = (
    tf.errors.InvalidArgumentError,
    tf.errors.UnimplementedError,
    tf.errors.NotFoundError,
    tf.errors.InternalError,
)


def suitable_sweep() -> Sweep | None:
    """Returns `sweep` for a machine without GPUs, else `None`."""
    return None if tf.config.list_logical_devices("GPU") else sweep


def sweep(term: Term, flats: Sequence[Array], size: int, count: int) -> Sequence[Array]:
    """Sums `term(i, *slabs)` over `count` slabs of `size` coordinates, as `CountSketch` asks."""

    def add(i: Array, *totals: Array) -> tuple[Array, ...]:
        slabs = [tf.slice(flat, [i * size], [size]) for flat in flats]
        terms = term(tf.cast(i, tf.uint32), *slabs)
        return i + 1, *(a + b for a, b in zip(totals, terms, strict=True))

    first = term(tf.constant(0, tf.uint32), *(flat[:size] for flat in flats))
    _, *totals = tf.while_loop(lambda i, *_: i < count, add, (tf.constant(1), *first))
    return totals


class TensorFlowEngine(Engine):
    """An `Engine` for models of Keras 3 on TensorFlow and of Keras 2.

    A model with several replicas, or one that XLA cannot compile, runs in a plain `tf.function`;
    one compiled with `run_eagerly=True` runs eagerly.

    Args:
        source: What to differentiate.
        sketch: A `CountSketch` over the source's variables.
    """

    def __init__(self, source: TensorFlowSource, sketch: CountSketch) -> None:
        super().__init__(source, sketch)
        self._gradients = source
        self._strategy = source.model.distribute_strategy
        self._replicas = self._strategy.num_replicas_in_sync
        self._eager = source.model.run_eagerly
        self._jit = self._replicas == 1 and _layers_allow_xla(source.model)
        self._functions: dict[tuple[str, bool], Any] = {}
        self._shapes: set[tuple[str, ...]] = set()
        self._kept: dict[Any, Array] = {}
        self._graphs: set[Any] = set()
        self._writable: dict[Any, tf.Variable] = {}
        self._first_seeds: list[Array] = []
        # Without a static shape, a variable can be emptied between measurements.
        any_shape: Any = tf.TensorShape(None)  # pyright: ignore[reportArgumentType]
        self._sums = [
            tf.Variable(tf.zeros((0,)), shape=any_shape, trainable=False) for _ in source.variables
        ]

    def rewind(self) -> None:
        """Sets the random state to what it was at `open`, for another pass."""
        self._seeds = [tf.identity(seed) for seed in self._first_seeds]

    def mean_squares(self, total: float) -> Array:
        """Returns ‖ḡ‖² of each group, given the sum of the weights absorbed."""
        return self._run(self._mean_squares_step, tf.constant(float(total)))

    def close(self) -> None:
        """Frees the sum, and puts back whatever the evaluations have written."""
        for variable in self._sums:
            variable.assign(tf.zeros((0,)))
        for key, value in self._kept.items():
            self._writable[key].assign(value)
        self._kept = {}

    def _start(self) -> None:
        self._keep(self._gradients.written())
        self._first_seeds = self._gradients.seeds()
        for total, variable in zip(self._sums, self._source.variables, strict=True):
            total.assign(tf.zeros(variable.shape))
        self._keep(list(self._writable.values()))

    def _absorb(self, batch: Batch, weight: float) -> tuple[Array, Array, Array, list[Array]]:
        scale, share = tf.constant(self._scale), tf.constant(float(weight))
        return self._run(self._absorb_step, self._seeds, scale, share, self._place(batch))

    def _deviate(self, batch: Batch, total: float) -> tuple[Array, Array, list[Array]]:
        scale, share = tf.constant(self._scale), tf.constant(float(total))
        # In one computation, XLA on a CPU takes several times as long for the gradient.
        loss, gradients, seeds = self._run(
            self._gradient_step, self._seeds, scale, self._place(batch)
        )
        return loss, self._run(self._deviations_step, gradients, scale, share), seeds

    def _absorb_step(
        self, seeds: list[Array], scale: Array, weight: Array, batch: Batch
    ) -> tuple[Array, Array, Array, list[Array]]:
        loss, gradients, seeds = self._global_gradient(seeds, scale, batch)
        squares, sketch = self._sketch.digest(tnp, gradients)
        finite = tf.math.is_finite(tf.reduce_sum(squares))
        for total, gradient in zip(self._sums, gradients, strict=True):
            term = tf.where(finite, weight / scale * gradient, tf.zeros_like(gradient))
            total.assign_add(term, read_value=False)
        return loss, squares / scale**2, sketch / scale, seeds

    def _gradient_step(self, seeds: list[Array], scale: Array, batch: Batch) -> Gradients:
        return self._global_gradient(seeds, scale, batch)

    def _deviations_step(self, gradients: list[Array], scale: Array, total: Array) -> Array:
        return self._sketch.deviations(
            tf.experimental.numpy, gradients, self._summed(), 1 / scale, 1 / total
        )

    def _mean_squares_step(self, total: Array) -> Array:
        return self._sketch.squares(tnp, self._summed()) / total**2

    def _summed(self) -> list[Array]:
        return [
            tf.ensure_shape(summed, variable.shape)
            for summed, variable in zip(self._sums, self._source.variables, strict=True)
        ]

    def _global_gradient(self, seeds: list[Array], scale: Array, batch: Batch) -> Gradients:
        """Returns loss, `scale` times the float32 gradient of the global batch, and next seeds."""
        if self._replicas == 1:
            return self._gradients.gradient(seeds, scale, batch)
        loss, gradients, seeds = self._strategy.run(self._gradients.gradient, (seeds, scale, batch))
        loss, *gradients = [
            self._strategy.reduce("SUM", part, axis=None) for part in (loss, *gradients)
        ]
        return loss, gradients, [self._strategy.experimental_local_results(s)[0] for s in seeds]

    def _may_write(self, variable: tf.Variable) -> bool:
        """Whether an evaluation may write a TensorFlow variable that it reads."""
        ours = any(variable is total for total in self._sums)
        return not ours and self._gradients.may_write(variable)

    def _run(self, step: Callable[..., Any], *arguments: Any) -> Any:
        """Runs a step as compiled as it can be."""
        if self._eager:
            return step(*arguments)
        leaves = tf.nest.flatten(arguments, expand_composites=True)
        self._shapes.add(tuple(str(leaf.shape) for leaf in leaves if leaf is not None))
        # XLA ends the process where it meets a string.
        strings = any(getattr(leaf, "dtype", None) == tf.string for leaf in leaves)
        jit = self._jit and not strings and len(self._shapes) <= _COMPILED_SHAPES
        try:
            return self._call(step, jit, arguments)
        except _REFUSALS as error:
            if not jit:
                raise
            result = self._call(step, False, arguments)
            self._jit = False
            logging.getLogger(__name__).warning(
                "The gradient is evaluated without XLA, which cannot compile this model: %s",
                str(error).splitlines()[0],
            )
            return result

    def _call(self, step: Callable[..., Any], jit: bool, arguments: tuple[Any, ...]) -> Any:
        """Calls a step as a `tf.function`, having kept the variables that it may write."""
        key = step.__name__, jit
        if key not in self._functions:
            self._functions[key] = tf.function(
                step, jit_compile=jit or None, reduce_retracing=not jit, autograph=False
            )
        concrete = self._functions[key].get_concrete_function(*arguments)
        if concrete.graph not in self._graphs:
            self._graphs.add(concrete.graph)
            self._keep(variable for variable in concrete.variables if self._may_write(variable))
        return self._functions[key](*arguments)

    def _keep(self, variables: Iterable[tf.Variable]) -> None:
        """Copies variables that an evaluation may write, to put them back at `close`."""
        for variable in variables:
            if variable.ref() not in self._kept:
                self._writable[variable.ref()] = variable
                self._kept[variable.ref()] = tf.identity(variable)

    def _place(self, batch: Batch) -> Batch:
        """Turns a batch into tensors, split over the replicas as `fit` splits it."""
        batch = tf.nest.map_structure(
            lambda leaf: leaf if leaf is None or tf.is_tensor(leaf) else tf.convert_to_tensor(leaf),
            batch,
        )
        if self._replicas == 1:
            return batch

        def split(leaf: Array) -> Any:
            size, rest = divmod(leaf.shape[0], self._replicas)
            parts = tf.split(leaf, [size + (i < rest) for i in range(self._replicas)])
            return self._strategy.experimental_distribute_values_from_function(
                lambda context: parts[context.replica_id_in_sync_group]
            )

        return tf.nest.map_structure(lambda leaf: None if leaf is None else split(leaf), batch)


def _layers_allow_xla(model: Any) -> bool:
    """Whether no layer of a model says, or is known in Keras 2, to be beyond XLA."""
    layers = compat.flat_layers(model)
    names = {cls.__name__ for layer in layers for cls in type(layer).__mro__}
    preprocessing = {"PreprocessingLayer", "IndexLookup", "TextVectorization", "Hashing"}
    return not names & preprocessing and all(getattr(v, "supports_jit", True) for v in layers)
