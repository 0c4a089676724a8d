"""The noise of models on the backend that Keras runs with; `test_backends.py` runs it on JAX."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from keras_acclip.noise import sampling
from keras_acclip.noise.sampling import NoiseSample, measure_noise
from tests import paths
from tests.unit.noise.models import (
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


def with_penalty(**kwargs):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8), Penalty(), layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, **kwargs)
    return model


def make_jitted(**kwargs):
    """In TensorFlow, dropout draws other masks under XLA."""
    return make_model(jit_compile=True, **kwargs)


@pytest.mark.parametrize(
    ("make", "method", "weighted", "fit"),
    [
        (make_jitted, "sketch", False, {}),
        (make_jitted, "exact", True, {}),
        (make_jitted, "sketch", False, {"class_weight": {0: 2.0, 2: 0.5}}),
        (lambda **kwargs: make_jitted(cls=OwnLoss, **kwargs), "exact", False, {}),
        (lambda **kwargs: make_model(run_eagerly=True, **kwargs), "exact", True, {}),
        (with_penalty, "sketch", True, {}),
    ],
    ids=["plain", "sample weights", "class weights", "compute_loss", "eager", "add_loss"],
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


@pytest.mark.parametrize("groups", [None, "layer"])
def test_sketch_is_within_one_percent_of_exact(groups):
    data = make_data(200, features=40)
    model = make_model(width=3000, features=40)
    sketch, exact = (
        measure(model, cut(data, 8), method=m, groups=groups) for m in ("sketch", "exact")
    )
    assert (sketch.settings["method"], exact.settings["method"]) == ("sketch", "exact")
    np.testing.assert_allclose(sketch.norms, exact.norms, rtol=0.01)
    assert np.abs(sketch.norms / exact.norms - 1).max() > 1e-6
    np.testing.assert_allclose(sketch.group_norms, exact.group_norms, rtol=0.01)
    np.testing.assert_allclose(sketch.gradient_norms, exact.gradient_norms, rtol=1e-5)
    np.testing.assert_allclose(sketch.mean_gradient_norm, exact.mean_gradient_norm, rtol=1e-5)


@pytest.mark.parametrize(("source", "method"), [("dataset", "sketch"), ("arrays", "exact")])
def test_leaves_the_model_and_its_data_as_they_were(method, source):
    def train(measured):
        keras.utils.set_random_seed(3)
        model, data = make_model(), make_data()
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
        model.compile("adam", loss, metrics=["accuracy"])
        if measured:
            assert len(measure(model, make_data(), batch_size=16)) == 6
        model.fit(*make_data(), verbose=0)
        return state_of(model)

    assert_same(train(False), train(True))


def test_dropout_differs_between_batches_and_repeats_between_measurements():
    model = make_model()
    batch = cut(make_data())[0]
    first, again = (measure(model, [batch] * 8) for _ in range(2))
    assert first.gradient_norms.std() > 0.01
    np.testing.assert_array_equal(first.norms, again.norms)
    still = measure(model, [batch] * 8, training=False)
    np.testing.assert_allclose(still.norms, 0, atol=1e-5)


def test_kinds_of_data_give_the_same_noise():
    model, data = make_model(dropout=0), make_data()

    class Pairs(keras.utils.PyDataset):
        def __len__(self):
            return 6

        def __getitem__(self, i):
            return cut(data)[i]

    dataset = tf.data.Dataset.from_tensor_slices(data).batch(16)
    iterator = iter(dataset)
    next(iterator)
    sources = [cut(data), dataset, Pairs(workers=1), (b for b in cut(data)), iter(dataset)]
    norms = [np.sort(measure(model, source).norms) for source in sources]
    for other in norms[1:]:
        np.testing.assert_allclose(other, norms[0], rtol=1e-5)
    measure(model, iterator, num_batches=3)
    np.testing.assert_array_equal(next(iterator)[1], cut(data)[1][1])
    x, y = data
    sample = measure(model, (x, y.tolist()), batch_size=16, seed=1)
    shuffled = np.random.default_rng(1).permutation(96)
    expected = measure(model, cut((x[shuffled], y[shuffled])))
    np.testing.assert_allclose(sample.norms, expected.norms, rtol=1e-5)


def test_unequal_batches_are_weighted_or_left_out():
    data = make_data(56)
    model = make_model(dropout=0, optimizer=keras.optimizers.SGD(1.0))
    weighted, dropped = (measure(model, cut(data), remainder=r) for r in ("weight", "drop"))
    gradients = fit_gradients(model, cut(data))
    assert weighted.batch_sizes.tolist() == [16, 16, 16, 8]
    assert (weighted.dropped, dropped.dropped) == (0, 1)
    assert_is_noise_of(weighted, gradients, weights=[16, 16, 16, 8])
    assert_is_noise_of(dropped, gradients[:3])
    exact = measure(model, cut(data), remainder="weight", method="exact", sketch_size=31)
    assert_is_noise_of(exact, gradients, weights=[16, 16, 16, 8])


def test_variance_makes_up_for_the_estimated_mean():
    sample = measure(make_model(), cut(make_data(56)), remainder="weight")
    weights = np.array([16, 16, 16, 8]) / 56
    np.testing.assert_allclose(sample.variance(unbiased=False), weights @ sample.norms**2)
    expected = weights @ sample.norms**2 / (1 - weights @ weights)
    np.testing.assert_allclose(sample.std, np.sqrt(expected))


@pytest.mark.parametrize("method", ["sketch", "exact"])
def test_gradients_that_are_not_finite_are_counted_and_left_out(method):
    x, y = make_data()
    x[33, 2], x[70, 1] = np.nan, np.inf
    model = make_model(optimizer=keras.optimizers.SGD(1.0))
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
        sample = measure(make_model(), cut((x * np.nan, y)), groups="layer")
    assert (len(sample), sample.nonfinite) == (0, 6)
    assert np.isnan([sample.norm, sample.std, sample.mean_gradient_norm]).all()
    assert "6 batches with a gradient that is not finite" in sample.summary()


def test_interruption_keeps_what_was_measured():
    batches, model = cut(make_data()), make_model(dropout=0)

    def interrupted(after):
        yield from batches[:after]
        raise KeyboardInterrupt

    before = state_of(model)
    sample = measure(model, interrupted(4))
    complete = measure(model, batches[:4])
    assert (sample.interrupted, complete.interrupted) == (True, False)
    np.testing.assert_allclose(sample.norms, complete.norms, rtol=1e-6)
    np.testing.assert_allclose(sample.mean_gradient_norm, complete.mean_gradient_norm, rtol=1e-4)
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
        measure(make_model(), Random(), method="exact", sketch_size=31)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_gives_unscaled_norms(policy):
    data = make_data()
    keras.utils.set_random_seed(0)
    full = measure(make_model(dropout=0), cut(data))
    keras.config.set_dtype_policy(policy)
    try:
        keras.utils.set_random_seed(0)
        model = make_model(dropout=0)
        sample = measure(model, cut(data))
    finally:
        keras.config.set_dtype_policy("float32")
    tolerance = 0.02 if policy == "mixed_float16" else 0.1
    np.testing.assert_allclose(sample.norms, full.norms, rtol=tolerance)
    np.testing.assert_allclose(sample.mean_gradient_norm, full.mean_gradient_norm, rtol=tolerance)


def test_overflow_by_the_loss_scale_is_not_the_gradients():
    data = make_data()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(), 2.0**30)
        model = make_model(dropout=0, optimizer=optimizer)
        sample = measure(model, cut(data), method="exact", sketch_size=31)
    finally:
        keras.config.set_dtype_policy("float32")
    assert (sample.nonfinite, len(sample)) == (0, 6)
    assert sample.norms.max() < 100


def test_groups_break_the_norms_down():
    model, data = make_jitted(optimizer=keras.optimizers.SGD(1.0)), cut(make_data())
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


def test_bad_arguments_are_refused(monkeypatch):
    model, data = make_model(), cut(make_data())
    for arguments, message in (
        ({"method": "guess"}, "'sketch', 'exact'"),
        ({"remainder": "pad"}, "'drop', 'weight'"),
        ({"num_batches": 0}, "whole number"),
        ({"sketch_size": 1.5}, "whole number"),
        ({"groups": ["("]}, "regular expressions"),
    ):
        with pytest.raises(ValueError, match=message):
            measure(model, data, **arguments)
    with pytest.raises(ValueError, match="at least 2 batches"):
        measure(model, data[:1])
    with pytest.raises(ValueError, match="same number of examples"):
        measure(model, (np.zeros((4, 6)), np.zeros(5)))
    with pytest.raises(TypeError, match="dataset"):
        measure(model, 5.0 + 1j)
    with pytest.raises(TypeError, match=r"keras\.Model"):
        measure(object(), data)
    with pytest.raises(ValueError, match="compile"):
        measure(keras.Sequential([keras.Input((6,)), layers.Dense(3)]), data)
    frozen = make_model()
    frozen.trainable = False
    with pytest.raises(ValueError, match="no trainable variables"):
        measure(frozen, data)
    monkeypatch.setattr(keras.config, "backend", lambda: "torch")
    with pytest.raises(NotImplementedError, match="TensorFlow and JAX"):
        measure(model, data)


def test_an_own_train_step_is_warned_of():
    class Own(keras.Model):
        def train_step(self, *args):
            return super().train_step(*args)

    with pytest.warns(UserWarning, match="overrides `train_step`"):
        measure(make_model(cls=Own), cut(make_data()))


@on_tensorflow
def test_without_xla_where_it_cannot_compile(caplog):
    class Outside(layers.Layer):
        def call(self, x):
            return tf.ensure_shape(tf.numpy_function(lambda a: a, [x], tf.float32), x.shape) + x

    def make(layer):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((6,)), layer, layers.Dense(3)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss, jit_compile=False)
        return model

    sample = measure(make(Outside()), cut(make_data()))
    said = [record for record in caplog.records if "without XLA" in record.message]
    assert len(said) == 1
    expected = measure(make(layers.Rescaling(2.0)), cut(make_data()))
    np.testing.assert_allclose(sample.norms, expected.norms, rtol=1e-5)


def test_each_shape_is_traced_once():
    traces = []

    class Counted(layers.Layer):
        def call(self, x):
            traces.append(x.shape)
            return x

    model = keras.Sequential([keras.Input((6,)), Counted(), layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = make_data()
    batches = [(x[:n], y[:n]) for n in (8, 16) * 4]
    measure(model, batches[:1] * 2)
    once = len(traces)
    traces.clear()
    meter = sampling.NoiseMeter(model, remainder="weight")
    source = sampling.open_batches(batches)
    meter.measure(source, verbose=0)
    assert len([t for t in traces if t[0] == 16]) <= once
    traces.clear()
    meter.measure(source, verbose=0)
    assert not traces


@on_tensorflow
def test_replicas_give_the_gradient_of_the_global_batch():
    strategy = paths.two_replicas()
    with strategy.scope():
        model = make_model(dropout=0, optimizer=keras.optimizers.SGD(1.0))
    batches = cut(make_data(60), 10)

    def train(measured):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            model = make_model()
        if measured:
            measure(model, batches)
        model.fit(*make_data(64), verbose=0)
        return state_of(model)

    for method in ("sketch", "exact"):
        sample = measure(
            model, batches, method=method, sketch_size=31 if method == "exact" else 999
        )
        assert_is_noise_of(sample, fit_gradients(model, batches))
    assert_same(train(False), train(True))
    # Replicas with 5 and 4 examples count the same, as in `fit`.
    x, y = make_data(18)
    with strategy.scope():
        model = make_model()
    single = make_model()
    single.set_weights(model.get_weights())
    halves = [[(x[a:b], y[a:b])] * 2 for a, b in ((0, 5), (5, 9))]
    expected = np.mean([measure(single, half, training=False).losses[0] for half in halves])
    sample = measure(model, cut((x, y), 9), training=False)
    np.testing.assert_allclose(sample.losses[0], expected, rtol=1e-5)


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
    model = keras.Sequential([keras.Input((6,)), layer, layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = layer.generator.state.numpy(), layer.calls.numpy()
    first, second = (measure(model, cut(make_data())) for _ in range(2))
    np.testing.assert_array_equal(layer.generator.state, before[0])
    assert layer.calls.numpy() == before[1]
    np.testing.assert_array_equal(first.norms, second.norms)
    batch = cut(make_data())[0]
    assert measure(model, [batch] * 4).norms.min() > 0


def test_raw_data_is_preprocessed_as_fit_does():
    class Task(keras.Model):
        def preprocess_samples(self, x, y=None, sample_weight=None):
            return keras.utils.pack_x_y_sample_weight(x * 0.5, y, sample_weight)

    model, (x, y) = make_model(cls=Task, dropout=0), make_data()
    expected = measure(make_model(dropout=0), cut((x, y))).norms  # another model: not the same
    halved = make_model(dropout=0)
    halved.set_weights(model.get_weights())
    expected = measure(halved, cut((x / 2, y))).norms
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    for source in (cut((x, y)), dataset):
        np.testing.assert_allclose(measure(model, source).norms, expected, rtol=1e-5)


def test_sample_is_saved_and_loaded(tmp_path):
    sample = measure(make_model(), cut(make_data()), groups="layer")
    path = sample.save(tmp_path / "noise")
    assert path.endswith("noise.npz")
    loaded = NoiseSample.load(path)
    assert loaded.summary() == sample.summary()
    for name, value in vars(sample).items():
        np.testing.assert_array_equal(getattr(loaded, name), value)
    assert [p.name for p in tmp_path.iterdir()] == ["noise.npz"]
    (tmp_path / "bad.npz").write_bytes(b"not a sample")
    np.savez(tmp_path / "other.npz", norms=[1.0])
    np.save(tmp_path / "array.npy", [1.0])
    for name in ("bad.npz", "other.npz", "array.npy"):
        with pytest.raises(ValueError, match=f"{name} holds no NoiseSample"):
            NoiseSample.load(tmp_path / name)


def make_sample(norms, step=7):
    ones = np.ones_like(norms)
    return NoiseSample(
        norms=norms,
        gradient_norms=np.hypot(norms, 1),
        losses=2 * ones,
        batch_sizes=ones.astype(int),
        mean_gradient_norm=1.0,
        model="bert",
        step=step,
    )


def test_advice_follows_the_verdict_and_theorem_2():
    rng = np.random.default_rng(0)
    heavy = make_sample(1 + rng.pareto(1.3, 2000)).advice(steps=1000, smoothness=2.0)
    assert heavy.optimizer == "ACClip"
    assert "Heavy-tailed" in str(heavy)
    assert 1.1 <= heavy.alpha < 1.6
    gaussian = make_sample(np.linalg.norm(rng.normal(size=(500, 100)), axis=1))
    calm = gaussian.advice(steps=1000, initial_gap=3.0)
    assert (calm.optimizer, calm.alpha) == ("SGD with momentum", 2.0)
    np.testing.assert_allclose(calm.sigma, np.sqrt(np.mean(gaussian.norms**2)))
    tau = max(2, 48 * calm.sigma**2, 8 * calm.sigma, (calm.sigma**6 * 1000 / 3) ** 0.25)
    np.testing.assert_allclose(calm.threshold, tau)
    np.testing.assert_allclose(
        calm.learning_rate, min(1 / 4, (calm.sigma / tau) ** 2, 1 / (24 * tau))
    )
    few = make_sample(rng.normal(10, 1, 20)).advice()
    assert few.optimizer == "ACClip"
    assert "not sure" in few.text
    with pytest.raises(ValueError, match="No advice"):
        make_sample(np.zeros(5)).advice()


def test_summary_names_model_step_and_verdict():
    sample = make_sample(np.linalg.norm(np.random.default_rng(0).normal(size=(500, 100)), axis=1))
    summary = sample.summary()
    assert "bert at step 7" in summary
    assert "concentrated" in summary
    assert sample.tail_index(k=50).k == 50
    np.testing.assert_array_equal(np.asarray(sample), sample.norms)
    assert len(sample.plot().axes) >= 4


def test_progress_is_shown(capsys):
    measure(make_model(), cut(make_data()), verbose=1)
    assert "6/6" in capsys.readouterr().out
    measure(make_model(), cut(make_data()), verbose=0)
    assert not capsys.readouterr().out
