"""One optimizer step on TensorFlow: a single XLA computation, or a replicated one, or plain ops.

The optimizers say what a step does to each variable (`Clipped.update_step`); this module says how
TensorFlow runs it, for Keras 3 and Keras 2, and what it must know of sparse gradients
(`tf.IndexedSlices`).
"""

import keras
import tensorflow as tf

OBSTACLE = None
"""Why this backend can't compile a step by itself, in words: it can."""

NORM_SLICES = 16
"""The slices of `rules.global_norm`."""

_XLA_DTYPES = (tf.float16, tf.bfloat16, tf.float32, tf.float64)


def update(optimizer, gradients, variables, learning_rate):
    """Runs one step over all variables in the best way that the circumstances allow.

    Args:
        optimizer: A `Clipped` optimizer.
        gradients: Gradients of this replica, dense or `tf.IndexedSlices`.
        variables: The Keras or TensorFlow variables they belong to.
        learning_rate: A scalar.
    """
    variables = [_native(v) for v in variables]
    learning_rate = tf.convert_to_tensor(learning_rate)
    strategy = tf.distribute.get_strategy()
    if _has_one_replica(strategy):
        variables = [strategy.experimental_local_results(v)[0] for v in variables]
    elif tf.distribute.has_strategy():
        optimizer.not_compiled("tf.distribute updates each replica's variables by itself")
        _update_replicas(optimizer, gradients, variables, learning_rate)
        return
    gradients = [
        _dense_unless_rows(optimizer, g, v) for g, v in zip(gradients, variables, strict=True)
    ]
    obstacle = _obstacle(gradients, variables)
    if optimizer.jit_compile and not obstacle:
        _compiled_step(optimizer, variables)(gradients, learning_rate)
        return
    optimizer.not_compiled(obstacle)
    optimizer.update_all(gradients, variables, learning_rate)


def _has_one_replica(strategy):
    """Whether a strategy has nothing to sum, and its only replica's variables beside it."""
    kinds = (tf.distribute.OneDeviceStrategy, tf.distribute.MirroredStrategy)
    return isinstance(strategy, kinds) and strategy.num_replicas_in_sync == 1


def _compiled_step(optimizer, variables):
    """The XLA computation for these variables; traced once, whatever rates and thresholds do."""
    key = tuple(optimizer._get_variable_index(v) for v in variables)
    if key not in optimizer.compiled_steps:

        @tf.function(jit_compile=True, autograph=False)
        def step(gradients, learning_rate):
            optimizer.update_all(gradients, variables, learning_rate)

        optimizer.compiled_steps[key] = step
    return optimizer.compiled_steps[key]


def _obstacle(gradients, variables):
    """Why XLA can't take this step, in words, or `None`."""
    if any(is_sparse(g) for g in gradients):
        return "the rows of a sparse gradient are updated in place"
    dtypes = sorted({v.dtype.name for v in variables if v.dtype not in _XLA_DTYPES})
    if dtypes:
        return f"variables have dtype {', '.join(dtypes)}"
    devices = sorted({v.device for v in variables})
    if len(devices) > 1:
        return f"the variables lie on several devices ({', '.join(devices)})"
    return None


def _update_replicas(optimizer, gradients, variables, learning_rate):
    """The step under `tf.distribute`: gradients are summed over replicas before anything else."""
    merge_call = tf.__internal__.distribute.interim.maybe_merge_call
    strategy = tf.distribute.get_strategy()
    gradients, finite = optimizer.prepare(optimizer.summed_over_replicas(gradients, variables))

    def update_each(strategy, gradients, learning_rate, finite):
        for gradient, variable in zip(gradients, variables, strict=True):
            strategy.extended.update(
                variable,
                lambda v, g, *scalars: optimizer.update_step(g, v, *scalars),
                args=(gradient, learning_rate, finite),
                group=False,
            )

    merge_call(update_each, strategy, gradients, learning_rate, finite)
    if optimizer.projection_radius is not None:
        projected = [_native(v) for v in optimizer.projected_variables()]
        factor = optimizer.projection_factor(finite)

        def scale_each(strategy, factor):
            for variable in projected:
                strategy.extended.update(variable, optimizer.scale, args=(factor,), group=False)

        merge_call(scale_each, strategy, factor)
    optimizer.count_step(finite)


def overwrite(optimizer, variables, averages):
    """Assigns the averages to the variables, on every replica."""
    for variable, average in zip(variables, averages, strict=True):
        optimizer._distribution_strategy.extended.update(
            _native(variable),
            lambda v, a: v.assign(tf.cast(a, v.dtype)),
            args=(_native(average),),
        )


def colocated(optimizer, variable, make):
    """Returns `make()`, a variable placed and replicated as `variable` is."""
    with optimizer._distribution_strategy.extended.colocate_vars_with(_native(variable)):
        return make()


def is_sparse(gradient):
    """Whether the gradient has rows and indices."""
    return isinstance(gradient, tf.IndexedSlices)


def dense(gradient):
    """The gradient as a tensor; rows with the same index are summed."""
    return tf.convert_to_tensor(gradient)


def map_rows(function, gradient):
    """Applies a coordinate-wise function that keeps 0 to a dense or sparse gradient."""
    if not is_sparse(gradient):
        return function(gradient)
    return tf.IndexedSlices(function(gradient.values), gradient.indices, gradient.dense_shape)


def rows(gradient):
    """The coordinates that a dense or sparse gradient holds."""
    return gradient.values if is_sparse(gradient) else gradient


def sum_repeated_rows(gradient):
    """Sums the rows of a sparse gradient that have the same index, in static shapes.

    The number of rows stays, so that XLA can compile it: the surplus ones are 0, with an index that
    occurs anyway.
    """
    if not is_sparse(gradient):
        return gradient
    count = tf.shape(gradient.indices)[0]
    order = tf.argsort(gradient.indices, stable=True)
    indices = tf.gather(gradient.indices, order)
    is_first = tf.concat([tf.ones_like(indices[:1], tf.bool), indices[1:] != indices[:-1]], 0)
    segment = tf.cumsum(tf.cast(is_first, tf.int32)) - 1
    values = tf.math.unsorted_segment_sum(tf.gather(gradient.values, order), segment, count)
    summed = tf.math.unsorted_segment_max(indices, segment, count)
    indices = tf.maximum(summed, tf.reduce_min(indices))
    return tf.IndexedSlices(values, indices, gradient.dense_shape)


def subtract_rows(variable, indices, step, finite):
    """Subtracts rows from a variable in place, unless `finite` is false."""
    if finite is not None:
        step = tf.where(finite, step, tf.zeros_like(step))
    _native(variable).scatter_sub(tf.IndexedSlices(tf.cast(step, variable.dtype), indices))


def _dense_unless_rows(optimizer, gradient, variable):
    # A number of rows that changes from batch to batch would make XLA compile for each.
    if is_sparse(gradient) and not optimizer.updates_rows_alone(variable):
        return dense(gradient)
    return gradient


def _native(variable):
    return variable.value if isinstance(variable, keras.Variable) else variable
