"""`Clip` in `fit`, in files and under mixed precision."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_acclip
from keras_acclip import Clip
from keras_acclip.thresholds import MovingMoment, MovingQuantile, PowerThreshold, ZScore
from tests import paths
from tests.tiers import some

FILES = {
    "AdamW": lambda: Clip(keras.optimizers.AdamW(1e-2, use_ema=True), 0.5),
    "moving": lambda: Clip(keras.optimizers.Lion(1e-3), MovingQuantile(window=8, warmup=2)),
    "by variable": lambda: Clip(
        keras_acclip.ACClip(1e-2, averaging="linear"), ZScore(warmup=2), by="variable"
    ),
    "a dict": lambda: Clip(
        keras.optimizers.SGD(0.1, gradient_accumulation_steps=2),
        {"kernel": PowerThreshold(0.1, 2.0), ".*": 0.05},
        by="coordinate",
        skip_nonfinite=True,
    ),
}


@pytest.mark.parametrize("name", some(FILES, ["by variable"]))
def test_files_and_configs(name, tmp_path):
    """Training goes on bit for bit from a `.keras` file and from a checkpoint."""
    x = np.float32(np.random.default_rng(0).standard_normal((48, 6)))

    def batches(model, some):
        for i in some:
            model.train_on_batch(x[8 * i : 8 * i + 8], x[8 * i : 8 * i + 8, :2] ** 2)

    unbroken = paths.make_model(FILES[name]())
    config = unbroken.optimizer.get_config()
    assert Clip.from_config(config).get_config() == config
    batches(unbroken, range(3))
    unbroken.save(tmp_path / "model.keras")
    saved = tf.train.Checkpoint(model=unbroken, optimizer=unbroken.optimizer).save(
        tmp_path / "checkpoint"
    )
    from_file = keras.saving.load_model(tmp_path / "model.keras")
    restored = paths.make_model(FILES[name]())
    restored.optimizer.build(restored.trainable_variables)
    checkpoint = tf.train.Checkpoint(model=restored, optimizer=restored.optimizer)
    checkpoint.restore(saved).assert_consumed()
    for model in (unbroken, from_file, restored):
        batches(model, range(3, 6))
    for model in (from_file, restored):
        for a, b in zip(
            unbroken.variables + unbroken.optimizer.variables,
            model.variables + model.optimizer.variables,
            strict=True,
        ):
            np.testing.assert_array_equal(a, b)


def test_loss_scale_optimizer_around_it_and_fit():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = paths.make_model(Clip(keras.optimizers.Adam(1e-2), 1.0))
    finally:
        keras.config.set_dtype_policy("float32")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    x = np.random.default_rng(0).standard_normal((128, 6)).astype("float32")
    losses = model.fit(x, x[:, :2], epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    for jit_compile in (True, False):
        model = paths.make_model(Clip(keras.optimizers.Adam(1e-2), MovingMoment()))
        model.compile(
            Clip(keras.optimizers.Adam(1e-2), MovingMoment()), "mse", jit_compile=jit_compile
        )
        losses = model.fit(x, x[:, :2], epochs=3, verbose=0).history["loss"]
        assert losses[-1] < losses[0]
