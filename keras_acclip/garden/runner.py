"""Runs an experiment of the Model Garden, or goes on with one that was stopped."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Sequence
from typing import Any

import orbit
import tensorflow as tf
import tf_keras
from official.common import registry_imports  # noqa: F401  (registers tasks)
from official.core import config_definitions, task_factory, train_lib, train_utils
from official.modeling import performance
from official.nlp.tasks.question_answering import QuestionAnsweringConfig

from keras_acclip._utils import arguments, compat
from keras_acclip.garden import (
    checkpoints,
    checks,
    data_checks,
    experiments,  # noqa: F401  (registers them)
    model_dirs,
)
from keras_acclip.garden.actions import FollowAction, MetricsAction, NoiseAction
from keras_acclip.garden.errors import ExperimentError
from keras_acclip.garden.trainer import Trainer, is_one_device


def run(
    params: config_definitions.ExperimentConfig,
    mode: str,
    model_dir: str,
    *,
    seed: int = 0,
    noise_interval: int | None = None,
    noise_batches: int = 256,
    enable_async_checkpointing: bool = False,
    fresh: bool = False,
    allow_changed: Sequence[str] = (),
) -> tf_keras.Model:
    """Runs an experiment, or goes on with it where `model_dir` holds a checkpoint.

    Args:
        params: The experiment's parameters; not changed.
        mode: `"train"`, `"eval"`, `"train_and_eval"`, `"continuous_eval"` or
            `"train_and_post_eval"`.
        model_dir: Folder for checkpoints, summaries, `params.yaml` and `metrics.json`.
        seed: Seed of initial weights and dropout, and of the data's order where the experiment
            names none. Defaults to 0.
        noise_interval: `None`, or the steps between measurements of the gradient noise; several
            workers follow it by their optimizer's own record.
        noise_batches: Most batches a measurement. Defaults to 256.
        enable_async_checkpointing: Whether training goes on while a checkpoint is written. Not on
            one device, as such checkpoints cannot hold the position in the data, and not on
            several workers, as saving may synchronize variables, in which all take part.
        fresh: Whether an earlier run's files in `model_dir` are removed. Defaults to `False`.
        allow_changed: Names of parameters, or of sections of them, that may differ from those that
            the checkpoints in `model_dir` were trained with.

    Returns:
        The trained model.

    Raises:
        CheckpointError: If the newest checkpoint cannot be read, or the disk is full.
        ExperimentError: If `model_dir` holds another experiment's checkpoints, devices, data or
            the checkpoint to start from are missing, or the data aren't what the model takes.
        ValueError: If an argument or a parameter is out of range, or `mode` lets several workers
            score answers to questions.

    Example:

    >>> params = exp_factory.get_exp_config("acclip/bert_pretraining")
    >>> model = run(params, "train_and_eval", "runs/acclip", noise_interval=1000)
    """
    if "train" in mode:
        checks.check_intervals(params.trainer)
    if noise_interval is not None:
        noise_interval = arguments.positive_integer("noise_interval", noise_interval)
        if noise_interval % params.trainer.steps_per_loop:
            raise ValueError(
                "Argument `noise_interval` must be a multiple of trainer.steps_per_loop, "
                f"{params.trainer.steps_per_loop}. Received: noise_interval={noise_interval}"
            )
    if fresh and "train" not in mode:
        raise ExperimentError(f"--fresh starts a training anew, and --mode={mode} trains nothing")
    if fresh:
        if params.runtime.distribution_strategy in ("multi_worker_mirrored", "parameter_server"):
            raise ExperimentError(
                f"--fresh is for one machine: remove {model_dir}, which the workers share, by hand"
            )
        checks.check_outside(params.task, model_dir)
    newest = None if fresh else checkpoints.last_checkpoint(model_dir)
    runtime = checks.available(params.runtime)
    checks.check_schedule(params.trainer)
    tf_keras.utils.set_random_seed(seed)
    if params.task.train_data.seed is None:
        params = params.replace(task={"train_data": {"seed": seed}})
    params = params.replace(runtime=runtime)
    if not fresh:
        model_dirs.check(params.as_dict(), model_dir, mode, allow_changed)
    if newest is None:
        checks.check_initial(params.task)
        if mode == "eval" and not getattr(params.task, "init_checkpoint", None):
            raise ExperimentError(f"--model_dir={model_dir} holds no checkpoint to evaluate")
    elif "train" in mode and _step(newest) >= params.trainer.train_steps:
        print(
            f"{model_dir} is trained to the end: {_step(newest):,} steps, and trainer.train_steps "
            f"is {params.trainer.train_steps:,}. Raise it to go on, or start anew with --fresh."
        )
    try:
        if params.runtime.mixed_precision_dtype:
            performance.set_mixed_precision_policy(params.runtime.mixed_precision_dtype)
        strategy = checks.strategy(params.runtime)
        data_checks.check_data(params.task, mode)
        check_evaluation(params.task, mode, strategy)
        if "train" in mode:
            checks.check_optimizer(params.trainer)
            checks.check_accumulation(params, strategy)
        trainer = _make_trainer(params, mode, model_dir, strategy, seed)
        several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        noise = None
        if noise_interval and "train" in mode:
            action = FollowAction if several else NoiseAction
            noise = action(trainer, noise_interval, model_dir, noise_batches)
        # From here on the folder is changed: all that can be wrong has been looked at.
        if fresh:
            model_dirs.clear(model_dir, model_dirs.summaries(params.trainer))
        if "train" in mode:
            checkpoints.remove_halves(model_dir)
            if strategy.extended.should_checkpoint:
                train_utils.serialize_config(params, model_dir)
                model_dirs.keep_data(params.as_dict(), model_dir)
        exporter = train_utils.maybe_create_best_ckpt_exporter(params, model_dir)
        compat.set_checkpoint_exporter(trainer, exporter)
        asynchronous = enable_async_checkpointing and not several and not is_one_device(strategy)
        return _conduct(params, mode, model_dir, strategy, trainer, noise, asynchronous)
    except (tf.errors.OpError, OSError) as error:
        if not checkpoints.is_full_disk(error):
            raise
        raise checkpoints.full_disk(model_dir, error) from error


def _step(checkpoint: str) -> int:
    """The step that a checkpoint was saved at."""
    number = checkpoint.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


def check_evaluation(
    task: config_definitions.TaskConfig, mode: str, strategy: tf.distribute.Strategy
) -> None:
    """Raises a `ValueError` if several workers would each score a part of the answers."""
    several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    if several and "eval" in mode and isinstance(task, QuestionAnsweringConfig):
        raise ValueError(
            "Answers to questions are scored by one process, and each worker has a part of them. "
            "Train the workers with --mode=train, then run --mode=eval on one machine with the "
            f"same model_dir. Received: mode={mode!r}"
        )


def _make_trainer(
    params: config_definitions.ExperimentConfig,
    mode: str,
    model_dir: str,
    strategy: tf.distribute.Strategy,
    seed: int,
) -> Trainer:
    trainer_cls: Any = functools.partial(Trainer, seed=seed)
    with strategy.scope():
        trainer: Any = train_utils.create_trainer(
            params,
            task_factory.get_task(params.task, logging_dir=model_dir),
            train="train" in mode,
            evaluate="eval" in mode,
            trainer_cls=trainer_cls,
        )
    return trainer


def _conduct(
    params: config_definitions.ExperimentConfig,
    mode: str,
    model_dir: str,
    strategy: tf.distribute.Strategy,
    trainer: Trainer,
    noise: NoiseAction | FollowAction | None,
    enable_async_checkpointing: bool,
) -> tf_keras.Model:
    """Trains and evaluates as `mode` says, with the actions between the loops."""
    # Every worker saves, as variables may synchronize on it, but only the first one's count.
    is_chief = strategy.extended.should_checkpoint
    actions: dict[str, list[Any]] = {"training": [noise] if noise else [], "validation": []}
    if is_chief:
        path = os.path.join(model_dir, "metrics.json")
        for kind, of_kind in actions.items():
            of_kind.append(MetricsAction(path, kind, trainer.global_step))
    runner = _Runner(
        distribution_strategy=strategy,
        task=trainer.task,
        mode=mode,
        params=params,
        model_dir=model_dir,
        save_summary=is_chief,
        train_actions=actions["training"],
        eval_actions=actions["validation"],
        trainer=trainer,
        controller_cls=orbit.Controller if is_chief else _QuietController,
        enable_async_checkpointing=enable_async_checkpointing,
    )
    if noise:
        noise.begin()
    manager = runner.checkpoint_manager
    try:
        model, _ = runner.run()
        return model
    finally:
        if noise:
            noise.close()
        if manager:
            manager.sync()  # A checkpoint may still be on its way to the disk.
            if not is_chief:
                shutil.rmtree(manager.directory)


class _QuietController(orbit.Controller):
    """Of a worker whose checkpoints are for a moment only: it does not speak of them."""

    def _maybe_save_checkpoint(self, check_interval: bool = True) -> bool:
        manager = self.checkpoint_manager
        if not manager or not manager.checkpoint_interval:
            return False
        step = self.global_step.numpy()
        return bool(manager.save(checkpoint_number=step, check_interval=check_interval))


class _Runner(train_lib.OrbitExperimentRunner):
    """The Model Garden's runner, whose workers all go on from the shared checkpoint."""

    def _maybe_build_checkpoint_manager(self) -> tf.train.CheckpointManager | None:
        manager = super()._maybe_build_checkpoint_manager()
        if manager and not self.strategy.extended.should_checkpoint:
            # The Model Garden's would look into the worker's own folder, which is new.
            compat.set_latest_checkpoint(manager, tf.train.latest_checkpoint(self.model_dir))
        return manager
