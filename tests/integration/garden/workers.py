"""What `test_distribution` trains: on one device, on two replicas, and here as one of two workers.

    python -m tests.integration.garden.workers DATA CASE STEPS FOLDER

trains one case with the strategy that `TF_CONFIG` describes, and writes the weights to
`FOLDER/weights-WORKER.npz`.
"""

import dataclasses
import os
import sys

import numpy as np
import tensorflow as tf
import tf_keras
from official.core import base_task, config_definitions, task_factory
from official.modeling import optimization

from keras_acclip.garden import runner
from tests.integration.garden.runs import ENCODER, overrides, parse

OPTIMIZERS = {
    "acclip": {"weight_decay_rate": 0.1},
    "gclip": {"threshold": 0.1, "momentum": 0.9},
    "cclip": {"threshold": 0.01, "momentum": 0.9},
}
CASES = (*OPTIMIZERS, "huge gradient")
HUGE = 1e6
DROPOUT = {"dropout_rate": 0, "attention_dropout_rate": 0}
WORKERS = {"runtime": {"num_gpus": 0, "all_reduce_alg": "ring", "mixed_precision_dtype": "float32"}}


def parameters(case, data, runtime="cpu", steps=20):
    """Returns a case's parameters: no dropout, and records in the order of their file."""
    if case == "huge gradient":
        return _regression(steps)
    changes = overrides({"input_path": data, "shuffle_buffer_size": 1}, steps=steps)
    changes["task"]["model"] = {
        "encoder": {"bert": ENCODER | DROPOUT},
        "cls_heads": [{"dropout_rate": 0.0}],
    }
    changes["trainer"]["optimizer_config"]["optimizer"] = {"type": case, case: OPTIMIZERS[case]}
    if runtime == "multi_worker":
        changes |= WORKERS
    return parse(changes, files=(runtime,))


@dataclasses.dataclass
class RegressionConfig(config_definitions.TaskConfig):
    """Config of a regression whose last example of each four counts as a million."""


@task_factory.register_task_cls(RegressionConfig)
class RegressionTask(base_task.Task):
    """Batches of four examples; the last one is the second replica's, whatever the strategy."""

    def build_model(self):
        return tf_keras.Sequential(
            [tf_keras.Input((6,)), tf_keras.layers.Dense(8, "tanh"), tf_keras.layers.Dense(1)]
        )

    def build_inputs(self, params, input_context=None):
        context = input_context or tf.distribute.InputContext()
        rng = np.random.default_rng(0)
        weights = np.where(np.arange(64) % 4 == 3, HUGE, 1)
        x, y, weights = map(
            np.float32, (rng.normal(size=(64, 6)), rng.normal(size=(64, 1)), weights)
        )
        data = tf.data.Dataset.from_tensor_slices((x, {"y": y, "weights": weights}))
        data = data.shard(context.num_input_pipelines, context.input_pipeline_id).repeat()
        return data.batch(context.get_per_replica_batch_size(4), drop_remainder=True)

    def build_losses(self, labels, model_outputs, aux_losses=None):
        return tf.reduce_mean(labels["weights"] * (model_outputs - labels["y"])[:, 0] ** 2)


def _regression(steps):
    constant = {"type": "constant", "constant": {"learning_rate": 0.1}}
    trainer = {
        "train_steps": steps,
        "steps_per_loop": 5,
        "checkpoint_interval": 10,
        "optimizer_config": optimization.OptimizationConfig(
            {"optimizer": {"type": "gclip"}, "learning_rate": constant}
        ),
    }
    return config_definitions.ExperimentConfig(
        task=RegressionConfig(train_data=config_definitions.DataConfig(is_training=True)),
        trainer=config_definitions.TrainerConfig(**trainer),
    )


def run(params, folder):
    """Trains as the driver does by default; the regression has no validation data."""
    mode = "train" if isinstance(params.task, RegressionConfig) else "train_and_eval"
    follows = params.runtime.distribution_strategy == "multi_worker_mirrored"
    return runner.run(
        params,
        mode,
        str(folder),
        enable_async_checkpointing=True,
        noise_interval=10 if follows else None,
    )


def main(data, case, steps, folder):
    """Trains a case as one of two workers."""
    params = parameters(case, data, "multi_worker", int(steps))
    params = params.replace(runtime={"distribution_strategy": "multi_worker_mirrored"})
    model = run(params, folder)
    worker = tf.distribute.cluster_resolver.TFConfigClusterResolver().task_id
    np.savez(os.path.join(folder, f"weights-{worker}.npz"), *model.get_weights())


if __name__ == "__main__":
    main(*sys.argv[1:])
