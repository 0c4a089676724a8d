"""The data that an experiment's files name, looked for before TensorFlow loads."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

_PATHS = ("input_path", "vocab_file", "vocab_file_path")


def missing(config_files: Sequence[str], mode: str, overrides: str = "") -> str | None:
    """Says what is wrong with the data of one of this package's BERT experiments, or `None`.

    What can't be told from the files alone is left to the checks of the whole experiment: what
    `overrides` name, and what lies on another machine.

    Args:
        config_files: Paths of YAML files; of several, later ones override.
        mode: What is to be done.
        overrides: `--params_override`.

    Example:

    >>> missing([], "train")
    'task.train_data.input_path is not set. The data.yaml of a folder made by ...'
    """
    if any("://" in name for name in config_files) or _may_name_data(overrides):
        return None
    contents = [yaml.safe_load(Path(name).read_text("utf-8")) for name in config_files]
    for part, word in (("train_data", "train"), ("validation_data", "eval")):
        if word not in mode:
            continue
        values = {name: _last(contents, "task", part, name) for name in (*_PATHS, "tfds_name")}
        if not (values["input_path"] or values["tfds_name"]):
            return not_set(f"task.{part}")
        for name in _PATHS:
            for pattern in _patterns(values[name]):
                if not glob.glob(pattern, recursive=True):
                    return f"task.{part}.{name}={pattern}: no such file"
    return None


def not_set(place: str) -> str:
    """Says that no data are named, and what names them.

    Args:
        place: The section that lacks them, such as `task.train_data`.
    """
    return (
        f"{place}.input_path is not set. The data.yaml of a folder made by "
        "keras_acclip.garden.data sets it: name it as the last --config_file"
    )


def _may_name_data(overrides: str) -> bool:
    known = "=" in overrides or not overrides
    return not known or any(name in overrides for name in (*_PATHS, "tfds_name", "_data="))


def _last(contents: Sequence[Any], *names: str) -> Any:
    """The value that the last of several nested dicts has under `names`, or `None`."""
    found = None
    for content in contents:
        for name in names:
            content = content.get(name) if isinstance(content, dict) else None
        found = content if content is not None else found
    return found


def _patterns(value: Any) -> list[str]:
    """The local paths and patterns that a value holds; of what has another form, none."""
    words = value.split(",") if isinstance(value, str) else value
    if not isinstance(words, list) or value == "dummy":
        return []
    paths = [word.strip() for word in words if isinstance(word, str)]
    return [path for path in paths if path and "://" not in path]
