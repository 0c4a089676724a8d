"""Clipping of all variables' gradients, as functions of arrays: by norm or by coordinate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from keras_acclip import rules
from keras_acclip._utils.typing import Array, Gradient, Ops
from keras_acclip.optimizers import moving as moving_thresholds
from keras_acclip.optimizers import record, sparse
from keras_acclip.optimizers.step import (
    all_finite,
    joint_norm,
    number_of,
    prepared,
    root_mean_square,
    squares_of,
)
from keras_acclip.thresholds import Moving

By = Literal["global", "variable", "coordinate"]
"""What one norm is of: all variables together, each variable, or each coordinate."""

BY = ("global", "variable", "coordinate")


class Norms(NamedTuple):
    """Norms of gradients before clipping, float32.

    Attributes:
        together: Of all, a scalar.
        clipped: Those that are clipped, or that thresholds of coordinates follow.
    """

    together: Array
    clipped: list[Array]


def check_threshold(threshold: Any, by: By) -> None:
    """Checks that the argument `threshold` goes with `by`.

    Raises:
        ValueError: If it does not.
    """
    if isinstance(threshold, dict) and by == "global":
        raise ValueError(
            'Argument `threshold` may be a dict with by="variable" or "coordinate" alone: '
            f"one norm has one threshold. Received: threshold={threshold!r}"
        )


def clip_and_keep(
    by: By,
    moving: Moving | None,
    kept: record.Kept,
    indices: Sequence[int],
    sizes: Sequence[int],
    gradients: Sequence[Gradient],
    thresholds: Sequence[Array],
    skip_nonfinite: bool,
    ops: Ops,
    slices: int = 1,
) -> tuple[list[Gradient], Array | None]:
    """Clips gradients, and brings what is kept up to date.

    Args:
        by: What is clipped.
        moving: `None`, or the threshold that follows the norms.
        kept: The variables to update.
        indices: The gradients' places among all variables, which the state's rows follow.
        sizes: How many coordinates each gradient's variable has.
        gradients: One gradient a variable, summed over replicas.
        thresholds: One a variable, or a single one; none where the threshold moves.
        skip_nonfinite: Whether to look if the gradients are finite.
        ops: Namespace of array functions.
        slices: As `rules.global_norm` takes it.

    Returns:
        The gradients, in their own dtypes, and whether all were finite, or `None`.
    """
    wide = prepared(gradients, ops)
    finite = all_finite(wide, ops) if skip_nonfinite else None
    squares = squares_of(wide, ops, slices)
    norms = norms_of(by, wide, squares, sizes, ops, slices)
    if moving is not None and kept.state is not None:
        state = ops.convert_to_tensor(kept.state)
        places = [0] if by == "global" else list(indices)
        thresholds, state = moving_thresholds.moved(moving, state, norms.clipped, places, ops)
        kept.state.assign(state)
    thresholds = [ops.cast(t, "float32") for t in thresholds]
    if len(thresholds) < len(gradients):
        thresholds = [thresholds[0]] * len(gradients)
    clipped, share = clip(by, wide, norms.clipped, thresholds, sizes, ops)
    seen = record.Seen(norms.together, ops.max(ops.stack(thresholds)), share, squares)
    record.count(kept, seen, indices, finite, ops)
    return [_like(g, like, ops) for g, like in zip(clipped, gradients, strict=True)], finite


def norms_of(
    by: By,
    gradients: Sequence[Gradient],
    squares: Array,
    sizes: Sequence[int],
    ops: Ops,
    slices: int = 1,
) -> Norms:
    """The norms of gradients that `prepared` returned.

    Args:
        by: What is clipped: one norm, one a variable, or (for thresholds that follow them) the
            root mean square of each variable's coordinates.
        gradients: One gradient a variable.
        squares: Their squared norms, as `squares_of` returns them.
        sizes: How many coordinates each variable has.
        ops: Namespace of array functions.
        slices: As `rules.global_norm` takes it.
    """
    rows = [sparse.rows(g) for g in gradients]
    if by == "global":
        together = ops.cast(joint_norm(rows, ops, slices), "float32")
        return Norms(together, [together])
    plain = ops.sqrt(squares)
    low, high = rules.SAFE_NORMS
    # Their squares may have overflowed or vanished; to look at each by itself would cost more.
    norms = ops.cond(
        ops.all(ops.logical_and(plain > low, plain < high)),
        lambda: plain,
        lambda: ops.stack([ops.cast(joint_norm([r], ops, slices), "float32") for r in rows]),
    )
    together = rules.global_norm([norms], ops)
    each = [norms[i] for i in range(len(rows))]
    if by == "coordinate":
        each = [root_mean_square(n, size) for n, size in zip(each, sizes, strict=True)]
    return Norms(together, each)


def clip(
    by: By,
    gradients: Sequence[Gradient],
    norms: Sequence[Array],
    thresholds: Sequence[Array],
    sizes: Sequence[int],
    ops: Ops,
) -> tuple[list[Gradient], Array]:
    """Clips gradients that `prepared` returned.

    Args:
        by: What is clipped.
        gradients: One gradient a variable, summed over replicas.
        norms: The norms to clip, as `norms_of` returns them.
        thresholds: One a variable.
        sizes: How many coordinates each variable has.
        ops: Namespace of array functions.

    Returns:
        The gradients, and the share that was clipped: of the norms, or of the coordinates.
    """
    if by == "coordinate":
        clipped = [
            sparse.map_rows(
                lambda g, t=t: rules.clipped_coordinates(g, ops.cast(t, g.dtype), ops), gradient
            )
            for gradient, t in zip(gradients, thresholds, strict=True)
        ]
        values = [sparse.rows(g) for g in gradients]
        over = [
            number_of(ops.abs(v) > ops.cast(t, v.dtype), ops)
            for v, t in zip(values, thresholds, strict=True)
        ]
        return clipped, sum(over) / max(sum(sizes), 1)
    if by == "global":
        norms = list(norms) * len(gradients)
    factors = [rules.GClip().factor(n, t, ops) for n, t in zip(norms, thresholds, strict=True)]
    clipped = [
        sparse.map_rows(lambda g, f=f: g * ops.cast(f, g.dtype), gradient)
        for gradient, f in zip(gradients, factors, strict=True)
    ]
    over = [ops.cast(n > t, "float32") for n, t in zip(norms, thresholds, strict=True)]
    return clipped, sum(over) / len(over)


def _like(gradient: Gradient, other: Gradient, ops: Ops) -> Gradient:
    """The gradient in another one's dtype."""
    dtype = sparse.rows(other).dtype
    return sparse.map_rows(lambda g: ops.cast(g, dtype), gradient)
