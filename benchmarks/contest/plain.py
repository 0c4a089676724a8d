"""Plain gradients of batches, each computed and stored: what measuring noise is compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

Run = Callable[[list[Any]], None]


def gradients(model: Any) -> Run:
    """Returns a function that evaluates and stores the gradient of each batch of a list."""
    return {"tensorflow": _on_tensorflow, "jax": _on_jax}[keras.config.backend()](model)


def _on_tensorflow(model: Any) -> Run:
    import tensorflow as tf

    variables = [v.value for v in model.trainable_variables]
    stored = [
        tf.Variable(tf.zeros((0,)), shape=tf.TensorShape(None), trainable=False) for _ in variables
    ]

    @tf.function(jit_compile=True, autograph=False)
    def plain_step(x, y, sample_weight):
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x, y, model(x, training=True), sample_weight)
        gradients = tape.gradient(loss, variables, unconnected_gradients="zero")
        for store, gradient in zip(stored, gradients, strict=True):
            store.assign(gradient)
        return loss

    def run(batches):
        for store, variable in zip(stored, variables, strict=True):
            store.assign(tf.zeros(variable.shape))
        for batch in batches:
            float(plain_step(*keras.tree.map_structure(tf.convert_to_tensor, batch)))
        for store in stored:
            store.assign(tf.zeros((0,)))

    return run


def _on_jax(model: Any) -> Run:
    import jax

    def plain_step(stored, trainable, non_trainable, metrics, batch):
        x, y, sample_weight = batch

        def loss(trainable):
            y_pred, state, losses = model.stateless_call(
                trainable, non_trainable, x, return_losses=True, training=True
            )
            total, _ = model.stateless_compute_loss(
                trainable, non_trainable, metrics, x, y, y_pred, sample_weight
            )
            return total + sum(losses), state

        (value, state), gradients = jax.value_and_grad(loss, has_aux=True)(trainable)
        return value, state, gradients

    step = jax.jit(plain_step, donate_argnums=0)

    def run(batches):
        trainable = [v.value for v in model.trainable_variables]
        state = [v.value for v in model.non_trainable_variables]
        metrics = [v.value for v in model.metrics_variables]
        stored = [jax.numpy.zeros_like(value) for value in trainable]
        for batch in batches:
            value, state, stored = step(stored, trainable, state, metrics, batch)
            float(value)

    return run
