"""`Clip` around every optimizer of Keras 2 and ours."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_acclip
from keras_acclip import tf_keras as keras_2
from keras_acclip._utils import compat
from keras_acclip.tf_keras import Clip, PowerThreshold
from keras_acclip.thresholds import MovingMoment, MovingQuantile, ZScore
from tests import paths, reference
from tests.tiers import some
from tests.unit.optimizers.test_clip import clipped, numbers

OUTSIDE = {"Optimizer", "LossScaleOptimizer"}
MAKERS = {
    name: cls
    for name, cls in vars(tf_keras.optimizers).items()
    if isinstance(cls, type)
    and issubclass(cls, tf_keras.optimizers.Optimizer)
    and name not in OUTSIDE
} | {
    "ACClip": keras_2.ACClip,
    "GClip": lambda: keras_2.GClip(0.1, 0.5, momentum=0.9),
    "AdamW, everything": lambda: tf_keras.optimizers.AdamW(
        tf_keras.optimizers.schedules.CosineDecay(0.1, 20),
        weight_decay=0.1,
        clipnorm=0.7,
        use_ema=True,
        ema_momentum=0.8,
        ema_overwrite_frequency=3,
    ),
    "legacy Adam": lambda: tf_keras.optimizers.legacy.Adam(0.1, amsgrad=True),
    "legacy SGD": lambda: tf_keras.optimizers.legacy.SGD(
        tf_keras.optimizers.schedules.CosineDecay(0.1, 20), momentum=0.9
    ),
}


def train(optimizer, values, steps):
    variables = paths.make_native_variables(values)
    compat.create_slots(optimizer, variables)
    for gradients in steps:
        optimizer.apply_gradients(zip(map(tf.constant, gradients), variables, strict=True))
    return variables


@pytest.mark.parametrize(
    "name",
    some(MAKERS, ("Nadam", "AdamW, everything", "legacy Adam")),
)
def test_a_threshold_that_never_binds_changes_nothing(name):
    """Bit for bit, where both run op by op; to rounding in one XLA computation."""
    values, steps = numbers(1)
    plain = train(MAKERS[name](), values, steps)
    for flag in (False, True):
        same = train(Clip(MAKERS[name](), 1e30, jit_compile=flag), values, steps)
        # What is ours compiles its own part of the step by itself.
        if not flag and name not in ("ACClip", "GClip"):
            for a, b in zip(plain, same, strict=True):
                np.testing.assert_array_equal(a, b)
        assert reference.relative_error(same, plain) <= 1e-5


@pytest.mark.parametrize("by", some(["global", "variable", "coordinate"], ["variable"]))
def test_it_is_the_optimizer_on_clipped_gradients(by):
    values, steps = numbers(2)
    legacy = tf_keras.optimizers.legacy.Adam
    for make in (tf_keras.optimizers.SGD, tf_keras.optimizers.Adam, legacy, keras_2.ACClip):
        expected = train(make(0.1), values, clipped(steps, 0.5, by))
        got = train(Clip(make(0.1), 0.5, by=by), values, steps)
        assert reference.relative_error(got, expected) <= 1e-5


# Keras 2's Nadam counts in Python: in a graph it differs from itself in eager code.
@pytest.mark.parametrize("name", some([n for n in MAKERS if n != "Nadam"], ("AdamW, everything",)))
def test_two_replicas_equal_one_device(name):
    values, steps = numbers(3)

    def make(jit_compile=True):
        return Clip(MAKERS[name](), 0.5, skip_nonfinite=name == "Adam")

    how = {"make_variables": paths.make_native_variables}
    _, expected = paths.apply("eager", make, values, steps, **how)
    _, got = paths.apply("two replicas", make, values, steps, **how)
    assert reference.relative_error(got, expected) <= 1e-5


@pytest.mark.parametrize(
    ("moving", "by"),
    [
        pytest.param(MovingMoment(warmup=2), "global", marks=pytest.mark.slow),
        (MovingQuantile(warmup=3), "variable"),
        pytest.param(ZScore(), "coordinate", marks=pytest.mark.slow),
    ],
)
def test_moving_thresholds_go_the_way_of_keras_3(moving, by):
    values, steps = numbers(7, steps=30)
    import keras

    variables = paths.make_variables(values)
    optimizer = keras_acclip.Clip(keras.optimizers.SGD(0.1), moving, by=by)
    for gradients in steps:
        optimizer.apply([tf.constant(g) for g in gradients], variables)
    twin = Clip(tf_keras.optimizers.SGD(0.1), moving, by=by)
    got = train(twin, values, steps)
    assert reference.relative_error(got, variables) <= 1e-6
    for mine, theirs in zip(twin.clipping, optimizer.clipping, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5)
    (compiled,) = twin.compiled_steps.values()
    assert compiled.experimental_get_tracing_count() == 1


def test_skip_nonfinite_equals_never_having_seen_the_step():
    values, steps = numbers(5)
    poisoned = [g.copy() for g in steps[2]]
    poisoned[0][0, 0] = np.nan
    optimizer, other = (
        Clip(tf_keras.optimizers.AdamW(0.1), 0.5, skip_nonfinite=True) for _ in range(2)
    )
    got = train(optimizer, values, [poisoned, *steps[:3], poisoned, *steps[3:]])
    clean = train(other, values, steps)
    for a, b in zip(got, clean, strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(optimizer.skipped_steps) == 2
    assert int(optimizer.inner_optimizer.iterations) == 6
    assert int(optimizer.iterations) == 8


FILES = {
    "AdamW": lambda: Clip(tf_keras.optimizers.AdamW(1e-2, use_ema=True), 0.5),
    "moving": lambda: Clip(tf_keras.optimizers.Lion(1e-3), MovingQuantile(window=8, warmup=2)),
    "a dict": lambda: Clip(
        keras_2.ACClip(1e-2, averaging="linear"),
        {"kernel": PowerThreshold(0.1, 2.0), ".*": 0.05},
        by="coordinate",
        skip_nonfinite=True,
    ),
}


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
@pytest.mark.parametrize("name", some(FILES, ["a dict"]))
def test_files_and_configs(name, tmp_path):
    x = np.float32(np.random.default_rng(0).standard_normal((48, 6)))

    def model_of(optimizer):
        tf_keras.utils.set_random_seed(1)
        model = tf_keras.Sequential([tf_keras.Input((6,)), tf_keras.layers.Dense(2)])
        model.compile(optimizer, "mse", run_eagerly=True)
        return model

    def batches(model, some):
        for i in some:
            model.train_on_batch(x[8 * i : 8 * i + 8], x[8 * i : 8 * i + 8, :2] ** 2)

    unbroken = model_of(FILES[name]())
    config = unbroken.optimizer.get_config()
    assert Clip.from_config(config).get_config() == config
    batches(unbroken, range(3))
    resumed = []
    for file in ("model.keras", "model.h5"):
        unbroken.save(tmp_path / file)
        resumed.append(tf_keras.models.load_model(tmp_path / file))
        resumed[-1].run_eagerly = True
    saved = tf.train.Checkpoint(model=unbroken, optimizer=unbroken.optimizer).save(
        tmp_path / "checkpoint"
    )
    restored = model_of(FILES[name]())
    restored.optimizer.build(restored.trainable_variables)
    checkpoint = tf.train.Checkpoint(model=restored, optimizer=restored.optimizer)
    checkpoint.restore(saved).assert_consumed()
    for model in (unbroken, *resumed, restored):
        batches(model, range(3, 6))
    for model in (*resumed, restored):
        for a, b in zip(
            unbroken.variables + unbroken.optimizer.variables,
            model.variables + model.optimizer.variables,
            strict=True,
        ):
            np.testing.assert_array_equal(a, b)


def test_fit_with_and_without_mixed_precision():
    x = np.random.default_rng(0).standard_normal((128, 6)).astype("float32")
    for policy in ("float32", "mixed_float16"):
        tf_keras.mixed_precision.set_global_policy(policy)
        try:
            model = tf_keras.Sequential([tf_keras.Input((6,)), tf_keras.layers.Dense(2)])
            model.compile(Clip(tf_keras.optimizers.Adam(1e-2), MovingMoment()), "mse")
        finally:
            tf_keras.mixed_precision.set_global_policy("float32")
        losses = model.fit(x, x[:, :2], epochs=5, verbose=0).history["loss"]
        assert losses[-1] < losses[0]
    assert isinstance(model.optimizer, tf_keras.mixed_precision.LossScaleOptimizer)


def test_setters_reach_the_optimizer():
    v = tf.Variable([0.0, 0.0])
    clip = Clip(tf_keras.optimizers.SGD(1.0), 0.5)
    clip.apply_gradients([(tf.constant([3.0, 4.0]), v)])
    clip.learning_rate, clip.threshold = 0.5, 1.0
    clip.inner_optimizer.momentum = 0.0
    clip.apply_gradients([(tf.constant([3.0, 4.0]), v)])
    np.testing.assert_allclose(v, [-0.6, -0.8], rtol=1e-6)
    with pytest.raises(ValueError, match="No gradients provided"):
        clip.apply_gradients([(None, v)])


def test_what_can_not_go_inside():
    for wrong, instead in (
        ("adam", "its name"),
        (tf_keras.optimizers.Adam, "its class"),
        (keras_acclip.ACClip(), "one of Keras 3, for which there is keras_acclip.Clip"),
    ):
        match = rf"`optimizer` must be an optimizer of tf_keras, made, .*, not {instead}"
        with pytest.raises(TypeError, match=match):
            Clip(wrong)
    with pytest.raises(ValueError, match="Put it around"):
        Clip(tf_keras.mixed_precision.LossScaleOptimizer(tf_keras.optimizers.Adam()))
    with pytest.raises(ValueError, match="`by` must be one of"):
        Clip(tf_keras.optimizers.Adam(), by="layer")
    with pytest.raises(TypeError, match="`jit_compile`"):
        Clip(tf_keras.optimizers.Adam(), jit_compile="auto")
    with pytest.raises(TypeError, match="moves"):
        Clip(tf_keras.optimizers.Adam(), ZScore()).threshold = 1.0
