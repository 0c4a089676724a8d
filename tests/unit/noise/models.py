"""Models and data for the tests of the noise, and gradients as `fit` itself takes them."""

import keras
import numpy as np
from keras import layers

# Compiling takes longest in most tests; on JAX, running eagerly takes longer yet.
QUICK = {"run_eagerly": keras.config.backend() == "tensorflow"}


def make_data(examples=96, features=6, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(examples, features)).astype("float32")
    return x, rng.integers(0, classes, examples)


def make_model(width=16, dropout=0.3, features=6, classes=3, optimizer="adam", cls=None, **compile):
    """A classifier with BatchNorm, dropout, regularization and a metric."""
    inputs = keras.Input((features,))
    h = layers.Dense(width, activation="relu", kernel_regularizer="l2")(inputs)
    h = layers.BatchNormalization()(h)
    h = layers.Dropout(dropout)(h)
    model = (cls or keras.Model)(inputs, layers.Dense(classes)(h))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, **{"metrics": ["accuracy"]} | compile)
    return model


def fit_gradients(model, batches, **fit):
    """The flat gradient of every batch, as a step of SGD with learning rate 1 in `fit` moves."""

    def read():
        return [np.array(v, "float64") for v in model.trainable_variables]

    def flatten(arrays):
        return np.concatenate([a.ravel() for a in arrays])

    start, gradients = read(), []
    for x, y, *weights in batches:
        weights = {"sample_weight": weights[0]} if weights else {}
        model.fit(x, y, batch_size=len(x), shuffle=False, verbose=0, **weights, **fit)
        gradients.append(flatten(start) - flatten(read()))
        for variable, value in zip(model.trainable_variables, start, strict=True):
            variable.assign(value)
    return np.array(gradients)


def cut(data, size=16):
    return [tuple(a[i : i + size] for a in data) for i in range(0, len(data[0]), size)]


def noise_of(gradients, weights=None):
    """Norms of g, of g − ḡ, and of ḡ."""
    mean = np.average(gradients, axis=0, weights=weights)
    norm = np.linalg.norm
    return norm(gradients, axis=1), norm(gradients - mean, axis=1), norm(mean)


def assert_is_noise_of(sample, gradients, weights=None, rtol=2e-4):
    each, noise, mean = noise_of(gradients, weights)
    np.testing.assert_allclose(sample.gradient_norms, each, rtol=rtol)
    np.testing.assert_allclose(sample.norms, noise, rtol=rtol)
    np.testing.assert_allclose(sample.mean_gradient_norm, mean, rtol=rtol)


def state_of(model):
    """Every number that a model, its metrics and its optimizer hold."""
    metrics = [v for m in model.metrics for v in m.variables]
    return [np.array(v) for v in [*model.variables, *model.optimizer.variables, *metrics]]


def assert_same(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
