"""The Model Garden's trainer, each step of which depends on checkpoint, data and seed alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
import tf_keras
from official.core import base_task, base_trainer, config_definitions

from keras_acclip._utils import compat
from keras_acclip.garden import accumulation
from keras_acclip.garden.errors import ExperimentError
from keras_acclip.garden.input_position import InputPosition
from keras_acclip.garden.precision import metrics_in_full_precision


class Trainer(base_trainer.Trainer):
    """The Model Garden's trainer, but every step depends on checkpoint, data and seed alone.

    On one device its checkpoints hold the position in the training data. Where `runtime.enable_xla`
    is set, a step is one XLA computation on a CPU too; the Model Garden's is so on a GPU alone.

    With `trainer.gradient_accumulation_steps` above 1, a step takes that many micro-batches, which
    together are the `task.train_data.global_batch_size` examples of a batch, and applies the mean
    of their gradients once. `config` is then that of the micro-batches.

    Args:
        config: The experiment's parameters.
        task: The task.
        model: The task's model.
        optimizer: What trains it.
        train: Whether it will be used for training. Defaults to `True`.
        evaluate: Whether it will be used for evaluation. Defaults to `True`.
        train_dataset: What to train on. Default: what `config.task.train_data` says.
        validation_dataset: What to validate on. Default: what `config.task.validation_data` says.
        checkpoint_exporter: Keeps the best checkpoint, as
            `train_utils.maybe_create_best_ckpt_exporter` makes it. Default: none.
        seed: Seed of dropout; a whole number. Defaults to 0.

    Raises:
        TypeError: If `trainer.gradient_accumulation_steps` is no whole number.
        ValueError: If it is below 1, or does not divide the batch.
        ExperimentError: If it is above 1, and the model makes variables in its first call.

    Example:

    >>> from official.core import train_utils
    >>> with strategy.scope():
    ...     trainer = train_utils.create_trainer(
    ...         params, task, train=True, evaluate=False, trainer_cls=Trainer
    ...     )
    >>> trainer.train(tf.constant(100))
    """

    def __init__(
        self,
        config: config_definitions.ExperimentConfig,
        task: base_task.Task,
        model: tf_keras.Model,
        optimizer: Any,
        train: bool = True,
        evaluate: bool = True,
        train_dataset: Any = None,
        validation_dataset: Any = None,
        checkpoint_exporter: Any = None,
        *,
        seed: int = 0,
    ) -> None:
        self._seed = seed
        strategy = tf.distribute.get_strategy()
        self._one_device = is_one_device(strategy)
        self._compiles_on_cpu = (
            config.runtime.enable_xla
            and config.runtime.num_gpus == 0
            and self._one_device
            # Within XLA these reduce gradients on their accelerators only.
            and not isinstance(
                strategy,
                tf.distribute.TPUStrategy
                | tf.distribute.MirroredStrategy
                | tf.distribute.MultiWorkerMirroredStrategy,
            )
        )
        _build(model)
        self._micro_batches = 1
        if train:
            replicas = strategy.num_replicas_in_sync
            self._micro_batches, config = accumulation.micro_batches(config, replicas)
        with metrics_in_full_precision():
            super().__init__(
                config,
                task,
                model,
                optimizer,
                train=train,
                evaluate=evaluate,
                train_dataset=train_dataset,
                validation_dataset=validation_dataset,
                checkpoint_exporter=checkpoint_exporter,
            )
        self._position = InputPosition(config.task.train_data.as_dict())
        if self._one_device:
            self.checkpoint.input_position = self._position
        if train:
            # Slots made in the first step would have it traced a second time. But a model that
            # makes variables in its first call has not shown them all yet.
            complete = all(layer.built for layer in compat.flat_layers(model))
            if complete:
                compat.create_slots(self.optimizer, self.model.trainable_variables)
            if self._micro_batches > 1:
                if not complete:
                    raise ExperimentError(
                        "trainer.gradient_accumulation_steps needs a model whose variables are "
                        f"there before its first call; those of {type(model).__name__} are not"
                    )
                self._accumulator = accumulation.Accumulator(
                    task, model, self.optimizer, self._micro_batches
                )
            if train_dataset is None:
                self._from_the_start = self.train_dataset
                self.train_dataset = _Inputs(self._open_inputs)

    def initialize(self) -> None:
        """Takes the weights of `task.init_checkpoint`.

        Raises:
            ExperimentError: If they are of another model.
        """
        try:
            super().initialize()
        except (ValueError, AssertionError) as error:
            path = getattr(self.config.task, "init_checkpoint", None)
            if not path:
                raise
            what = str(error).strip().splitlines()[0]
            raise ExperimentError(
                f"task.init_checkpoint={path}: a checkpoint of another model: {what}"
            ) from error

    def distribute_dataset(self, dataset_or_fn: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns a plain `tf.data.Dataset` on one device, as only its iterator can be saved.

        Args:
            dataset_or_fn: As the Model Garden's.
            *args: For `dataset_or_fn`.
            **kwargs: For `dataset_or_fn`.
        """
        if self._one_device and callable(dataset_or_fn):
            return dataset_or_fn(*args, **kwargs)
        return super().distribute_dataset(dataset_or_fn, *args, **kwargs)

    def _open_inputs(self) -> Iterator[Any]:
        """Opens the training data, at the position that the checkpoint holds."""
        step = int(self.global_step.numpy())
        if self._one_device:
            return self._position.open(self._build_inputs, step)
        if not step:
            return iter(self._from_the_start)
        return iter(self.distribute_dataset(self._build_inputs, step))

    def _build_inputs(
        self, offset: int, input_context: tf.distribute.InputContext | None = None
    ) -> Any:
        """Builds the training data in an order of their own for each `offset` to the seed."""
        data = self.config.task.train_data
        data = data.replace(seed=(data.seed or 0) + offset)
        return self.task.build_inputs(data, input_context)

    def train_step(self, iterator: Iterator[Any]) -> None:
        """Runs one step: where `runtime.enable_xla` is set, as one XLA computation, on a CPU too.

        Args:
            iterator: Iterator over the training data.
        """
        if self._micro_batches > 1:
            self._accumulate(iterator)
            return
        self._seed_random_layers()
        if not self._compiles_on_cpu:
            super().train_step(iterator)
            return
        task_train_step = tf.function(self.task.train_step, jit_compile=True)

        def step(inputs: Any) -> None:
            logs = task_train_step(
                inputs, model=self.model, optimizer=self.optimizer, metrics=self.train_metrics
            )
            self.train_loss.update_state(logs[self.task.loss])
            self.global_step.assign_add(1)

        self.strategy.run(step, args=(self.next_train_inputs(iterator),))

    def _accumulate(self, iterator: Iterator[Any]) -> None:
        """Runs one step of several micro-batches."""

        def add(inputs: Any) -> Any:
            return self._accumulator.add(inputs, self.train_metrics)

        apply = self._accumulator.apply
        on_gpus = self.config.runtime.enable_xla and self.config.runtime.num_gpus > 0
        if self._compiles_on_cpu or on_gpus:
            add, apply = (tf.function(part, jit_compile=True) for part in (add, apply))

        def micro_step(inputs: Any) -> None:
            self.train_loss.update_state(add(inputs)[self.task.loss])

        def finish() -> None:
            apply()
            self.global_step.assign_add(1)

        for part in tf.range(self._micro_batches):
            self._seed_random_layers(part)
            inputs = self.next_train_inputs(iterator)
            self.strategy.run(micro_step, args=(inputs,), options=self._runtime_options)
        self.strategy.run(finish, options=self._runtime_options)

    @tf.autograph.experimental.do_not_convert
    def _seed_random_layers(self, *parts: Any) -> None:
        """Lets the model's random layers draw by seed, step, replica and order of their calls.

        Args:
            *parts: What else they draw by: the micro-batch of a step.
        """
        draws = itertools.count()

        def draw() -> Any:
            context = tf.distribute.get_replica_context()
            replica = context.replica_id_in_sync_group if context else 0
            seed: Any = tf.constant([self._seed, 0])
            for part in (self.global_step.read_value(), *parts, replica, next(draws)):
                seed = tf.random.fold_in(seed, part)
            return seed

        compat.seed_layers(self.model, draw)


class _Inputs:
    """Training data that are opened where training starts or goes on, not before."""

    def __init__(self, open_inputs: Callable[[], Iterator[Any]]) -> None:
        self._open_inputs = open_inputs

    def __iter__(self) -> Iterator[Any]:
        return self._open_inputs()


def is_one_device(strategy: tf.distribute.Strategy) -> bool:
    """Whether a strategy trains one replica, step after step."""
    asynchronous = isinstance(strategy, tf.distribute.experimental.ParameterServerStrategy)
    return strategy.num_replicas_in_sync == 1 and not asynchronous


def _build(model: tf_keras.Model) -> None:
    """Makes the variables that a model's layers would make in their first step, where it can.

    The optimizer could not know them, and drawn on a replica's thread they would not heed the seed.
    """
    inputs = getattr(model, "inputs", None)
    if inputs and not all(layer.built for layer in compat.flat_layers(model)):
        model(inputs)
