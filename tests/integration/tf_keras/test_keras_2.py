"""What is particular to Keras 2: its `fit`, files, mixed precision, averages, the Model Garden."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from keras_acclip.optimizers import notices
from keras_acclip.tf_keras import ACClip, CClip, GClip, PowerThreshold
from tests import paths, reference
from tests.tiers import some
from tests.versions import traces, update

CLASSES = [GClip, CClip, ACClip]


# The classes have Keras 2's behaviour from one base.
@pytest.fixture(params=some(CLASSES, [ACClip]), ids=lambda c: c.__name__)
def cls(request):
    return request.param


@pytest.fixture(autouse=True)
def same_seeds():
    tf_keras.utils.set_random_seed(0)


def variable(value=(1.0, 2.0), **kwargs):
    return tf.Variable(np.float32(value), **kwargs)


def assert_same(first, second):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


SPARSE = {
    "GClip": lambda: GClip(0.5, 0.7),
    "CClip": lambda: CClip(0.5, 0.3),
    "GClip, momentum": lambda: GClip(0.5, 0.7, momentum=0.9),
    "ACClip": lambda: ACClip(0.05, weight_decay=0.1),
}


@pytest.mark.parametrize("jit_compile", [None, True], ids=["graph", "XLA"])
@pytest.mark.parametrize("name", SPARSE)
def test_rows_equal_the_dense_gradient(name, jit_compile):
    rng = np.random.default_rng(0)
    results = []
    values = np.float32(rng.standard_t(1.5, (5, 9, 3)))
    indices = rng.integers(0, 6, (5, 9))
    for convert in (tf.identity, tf.convert_to_tensor):
        table, bias = variable(np.ones((12, 3))), variable(np.ones(4))
        optimizer = SPARSE[name]()
        optimizer.build([table, bias])

        @tf.function(jit_compile=jit_compile)
        def step(values, indices):
            g = convert(tf.IndexedSlices(values, indices, tf.constant([12, 3])))  # noqa: B023
            update(optimizer, [g, tf.ones(4)], [table, bias])  # noqa: B023

        for v, i in zip(values, indices, strict=True):
            step(tf.constant(v), tf.constant(i))
        results.append([table, bias])
    assert reference.relative_error(*results) <= 1e-6


def test_the_norm_sums_repeated_rows_first():
    """Two rows of 3 at one index make a norm of 6, not of √18; other rows are not touched."""
    g = tf.IndexedSlices(tf.constant([[3.0], [3.0]]), tf.constant([2, 2]), tf.constant([4, 1]))
    v = variable([[np.nan], [0.0], [0.0], [np.nan]])
    update(GClip(1.0, 0.6), [g], [v])
    np.testing.assert_allclose(v[:, 0], [np.nan, 0, -0.6, np.nan], rtol=1e-6)


@pytest.mark.parametrize("how", ["var_names", "var_list"])
def test_weight_decay_exclusion(cls, how):
    kernel, bias = variable(name="kernel"), variable(name="bias")
    optimizer = cls(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(**{how: ["bias"] if how == "var_names" else [bias]})
    update(optimizer, [[0.0, 0.0], [0.0, 0.0]], [kernel, bias])
    np.testing.assert_allclose(kernel, [0.95, 1.9], rtol=1e-6)
    np.testing.assert_array_equal(bias, [1.0, 2.0])


@pytest.mark.parametrize(
    ("name", "clip"),
    [
        ("clipvalue", lambda g: np.clip(g, -0.5, 0.5)),
        ("clipnorm", lambda g: g * 0.5 / 5),
        ("global_clipnorm", lambda g: g * 0.5 / 5),
    ],
)
def test_keras_own_clipping_comes_first(cls, name, clip):
    g, one, other = np.float32([3.0, -4.0]), variable(), variable()
    update(cls(0.1, **{name: 0.5}), [g], [one])
    update(cls(0.1), [clip(g)], [other])
    np.testing.assert_allclose(one, other, rtol=1e-6)


def test_ema_is_that_of_keras_2(cls):
    """At step 2 the average overwrites the variable, as `ema_overwrite_frequency` says."""
    v, w = variable(), variable()
    optimizer = cls(0.1, use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=2)
    plain = cls(0.1)
    average = v.numpy()
    for _ in range(2):
        update(optimizer, [[3.0, -4.0]], [v])
        update(plain, [[3.0, -4.0]], [w])
        average = 0.8 * average + 0.2 * w.numpy()
    np.testing.assert_allclose(v, average, rtol=1e-6)
    update(optimizer, [[3.0, -4.0]], [v])
    average = 0.8 * average + 0.2 * v.numpy()
    optimizer.finalize_variable_values([v])
    np.testing.assert_allclose(v, average, rtol=1e-6)


def test_constraints_hold(cls):
    v = tf.Variable([1.0, 2.0], constraint=tf_keras.constraints.NonNeg())
    optimizer = cls(0.3)
    for _ in range(10):
        update(optimizer, [[100.0, -1.0]], [v])
    assert v.numpy()[0] == 0
    assert v.numpy()[1] > 2


def test_none_gradients_leave_their_variable_alone(cls):
    first, second = variable(), variable()
    optimizer = cls(0.1, weight_decay=0.5)
    update(optimizer, [None, [1.0, 1.0]], [first, second])
    np.testing.assert_array_equal(first, [1.0, 2.0])
    assert np.all(second.numpy() < [1.0, 2.0])
    update(optimizer, [[1.0, 1.0], [1.0, 1.0]], [first, second])
    assert np.all(first.numpy() < [1.0, 2.0])
    with pytest.raises(ValueError, match="No gradients provided"):
        update(optimizer, [None, None], [first, second])
    with pytest.raises(KeyError, match="not built for the variable"):
        update(optimizer, [[1.0, 1.0]], [variable()])


def make_model(optimizer, **kwargs):
    tf_keras.utils.set_random_seed(1)
    layers = [tf_keras.layers.Dense(8, activation="tanh"), tf_keras.layers.Dense(2)]
    model = tf_keras.Sequential([tf_keras.Input((6,)), *layers])
    model.compile(optimizer, "mse", **kwargs)
    return model


def data():
    rng = np.random.default_rng(0)
    x = np.float32(rng.standard_normal((64, 6)))
    return x, np.float32(rng.standard_t(1.5, (64, 2)))


def fit(model, scale=1.0):
    x, y = data()
    model.fit(x, scale * y, batch_size=16, shuffle=False, verbose=0)


def state(model):
    return [v.numpy() for v in [*model.variables, *model.optimizer.variables]]


def test_one_replica_compiles(caplog):
    notices.forget()
    with tf.distribute.OneDeviceStrategy("CPU:1").scope():
        model = make_model(ACClip(0.1))
        fit(model)
    assert traces(model.optimizer) == [1]
    assert not [r for r in caplog.records if r.name == "keras_acclip"]


FITTED = {
    "GClip": lambda: GClip(0.1, 0.5, momentum=0.9, use_ema=True, jit_compile=False),
    "GClip with schedules": lambda: GClip(
        tf_keras.optimizers.schedules.CosineDecay(0.1, 100),
        PowerThreshold(0.3, 1.5),
        averaging="linear",
        projection_radius=5.0,
    ),
    "CClip with a dict": lambda: CClip(
        0.1,
        {"kernel": PowerThreshold(0.1, 2.0), ".*": 0.05},
        skip_nonfinite=True,
        jit_compile=False,
    ),
    "ACClip": lambda: ACClip(1e-2, alpha=1.5, step_size="rms", weight_decay=0.01),
}


@pytest.fixture(params=FITTED)
def make_optimizer(request):
    return FITTED[request.param]


def test_config_round_trip(make_optimizer):
    optimizer = make_optimizer()
    config = optimizer.get_config()
    assert type(optimizer).from_config(config).get_config() == config
    again = tf_keras.optimizers.deserialize(tf_keras.optimizers.serialize(optimizer))
    assert type(again) is type(optimizer)
    assert again.get_config() == config


def resume_from_file(model, path):
    model.save(path)
    resumed = tf_keras.models.load_model(path)
    resumed.run_eagerly = True
    return resumed


def resume_from_checkpoint(model, path, make_optimizer):
    saved = tf.train.Checkpoint(model=model, optimizer=model.optimizer).save(path)
    resumed = make_model(make_optimizer(), run_eagerly=True)
    restored = tf.train.Checkpoint(model=resumed, optimizer=resumed.optimizer).restore(saved)
    resumed.optimizer.build(resumed.trainable_variables)
    restored.assert_consumed()
    return resumed


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
@pytest.mark.parametrize("name", some(FITTED, ["ACClip"]))
def test_resumed_training_goes_on_bit_for_bit(name, tmp_path):
    x, y = data()

    def train(model, batches):
        for i in batches:
            model.train_on_batch(x[i : i + 8], y[i : i + 8])

    make_optimizer = FITTED[name]
    unbroken = make_model(make_optimizer(), run_eagerly=True)
    train(unbroken, range(3))
    resumed = [
        resume_from_file(unbroken, tmp_path / "model.h5"),
        resume_from_file(unbroken, tmp_path / "model.keras"),
        resume_from_checkpoint(unbroken, tmp_path / "checkpoint", make_optimizer),
    ]
    for model in (unbroken, *resumed):
        train(model, range(3, 6))
    for model in resumed:
        assert_same(state(unbroken), state(model))


@pytest.mark.parametrize("name", some(FITTED, ["ACClip"]))
def test_fit(name):
    """Eagerly, compiled by XLA and on two replicas a model ends with the same weights."""
    make_optimizer = FITTED[name]
    eager = make_model(make_optimizer(), run_eagerly=True)
    compiled = make_model(make_optimizer(), jit_compile=True)
    with paths.two_replicas().scope():
        replicated = make_model(make_optimizer())
    for model in (eager, compiled, replicated):
        fit(model)
    for model in (compiled, replicated):
        assert reference.relative_error(model.get_weights(), eager.get_weights()) <= 1e-5


def test_frozen_layers_stay(cls):
    model = make_model("sgd")
    model.layers[0].trainable = False
    model.compile(cls(0.1), "mse")
    frozen, free = (layer.kernel.numpy() for layer in model.layers)
    fit(model)
    np.testing.assert_array_equal(model.layers[0].kernel, frozen)
    assert not np.array_equal(model.layers[1].kernel, free)


@pytest.mark.parametrize("replicas", some([1, 2], [2]))
def test_mixed_precision(cls, replicas):
    """Keras 2 wraps the optimizer; weights stay near those of float32."""
    scope = (paths.two_replicas() if replicas == 2 else tf.distribute.get_strategy()).scope()
    expected = make_model(cls(0.01, averaging="linear"))
    fit(expected, scale=0.01)
    tf_keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        with scope:
            model = make_model(cls(0.01, averaging="linear"))
        fit(model, scale=0.01)
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    assert isinstance(model.optimizer, tf_keras.mixed_precision.LossScaleOptimizer)
    assert {
        s.dtype.name for held in model.optimizer.inner_optimizer._slots for s in held.values()
    } <= {"float32"}
    assert 0 < reference.relative_error(model.get_weights(), expected.get_weights()) <= 2e-3


@pytest.mark.parametrize("outer", [lambda f: f, tf.function], ids=["eager", "graph"])
def test_loss_scale_optimizer_skips_what_is_not_finite(cls, outer):
    """The linear average too is that of the steps taken, though Keras 2 counts all of them."""
    gs = [np.float32([3.0, -4.0]), np.float32([1.0, 2.0]), np.float32([0.1, 0.2])]
    poisoned = [np.float32([np.nan, 1.0]), gs[0], gs[1], np.float32([1.0, np.inf]), gs[2]]
    v, w = variable(), variable()
    scaled = tf_keras.mixed_precision.LossScaleOptimizer(
        cls(0.1, averaging="linear"), initial_scale=8.0
    )
    scaled.build([v])
    step = outer(lambda g: scaled.apply_gradients([(scaled.get_unscaled_gradients([g])[0], v)]))
    for g in poisoned:
        step(scaled.get_scaled_loss(tf.constant(g)))
    plain = cls(0.1, averaging="linear")
    for g in gs:
        update(plain, [g], [w])
    assert int(scaled.iterations) == 5
    np.testing.assert_allclose(v, w, rtol=1e-6)
    for optimizer in (scaled, plain):
        optimizer.finalize_variable_values([v if optimizer is scaled else w])
    np.testing.assert_allclose(v, w, rtol=1e-6)


def test_the_model_gardens_moving_average(cls, tmp_path):
    """It takes any optimizer in it for one of `tf_keras.optimizers.legacy`."""
    ema_optimizer = pytest.importorskip("official.modeling.optimization.ema_optimizer")
    x, y = data()

    def train(wrap):
        model = make_model("sgd")
        optimizer = wrap(cls(0.1))
        if wrap is average:
            optimizer.shadow_copy(model)
        for i in range(3):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((model(x[i : i + 8]) - y[i : i + 8]) ** 2)
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            weights.append(model.get_weights())
        return model, optimizer

    def average(optimizer):
        return ema_optimizer.ExponentialMovingAverage(
            optimizer, average_decay=0.5, dynamic_decay=False
        )

    weights = []
    train(lambda optimizer: optimizer)
    alone, weights = weights, []
    model, optimizer = train(average)
    for mine, expected in zip(weights, alone, strict=True):
        assert_same(mine, expected)
    assert int(optimizer.iterations) == 3
    assert float(optimizer.learning_rate) == pytest.approx(0.1)
    optimizer.learning_rate = 0.05
    assert float(optimizer.learning_rate) == pytest.approx(0.05)
    assert len(optimizer.weights) == len(optimizer._optimizer.variables)
    averages = [np.zeros_like(w) for w in weights[0]]
    for step in weights:
        averages = [0.5 * a + 0.5 * w for a, w in zip(averages, step, strict=True)]
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        optimizer.swap_weights()
    assert reference.relative_error(model.get_weights(), averages) <= 1e-6

    saved = tf.train.Checkpoint(model=model, optimizer=optimizer).save(tmp_path / "checkpoint")
    model, optimizer = train(average)
    tf.train.Checkpoint(model=model, optimizer=optimizer).restore(saved).assert_consumed()
    assert reference.relative_error(model.get_weights(), averages) <= 1e-6


LEGACY = """
import numpy as np, tensorflow as tf
from keras_acclip import tf_keras as keras_2

def weights(strategy):
    with strategy.scope():
        tf.keras.utils.set_random_seed(1)
        model = tf.keras.Sequential([tf.keras.Input((3,)), tf.keras.layers.Dense(2)])
        model.compile(keras_2.ACClip(0.1), "mse")
    model.fit(np.eye(3), np.ones((3, 2)), verbose=0, epochs=2)
    (compiled,) = model.optimizer.compiled_steps.values()
    assert compiled.experimental_get_tracing_count() == 1
    return model.get_weights()

assert tf.keras.Model.__module__.startswith("tf_keras")
for a, b in zip(weights(tf.distribute.get_strategy()), weights(tf.distribute.MirroredStrategy())):
    np.testing.assert_array_equal(a, b)
try:
    import keras_acclip
    tf.keras.Sequential([tf.keras.layers.Dense(1)]).compile(keras_acclip.ACClip(), "mse")
except ValueError as error:
    assert "take keras_acclip.tf_keras.ACClip>" in str(error)
else:
    raise AssertionError("no error")
print("done")
"""


@pytest.mark.slow
def test_legacy_keras_in_tf_keras_models_and_a_single_mirrored_replica():
    result = subprocess.run(
        [sys.executable, "-c", LEGACY],
        env=os.environ | {"TF_USE_LEGACY_KERAS": "1", "CUDA_VISIBLE_DEVICES": ""},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.stdout.strip() == "done", result.stderr[-3000:]
