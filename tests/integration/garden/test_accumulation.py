"""`trainer.gradient_accumulation_steps` against the large batch, to float32 rounding."""

import contextlib
import dataclasses

import numpy as np
import orbit
import pytest
import tensorflow as tf
import tf_keras
from official.core import base_task, config_definitions, exp_factory, task_factory, train_utils
from official.modeling import optimization, performance

from keras_acclip.garden import Trainer, runner
from tests import paths, reference
from tests.integration.garden.runs import overrides, parse, write_records
from tests.tiers import some

FEATURES, BATCH, STEPS = 6, 12, 5
OPTIMIZERS = {
    "acclip": {"weight_decay_rate": 0.1},
    "gclip": {"threshold": 0.1, "momentum": 0.9},
    # Each replica's gradient is clipped, which is not the same for other parts of a batch.
    "adamw": {"weight_decay_rate": 0.1, "gradient_clip_norm": 0.0},
}


@dataclasses.dataclass
class RegressionConfig(config_definitions.TaskConfig):
    """Config of a regression with an embedding."""

    dropout: float = 0.0
    loss_factor: float = 1.0


@task_factory.register_task_cls(RegressionConfig)
class RegressionTask(base_task.Task):
    """The Model Garden's own train_step on a small model with sparse gradients."""

    def build_model(self):
        number, words = tf_keras.Input((FEATURES,)), tf_keras.Input((3,), dtype=tf.int32)
        word = tf_keras.layers.GlobalAveragePooling1D()(tf_keras.layers.Embedding(7, 4)(words))
        x = tf_keras.layers.Dense(8, "tanh")(tf_keras.layers.Concatenate()([number, word]))
        x = tf_keras.layers.Dropout(self.task_config.dropout)(x)
        out = tf_keras.layers.Dense(1, dtype="float32")(x)
        model = tf_keras.Model([number, words], out)
        model.unused = tf_keras.layers.Dense(1)
        model.unused.build((1, 2))
        return model

    def build_inputs(self, params, input_context=None):
        context = input_context or tf.distribute.InputContext()
        rng = np.random.default_rng(0)
        x = np.float32(rng.normal(size=(60, FEATURES)))
        words = np.int32(rng.integers(0, 7, (60, 3)))
        y = np.float32(rng.normal(size=(60, 1)))
        data = tf.data.Dataset.from_tensor_slices(((x, words), y)).repeat()
        size = context.get_per_replica_batch_size(params.global_batch_size)
        return data.batch(size, drop_remainder=True)

    def build_metrics(self, training=True):
        return [tf_keras.metrics.MeanAbsoluteError(name="distance")]

    def build_losses(self, labels, model_outputs, aux_losses=None):
        return self.task_config.loss_factor * tf.reduce_mean((model_outputs - labels) ** 2)


def parameters(type="acclip", accumulated=1, batch=BATCH, dropout=0.0, **runtime):
    learning_rate = {"initial_learning_rate": 0.1, "decay_steps": 20}
    trainer = config_definitions.TrainerConfig(
        train_steps=STEPS,
        steps_per_loop=STEPS,
        checkpoint_interval=STEPS,
        summary_interval=STEPS,
        optimizer_config=optimization.OptimizationConfig(
            {
                "optimizer": {"type": type, type: OPTIMIZERS.get(type, {})},
                "learning_rate": {"type": "polynomial", "polynomial": learning_rate},
            }
        ),
    )
    trainer.override({"gradient_accumulation_steps": accumulated})
    data = config_definitions.DataConfig(is_training=True, global_batch_size=batch, seed=0)
    return config_definitions.ExperimentConfig(
        task=RegressionConfig(train_data=data, dropout=dropout),
        trainer=trainer,
        runtime=config_definitions.RuntimeConfig(**runtime),
    )


def make_trainer(params, strategy=None):
    tf_keras.utils.set_random_seed(0)
    with (strategy or tf.distribute.OneDeviceStrategy("CPU:0")).scope():
        task = task_factory.get_task(params.task)
        return train_utils.create_trainer(
            params, task, train=True, evaluate=False, trainer_cls=Trainer
        )


def trained(params, strategy=None, steps=STEPS):
    """The weights and the numbers after training."""
    trainer = make_trainer(params, strategy)
    logs = trainer.train(tf.constant(steps))
    assert trainer.global_step.numpy() == trainer.optimizer.iterations.numpy() == steps
    return trainer.model.get_weights(), {
        k: float(orbit.utils.get_value(v)) for k, v in logs.items()
    }


def assert_same(accumulated, large, tolerance=1e-5):
    assert reference.relative_error(accumulated[0], large[0]) <= tolerance
    assert accumulated[1] == pytest.approx(large[1], rel=tolerance)
    assert {"training_loss", "distance", "learning_rate"} <= set(large[1])


@contextlib.contextmanager
def precision(dtype):
    performance.set_mixed_precision_policy(dtype)
    try:
        yield
    finally:
        performance.set_mixed_precision_policy("float32")


@pytest.mark.parametrize("type", some(OPTIMIZERS, ["acclip"]))
@pytest.mark.parametrize("path", some(["plain", "xla"], ["xla"]))
def test_it_equals_the_large_batch(type, path):
    enable_xla = path == "xla"
    large = trained(parameters(type, enable_xla=enable_xla))
    assert_same(trained(parameters(type, 4, enable_xla=enable_xla)), large)


@pytest.mark.parametrize("type", some(OPTIMIZERS, ["acclip"]))
def test_it_equals_the_large_batch_on_two_replicas(type):
    large = trained(parameters(type))
    assert_same(trained(parameters(type, 3), paths.two_replicas()), large)


@pytest.mark.slow
def test_a_task_of_the_model_garden(tmp_path):
    """With evaluation, XLA and checkpoints; every example has as many predictions here."""
    data = {"input_path": write_records(tmp_path, files=1), "shuffle_buffer_size": 1}
    model = {"cls_heads": [{"dropout_rate": 0.0}]}
    rates = {"dropout_rate": 0.0, "attention_dropout_rate": 0.0}

    def weights(accumulated):
        changes = overrides(data, steps=10, gradient_accumulation_steps=accumulated)
        changes["task"]["model"] |= model
        changes["task"]["model"]["encoder"]["bert"] = (
            changes["task"]["model"]["encoder"]["bert"] | rates
        )
        folder = tmp_path / str(accumulated)
        return runner.run(parse(changes), "train", str(folder)).get_weights()

    assert reference.relative_error(weights(2), weights(1)) <= 5e-5


@pytest.mark.slow
def test_a_resumed_run_equals_an_unbroken_one():
    params = parameters("acclip", 4, dropout=0.5)
    weights, _ = trained(params, steps=6)
    first = make_trainer(params)
    first.train(tf.constant(2))
    path = first.checkpoint.save("ram://accumulation/ckpt")
    second = make_trainer(params)
    second.checkpoint.restore(path)
    second.train(tf.constant(4))
    np.testing.assert_equal(second.model.get_weights(), weights)


@pytest.mark.slow
def test_each_micro_batch_has_a_dropout_of_its_own():
    """With the same units dropped, the mean over copies of a batch would be that of the batch."""
    weights = []
    for copies in (2, 3):
        trainer = make_trainer(parameters("acclip", copies, dropout=0.5))
        batch = next(iter(trainer.task.build_inputs(trainer.config.task.train_data)))
        trainer.train_step(iter([tf.nest.map_structure(lambda x: x[:2], batch)] * copies))
        weights.append(trainer.model.get_weights())
    assert reference.relative_error(*weights) > 1e-3


@pytest.mark.parametrize("accumulated", some([1, 4], [4]))
@pytest.mark.parametrize("factor", [1.0, 1e-9], ids=["large loss", "small loss"])
def test_a_small_loss_is_scaled_in_float16(factor, accumulated):
    """Unscaled, the gradient of the small one would round to zero before the float32 layer."""
    params = parameters("sgd", accumulated, mixed_precision_dtype="float16", loss_scale=2.0**14)
    params.task.loss_factor = factor
    with precision("float16"):
        weights, _ = trained(params, steps=1)
    bias = weights[2]
    assert bias.shape == (8,) and (bias != 0.0).all()
    params.runtime.loss_scale = 1.0
    with precision("float16"):
        weights, _ = trained(params, steps=1)
    assert (weights[2] != 0).all() == (factor == 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("type", OPTIMIZERS)
def test_float16_trains(type):
    runtime = {"mixed_precision_dtype": "float16", "loss_scale": 128.0}
    with precision("float16"):
        large = trained(parameters(type, **runtime))
        accumulated = trained(parameters(type, 4, **runtime))
    # Each forward pass rounds to 11 bits; in float32 the same weights, but for that.
    assert_same(accumulated, large, 1e-2)
    assert_same(accumulated, trained(parameters(type)), 5e-2)


@pytest.mark.slow
def test_an_overflow_in_one_micro_batch_skips_the_step_and_halves_the_scale():
    runtime = {"mixed_precision_dtype": "float16"}
    with precision("float16"):
        trainer = make_trainer(parameters("acclip", 4, **runtime))
        before = trainer.model.get_weights()
        data = iter(trainer.task.build_inputs(trainer.config.task.train_data))
        batches = [next(data) for _ in range(8)]
        (x, words), y = batches[2]
        batches[2] = ((x, words), y * 1e9)
        scale = float(trainer.optimizer.loss_scale)
        trainer.train_step(iter(batches[:4]))
        assert float(trainer.optimizer.loss_scale) == scale / 2
        np.testing.assert_equal(trainer.model.get_weights(), before)
        trainer.train_step(iter(batches[4:]))
        assert reference.relative_error(trainer.model.get_weights(), before) > 0


@pytest.mark.slow
def test_bfloat16_trains():
    with precision("bfloat16"):
        large = trained(parameters("acclip"))
        assert_same(trained(parameters("acclip", 4)), large, 5e-2)


def test_a_batch_that_cannot_be_divided_is_named():
    with pytest.raises(ValueError, match=r"global_batch_size=12.*gradient_accumulation_steps=5"):
        make_trainer(parameters(accumulated=5))
    with pytest.raises(ValueError, match=r"gradient_accumulation_steps=4.*2 replicas.*of 8"):
        make_trainer(parameters(accumulated=4), paths.two_replicas())
    with pytest.raises(ValueError, match="gradient_accumulation_steps"):
        make_trainer(parameters(accumulated=0))


def test_stock_experiments_have_the_parameter():
    for name in ("bert/pretraining", "resnet_imagenet", "acclip/bert_squad"):
        assert exp_factory.get_exp_config(name).trainer.gradient_accumulation_steps == 1
