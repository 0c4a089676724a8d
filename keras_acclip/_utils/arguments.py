"""Checks of constructor arguments: errors name the argument, the value and what is allowed."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def real(
    name: str,
    value: object,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """Returns `value` as a float, checked to be a finite real number in an interval.

    Args:
        name: The argument's name, for the error message.
        value: The value to check; a Python or NumPy real number, not a bool.
        low: Smallest allowed value.
        high: Largest allowed value.
        open_low: Whether `low` itself is excluded.
        open_high: Whether `high` itself is excluded.

    Raises:
        TypeError: If `value` is no real number.
        ValueError: If `value` is not finite or lies outside the interval.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(
            f"Argument `{name}` must be a real number. Received: {name}={value!r} "
            f"(of type {type(value).__name__})"
        )
    value = float(value)
    inside = (low < value if open_low else low <= value) and (
        value < high if open_high else value <= high
    )
    if not (math.isfinite(value) and inside):
        left = "(" if open_low or low == -math.inf else "["
        right = ")" if open_high or high == math.inf else "]"
        raise ValueError(
            f"Argument `{name}` must be a finite number in {left}{low:g}, {high:g}{right}. "
            f"Received: {name}={value!r}"
        )
    return value


def positive(name: str, value: object) -> float:
    """Returns `value` as a float, checked to be finite and above zero."""
    return real(name, value, low=0.0, open_low=True)


def moment_order(name: str, value: object, *, open_low: bool = False) -> float:
    """Returns the paper's α as a float, checked to lie in [1, 2], or in (1, 2]."""
    return real(name, value, low=1.0, high=2.0, open_low=open_low)


def one_of(name: str, value: T, allowed: Sequence[object]) -> T:
    """Returns `value`, checked to be one of the `allowed` values."""
    if not any(value is choice or value == choice for choice in allowed):
        raise ValueError(
            f"Argument `{name}` must be one of {', '.join(map(repr, allowed))}. "
            f"Received: {name}={value!r}"
        )
    return value


def flag(name: str, value: object) -> bool:
    """Returns `value`, checked to be a bool."""
    if not isinstance(value, bool):
        raise TypeError(
            f"Argument `{name}` must be True or False. Received: {name}={value!r} "
            f"(of type {type(value).__name__})"
        )
    return value


def positive_integer(name: str, value: object) -> int:
    """Returns `value` as an int, checked to be a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(
            f"Argument `{name}` must be a whole number of at least 1. Received: {name}={value!r}"
        )
    return int(value)


def representable(name: str, value: float, dtype: str) -> float:
    """Returns `value`, checked to be 0 or a normal number of a float type.

    Smaller ones are refused as well, since TensorFlow and XLA take them for 0.

    Args:
        name: The argument's name, for the error message.
        value: A finite float.
        dtype: Name of the float type, such as `"float32"`.

    Raises:
        ValueError: If it is not.
    """
    # NumPy's own `finfo` does not know bfloat16.
    import ml_dtypes

    limits = ml_dtypes.finfo(dtype)
    low, high = float(limits.smallest_normal), float(limits.max)
    if value == 0 or low <= abs(value) <= high:
        return value
    raise ValueError(
        f"Argument `{name}` must be representable in {dtype}, from {low:.3g} to {high:.3g}. "
        f"Received: {name}={value!r}"
    )


def unmade(given: object, other: str) -> str:
    """What was given in the place of an object: its name, its class, or something else."""
    if isinstance(given, str | type):
        return f"its {'name' if isinstance(given, str) else 'class'}"
    return other
