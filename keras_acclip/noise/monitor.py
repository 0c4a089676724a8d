"""What the clipping did, in the logs of `fit`, for Keras 3."""

from __future__ import annotations

import os
from typing import Any, Literal

import keras
import numpy as np

from keras_acclip.noise.clipping_log import ClippingLog
from keras_acclip.noise.groups import Groups


class GradientMonitor(keras.callbacks.Callback):
    """Puts the gradient's norm, and what was clipped of it, into the logs of `fit`.

    It reads the record that this package's optimizers keep, `optimizer.clipping`, and asks nothing
    of the model or the data. To watch any other optimizer without clipping, put it in
    `Clip(optimizer, threshold=1e30)`. The logs of every epoch gain:

    - `gradient_norm`: mean norm of all gradients together before clipping, over the epoch;
    - `gradient_norm_max`: the largest;
    - `clip_rate`: the share that was clipped, of the steps, or of the variables' norms or the
      coordinates where these are clipped;
    - `clip_threshold`: the threshold at the end of the epoch; of `ACClip`, the mean;
    - `skipped_steps`: how many steps were left out as not finite, in the epoch;
    - `gradient_norm/GROUP` where `groups` are given: the root mean square of each group's norm.

    `History` and Weights & Biases' callback find them there; `CSVLogger` and `TensorBoard` if they
    come after it in `callbacks`. All are NaN but the last where no step was observed: `ACClip` and
    `CClip` look at one step in `optimizer.record_every`.

    Models of Keras 2 take `keras_acclip.tf_keras.GradientMonitor`.

    Args:
        log_dir: Folder for TensorBoard, where the numbers go as scalars under `gradient/`. Default:
            none.
        every: `"epoch"`, or a number of steps after which the numbers since the last ones are kept
            in `records` and go to `log_dir`. Reading them waits for the step to be done, so that a
            small number costs time. Defaults to `"epoch"`.
        groups: Break-down of the norm: `"layer"`, or regular expressions on variable paths, as a
            list or a dict by name. Defaults to none.

    Attributes:
        records: Dicts of `step` and the numbers since the one before, in the order taken.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range; in `fit`, if the optimizer keeps no record.

    Example:

    >>> model.compile(keras_acclip.Clip(keras.optimizers.AdamW(3e-4)), loss="mse")
    >>> history = model.fit(x, y, callbacks=[keras_acclip.GradientMonitor(groups="layer")])
    >>> history.history["clip_rate"]
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = None,
        every: int | Literal["epoch"] = "epoch",
        groups: Groups | None = None,
    ) -> None:
        super().__init__()
        self._log = ClippingLog(every, groups, log_dir, _to_numpy)

    @property
    def records(self) -> list[dict[str, float]]:
        """The numbers of each interval."""
        return self._log.records

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Looks where training starts or goes on."""
        self._log.begin(self._model_s_optimizer())

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Takes the numbers if another `every` steps are done."""
        if self._log.is_due_after_batch(batch):
            self._model_s_optimizer()
            self._log.end_interval()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the epoch's numbers to `logs`."""
        self._model_s_optimizer()
        numbers = self._log.end_epoch()
        if logs is not None:
            logs.update(numbers)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Closes TensorBoard's file."""
        self._log.end()

    def _model_s_optimizer(self) -> Any:
        # On JAX, to ask for the model makes `fit` hand over its state.
        model: Any = self.model
        return model.optimizer


def _to_numpy(variable: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(variable))
