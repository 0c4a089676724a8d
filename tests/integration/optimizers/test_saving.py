import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_acclip import ACClip, CClip, GClip
from keras_acclip.thresholds import PowerThreshold
from tests import paths
from tests.tiers import some

MAKERS = {
    "GClip": lambda: GClip(0.1, 0.5, momentum=0.9, nesterov=True, weight_decay=0.01),
    "GClip with schedules": lambda: GClip(
        keras.optimizers.schedules.CosineDecay(0.1, 100),
        PowerThreshold(0.3, 1.5),
        averaging="linear",
        projection_radius=5.0,
    ),
    "CClip": lambda: CClip(0.1, 0.05, momentum=0.9, skip_nonfinite=True),
    "CClip with a dict": lambda: CClip(
        0.1, {"kernel": PowerThreshold(0.1, 2.0), ".*": 0.05}, use_ema=True
    ),
    "ACClip": lambda: ACClip(1e-2, weight_decay=0.01, gradient_accumulation_steps=2),
    "ACClip rms": lambda: ACClip(1e-2, alpha=1.5, step_size="rms", averaging="linear"),
}


@pytest.fixture(params=MAKERS)
def make_optimizer(request):
    return MAKERS[request.param]


def data():
    rng = np.random.default_rng(0)
    x = np.float32(rng.standard_normal((64, 6)))
    return tf.data.Dataset.from_tensor_slices((x, x[:, :2] ** 2)).batch(8)


def state(model):
    return [np.asarray(v) for v in model.variables + model.optimizer.variables]


def assert_same(first, second):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_config_round_trip(make_optimizer):
    optimizer = make_optimizer()
    config = optimizer.get_config()
    again = type(optimizer).from_config(config)
    assert again.get_config() == config
    via_keras = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(via_keras) is type(optimizer)
    assert via_keras.get_config() == config


def test_config_holds_the_current_threshold_and_rate():
    optimizer = GClip(0.1, 0.5)
    optimizer.threshold = 0.25
    optimizer.learning_rate = 0.01
    config = optimizer.get_config()
    assert config["threshold"] == 0.25
    assert config["learning_rate"] == pytest.approx(0.01)


def from_file(model, path, make_optimizer):
    model.save(path / "model.keras")
    return keras.saving.load_model(path / "model.keras")


def from_checkpoint(model, path, make_optimizer):
    checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    saved = checkpoint.save(path / "checkpoint")
    resumed = paths.make_model(make_optimizer())
    resumed.optimizer.build(resumed.trainable_variables)
    status = tf.train.Checkpoint(model=resumed, optimizer=resumed.optimizer).restore(saved)
    status.assert_consumed()
    return resumed


def from_own_variables(model, path, make_optimizer):
    store = {}
    model.optimizer.save_own_variables(store)
    resumed = paths.make_model(make_optimizer())
    resumed.set_weights(model.get_weights())
    resumed.optimizer.build(resumed.trainable_variables)
    resumed.optimizer.load_own_variables(store)
    return resumed


@pytest.mark.parametrize("name", some(MAKERS, ("ACClip rms",)))
def test_resumed_training_goes_on_bit_for_bit(name, tmp_path):
    """From a `.keras` file, from a checkpoint and from the optimizer's own variables."""
    make_optimizer = MAKERS[name]
    unbroken = paths.make_model(make_optimizer())
    for batch in data().take(3):
        unbroken.train_on_batch(*batch)
    ways = (from_file, from_checkpoint, from_own_variables)
    resumed = [way(unbroken, tmp_path, make_optimizer) for way in ways]
    for model in resumed:
        assert_same(state(unbroken), state(model))
    for model in (unbroken, *resumed):
        for batch in data().skip(3).take(3):
            model.train_on_batch(*batch)
    for model in resumed:
        assert_same(state(unbroken), state(model))
    clone = keras.models.clone_model(unbroken)
    config = unbroken.optimizer.get_config()
    clone.compile(type(unbroken.optimizer).from_config(config), "mse")
    clone.train_on_batch(*next(iter(data())))
    assert int(clone.optimizer.iterations) == 1 // (
        clone.optimizer.gradient_accumulation_steps or 1
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", some(["GClip with schedules", "ACClip"], ["ACClip"]))
def test_backup_and_restore_resumes_bit_for_bit(name, tmp_path):
    """`fit` broken off in its second epoch and run again ends where an unbroken one does."""

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    unbroken = paths.make_model(MAKERS[name]())
    unbroken.fit(data(), epochs=4, verbose=0)
    for stop in ([Stop()], []):
        broken = paths.make_model(MAKERS[name]())
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        try:
            broken.fit(data(), epochs=4, verbose=0, callbacks=[backup, *stop])
        except KeyboardInterrupt:
            assert stop
    assert_same(state(unbroken), state(broken))
