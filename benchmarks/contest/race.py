"""A race: all contestants take turns, so that a drift of the machine's speed meets all alike."""

from __future__ import annotations

import dataclasses
import gc
import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# What a turn of several steps lasts at least: the wait for a GPU at its end then weighs little.
TURN_SECONDS = 0.05


@dataclasses.dataclass
class Contestant:
    """One method in one mode: how to take steps, and what was measured of it.

    Attributes:
        method: The optimizer's name in the table.
        mode: How its step runs, as in `eager`.
        step: Takes `steps` steps and returns when they are done.
        slot_bytes: Bytes that it keeps beside the variables.
        peak: A function of `step` that runs it and returns the bytes it needed besides, or `None`.
        extra_bytes: What `peak` found, or was known before.
        ready: Called before each turn, uncounted.
        done: Called after each turn, uncounted.
        steps: How many steps one call of `step` takes.
        first: Seconds until the first step was done, compilation included.
        seconds: Seconds a step, one number for each round.
    """

    method: str
    mode: str
    step: Callable[[], object]
    slot_bytes: int = 0
    peak: Callable[[Callable[[], object]], int | None] | None = None
    extra_bytes: int | None = None
    ready: Callable[[], object] | None = None
    done: Callable[[], object] | None = None
    steps: int = 1
    first: float | None = None
    seconds: list[float] = dataclasses.field(default_factory=list)

    def begin(self) -> None:
        """Takes the first step, which may compile, and one in which the peak memory is watched."""
        first = self._turn()
        # What compiled before it has said how long that took.
        self.first = first if self.first is None else self.first
        gc.collect()
        if self.peak:
            self.extra_bytes = self.peak(self.step)

    def run(self) -> None:
        """Takes one timed turn."""
        self.seconds.append(self._turn() / self.steps)

    def _turn(self) -> float:
        if self.ready:
            self.ready()
        started = time.perf_counter()
        self.step()
        seconds = time.perf_counter() - started
        if self.done:
            self.done()
        return seconds


def race(contestants: Sequence[Contestant], rounds: int) -> None:
    """Every contestant's first step, then `rounds` timed turns of each, all in turn.

    Ctrl-C ends it early, with the rounds run so far.
    """
    for number, contestant in enumerate(contestants, 1):
        progress(f"first step {number}/{len(contestants)}: {contestant.method}, {contestant.mode}")
        contestant.begin()
    try:
        for number in range(1, rounds + 1):
            progress(f"round {number}/{rounds}")
            for contestant in contestants:
                contestant.run()
    except KeyboardInterrupt:
        complete = len(contestants[-1].seconds)
        if not complete:
            raise
        print(f"Stopped after {complete} rounds.", file=sys.stderr)
        for contestant in contestants:
            del contestant.seconds[complete:]
    progress("")


def calls_in(seconds: float, function: Callable[[], object], count: int) -> int:
    """How many calls fill some seconds, after a run of `function`, which makes `count` of them."""
    started = time.perf_counter()
    function()
    return max(1, math.ceil(seconds * count / (time.perf_counter() - started)))


def progress(text: str) -> None:
    """Shows a line on standard error that the next one overwrites."""
    print(f"  {text:60}", end="\r", file=sys.stderr, flush=True)


def quartiles(seconds: Sequence[float] | np.ndarray) -> list[float]:
    """The first quartile, the median and the third."""
    import numpy as np

    return np.percentile(seconds, [25, 50, 75]).tolist()


def ratio(one: Sequence[float] | None, other: Sequence[float] | None) -> list[float] | None:
    """Quartiles of the rounds' ratios of one contestant's time to another's, median second."""
    import numpy as np

    if not one or not other:
        return None
    return quartiles(np.divide(one, other))
