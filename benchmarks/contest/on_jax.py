"""Contestants on JAX: each step donates the variables and slots that it replaces.

Three modes. `call`: a step is a computation, called again and again, as a loop in Python does it;
what a call costs beside the step counts. `loop`: ten steps are one computation, as in `fit` the
optimizer's step is part of the training step; nothing but the device's work counts. `concurrent`:
the same, compiled so that kernels of a GPU that do not wait for each other may overlap.

All take the same variables and gradients. Slots are made for a turn and dropped after it, so that
only one contestant's lie in memory.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import keras

from contest import methods
from contest.jax_turns import chained
from contest.race import Contestant

if TYPE_CHECKING:
    from contest.shapes import Shape

# Steps of one computation in each mode.
STEPS = {"call": 1, "loop": 10, "concurrent": 10}

# By default XLA has the kernels of a CUDA graph run one after the other.
_CONCURRENT = {"xla_gpu_command_buffer_scheduling_mode": "CONCURRENT"}

Update = Callable[[Any, Any, Any], tuple[Any, Any]]


@dataclasses.dataclass
class Field:
    """The variables that every contestant changes in its turn, and the gradients."""

    variables: list[jax.Array]
    gradients: list[jax.Array]


def field(shapes: list[Shape]) -> Field:
    """Weights of BERT's initial size and gradients of a usual one, drawn on the device."""

    @functools.partial(jax.jit, static_argnums=(1, 2))
    def normal(key, shape, scale):
        return scale * jax.random.normal(key, shape)

    keys = iter(jax.random.split(jax.random.key(0), 2 * len(shapes)))
    return Field(*[[normal(next(keys), s, scale) for s in shapes] for scale in (0.02, 1e-3)])


def contestants(names: list[str], field: Field, modes: list[str]) -> Iterator[Contestant]:
    """The bare pass and the entries of METHODS of these names, each in every mode.

    They are compiled some at a time, as many as there are cores.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        entrants = [_entrant(methods.BARE, *_bare_pass(field), field, modes, pool)]
        for name in names:
            made = methods.METHODS[name].make()
            of = _of_keras if isinstance(made, keras.optimizers.Optimizer) else _of_optax
            entrants.append(_entrant(name, *of(made, field), field, modes, pool))
        for entrant in entrants:
            for mode in modes:
                yield _contestant(entrant, mode, field)


def _bare_pass(field: Field) -> tuple[Update, Any]:
    """Sums that read and write what ACClip does, variable by variable."""

    def update(values, slots, gradients):
        moments, thresholds = ([s + g for s, g in zip(a, gradients, strict=True)] for a in slots)
        x = [x + m * t for x, m, t in zip(values, moments, thresholds, strict=True)]
        return x, [moments, thresholds]

    return update, [[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in field.variables]] * 2


def _of_keras(optimizer: Any, field: Field) -> tuple[Update, Any]:
    """A Keras optimizer's update and, as shapes and scalars, what it keeps."""
    # In such a scope variables get no values: a large model's would not all fit.
    with keras.StatelessScope(initialize_variables=False):
        variables = [
            keras.Variable("zeros", shape=x.shape, dtype=x.dtype, name=f"v{i}")
            for i, x in enumerate(field.variables)
        ]
        optimizer.build(variables)

    def update(values, slots, gradients):
        return optimizer.stateless_apply(slots, gradients, values)

    kept = [
        jax.ShapeDtypeStruct(v.shape, v.dtype) if v.shape else v.value for v in optimizer.variables
    ]
    return update, kept


def _of_optax(transformation: Any, field: Field) -> tuple[Update, Any]:
    """An optax transformation's update and the shapes of its state, which starts at zero."""
    import optax

    def update(values, state, gradients):
        updates, state = transformation.update(gradients, state, values)
        return optax.apply_updates(values, updates), state

    return update, jax.eval_shape(transformation.init, field.variables)


@dataclasses.dataclass
class Entrant:
    """A method that is being compiled.

    Attributes:
        name: Its name in the table.
        slot_bytes: Bytes that its slots take.
        fresh: The computation that makes the slots, to come.
        compiled: For each mode the computation of its steps, to come, with the seconds it took.
    """

    name: str
    slot_bytes: int
    fresh: Future[tuple[jax.stages.Compiled, float]]
    compiled: dict[str, Future[tuple[jax.stages.Compiled, float]]]


def _entrant(
    name: str,
    update: Update,
    kept: Any,
    field: Field,
    modes: list[str],
    pool: ThreadPoolExecutor,
) -> Entrant:
    """An entrant out of a pure function.

    Args:
        name: The method's name in the table.
        update: A function (variables, slots, gradients) → (variables, slots).
        kept: The slots' shapes; arrays among them are their own first value, the rest begins at 0.
        field: What all change in turn.
        modes: Some of `STEPS`.
        pool: What compiles.
    """
    leaves, structure = jax.tree.flatten(kept)
    leaves = [x if isinstance(x, jax.ShapeDtypeStruct) else jax.device_get(x) for x in leaves]
    specs = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves]
    # Traced once for all modes.
    update = jax.jit(update, inline=True)

    def fresh():
        made = [
            jnp.zeros(x.shape, x.dtype) if isinstance(x, jax.ShapeDtypeStruct) else jnp.asarray(x)
            for x in leaves
        ]
        return jax.tree.unflatten(structure, made)

    def steps(values, slots, gradients):
        def step(i, held):
            # A barrier that hangs on i: nothing of a step can be computed once for all.
            now, _ = jax.lax.optimization_barrier((gradients, i))
            return update(*held, now)

        return jax.lax.fori_loop(0, STEPS["loop"], step, (values, slots))

    given = field.variables, jax.tree.unflatten(structure, specs), field.gradients
    lower = functools.cache(lambda f: jax.jit(f, donate_argnums=(0, 1)).lower(*given))
    compiled = {}
    for mode in modes:
        lowered = lower(update if mode == "call" else steps)
        options = _CONCURRENT if mode == "concurrent" else None
        compiled[mode] = pool.submit(_compiled, lowered, options)
    slot_bytes = sum(math.prod(s.shape) * s.dtype.itemsize for s in specs if s.shape)
    return Entrant(name, slot_bytes, pool.submit(_compiled, jax.jit(fresh).lower()), compiled)


def _compiled(
    lowered: jax.stages.Lowered, options: dict[str, Any] | None = None
) -> tuple[jax.stages.Compiled, float]:
    started = time.perf_counter()
    compiled = lowered.compile(options)
    return compiled, time.perf_counter() - started


def _contestant(entrant: Entrant, mode: str, field: Field) -> Contestant:
    fresh, _ = entrant.fresh.result()
    compiled, seconds = entrant.compiled[mode].result()
    plan = compiled.memory_analysis()
    # Outputs that take the place of no input come on top.
    extra = plan.temp_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes

    def finish(state):
        field.variables = state[0]

    return chained(
        lambda: (field.variables, fresh()),
        lambda state: compiled(*state, field.gradients),
        finish,
        STEPS[mode],
        method=entrant.name,
        mode=mode,
        slot_bytes=entrant.slot_bytes,
        extra_bytes=extra,
        first=seconds,
    )
