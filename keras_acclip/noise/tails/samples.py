"""Checks of samples of norms, and of the arguments that go with them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from keras_acclip._utils import arguments

LEAST_FOR_MOMENTS = 4
LEAST_FOR_TAIL = 20
LEAST_FOR_EXCESSES = 50
LEAST_FOR_VERDICT = 100

_LARGEST = 1e150


def checked_sample(
    sample: ArrayLike, least: int, *, signed: bool = False, dimensions: Sequence[int] = (1,)
) -> np.ndarray:
    """Returns a sample as a float64 array.

    Args:
        sample: The sample.
        least: How many values it must hold.
        signed: Whether negative values are allowed.
        dimensions: Allowed numbers of dimensions.

    Raises:
        TypeError: If it is no array of real numbers.
        ValueError: If it is too small, has another number of dimensions, or holds NaN, infinite,
            too large or, unless `signed`, negative values.
    """
    if np.iscomplexobj(sample):
        raise TypeError("A sample must be an array of real numbers. Received complex ones.")
    try:
        values = np.asarray(sample, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"A sample must be an array of real numbers: {error}") from error
    if values.ndim not in dimensions:
        wanted = " or ".join(map(str, dimensions))
        raise ValueError(
            f"A sample must have {wanted} dimension(s). Received shape {values.shape}."
        )
    if len(values) < least:
        raise ValueError(f"A sample must hold at least {least} values. Received: {len(values)}")
    bad = ~np.isfinite(values)
    if bad.any():
        raise ValueError(
            f"{np.count_nonzero(bad)} of {values.size} values are NaN or infinite; the first at "
            f"index {np.argwhere(bad)[0].tolist()}. Leave them out, and say so."
        )
    if np.abs(values).max() > _LARGEST:
        raise ValueError(
            f"Values must be at most {_LARGEST:g}, so that their squares are finite. "
            f"Received: {np.abs(values).max():g}"
        )
    if not signed and values.min() < 0:
        raise ValueError(f"Norms can't be negative. Received: {values.min():g}")
    return values


def is_constant(values: np.ndarray) -> bool:
    """Whether all values are equal, up to rounding."""
    spread = 8 * np.finfo(np.float64).eps * np.abs(values).max()
    return bool(np.ptp(values) <= spread)


def varying(norms: np.ndarray) -> np.ndarray:
    """Returns norms, checked not to be constant."""
    if is_constant(norms):
        raise ValueError(f"All {len(norms)} norms equal {norms[0]:g}: they have no spread.")
    return norms


def all_positive(norms: np.ndarray) -> np.ndarray:
    """Returns norms, checked to hold no zero."""
    if norms.min() == 0:
        raise ValueError("A reference needs positive norms; the sample holds a zero.")
    return norms


def checked_level(confidence: float) -> float:
    """Returns a confidence level, checked to lie between 0 and 1."""
    return arguments.real("confidence", confidence, low=0, high=1, open_low=True, open_high=True)


def two_sided(confidence: float) -> tuple[float, float]:
    """Returns the shares below the ends of an interval."""
    return (1 - confidence) / 2, (1 + confidence) / 2


def checked_count(k: int, norms: np.ndarray, least: int = 2) -> int:
    """Returns k, checked to leave a tail of positive norms that isn't constant."""
    k = arguments.positive_integer("k", k)
    most = min(len(norms) - 1, int(np.count_nonzero(norms)) - 1)
    if not least <= k <= most:
        raise ValueError(
            f"Argument `k` must be from {least} to {most} for {len(norms)} norms. Received: {k}"
        )
    if np.sort(norms)[-k - 1] == norms.max():
        raise ValueError(f"The {k + 1} largest norms are equal: they have no tail index.")
    return k
