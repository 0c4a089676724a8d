"""Turns on JAX: calls, each on what the one before it made. The plain copy is one of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from contest import methods
from contest.race import TURN_SECONDS, Contestant, calls_in


def chained(
    start: Callable[[], Any],
    advance: Callable[[Any], Any],
    finish: Callable[[Any], object],
    steps: int,
    **known: Any,
) -> Contestant:
    """A contestant whose turn is some calls, each on what the one before it made.

    Args:
        start: Makes the state that a turn begins with.
        advance: A function state → state.
        finish: Called with the state at the end of a turn.
        steps: How many steps `advance` takes.
        **known: Further arguments of `Contestant`.
    """
    state: Any = None

    def take(calls):
        nonlocal state
        for _ in range(calls):
            state = advance(state)
        jax.block_until_ready(state)

    def ready():
        nonlocal state
        state = jax.block_until_ready(start())
        take(1)

    def done():
        nonlocal state
        finish(state)
        state = None

    ready()
    calls = calls_in(TURN_SECONDS, lambda: take(2), 2)
    done()
    return Contestant(
        step=functools.partial(take, calls), ready=ready, done=done, steps=calls * steps, **known
    )


def copy(count: int) -> Contestant:
    """A plain copy of one large array that reads and writes ACClip's bytes.

    In one piece: on an H200 copies of 14 arrays or more ran a third slower, of up to 4 as fast.

    Args:
        count: How many parameters ACClip would step over.
    """
    size = methods.of_row(methods.COPY).bytes * count // 8
    start = jax.jit(lambda: (jnp.ones(size), jnp.zeros(size)))
    # Into the memory of the donated array.
    copied = jax.jit(lambda old, new: jnp.copy(old), donate_argnums=1, keep_unused=True)
    return chained(
        start,
        lambda state: (state[0], copied(*state)),
        lambda state: None,
        1,
        method=methods.COPY,
        mode="copy",
    )
