"""What the clipping did, in the logs of `fit`, for Keras 2."""

from __future__ import annotations

import os
from typing import Any, Literal

import tf_keras

from keras_acclip.noise.clipping_log import ClippingLog
from keras_acclip.noise.groups import Groups


class GradientMonitor(tf_keras.callbacks.Callback):
    """Puts the gradient's norm, and what was clipped of it, into the logs of `fit`.

    It reads the record that this package's optimizers keep, `optimizer.clipping`, and asks nothing
    of the model or the data. To watch any other optimizer without clipping, put it in
    `keras_acclip.tf_keras.Clip(optimizer, threshold=1e30)`. The logs of every epoch gain:

    - `gradient_norm`: mean norm of all gradients together before clipping, over the epoch;
    - `gradient_norm_max`: the largest;
    - `clip_rate`: the share that was clipped, of the steps, or of the variables' norms or the
      coordinates where these are clipped;
    - `clip_threshold`: the threshold at the end of the epoch; of `ACClip`, the mean;
    - `skipped_steps`: how many steps were left out as not finite, in the epoch;
    - `gradient_norm/GROUP` where `groups` are given: the root mean square of each group's norm.

    Models of Keras 3 take `keras_acclip.GradientMonitor`.

    Args:
        log_dir: Folder for TensorBoard, where the numbers go as scalars under `gradient/`. Default:
            none.
        every: `"epoch"`, or a number of steps after which the numbers since the last ones are kept
            in `records` and go to `log_dir`. Defaults to `"epoch"`.
        groups: Break-down of the norm: `"layer"`, or regular expressions on variable names, as a
            list or a dict by name. Defaults to none.

    Attributes:
        records: Dicts of `step` and the numbers since the one before, in the order taken.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range; in `fit`, if the optimizer keeps no record.

    Example:

    >>> model.compile(keras_acclip.tf_keras.ACClip(1e-3), loss="mse")
    >>> model.fit(x, y, callbacks=[keras_acclip.tf_keras.GradientMonitor()])
    """

    # Without it, Keras 2 waits for the logs of every batch.
    _supports_tf_logs = True

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = None,
        every: int | Literal["epoch"] = "epoch",
        groups: Groups | None = None,
    ) -> None:
        super().__init__()
        self._log = ClippingLog(every, groups, log_dir, lambda variable: variable.numpy())

    @property
    def records(self) -> list[dict[str, float]]:
        """The numbers of each interval."""
        return self._log.records

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Looks where training starts or goes on."""
        model: Any = self.model
        self._log.begin(model.optimizer)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Takes the numbers if another `every` steps are done."""
        if self._log.is_due_after_batch(batch):
            self._log.end_interval()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the epoch's numbers to `logs`."""
        numbers = self._log.end_epoch()
        if logs is not None:
            logs.update(numbers)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Closes TensorBoard's file."""
        self._log.end()
