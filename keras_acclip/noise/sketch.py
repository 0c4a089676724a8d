"""A CountSketch of a gradient: short enough to keep one for every batch, linear, true to norms.

The gradient's coordinates are multiplied by random signs and summed into k buckets by index mod k.
The squared norm of a sketch is an unbiased estimate of the squared norm of what was sketched; its
relative standard error is at most √(2/k), that of the norm √(1/(2k)): 0.28% at k = 65521.

Reference: Charikar, Chen and Farach-Colton, "Finding frequent items in data streams", 2002.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from keras_acclip._utils.typing import Array, Ops

# The largest prime below 2^16: with a prime, rows and columns of weight matrices do not fall
# together.
BUCKETS = 65521

# How many rows of buckets a sweep sums side by side: enough to share among threads, few enough to
# stay in a cache.
_SLAB = 8


Term: TypeAlias = Callable[..., Sequence[Array]]
"""`term(i, *slabs)`: the arrays that a sweep sums, of a slab's number and the slabs."""


class Sweep(Protocol):
    """A loop over the slabs of long vectors."""

    def __call__(
        self, term: Term, flats: Sequence[Array], size: int, count: int
    ) -> Sequence[Array]:
        """Returns the sum over i < count of the arrays that `term(i, *slabs)` returns.

        Args:
            term: What is summed; i is a uint32 scalar, a slab `flat[i * size : (i + 1) * size]`.
            flats: Long vectors of one length.
            size: Coordinates of a slab.
            count: Number of slabs.
        """
        ...


class _Block(NamedTuple):
    """Variables that are sketched as one vector.

    Attributes:
        variables: Their positions in the list of gradients.
        offset: Index of the block's first coordinate in its group.
        size: Number of coordinates.
    """

    variables: list[int]
    offset: int
    size: int


class CountSketch:
    """Maps a list of gradients to its sketch, group of variables by group of variables.

    Every group has a sketch of its own, and the sketch of the whole gradient is all of them, end to
    end. A group of at most `buckets` coordinates is kept whole, up to signs: then nothing is lost.

    The methods take an array namespace `xp` with NumPy's names: `jax.numpy`,
    `tensorflow.experimental.numpy` or NumPy itself. XLA can compile them; they scatter nothing and
    copy no variable of 8·buckets coordinates or more.

    Args:
        sizes: Number of coordinates of each variable.
        groups: For each group, the positions of its variables; each variable in one group. `None`
            puts all variables into one group.
        buckets: Length k of the sketch of a group; best a prime. Defaults to 65521.
        seed: Seed of the random signs, a whole number.
        sweep: `None`, or a `Sweep`, for a CPU: XLA there copies what it sums, and sums long columns
            slowly.
        coordinates: How many coordinates, drawn by `seed`, to keep as they are behind the sketch;
            at most all.

    Attributes:
        group_sizes: Number of coordinates of each group.
        lengths: Length of the sketch of each group.
        picked: The coordinates kept as they are: of each variable, their places in it.

    Example:

    >>> sketch = CountSketch([3, 2], seed=1)
    >>> gradients = [np.array([3, 0, 0], "float32"), np.array([0, 4], "float32")]
    >>> squares, projected = sketch.digest(np, gradients)
    >>> float(squares[0]), float(np.linalg.norm(projected))
    (25.0, 5.0)
    """

    def __init__(
        self,
        sizes: Sequence[int],
        groups: Sequence[Sequence[int]] | None = None,
        buckets: int = BUCKETS,
        seed: int = 0,
        sweep: Sweep | None = None,
        coordinates: int = 0,
    ) -> None:
        self.sizes = list(sizes)
        self.buckets = buckets
        self.groups = [list(range(len(self.sizes)))] if groups is None else groups
        self.group_sizes = [sum(self.sizes[i] for i in group) for group in self.groups]
        self.lengths = [min(buckets, size) for size in self.group_sizes]
        self._blocks = [self._divide(group) for group in self.groups]
        self._key = _mix(seed & 0xFFFFFFFF)
        self._sweep = sweep
        self.picked = _drawn(self.sizes, coordinates, seed)

    @property
    def is_whole(self) -> bool:
        """Whether the sketch keeps every coordinate, so that its norms are exact."""
        return self.lengths == self.group_sizes

    def _divide(self, group: Sequence[int]) -> list[_Block]:
        """Packs the variables of less than a slab, in order, into blocks of two slabs or so."""
        slab = _SLAB * self.buckets
        packs: list[list[int]] = [[]]
        for i in group:
            if self.sizes[i] < slab:
                if sum(self.sizes[j] for j in packs[-1]) > 2 * slab:
                    packs.append([])
                packs[-1].append(i)
        large = [[i] for i in group if self.sizes[i] >= slab]
        blocks, offset = [], 0
        for variables in [pack for pack in packs if pack] + large:
            size = sum(self.sizes[i] for i in variables)
            blocks.append(_Block(variables, offset, size))
            offset += size
        return blocks

    def digest(self, xp: Ops, gradients: Sequence[Array]) -> tuple[Array, Array]:
        """Returns the squared norms of the groups of `gradients`, and the sketch.

        Args:
            xp: Array namespace.
            gradients: One float32 array a variable, of any shape.

        Returns:
            float32 of shape `(len(groups),)`, and float32 of shape `(sum(lengths) + picked,)`.
        """

        def term(first: Array, flat: Array) -> tuple[Array, Array]:
            return xp.square(flat), self._signed(xp, flat, first)

        squares, sketches = [], []
        for blocks, length in zip(self._blocks, self.lengths, strict=True):
            square: Any = 0
            sketch: Any = 0
            for block in blocks:
                flat = _flatten(xp, gradients, block)
                folded, part = self._fold(xp, term, [flat], block.offset, length)
                shift = block.offset % length
                sketch += xp.concatenate([part[length - shift :], part[: length - shift]])
                square += xp.sum(folded)
            squares.append(square)
            sketches.append(sketch)
        kept = [
            xp.take(xp.reshape(gradients[i], (-1,)), places) for i, places in self.picked.items()
        ]
        return xp.stack(squares), xp.concatenate([*sketches, *kept])

    def squares(self, xp: Ops, arrays: Sequence[Array]) -> Array:
        """Returns the squared norms of the groups of `arrays`: float32, shape `(len(groups),)`.

        Args:
            xp: Array namespace.
            arrays: One float32 array a variable, of any shape.
        """
        return self._sums(xp, [xp.sum(xp.square(array)) for array in arrays])

    def deviations(
        self,
        xp: Ops,
        gradients: Sequence[Array],
        sums: Sequence[Array],
        gradient_factor: Array,
        sum_factor: Array,
    ) -> Array:
        """Returns the squared norms of the groups of gradient·gradient_factor − sum·sum_factor.

        Args:
            xp: Array namespace.
            gradients: One float32 array a variable, of any shape.
            sums: As many of the same shapes.
            gradient_factor: A scalar.
            sum_factor: A scalar.
        """
        return self._sums(
            xp,
            [
                xp.sum(xp.square(gradient * gradient_factor - summed * sum_factor))
                for gradient, summed in zip(gradients, sums, strict=True)
            ],
        )

    def _sums(self, xp: Ops, scalars: Sequence[Array]) -> Array:
        return xp.stack([sum(scalars[i] for i in group) for group in self.groups])

    def _fold(
        self, xp: Ops, term: Term, flats: Sequence[Array], offset: int, length: int
    ) -> list[Array]:
        """Sums what `term(index of the first, *flats)` returns by position mod `length`."""
        size = math.prod(flats[0].shape)
        slab = _SLAB * length
        sweep = self._sweep
        slabs = size // slab if sweep else 0
        done = slabs * slab
        rests = term(xp.uint32((offset + done) % 2**32), *(flat[done:] for flat in flats))
        folded = [_add_rows(xp, rest, size - done, length) for rest in rests]
        if sweep and slabs:

            def numbered(i: Array, *parts: Array) -> Sequence[Array]:
                return term(xp.uint32(offset % 2**32) + i * xp.uint32(slab), *parts)

            totals = sweep(numbered, flats, slab, slabs)
            swept = [_add_rows(xp, total, slab, length) for total in totals]
            folded = [a + b for a, b in zip(folded, swept, strict=True)]
        return folded

    def _signed(self, xp: Ops, flat: Array, first: Array) -> Array:
        """Returns `flat` with signs by seed and index, the first of which is `first`."""
        index = xp.arange(math.prod(flat.shape), dtype=xp.uint32) + first
        bit = _mix(index ^ xp.uint32(self._key), xp.uint32) & xp.uint32(1)
        return xp.where(bit == xp.uint32(0), flat, -flat)


def _drawn(sizes: Sequence[int], count: int, seed: int) -> dict[int, np.ndarray]:
    """Draws coordinates of all variables; their places by variable, in order."""
    total = sum(sizes)
    generator = np.random.default_rng(seed)
    drawn = np.sort(generator.choice(total, min(count, total), replace=False))
    starts = np.cumsum([0, *sizes])
    owners = np.searchsorted(starts, drawn, "right") - 1
    return {int(i): (drawn[owners == i] - starts[i]).astype(np.int32) for i in np.unique(owners)}


def _flatten(xp: Ops, arrays: Sequence[Array], block: _Block) -> Array:
    flat = [xp.reshape(arrays[i], (-1,)) for i in block.variables]
    return flat[0] if len(flat) == 1 else xp.concatenate(flat)


def _add_rows(xp: Ops, flat: Array, size: int, length: int) -> Array:
    """Sums the `size` entries of `flat` by position mod `length`."""
    rows, rest = divmod(size, length)
    total: Any = 0
    if rows > _SLAB:
        total = xp.sum(xp.reshape(flat[: rows * length], (rows, length)), axis=0)
    else:
        # XLA fuses these, and copies for the above.
        for row in range(rows):
            total += flat[row * length : (row + 1) * length]
    if rest or not rows:
        padding = xp.zeros((length - rest,), xp.float32)
        total += xp.concatenate([flat[rows * length :], padding])
    return total


def _mix(h: Any, uint32: Callable[[int], Any] = lambda constant: constant) -> Any:
    """Hashes 32-bit unsigned integers: the finalizer of MurmurHash3.

    Shifts are written as divisions, an operator that TensorFlow, JAX and NumPy share.
    """
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h = h ^ (h // uint32(1 << shift))
        h = (h * uint32(factor)) & uint32(0xFFFFFFFF)
    return h ^ (h // uint32(1 << 16))
