"""One optimizer step over all variables, as functions of arrays.

`prepare` is what all gradients enter together, `updated` what becomes of one variable; `take` does
the whole, one variable after the other. Where and how they run is `execution`'s concern.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from keras_acclip import rules
from keras_acclip._utils.typing import Array, Gradient, Ops, Variable
from keras_acclip.optimizers import moving as moving_thresholds
from keras_acclip.optimizers import record, sparse
from keras_acclip.thresholds import Moving


@dataclass(frozen=True)
class Settings:
    """What a step does. Two steps with equal settings are one computation.

    Attributes:
        rule: The rule.
        weight_decay: `None`, or the rate of decoupled weight decay.
        averaging: Whether the linear average of each variable is kept.
        projection_radius: `None`, or the radius of the ball that holds all variables together.
        skip_nonfinite: Whether a step whose gradient is not finite changes nothing.
        moving: `None`, or the threshold that follows the norms.
        record_every: One in how many steps is looked at for the record of what was clipped.
    """

    rule: rules.Rule
    weight_decay: float | None = None
    averaging: bool = False
    projection_radius: float | None = None
    skip_nonfinite: bool = False
    moving: Moving | None = None
    record_every: int = 1


class Cell(NamedTuple):
    """A variable and what is kept for it.

    Attributes:
        variable: The variable.
        slots: The rule's variables, of the same shape, float32 at least.
        average: `None`, or the variable of its linear average.
        threshold: Which of the step's thresholds is its own; of one that moves with each variable,
            its row.
        decays: Whether weight decay applies to it.
        number: Its place among all variables.
    """

    variable: Variable
    slots: tuple[Variable, ...]
    average: Variable | None
    threshold: int
    decays: bool
    number: int


class Counters(NamedTuple):
    """Integer variables that count steps; `None` where nothing asks for them.

    Attributes:
        averaged: Steps that the linear average is over.
        skipped: Steps left out as not finite.
        last_skipped: 1 if the last one was, else 0.
    """

    averaged: Variable | None = None
    skipped: Variable | None = None
    last_skipped: Variable | None = None


class Step(NamedTuple):
    """All that one step reads and assigns.

    Attributes:
        settings: What it does.
        cells: The variables that have a gradient, in the gradients' order.
        idle: Those that have none; only their averages move.
        projected: The variables whose joint norm `settings.projection_radius` bounds.
        counters: The counters.
        kept: What is kept of the clipping.
    """

    settings: Settings
    cells: Sequence[Cell]
    idle: Sequence[Cell]
    projected: Sequence[Variable]
    counters: Counters
    kept: record.Kept


class Scalars(NamedTuple):
    """The numbers that change from step to step.

    Attributes:
        learning_rate: lr, a scalar array.
        thresholds: The thresholds that `Cell.threshold` counts, scalar arrays; none for ACClip.
    """

    learning_rate: Array
    thresholds: tuple[Array, ...]


class Prepared(NamedTuple):
    """What a step knows before it updates a variable.

    Attributes:
        gradients: One a cell, as the rule wants them.
        unclipped: The same before they were clipped jointly.
        finite: `None`, or whether all are finite.
        scalars: Learning rate and thresholds; those that move are in their places.
        norm: The norm of all gradients together, or `None` where the rule does not ask for it.
        state: The moving threshold's state after this step, or `None`.
    """

    gradients: list[Gradient]
    unclipped: list[Gradient]
    finite: Array | None
    scalars: Scalars
    norm: Array | None
    state: Array | None


class Kept(NamedTuple):
    """A cell's arrays, before or after a step."""

    value: Array
    slots: tuple[Array, ...]
    average: Array | None


def take(
    step: Step, gradients: Sequence[Gradient], scalars: Scalars, ops: Ops, slices: int = 1
) -> None:
    """Takes one whole step: clips the gradients, updates all variables, projects and counts.

    Args:
        step: What it reads and assigns.
        gradients: One gradient a cell, summed over replicas.
        scalars: Learning rate and thresholds.
        ops: Namespace of array functions.
        slices: As `rules.global_norm` takes it.
    """
    ready = prepare(step, gradients, scalars, ops, slices)
    count = averaged_count(step.counters, ops)
    for cell, gradient in zip(step.cells, ready.gradients, strict=True):
        update(step.settings, cell, gradient, ready.scalars, count, ready.finite, ops)
    for cell in step.idle:
        average(cell, count, ready.finite, ops)
    if step.settings.projection_radius is not None:
        factor = projection(step, ready.finite, ops, slices)
        for variable in step.projected:
            scale(variable, factor, ops)
    count_step(step.counters, ready.finite, ops)
    keep_record(step, ready, ops, slices)


def prepare(
    step: Step, gradients: Sequence[Gradient], scalars: Scalars, ops: Ops, slices: int = 1
) -> Prepared:
    """Clips what is clipped jointly, and looks up thresholds that move.

    Args:
        step: What the step reads.
        gradients: One gradient a cell, summed over replicas.
        scalars: Learning rate and thresholds.
        ops: Namespace of array functions.
        slices: As `rules.global_norm` takes it.
    """
    settings = step.settings
    unclipped = gradients = prepared(gradients, ops)
    finite = all_finite(gradients, ops) if settings.skip_nonfinite else None
    norm = state = None
    if settings.rule.clips_jointly:
        norm = joint_norm([sparse.rows(g) for g in gradients], ops, slices)
    if settings.moving is not None and step.kept.state is not None:
        old = ops.convert_to_tensor(step.kept.state)
        places = [cell.number for cell in step.cells]
        if norm is not None:
            norms, places = [norm], [0]
        else:
            each = [joint_norm([sparse.rows(g)], ops, slices) for g in gradients]
            sizes = [size_of(cell.variable) for cell in step.cells]
            norms = list(map(root_mean_square, each, sizes))
        taus, state = moving_thresholds.moved(settings.moving, old, norms, places, ops)
        if norm is None:
            # In their variables' places; variables without a gradient ask for none.
            own = dict(zip(places, taus, strict=True))
            taus = [own.get(i, taus[0]) for i in range(1 + max(places))]
        scalars = scalars._replace(thresholds=tuple(taus))
    if norm is not None:
        factor = settings.rule.factor(norm, ops.cast(scalars.thresholds[0], norm.dtype), ops)
        gradients = [
            sparse.map_rows(lambda g: g * ops.cast(factor, g.dtype), gradient)
            for gradient in gradients
        ]
    return Prepared(gradients, unclipped, finite, scalars, norm, state)


def keep_record(step: Step, ready: Prepared, ops: Ops, slices: int = 1) -> None:
    """Keeps what a step's clipping saw, and the state of a threshold that moves.

    Args:
        step: The step, when its variables are updated.
        ready: What `prepare` returned.
        ops: Namespace of array functions.
        slices: As `rules.global_norm` takes it.
    """
    kept = step.kept
    if kept.state is not None and ready.state is not None:
        kept.state.assign(ready.state)
    indices = [cell.number for cell in step.cells]
    if ready.norm is not None:
        record.count(kept, _seen_jointly(ready, ops, slices), indices, ready.finite, ops)
        return
    slots = [tuple(map(ops.convert_to_tensor, cell.slots)) for cell in step.cells]

    def look() -> tuple[Array, ...]:
        return tuple(_seen(step, ready, slots, ops, slices))

    if step.settings.record_every == 1:
        record.count(kept, record.Seen(*look()), indices, ready.finite, ops)
        return
    # A norm is one more pass over the gradients, which costs as much as a part of the step.
    steps = ops.convert_to_tensor(kept.counts)[0]
    due = ops.equal(steps % step.settings.record_every, 0)
    nothing = ops.zeros_like(ops.convert_to_tensor(kept.sums)[0])
    nothings = (nothing, nothing, nothing, ops.stack([nothing] * len(indices)))
    seen = record.Seen(*ops.cond(due, look, lambda: nothings))
    record.count(kept, seen, indices, ready.finite, ops, due)


def squares_of(gradients: Sequence[Gradient], ops: Ops, slices: int = 1) -> Array:
    """The squared norm of each gradient, shape `(gradients,)`, float32."""
    rows = map(sparse.rows, gradients)
    return ops.stack([ops.cast(rules.sum_of_squares(g, ops, slices), "float32") for g in rows])


def _seen_jointly(ready: Prepared, ops: Ops, slices: int) -> record.Seen:
    """What the clipping of the joint norm saw."""
    threshold = ops.cast(ready.scalars.thresholds[0], "float32")
    norm = ops.cast(ready.norm, "float32")
    share = ops.cast(norm > threshold, "float32")
    return record.Seen(norm, threshold, share, squares_of(ready.unclipped, ops, slices))


def _seen(
    step: Step, ready: Prepared, slots: Sequence[tuple[Array, ...]], ops: Ops, slices: int
) -> record.Seen:
    """What the clipping of coordinates saw."""
    over, taus = [], []
    for cell, gradient, own in zip(step.cells, ready.gradients, slots, strict=True):
        value = sparse.dense(gradient) if own else sparse.rows(gradient)
        _, threshold = _own_scalars(cell, ready.scalars, value.dtype, ops)
        clipped, tau = step.settings.rule.clipped(value, own, threshold=threshold, ops=ops)
        over.append(number_of(clipped, ops))
        taus.append(ops.cast(tau, "float32"))
    size = max(sum(size_of(cell.variable) for cell in step.cells), 1)
    if step.settings.rule.has_threshold:
        threshold = ops.max(ops.stack(taus))
    else:
        threshold = sum(ops.sum(tau) / size for tau in taus)
    squares = squares_of(ready.gradients, ops, slices)
    # Not `joint_norm`, whose way out where squares overflow sets memory for the gradients aside.
    return record.Seen(ops.sqrt(ops.sum(squares)), threshold, sum(over) / size, squares)


def update(
    settings: Settings,
    cell: Cell,
    gradient: Gradient,
    scalars: Scalars,
    count: Array | None,
    finite: Array | None,
    ops: Ops,
) -> None:
    """Updates one variable and what is kept for it.

    Args:
        settings: What the step does.
        cell: The variable.
        gradient: Its gradient, as `prepare` returns it.
        scalars: Learning rate and thresholds.
        count: `None`, or how many steps the linear average is over with this one.
        finite: `None`, or a boolean scalar: where `False` nothing changes.
        ops: Namespace of array functions.
    """
    if sparse.is_sparse(gradient) and touches_rows_alone(settings, cell):
        lr, threshold = _own_scalars(cell, scalars, gradient.values.dtype, ops)
        step, _ = settings.rule.step(
            gradient.values, (), learning_rate=lr, threshold=threshold, ops=ops
        )
        if finite is not None:
            step = ops.where(finite, step, ops.zeros_like(step))
        sparse.subtract_rows(cell.variable, gradient.indices, step)
        return
    old = Kept(
        ops.convert_to_tensor(cell.variable),
        tuple(ops.convert_to_tensor(slot) for slot in cell.slots),
        None if cell.average is None else ops.convert_to_tensor(cell.average),
    )
    new = updated(settings, cell, sparse.dense(gradient), old, scalars, count, ops)
    _assign_where(finite, cell.variable, new.value, old.value, ops)
    for slot, value, before in zip(cell.slots, new.slots, old.slots, strict=True):
        _assign_where(finite, slot, value, before, ops)
    if cell.average is not None:
        _assign_where(finite, cell.average, new.average, old.average, ops)


def updated(
    settings: Settings,
    cell: Cell,
    gradient: Array,
    old: Kept,
    scalars: Scalars,
    count: Array | None,
    ops: Ops,
) -> Kept:
    """What becomes of one variable's arrays: x ← x − lr·wd·x − step, slots, average.

    Args:
        settings: What the step does.
        cell: The variable; only how it is treated is read.
        gradient: Its dense gradient, as `prepare` returns it.
        old: The arrays before the step.
        scalars: Learning rate and thresholds.
        count: `None`, or how many steps the linear average is over with this one.
        ops: Namespace of array functions.
    """
    x = widened(old.value, ops)
    gradient = ops.cast(gradient, x.dtype)
    lr, threshold = _own_scalars(cell, scalars, x.dtype, ops)
    step, slots = settings.rule.step(
        gradient, old.slots, learning_rate=lr, threshold=threshold, ops=ops
    )
    averaged = None
    if old.average is not None:
        averaged = rules.linear_average(old.average, x, ops.cast(count, x.dtype))
    if settings.weight_decay is not None and cell.decays:
        x = x - x * (settings.weight_decay * lr)
    return Kept(x - step, slots, averaged)


def average(cell: Cell, count: Array, finite: Array | None, ops: Ops) -> None:
    """Moves the average of a variable that has no gradient in this step."""
    if cell.average is None:
        return
    old = ops.convert_to_tensor(cell.average)
    x = ops.cast(ops.convert_to_tensor(cell.variable), old.dtype)
    new = rules.linear_average(old, x, ops.cast(count, old.dtype))
    _assign_where(finite, cell.average, new, old, ops)


def averaged_count(counters: Counters, ops: Ops) -> Array | None:
    """How many steps the linear average is over with this one, or `None` if there is no average."""
    if counters.averaged is None:
        return None
    return ops.convert_to_tensor(counters.averaged) + 1


def projection(step: Step, finite: Array | None, ops: Ops, slices: int = 1) -> Array:
    """The factor that brings the variables into their ball; 1 where `finite` is `False`."""
    radius = step.settings.projection_radius
    if radius is None:
        raise ValueError("There is no ball to project onto.")
    values = [widened(ops.convert_to_tensor(v), ops) for v in step.projected]
    factor = rules.projection_factor(joint_norm(values, ops, slices), radius, ops)
    return factor if finite is None else ops.where(finite, factor, ops.ones_like(factor))


def scale(variable: Variable, factor: Array, ops: Ops) -> None:
    """Multiplies a variable by a scalar."""
    x = ops.convert_to_tensor(variable)
    wide = widened(x, ops)
    variable.assign(ops.cast(wide * ops.cast(factor, wide.dtype), x.dtype))


def count_step(counters: Counters, finite: Array | None, ops: Ops) -> None:
    """Counts the step: as skipped where `finite` is `False`, else as averaged."""
    if counters.averaged is not None:
        taken = ops.cast(True if finite is None else finite, counters.averaged.dtype)
        counters.averaged.assign_add(taken)
    if counters.skipped is not None and counters.last_skipped is not None:
        skipped = ops.cast(ops.logical_not(finite), counters.skipped.dtype)
        counters.skipped.assign_add(skipped)
        counters.last_skipped.assign(skipped)


def touches_rows_alone(settings: Settings, cell: Cell) -> bool:
    """Whether rows without a gradient keep their value, so that a sparse gradient may stay so."""
    decays = settings.weight_decay is not None and cell.decays
    return not (cell.slots or cell.average is not None or decays or is_narrow(cell.variable.dtype))


def is_narrow(dtype: object) -> bool:
    """Whether a dtype is computed in float32 instead: float16 and bfloat16."""
    return dtype_name(dtype) in ("float16", "bfloat16")


def dtype_name(dtype: object) -> str:
    """A dtype's name, whatever the backend."""
    return getattr(dtype, "name", None) or str(dtype).rpartition(".")[2]


def widened(array: Array, ops: Ops) -> Array:
    """The array in the dtype to compute in: float32 at least."""
    return ops.cast(array, "float32") if is_narrow(array.dtype) else array


def _own_scalars(
    cell: Cell, scalars: Scalars, dtype: object, ops: Ops
) -> tuple[Array, Array | None]:
    lr = ops.cast(scalars.learning_rate, dtype)
    if not scalars.thresholds:
        return lr, None
    return lr, ops.cast(scalars.thresholds[cell.threshold], dtype)


def _assign_where(
    finite: Array | None, variable: Variable, value: Array, old: Array, ops: Ops
) -> None:
    value = ops.cast(value, old.dtype)
    variable.assign(value if finite is None else ops.where(finite, value, old))


def joint_norm(arrays: Sequence[Array], ops: Ops, slices: int = 1) -> Array:
    """The norm of all arrays together, in the widest of their dtypes and float32."""
    widest = "float64" if "float64" in {dtype_name(a.dtype) for a in arrays} else "float32"
    return rules.global_norm([ops.cast(a, widest) for a in arrays], ops, slices)


def size_of(variable: Variable) -> int:
    """How many coordinates a variable has."""
    return math.prod(int(length) for length in variable.shape)


def root_mean_square(norm: Array, size: int) -> Array:
    """The root mean square of so many coordinates, whose norm is given."""
    return norm / max(size, 1) ** 0.5


def number_of(mask: Array, ops: Ops) -> Array:
    """How many elements are `True`, as a float: counted in integers, which don't stop at 2^24."""
    return ops.cast(ops.sum(ops.cast(mask, "int32")), "float32")


def prepared(gradients: Sequence[Gradient], ops: Ops) -> list[Gradient]:
    """Gradients in float32 at least, whose repeated rows are summed."""
    return [
        sparse.sum_repeated_rows(sparse.map_rows(lambda g: widened(g, ops), gradient))
        for gradient in gradients
    ]


def all_finite(gradients: Sequence[Gradient], ops: Ops) -> Array:
    """Whether all coordinates of all gradients are finite, a boolean scalar."""
    return ops.all(ops.stack([ops.all(ops.isfinite(sparse.rows(g))) for g in gradients]))
