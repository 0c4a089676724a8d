"""Trainings on the JAX backend, several in one program; the held-out loss sixteen times in each."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np

from training.contestants import CONTESTANTS
from training.traced import STEPS, Traced
from training.workloads import CHECKPOINTS, FIFTHS, Workload

DIVERGED = 2.0  # Times the first held-out loss: what is above it does not come back.

Member = tuple[Mapping[str, float], int]


def train(
    workload: Workload, contestant: str, members: Sequence[Member], steps: int
) -> list[dict[str, Any]]:
    """Trains with each of some hyperparameters and seeds, all at once.

    Args:
        workload: What to train.
        contestant: A key of `CONTESTANTS`.
        members: Pairs of hyperparameters, one value of each of the contestant's, and a seed of
            weights and data. Those of a contestant that is not `traced` have the same
            hyperparameters.
        steps: Steps of a training, a multiple of `CHECKPOINTS`.

    Returns:
        What came out of each: `status` (`"done"` or `"diverged"`), `initial` (the held-out loss
        before the first step), `curve` (a list of `[step, held-out loss]`), `loss` (the last of
        them, `None` where it diverged), `training_loss` (the mean of the last stretch),
        `steps_per_second` (of all members together, without compiling and held-out losses),
        `compile_seconds`, `together` (how many members there were); and where the labels are words
        `fifths`: for each fifth of the text by their frequency the number of held-out labels and
        their mean loss at the end, `None` where it diverged.
    """
    if steps < CHECKPOINTS or steps % CHECKPOINTS:
        raise ValueError(f"steps must be a multiple of {CHECKPOINTS}. Received: {steps}")
    fixed = None if CONTESTANTS[contestant].traced else dict(members[0][0])
    problems, optimizers, weights = {}, {}, {}
    for seed in dict.fromkeys(seed for _, seed in members):
        problem = problems[seed] = workload.make(workload, seed, steps)
        variables = problem.model.trainable_variables
        optimizers[seed] = Traced(contestant, variables, fixed)
        weights[seed] = [
            [v.value for v in of] for of in (variables, problem.model.non_trainable_variables)
        ]
    seed = members[0][1]
    problem, traced = problems[seed], optimizers[seed]
    states = [[*weights[seed], optimizers[seed].slots(dict(s))] for s, seed in members]
    state = jax.tree.map(lambda *xs: jnp.stack(xs), *states)
    own = jax.tree.map(lambda *xs: jnp.stack(xs), *(problems[seed].own for _, seed in members))
    settings = {
        name: jnp.asarray([s[name] for s, _ in members], "float32") for name in members[0][0]
    }
    settings[STEPS] = jnp.full(len(members), steps, "float32")
    return _run(_Program(problem, traced), problem.shared, own, settings, state, steps)


class _Program:
    """The compiled stretch of steps and the compiled held-out loss of all members."""

    def __init__(self, problem, traced):
        self.problem, self.traced = problem, traced

    def compiled(self, shared, own, settings, state):
        """Both functions."""
        take = jax.vmap(self._take, in_axes=(0, 0, 0, None, None, None))
        held_out_loss = jax.vmap(self._held_out_loss, in_axes=(0, 0, 0, None))
        bounds = jnp.int32(0), jnp.int32(1)
        take = jax.jit(take, donate_argnums=0).lower(state, own, settings, shared, *bounds)
        held_out_loss = jax.jit(held_out_loss).lower(state, own, settings, shared)
        return take.compile(), held_out_loss.compile()

    def _loss(self, trainable, others, inputs, labels):
        model = self.problem.model
        outputs, others = model.stateless_call(trainable, others, inputs, training=True)
        return jnp.mean(self.problem.losses(outputs, labels)), others

    def _take(self, state, own, settings, shared, first, last):
        self.traced.fill(settings)

        def step(number, carry):
            (trainable, others, slots), total = carry
            inputs, labels = self.problem.batch(shared, own, number)
            gradient = jax.value_and_grad(self._loss, has_aux=True)
            (value, others), gradients = gradient(trainable, others, inputs, labels)
            trainable = self.traced.decayed(trainable, settings, number)
            trainable, slots = self.traced.optimizer.stateless_apply(slots, gradients, trainable)
            return [list(trainable), list(others), list(slots)], total + value

        state, total = jax.lax.fori_loop(first, last, step, (state, jnp.float32(0)))
        return state, total / (last - first)

    def _held_out_loss(self, state, own, settings, shared):
        self.traced.fill(settings)
        trainable, others, slots = state
        optimizer = self.traced.optimizer
        if hasattr(optimizer, "evaluated"):
            values = zip(optimizer.variables, slots, strict=True)
            with keras.StatelessScope(state_mapping=list(values)):
                trainable = optimizer.evaluated(trainable)

        def one(batch):
            inputs, labels = batch
            outputs, _ = self.problem.model.stateless_call(
                trainable, others, inputs, training=False
            )
            return self.problem.losses(outputs, labels), labels

        losses, labels = jax.lax.map(one, self.problem.held_out(shared, own))
        if self.problem.fifths is None:
            return jnp.mean(losses), ()
        fifths = jnp.asarray(self.problem.fifths)[labels].ravel()
        parts = [
            jax.ops.segment_sum(x.ravel(), fifths, FIFTHS) for x in (losses, jnp.ones_like(losses))
        ]
        return jnp.mean(losses), parts


def _run(program, shared, own, settings, state, steps):
    started = time.perf_counter()
    take, held_out_loss = program.compiled(shared, own, settings, state)
    compile_seconds = time.perf_counter() - started

    def judge():
        losses, parts = held_out_loss(state, own, settings, shared)
        return [float(x) for x in losses], [np.asarray(x).tolist() for x in parts]

    stretch, seconds = steps // CHECKPOINTS, 0.0
    initial, parts = judge()
    curves: list[list] = [[] for _ in initial]
    alive, losses, training_losses, taken = [True] * len(initial), initial, initial, 0
    while taken < steps and any(alive):
        started = time.perf_counter()
        bounds = jnp.int32(taken), jnp.int32(taken + stretch)
        state, means = take(state, own, settings, shared, *bounds)
        training_losses = [float(x) for x in means]
        seconds += time.perf_counter() - started
        (losses, parts), taken = judge(), taken + stretch
        for i, loss in enumerate(losses):
            alive[i] &= math.isfinite(loss) and loss <= DIVERGED * initial[i]
            if alive[i]:
                curves[i].append([taken, loss])
    return [
        {
            "status": "done" if lives else "diverged",
            "initial": initial[i],
            "curve": curves[i],
            "loss": losses[i] if lives else None,
            "training_loss": training_losses[i] if lives else None,
            "steps_per_second": taken * len(initial) / seconds,
            "compile_seconds": compile_seconds,
            "together": len(initial),
        }
        | ({"fifths": _fifths(*(x[i] for x in parts), lives)} if parts else {})
        for i, lives in enumerate(alive)
    ]


def _fifths(sums, counts, lives):
    return [
        {"labels": int(count), "loss": total / count if lives and count else None}
        for total, count in zip(sums, counts, strict=True)
    ]
