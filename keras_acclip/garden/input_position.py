"""The position in the training data, as part of a checkpoint."""

from __future__ import annotations

import base64
import difflib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from absl import logging


class InputPosition(tf.train.experimental.PythonState):
    """The position in the training data, as part of a checkpoint.

    Restoring a checkpoint does not move an open iterator: after a recovery from a diverged loss,
    the Model Garden's trainer must not meet the same batches again.

    Args:
        data: What the data depend on, as JSON takes it: a position is that of the same data only.

    Example:

    >>> position = InputPosition(params.task.train_data.as_dict())
    >>> checkpoint = tf.train.Checkpoint(model=model, position=position)
    >>> checkpoint.restore(path)
    >>> iterator = position.open(lambda offset: make_dataset(seed=offset), step=1000)
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = data
        self._restored = b""
        self._iterator: Iterator[Any] | None = None
        self._can_be_saved = False

    def open(self, build: Callable[[int], tf.data.Dataset], step: int) -> Iterator[Any]:
        """Returns an iterator over the training data, at the position restored if there is one.

        Args:
            build: `build(offset)` makes the dataset, in an order of its own for each `offset`.
            step: Steps taken.
        """
        saved = json.loads(self._restored) if self._restored else None
        iterator = iter(build(0))
        self._can_be_saved = _saved(iterator) is not None
        if saved and saved["data"] != self._data:
            logging.warning(
                "The training data differ from those before step %d, so they are read from their "
                "start:\n%s",
                step,
                "\n".join(_differences(saved["data"], self._data)),
            )
        elif saved and saved["iterator"]:
            _restore(iterator, saved["iterator"])
        elif step:
            logging.warning(
                "The checkpoint has no position in the training data, so they come in another "
                "order than without the restart."
            )
            iterator = iter(build(step))
        self._iterator = iterator
        return iterator

    def serialize(self) -> bytes:
        """Returns the position."""
        if self._iterator is None:
            return self._restored
        position = {
            "data": self._data,
            "iterator": _saved(self._iterator) if self._can_be_saved else None,
        }
        return json.dumps(position).encode()

    def deserialize(self, string_value: bytes) -> None:
        """Takes a position, for `open`.

        Args:
            string_value: What `serialize` returned.
        """
        self._restored = string_value


def _saved(iterator: Iterator[Any]) -> dict[str, str] | None:
    """Returns the files of an iterator's checkpoint, or `None` if tf.data can't save it."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            tf.train.Checkpoint(iterator=iterator).write(f"{folder}/iterator")
        except (tf.errors.FailedPreconditionError, tf.errors.UnimplementedError):
            return None
        return {
            path.name: base64.b64encode(path.read_bytes()).decode()
            for path in Path(folder).iterdir()
        }


def _restore(iterator: Iterator[Any], files: Mapping[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            Path(folder, name).write_bytes(base64.b64decode(content))
        tf.train.Checkpoint(iterator=iterator).read(f"{folder}/iterator")


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    before, after = (json.dumps(data, indent=1, sort_keys=True).splitlines() for data in (old, new))
    return [line for line in difflib.ndiff(before, after) if line[0] in "+-"]
