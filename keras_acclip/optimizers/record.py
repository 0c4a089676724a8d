"""What was clipped: a few numbers that an optimizer keeps as it goes, and what they say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from keras_acclip._utils.typing import Array, Ops, Variable

COUNTS = 4
"""How many whole numbers are kept: steps, observed, clipped and skipped ones."""
SUMS = 5
"""How many floats are kept: sum of norms, the largest, the last threshold, sum of shares, the
largest norm since a `GradientMonitor` last looked."""


class Record(NamedTuple):
    """What an optimizer's clipping did so far; scalars.

    Attributes:
        steps: Steps, skipped ones included.
        clipped_steps: Observed steps in which something was clipped.
        skipped_steps: Steps left out as not finite.
        mean_norm: Mean of the norm of all gradients together before clipping, over the observed
            steps; 0 before the first.
        largest_norm: The largest of them.
        threshold: The threshold of the last observed step; the largest where there are several, and
            of `ACClip`, which has one for each coordinate, their mean.
        share: Mean share that was clipped in the observed steps: of the norms, or of the
            coordinates.
        observed_steps: Steps that were taken and looked at: all whose gradient was finite, or one
            in `optimizer.record_every`.

    Example:

    >>> import keras
    >>> import keras_acclip
    >>> optimizer = keras_acclip.GClip(0.1, threshold=1.0)
    >>> optimizer.apply([keras.ops.array([3.0, 4.0])], [keras.Variable([0.0, 0.0])])
    >>> print(optimizer.clipping)
    steps: 1
    clipped_steps: 1
    skipped_steps: 0
    mean_norm: 5
    largest_norm: 5
    threshold: 1
    share: 1
    observed_steps: 1
    >>> float(optimizer.clipping.mean_norm)
    5.0
    """

    steps: Array
    clipped_steps: Array
    skipped_steps: Array
    mean_norm: Array
    largest_norm: Array
    threshold: Array
    share: Array
    observed_steps: Array

    def __str__(self) -> str:
        """Its numbers, a line each; where they have no values yet, in a graph, the tensors."""
        try:
            values = [float(value) for value in self]
        except (TypeError, ValueError, RuntimeError):
            return repr(self)
        return "\n".join(f"{name}: {x:.6g}" for name, x in zip(self._fields, values, strict=True))


class Kept(NamedTuple):
    """The variables that the clipping keeps.

    Attributes:
        counts: Steps, observed, clipped and skipped ones; shape `(COUNTS,)`, integers.
        sums: As `SUMS` lists them; shape `(SUMS,)`, floats.
        squares: Sum of each variable's squared norms, shape `(variables,)`, floats.
        state: `None`, or the state of the moving threshold, shape `(norms, width)`.
    """

    counts: Variable
    sums: Variable
    squares: Variable
    state: Variable | None = None


class Seen(NamedTuple):
    """What one step's clipping saw; scalars.

    Attributes:
        norm: The norm of all gradients together before clipping.
        threshold: The threshold.
        share: The share that was clipped.
        squares: The squared norm of each variable's gradient, shape `(gradients,)`.
    """

    norm: Array
    threshold: Array
    share: Array
    squares: Array


def read(counts: Variable, sums: Variable, ops: Ops) -> Record:
    """The `Record` that the variables hold."""
    steps, observed, clipped, skipped = (ops.convert_to_tensor(counts)[i] for i in range(COUNTS))
    total, largest, threshold, shares, _ = (ops.convert_to_tensor(sums)[i] for i in range(SUMS))
    number = ops.cast(observed, "float32")
    number = ops.maximum(number, ops.ones_like(number))
    return Record(
        steps, clipped, skipped, total / number, largest, threshold, shares / number, observed
    )


def count(
    kept: Kept,
    seen: Seen,
    indices: Sequence[int],
    finite: Array | None,
    ops: Ops,
    looked: Array | None = None,
) -> None:
    """Brings the record up to date after a step.

    Args:
        kept: The variables to update.
        seen: What the step's clipping saw.
        indices: The gradients' places among all variables.
        finite: `None`, or whether the step was taken.
        ops: Namespace of array functions.
        looked: `None`, or whether `seen` is of this step.
    """
    counts, sums = ops.convert_to_tensor(kept.counts), ops.convert_to_tensor(kept.sums)
    one, zero = ops.ones_like(counts[0]), ops.zeros_like(counts[0])
    skipped = zero if finite is None else ops.where(finite, zero, one)
    # A norm that overflowed would make all that follow infinite.
    observed = ops.isfinite(seen.norm)
    for condition in (looked, finite):
        if condition is not None:
            observed = ops.logical_and(observed, condition)
    clipped = ops.logical_and(observed, seen.share > 0)
    added = [one, ops.where(observed, one, zero), ops.where(clipped, one, zero), skipped]
    kept.counts.assign(counts + ops.stack(added))
    new = [
        sums[0] + seen.norm,
        ops.maximum(sums[1], seen.norm),
        seen.threshold,
        sums[3] + seen.share,
        ops.maximum(sums[4], seen.norm),
    ]
    kept.sums.assign(ops.where(observed, ops.stack(new), sums))
    squares = ops.convert_to_tensor(kept.squares)
    more = _in_their_places(seen.squares, indices, squares.shape[0], ops)
    kept.squares.assign(ops.where(observed, squares + more, squares))


def _in_their_places(values: Array, indices: Sequence[int], length: int, ops: Ops) -> Array:
    if list(indices) == list(range(length)):
        return values
    nothing = ops.zeros_like(values[0])
    places = {index: i for i, index in enumerate(indices)}
    return ops.stack([values[places[i]] if i in places else nothing for i in range(length)])
