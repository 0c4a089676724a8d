"""Gradient accumulation: the mean gradient of several micro-batches for one step of the optimizer.

Importing this module gives the Model Garden's `TrainerConfig` the field
`gradient_accumulation_steps`, which this package's `Trainer` follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_keras
from official.core import base_task, config_definitions

from keras_acclip._utils import arguments, compat
from keras_acclip.garden.handed_over import Recorder

FIELD = "gradient_accumulation_steps"

compat.add_fields(config_definitions.TrainerConfig, {FIELD: (int, lambda: 1)})


def micro_batches(
    config: config_definitions.ExperimentConfig, replicas: int
) -> tuple[int, config_definitions.ExperimentConfig]:
    """Returns the micro-batches of a step, and the experiment whose training batch is one of them.

    Args:
        config: The experiment's parameters.
        replicas: How many replicas divide a batch.

    Raises:
        TypeError: If `trainer.gradient_accumulation_steps` is no whole number.
        ValueError: If it is below 1, or does not divide `task.train_data.global_batch_size` into
            micro-batches of as many examples on each replica.
    """
    steps = arguments.positive_integer(f"trainer.{FIELD}", getattr(config.trainer, FIELD))
    if steps == 1:
        return steps, config
    size = config.task.train_data.global_batch_size
    if size % (steps * replicas):
        each = f", each of them on {replicas} replicas" if replicas > 1 else ""
        raise ValueError(
            f"task.train_data.global_batch_size={size} can't be divided into "
            f"trainer.{FIELD}={steps} micro-batches{each}: the first must be a multiple of "
            f"{steps * replicas}"
        )
    smaller = config.replace(task={"train_data": {"global_batch_size": size // steps}})
    smaller.lock()
    return steps, smaller


class Accumulator:
    """Sums the gradients that a task hands to its optimizer, and hands on their mean.

    Each replica has a sum of its own: gradients are reduced over the replicas once a step, by the
    optimizer. A sum is as large as its variable, and dense.

    Args:
        task: The task.
        model: The task's model.
        optimizer: What takes the mean.
        steps: Micro-batches a step.

    Example:

    >>> accumulator = Accumulator(task, model, optimizer, steps=4)
    >>> for inputs in four_micro_batches:
    ...     logs = accumulator.add(inputs, metrics)
    >>> accumulator.apply()
    """

    def __init__(
        self, task: base_task.Task, model: tf_keras.Model, optimizer: Any, steps: int
    ) -> None:
        self._task, self._model, self._optimizer = task, model, optimizer
        self._steps = steps
        self._variables = list(model.trainable_variables)
        self._sums = [_sum_of(variable) for variable in self._variables]
        self._trained: list[int] = []
        self._arguments: Mapping[str, Any] = {}

    def add(self, inputs: Any, metrics: Sequence[tf_keras.metrics.Metric]) -> Mapping[str, Any]:
        """Adds the gradient of a replica's part of a micro-batch; returns the task's logs.

        Args:
            inputs: What the task's `train_step` takes.
            metrics: What it updates.

        Raises:
            ValueError: If the task trains a variable that is not one of the model's.
        """
        recorder: Any = Recorder(self._optimizer)
        logs = self._task.train_step(inputs, model=self._model, optimizer=recorder, metrics=metrics)
        places = {variable.ref(): i for i, variable in enumerate(self._variables)}
        pairs: list[Any] = [pair for pair in recorder.pairs if pair[0] is not None]
        strangers = [variable.name for _, variable in pairs if variable.ref() not in places]
        if strangers or not pairs:
            raise ValueError(
                f"trainer.{FIELD} needs a task whose train_step hands the gradient of the model's "
                f"trainable variables to optimizer.apply_gradients. Received: {strangers}"
            )
        for gradient, variable in pairs:
            place = places[variable.ref()]
            dense = tf.convert_to_tensor(gradient)
            self._sums[place].assign_add(tf.cast(dense, self._sums[place].dtype))
        self._trained = sorted(places[variable.ref()] for _, variable in pairs)
        self._arguments = recorder.further_arguments
        return logs

    def apply(self) -> None:
        """Hands the mean gradient to the optimizer, and starts anew."""
        pairs = []
        for place in self._trained:
            variable, total = self._variables[place], self._sums[place]
            pairs.append((tf.cast(total.read_value() / self._steps, variable.dtype), variable))
        self._optimizer.apply_gradients(pairs, **self._arguments)
        for place in self._trained:
            self._sums[place].assign(tf.zeros_like(self._sums[place].read_value()))


def _sum_of(variable: Any) -> tf.Variable:
    """A zero of a variable's shape on each replica, float32 where the variable is narrower."""
    dtype = tf.float64 if variable.dtype == tf.float64 else tf.float32
    return tf.Variable(
        tf.zeros(variable.shape, dtype),
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )
