"""How TensorFlow runs a step: as one XLA computation, on replicas, or op by op.

Keras 2 and Keras 3 share it. It gets the step's variables and functions of arrays, and knows
nothing of the optimizer.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, MutableMapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_acclip._utils import compat
from keras_acclip._utils.typing import Array, Gradient, Variable
from keras_acclip.optimizers import sparse, tensorflow_ops
from keras_acclip.optimizers.record import Kept
from keras_acclip.optimizers.step import (
    Cell,
    Counters,
    Scalars,
    Step,
    average,
    averaged_count,
    count_step,
    keep_record,
    prepare,
    projection,
    scale,
    take,
    touches_rows_alone,
    update,
)

NORM_SLICES = 16
"""The slices of `rules.global_norm`."""

XLA_DTYPES = (tf.float16, tf.bfloat16, tf.float32, tf.float64)
"""What XLA compiles."""


def run(
    make_step: Callable[[], Step],
    variables: Sequence[Variable],
    gradients: Sequence[Gradient],
    scalars: Scalars,
    *,
    compiled: MutableMapping[Hashable, Callable] | None,
    key: Hashable,
    refuse: Callable[[str], None],
    reduce: bool,
) -> None:
    """Takes one step in the best way that the circumstances allow.

    Args:
        make_step: Returns what the step reads and assigns: Keras's or TensorFlow's variables.
        variables: The variables of its cells.
        gradients: Gradients of this replica, one a cell, dense or `tf.IndexedSlices`.
        scalars: Learning rate and thresholds.
        compiled: Where the XLA computations are kept, by `key`; `None` not to compile.
        key: Equal for steps that are one computation.
        refuse: Is told, in words, why the step is no XLA computation; it may raise.
        reduce: Whether the gradients are still to be summed over replicas.
    """
    thresholds = tuple(map(tf.convert_to_tensor, scalars.thresholds))
    scalars = Scalars(tf.convert_to_tensor(scalars.learning_rate), thresholds)
    gradients = [_arrived(g, v) for g, v in zip(gradients, variables, strict=True)]
    strategy = tf.distribute.get_strategy()
    alone = _has_one_replica(strategy) or not tf.distribute.has_strategy()
    some_rows = any(map(sparse.is_sparse, gradients))
    if alone and compiled and key in compiled and not some_rows:
        compiled[key](gradients, scalars)
        return
    step = _map_variables(make_step(), native)
    if not alone:
        refuse("tf.distribute updates each replica's variables by itself")
        _on_replicas(step, gradients, scalars, reduce)
        return
    if tf.distribute.has_strategy():
        step = _map_variables(step, lambda v: strategy.experimental_local_results(v)[0])
    gradients = [
        # A number of rows that changes from batch to batch would make XLA compile for each.
        g if touches_rows_alone(step.settings, cell) else sparse.dense(g)
        for g, cell in zip(gradients, step.cells, strict=True)
    ]
    obstacle = _obstacle(gradients, [cell.variable for cell in (*step.cells, *step.idle)])
    if compiled is None or obstacle:
        if obstacle:
            refuse(obstacle)
        take(step, gradients, scalars, tensorflow_ops, NORM_SLICES)
        return
    if key not in compiled:
        compiled[key] = _compiled(step)
    compiled[key](gradients, scalars)


def run_around(
    clip: Callable[[Sequence[Gradient], Scalars], tuple[list[Gradient], Array | None]],
    take: Callable[[list[Gradient], Array], None],
    take_summed: Callable[[list[Gradient], Array], None],
    variables: Sequence[Variable],
    gradients: Sequence[Gradient],
    scalars: Scalars,
    *,
    unless_finite: Sequence[Variable] | None,
    compiled: MutableMapping[Hashable, Callable] | None,
    key: Hashable,
    refuse: Callable[[str], None],
    reduce: bool,
) -> None:
    """Clips, then lets another optimizer take its step, all in one computation where it can be.

    Args:
        clip: Function from gradients, summed over replicas, and scalars to the clipped gradients
            and whether they were finite, or `None`.
        take: Takes the step, given the gradients and the learning rate.
        take_summed: The same on one of several replicas, whose gradients are summed already.
        variables: The variables that have a gradient.
        gradients: Gradients of this replica.
        scalars: Learning rate and thresholds.
        unless_finite: `None`, or the variables to put back where the gradients were not finite.
        compiled: As in `run`, like the arguments that follow.
        key: Equal for steps that are one computation.
        refuse: Is told why the step is no XLA computation.
        reduce: Whether the gradients are still to be summed over replicas.
    """
    thresholds = tuple(map(tf.convert_to_tensor, scalars.thresholds))
    scalars = Scalars(tf.convert_to_tensor(scalars.learning_rate), thresholds)
    gradients = [_arrived(g, v) for g, v in zip(gradients, variables, strict=True)]
    back = None if unless_finite is None else [native(v) for v in unless_finite]
    strategy = tf.distribute.get_strategy()
    if not _has_one_replica(strategy) and tf.distribute.has_strategy():
        refuse("tf.distribute updates each replica's variables by itself")
        if reduce:
            context = tf.distribute.get_replica_context()
            gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        _step_around(clip, take_summed, gradients, scalars, back)
        return

    def step(gradients: list[Gradient], scalars: Scalars) -> None:
        _step_around(clip, take, gradients, scalars, back)

    if compiled is not None:
        gradients = [sparse.dense(g) for g in gradients]
    obstacle = _obstacle(gradients, [native(v) for v in variables])
    if compiled is None or obstacle:
        if obstacle:
            refuse(obstacle)
        step(gradients, scalars)
        return
    if key not in compiled:
        compiled[key] = tf.function(step, jit_compile=True, autograph=False)
    compiled[key](gradients, scalars)


def _step_around(
    clip: Callable[[Sequence[Gradient], Scalars], tuple[list[Gradient], Array | None]],
    take: Callable[[list[Gradient], Array], None],
    gradients: Sequence[Gradient],
    scalars: Scalars,
    back: Sequence[tf.Variable] | None,
) -> None:
    clipped, finite = clip(gradients, scalars)
    before = None if back is None else [tf.identity(v) for v in back]
    take(clipped, scalars.learning_rate)
    if back is None or before is None:
        return

    def put_back(strategy: tf.distribute.Strategy, before: Sequence[Array], finite: Array) -> None:
        for variable, old in zip(back, before, strict=True):
            strategy.extended.update(
                variable,
                lambda v, old, finite: v.assign(tf.where(finite, v, old)),
                args=(old, finite),
                group=False,
            )

    compat.maybe_merge_call(put_back, tf.distribute.get_strategy(), before, finite)


def watch(
    keep: Callable[[Sequence[Array], Any], None],
    gradients: Sequence[Gradient],
    compiled: MutableMapping[Hashable, Callable],
    key: Hashable,
    *,
    reduce: bool,
) -> None:
    """Hands gradients to `keep`, in an XLA computation beside the step's, which stays as it is.

    Args:
        keep: Takes dense float32 gradients of the whole batch, and a namespace of array functions.
        gradients: Gradients of this replica.
        compiled: Where the computations are kept, by `key`.
        key: Equal for gradients of the same variables.
        reduce: Whether they are still to be summed over replicas.
    """
    gradients = [tf.cast(sparse.dense(g), tf.float32) for g in gradients]
    replicas = tf.distribute.has_strategy() and not _has_one_replica(tf.distribute.get_strategy())
    if replicas:
        context = tf.distribute.get_replica_context()
        if reduce and context:
            gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        keep(gradients, tensorflow_ops)
        return
    if key not in compiled:
        compiled[key] = tf.function(
            lambda given: keep(given, tensorflow_ops), jit_compile=True, autograph=False
        )
    compiled[key](gradients)


def unsaved(
    strategy: tf.distribute.Strategy, shape: Sequence[int], initializer: str, dtype: str, name: str
) -> tf.Variable:
    """A variable of zeros on every replica that no optimizer tracks; the first replica's counts."""
    with strategy.scope():
        return tf.Variable(
            tf.zeros(shape, dtype),
            trainable=False,
            name=name,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )


def strategy() -> tf.distribute.Strategy:
    """The strategy in whose scope an optimizer is made; `overwrite` and `colocated` take it."""
    return tf.distribute.get_strategy()


def overwrite(
    pairs: Sequence[tuple[Variable, Variable]],
    unless_zero: Variable,
    strategy: tf.distribute.Strategy,
) -> None:
    """Assigns averages to their variables, on every replica.

    Args:
        pairs: Variables and their averages, Keras's or TensorFlow's.
        unless_zero: A counter; where it is 0, the variables stay as they are.
        strategy: The optimizer's.
    """

    def assign(variable: tf.Variable, value: tf.Variable, count: tf.Variable) -> None:
        variable.assign(tf.where(count > 0, tf.cast(value, variable.dtype), variable))

    for variable, value in pairs:
        arguments = (native(value), native(unless_zero))
        strategy.extended.update(native(variable), assign, args=arguments)


def colocated(
    variable: Variable, make: Callable[[], Variable], strategy: tf.distribute.Strategy
) -> Variable:
    """Returns `make()`, a variable placed and replicated as `variable` is."""
    with strategy.extended.colocate_vars_with(native(variable)):
        return make()


def native(variable: Variable) -> tf.Variable:
    """The `tf.Variable` that a Keras variable holds, or the `tf.Variable` itself."""
    return variable.value if isinstance(variable, keras.Variable) else variable


def _compiled(step: Step) -> Callable[[list[Gradient], Scalars], None]:
    """The XLA computation of a step; traced once, whatever rates and thresholds do."""

    @tf.function(jit_compile=True, autograph=False)
    def compiled_step(gradients: list[Gradient], scalars: Scalars) -> None:
        take(step, gradients, scalars, tensorflow_ops, NORM_SLICES)

    return compiled_step


def _obstacle(gradients: Sequence[Gradient], variables: Sequence[tf.Variable]) -> str | None:
    """Why XLA can't take this step, in words, or `None`."""
    if any(sparse.is_sparse(g) for g in gradients):
        return "the rows of a sparse gradient are updated in place"
    dtypes = sorted({v.dtype.name for v in variables if v.dtype not in XLA_DTYPES})
    if dtypes:
        return f"variables have dtype {', '.join(dtypes)}"
    devices = sorted({v.device for v in variables})
    if len(devices) > 1:
        return f"the variables lie on several devices ({', '.join(devices)})"
    return None


def _has_one_replica(strategy: tf.distribute.Strategy) -> bool:
    """Whether a strategy has nothing to sum, and its only replica's variables beside it."""
    kinds = (tf.distribute.OneDeviceStrategy, tf.distribute.MirroredStrategy)
    return isinstance(strategy, kinds) and strategy.num_replicas_in_sync == 1


def _on_replicas(step: Step, gradients: Sequence[Gradient], scalars: Scalars, reduce: bool) -> None:
    """The step under `tf.distribute`: gradients are summed over replicas before anything else."""
    ops, strategy = tensorflow_ops, tf.distribute.get_strategy()
    context = tf.distribute.get_replica_context()
    if reduce and context:
        gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, list(gradients))
    ready = prepare(step, gradients, scalars, ops, NORM_SLICES)
    gradients, finite, scalars = ready.gradients, ready.finite, ready.scalars
    count = averaged_count(step.counters, ops)

    def update_each(
        strategy: tf.distribute.Strategy,
        gradients: Sequence[Gradient],
        scalars: Scalars,
        count: Array | None,
        finite: Array | None,
    ) -> None:
        def update_here(v: tf.Variable, i: int, gradient: Gradient, *shared: Any) -> None:
            scalars, count, finite = shared
            cell = step.cells[i]._replace(variable=v)
            update(step.settings, cell, gradient, scalars, count, finite, ops)

        def average_here(v: tf.Variable, i: int, count: Array, finite: Array | None) -> None:
            average(step.idle[i]._replace(variable=v), count, finite, ops)

        shared = (scalars, count, finite)
        for i, (cell, gradient) in enumerate(zip(step.cells, gradients, strict=True)):
            arguments = (i, gradient, *shared)
            strategy.extended.update(cell.variable, update_here, args=arguments, group=False)
        for i, cell in enumerate(step.idle):
            arguments = (i, count, finite)
            strategy.extended.update(cell.variable, average_here, args=arguments, group=False)

    compat.maybe_merge_call(update_each, strategy, gradients, scalars, count, finite)
    if step.settings.projection_radius is not None:
        factor = projection(step, finite, ops, NORM_SLICES)

        def scale_each(strategy: tf.distribute.Strategy, factor: Array) -> None:
            for variable in step.projected:
                strategy.extended.update(
                    variable, lambda v, f: scale(v, f, ops), args=(factor,), group=False
                )

        compat.maybe_merge_call(scale_each, strategy, factor)
    count_step(step.counters, finite, ops)
    keep_record(step, ready, ops, NORM_SLICES)


def _arrived(gradient: Gradient, variable: tf.Variable) -> Gradient:
    """A gradient as a tensor of its variable's static shape, whatever it came as."""
    if sparse.is_sparse(gradient):
        return gradient
    gradient = tf.convert_to_tensor(gradient, dtype_hint=variable.dtype)
    gradient.set_shape(variable.shape)
    return gradient


def _map_variables(step: Step, function: Callable[[Variable], Variable]) -> Step:
    def of_cell(cell: Cell) -> Cell:
        return cell._replace(
            variable=function(cell.variable),
            slots=tuple(map(function, cell.slots)),
            average=None if cell.average is None else function(cell.average),
        )

    return step._replace(
        cells=[of_cell(cell) for cell in step.cells],
        idle=[of_cell(cell) for cell in step.idle],
        projected=[function(v) for v in step.projected],
        counters=Counters(*(None if c is None else function(c) for c in step.counters)),
        kept=Kept(*(None if v is None else function(v) for v in step.kept)),
    )
