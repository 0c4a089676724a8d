"""What an optimizer does with a threshold that moves, as functions of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_acclip._utils.typing import Array, Ops
from keras_acclip.thresholds import MOVING, Moving


def of(threshold: Any) -> Moving | None:
    """The argument `threshold` if it is one that moves, else `None`."""
    return threshold if isinstance(threshold, MOVING) else None


def check_settable(moving: Moving | None, value: Any) -> None:
    """Checks that a threshold can be set.

    Raises:
        TypeError: If it moves.
    """
    if moving is not None:
        raise TypeError(
            "This optimizer was made with a threshold that moves, which is hence not settable. "
            f"Received: threshold={value!r}"
        )


def current(moving: Moving, state: Array | None, single: bool, ops: Ops) -> Any:
    """The current threshold: a scalar where there is one norm, else an array.

    Args:
        moving: How it moves.
        state: Its state, or `None` before there is one.
        single: Whether there is one norm alone.
        ops: Namespace of array functions.
    """
    if state is None:
        return float("inf")
    taus = moving.thresholds(ops.convert_to_tensor(state), ops)
    return taus[0] if single else taus


def moved(
    moving: Moving, state: Array, norms: Sequence[Array], places: Sequence[int], ops: Ops
) -> tuple[list[Array], Array]:
    """The thresholds of some norms, and the state after these norms.

    Args:
        moving: How they move.
        state: The state of all norms, shape `(norms, width)`.
        norms: Some norms before clipping, scalars.
        places: Their rows in the state; the other rows stay.
        ops: Namespace of array functions.
    """
    rows = [state[i] for i in range(state.shape[0])]
    own = ops.stack([rows[i] for i in places])
    taus = moving.thresholds(own, ops)
    new = moving.updated(own, ops.stack([ops.cast(n, "float32") for n in norms]), ops)
    for row, i in enumerate(places):
        rows[i] = new[row]
    return [taus[i] for i in range(len(norms))], ops.stack(rows)
