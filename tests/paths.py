"""The ways in which a step can run on TensorFlow, each applying given gradients to variables."""

import functools

import keras
import numpy as np
import tensorflow as tf

PATHS = ("eager", "uncompiled eager", "graph", "uncompiled graph", "XLA", "two replicas")


@functools.cache
def two_replicas():
    """One strategy for all tests: a second one in a process would reuse its collective keys."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def make_model(optimizer):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(2)]
    )
    model.compile(optimizer, "mse")
    return model


def make_variables(values, dtype="float32"):
    return [keras.Variable(v, dtype=dtype, name=f"v{i}") for i, v in enumerate(values)]


def make_native_variables(values, dtype="float32"):
    """As Keras 2 (`tf_keras`) has them."""
    return [tf.Variable(v, dtype=dtype, name=f"v{i}") for i, v in enumerate(values)]


def apply(path, make_optimizer, values, steps, dtype="float32", make_variables=make_variables):
    """Applies the steps' gradients; returns (optimizer, variables)."""
    if path == "two replicas":
        return _apply_on_two_replicas(make_optimizer, values, steps, dtype, make_variables)
    jit_compile = {"eager": True, "graph": True, "XLA": "auto"}.get(path, False)
    optimizer = make_optimizer(jit_compile=jit_compile)
    variables = make_variables(values, dtype)
    optimizer.build(variables)

    def step(gradients):
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    if "graph" in path:
        step = tf.function(step)
    elif path == "XLA":
        step = tf.function(step, jit_compile=True)
    for gradients in steps:
        step([tf.constant(g, dtype) for g in gradients])
    return optimizer, variables


def _apply_on_two_replicas(make_optimizer, values, steps, dtype, make_variables):
    """Each replica holds a random half of a gradient's coordinates, so that the sum is exact."""
    strategy = two_replicas()
    rng = np.random.default_rng(1)
    with strategy.scope():
        optimizer = make_optimizer()
        variables = make_variables(values, dtype)
        optimizer.build(variables)

    @tf.function
    def step(gradients, masks):
        def replica(gradients, masks):
            mine = tf.distribute.get_replica_context().replica_id_in_sync_group == 0
            parts = [tf.where(m == mine, g, 0) for g, m in zip(gradients, masks, strict=True)]
            optimizer.apply_gradients(zip(parts, variables, strict=True))

        strategy.run(replica, args=(gradients, masks))

    for gradients in steps:
        masks = [tf.constant(rng.random(g.shape) < 0.5) for g in gradients]
        step([tf.constant(g, dtype) for g in gradients], masks)
    return optimizer, variables


def slot_values(optimizer):
    return [[np.asarray(slot) for slot in slots.values()] for slots in optimizer._slots]
