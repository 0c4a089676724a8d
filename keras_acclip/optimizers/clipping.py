"""Clipping of all variables' gradients, as functions of arrays: by norm or by coordinate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from keras_acclip import rules
from keras_acclip._utils.typing import Array, Gradient, Ops, Variable
from keras_acclip.optimizers import sparse
from keras_acclip.optimizers.step import all_finite, joint_norm, widened
from keras_acclip.thresholds import Moving

By = Literal["global", "variable", "coordinate"]
BY = ("global", "variable", "coordinate")


@dataclass(frozen=True)
class Clipping:
    """What is clipped, and by which threshold.

    Attributes:
        by: `"global"`, `"variable"` or `"coordinate"`.
        moving: `None`, or the threshold that follows the norms.
    """

    by: By = "global"
    moving: Moving | None = None


class Clipped(NamedTuple):
    """Gradients after clipping, and what the clipping saw.

    Attributes:
        gradients: The gradients, float32 at least.
        norm: The norm of all of them together before clipping, a scalar.
        threshold: The threshold, a scalar; the largest, where there are several.
        share: The share that was clipped: of the norms (0 or 1 of the global one), or of the
            coordinates.
        state: The state of the moving threshold after this step, or `None`.
    """

    gradients: list[Gradient]
    norm: Array
    threshold: Array
    share: Array
    state: Array | None


class Record(NamedTuple):
    """What an optimizer's clipping did so far; scalars.

    Attributes:
        steps: Steps, skipped ones included.
        clipped_steps: Steps in which something was clipped.
        skipped_steps: Steps left out as not finite.
        mean_norm: Mean of the norm of all gradients together before clipping, over the steps that
            were taken; 0 before the first.
        largest_norm: The largest of them.
        threshold: The threshold of the last step; the largest where there are several.
        share: Mean share that was clipped: of the norms, or of the coordinates.
    """

    steps: Array
    clipped_steps: Array
    skipped_steps: Array
    mean_norm: Array
    largest_norm: Array
    threshold: Array
    share: Array


class Kept(NamedTuple):
    """The variables that the clipping keeps.

    Attributes:
        state: `None`, or the state of the moving threshold, shape `(norms, width)`.
        counts: Steps, clipped and skipped steps; shape `(3,)`, integers.
        sums: Sum of the norms, the largest, the last threshold, sum of the shares; shape `(4,)`.
    """

    state: Variable | None
    counts: Variable
    sums: Variable


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


def clip_and_keep(
    clipping: Clipping,
    kept: Kept,
    indices: Sequence[int],
    gradients: Sequence[Gradient],
    thresholds: Sequence[Array],
    skip_nonfinite: bool,
    ops: Ops,
    slices: int = 1,
) -> tuple[list[Gradient], Array | None]:
    """Clips gradients, and brings what is kept up to date.

    Args:
        clipping: How to clip.
        kept: The variables to update.
        indices: The gradients' places among all variables, which the state's rows follow.
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
    state = None if kept.state is None else ops.convert_to_tensor(kept.state)
    rows = [] if state is None else [state[i] for i in range(state.shape[0])]
    places = [0] if clipping.by == "global" else list(indices)
    own = None if state is None else ops.stack([rows[i] for i in places])
    done = clip(clipping, wide, thresholds, own, ops, slices)
    if kept.state is not None and done.state is not None:
        for place, i in enumerate(places):
            rows[i] = done.state[place]
        kept.state.assign(ops.stack(rows))
    _count(kept, done, finite, ops)
    return [_like(g, like, ops) for g, like in zip(done.gradients, gradients, strict=True)], finite


def record(counts: Variable, sums: Variable, ops: Ops) -> Record:
    """The `Record` that the variables hold."""
    steps, clipped, skipped = (ops.convert_to_tensor(counts)[i] for i in range(3))
    total, largest, threshold, shares = (ops.convert_to_tensor(sums)[i] for i in range(4))
    taken = ops.cast(steps - skipped, "float32")
    taken = ops.maximum(taken, ops.ones_like(taken))
    return Record(steps, clipped, skipped, total / taken, largest, threshold, shares / taken)


def _count(kept: Kept, done: Clipped, finite: Array | None, ops: Ops) -> None:
    counts, sums = ops.convert_to_tensor(kept.counts), ops.convert_to_tensor(kept.sums)
    nothing = 0 * sums[0]
    skipped = 0 * counts[0]
    if finite is not None:
        skipped = ops.cast(ops.logical_not(finite), counts.dtype)
    clipped = ops.cast(done.share > 0, counts.dtype) * (1 - skipped)
    kept.counts.assign(counts + ops.stack([1 + 0 * skipped, clipped, skipped]))
    seen = ops.isfinite(done.norm)
    norm = ops.where(seen, done.norm, nothing)
    share = ops.where(seen, done.share, nothing)
    largest = ops.maximum(sums[1], norm)
    kept.sums.assign(ops.stack([sums[0] + norm, largest, done.threshold, sums[3] + share]))


def _like(gradient: Gradient, other: Gradient, ops: Ops) -> Gradient:
    """The gradient in another one's dtype."""
    dtype = sparse.rows(other).dtype
    return sparse.map_rows(lambda g: ops.cast(g, dtype), gradient)


def prepared(gradients: Sequence[Gradient], ops: Ops) -> list[Gradient]:
    """Gradients in float32 at least, whose repeated rows are summed."""
    return [
        sparse.sum_repeated_rows(sparse.map_rows(lambda g: widened(g, ops), gradient))
        for gradient in gradients
    ]


def clip(
    clipping: Clipping,
    gradients: Sequence[Gradient],
    thresholds: Sequence[Array],
    state: Array | None,
    ops: Ops,
    slices: int = 1,
) -> Clipped:
    """Clips gradients that `prepared` returned.

    Args:
        clipping: How.
        gradients: One gradient a variable, summed over replicas.
        thresholds: One a variable, or a single one; ignored where the threshold moves.
        state: The state of the moving threshold, shape `(norms, width)`, or `None`.
        ops: Namespace of array functions.
        slices: As `rules.global_norm` takes it.
    """
    values = [sparse.rows(g) for g in gradients]
    each = [joint_norm([value], ops, slices) for value in values]
    each = [ops.cast(norm, "float32") for norm in each]
    together = rules.global_norm([ops.reshape(n, (1,)) for n in each], ops)
    norms = [together] if clipping.by == "global" else each
    if clipping.by == "coordinate":
        norms = [n / max(_size(g), 1) ** 0.5 for n, g in zip(norms, gradients, strict=True)]
    if clipping.moving is not None and state is not None:
        taus = clipping.moving.thresholds(state, ops)
        state = clipping.moving.updated(state, ops.stack(norms), ops)
        thresholds = [taus[i] for i in range(len(norms))]
    thresholds = [ops.cast(t, "float32") for t in thresholds]
    if len(thresholds) < len(gradients):
        thresholds = [thresholds[0]] * len(gradients)
    if clipping.by == "coordinate":
        clipped = [
            sparse.map_rows(
                lambda g, t=t: rules.clipped_coordinates(g, ops.cast(t, g.dtype), ops), gradient
            )
            for gradient, t in zip(gradients, thresholds, strict=True)
        ]
        over = [
            ops.sum(ops.cast(ops.abs(v) > ops.cast(t, v.dtype), "float32"))
            for v, t in zip(values, thresholds, strict=True)
        ]
        share = sum(over) / max(sum(map(_size, gradients)), 1)
    else:
        if clipping.by == "global":
            norms = norms * len(gradients)
        factors = [rules.GClip().factor(n, t, ops) for n, t in zip(norms, thresholds, strict=True)]
        clipped = [
            sparse.map_rows(lambda g, f=f: g * ops.cast(f, g.dtype), gradient)
            for gradient, f in zip(gradients, factors, strict=True)
        ]
        over = [ops.cast(n > t, "float32") for n, t in zip(norms, thresholds, strict=True)]
        share = sum(over) / len(over)
    threshold = ops.max(ops.stack(list(thresholds)))
    return Clipped(clipped, together, threshold, share, state)


def _size(gradient: Gradient) -> int:
    shape = gradient.dense_shape if sparse.is_sparse(gradient) else gradient.shape
    size = 1
    for length in shape:
        size *= int(length)
    return size
