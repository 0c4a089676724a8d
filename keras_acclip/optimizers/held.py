"""A threshold as an optimizer holds it: a number in a variable, a schedule, or a dict of these.

The functions serve Keras 2 and Keras 3 alike. A number is held in a variable, so that changing it
compiles nothing anew. The keys of a dict are regular expressions on variable paths.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from keras_acclip._utils import arguments
from keras_acclip._utils.typing import Array


def hold(value: Any, schedule: type, make_variable: Callable[[str, float], Any], dtype: str) -> Any:
    """Returns what to keep for an argument `threshold`.

    Args:
        value: The argument: a number, a schedule, or a dict from path to these.
        schedule: The `LearningRateSchedule` class.
        make_variable: Function from a name and a number to a variable that holds it.
        dtype: The variable's float type.

    Raises:
        TypeError: If a threshold is neither a number nor a schedule.
        ValueError: If a number is not above 0, or a key is no regular expression.
    """
    if not isinstance(value, dict):
        return _hold_one("threshold", value, schedule, make_variable, dtype)
    if not value:
        raise ValueError("Argument `threshold` must not be an empty dict. Received: threshold={}")
    for path in value:
        try:
            re.compile(path)
        except (re.error, TypeError) as error:
            raise ValueError(
                f"Argument `threshold` must have regular expressions as keys ({error}). "
                f"Received: {path!r}"
            ) from None
    return {
        path: _hold_one(f"threshold_{i}", number, schedule, make_variable, dtype)
        for i, (path, number) in enumerate(value.items())
    }


def _hold_one(name: str, value: Any, schedule: type, make_variable: Callable, dtype: str) -> Any:
    if isinstance(value, schedule):
        return value
    return make_variable(name, _checked(value, dtype))


def _checked(value: Any, dtype: str) -> float:
    return arguments.representable("threshold", arguments.positive("threshold", value), dtype)


def assign(held: Any, value: Any, schedule: type, dtype: str) -> None:
    """Changes what is held.

    Args:
        held: What `hold` returned.
        value: A number, or a dict from some of the paths to numbers.
        schedule: The `LearningRateSchedule` class.
        dtype: The variables' float type.

    Raises:
        TypeError: If a schedule is held.
        ValueError: If a number is not above 0, or a path is not among those held.
    """
    if not isinstance(held, dict):
        if isinstance(held, schedule):
            raise TypeError(
                "This optimizer was made with a schedule as its `threshold`, which is hence not "
                f"settable. Received: threshold={value!r}"
            )
        held.assign(_checked(value, dtype))
        return
    if not isinstance(value, dict) or not set(value) <= set(held):
        raise ValueError(
            f"Argument `threshold` must be a dict with keys among {sorted(held)}. "
            f"Received: threshold={value!r}"
        )
    for path in value:
        if isinstance(held[path], schedule):
            raise TypeError(
                f"The `threshold` of {path!r} is a schedule, which is hence not settable."
                f" Received: threshold={value!r}"
            )
    numbers = {path: _checked(number, dtype) for path, number in value.items()}
    for path, number in numbers.items():
        held[path].assign(number)


def current(held: Any, steps: Any) -> Any:
    """What is held, with each schedule's value in its place.

    Args:
        held: What `hold` returned.
        steps: The number of steps taken, which schedules are called with.
    """
    if isinstance(held, dict):
        return {path: current(value, steps) for path, value in held.items()}
    return held(steps) if callable(held) and not hasattr(held, "assign") else held


def scalars(held: Any, steps: Any) -> tuple[Array, ...]:
    """The current thresholds, in the order that `places` counts them."""
    now = current(held, steps)
    return tuple(now.values()) if isinstance(now, dict) else (now,)


def places(held: Any, paths: Sequence[str]) -> list[int]:
    """Which threshold each variable has: of a dict, the first whose key is found in its path.

    Raises:
        ValueError: If none is.
    """
    if not isinstance(held, dict):
        return [0] * len(paths)
    patterns = list(held)

    def place(path: str) -> int:
        for i, pattern in enumerate(patterns):
            if re.search(pattern, path):
                return i
        raise ValueError(
            f"Argument `threshold` names no threshold for the variable {path!r}: none of "
            f"{patterns} matches. Add '.*' for all others."
        )

    return [place(path) for path in paths]


def config(held: Any, serialize: Callable[[Any], Any], number: Callable[[Any], float]) -> Any:
    """What is held, as a config has it.

    Args:
        held: What `hold` returned.
        serialize: Function from a schedule to its config.
        number: Function from a variable to its number.
    """
    if isinstance(held, dict):
        return {path: config(value, serialize, number) for path, value in held.items()}
    return number(held) if hasattr(held, "assign") else serialize(held)


def argument(config: Any, deserialize: Callable[[Any], Any]) -> Any:
    """The argument `threshold` that a config describes."""
    if not isinstance(config, dict):
        return config
    if {"class_name", "config"} <= set(config):
        return deserialize(config)
    return {path: argument(value, deserialize) for path, value in config.items()}
