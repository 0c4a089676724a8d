"""Gradients of a model's loss on TensorFlow, digested batch by batch in one XLA computation."""

import logging

import tensorflow as tf
import tensorflow.experimental.numpy as tnp

from keras_acclip.noise.engine import Engine

# Batches of more shapes than this are no longer compiled by XLA, which compiles each shape anew.
_COMPILED_SHAPES = 8

_REFUSALS = (
    tf.errors.InvalidArgumentError,
    tf.errors.UnimplementedError,
    tf.errors.NotFoundError,
    tf.errors.InternalError,
)


def sweep(term, flats, size, count):
    """Sums `term(i, *slabs)` over `count` slabs of `size` coordinates, as `CountSketch` asks."""

    def add(i, *totals):
        slabs = [tf.slice(flat, [i * size], [size]) for flat in flats]
        terms = term(tf.cast(i, tf.uint32), *slabs)
        return i + 1, *(a + b for a, b in zip(totals, terms, strict=True))

    first = term(tf.constant(0, tf.uint32), *(flat[:size] for flat in flats))
    _, *totals = tf.while_loop(lambda i, *_: i < count, add, (tf.constant(1), *first))
    return totals


class TensorFlowEngine(Engine):
    """An `Engine` for models of Keras 3 on TensorFlow; the base of that for Keras 2.

    A model with several replicas, or one that XLA cannot compile, runs in a plain `tf.function`;
    one compiled with `run_eagerly=True` runs eagerly.
    """

    def __init__(self, loss, sketch):
        super().__init__(loss, sketch)
        sketch.sweep = None if tf.config.list_logical_devices("GPU") else sweep
        self._strategy = loss.model.distribute_strategy
        self._replicas = self._strategy.num_replicas_in_sync
        self._eager = loss.model.run_eagerly
        self._jit = self._replicas == 1
        self._functions = {}
        self._shapes = set()
        self._kept = {}
        self._graphs = set()
        self._writable = {}
        # Without a static shape, a variable can be emptied between measurements.
        self._sums = [
            tf.Variable(tf.zeros((0,)), shape=tf.TensorShape(None), trainable=False)
            for _ in loss.variables
        ]

    def rewind(self):
        """Sets the random state to what it was at `open`, for another pass."""
        self._seeds = [tf.identity(seed) for seed in self._first_seeds]

    def mean_squares(self, total):
        """Returns ‖ḡ‖² of each group, given the sum of the weights absorbed."""
        return self._run(self._mean_squares_step, tf.constant(float(total)))

    def close(self):
        """Frees the sum, and puts back whatever the evaluations have written."""
        for variable in self._sums:
            variable.assign(tf.zeros((0,)))
        for key, value in self._kept.items():
            self._writable[key].assign(value)
        self._kept = {}

    def _start(self):
        self._first_seeds = self._initial_seeds()
        for total, variable in zip(self._sums, self._loss.variables, strict=True):
            total.assign(tf.zeros(variable.shape))
        self._keep(self._writable.values())

    def _absorb(self, batch, weight):
        scale, weight = tf.constant(self._scale), tf.constant(float(weight))
        return self._run(self._absorb_step, self._seeds, scale, weight, self._place(batch))

    def _deviate(self, batch, total):
        scale, total = tf.constant(self._scale), tf.constant(float(total))
        # In one computation, XLA on a CPU takes several times as long for the gradient.
        loss, gradients, seeds = self._run(
            self._gradient_step, self._seeds, scale, self._place(batch)
        )
        return loss, self._run(self._deviations_step, gradients, scale, total), seeds

    def _absorb_step(self, seeds, scale, weight, batch):
        loss, gradients, seeds = self._global_gradient(seeds, scale, batch)
        squares, sketch = self._sketch.digest(tnp, gradients)
        finite = tf.math.is_finite(tf.reduce_sum(squares))
        for total, gradient in zip(self._sums, gradients, strict=True):
            term = tf.where(finite, weight / scale * gradient, tf.zeros_like(gradient))
            tf.raw_ops.AssignAddVariableOp(resource=total.handle, value=term)
        return loss, squares / scale**2, sketch / scale, seeds

    def _gradient_step(self, seeds, scale, batch):
        return self._global_gradient(seeds, scale, batch)

    def _deviations_step(self, gradients, scale, total):
        return self._sketch.deviations(tnp, gradients, self._summed(), 1 / scale, 1 / total)

    def _mean_squares_step(self, total):
        return self._sketch.squares(tnp, self._summed()) / total**2

    def _summed(self):
        return [
            tf.ensure_shape(summed, variable.shape)
            for summed, variable in zip(self._sums, self._loss.variables, strict=True)
        ]

    def _global_gradient(self, seeds, scale, batch):
        """Returns loss, `scale` times the float32 gradient of the global batch, and next seeds."""
        if self._replicas == 1:
            return self._gradient(seeds, scale, batch)
        loss, gradients, seeds = self._strategy.run(self._gradient, (seeds, scale, batch))
        loss, *gradients = [
            self._strategy.reduce("SUM", part, axis=None) for part in (loss, *gradients)
        ]
        return loss, gradients, [self._strategy.experimental_local_results(s)[0] for s in seeds]

    def _gradient(self, seeds, scale, batch):
        sources = self._sources()
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            loss, seeds = self._evaluate(sources, seeds, batch)
            loss = tf.cast(loss, tf.float32)
            scaled = loss * scale
        gradients = tape.gradient(scaled, sources, unconnected_gradients="zero")
        gradients = [tf.cast(tf.convert_to_tensor(gradient), tf.float32) for gradient in gradients]
        return loss, gradients, seeds

    def _initial_seeds(self):
        return [tf.convert_to_tensor(seed.value) for seed in self._loss.seeds]

    def _sources(self):
        return [tf.convert_to_tensor(variable.value) for variable in self._loss.variables]

    def _evaluate(self, sources, seeds, batch):
        weights = zip(self._loss.variables, sources, strict=True)
        return self._loss.evaluate([*weights, *zip(self._loss.seeds, seeds, strict=True)], batch)

    def _may_write(self, variable):
        """Whether an evaluation may write a TensorFlow variable that it reads."""
        protected = [*self._sums, *(v.value for v in self._loss.model.variables)]
        return not (variable.trainable or any(variable is p for p in protected))

    def _run(self, step, *arguments):
        """Runs a step as compiled as it can be."""
        if self._eager:
            return step(*arguments)
        leaves = tf.nest.flatten(arguments, expand_composites=True)
        self._shapes.add(tuple(str(leaf.shape) for leaf in leaves if leaf is not None))
        jit = self._jit and len(self._shapes) <= _COMPILED_SHAPES
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

    def _call(self, step, jit, arguments):
        """Calls a step as a `tf.function`, having kept the variables that it may write."""
        key = step.__name__, jit
        if key not in self._functions:
            self._functions[key] = tf.function(
                step, jit_compile=jit or None, reduce_retracing=not jit, autograph=False
            )
        graph = self._functions[key].get_concrete_function(*arguments).graph
        if graph not in self._graphs:
            self._graphs.add(graph)
            self._keep(variable for variable in graph.variables if self._may_write(variable))
        return self._functions[key](*arguments)

    def _keep(self, variables):
        """Copies variables that an evaluation may write, to put them back at `close`."""
        for variable in variables:
            if variable.ref() not in self._kept:
                self._writable[variable.ref()] = variable
                self._kept[variable.ref()] = tf.identity(variable)

    def _place(self, batch):
        """Turns a batch into tensors, split over the replicas as `fit` splits it."""
        batch = tf.nest.map_structure(
            lambda leaf: leaf if leaf is None or tf.is_tensor(leaf) else tf.convert_to_tensor(leaf),
            batch,
        )
        if self._replicas == 1:
            return batch

        def split(leaf):
            size, rest = divmod(leaf.shape[0], self._replicas)
            parts = tf.split(leaf, [size + (i < rest) for i in range(self._replicas)])
            return self._strategy.experimental_distribute_values_from_function(
                lambda context: parts[context.replica_id_in_sync_group]
            )

        return tf.nest.map_structure(lambda leaf: None if leaf is None else split(leaf), batch)


class LegacyEngine(TensorFlowEngine):
    """An `Engine` for models of Keras 2 (`tf_keras`)."""

    def _start(self):
        model = self._loss.model
        metrics = [v for metric in model.metrics for v in metric.variables]
        self._keep(v for v in [*model.variables, *metrics] if not v.trainable)
        super()._start()

    def _initial_seeds(self):
        return [tf.zeros((2,), tf.int32)]

    def _sources(self):
        return self._loss.variables

    def _evaluate(self, sources, seeds, batch):
        return self._loss.evaluate(seeds[0], batch), [seeds[0] + [1, 0]]

    def _may_write(self, variable):
        return not (variable.trainable or any(variable is s for s in self._sums))
