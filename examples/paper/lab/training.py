"""Training with Keras that goes on where it was: schedule, progress, stages, noise on the way."""

import itertools
import time

import keras

from keras_acclip.noise import GradientNoise


@keras.saving.register_keras_serializable(package="keras_acclip_examples")
class WarmupLinearDecay(keras.optimizers.schedules.LearningRateSchedule):
    """BERT's schedule: linearly up to `peak` in `warmup` steps, then linearly down to 0."""

    def __init__(self, peak, warmup, steps):
        self.peak, self.warmup, self.steps = peak, warmup, steps

    def __call__(self, step):
        """The learning rate of step number `step`, from 0."""
        step = keras.ops.cast(step, "float32") + 1.0
        up = step / max(self.warmup, 1)
        down = (self.steps + 1 - step) / (self.steps + 1 - self.warmup)
        return self.peak * keras.ops.maximum(keras.ops.minimum(up, down), 0.0)

    def get_config(self):
        """The arguments, as Keras wants them."""
        return {"peak": self.peak, "warmup": self.warmup, "steps": self.steps}


class Progress(keras.callbacks.Callback):
    """Keeps a row for each epoch of `fit`, with the weights and the optimizer's slots after it.

    Args:
        work: A `resuming.Work`.
        name: The run's name in it.
        steps_per_epoch: Number of steps.
        per_step: How many of `unit` a step takes.
        unit: What the speed counts. Defaults to "tokens".
        label: What to call the run in a line after each epoch; none is printed without.
    """

    def __init__(self, work, name, steps_per_epoch, per_step, unit="tokens", label=None):
        super().__init__()
        self.work, self.name, self.label = work, name, label
        self.steps_per_epoch, self.per_step, self.unit = steps_per_epoch, per_step, unit

    def restore(self, model):
        """Gives the model and its optimizer the state after the last epoch. Returns its number."""
        rows = self.work.rows(self.name)
        if rows:
            model.optimizer.build(model.trainable_variables)
            model.load_weights(self.work.state(self.name))
        return len(rows)

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the clock."""
        self.started = time.perf_counter()

    def on_test_begin(self, logs=None):
        """Ends the training part of the epoch's time."""
        self.trained = time.perf_counter()

    def on_test_end(self, logs=None):
        """Ends the epoch's time, before another callback takes some."""
        self.ended = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """Writes state and row."""
        speed = self.steps_per_epoch * self.per_step / (self.trained - self.started)
        row = (
            {"step": (epoch + 1) * self.steps_per_epoch}
            | {name: float(value) for name, value in logs.items()}
            | {f"{self.unit}_per_second": speed, "seconds": self.ended - self.started}
        )
        self.work.add(self.name, row, self.model.save_weights)
        if self.label:
            loss = row["val_loss"]
            print(f"{self.label}, step {row['step']:,}: validation loss {loss:.4f}", flush=True)


class StagedNoise(GradientNoise):
    """Measures the gradient noise after some epochs, wherever a run was taken up again.

    Args:
        dataset: The batches to measure on, as `GradientNoise` takes it, like all options.
        epochs: Numbers of the epochs, from 1, after which to measure.
        **options: `GradientNoise`'s.
    """

    def __init__(self, dataset, *, epochs, **options):
        super().__init__(dataset, **options)
        self.epochs = epochs

    def on_epoch_end(self, epoch, logs=None):
        """Measures after the epochs asked for."""
        if epoch + 1 in self.epochs:
            super().on_epoch_end(epoch, logs)


def fit_in_stages(model, stages, batches, measure, work, name, verbose=0):
    """Trains a model and measures it at each of `stages`, from the start or where it was.

    Args:
        model: A compiled model as it was made; its optimizer must be built.
        stages: Numbers of steps, ascending.
        batches: Function from the numbers of the first and the last step to the batches between.
        measure: Function from the number of steps taken to a dict of JSON values.
        work: A `resuming.Work`, with a row for each stage that is done. A row holds `step`, the
            mean training `loss` since the stage before, if there was a step, and what was measured.
        name: The run's name in it.
        verbose: As in `model.fit`.

    Returns:
        The rows, as a list.
    """
    done = len(work.rows(name))
    if 0 < done < len(stages):
        model.load_weights(work.state(name))
    for first, last in list(itertools.pairwise([0, *stages]))[done:]:
        row = {"step": last}
        if last > first:
            fitted = model.fit(batches(first, last), shuffle=False, verbose=verbose)
            row["loss"] = float(fitted.history["loss"][0])
        work.add(name, measure(last) | row, model.save_weights)
    return work.finish(name)
