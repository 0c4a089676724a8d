"""One step on n replicas equals one step on one device with the same global batch."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_acclip import ACClip, CClip, Clip, GClip
from keras_acclip.thresholds import MovingMoment
from tests import paths, reference
from tests.tiers import some

MAKERS = {
    "GClip": lambda: GClip(0.1, 0.5, momentum=0.9, averaging="linear", projection_radius=2.0),
    "CClip": lambda: CClip(0.1, {"kernel": 0.05, ".*": 0.01}, momentum=0.9, weight_decay=0.1),
    "ACClip": lambda: ACClip(0.01, weight_decay=0.1, skip_nonfinite=True),
    "ACClip rms": lambda: ACClip(0.01, alpha=1.5, step_size="rms", use_ema=True),
    "Clip": lambda: Clip(keras.optimizers.AdamW(0.05), 0.5),
    "Clip, moving": lambda: Clip(
        keras.optimizers.SGD(0.1, momentum=0.9), MovingMoment(0.7, warmup=1), by="variable"
    ),
}


def data(seed=0):
    rng = np.random.default_rng(seed)
    x = np.float32(rng.standard_normal((64, 6)))
    return x, np.float32(rng.standard_t(1.5, (64, 2)))


def numpy_weights(model):
    return [np.asarray(w) for w in model.get_weights()]


@pytest.mark.parametrize("name", some(MAKERS, ("GClip",)))
def test_fit_on_two_replicas_equals_one_device(name):
    x, y = data()
    alone = paths.make_model(MAKERS[name]())
    alone.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0)
    with paths.two_replicas().scope():
        model = paths.make_model(MAKERS[name]())
    model.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0)
    assert reference.relative_error(numpy_weights(model), numpy_weights(alone)) <= 1e-5


def test_gclip_clips_the_sum_of_the_replicas_gradients():
    """Gradients of ±1000 that cancel to 0.3 must move the variable by 0.3, unclipped."""
    strategy = paths.two_replicas()
    with strategy.scope():
        v = keras.Variable(np.zeros(1, np.float32))
        optimizer = GClip(1.0, 0.5)
        optimizer.build([v])

    @tf.function
    def step():
        def replica():
            first = tf.distribute.get_replica_context().replica_id_in_sync_group == 0
            optimizer.apply([tf.where(first, [1000.25], [-999.95])], [v])

        strategy.run(replica)

    step()
    np.testing.assert_allclose(keras.ops.convert_to_numpy(v), [-0.3], atol=1e-4)


def test_eager_replicas():
    strategy = paths.two_replicas()
    with strategy.scope():
        v = keras.Variable(np.zeros(2, np.float32))
        optimizer = GClip(1.0, 0.5)
        optimizer.build([v])
    strategy.run(lambda: optimizer.apply([tf.constant([3.0, 4.0])], [v]))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(v), [-0.3, -0.4], rtol=1e-6)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def run_processes(module, arguments):
    """Runs a module as each of two workers, with `arguments(index)` on its command line."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    workers = []
    for index in range(2):
        config = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        environment = os.environ | {"TF_CONFIG": config, "KERAS_BACKEND": "tensorflow"}
        workers.append(
            subprocess.Popen(
                [sys.executable, "-m", module, *arguments(index)],
                env=environment,
                cwd=Path(__file__).parents[2],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        outputs = [worker.communicate(timeout=400)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    for worker, output in zip(workers, outputs, strict=True):
        assert worker.returncode == 0, output[-4000:]


def run_workers(folder):
    """Trains with every optimizer on two processes; returns the weights that each ends with."""
    run_processes("tests.worker", lambda index: [str(folder / str(index))])
    return [
        {name: list(np.load(folder / f"{i}-{name}.npz").values()) for name in MAKERS}
        for i in range(2)
    ]


@pytest.fixture(scope="module")
def weights_of_workers(tmp_path_factory):
    return run_workers(tmp_path_factory.mktemp("workers"))


@pytest.mark.slow
@pytest.mark.xdist_group("workers")
@pytest.mark.parametrize("name", MAKERS)
def test_two_workers_equal_one_device(name, weights_of_workers):
    x, y = data()
    alone = paths.make_model(MAKERS[name]())
    for i in range(0, 64, 16):
        alone.train_on_batch(x[i : i + 16], y[i : i + 16])
    alone.optimizer.finalize_variable_values(alone.trainable_variables)
    for weights in weights_of_workers:
        assert reference.relative_error(weights[name], numpy_weights(alone)) <= 1e-5


@pytest.fixture(scope="module")
def weights_of_parameter_server(tmp_path_factory):
    """Keras 3's `fit` refuses this strategy for every optimizer; a custom loop works."""
    out = tmp_path_factory.mktemp("server") / "weights"
    subprocess.run(
        [sys.executable, "-m", "tests.parameter_server", *map(str, free_ports(2)), str(out)],
        cwd=Path(__file__).parents[2],
        check=True,
        timeout=240,
    )
    return {name: list(np.load(f"{out}-{name}.npz").values()) for name in MAKERS}


@pytest.mark.slow
@pytest.mark.xdist_group("parameter server")
@pytest.mark.parametrize("name", MAKERS)
def test_a_parameter_server_equals_one_device(name, weights_of_parameter_server):
    x, y = data()
    alone = paths.make_model(MAKERS[name]())
    for i in range(0, 64, 16):
        alone.train_on_batch(x[i : i + 16], y[i : i + 16])
    weights = weights_of_parameter_server[name]
    assert reference.relative_error(weights, numpy_weights(alone)) <= 1e-5
