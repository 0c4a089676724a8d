"""What the trainer does between its loops: measuring the gradient noise, and noting the metrics."""

import json
import os
import types

import keras
import orbit
import tensorflow as tf
import tf_keras

from keras_acclip._utils import arguments
from keras_acclip.noise.batches import Batches, preserved_random_state
from keras_acclip.noise.callback import NoiseCallback
from keras_acclip.noise.losses import seeded_layers
from keras_acclip.noise.on_tensorflow import LegacyEngine
from keras_acclip.noise.sample import NoiseSample
from keras_acclip.noise.sampling import NoiseMeter

__all__ = ["MetricsAction", "NoiseAction"]


class NoiseAction(NoiseCallback):
    """An Orbit action that measures the noise of the gradient that a task trains with.

    The gradient is the one that the task's `train_step` hands to its optimizer, at fixed weights,
    with dropout. Batches are the first ones of the task's training data, read anew; every
    measurement has the same. Training goes on as if nothing had been measured, bit for bit.

    It writes `noise/noise-<step>.npz`, a `keras_acclip.noise.NoiseSample`, and TensorBoard
    summaries beside it, into the model directory.

    Args:
        trainer: A `base_trainer.Trainer` of the Model Garden that trains.
        interval: Training steps between measurements. They are taken after the trainer's loops,
            so it should be a multiple of `trainer.steps_per_loop`.
        model_dir: The model directory.
        num_batches: Most batches a measurement. Defaults to 256.

    Raises:
        NotImplementedError: If the trainer runs on a TPU or on several workers.
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    Example:

    >>> runner = train_lib.OrbitExperimentRunner(..., trainer=trainer,
    ...     train_actions=[NoiseAction(trainer, 1000, model_dir)])
    """

    def __init__(self, trainer, interval, model_dir, num_batches=256):
        interval = arguments.positive_integer("interval", interval)
        _check_strategy(trainer.strategy)
        super().__init__(
            num_batches=num_batches,
            every=interval,
            log_dir=model_dir,
            save_dir=os.path.join(model_dir, "noise"),
            verbose=2,
        )
        self._step = trainer.global_step
        self._last_step = None
        self.model = _TaskModel(trainer)
        self._meter = NoiseMeter(self.model, method=self.method, seed=self.seed)
        self._meter._make_engine = _TaskEngine
        config = trainer.config.task.train_data

        def read():
            with preserved_random_state():
                dataset = trainer.task.build_inputs(config)
            return map(keras.utils.unpack_x_y_sample_weight, dataset)

        self._batches = Batches(read, None, repeatable=True)

    def begin(self):
        """Looks where training starts or goes on, once the checkpoint is restored."""
        self._last_step = int(self._step.numpy())
        earlier = tf.io.gfile.glob(os.path.join(self.save_dir, "noise-*.npz"))
        samples = [NoiseSample.load(path) for path in sorted(earlier)]
        self.samples = [sample for sample in samples if sample.step <= self._last_step]

    def __call__(self, output):
        """Measures if another `interval` steps are done.

        Args:
            output: What the training loop has given; not used.
        """
        last, self._last_step = self._last_step, int(self._step.numpy())
        if self._last_step // self.every > last // self.every:
            self._measure()


class MetricsAction:
    """An Orbit action that keeps the newest metrics in a JSON file.

    The file holds an object with `step` and, under `kind`, the metrics.

    Args:
        path: The file.
        kind: `"training"` or `"validation"`.
        step: The global step, a `tf.Variable`.
    """

    def __init__(self, path, kind, step):
        self._path = path
        self._kind = kind
        self._step = step

    def __call__(self, output):
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


def _floats(output):
    output = tf.nest.map_structure(orbit.utils.get_value, output)
    return {
        name: _floats(value) if isinstance(value, dict) else float(value)
        for name, value in output.items()
        if isinstance(value, dict) or tf.rank(value) == 0
    }


def _check_strategy(strategy):
    several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    if several or isinstance(strategy, tf.distribute.TPUStrategy):
        raise NotImplementedError(
            "Gradient noise is measured on one machine's CPU or GPUs, not by several workers or on "
            "a TPU. Train without it, and measure from a checkpoint."
        )


class _TaskModel(tf_keras.Model):
    """A task's model as the noise meter wants it, which reads the training step off `optimizer`."""

    def __init__(self, trainer):
        super().__init__(name=trainer.model.name)
        self.inner = trainer.model
        self.task = trainer.task
        self.optimizer = types.SimpleNamespace(iterations=trainer.global_step)
        # Metrics of its own, so that those of the training go on undisturbed.
        with trainer.strategy.scope():
            self.task_metrics = trainer.task.build_metrics(training=True)
        self.built = True

    def call(self, inputs, training=None):
        """Returns what the task's model gives for `inputs`."""
        return self.inner(inputs, training=training)


class _TaskEngine(LegacyEngine):
    """An engine whose gradient is the one that a task's training step hands to its optimizer."""

    def _gradient(self, seeds, scale, batch):
        x, y, _ = batch
        model = self._loss.model
        optimizer = _Recorder()
        with seeded_layers(model, seeds[0]):
            logs = model.task.train_step(
                x if y is None else (x, y),
                model=model.inner,
                optimizer=optimizer,
                metrics=model.task_metrics,
            )
        gradients = [
            tf.zeros(v.shape) if g is None else tf.cast(tf.convert_to_tensor(g), tf.float32)
            for g, v in ((optimizer.gradients.get(v.ref()), v) for v in self._loss.variables)
        ]
        loss = tf.cast(logs[model.task.loss], tf.float32) / self._replicas
        return loss, [scale * gradient for gradient in gradients], [seeds[0] + [1, 0]]


class _Recorder:
    """Takes gradients in an optimizer's place."""

    def apply_gradients(self, grads_and_vars, **_):
        """Keeps the gradients, by variable."""
        self.gradients = {v.ref(): g for g, v in grads_and_vars}
