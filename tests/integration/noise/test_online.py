"""The noise of the training's own gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_acclip
import keras_acclip.tf_keras
from keras_acclip import noise
from tests import paths
from tests.tiers import some

RNG = np.random.default_rng(0)
X = np.float32(RNG.standard_normal((4096, 12)))
Y = np.float32(X @ RNG.standard_normal((12, 1)) + RNG.standard_normal((4096, 1)))

OPTIMIZERS = {
    "ACClip": lambda k: k.ACClip(1e-4),
    "GClip": lambda k: k.GClip(1e-4, 1.0),
    "Clip": lambda k: k.Clip((keras if k is keras_acclip else tf_keras).optimizers.Adam(1e-4), 1.0),
}
KERAS = {"Keras 3": (keras, keras_acclip), "Keras 2": (tf_keras, keras_acclip.tf_keras)}


def make_model(which, name, dropout=0.1, **compiled):
    k, ours = KERAS[which]
    k.utils.set_random_seed(0)
    layers = [k.layers.Dense(32, activation="tanh"), k.layers.Dropout(dropout), k.layers.Dense(1)]
    model = k.Sequential([k.Input((12,)), *layers])
    model.compile(OPTIMIZERS[name](ours), "mse", **compiled)
    return model


def follow(model, which="Keras 3", epochs=2, **arguments):
    callback = KERAS[which][1].GradientNoise(verbose=0, **arguments)
    model.fit(X, Y, batch_size=16, epochs=epochs, shuffle=False, verbose=0, callbacks=[callback])
    return callback.samples


@pytest.mark.parametrize(
    ("which", "name"),
    [
        ("Keras 3", "ACClip"),
        pytest.param("Keras 2", "Clip", marks=pytest.mark.slow),
        pytest.param("Keras 3", "GClip", marks=pytest.mark.slow),
        pytest.param("Keras 3", "Clip", marks=pytest.mark.slow),
        pytest.param("Keras 2", "ACClip", marks=pytest.mark.slow),
        pytest.param("Keras 2", "GClip", marks=pytest.mark.slow),
    ],
)
def test_it_agrees_with_a_measurement(which, name):
    """And leaves the training as it is, bit for bit."""
    model, plain = make_model(which, name), make_model(which, name)
    plain.fit(X, Y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    variables = len(plain.optimizer.variables)
    samples = follow(model, which, batch_size=16)
    for a, b in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(model.optimizer.variables) == variables
    assert [s.step for s in samples] == [256, 512]
    assert [len(s) for s in samples] == [256, 256]
    measured = noise.measure_noise(model, (X, Y), 256, batch_size=16, verbose=0)
    online = samples[-1]
    assert online.std == pytest.approx(measured.std, rel=0.1)
    assert online.noise_scale().low == 0
    assert online.noise_scale().high >= measured.noise_scale().value
    assert online.classify().label == measured.classify().label
    assert online.parameters == measured.parameters


@pytest.mark.parametrize(
    "path",
    some(["eager", "XLA", "two replicas", "several steps at once"], ["XLA"]),
)
def test_each_path_sees_the_same_gradients(path):
    # XLA draws other dropout, and each replica its own.
    expected = follow(make_model("Keras 3", "ACClip", 0), epochs=1, num_batches=100)[-1]
    compiled = {
        "eager": {"run_eagerly": True},
        "XLA": {"jit_compile": True},
        "several steps at once": {"steps_per_execution": 8},
    }.get(path, {})
    if path == "two replicas":
        with paths.two_replicas().scope():
            model = make_model("Keras 3", "ACClip", 0)
    else:
        model = make_model("Keras 3", "ACClip", 0, **compiled)
    got = follow(model, epochs=1, num_batches=100)[-1]
    np.testing.assert_allclose(got.gradient_norms, expected.gradient_norms, rtol=1e-3)
    np.testing.assert_allclose(got.norms, expected.norms, rtol=1e-3)


def test_norms_are_those_of_numpy():
    """At a rate of 0 the weights stand still, and the gradients are known."""
    model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras_acclip.GClip(0.0, 1.0), "mse")
    weights = np.float64(model.get_weights()[0])
    (sample,) = (s for s in follow(model, num_batches=200) if s.step == 512)
    gradients = []
    for i in range(56, 256):
        x, y = np.float64(X[16 * i : 16 * i + 16]), np.float64(Y[16 * i : 16 * i + 16])
        gradients.append((2 * x.T @ (x @ weights - y) / 16).ravel())
    gradients = np.array(gradients)
    np.testing.assert_allclose(sample.gradient_norms, np.linalg.norm(gradients, axis=1), rtol=1e-4)
    for k in (0, 5, 100, 199):
        near = [j for j in range(max(k - 4, 0), min(k + 5, 200)) if j != k]
        length = np.linalg.norm(gradients[k] - gradients[near].mean(0))
        length *= np.sqrt((1 - 1 / 200) / (1 + 1 / len(near)))
        assert sample.norms[k] == pytest.approx(length, rel=1e-4)
    variance = np.var(gradients, axis=0, ddof=1).sum()
    assert sample.variance() == pytest.approx(variance, rel=0.1)


def test_endless_generators_groups_and_every(capsys):
    def batches():
        while True:
            yield X[:16], Y[:16]

    model = make_model("Keras 3", "Clip")
    callback = keras_acclip.GradientNoise(every=5, groups="layer", num_batches=8)
    history = model.fit(
        batches(), steps_per_epoch=10, epochs=2, verbose=0, callbacks=[callback]
    ).history
    assert "8 batches are too few for a verdict on the tail" in capsys.readouterr().out
    assert [(s.step, len(s)) for s in callback.samples] == [(5, 5), (10, 8), (15, 8), (20, 8)]
    sample = callback.samples[-1]
    assert len(sample.groups) == 2
    np.testing.assert_allclose(np.sqrt((sample.group_norms**2).sum(0)), sample.norms)
    assert history["noise_std"][-1] == sample.std
    assert len(callback.plot_evolution().axes) >= 1


@pytest.mark.parametrize("which", KERAS)
def test_too_few_steps_for_a_verdict_are_said_at_the_start(which, capsys):
    model = make_model(which, "GClip")
    callback = KERAS[which][1].GradientNoise()
    model.fit(X[:320], Y[:320], batch_size=16, epochs=2, verbose=0, callbacks=[callback])
    said = capsys.readouterr().out
    assert "40 batches are too few for a verdict on the tail" in said
    assert "undecided" in said


def test_an_embedding_in_batches_of_any_size():
    tokens = RNG.integers(0, 50, (400, 6))
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((6,)), layers.Embedding(50, 4), layers.Flatten(), layers.Dense(1)]
    )
    model.compile(keras_acclip.ACClip(1e-4), "mse")
    callback = keras_acclip.GradientNoise(verbose=0)
    data = tf.data.Dataset.from_tensor_slices((tokens, Y[:400])).batch(16)
    model.fit(data, verbose=0, callbacks=[callback])
    (sample,) = callback.samples
    measured = noise.measure_noise(model, data, 25, verbose=0)
    assert (len(sample), sample.parameters) == (25, 225)
    assert sample.std == pytest.approx(measured.std, rel=0.1)


@pytest.mark.slow
def test_a_second_fit_without_it_keeps_nothing():
    model = make_model("Keras 3", "ACClip")
    follow(model, epochs=1)
    assert model.optimizer.watch is None
    model.fit(X, Y, batch_size=16, verbose=0)
    (sample,) = follow(model, epochs=1)
    assert (sample.step, len(sample)) == (768, 256)


@pytest.mark.slow
def test_inside_a_loss_scale_optimizer():
    keras.utils.set_random_seed(0)
    model = make_model("Keras 3", "ACClip")
    plain = follow(model, epochs=1)[-1]
    scaled = make_model("Keras 3", "ACClip")
    scaled.compile(keras.optimizers.LossScaleOptimizer(keras_acclip.ACClip(1e-4)), "mse")
    assert follow(scaled, epochs=1)[-1].std == pytest.approx(plain.std, rel=0.05)


def test_other_optimizers_are_refused_with_a_way_out():
    model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    with pytest.raises(ValueError, match=r"put it in Clip .*GradientNoise\(dataset\)"):
        follow(model)


def test_a_model_built_by_its_first_batch():
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(keras_acclip.ACClip(1e-4), "mse")
    assert len(follow(model, num_batches=1000)[0]) in (255, 256)


def test_what_is_not_finite_is_counted():
    x = X.copy()
    x[160] = np.nan
    model = make_model("Keras 3", "ACClip")
    model.compile(keras_acclip.ACClip(1e-4, skip_nonfinite=True), "mse")
    callback = keras_acclip.GradientNoise(verbose=0)
    model.fit(x, Y, batch_size=16, shuffle=False, verbose=0, callbacks=[callback])
    (sample,) = callback.samples
    assert (len(sample), sample.nonfinite) == (255, 1)
    assert np.isfinite(sample.norms).all()


def test_recurring_examples_are_found():
    model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    data = tf.data.Dataset.from_tensor_slices((X[:100], Y[:100])).shuffle(100, 0).repeat().batch(10)
    with pytest.warns(UserWarning, match="of the 500 that were measured, 100 differ"):
        sample = noise.measure_noise(model, data, 50, verbose=0)
    assert "examples recur: 100 of 500 differ" in sample.summary()
    fresh = noise.measure_noise(model, (X, Y), 50, batch_size=10, verbose=0)
    assert fresh.settings["distinct_examples"] == fresh.settings["examples"] == 500


@pytest.mark.parametrize("k", [keras, tf_keras], ids=["Keras 3", "Keras 2"])
def test_a_layer_unfrozen_since_the_first_step_is_not_measured(k):
    first, last = k.layers.Dense(4), k.layers.Dense(1)
    model = k.Sequential([k.Input((12,)), first, last])
    first.trainable = False
    model.compile("sgd", "mse")
    model.fit(X, Y, verbose=0)
    first.trainable = True
    sample = noise.measure_noise(model, (X, Y), 5, batch_size=16, verbose=0)
    assert sample.parameters == 5
    model.compile("sgd", "mse")
    sample = noise.measure_noise(model, (X, Y), 5, batch_size=16, verbose=0)
    assert sample.parameters == 12 * 4 + 4 + 5


@pytest.mark.parametrize("k", [keras, tf_keras], ids=["Keras 3", "Keras 2"])
def test_a_gradient_without_static_rank_is_measured(k):
    @tf.custom_gradient
    def identity(w):
        return tf.identity(w), lambda g: tf.py_function(lambda d: d, [g], tf.float32)

    class Odd(k.layers.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=(12, 1), name="w")
            self.built = True

        def call(self, x):
            return tf.matmul(x, identity(tf.convert_to_tensor(self.w)))

    odd, plain = (k.Sequential([k.Input((12,)), layer]) for layer in (Odd(), k.layers.Dense(1)))
    norms = []
    for model in (odd, plain):
        model.compile("sgd", "mse")
        weights = [np.zeros_like(w) for w in model.get_weights()]
        model.set_weights(weights)
        groups = ["w(:0)?$|kernel"]
        sample = noise.measure_noise(model, (X, Y), 8, batch_size=16, verbose=0, groups=groups)
        norms.append(sample.group_norms[0])
    np.testing.assert_allclose(norms[0], norms[1], rtol=1e-5)
