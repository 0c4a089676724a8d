"""Follows the gradient noise through training, from within `fit` of Keras 2 (`tf_keras`)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import tf_keras

from keras_acclip.noise.follower import NoiseFollower
from keras_acclip.noise.groups import Groups
from keras_acclip.noise.measurement import Method
from keras_acclip.noise.sample import NoiseSample

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class GradientNoise(tf_keras.callbacks.Callback):
    """Measures the gradient noise while `fit` trains, and leaves the training as it is.

    With a dataset it measures at fixed weights, evaluating further batches. Without one it follows
    the training's own gradients, and evaluates none: for that the optimizer must be one of this
    package, or in `Clip`. It keeps a sketch of each step's gradient; the norms are then those of
    the last `num_batches` steps, against the mean of the steps around each. Between these the
    weights move, which changes the norms somewhat, and more where SGD oscillates
    (`docs/results/noise_in_training.md` has how much). The noise scale is an upper bound alone.

    It adds to the logs of every epoch, NaN until first measured or where there are too few norms:
    `noise_norm` (mean of ‖g − ∇f(x)‖), `noise_std` (σ), `noise_tail_index` with the interval
    `noise_tail_index_low` to `noise_tail_index_high` (of the excesses of the far tail, as in
    `tails.Verdict`), `noise_scale` (in examples; in batches where their size is unknown),
    `noise_kurtosis`, `noise_skewness` (of the norms), `noise_mean_gradient_norm` (‖∇f(x)‖) and
    `noise_nonfinite` (batches left out). Put it before `CSVLogger` and `TensorBoard` in
    `callbacks`, so that they see them.

    Every measurement reads the same batches, if the data allows. Models of Keras 3 take
    `keras_acclip.GradientNoise`, with the same arguments, logs and attributes.

    Args:
        dataset: What to measure on, best what `fit` trains on, as in `measure_noise`: a batched
            `tf.data.Dataset`, arrays `(x, y)` or `(x, y, sample_weight)`, a `Sequence`, another
            iterable over batches. Of a generator the first `num_batches` are kept in memory; give
            it one of its own, as its batches are used up. Default: none, the training's own
            gradients.
        num_batches: Most batches a measurement. Defaults to 256.
        every: `"epoch"`, or a number of steps after which to measure. Defaults to `"epoch"`.
        at_start: Whether to measure before the first step as well, with a dataset. Defaults to
            `True`.
        method: `"sketch"` or `"exact"`, as in `measure_noise`. Defaults to `"sketch"`.
        groups: Break-down of the samples by variables, as in `measure_noise`. Defaults to none.
        log_dir: Folder for TensorBoard: scalars, a histogram of the norms and figures, under
            `noise/`. Default: none.
        save_dir: Folder for the samples, `noise-<step>.npz`, written as they are taken. Default:
            none.
        seed: Seed of the sketch's signs and of the order of arrays. Defaults to 0.
        verbose: 0 silent, 1 a progress bar, 2 one line a measurement. Defaults to 1.
        batch_size: Examples in a batch of `fit`: for arrays, 32 by default, and without a dataset
            for the noise scale, which is in batches by default.
        class_weight: `None`, or a dict from class index to weight, as given to `fit`.

    Attributes:
        samples: The `NoiseSample`s, in the order taken, over all calls of `fit`.

    Raises:
        ImportError: If SciPy is missing, or matplotlib where `log_dir` is given.
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range; at the start of training, if there is no dataset
            and the optimizer's gradients can't be followed.

    Example:

    >>> noise = GradientNoise(batch_size=32)  # or GradientNoise(dataset, every=500)
    >>> model.fit(dataset, epochs=3, callbacks=[noise])
    >>> noise.plot_evolution().savefig("noise.png")
    >>> print(noise.samples[-1].advice())

    References:
        Zhang et al., "Why are Adaptive Methods Good for Attention Models?", NeurIPS 2020,
        Figure 2 (https://arxiv.org/abs/1912.03194).
    """

    # Without it, Keras 2 waits for the logs of every batch.
    _supports_tf_logs = True

    def __init__(
        self,
        dataset: Any = None,
        num_batches: int = 256,
        every: int | Literal["epoch"] = "epoch",
        at_start: bool = True,
        method: Method = "sketch",
        groups: Groups | None = None,
        log_dir: str | os.PathLike[str] | None = None,
        save_dir: str | os.PathLike[str] | None = None,
        seed: int = 0,
        verbose: int = 1,
        *,
        batch_size: int | None = None,
        class_weight: Mapping[int, float] | None = None,
    ) -> None:
        super().__init__()
        self._follower = NoiseFollower(
            dataset,
            num_batches=num_batches,
            every=every,
            at_start=at_start,
            method=method,
            groups=groups,
            log_dir=log_dir,
            save_dir=save_dir,
            seed=seed,
            verbose=verbose,
            batch_size=batch_size,
            class_weight=class_weight,
        )

    @property
    def samples(self) -> list[NoiseSample]:
        """The samples, in the order taken."""
        return self._follower.recorder.samples

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Opens the data, and measures if `at_start`."""
        self._follower.begin(self.model, self.params)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Measures if another `every` steps are done."""
        if self._follower.is_due_after_batch(batch, lambda: self.model):
            self._follower.measure(self.model, logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measures if `every` is an epoch, and adds the newest numbers to `logs`."""
        if self._follower.is_due_after_epoch():
            self._follower.measure(self.model, logs)
        if logs is not None:
            logs.update(self._follower.recorder.numbers)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Lets go of the data and of what was compiled."""
        self._follower.end(self.model)

    def plot_evolution(self, title: str | None = None) -> Figure:
        """Draws the distribution of the norms at each stage of training (Figure 2 of the paper).

        Args:
            title: What is trained. Default: the model's name.

        Returns:
            A `matplotlib.figure.Figure`.

        Raises:
            ValueError: If nothing was measured.
        """
        return self._follower.recorder.plot_evolution(title)
