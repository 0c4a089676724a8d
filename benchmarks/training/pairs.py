"""What paired trainings can tell."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

EQUAL = 0.01  # Differences within it, either way, count as none.


def paired(one: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """The mean of the differences one − other, its 95% interval and the p of no difference.

    Student's t on the differences of pairs, in the order given. One pair has no interval.

    Returns:
        `value`, `low`, `high` and `p`; with one pair the last three are NaN.
    """
    differences = np.subtract(one, other)
    value, count = float(differences.mean()), len(differences)
    if count < 2:
        return {"value": value, "low": math.nan, "high": math.nan, "p": math.nan}
    error = differences.std(ddof=1) / math.sqrt(count)
    if error == 0:
        return {"value": value, "low": value, "high": value, "p": float(value == 0)}
    half = float(stats.t.ppf(0.975, count - 1) * error)
    p = float(2 * stats.t.sf(abs(value) / error, count - 1))
    return {"value": value, "low": value - half, "high": value + half, "p": p}


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's correction of some p, in the order given."""
    corrected, largest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(np.argsort(ps, kind="stable")):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[i]))
        corrected[i] = largest
    return corrected


def verdict(difference: dict[str, float]) -> str:
    """What a difference's interval says: equal within ±0.01, lower, higher, or undecided."""
    low, high = difference["low"], difference["high"]
    if low >= -EQUAL and high <= EQUAL:
        return f"equal within ±{EQUAL}"
    if high < 0:
        return "lower"
    return "higher" if low > 0 else "undecided"


def steps_to(loss: float, initial: float, curve: Sequence[Sequence[float]]) -> float | None:
    """The step at which a curve first comes down to a loss; `None` where it never does.

    Args:
        loss: The loss to come down to.
        initial: The loss before the first step.
        curve: Pairs of step and loss, between which the loss counts as linear.
    """
    before, above = 0.0, initial
    for step, value in curve:
        if value <= loss:
            return before + (step - before) * (above - loss) / (above - value)
        before, above = step, value
    return None
