"""Checkpoints that can't be read or written, named with the way out."""

from __future__ import annotations

import contextlib
import errno
import os

import tensorflow as tf


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read, or cannot be written.

    Example:

    >>> import os, tempfile
    >>> from keras_acclip.garden import CheckpointError, last_checkpoint
    >>> folder = tempfile.mkdtemp()
    >>> with open(os.path.join(folder, "checkpoint"), "w") as file:
    ...     _ = file.write("half a line")
    >>> try:
    ...     last_checkpoint(folder)
    ... except CheckpointError as error:
    ...     print("cannot be read" in str(error))
    True
    """


def last_checkpoint(model_dir: str | os.PathLike[str]) -> str | None:
    """Returns the prefix of the newest checkpoint, after having read it through.

    Args:
        model_dir: The model directory.

    Returns:
        The prefix, or `None` if there is no checkpoint.

    Raises:
        CheckpointError: If a checkpoint is named, and cannot be read.

    Example:

    >>> import tempfile
    >>> import tensorflow as tf
    >>> from keras_acclip.garden import last_checkpoint
    >>> folder = tempfile.mkdtemp()
    >>> checkpoint = tf.train.Checkpoint(x=tf.Variable(1.0))
    >>> saved = tf.train.CheckpointManager(checkpoint, folder, max_to_keep=1).save()
    >>> last_checkpoint(folder) == saved
    True
    """
    state_file = os.path.join(model_dir, "checkpoint")
    if not tf.io.gfile.exists(state_file):
        return None
    state = tf.train.get_checkpoint_state(model_dir)
    if state is None:
        raise CheckpointError(
            f"{state_file}, which names the newest checkpoint, cannot be read. "
            + _way_out(model_dir, None)
        )
    newest = state.model_checkpoint_path
    problem = unreadable(newest)
    if problem:
        raise CheckpointError(
            f"The checkpoint {newest} cannot be read: {problem} " + _way_out(model_dir, newest)
        )
    return newest


def remove_halves(model_dir: str | os.PathLike[str]) -> None:
    """Removes what a killed or failed run has left of a checkpoint that it was writing."""
    for path in tf.io.gfile.glob(os.path.join(model_dir, "ckpt-*_temp")):
        with contextlib.suppress(tf.errors.NotFoundError):
            tf.io.gfile.rmtree(path)


def is_full_disk(error: Exception) -> bool:
    """Whether a file could not be written for want of room on the disk."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return any(os.strerror(number) in str(error) for number in (errno.ENOSPC, errno.EDQUOT))


def full_disk(model_dir: str | os.PathLike[str], error: Exception) -> CheckpointError:
    """The error that says what to do about a full disk, after removing halves of checkpoints."""
    remove_halves(model_dir)
    newest = last_checkpoint(model_dir)
    rest = (
        f"The last good checkpoint is {newest}. Make room and start again: training goes on from it"
        if newest
        else "There is no checkpoint yet. Make room and start again"
    )
    return CheckpointError(f"The disk of {model_dir} is full: {_first_line(error)}. {rest}")


def unreadable(prefix: str) -> str | None:
    """Reads a checkpoint through. Returns why it cannot be read, or `None`."""
    try:
        reader = tf.train.load_checkpoint(prefix)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
        return _first_line(error)
    return None


def _way_out(model_dir: str | os.PathLike[str], newest: str | None) -> str:
    indices = tf.io.gfile.glob(os.path.join(model_dir, "ckpt-*.index"))
    prefixes = {path.removesuffix(".index") for path in indices} - {newest}
    by_step = sorted(prefixes, key=lambda prefix: int(prefix.rpartition("-")[2]), reverse=True)
    for prefix in by_step:
        if not unreadable(prefix):
            name = os.path.basename(prefix)
            return (
                f"The last good checkpoint is {prefix}. To go on from it, put one line into "
                f'{os.path.join(model_dir, "checkpoint")}: model_checkpoint_path: "{name}"'
            )
    return "There is no other checkpoint that can be read. To start over, take another directory."


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
