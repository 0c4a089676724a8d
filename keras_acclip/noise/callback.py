"""Follows the gradient noise through training, from within `fit`."""

import io
import os
import sys

import keras

from keras_acclip._utils import arguments
from keras_acclip.noise.batches import open_batches
from keras_acclip.noise.sampling import METHODS, NoiseMeter, checked_groups

LOGS = (
    "noise_norm",
    "noise_std",
    "noise_tail_index",
    "noise_kurtosis",
    "noise_skewness",
    "noise_mean_gradient_norm",
    "noise_nonfinite",
)


class NoiseCallback:
    """What `GradientNoise` does, for the `Callback` class of Keras 3 and of Keras 2 alike."""

    def __init__(
        self,
        dataset=None,
        num_batches=256,
        every="epoch",
        at_start=True,
        method="sketch",
        groups=None,
        log_dir=None,
        save_dir=None,
        seed=0,
        verbose=1,
    ):
        super().__init__()
        # Both are needed in the end: better to miss them before hours of training than after.
        from keras_acclip.noise import tails  # noqa: F401

        if log_dir is not None:
            from keras_acclip.noise import plots  # noqa: F401
        self.dataset = dataset
        self.num_batches = arguments.positive_integer("num_batches", num_batches)
        self.every = every if every == "epoch" else arguments.positive_integer("every", every)
        self.at_start = arguments.flag("at_start", at_start)
        self.method = arguments.one_of("method", method, METHODS)
        self.groups = checked_groups(groups)
        self.log_dir = log_dir
        self.save_dir = save_dir
        self.seed = seed
        self.verbose = verbose
        self.samples = []
        self._logs = dict.fromkeys(LOGS, float("nan"))
        self._meter = None
        self._writer = None

    def on_train_begin(self, logs=None):
        """Finds the data, and measures if `at_start`."""
        fit = _fit_arguments(self.model)
        self._batches = self._open(fit).held(self.num_batches)
        self._meter = NoiseMeter(self.model, method=self.method, groups=self.groups, seed=self.seed)
        self._steps = self._steps_before_epoch = 0
        if self.at_start:
            self._measure()

    def on_train_batch_end(self, batch, logs=None):
        """Measures if another `every` steps are done."""
        if self.every == "epoch":
            return
        due = self._steps // self.every + 1
        self._steps = self._steps_before_epoch + batch + 1
        if self._steps >= due * self.every:
            self._measure()

    def on_epoch_end(self, epoch, logs=None):
        """Measures if `every` is an epoch, and adds the newest numbers to `logs`."""
        self._steps_before_epoch = self._steps
        if self.every == "epoch":
            self._measure()
        if logs is not None:
            logs.update(self._logs)

    def on_train_end(self, logs=None):
        """Lets go of the data and of what was compiled."""
        self._meter = self._batches = None
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def plot_evolution(self, title=None):
        """Draws the distribution of the norms at each stage of training (Figure 2 of the paper).

        Args:
            title: What is trained. Default: the model's name.

        Returns:
            A `matplotlib.figure.Figure`.

        Raises:
            ValueError: If nothing was measured.
        """
        from keras_acclip.noise import plots

        samples = [sample for sample in self.samples if len(sample)]
        labels = [f"step {sample.step:,}" for sample in samples]
        return plots.evolution(samples, labels, title=title or (samples and samples[0].model))

    def _open(self, fit):
        """Returns the batches to measure on: those of `dataset`, else of `fit`."""
        options = {
            "batch_size": fit.get("batch_size") or 32,
            "class_weight": fit.get("class_weight"),
            "seed": self.seed,
        }
        if self.dataset is not None:
            preprocess = getattr(self.model, "preprocess_samples", None)
            return open_batches(self.dataset, preprocess=preprocess, **options)
        x, y, sample_weight = (fit.get(name) for name in ("x", "y", "sample_weight"))
        try:
            data = x if y is None and sample_weight is None else (x, y, sample_weight)
            batches = open_batches(data, **options)
            if batches.repeatable:
                return batches
        except TypeError:
            pass
        raise ValueError(
            "GradientNoise cannot read again what `fit` trains on "
            f"({'nothing was found' if x is None else f'of type {type(x).__name__}'}). Pass it "
            "data: GradientNoise(dataset=...), a tf.data.Dataset, arrays or a PyDataset."
        )

    def _measure(self):
        model = self.model
        if self.verbose:
            print(f"\nGradient noise of {model.name}:", flush=True)
        sample = self._meter.measure(self._batches, self.num_batches, verbose=self.verbose)
        self.samples.append(sample)
        self._logs = _numbers(sample)
        if self.verbose:
            print("  " + ", ".join(f"{k} {v:.4g}" for k, v in self._logs.items()), flush=True)
        if self.save_dir is not None:
            os.makedirs(self.save_dir, exist_ok=True)
            sample.save(os.path.join(self.save_dir, f"noise-{sample.step:08d}.npz"))
        if self.log_dir is not None:
            self._write_summaries(sample)
        if sample.interrupted:
            raise KeyboardInterrupt

    def _write_summaries(self, sample):
        import tensorflow as tf

        if self._writer is None:
            self._writer = tf.summary.create_file_writer(os.path.join(self.log_dir, "noise"))
        with self._writer.as_default(step=max(sample.step, 0)):
            for name, value in self._logs.items():
                tf.summary.scalar(name, value)
            if len(sample):
                tf.summary.histogram("noise_norms", sample.norms)
                figures = {"noise": sample.plot(), "noise_evolution": self.plot_evolution()}
                for name, figure in figures.items():
                    png = io.BytesIO()
                    figure.savefig(png, format="png")
                    tf.summary.image(name, tf.image.decode_png(png.getvalue())[tf.newaxis])
        self._writer.flush()


class GradientNoise(NoiseCallback, keras.callbacks.Callback):
    """Measures the gradient noise while `fit` trains, and leaves the training as it is.

    It adds `noise_norm` (mean of ‖g − ∇f(x)‖), `noise_std` (σ), `noise_tail_index` (Hill's),
    `noise_kurtosis`, `noise_skewness` (of the norms), `noise_mean_gradient_norm` (‖∇f(x)‖) and
    `noise_nonfinite` (batches left out) to the logs of every epoch; NaN until first measured, or
    where there are too few norms. Put it before `CSVLogger` and `TensorBoard` in `callbacks`, so
    that they see them. With `KERAS_BACKEND=jax` a measurement makes `fit` hand over its state.

    Without `dataset` it measures on what `fit` was given: Keras doesn't tell a callback, so it
    looks for the arguments `x`, `y` and `sample_weight` in the frame of the `fit` that calls it.
    Arrays, a `tf.data.Dataset` and a `PyDataset` can be read again; for a generator, a distributed
    dataset or a training loop of one's own, pass `dataset`. The batch size of arrays and the class
    weights are those given to `fit`. Every measurement reads the same batches, if the data allows.

    Args:
        dataset: What to measure on, as in `measure_noise`; of a generator, the first `num_batches`
            are kept in memory. Default: what `fit` trains on.
        num_batches: Most batches a measurement. Defaults to 256.
        every: `"epoch"`, or a number of steps after which to measure. Defaults to `"epoch"`.
        at_start: Whether to measure before the first step as well. Defaults to `True`.
        method: `"sketch"` or `"exact"`, as in `measure_noise`. Defaults to `"sketch"`.
        groups: Break-down of the samples by variables, as in `measure_noise`.
        log_dir: Folder for TensorBoard: scalars, a histogram of the norms and figures, under
            `noise/`. Default: none.
        save_dir: Folder for the samples, `noise-<step>.npz`, written as they are taken. Default:
            none.
        seed: Seed of the sketch's signs and of the order of arrays. Defaults to 0.
        verbose: 0 silent, 1 a progress bar, 2 one line a measurement. Defaults to 1.

    Attributes:
        samples: The `NoiseSample`s, in the order taken, over all calls of `fit`.

    Raises:
        ImportError: If SciPy is missing, or matplotlib where `log_dir` is given.
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range; when training begins, if the data cannot be
            read again.

    Example:

    >>> noise = GradientNoise(num_batches=200, every=500)
    >>> model.fit(dataset, epochs=3, callbacks=[noise])
    >>> noise.plot_evolution().savefig("noise.png")
    >>> print(noise.samples[-1].advice())

    References:
        Zhang et al., "Why are Adaptive Methods Good for Attention Models?", NeurIPS 2020,
        Figure 2 (https://arxiv.org/abs/1912.03194).
    """


def _fit_arguments(model):
    """Returns the local variables of the nearest `fit` of `model` on the stack, or `{}`."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "fit" and frame.f_locals.get("self") is model:
            names = ("x", "y", "sample_weight", "batch_size", "class_weight")
            return {name: frame.f_locals.get(name) for name in names}
        frame = frame.f_back
    return {}


def _numbers(sample):
    """Returns the `LOGS` of a sample; NaN where it has too few norms."""
    from keras_acclip.noise import tails

    def of(statistic):
        try:
            return float(statistic())
        except ValueError:
            return float("nan")

    return dict(
        zip(
            LOGS,
            (
                sample.norm,
                sample.std,
                of(lambda: tails.hill(sample.norms).alpha),
                of(lambda: tails.kurtosis(sample.norms).value),
                of(lambda: tails.skewness(sample.norms).value),
                sample.mean_gradient_norm,
                float(sample.nonfinite),
            ),
            strict=True,
        )
    )
