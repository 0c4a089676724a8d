"""Trainings on the JAX backend, several in one program; the held-out loss sixteen times in each."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np

from training.contestants import CONTESTANTS
from training.traced import STEPS, Traced
from training.workloads import CHECKPOINTS, FIFTHS, Problem, Workload

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
        `fifths`: for each fifth of the text by their frequency the number of words that there are,
        of held-out labels, and their mean loss at the end, `None` where it diverged.
    """
    if steps < CHECKPOINTS or steps % CHECKPOINTS:
        raise ValueError(f"steps must be a multiple of {CHECKPOINTS}. Received: {steps}")
    return _run(prepared(workload, contestant, members, steps), steps)


def weights(
    workload: Workload, contestant: str, member: Member, steps: int
) -> dict[str, np.ndarray]:
    """What one training's variables end as, by their paths; arguments as of `train`."""
    made = prepared(workload, contestant, [member], steps)
    take, _ = made.compiled()
    (values, *_), _ = take(made.state, 0, steps)
    variables = made.problem.model.trainable_variables
    return {v.path: np.asarray(x[0]) for v, x in zip(variables, values, strict=True)}


def prepared(
    workload: Workload, contestant: str, members: Sequence[Member], steps: int
) -> Prepared:
    """Trainings before their first step; arguments as of `train`."""
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
    return Prepared(problem, traced, own, settings, state, workload.pieces)


@dataclasses.dataclass
class Prepared:
    """Trainings before their first step.

    Attributes:
        problem: The first one's `Problem`; what depends on the seed is in `own`.
        traced: The first one's optimizer.
        own: What each has of its problem by itself, a pytree of arrays with a leading axis.
        settings: Each one's hyperparameters, arrays of shape `(members,)`.
        state: Each one's variables, other variables of the model and slots, likewise.
        pieces: As `Workload` has it.
    """

    problem: Problem
    traced: Traced
    own: Any
    settings: dict[str, jax.Array]
    state: Any
    pieces: int = 1

    def compiled(self) -> tuple[Callable, Callable]:
        """The steps, and the held-out loss.

        Returns:
            A function of the state and the numbers of the first step and the one after the last, to
            the state after them and each training's mean loss; and a function of the state to each
            one's held-out loss, and sums and counts of it by fifths.
        """
        shared = self.problem.shared
        take = jax.vmap(self._take, in_axes=(0, 0, 0, None, None, None))
        held_out = jax.vmap(self._held_out_loss, in_axes=(0, 0, 0, None))
        rest = self.own, self.settings, shared
        bounds = jnp.int32(0), jnp.int32(1)
        take = jax.jit(take, donate_argnums=0).lower(self.state, *rest, *bounds).compile()
        held_out = jax.jit(held_out).lower(self.state, *rest).compile()
        return (
            lambda state, first, last: take(state, *rest, jnp.int32(first), jnp.int32(last)),
            lambda state: held_out(state, *rest),
        )

    def _loss(self, trainable, others, inputs, labels):
        model = self.problem.model
        outputs, others = model.stateless_call(trainable, others, inputs, training=True)
        return jnp.mean(self.problem.losses(outputs, labels)), others

    def _gradients(self, trainable, others, inputs, labels):
        """The mean loss of a batch, the model's other variables after it, and its gradients."""

        def of(others, piece):
            gradient = jax.value_and_grad(self._loss, has_aux=True)
            (value, others), gradients = gradient(trainable, others, *piece)
            return list(others), (value, gradients)

        if self.pieces == 1:
            others, (value, gradients) = of(others, (inputs, labels))
            return value, others, gradients

        def add(carry, piece):
            others, total = carry
            others, found = of(others, piece)
            return (others, jax.tree.map(jnp.add, total, found)), None

        batch = jax.tree.map(lambda x: x.reshape(self.pieces, -1, *x.shape[1:]), (inputs, labels))
        zeros = jnp.float32(0), jax.tree.map(jnp.zeros_like, trainable)
        (others, total), _ = jax.lax.scan(add, (others, zeros), batch)
        value, gradients = jax.tree.map(lambda x: x / self.pieces, total)
        return value, others, gradients

    def _take(self, state, own, settings, shared, first, last):
        self.traced.fill(settings)

        def step(number, carry):
            (trainable, others, slots), total = carry
            inputs, labels = self.problem.batch(shared, own, number)
            value, others, gradients = self._gradients(trainable, others, inputs, labels)
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


def _run(made, steps):
    started = time.perf_counter()
    (take, held_out), state = made.compiled(), made.state
    compile_seconds = time.perf_counter() - started

    def judge():
        losses, parts = held_out(state)
        return [float(x) for x in losses], [np.asarray(x).tolist() for x in parts]

    stretch, seconds = steps // CHECKPOINTS, 0.0
    initial, parts = judge()
    curves: list[list] = [[] for _ in initial]
    alive, losses, training_losses, taken = [True] * len(initial), initial, initial, 0
    while taken < steps and any(alive):
        started = time.perf_counter()
        state, means = take(state, taken, taken + stretch)
        training_losses = [float(x) for x in means]
        seconds += time.perf_counter() - started
        (losses, parts), taken = judge(), taken + stretch
        for i, loss in enumerate(losses):
            alive[i] &= math.isfinite(loss) and loss <= DIVERGED * initial[i]
            if alive[i]:
                curves[i].append([taken, loss])
    words = np.bincount(made.problem.fifths, minlength=FIFTHS) if parts else ()
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
        | ({"fifths": _fifths(words, *(x[i] for x in parts), lives)} if parts else {})
        for i, lives in enumerate(alive)
    ]


def _fifths(words, sums, counts, lives):
    return [
        {"words": int(n), "labels": int(count), "loss": total / count if lives and count else None}
        for n, total, count in zip(words, sums, counts, strict=True)
    ]
