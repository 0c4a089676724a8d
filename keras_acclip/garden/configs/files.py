"""Finds the YAML files of this package by their bare names."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parents[1] / "yaml"


def shipped() -> list[str]:
    """Returns the bare names of the YAML files in this package, sorted.

    Example:

    >>> from keras_acclip.garden import configs
    >>> configs.shipped()[:3]
    ['acclip', 'adamw', 'bert_base_12l']
    """
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def describe(name: str) -> str:
    """Returns what a YAML file of this package says of itself in its first line.

    Args:
        name: Its bare name.
    """
    first = (_FOLDER / f"{name}.yaml").read_text("utf-8").splitlines()[0]
    return first.removeprefix("#").strip()


def find(config_file: str) -> str:
    """Returns the path of a YAML file: `config_file` itself, or the package's of that bare name.

    Args:
        config_file: A path, or a name such as `"bert_tiny"` or `"bert_tiny.yaml"`. A file of that
            name in the current directory comes first.

    Raises:
        FileNotFoundError: If it is a bare name, and there is no such file anywhere.

    Example:

    >>> import os
    >>> from keras_acclip.garden import configs
    >>> os.path.basename(configs.find("bert_tiny"))
    'bert_tiny.yaml'
    """
    path = Path(config_file)
    if path.is_file() or len(path.parts) > 1 or "://" in config_file:
        return config_file
    packaged = _FOLDER / f"{config_file.removesuffix('.yaml')}.yaml"
    if packaged.exists():
        return str(packaged)
    raise FileNotFoundError(
        f"There is no file {config_file!r} here, and none of that name in keras_acclip.garden. "
        f"There are: {', '.join(shipped())}"
    )
