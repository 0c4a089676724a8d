"""One of two workers of `test_distribution.test_two_workers_equal_one_device`."""

import sys

import tensorflow as tf

strategy = tf.distribute.MultiWorkerMirroredStrategy()

import numpy as np  # noqa: E402

from tests import paths  # noqa: E402
from tests.integration.test_distribution import MAKERS, data, numpy_weights  # noqa: E402


def train(name, out):
    x, y = data()
    with strategy.scope():
        model = paths.make_model(MAKERS[name]())
        optimizer = model.optimizer
        optimizer.build(model.trainable_variables)
    worker = strategy.cluster_resolver.task_id

    @tf.function
    def step(x, y):
        def replica(x, y):
            with tf.GradientTape() as tape:
                # Gradients are summed over the two workers, so each has half of the mean.
                loss = tf.reduce_mean((model(x, training=True) - y) ** 2) / 2
            gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
            optimizer.apply(gradients, model.trainable_variables)

        strategy.run(replica, args=(x, y))

    for i in range(0, 64, 16):
        rows = slice(i + 8 * worker, i + 8 * worker + 8)
        step(tf.constant(x[rows]), tf.constant(y[rows]))
    optimizer.finalize_variable_values(model.trainable_variables)
    np.savez(f"{out}-{name}.npz", *numpy_weights(model))


if __name__ == "__main__":
    for name in MAKERS:
        train(name, *sys.argv[1:])
