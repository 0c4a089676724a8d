"""One training, on the JAX backend: sixteen compiled stretches, the held-out loss after each."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras

from training.contestants import CONTESTANTS
from training.schedules import WarmUp
from training.workloads import CHECKPOINTS, Workload

DIVERGED = 2.0  # Times the first held-out loss: what is above it does not come back.


def trainings(
    workload: Workload,
    contestant: str,
    hyperparameters: dict[str, float],
    seeds: Sequence[int],
    steps: int,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Trains once with each seed; what is compiled serves all.

    Args:
        workload: What to train.
        contestant: A key of `CONTESTANTS`.
        hyperparameters: One value of each of the contestant's.
        seeds: Of weights and data.
        steps: Steps of a training, a multiple of `CHECKPOINTS`.

    Yields:
        A seed and what came out: `status` (`"done"` or `"diverged"`), `initial` (the held-out loss
        before the first step), `curve` (a list of `[step, held-out loss]`), `loss` (the last of
        them, `None` where it diverged), `training_loss` (the mean of the last stretch),
        `steps_per_second` (without compiling and without held-out losses), `compile_seconds`.
    """
    if steps < CHECKPOINTS or steps % CHECKPOINTS:
        raise ValueError(f"steps must be a multiple of {CHECKPOINTS}. Received: {steps}")
    compiled = None
    for seed in seeds:
        problem = workload.make(workload, seed, steps)
        keras.utils.set_random_seed(seed)
        optimizer = make_optimizer(contestant, hyperparameters, steps)
        optimizer.build(problem.model.trainable_variables)
        state = [
            [jnp.array(v.value) for v in of]
            for of in (
                problem.model.trainable_variables,
                problem.model.non_trainable_variables,
                optimizer.variables,
            )
        ]
        if compiled is None:
            compiled = _compiled(problem, optimizer, state, steps // CHECKPOINTS)
        yield seed, _train(problem, state, steps // CHECKPOINTS, *compiled)


def make_optimizer(contestant: str, hyperparameters: dict[str, float], steps: int):
    """The contestant's optimizer with these hyperparameters and its schedule of the rate."""
    made = CONTESTANTS[contestant]
    rest = dict(hyperparameters)
    schedule = WarmUp(rest.pop("rate"), rest.pop("warmup"), steps, made.decays)
    return made.make(schedule, **rest)


def _compiled(problem, optimizer, state, stretch):
    """The compiled stretch of steps and the compiled held-out loss, and the seconds it took."""
    started = time.perf_counter()
    model, loss_of = problem.model, problem.loss

    def loss(trainable, others, inputs, labels):
        outputs, others = model.stateless_call(trainable, others, inputs, training=True)
        return loss_of(outputs, labels), others

    def take(state, data, first):
        def step(state, number):
            trainable, others, slots = state
            inputs, labels = problem.batch(data, number)
            gradient = jax.value_and_grad(loss, has_aux=True)
            (value, others), gradients = gradient(trainable, others, inputs, labels)
            trainable, slots = optimizer.stateless_apply(slots, gradients, trainable)
            return [list(trainable), list(others), list(slots)], value

        return jax.lax.scan(step, state, first + jnp.arange(stretch))

    def held_out_loss(state, held_out):
        trainable, others, slots = state
        if hasattr(optimizer, "evaluated"):
            values = zip(optimizer.variables, slots, strict=True)
            with keras.StatelessScope(state_mapping=list(values)):
                trainable = optimizer.evaluated(trainable)

        def one(batch):
            outputs, _ = model.stateless_call(trainable, others, batch[0], training=False)
            return loss_of(outputs, batch[1])

        return jnp.mean(jax.lax.map(one, held_out))

    take = jax.jit(take, donate_argnums=0).lower(state, problem.data, 0).compile()
    held_out_loss = jax.jit(held_out_loss).lower(state, problem.held_out).compile()
    return take, held_out_loss, time.perf_counter() - started


def _train(problem, state, stretch, take, held_out_loss, compile_seconds):
    def judge():
        return float(held_out_loss(state, problem.held_out))

    initial, seconds, curve = judge(), 0.0, []
    loss = training_loss = initial
    taken = 0
    for number in range(CHECKPOINTS):
        started = time.perf_counter()
        state, losses = take(state, problem.data, jnp.asarray(number * stretch, "int32"))
        training_loss = float(jnp.mean(losses))
        seconds += time.perf_counter() - started
        loss, taken = judge(), number + 1
        if not math.isfinite(loss) or loss > DIVERGED * initial:
            break
        curve.append([(number + 1) * stretch, loss])
    done = len(curve) == CHECKPOINTS
    return {
        "status": "done" if done else "diverged",
        "initial": initial,
        "curve": curve,
        "loss": loss if done else None,
        "training_loss": training_loss if done else None,
        "steps_per_second": taken * stretch / seconds,
        "compile_seconds": compile_seconds,
    }
