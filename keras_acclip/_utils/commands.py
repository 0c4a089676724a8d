"""Command lines: a mistake is one line on stderr and exit status 2."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` whose errors are one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        """Ends the command with exit status 2.

        Args:
            message: What is wrong.
        """
        self.exit(2, f"error: {message}\n")


def quiet_tensorflow() -> None:
    """Keeps TensorFlow's own log off stderr, unless the user has set how much of it there is.

    To be called before TensorFlow is imported. What fails is raised as an exception besides.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def positive(text: str) -> int:
    """A whole number above 0, as the `type` of an option."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def to_path(text: str) -> Path:
    """A path, as the `type` of an option; an empty one would be the folder that one is in."""
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty path")
    return Path(text)
