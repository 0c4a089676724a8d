"""What an optimizer's record says of a stretch of training, for either Keras's callback."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

from keras_acclip._utils import arguments
from keras_acclip.noise.groups import Groups, Patterns, checked_groups, divide

LOGS = (
    "gradient_norm",
    "gradient_norm_max",
    "clip_rate",
    "clip_threshold",
    "skipped_steps",
)


class _Reading(NamedTuple):
    counts: np.ndarray
    sums: np.ndarray
    squares: np.ndarray


class ClippingLog:
    """Reads an optimizer's record as training goes on.

    Args:
        every: As in `GradientMonitor`, like all other arguments.
        groups: Break-down of the norms.
        log_dir: Folder for TensorBoard.
        to_numpy: Function from a variable to its array.

    Attributes:
        records: Dicts of `step` and the numbers, one an interval, in the order taken.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        every: int | Literal["epoch"],
        groups: Groups | None,
        log_dir: str | os.PathLike[str] | None,
        to_numpy: Callable[[Any], np.ndarray],
    ) -> None:
        self._every_epoch = every == "epoch"
        self._every = 1 if self._every_epoch else arguments.positive_integer("every", every)
        self._groups: Patterns = checked_groups(groups)
        self._log_dir = log_dir
        self._to_numpy = to_numpy
        self._writer: Any = None
        self._optimizer: Any = None
        self._steps = self._steps_before_epoch = 0
        self.records: list[dict[str, float]] = []

    def begin(self, optimizer: Any) -> None:
        """Looks where training starts or goes on.

        Args:
            optimizer: The model's.

        Raises:
            ValueError: If neither it nor one inside it keeps a record.
        """
        self._optimizer = _recording(optimizer)
        self._steps = self._steps_before_epoch = 0
        self._epoch = self._interval = self._read()
        self._epoch_largest = 0.0

    def is_due_after_batch(self, batch: int) -> bool:
        """Counts a step; returns whether another `every` steps are done.

        Args:
            batch: The batch's number in its epoch, from 0.
        """
        due = self._steps // self._every + 1
        self._steps = self._steps_before_epoch + batch + 1
        return not self._every_epoch and self._steps >= due * self._every

    def end_interval(self) -> None:
        """Keeps the numbers since the last interval, and writes them for TensorBoard."""
        reading = self._read()
        largest = float(reading.sums[4])
        self._epoch_largest = max(self._epoch_largest, largest)
        numbers = self._numbers(self._interval, reading, largest)
        self._interval = reading
        self._forget_largest(reading)
        step = int(reading.counts[0])
        self.records.append({"step": step, **numbers})
        if self._log_dir is not None:
            self._write(step, numbers)

    def end_epoch(self) -> dict[str, float]:
        """The numbers of the epoch, by the names of `LOGS`, and one a group."""
        if self._every_epoch:
            self.end_interval()
        reading = self._read()
        largest = max(self._epoch_largest, float(reading.sums[4]))
        numbers = self._numbers(self._epoch, reading, largest)
        self._steps_before_epoch = self._steps
        self._epoch, self._epoch_largest = reading, 0.0
        return numbers

    def end(self) -> None:
        """Lets go of the optimizer, and closes TensorBoard's file."""
        self._optimizer = None
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _read(self) -> _Reading:
        kept = self._optimizer.clipping_variables[:3]
        if kept[2] is None:
            return _Reading(np.zeros(4), np.zeros(5), np.zeros(1))
        return _Reading(*(np.asarray(self._to_numpy(variable)) for variable in kept))

    def _forget_largest(self, reading: _Reading) -> None:
        sums = self._optimizer.clipping_variables.sums
        if sums is not None:
            sums.assign(np.append(reading.sums[:4], 0).astype("float32"))

    def _numbers(self, before: _Reading, now: _Reading, largest: float) -> dict[str, float]:
        counts = now.counts.astype("int64") - before.counts.astype("int64")
        steps = int(counts[1])
        if steps == 0:
            nan = float("nan")
            return dict(zip(LOGS, (nan, nan, nan, nan, float(counts[3])), strict=True))
        total, shares = (float(now.sums[i]) - float(before.sums[i]) for i in (0, 3))
        values = (total / steps, largest, shares / steps, float(now.sums[2]), float(counts[3]))
        return dict(zip(LOGS, values, strict=True)) | self._by_group(before, now, steps)

    def _by_group(self, before: _Reading, now: _Reading, steps: int) -> dict[str, float]:
        if self._groups is None:
            return {}
        squares = np.maximum(now.squares.astype("float64") - before.squares, 0.0)
        names, places = divide(self._optimizer.clipped_paths, self._groups)
        return {
            f"gradient_norm/{name}": float(np.sqrt(squares[own].sum() / steps))
            for name, own in zip(names, places, strict=True)
        }

    def _write(self, step: int, numbers: dict[str, float]) -> None:
        import tensorflow as tf

        if self._writer is None:
            folder = os.path.join(os.fspath(self._log_dir or "."), "gradient")
            self._writer = tf.summary.create_file_writer(folder)
        with self._writer.as_default(step=step):
            for name, value in numbers.items():
                tf.summary.scalar(name, value)
        self._writer.flush()


def _recording(optimizer: Any) -> Any:
    """The optimizer itself, or the one in it, that keeps a record."""
    inner = optimizer
    while inner is not None and not hasattr(inner, "clipping_variables"):
        inner = getattr(inner, "inner_optimizer", None)
    if inner is None:
        raise ValueError(
            "GradientMonitor reads the record that keras_acclip's optimizers keep, and that "
            f"{type(optimizer).__name__} does not keep. Put it in Clip; with "
            "Clip(optimizer, threshold=1e30) nothing is clipped."
        )
    return inner
