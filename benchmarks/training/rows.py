"""The results file: one training a line, appended whole or not at all."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class RowsError(ValueError):
    """A results file that can't be used; the message names file and line."""


def read(path: str | Path, identify: Callable[[Row], object] | None = None) -> list[Row]:
    """The rows of a results file, in order; none where there is no file.

    A last line without its end, which a machine that lost power may leave, is left out.

    Args:
        path: The file.
        identify: What tells its rows apart, which fails on what is no row; `None` for trainings'.

    Raises:
        RowsError: If a line is no row.
    """
    path, identify = Path(path), identify or identity
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(keepends=True), 1):
        if not line.endswith("\n"):
            break
        try:
            row = json.loads(line)
            identify(row)
        except (ValueError, KeyError, TypeError) as error:
            raise RowsError(f"{path}, line {number}: not a row: {error!r}") from error
        found.append(row)
    return found


def check_text(found: list[Row], workload: str, text: str) -> None:
    """Raises a `RowsError` where the rows of a workload are of another text.

    Args:
        found: Rows.
        workload: Its name.
        text: What is to be trained on, as rows have it under `"text"`.
    """
    for row in found:
        if row["workload"] == workload and row.get("text") != text:
            raise RowsError(
                f"{workload}: the rows are of another text, {row.get('text')}; this machine's is "
                f"{text}. --tokens takes a text from elsewhere, --rows another file"
            )


def append(path: str | Path, row: Row) -> None:
    """Adds a row and flushes it to the disk; several processes may do so at once.

    Args:
        path: The results file; made where it is missing.
        row: JSON values; no NaN, no infinity.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    line = (json.dumps(row, allow_nan=False) + "\n").encode()
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(_whole_lines(file))
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def _whole_lines(file) -> int:
    """The length of a file up to the end of its last whole line."""
    file.seek(0)
    return file.read().rfind(b"\n") + 1


def identity(row: Row) -> tuple[str, str, str, int, int]:
    """What makes a training the same one: workload, contestant, hyperparameters, seed, steps."""
    settings = json.dumps(row["hyperparameters"], sort_keys=True)
    return row["workload"], row["contestant"], settings, row["seed"], row["steps"]
