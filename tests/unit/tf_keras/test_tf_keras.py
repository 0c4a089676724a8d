import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from keras_acclip.noise.sampling import measure_noise
from keras_acclip.tf_keras import GradientNoise
from tests import paths
from tests.unit.noise.models import assert_is_noise_of, assert_same, cut, fit_gradients, make_data


def make_model(dropout=0.3, optimizer="adam", cls=tf_keras.Model, **compile):
    tf_keras.utils.set_random_seed(0)
    inputs = tf_keras.Input((6,))
    h = layers.Dense(16, activation="relu", kernel_regularizer="l2")(inputs)
    h = layers.BatchNormalization()(h)
    h = layers.Dropout(dropout, seed=3)(h)
    model = cls(inputs, layers.Dense(3)(h))
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, **{"metrics": ["accuracy"]} | compile)
    return model


class OwnLoss(tf_keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        loss = super().compute_loss(x, y, y_pred, sample_weight)
        return loss + 0.1 * tf.reduce_mean(y_pred**2)


def state_of(model):
    metrics = [v for m in model.metrics for v in m.variables]
    variables = [*model.variables, *model.optimizer.variables, *metrics]
    seeds = [d._random_generator._seed for d in model.layers if isinstance(d, layers.Dropout)]
    return [*(v.numpy() for v in variables), np.array(seeds)]


def measure(model, dataset, **kwargs):
    return measure_noise(model, dataset, **{"verbose": 0} | kwargs)


@pytest.mark.parametrize(
    ("method", "weighted", "make", "fit"),
    [
        ("sketch", True, {}, {"class_weight": {0: 3.0, 1: 1.0, 2: 0.1}}),
        ("exact", False, {"cls": OwnLoss}, {}),
        ("sketch", False, {"run_eagerly": True}, {}),
    ],
    ids=["sample weights", "compute_loss", "eager"],
)
def test_gradient_is_that_of_fit(method, weighted, make, fit):
    data = make_data()
    if weighted:
        data = (*data, np.linspace(0, 2, len(data[0]), dtype="float32"))
    model = make_model(dropout=0, optimizer=tf_keras.optimizers.SGD(1.0), **make)
    size = 65521 if method == "sketch" else 31
    sample = measure(model, cut(data), method=method, sketch_size=size, **fit)
    assert sample.settings["method"] == "exact"
    assert_is_noise_of(sample, fit_gradients(model, cut(data), **fit))


def test_dropout_is_drawn_anew_for_each_batch_and_alike_in_both_passes():
    batch = cut(make_data())[0]
    model = make_model()
    sample, exact = (
        measure(model, [batch] * 8, method=m, sketch_size=n)
        for m, n in (("sketch", 65521), ("exact", 31))
    )
    assert sample.gradient_norms.std() > 0.01
    np.testing.assert_allclose(sample.norms, exact.norms, rtol=1e-4)


@pytest.mark.parametrize("every", ["epoch", 4])
def test_training_is_bitwise_the_same(every):
    def train(callbacks):
        model, data = make_model(), make_data(160)
        data = tf.data.Dataset.from_tensor_slices(data).shuffle(160, seed=2).batch(16)
        if callbacks:
            measure(model, data)
        history = model.fit(data, epochs=2, callbacks=callbacks, verbose=0).history
        return state_of(model), history

    noise = GradientNoise(every=every, verbose=0)
    plain, measured = train([]), train([noise])
    assert_same(plain[0], measured[0])
    assert plain[1] == {k: v for k, v in measured[1].items() if not k.startswith("noise_")}
    steps = [0, 10, 20] if every == "epoch" else [0, 4, 8, 12, 16, 20]
    assert [s.step for s in noise.samples] == steps
    assert measured[1]["noise_std"][-1] == noise.samples[-1].std


def test_mixed_precision_gives_unscaled_norms():
    full = measure(make_model(dropout=0), cut(make_data()))
    tf_keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = make_model(dropout=0)
        assert float(model.optimizer.loss_scale) > 1000
        half = measure(model, cut(make_data()))
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    np.testing.assert_allclose(half.norms, full.norms, rtol=0.02)


def test_replicas_give_the_gradient_of_the_global_batch():
    strategy = paths.two_replicas()
    with strategy.scope():
        model = make_model(dropout=0, optimizer=tf_keras.optimizers.SGD(1.0))
    sample = measure(model, cut(make_data()))
    assert_is_noise_of(sample, fit_gradients(model, cut(make_data())))

    def train(measured):
        with strategy.scope():
            model = make_model()
        if measured:
            measure(model, cut(make_data()))
        model.fit(*make_data(), verbose=0)
        return state_of(model)

    assert_same(train(False), train(True))


def test_unbuilt_model_and_missing_compile():
    model = tf_keras.Sequential([layers.Dense(4), layers.Dropout(0.5), layers.Dense(3)])
    with pytest.raises(ValueError, match="compile"):
        measure(model, cut(make_data()))
    model.compile("sgd", tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert len(measure(model, cut(make_data()), groups="layer")) == 6
