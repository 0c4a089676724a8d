"""Files that are there whole or not at all, whenever the process dies or the disk fills up."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A new file for `path`: a context whose value is the name to write under in the meantime.

    On leaving, the file is flushed to the disk and takes the place of `path`; if an exception
    leaves, it is removed and `path` stays as it was. What a killed process leaves behind is named
    `PATH.<process id>.partial`.

    Args:
        path: The file to make; its folder is made where it is missing.

    Example:
        >>> with replacing("data.tfrecord") as partial, tf.io.TFRecordWriter(str(partial)) as file:
        ...     file.write(record)
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_atomically(path: str | Path, content: bytes | Callable[[BinaryIO], Any]) -> None:
    """Writes bytes, or what `content(file)` writes, so that `path` never holds half of it."""
    with replacing(path) as partial, partial.open("wb") as file:
        file.write(content) if isinstance(content, bytes) else content(file)
