"""Clipping of all variables' gradients, as functions of arrays: by norm or by coordinate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from keras_acclip import rules
from keras_acclip._utils.typing import Array, Gradient, Ops
from keras_acclip.optimizers import sparse
from keras_acclip.optimizers.step import joint_norm, widened
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
