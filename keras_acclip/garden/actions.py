"""What the trainer does between its loops: measuring the gradient noise, and noting the metrics."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import orbit
import tensorflow as tf
import tf_keras
from official.core import base_task, base_trainer

from keras_acclip._utils import arguments, compat
from keras_acclip._utils.typing import Array, Gradient
from keras_acclip.garden.errors import ExperimentError
from keras_acclip.garden.handed_over import Recorder
from keras_acclip.garden.precision import metrics_in_full_precision
from keras_acclip.noise.data import Batches, preserved_random_state
from keras_acclip.noise.measure import NoiseMeter
from keras_acclip.noise.online import OnlineNoise
from keras_acclip.noise.recorder import NoiseRecorder
from keras_acclip.noise.sample import NoiseSample


class _Periodic:
    """An Orbit action that does something every `interval` steps, and keeps samples.

    Args:
        trainer: The trainer.
        interval: Training steps between two times.
        recorder: Keeps the samples.
    """

    def __init__(
        self, trainer: base_trainer.Trainer, interval: int, recorder: NoiseRecorder
    ) -> None:
        self._interval = arguments.positive_integer("interval", interval)
        self._recorder = recorder
        self._global_step = trainer.global_step
        self._last_step = 0

    @property
    def samples(self) -> list[NoiseSample]:
        """The samples in the order taken."""
        return self._recorder.samples

    def begin(self) -> None:
        """Looks where training starts or goes on, once the checkpoint is restored."""
        self._last_step = self._step()

    def __call__(self, output: Mapping[str, Any]) -> None:
        """Takes a sample if another `interval` steps are done.

        Args:
            output: What the training loop has given.
        """
        last, self._last_step = self._last_step, self._step()
        if self._last_step // self._interval > last // self._interval:
            self._take(output)

    def close(self) -> None:
        """Closes the summaries' file, once training is over."""
        self._recorder.close()

    def _step(self) -> int:
        return int(self._global_step.numpy())

    def _take(self, output: Mapping[str, Any]) -> None:
        raise NotImplementedError


class NoiseAction(_Periodic):
    """An Orbit action that measures the noise of the gradient that a task trains with.

    The gradient is the one that the task's `train_step` hands to its optimizer, at fixed weights,
    with dropout. Batches are the first ones of the task's training data, read anew; every
    measurement has the same. Training goes on as if nothing had been measured, bit for bit.

    It writes `noise/noise-<step>.npz`, a `keras_acclip.noise.NoiseSample`, and TensorBoard
    summaries beside it, into the model directory.

    Args:
        trainer: The trainer.
        interval: Training steps between measurements. They are taken after the trainer's loops,
            so it should be a multiple of `trainer.steps_per_loop`.
        model_dir: The model directory.
        num_batches: Most batches a measurement. Defaults to 256.

    Raises:
        NotImplementedError: If the trainer runs on a TPU or on several workers.
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    Example:

    >>> from official.core import train_lib
    >>> runner = train_lib.OrbitExperimentRunner(
    ...     strategy, task, "train", params, model_dir, trainer=trainer,
    ...     train_actions=[NoiseAction(trainer, 1000, model_dir)])
    """

    def __init__(
        self,
        trainer: base_trainer.Trainer,
        interval: int,
        model_dir: str,
        num_batches: int = 256,
    ) -> None:
        _check_strategy(trainer.strategy)
        self._folder = os.path.join(model_dir, "noise")
        recorder = NoiseRecorder(
            num_batches=num_batches, log_dir=model_dir, save_dir=self._folder, verbose=2
        )
        super().__init__(trainer, interval, recorder)
        # Metrics of its own, so that those of the training go on undisturbed.
        with trainer.strategy.scope(), metrics_in_full_precision():
            metrics = trainer.task.build_metrics(training=True)
        replicas = trainer.strategy.num_replicas_in_sync
        self._meter = NoiseMeter(
            trainer.model,
            gradient=functools.partial(
                _gradient, trainer.task, trainer.model, trainer.optimizer, metrics, replicas
            ),
            step=self._step,
        )
        config = trainer.config.task.train_data

        def read() -> Iterator[Any]:
            with preserved_random_state():
                dataset: Any = trainer.task.build_inputs(config)
            return map(keras.utils.unpack_x_y_sample_weight, dataset)

        self._batches = Batches(read, None, repeatable=True)

    def begin(self) -> None:
        """Looks where training starts or goes on; an interrupted run's samples come first."""
        super().begin()
        earlier = tf.io.gfile.glob(os.path.join(self._folder, "noise-*.npz"))
        samples = [NoiseSample.load(path) for path in sorted(earlier)]
        self._recorder.restore([s for s in samples if s.step <= self._last_step])

    def _take(self, output: Mapping[str, Any]) -> None:
        self._recorder.measure(self._meter, self._batches)


class FollowAction(_Periodic):
    """An Orbit action that follows the gradients that several workers train with.

    No batch is evaluated twice: the optimizer, one of this package or any in its `Clip`, keeps a
    sketch of each step's gradient, summed over all workers. A sample is of the last steps since the
    training was started.

    The first worker writes what `NoiseAction` writes.

    Args:
        trainer: The trainer.
        interval: Training steps between samples; a multiple of `trainer.steps_per_loop`.
        model_dir: The model directory.
        num_batches: Most steps in a sample. Defaults to 256.

    Raises:
        ExperimentError: If the optimizer keeps no gradients.
        NotImplementedError: If the trainer runs on a TPU.
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    Example:

    >>> from official.core import train_lib
    >>> runner = train_lib.OrbitExperimentRunner(
    ...     strategy, task, "train", params, model_dir, trainer=trainer,
    ...     train_actions=[FollowAction(trainer, 1000, model_dir)])
    """

    def __init__(
        self,
        trainer: base_trainer.Trainer,
        interval: int,
        model_dir: str,
        num_batches: int = 256,
    ) -> None:
        if isinstance(trainer.strategy, tf.distribute.TPUStrategy):
            raise NotImplementedError(_NOT_ON_TPUS)
        writes = trainer.strategy.extended.should_checkpoint
        folder = os.path.join(model_dir, "noise")
        places = {"log_dir": model_dir, "save_dir": folder} if writes else {}
        recorder = NoiseRecorder(num_batches=num_batches, verbose=2 if writes else 0, **places)
        super().__init__(trainer, interval, recorder)
        self._online = OnlineNoise(
            num_batches=num_batches,
            groups=None,
            seed=0,
            batch_size=trainer.config.task.train_data.global_batch_size,
        )
        self._trained = _Trained(trainer)

    def begin(self) -> None:
        """Lets the optimizer keep its gradients, before the first step is traced."""
        super().begin()
        try:
            self._online.begin(self._trained)
        except ValueError as error:
            raise ExperimentError(
                "--noise_interval on several workers follows the gradients that this package's "
                "optimizers get: set trainer.optimizer_config.optimizer.type to one of them, or to "
                "clip, around the one that there is"
            ) from error

    def _take(self, output: Mapping[str, Any]) -> None:
        loss = float(orbit.utils.get_value(output["training_loss"]))
        sample = self._online.sample(self._trained, loss)
        if sample is not None:
            self._recorder.keep(sample)


class _Trained:
    """A trainer's model and optimizer, as `OnlineNoise` takes a compiled model."""

    def __init__(self, trainer: base_trainer.Trainer) -> None:
        self.name = trainer.model.name
        self.optimizer: Any = trainer.optimizer
        self.trainable_variables = trainer.model.trainable_variables

    def make_train_function(self, force: bool) -> None:
        """Nothing: no step is traced yet."""


class MetricsAction:
    """An Orbit action that keeps the newest metrics in a JSON file.

    The file holds an object with `step` and, under `kind`, the metrics.

    Args:
        path: The file.
        kind: `"training"` or `"validation"`.
        step: The global step.

    Example:

    >>> import json, os, tempfile
    >>> import tensorflow as tf
    >>> from keras_acclip.garden import MetricsAction
    >>> path = os.path.join(tempfile.mkdtemp(), "metrics.json")
    >>> MetricsAction(path, "validation", tf.Variable(100))({"loss": tf.constant(2.5)})
    >>> json.load(open(path))
    {'validation': {'step': 100, 'loss': 2.5}}
    """

    def __init__(self, path: str, kind: str, step: tf.Variable) -> None:
        self._path = path
        self._kind = kind
        self._step = step

    def __call__(self, output: Mapping[str, Any]) -> None:
        """Writes the metrics.

        Args:
            output: A nested dict of scalars.
        """
        content = {}
        if tf.io.gfile.exists(self._path):
            with tf.io.gfile.GFile(self._path) as file:
                content = json.load(file)
        content[self._kind] = {"step": int(self._step.numpy())} | _floats(output)
        # On a TPU the folder is in Google's cloud storage, which ordinary files cannot reach.
        partial = f"{self._path}.partial"
        with tf.io.gfile.GFile(partial, "w") as file:
            file.write(json.dumps(content, indent=2) + "\n")
        tf.io.gfile.rename(partial, self._path, overwrite=True)


def _floats(output: Mapping[str, Any]) -> dict[str, Any]:
    output = tf.nest.map_structure(orbit.utils.get_value, output)
    return {
        name: _floats(value) if isinstance(value, dict) else float(value)
        for name, value in output.items()
        if isinstance(value, dict) or tf.rank(value) == 0
    }


_NOT_ON_TPUS = (
    "Gradient noise is not measured on a TPU. Train without it, and measure from a checkpoint."
)


def _check_strategy(strategy: tf.distribute.Strategy) -> None:
    if isinstance(strategy, tf.distribute.TPUStrategy):
        raise NotImplementedError(_NOT_ON_TPUS)
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        raise NotImplementedError(
            "Gradient noise is measured by one machine; several workers follow it: `FollowAction`."
        )


def _gradient(
    task: base_task.Task,
    model: tf_keras.Model,
    optimizer: Any,
    metrics: Sequence[tf_keras.metrics.Metric],
    replicas: int,
    batch: tuple[Any, Any, Any],
    seed: Array,
) -> tuple[Array, list[Gradient | None]]:
    """A replica's part of the loss, and the gradient that the task hands to its optimizer."""
    x, y, _ = batch
    recorder: Any = Recorder(optimizer)
    with compat.seeded_layers(model, seed):
        logs = task.train_step(
            x if y is None else (x, y), model=model, optimizer=recorder, metrics=metrics
        )
    handed = {variable.ref(): gradient for gradient, variable in recorder.pairs}
    gradients = [handed.get(variable.ref()) for variable in model.trainable_variables]
    return tf.cast(logs[task.loss], tf.float32) / replicas, gradients
