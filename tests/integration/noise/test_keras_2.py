"""The noise of models of Keras 2 (`tf_keras`)."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from keras_acclip._utils import compat
from keras_acclip.noise import measure_noise
from keras_acclip.noise.data import open_batches
from keras_acclip.noise.measure import NoiseMeter
from keras_acclip.noise.recorder import LOGS
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
        pytest.param("exact", False, {"cls": OwnLoss}, {}, marks=pytest.mark.slow),
        pytest.param("sketch", False, {"run_eagerly": True}, {}, marks=pytest.mark.slow),
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
    batch, model = cut(make_data())[0], make_model()
    sample = measure(model, [batch] * 8)
    exact = measure(model, [batch] * 8, method="exact", sketch_size=31)
    assert sample.gradient_norms.std() > 0.01
    np.testing.assert_allclose(sample.norms, exact.norms, rtol=1e-4)


def test_training_is_bitwise_the_same():
    def train(measured):
        model, data = make_model(), make_data(160)
        data = tf.data.Dataset.from_tensor_slices(data).shuffle(160, seed=2).batch(16)
        noises = [GradientNoise(data, every=every, verbose=0) for every in ("epoch", 4)]
        if measured:
            measure(model, data)
        callbacks = noises if measured else []
        history = model.fit(data, epochs=2, callbacks=callbacks, verbose=0).history
        return state_of(model), history, noises

    plain, measured = train(False), train(True)
    assert_same(plain[0], measured[0])
    assert plain[1] == {k: v for k, v in measured[1].items() if k not in LOGS}
    every_epoch, every_4 = measured[2]
    assert [s.step for s in every_epoch.samples] == [0, 10, 20]
    assert [s.step for s in every_4.samples] == [0, 4, 8, 12, 16, 20]
    assert measured[1]["noise_std"][-1] == every_4.samples[-1].std
    texts = [t.get_text() for t in every_epoch.plot_evolution().axes[0].get_yticklabels()]
    assert texts == ["step 0", "step 10", "step 20"]


def test_mixed_precision_gives_unscaled_norms():
    full = measure(make_model(dropout=0, run_eagerly=True), cut(make_data()))
    tf_keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = make_model(dropout=0)
        assert float(model.optimizer.loss_scale) > 1000
        half = measure(model, cut(make_data()))
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    np.testing.assert_allclose(half.norms, full.norms, rtol=0.02)


@pytest.mark.slow
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
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, run_eagerly=True)
    assert len(measure(model, cut(make_data()), groups="layer")) == 6


class Loop:
    """A training loop of one's own, on however many replicas."""

    def __init__(self, strategy):
        self.replicas = strategy.num_replicas_in_sync
        with strategy.scope():
            self.model = make_model(optimizer=tf_keras.optimizers.SGD(1.0))
            self.counter = tf.Variable(
                0, trainable=False, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
            )
        self.loss = tf_keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, reduction="none"
        )

    def gradient(self, batch, seed):
        """Of the mean loss over the global batch, of which each replica has its part."""
        x, y, _ = batch
        self.counter.assign_add(1)
        with tf.GradientTape() as tape, compat.seeded_layers(self.model, seed):
            loss = tf.reduce_mean(self.loss(y, self.model(x, training=True)))
            loss = (loss + sum(self.model.losses)) / self.replicas
        return loss, tape.gradient(loss, self.model.trainable_variables)


@pytest.mark.parametrize(
    ("strategy", "method"),
    [pytest.param("one device", "exact", marks=pytest.mark.slow), ("two replicas", "sketch")],
)
def test_gradient_of_a_loop_of_one_s_own(strategy, method):
    strategy = tf.distribute.get_strategy() if strategy == "one device" else paths.two_replicas()
    loop = Loop(strategy)
    before = state_of(loop.model)
    batches = open_batches(cut(make_data()))
    options = {"method": method, "sketch_size": 31 if method == "exact" else 65521}
    meter = NoiseMeter(loop.model, gradient=loop.gradient, step=lambda: 7, **options)
    sample = meter.measure(batches, verbose=0)
    assert (sample.step, len(sample)) == (7, 6)
    assert loop.counter.numpy() == 0
    assert_same(before, state_of(loop.model))
    # Here it is also that of the compiled loss.
    expected = NoiseMeter(loop.model, **options).measure(batches, verbose=0)
    np.testing.assert_allclose(sample.norms, expected.norms, rtol=1e-5)
    np.testing.assert_allclose(sample.losses, expected.losses, rtol=1e-5)
    np.testing.assert_allclose(sample.mean_gradient_norm, expected.mean_gradient_norm, 1e-5)


def test_a_loop_s_missing_gradients_are_zero():
    model = make_model(dropout=0)
    constant = [tf.ones(v.shape) for v in model.trainable_variables[:-1]]

    def gradient(batch, seed):
        return batch[0][0, 0], [batch[0][0, 0] * g for g in constant] + [None]

    meter = NoiseMeter(model, gradient=gradient, groups={"last": "dense_1/bias"})
    sample = meter.measure(open_batches(cut(make_data())), verbose=0)
    np.testing.assert_array_equal(sample.group("last").gradient_norms, 0)
    size = sum(int(tf.size(g)) for g in constant)
    firsts = [x[0, 0] for x, _ in cut(make_data())]
    np.testing.assert_allclose(sample.gradient_norms, np.abs(firsts) * np.sqrt(size), rtol=1e-5)
    assert sample.step == 0
