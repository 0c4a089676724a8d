"""A worker and a parameter server in one process, for `test_distribution`."""

import os
import sys

import numpy as np
import tensorflow as tf

from tests import paths
from tests.integration.test_distribution import MAKERS, data


def start_cluster(worker_port, server_port):
    spec = tf.train.ClusterSpec(
        {"worker": [f"localhost:{worker_port}"], "ps": [f"localhost:{server_port}"]}
    )
    servers = [tf.distribute.Server(spec, job_name=job, task_index=0) for job in ("worker", "ps")]
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(spec, rpc_layer="grpc")
    return servers, tf.distribute.ParameterServerStrategy(resolver)


def train(strategy, coordinator, name, out):
    x, y = data()
    with strategy.scope():
        model = paths.make_model(MAKERS[name]())
        optimizer = model.optimizer
        optimizer.build(model.trainable_variables)

    @tf.function
    def step(x, y):
        def replica(x, y):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
            gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
            optimizer.apply(gradients, model.trainable_variables)

        strategy.run(replica, args=(x, y))

    for i in range(0, 64, 16):
        coordinator.schedule(step, args=(x[i : i + 16], y[i : i + 16]))
        coordinator.join()
    np.savez(f"{out}-{name}.npz", *[v.value.read_value() for v in model.trainable_variables])


if __name__ == "__main__":
    worker_port, server_port, out = sys.argv[1:]
    servers, strategy = start_cluster(worker_port, server_port)
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    for name in MAKERS:
        train(strategy, coordinator, name, out)
    # The servers' threads never end by themselves.
    os._exit(0)
