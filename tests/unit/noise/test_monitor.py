"""GradientMonitor against what NumPy counts from the gradients themselves."""

import csv

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_acclip
from keras_acclip import tf_keras as keras_2

KERAS = {"Keras 3": (keras, keras_acclip), "Keras 2": (tf_keras, keras_2)}
NAMES = ("gradient_norm", "gradient_norm_max", "clip_rate", "clip_threshold", "skipped_steps")


@pytest.fixture(params=KERAS)
def both(request):
    return KERAS[request.param]


def data(steps=6, batch=4):
    rng = np.random.default_rng(0)
    x = np.float32(rng.standard_normal((steps * batch, 3)))
    return x, np.float32(rng.standard_normal((steps * batch, 1)) ** 3)


def linear(library, optimizer):
    start = library.Input((3,)) if library is keras else library.layers.InputLayer((3,))
    dense = library.layers.Dense(1, kernel_initializer="zeros", name="first")
    model = library.Sequential([start, dense])
    model.compile(optimizer, "mse")
    return model


def norms_at_zero(x, y, batch=4):
    """Norms of kernel and bias gradients of each batch, with weights that stay 0."""
    pairs = zip(x.reshape(-1, batch, 3), y.reshape(-1, batch, 1), strict=True)
    gradients = [(-2 * np.mean(a * b, 0), -2 * np.mean(b)) for a, b in pairs]
    return np.array([[np.linalg.norm(w), abs(b)] for w, b in gradients])


def test_the_logs_of_an_epoch(both, tmp_path):
    library, ours = both
    x, y = data()
    each = norms_at_zero(x, y)
    joint = np.linalg.norm(each, axis=1)
    tau = float(np.median(joint))
    model = linear(library, ours.GClip(0.0, tau))
    monitor = ours.GradientMonitor(groups={"weights": "kernel"}, log_dir=tmp_path / "logs", every=2)
    history = model.fit(
        x,
        y,
        batch_size=4,
        epochs=2,
        shuffle=False,
        verbose=0,
        callbacks=[monitor, library.callbacks.CSVLogger(str(tmp_path / "log.csv"))],
    ).history
    for epoch in range(2):
        got = [history[name][epoch] for name in NAMES]
        expected = [joint.mean(), joint.max(), np.mean(joint > tau), tau, 0]
        np.testing.assert_allclose(got, expected, rtol=1e-5)
        group = history["gradient_norm/weights"][epoch]
        np.testing.assert_allclose(group, np.sqrt(np.mean(each[:, 0] ** 2)), rtol=1e-5)
    assert [record["step"] for record in monitor.records] == [2, 4, 6, 8, 10, 12]
    means = [record["gradient_norm"] for record in monitor.records]
    largest = [record["gradient_norm_max"] for record in monitor.records]
    pairs = np.tile(joint.reshape(3, 2), (2, 1))
    np.testing.assert_allclose(means, pairs.mean(1), rtol=1e-5)
    np.testing.assert_allclose(largest, pairs.max(1), rtol=1e-5)
    with open(tmp_path / "log.csv") as file:
        assert set(NAMES) <= set(next(csv.reader(file)))
    (events,) = (tmp_path / "logs" / "gradient").glob("events*")
    written = [
        value.tag
        for event in tf.compat.v1.train.summary_iterator(str(events))
        for value in event.summary.value
    ]
    assert written.count("clip_rate") == 6
    assert float(model.optimizer.clipping.largest_norm) == pytest.approx(joint.max(), rel=1e-5)


def test_inside_other_optimizers_and_skipped_steps(both):
    library, ours = both
    x, y = data()
    y[0] = np.nan
    inner = ours.Clip(library.optimizers.Adam(0.0), 1e30, skip_nonfinite=True)
    for optimizer in (inner, ours.ACClip(0.0, skip_nonfinite=True)):
        model = linear(library, optimizer)
        history = model.fit(
            x, y, batch_size=4, verbose=0, shuffle=False, callbacks=[ours.GradientMonitor()]
        ).history
        assert history["skipped_steps"] == [1]
    # The first step, the only one that is looked at, was skipped.
    assert np.isnan(history["gradient_norm"]).all()
    with pytest.raises(ValueError, match=r"Put it in Clip"):
        linear(library, library.optimizers.Adam()).fit(
            x, y, verbose=0, callbacks=[ours.GradientMonitor()]
        )


def test_a_loss_scale_optimizer_around_it():
    x, y = data()
    joint = np.linalg.norm(norms_at_zero(x, y), axis=1)
    optimizer = keras.optimizers.LossScaleOptimizer(keras_acclip.GClip(0.0), initial_scale=1024.0)
    model = linear(keras, optimizer)
    history = model.fit(
        x, y, batch_size=4, verbose=0, shuffle=False, callbacks=[keras_acclip.GradientMonitor()]
    ).history
    np.testing.assert_allclose(history["gradient_norm"], [joint.mean()], rtol=1e-5)


def test_training_is_the_same_bit_for_bit(both):
    library, ours = both
    x, y = data()

    def weights(callbacks):
        model = linear(library, ours.ACClip(0.1))
        model.fit(x, y, batch_size=4, epochs=2, verbose=0, shuffle=False, callbacks=callbacks)
        return model.get_weights()

    for a, b in zip(weights([]), weights([ours.GradientMonitor(every=1)]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_bad_arguments(both):
    _, ours = both
    with pytest.raises(ValueError, match="`every`"):
        ours.GradientMonitor(every=0)
    with pytest.raises(ValueError, match="`groups`"):
        ours.GradientMonitor(groups="(")
