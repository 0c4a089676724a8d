"""What every Keras optimizer does holds for ours, checked beside Keras's own Adam or by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_acclip import ACClip, CClip, GClip
from tests.tiers import some

CLASSES = [GClip, CClip, ACClip]


# The classes have Keras's behaviour from one base.
@pytest.fixture(params=some(CLASSES, [ACClip]), ids=lambda c: c.__name__)
def cls(request):
    return request.param


@pytest.fixture(
    params=[True, pytest.param(False, marks=pytest.mark.slow)], ids=["compiled", "uncompiled"]
)
def make(request, cls):
    return lambda **kwargs: cls(0.1, jit_compile=request.param, **kwargs)


def variable(value=(1.0, 2.0), **kwargs):
    return keras.Variable(np.float32(value), **kwargs)


def gradients(steps=6, seed=0):
    rng = np.random.default_rng(seed)
    return [tf.constant(rng.standard_t(1.5, 2), tf.float32) for _ in range(steps)]


def run(optimizer, v, gs, wrap=lambda f: f):
    optimizer.build([v])
    step = wrap(lambda g: optimizer.apply([g], [v]))
    for g in gs:
        step(g)
    return np.asarray(v)


@pytest.mark.parametrize("wrap", [lambda f: f, tf.function], ids=["eager", "graph"])
def test_gradient_accumulation_equals_steps_of_the_mean(make, wrap):
    gs = gradients(9)
    mean = [sum(gs[i : i + 3]) / 3 for i in (0, 3, 6)]
    accumulated = run(make(gradient_accumulation_steps=3), variable(), gs, wrap)
    np.testing.assert_allclose(accumulated, run(make(), variable(), mean, wrap), rtol=1e-6)


def test_ema(make):
    optimizer, v = make(use_ema=True, ema_momentum=0.8), variable()
    optimizer.build([v])
    average = None
    for g in gradients():
        optimizer.apply([g], [v])
        now = np.asarray(v)
        average = now if average is None else 0.8 * average + 0.2 * now
    np.testing.assert_allclose(optimizer._model_variables_moving_average[0], average, rtol=1e-5)
    optimizer.finalize_variable_values([v])
    np.testing.assert_allclose(v, average, rtol=1e-5)


def test_ema_overwrites_at_its_frequency(make):
    optimizer, v = make(use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=2), variable()
    optimizer.build([v])
    for g in gradients(2):
        optimizer.apply([g], [v])
    np.testing.assert_array_equal(v, optimizer._model_variables_moving_average[0])


@pytest.mark.parametrize("jit_compile", [True, False])
def test_fit_puts_the_linear_average_into_the_weights(cls, jit_compile):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(cls(0.1, averaging="linear"), "mse", jit_compile=jit_compile)
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            seen.append(np.array(model.layers[0].kernel))

    x = np.random.default_rng(0).standard_normal((40, 2)).astype("float32")
    model.fit(x, x[:, 0], batch_size=8, epochs=2, verbose=0, callbacks=[Watch()])
    expected = np.average(seen, axis=0, weights=np.arange(1, len(seen) + 1))
    np.testing.assert_allclose(model.layers[0].kernel, expected, rtol=1e-5)


def test_constraints_hold(make):
    v = variable()
    v.constraint = keras.constraints.NonNeg()
    run(make(), v, [tf.constant([100.0, -1.0])] * 20)
    assert np.asarray(v)[0] == 0
    assert np.asarray(v)[1] > 2


def test_loss_scale_factor(make):
    gs = gradients()
    scaled = run(make(loss_scale_factor=4.0), variable(), [4 * g for g in gs])
    np.testing.assert_allclose(scaled, run(make(), variable(), gs), rtol=1e-6)


@pytest.mark.parametrize("wrap", [lambda f: f, tf.function], ids=["eager", "graph"])
def test_loss_scale_optimizer_skips_what_is_not_finite(make, wrap):
    outer = keras.optimizers.LossScaleOptimizer(make(), initial_scale=8.0)
    gs = gradients()
    poisoned = [*gs[:3], tf.constant([np.nan, 1.0]), *gs[3:]]
    v = variable()
    outer.build([v])
    step = wrap(lambda g: outer.apply([g], [v]))
    for g in poisoned:
        step(g * outer.dynamic_scale)
    np.testing.assert_allclose(v, run(make(), variable(), gs), rtol=1e-6)
    assert float(outer.dynamic_scale) == 4.0


def test_mixed_precision_fit(cls):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(1)])
        model.compile(cls(1e-2), "mse")
    finally:
        keras.config.set_dtype_policy("float32")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    x = np.random.default_rng(0).standard_normal((128, 4)).astype("float32")
    losses = model.fit(x, x[:, :1], epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_learning_rate_setter(make):
    optimizer = make()
    optimizer.learning_rate = 0.0
    np.testing.assert_array_equal(run(optimizer, variable(), gradients()), [1.0, 2.0])
    assert float(optimizer.learning_rate) == 0.0


def test_learning_rate_schedule(make, cls):
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([2], [0.1, 0.0])
    optimizer = cls(schedule)
    gs = gradients()
    # Step 0, 1 and 2 have rate 0.1, then 0.
    np.testing.assert_allclose(
        run(optimizer, variable(), gs), run(make(), variable(), gs[:3]), rtol=1e-6
    )


def test_clipvalue_comes_first(make):
    gs = gradients()
    clipped = [tf.clip_by_value(g, -0.5, 0.5) for g in gs]
    np.testing.assert_allclose(
        run(make(clipvalue=0.5), variable(), gs), run(make(), variable(), clipped), rtol=1e-6
    )


@pytest.mark.parametrize("how", ["var_names", "var_list"])
def test_weight_decay_exclusion(make, how):
    kernel, bias = variable(name="kernel"), variable(name="bias")
    optimizer = make(weight_decay=0.5)
    optimizer.exclude_from_weight_decay(**{how: ["bias"] if how == "var_names" else [bias]})
    optimizer.build([kernel, bias])
    optimizer.apply([tf.zeros(2), tf.zeros(2)], [kernel, bias])
    np.testing.assert_allclose(kernel, [0.95, 1.9], rtol=1e-6)
    np.testing.assert_array_equal(bias, [1.0, 2.0])


def test_none_gradients_leave_their_variable_alone(make):
    first, second = variable(), variable()
    optimizer = make(weight_decay=0.5)
    optimizer.build([first, second])
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply([None, tf.ones(2)], [first, second])
    optimizer.apply([tf.ones(2), tf.ones(2)], [first, second])
    alone = variable()
    other = make(weight_decay=0.5)
    other.build([alone])
    other.apply([tf.ones(2)], [alone])
    # GClip's norm counts both variables, so that only the direction can be compared there.
    assert np.all(np.asarray(first) < [1.0, 2.0])
    assert np.all(np.asarray(second) < np.asarray(first))
    if not isinstance(optimizer, GClip):
        np.testing.assert_allclose(first, alone, rtol=1e-6)
    with pytest.raises(ValueError, match="No gradients provided"):
        optimizer.apply([None, None], [first, second])


def test_frozen_layers_stay(cls):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3), keras.layers.Dense(1)])
    model.layers[0].trainable = False
    model.compile(cls(0.1), "mse")
    frozen, free = (np.array(layer.kernel) for layer in model.layers)
    model.fit(np.ones((8, 2)), np.ones(8), verbose=0)
    np.testing.assert_array_equal(model.layers[0].kernel, frozen)
    assert not np.array_equal(model.layers[1].kernel, free)


def test_an_unknown_variable_is_refused(make):
    optimizer = make()
    optimizer.build([variable()])
    with pytest.raises(ValueError, match="Unknown variable"):
        optimizer.apply([tf.ones(2)], [variable()])


def test_apply_gradients_counts(make):
    v, optimizer = variable(), make()
    optimizer.apply_gradients([(tf.ones(2), v)])
    optimizer.apply_gradients(zip([tf.ones(2)], [v], strict=True))
    assert int(optimizer.iterations) == 2


def test_a_scalar_and_an_empty_variable(make):
    variables = [variable(3.0), variable(np.zeros((0, 2)))]
    optimizer = make()
    optimizer.apply([tf.constant(2.0), tf.zeros((0, 2))], variables)
    assert float(variables[0]) < 3.0


@pytest.mark.parametrize("jit_compile", some([True, False], [True]))
@pytest.mark.parametrize("run_eagerly", some([True, False], [False]))
def test_fit_learns_however_the_model_is_compiled(cls, run_eagerly, jit_compile):
    if run_eagerly and jit_compile:
        pytest.skip("Keras excludes it")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((256, 5)).astype("float32")
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)])
    rate = 0.03 if cls is ACClip else 0.2
    model.compile(cls(rate), "mse", run_eagerly=run_eagerly, jit_compile=jit_compile)
    history = model.fit(x, x @ np.arange(5.0), batch_size=32, epochs=12, verbose=0)
    assert history.history["loss"][-1] < 0.7 * history.history["loss"][0]


def test_native_tensorflow_variables(make):
    v = tf.Variable([1.0, 2.0])
    optimizer = make(weight_decay=0.1, averaging="linear")
    optimizer.build([v])
    kv = variable()
    other = make(weight_decay=0.1, averaging="linear")
    for g in gradients():
        optimizer.apply([g], [v])
        other.apply([g], [kv])
    np.testing.assert_array_equal(v, kv)


@pytest.mark.parametrize("kwargs", [{}, {"averaging": "linear"}], ids=str)
def test_a_layer_that_is_unfrozen_in_the_middle_of_fit(cls, kwargs):
    """`fit` goes on with the variables that it was compiled with, and ends well."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3), keras.layers.Dense(1)])
    model.layers[0].trainable = False
    model.compile(cls(0.1, **kwargs), "mse")
    frozen = np.array(model.layers[0].kernel)

    class Unfreeze(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            model.layers[0].trainable = True

    model.fit(np.ones((8, 2)), np.ones(8), epochs=2, verbose=0, callbacks=[Unfreeze()])
    np.testing.assert_array_equal(model.layers[0].kernel, frozen)


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        pytest.param({"averaging": "linear"}, marks=pytest.mark.slow),
        pytest.param({"skip_nonfinite": True}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_layers_quantized_to_float8(cls, kwargs):
    """Their scales are overwritten by their gradients, and have neither slot nor average."""
    model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(16), keras.layers.Dense(1)])
    model.layers[0].quantize("float8")
    model.compile(cls(0.01, **kwargs), "mse")
    x = np.random.default_rng(0).standard_normal((32, 16)).astype("float32")
    kernel = np.array(model.layers[0].kernel)
    model.fit(x, x[:, :1], batch_size=8, verbose=0)
    assert np.all(np.isfinite(model.layers[0].kernel))
    assert not np.array_equal(model.layers[0].kernel, kernel)


def test_skip_nonfinite_of_the_first_step_of_fit_with_an_exponential_average():
    """The first step taken sets the average; at the end `fit` puts it into the weights."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(GClip(1e-3, skip_nonfinite=True, use_ema=True), "mse")
    model.layers[0].kernel.assign([[1.0]])
    x = np.float32([[np.nan], [1.0], [1.0]])
    model.fit(x, np.ones((3, 1)), batch_size=1, shuffle=False, verbose=0)
    np.testing.assert_allclose(model.layers[0].kernel, [[1.0]], atol=1e-2)
