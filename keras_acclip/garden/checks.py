"""Checks an experiment's settings, devices and checkpoints before its first step."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf
from absl import logging
from official.common import distribute_utils
from official.core import config_definitions
from official.modeling import optimization

from keras_acclip.garden import accumulation, checkpoints
from keras_acclip.garden.errors import ExperimentError

_PART_OF_CHECKPOINT = re.compile(r"\.(index|meta|data-\d+-of-\d+)$")


def available(runtime: config_definitions.RuntimeConfig) -> config_definitions.RuntimeConfig:
    """The devices to run on: those asked for, or one CPU where none is, or it is allowed instead.

    Args:
        runtime: The experiment's `runtime`; `allow_cpu` may be among its parameters.

    Raises:
        ExperimentError: If it asks for GPUs that aren't there, and not for the CPU instead.
    """
    asked, found = runtime.num_gpus, len(tf.config.list_physical_devices("GPU"))
    kind = str(runtime.distribution_strategy).lower()
    # Of one CPU there is one replica, and a step on it is one XLA computation without a mirror.
    one = {"distribution_strategy": "one_device"} if kind == "mirrored" else {}
    if kind == "tpu" or asked <= found:
        return runtime if asked else runtime.replace(**one)
    what = f"runtime.num_gpus={asked} ({kind}), but this machine has {found or 'no'} GPU"
    what += "s" if found > 1 else ""
    if not getattr(runtime, "allow_cpu", False):
        raise ExperimentError(
            f"{what}. Name the file cpu, set runtime.num_gpus, or train on the CPU all the same "
            "with runtime.allow_cpu=true"
        )
    logging.warning("%s: this trains on the CPU, as runtime.allow_cpu says.", what)
    return runtime.replace(num_gpus=0, all_reduce_alg=None, **one)


def strategy(runtime: config_definitions.RuntimeConfig) -> tf.distribute.Strategy:
    """The strategy that `runtime` describes.

    Raises:
        ExperimentError: If there is no such strategy, or no TPU at the address.
    """
    if runtime.distribution_strategy == "multi_worker_mirrored":
        _check_cluster(os.environ.get("TF_CONFIG", ""))
    try:
        return distribute_utils.get_distribution_strategy(
            distribution_strategy=runtime.distribution_strategy,
            all_reduce_alg=runtime.all_reduce_alg,
            num_gpus=runtime.num_gpus,
            tpu_address=runtime.tpu,
            **runtime.model_parallelism(),
        )
    except (ValueError, RuntimeError, tf.errors.OpError, OSError) as error:
        what = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        if str(runtime.distribution_strategy).lower() == "tpu":
            raise ExperimentError(
                f"No TPU is found at --tpu={runtime.tpu or ''}: {what.rstrip('.')}. --tpu takes "
                "its name, grpc://ADDRESS:8470, or local on the TPU's own machine"
            ) from error
        raise ExperimentError(
            f"runtime.distribution_strategy={runtime.distribution_strategy!r}: {what}"
        ) from error


def _check_cluster(text: str) -> None:
    """Raises an `ExperimentError` if a `TF_CONFIG` does not say which worker this is."""
    if not text:
        return
    try:
        config = json.loads(text)
        task, workers = config["task"], config["cluster"]
        if not 0 <= task["index"] < len(workers[task["type"]]):
            raise ValueError(f"there is no {task['type']} {task['index']} in its cluster")
    except (ValueError, KeyError, TypeError) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ExperimentError(
            f"TF_CONFIG does not describe this worker: {what}. It looks like "
            '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
        ) from error


def check_optimizer(trainer: config_definitions.TrainerConfig) -> None:
    """Raises an `ExperimentError` if an optimizer can't have the values that it is given.

    It makes an optimizer, which starts TensorFlow's runtime: after that no worker can join others.

    Args:
        trainer: The experiment's trainer.
    """
    config: Any = trainer.optimizer_config
    if config.optimizer is None or config.optimizer.type is None:
        raise ExperimentError("trainer.optimizer_config.optimizer.type is not set")
    try:
        factory = optimization.OptimizerFactory(config)
        factory.build_optimizer(factory.build_learning_rate())
    except (ValueError, TypeError) as error:
        raise ExperimentError(f"trainer.optimizer_config: {error}") from error


def check_schedule(trainer: config_definitions.TrainerConfig) -> None:
    """Raises an `ExperimentError` if a rate's or a warm-up's numbers are missing or not finite.

    Args:
        trainer: The experiment's trainer; stock experiments leave some for their users to set.
    """
    missing = []
    for section in ("learning_rate", "warmup"):
        choice: Any = getattr(trainer.optimizer_config, section, None)
        kind = getattr(choice, "type", None)
        if kind is None:
            continue
        chosen = choice.get()
        for name in ("learning_rate", "initial_learning_rate", "decay_steps", "warmup_steps"):
            if getattr(chosen, name, 0) is None:
                missing.append(f"trainer.optimizer_config.{section}.{kind}.{name}")
        for name, value in _numbers(chosen.as_dict()):
            if not math.isfinite(value):
                raise ExperimentError(
                    f"trainer.optimizer_config.{section}.{kind}.{name} must be a finite "
                    f"number. Received: {value}"
                )
    if missing:
        raise ExperimentError(
            f"{' and '.join(missing)} {'are' if missing[1:] else 'is'} not set. The experiment "
            "leaves it to you: --params_override, or a --config_file"
        )


def _numbers(values: Any, at: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in nested dicts and lists, each with its name."""
    if isinstance(values, Mapping):
        for name, value in values.items():
            yield from _numbers(value, f"{at}.{name}" if at else name)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _numbers(value, at)
    elif isinstance(values, int | float):
        yield at, values


def check_intervals(trainer: config_definitions.TrainerConfig) -> None:
    """Raises an `ExperimentError` if a training can't be cut into loops.

    Args:
        trainer: The experiment's trainer: its steps and intervals must be at least 1, and its
            `summary_interval` a multiple of its `steps_per_loop`.
    """
    loop, summary = trainer.steps_per_loop, trainer.summary_interval
    for name in ("train_steps", "steps_per_loop", "checkpoint_interval", "validation_interval"):
        value = getattr(trainer, name)
        if value is not None and value < 1:
            raise ExperimentError(f"trainer.{name} must be at least 1. Received: {value}")
    if summary is not None and (summary < 1 or summary % loop):
        raise ExperimentError(
            f"trainer.summary_interval must be a multiple of trainer.steps_per_loop={loop}. "
            f"Received: {summary}"
        )


def check_initial(task: config_definitions.TaskConfig) -> None:
    """Raises an `ExperimentError` if a checkpoint to start from isn't there.

    Args:
        task: The experiment's task.
    """
    path = getattr(task, "init_checkpoint", None)
    if not path:
        return
    place = f"task.init_checkpoint={path}"
    prefix = tf.train.latest_checkpoint(path) if tf.io.gfile.isdir(path) else path
    if not prefix:
        raise ExperimentError(f"{place}: the folder holds no checkpoint")
    if not tf.io.gfile.exists(f"{prefix}.index"):
        meant = _PART_OF_CHECKPOINT.sub("", prefix)
        if meant != prefix and tf.io.gfile.exists(f"{meant}.index"):
            raise ExperimentError(f"{place}: a file of a checkpoint; the checkpoint is {meant}")
        name = os.path.basename(path)
        raise ExperimentError(
            f"{place}: there is neither such a folder nor a checkpoint {name}.index"
        )
    if fault := checkpoints.unreadable(prefix):
        raise ExperimentError(f"{place}: the checkpoint {prefix} can't be read: {fault}")


def check_outside(task: config_definitions.TaskConfig, model_dir: str) -> None:
    """Raises an `ExperimentError` if a checkpoint to start from is one that `--fresh` removes.

    Args:
        task: The experiment's task.
        model_dir: The model directory.
    """
    path = getattr(task, "init_checkpoint", None)
    inside = os.path.realpath(model_dir)
    if path and os.path.commonpath([os.path.realpath(path), inside]) == inside:
        raise ExperimentError(
            f"task.init_checkpoint={path} lies in --model_dir={model_dir}, which --fresh clears: "
            "name another model_dir"
        )


def check_accumulation(
    params: config_definitions.ExperimentConfig, strategy: tf.distribute.Strategy
) -> None:
    """Raises an `ExperimentError` if a batch can't be divided into micro-batches.

    Args:
        params: The experiment's parameters.
        strategy: What it trains with.
    """
    try:
        accumulation.micro_batches(params, strategy.num_replicas_in_sync)
    except (TypeError, ValueError) as error:
        raise ExperimentError(str(error)) from error
