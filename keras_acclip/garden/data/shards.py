"""Folders of TFRecord shards that are made in parallel, and gone on with where they were left.

A shard has its final name only when it is whole and on the disk. A folder belongs to the settings
that it was begun with, and to one process at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from keras_acclip._utils.files import replacing, write_atomically
from keras_acclip._utils.processes import KilledError, run
from keras_acclip.text.vocabulary import VocabularyError

_Task = TypeVar("_Task")


class DataError(ValueError):
    """Data that can't be made; the message names the file and the place.

    Example:

    >>> from keras_acclip.garden.data import DataError, read_squad
    >>> try:
    ...     read_squad("missing.json")
    ... except DataError as error:
    ...     print(error)
    missing.json: can't be read: No such file or directory
    """


class Faults(list[Exception]):
    """What is wrong with input files."""

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Notes that a file can't be used, as a context, instead of ending the reading of all."""
        try:
            yield
        except (DataError, VocabularyError) as error:
            if str(error) not in map(str, self):
                self.append(error)


@contextlib.contextmanager
def together(what: str = "input files can't be used") -> Iterator[Faults]:
    """Lets several input files be read before any of their faults is raised, as a context.

    Args:
        what: What to say of several.

    Raises:
        DataError: If several can't be used; the message names them all. Of one, its own error.
    """
    faults = Faults()
    yield faults
    if len(faults) > 1:
        listed = "".join(f"\n  {fault}" for fault in faults)
        raise DataError(f"{len(faults)} {what}:{listed}")
    if faults:
        raise faults[0]


@contextlib.contextmanager
def claimed(folder: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Holds `folder` for this process, to make the data of `settings` in it, as a context.

    Notes the settings in a new folder's `settings.json` and removes the halves of files that a
    killed process left.

    Args:
        folder: Path; made where it is missing.
        settings: All that the data depend on, as JSON takes it.

    Raises:
        DataError: If the folder can't be written, another process holds it, or it holds data of
            other or unknown settings.
    """
    if set(str(folder)) & set(",*?[]"):
        raise DataError(f"{folder}: the Model Garden would read , * ? [ ] in a path as a pattern")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"{folder}: another process is making data here") from None
        _check_settings(folder, json.loads(json.dumps(settings)))
        with writing(folder):
            for partial in folder.glob("*.partial"):
                partial.unlink()
        write_file(folder / "settings.json", json.dumps(settings, indent=1) + "\n")
        yield


def _check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    path = folder / "settings.json"
    if not path.exists():
        if any(folder.glob("*.tfrecord")):
            raise DataError(f"{folder}: holds TFRecords, but no settings.json says of what")
        return
    try:
        kept = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: can't be read: {error}") from error
    if not isinstance(kept, dict):
        raise DataError(f"{path}: can't be read: it holds no settings")
    names = dict.fromkeys((*kept, *settings))
    changes = [
        f"{name}: {kept.get(name)} → {settings.get(name)}"
        for name in names
        if kept.get(name) != settings.get(name)
    ]
    if changes:
        raise DataError(f"{folder}: holds data made with other settings ({'; '.join(changes)})")


def write_file(path: Path, text: str) -> None:
    """Writes a text file, whole or not at all; raises `DataError` if it can't be written."""
    with writing(path):
        write_atomically(path, text.encode())


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns the errors of the file system into a `DataError` that names `path`."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{error.filename or path}: can't be written: {error.strerror}") from error


def paths(folder: Path, part: str, count: int) -> list[Path]:
    """The names of `count` shards: `folder/part-00000-of-00008.tfrecord` and so on."""
    return [folder / f"{part}-{i:05d}-of-{count:05d}.tfrecord" for i in range(count)]


def pattern(folder: Path, part: str, count: int) -> str:
    """What `input_path` takes to name the shards of `paths`."""
    return str(folder.resolve() / f"{part}-*-of-{count:05d}.tfrecord")


def count_records(path: Path) -> int | None:
    """Number of records in a TFRecord file, read through; None if it is missing or damaged."""
    import tensorflow as tf

    try:
        return sum(1 for _ in tf.data.TFRecordDataset(str(path)))
    except (tf.errors.NotFoundError, tf.errors.DataLossError):
        return None


def make_missing(
    make: Callable[[str, _Task], None], tasks: Mapping[Path, _Task], processes: int, title: str
) -> int:
    """Makes the shards that are not there yet.

    Args:
        make: Module-level function `make(path, task)` that writes a TFRecord file. It runs in
            other processes if there are several.
        tasks: Dict from a shard's path to its task.
        processes: Number of processes.
        title: What the progress bar is called.

    Returns:
        Total number of records.

    Raises:
        DataError: If a shard can't be written, or holds no record.
    """
    from tqdm import tqdm

    counts = {path: count_records(path) for path in tasks}
    missing = [path for path, count in counts.items() if not count]
    bar = tqdm(
        total=len(tasks),
        initial=len(tasks) - len(missing),
        desc=title,
        unit="shard",
        mininterval=0.1 if sys.stderr.isatty() else 10.0,
    )
    with bar:
        made = functools.partial(_make_shard, make)
        try:
            for path in run(made, [(path, tasks[path]) for path in missing], processes):
                counts[path] = count_records(path)
                if not counts[path]:
                    raise DataError(f"{path}: no example came out of the text")
                bar.update()
        except KilledError:
            raise DataError(
                "a process was killed while it made a shard; fewer --processes take less memory"
            ) from None
    return sum(count or 0 for count in counts.values())


def _make_shard(make: Callable[[str, _Task], None], path_and_task: tuple[Path, _Task]) -> Path:
    import tensorflow as tf

    path, task = path_and_task
    try:
        with writing(path), replacing(path) as partial:
            make(str(partial), task)
    except tf.errors.OpError as error:
        raise DataError(f"{path}: can't be written: {error.message}") from None
    return path
