"""The noise of models on the backend that Keras runs with; `test_jax.py` runs it on JAX."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from keras_acclip.noise import measure_noise
from keras_acclip.noise.data import open_batches
from keras_acclip.noise.measure import NoiseMeter
from tests import paths
from tests.unit.noise.models import (
    QUICK,
    assert_is_noise_of,
    assert_same,
    cut,
    fit_gradients,
    make_data,
    make_model,
    state_of,
)

on_tensorflow = pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="a matter of the TensorFlow backend"
)


def measure(model, dataset, **kwargs):
    return measure_noise(model, dataset, **{"verbose": 0} | kwargs)


class OwnLoss(keras.Model):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.tracker = keras.metrics.Mean(name="own")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        loss = ops.mean((y_pred[:, 0] - ops.cast(y, "float32")) ** 2) + sum(self.losses)
        self.tracker.update_state(loss)
        return loss + 0.1 * ops.mean(x * x)


class Penalty(layers.Layer):
    def __init__(self):
        super().__init__()
        self.scale = self.add_weight(shape=(), initializer="ones")

    def call(self, x):
        self.add_loss(ops.mean(ops.abs(x * self.scale)))
        return x


def make_classifier(*between, **compile):
    model = keras.Sequential([keras.Input((6,)), *between, layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, **compile)
    return model


def make_jitted(**kwargs):
    """In TensorFlow, dropout draws other masks under XLA."""
    return make_model(jit_compile=True, **kwargs)


def make_quick(**kwargs):
    return make_model(**QUICK, **kwargs)


@pytest.mark.parametrize(
    ("make", "method", "weighted", "fit"),
    [
        (make_jitted, "sketch", False, {}),
        pytest.param(make_jitted, "exact", True, {}, marks=pytest.mark.slow),
        (make_quick, "sketch", False, {"class_weight": {0: 2.0, 2: 0.5}}),
        (lambda **kwargs: make_quick(cls=OwnLoss, **kwargs), "exact", False, {}),
        pytest.param(
            lambda **kwargs: make_classifier(layers.Dense(8), Penalty(), **kwargs),
            "sketch",
            True,
            {},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda **kwargs: make_model(run_eagerly=True, **kwargs),
            "exact",
            True,
            {},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["plain", "sample weights", "class weights", "compute_loss", "add_loss", "eager"],
)
def test_gradient_is_that_of_fit(make, method, weighted, fit):
    data = make_data()
    if weighted:
        data = (*data, np.linspace(0, 2, len(data[0]), dtype="float32"))
    model = make(optimizer=keras.optimizers.SGD(1.0))
    # With so few buckets the exact method needs its second pass.
    size = 65521 if method == "sketch" else 31
    sample = measure(model, iter(cut(data)), method=method, sketch_size=size, **fit)
    assert sample.settings["method"] == "exact"
    assert_is_noise_of(sample, fit_gradients(model, cut(data), **fit))


def test_sketch_is_within_one_percent_of_exact():
    batches = cut(make_data(200, features=40), 8)
    model = make_quick(width=3000, features=40)
    exact = measure(model, batches, method="exact", groups="layer")
    for groups in (None, "layer"):
        sketch = measure(model, batches, groups=groups)
        assert (sketch.settings["method"], exact.settings["method"]) == ("sketch", "exact")
        np.testing.assert_allclose(sketch.norms, exact.norms, rtol=0.01)
        assert np.abs(sketch.norms / exact.norms - 1).max() > 1e-6
        np.testing.assert_allclose(sketch.gradient_norms, exact.gradient_norms, rtol=1e-5)
        np.testing.assert_allclose(sketch.mean_gradient_norm, exact.mean_gradient_norm, rtol=1e-5)
    np.testing.assert_allclose(sketch.group_norms, exact.group_norms, rtol=0.01)


@pytest.mark.parametrize(
    ("make", "source", "method"),
    [
        pytest.param(make_model, "dataset", "sketch", marks=pytest.mark.slow),
        (make_quick, "arrays", "exact"),
    ],
)
def test_leaves_the_model_and_its_data_as_they_were(make, source, method):
    def train(measured):
        keras.utils.set_random_seed(1)
        model, data = make(), make_data()
        if source == "dataset":
            # Two shuffles, one without a seed of its own, and a cache between.
            data = tf.data.Dataset.from_tensor_slices(data).shuffle(96, seed=1).cache()
            data = (data.shuffle(50).batch(16),)
        histories = []
        for _ in range(2):
            before = state_of(model)
            functions = model.train_function, model.test_function
            if measured:
                sample = measure(
                    model, data if len(data) > 1 else data[0], method=method, sketch_size=31
                )
                assert len(sample) == 6 if source == "dataset" else 3
                assert_same(before, state_of(model))
                assert functions == (model.train_function, model.test_function)
            histories.append(model.fit(*data, verbose=0).history)
        return state_of(model), histories

    plain, measured = train(False), train(True)
    assert_same(plain[0], measured[0])
    assert plain[1] == measured[1]


def test_unbuilt_model_trains_as_without_the_measurement():
    def train(measured):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([layers.Dense(5), layers.Dropout(0.5), layers.Dense(3)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"], **QUICK)
        if measured:
            assert len(measure(model, make_data(), batch_size=16)) == 6
        model.fit(*make_data(), verbose=0)
        return state_of(model)

    assert_same(train(False), train(True))


def test_dropout_differs_between_batches_and_repeats_between_measurements():
    model = make_quick()
    batch = cut(make_data())[0]
    first, again = (measure(model, [batch] * 8) for _ in range(2))
    assert first.gradient_norms.std() > 0.01
    np.testing.assert_array_equal(first.norms, again.norms)
    still = measure(model, [batch] * 8, training=False)
    np.testing.assert_allclose(still.norms, 0, atol=1e-5)


def test_unequal_batches_are_weighted_or_left_out():
    data = make_data(56)
    model = make_quick(dropout=0, optimizer=keras.optimizers.SGD(1.0))
    weighted, dropped = (measure(model, cut(data), remainder=r) for r in ("weight", "drop"))
    gradients = fit_gradients(model, cut(data))
    assert weighted.batch_sizes.tolist() == [16, 16, 16, 8]
    assert (weighted.dropped, dropped.dropped) == (0, 1)
    assert_is_noise_of(weighted, gradients, weights=[16, 16, 16, 8])
    assert_is_noise_of(dropped, gradients[:3])
    exact = measure(model, cut(data), remainder="weight", method="exact", sketch_size=31)
    assert_is_noise_of(exact, gradients, weights=[16, 16, 16, 8])
    # The variance makes up for the mean's being estimated.
    weights = np.array([16, 16, 16, 8]) / 56
    biased = weights @ weighted.norms**2
    np.testing.assert_allclose(weighted.variance(unbiased=False), biased)
    np.testing.assert_allclose(weighted.std, np.sqrt(biased / (1 - weights @ weights)))
    with pytest.warns(UserWarning, match="3 batches were left out"):
        measure(model, [cut(data)[3]] * 2 + cut(data)[:3])


@pytest.mark.parametrize("method", ["sketch", "exact"])
def test_gradients_that_are_not_finite_are_counted_and_left_out(method):
    x, y = make_data()
    x[33, 2], x[70, 1] = np.nan, np.inf
    model = make_quick(optimizer=keras.optimizers.SGD(1.0))
    before = state_of(model)
    with pytest.warns(UserWarning, match="2 of 6 batches"):
        sample = measure(model, cut((x, y)), method=method, sketch_size=31)
    assert (sample.nonfinite, len(sample)) == (2, 4)
    assert_same(before, state_of(model))
    finite = np.isfinite(fit_gradients(model, cut((x, y)))).all(1)
    assert finite.tolist() == [True, True, False, True, False, True]
    assert np.isfinite([*sample.norms, sample.mean_gradient_norm]).all()


def test_a_model_with_no_finite_gradient_gives_an_empty_sample():
    x, y = make_data()
    with pytest.warns(UserWarning, match="6 of 6"):
        sample = measure(make_quick(), cut((x * np.nan, y)), groups="layer")
    assert (len(sample), sample.nonfinite) == (0, 6)
    assert np.isnan([sample.norm, sample.std, sample.mean_gradient_norm]).all()
    assert "6 batches with a gradient that is not finite" in sample.summary()


def test_interruption_keeps_what_was_measured():
    batches, model = cut(make_data()), make_quick(dropout=0)

    def interrupted(after):
        yield from batches[:after]
        raise KeyboardInterrupt

    before = state_of(model)
    sample = measure(model, interrupted(4))
    complete = measure(model, batches[:4])
    assert (sample.interrupted, complete.interrupted) == (True, False)
    np.testing.assert_allclose(sample.norms, complete.norms, rtol=1e-6)
    np.testing.assert_allclose(sample.mean_gradient_norm, complete.mean_gradient_norm, rtol=1e-4)
    assert "interrupted before all" in sample.summary()
    with pytest.raises(KeyboardInterrupt):
        measure(model, interrupted(1))

    class Second:
        passes = 0

        def __iter__(self):
            self.passes += 1
            return iter(batches) if self.passes == 1 else interrupted(2)

    sample = measure(model, Second(), method="exact", sketch_size=31)
    assert (len(sample), sample.interrupted, sample.settings["method"]) == (6, True, "sketch")
    assert_same(before, state_of(model))


def test_exact_method_refuses_data_that_changes():
    class Random:
        def __iter__(self):
            rng = np.random.default_rng()
            return iter([(rng.normal(size=(8, 6)), np.zeros(8)) for _ in range(4)])

    with pytest.raises(ValueError, match="batch 0 came out differently"):
        measure(make_quick(), Random(), method="exact", sketch_size=31)


@pytest.fixture
def policy():
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


def test_mixed_precision_gives_unscaled_norms(policy):
    samples = []
    for name, make in (
        ("float32", make_quick),
        ("mixed_float16", make_model),
        ("mixed_bfloat16", make_quick),
    ):
        policy(name)
        keras.utils.set_random_seed(0)
        samples.append(measure(make(dropout=0), cut(make_data())))
    full, half, brain = samples
    for sample, tolerance in ((half, 0.02), (brain, 0.1)):
        np.testing.assert_allclose(sample.norms, full.norms, rtol=tolerance)
        np.testing.assert_allclose(
            sample.mean_gradient_norm, full.mean_gradient_norm, rtol=tolerance
        )


def test_overflow_by_the_loss_scale_is_not_the_gradients(policy):
    policy("mixed_float16")
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(), 2.0**30)
    model = make_quick(dropout=0, optimizer=optimizer)
    sample = measure(model, cut(make_data()), method="exact", sketch_size=31)
    assert (sample.nonfinite, len(sample)) == (0, 6)
    assert sample.norms.max() < 100


def test_groups_break_the_norms_down():
    model, data = make_quick(optimizer=keras.optimizers.SGD(1.0)), cut(make_data())
    sample = measure(model, data, groups={"first": "dense/", "norm": "batch_norm.*/(gamma|beta)"})
    assert sample.groups == ("first", "norm", "rest")
    gradients = fit_gradients(model, data)
    sizes = [int(np.prod(v.shape)) for v in model.trainable_variables]
    parts = np.split(gradients, np.cumsum(sizes)[:-1], axis=1)
    for name, members in zip(sample.groups, ([0, 1], [2, 3], [4, 5]), strict=True):
        group = sample.group(name)
        assert_is_noise_of(group, np.concatenate([parts[i] for i in members], axis=1))
        assert group.parameters == sum(sizes[i] for i in members)
    np.testing.assert_allclose(np.square(sample.group_norms).sum(0), sample.norms**2)
    layered = measure(model, data, groups="layer")
    assert layered.groups == ("dense", "batch_normalization", "dense_1")
    with pytest.raises(ValueError, match="no variable is left for 'conv'"):
        measure(model, data, groups=["conv"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "guess"}, "'sketch', 'exact'"),
        ({"remainder": "pad"}, "'drop', 'weight'"),
        ({"num_batches": 0}, "whole number"),
        ({"batch_size": 0}, "whole number"),
        ({"sketch_size": 1.5}, "whole number"),
        ({"groups": ["("]}, "regular expressions"),
        ({"groups": "layers"}, "'layers'"),
        ({"training": 1}, "True or False"),
        ({"dataset": cut(make_data())[:1]}, "at least 2 batches"),
        ({"dataset": (np.zeros((4, 6)), np.zeros(5))}, "same number of examples"),
        ({"dataset": 5.0 + 1j}, "dataset"),
        ({"model": object()}, r"keras\.Model"),
        ({"model": keras.Sequential([layers.Dense(3)])}, "compile"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_arguments_are_refused(arguments, message):
    defaults = {"model": make_quick(), "dataset": cut(make_data())}
    with pytest.raises((TypeError, ValueError), match=message):
        measure(**defaults | arguments)


def test_models_that_cannot_be_measured(monkeypatch):
    model = make_quick()
    model.trainable = False
    with pytest.raises(ValueError, match="no trainable variables"):
        measure(model, cut(make_data()))
    with pytest.raises(TypeError, match="`gradient` is for a tf_keras"):
        NoiseMeter(model, gradient=lambda batch, seed: (0.0, []))
    monkeypatch.setattr(keras.config, "backend", lambda: "torch")
    with pytest.raises(NotImplementedError, match="TensorFlow and JAX"):
        measure(model, cut(make_data()))


def test_an_own_train_step_is_warned_of():
    class Own(keras.Model):
        def train_step(self, *args):
            return super().train_step(*args)

    with pytest.warns(UserWarning, match="overrides `train_step`"):
        measure(make_quick(cls=Own), cut(make_data()))


@on_tensorflow
def test_without_xla_where_it_cannot_compile(caplog):
    class Outside(layers.Layer):
        def call(self, x):
            return tf.ensure_shape(tf.numpy_function(lambda a: a, [x], tf.float32), x.shape) + x

    def make(layer, **compile):
        keras.utils.set_random_seed(0)
        return make_classifier(layer, **compile)

    sample = measure(make(Outside(), jit_compile=False), cut(make_data()))
    said = [record for record in caplog.records if "without XLA" in record.message]
    assert len(said) == 1
    expected = measure(make(layers.Rescaling(2.0), **QUICK), cut(make_data()))
    np.testing.assert_allclose(sample.norms, expected.norms, rtol=1e-5)


def test_each_shape_is_traced_once():
    traces = []

    class Counted(layers.Layer):
        def call(self, x):
            traces.append(x.shape)
            return x

    model = make_classifier(Counted())
    x, y = make_data()
    batches = [(x[:n], y[:n]) for n in (8, 16) * 4]
    measure(model, batches[:1] * 2)
    once = len(traces)
    traces.clear()
    meter = NoiseMeter(model, remainder="weight")
    source = open_batches(batches)
    meter.measure(source, verbose=0)
    assert len([t for t in traces if t[0] == 16]) <= once
    traces.clear()
    meter.measure(source, verbose=0)
    assert not traces


def test_the_step_may_be_told():
    meter = NoiseMeter(make_quick(), step=lambda: 42)
    assert meter.measure(open_batches(cut(make_data())), 2, verbose=0).step == 42


@on_tensorflow
def test_replicas_give_the_gradient_of_the_global_batch():
    strategy = paths.two_replicas()
    with strategy.scope():
        model = make_model(dropout=0, optimizer=keras.optimizers.SGD(1.0))
    # Replicas with 5 and 4 examples count the same, as in `fit`.
    x, y = make_data(18)
    single = make_quick(dropout=0)
    single.set_weights(model.get_weights())
    halves = [[(x[a:b], y[a:b])] * 2 for a, b in ((0, 5), (5, 9))]
    expected = np.mean([measure(single, half, training=False).losses[0] for half in halves])
    sample = measure(model, cut((x, y), 9), training=False)
    np.testing.assert_allclose(sample.losses[0], expected, rtol=1e-5)
    batches = cut(make_data(60), 10)
    sample = measure(model, batches, method="exact", sketch_size=31)
    assert_is_noise_of(sample, fit_gradients(model, batches))


@on_tensorflow
def test_training_on_replicas_is_bitwise_the_same():
    strategy = paths.two_replicas()

    def train(measured):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            model = make_model()
        if measured:
            measure(model, cut(make_data(60), 10))
        model.fit(*make_data(64), verbose=0)
        return state_of(model)

    assert_same(train(False), train(True))


@on_tensorflow
def test_variables_outside_of_keras_are_put_back():
    class Counter(layers.Layer):
        def __init__(self):
            super().__init__()
            self.calls = tf.Variable(0, trainable=False)
            self.generator = tf.random.Generator.from_seed(1)

        def call(self, x):
            self.calls.assign_add(1)
            return x + self.generator.normal(tf.shape(x))

    layer = Counter()
    meter = NoiseMeter(make_classifier(layer))
    before = layer.generator.state.numpy(), layer.calls.numpy()
    batches = open_batches(cut(make_data()))
    first, second = (meter.measure(batches, verbose=0) for _ in range(2))
    np.testing.assert_array_equal(layer.generator.state, before[0])
    assert layer.calls.numpy() == before[1]
    np.testing.assert_array_equal(first.norms, second.norms)
    batch = cut(make_data())[0]
    assert meter.measure(open_batches([batch] * 4), verbose=0).norms.min() > 0


def test_progress_is_shown(capsys):
    measure(make_quick(), cut(make_data()), verbose=1)
    assert "6/6" in capsys.readouterr().out
    measure(make_quick(), cut(make_data()), verbose=0)
    assert not capsys.readouterr().out


def test_coordinates_are_those_of_the_noise(tmp_path):
    x, y = (np.random.default_rng(0).standard_normal((400, n)).astype("float32") for n in (6, 2))
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    sample = measure_noise(model, (x, y), 50, batch_size=8, coordinates=5, verbose=0)
    whole = measure_noise(model, (x, y), 50, batch_size=8, coordinates=1000, verbose=0)
    assert sample.coordinates.shape == (50, 5)
    # In the order of the variables: a kernel of 12 and a bias of 2 coordinates.
    assert whole.coordinates.shape == (50, 14)
    np.testing.assert_allclose(np.linalg.norm(whole.coordinates, axis=1), whole.norms, rtol=1e-5)
    np.testing.assert_allclose(whole.coordinates.mean(0), 0, atol=1e-6)
    matches = [
        np.isclose(column, own, rtol=1e-4, atol=1e-6).all()
        for column in sample.coordinates.T
        for own in whole.coordinates.T
    ]
    assert sum(matches) == 5
    assert len(whole.classify_coordinates()) == 14
    assert "of 14 coordinates: 14 undecided" in whole.summary()
    again = type(whole).load(whole.save(tmp_path / "noise"))
    np.testing.assert_array_equal(again.coordinates, whole.coordinates)
    plain = measure_noise(model, (x, y), 50, batch_size=8, verbose=0)
    np.testing.assert_array_equal(plain.norms, whole.norms)
    with pytest.raises(ValueError, match="coordinates=100"):
        plain.classify_coordinates()
    with pytest.raises(ValueError, match="coordinates"):
        measure_noise(model, (x, y), coordinates=-1)
