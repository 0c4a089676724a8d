"""Tunes each contestant on seeds that are then left out."""

import itertools
import math

STEP = 2.0  # Between neighbours of a grid.


def climb(measure, start):
    """The point of a grid from which no neighbour is better.

    Args:
        measure: Function from a dict of positive numbers to a number, the less the better.
        start: Where to begin: dict from a name to a positive number. The grid is `STEP` apart.

    Returns:
        The point, and how many points were measured.
    """
    seen = {}

    def at(place):
        if place not in seen:
            exponents = dict(zip(start, place, strict=True))
            value = measure({name: start[name] * STEP**e for name, e in exponents.items()})
            seen[place] = value if math.isfinite(value) else math.inf
        return seen[place]

    best = (0,) * len(start)
    while True:
        moves = itertools.product((-1, 0, 1), repeat=len(start))
        around = [tuple(b + m for b, m in zip(best, move, strict=True)) for move in moves]
        better = min(around, key=at)
        if at(better) >= at(best):
            point = {n: start[n] * STEP**e for n, e in zip(start, best, strict=True)}
            return point, len(seen)
        best = better
