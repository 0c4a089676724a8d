"""One measurement: the passes over the batches, and the sample that they come to."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

import keras
import numpy as np

from keras_acclip.noise.data import Batches
from keras_acclip.noise.engines.base import Batch, Digest, Engine
from keras_acclip.noise.repeats import Examples
from keras_acclip.noise.sample import LEAST_DISTINCT, NoiseSample
from keras_acclip.noise.sketch import CountSketch

Method: TypeAlias = Literal["sketch", "exact"]
"""How noise norms are taken: from sketches of the gradients in one pass, or exactly in two."""

Remainder: TypeAlias = Literal["drop", "weight"]
"""What becomes of batches of another size than the first: left out, or counted by their size."""
T = TypeVar("T")

METHODS = ("sketch", "exact")
REMAINDERS = ("drop", "weight")

# How far a batch's loss may differ between the two passes of the exact method.
_SAME_LOSS = 1e-3


@dataclass(frozen=True)
class Instrument:
    """What evaluates a model's gradients.

    Attributes:
        engine: The engine.
        sketch: The sketch that it digests them by.
        groups: Names of the sketch's groups.
    """

    engine: Engine
    sketch: CountSketch
    groups: tuple[str, ...]


class Measurement:
    """One run over batches.

    Args:
        instrument: Returns the `Instrument`, given the first batch.
        batches: What to measure on.
        num_batches: Most batches to measure.
        method: `"sketch"` or `"exact"`.
        remainder: `"drop"` or `"weight"`.
        grouped: Whether the sample breaks the norms down by groups.
        verbose: As in `measure_noise`.
    """

    def __init__(
        self,
        instrument: Callable[[Batch], Instrument],
        batches: Batches,
        num_batches: int,
        *,
        method: Method,
        remainder: Remainder,
        grouped: bool,
        verbose: int,
    ) -> None:
        self._find_instrument = instrument
        self._batches = batches.held(num_batches) if method == "exact" else batches
        self._num_batches = num_batches
        self._method = method
        self._remainder = remainder
        self._grouped = grouped
        self._instrument: Instrument | None = None
        self._outcomes: list[Digest] = []
        self._sizes: list[int] = []
        self._dropped = 0
        self._examples = Examples()
        passes = 1 if method == "sketch" else 2
        total = min(num_batches, self._batches.total or num_batches)
        self._bar = keras.utils.Progbar(passes * total, verbose=verbose, unit_name="batch")

    def run(self) -> NoiseSample:
        """Returns the sample, which does not name the model yet."""
        squares, interrupted = None, False
        try:
            try:
                instrument = self._first_pass()
                if self._needs_second_pass(instrument):
                    squares = self._second_pass(instrument.engine)
            except KeyboardInterrupt:
                interrupted = True
                if self._instrument is None or len(self._finite(self._outcomes)) < 2:
                    raise
                instrument = self._instrument
            return self._sample(instrument, squares, interrupted)
        finally:
            if self._instrument is not None:
                self._instrument.engine.close()

    def _needs_second_pass(self, instrument: Instrument) -> bool:
        return self._method == "exact" and not instrument.sketch.is_whole

    def _first_pass(self) -> Instrument:
        for batch, size in self._chosen():
            if self._instrument is None:
                self._instrument = self._find_instrument(batch)
                self._instrument.engine.open()
            weight = size / (self._sizes[0] if self._sizes else size)
            digest = self._instrument.engine.absorb(batch, weight)
            self._outcomes.append(digest)
            self._sizes.append(size)
            self._examples.add(batch)
            norm = math.sqrt(digest.squares.sum())
            self._bar.update(len(self._outcomes), [("gradient_norm", norm)])
        if self._instrument is None or len(self._outcomes) < 2:
            raise ValueError(
                "Gradient noise needs at least 2 batches. Argument `dataset` gave "
                f"{len(self._outcomes)}, and {self._dropped} of another size."
            )
        if self._dropped > len(self._outcomes):
            warnings.warn(
                f"{self._dropped} batches were left out, as they differ in size from the first; "
                'pass remainder="weight" to keep them.',
                stacklevel=2,
            )
        count, distinct = self._examples.count, self._examples.distinct
        if distinct < LEAST_DISTINCT * count:
            warnings.warn(
                f"Examples recur: of the {count:,} that were measured, {distinct:,} differ. The "
                "sample is smaller than it looks, and its tail is that of these alone.",
                stacklevel=2,
            )
        if not self._needs_second_pass(self._instrument):
            self._bar.update(len(self._outcomes), finalize=True)
        return self._instrument

    def _second_pass(self, engine: Engine) -> np.ndarray:
        """Returns ‖g − ḡ‖² of each finite batch and group; shape `(n, groups)`."""
        engine.rewind()
        squares = []
        again = self._chosen()
        for i, first in enumerate(self._outcomes):
            batch, _ = next(again, (None, 0))
            deviations = None
            if batch is not None:
                loss, deviations = engine.deviate(batch, self._total)
                if not np.isclose(loss, first.loss, _SAME_LOSS, _SAME_LOSS, equal_nan=True):
                    deviations = None
            if deviations is None:
                raise ValueError(
                    'method="exact" needs the same batches and random numbers in both passes, but '
                    f"batch {i} came out differently in the second. Give shuffles and random "
                    'layers a seed, or use method="sketch".'
                )
            if first.is_finite:
                squares.append(deviations)
            self._bar.update(len(self._outcomes) + i + 1, finalize=i + 1 == len(self._outcomes))
        return np.array(squares, np.float64)

    def _chosen(self) -> Iterator[tuple[Batch, int]]:
        """Yields batches with their sizes, up to the number asked for."""
        self._dropped = count = first = 0
        for batch in self._batches.read():
            size = _examples(batch)
            first = first or size
            if size != first and self._remainder == "drop":
                self._dropped += 1
                continue
            yield batch, size
            count += 1
            if count == self._num_batches:
                return

    def _finite(self, values: Sequence[T]) -> list[T]:
        return [v for v, digest in zip(values, self._outcomes, strict=True) if digest.is_finite]

    @property
    def _total(self) -> float:
        """Sum of the weights of the finite batches, the first batch having weight 1."""
        return sum(self._finite(self._sizes)) / self._sizes[0]

    def _sample(
        self, instrument: Instrument, squares: np.ndarray | None, interrupted: bool
    ) -> NoiseSample:
        sketch, digests = instrument.sketch, self._finite(self._outcomes)
        sizes = np.array(self._finite(self._sizes), np.int64)
        gradients = _stack([d.squares for d in digests], sketch)
        nonfinite = len(self._outcomes) - len(digests)
        if nonfinite:
            warnings.warn(
                f"{nonfinite} of {len(self._outcomes)} batches had a gradient that is not finite; "
                "they are left out of the sample.",
                stacklevel=2,
            )
        deviations, means = _sketched_squares(digests, sizes, sketch)
        picked = np.array([d.sketch[sum(sketch.lengths) :] for d in digests], np.float64)
        picked = picked.reshape(len(digests), sum(map(len, sketch.picked.values())))
        if len(sizes):
            picked -= sizes / sizes.sum() @ picked
        exact = squares is not None or sketch.is_whole
        squares = deviations if squares is None else squares
        # An interruption may have come between the sum of the gradients and the count of batches.
        if digests and not interrupted:
            means = np.asarray(instrument.engine.mean_squares(self._total), np.float64)
        sample = NoiseSample(
            norms=np.sqrt(squares.sum(1)),
            gradient_norms=np.sqrt(gradients.sum(1)),
            losses=np.array([d.loss for d in digests], np.float64),
            batch_sizes=sizes,
            mean_gradient_norm=float(np.sqrt(means.sum())),
            group_norms=np.zeros((0, len(sizes))),
            group_gradient_norms=np.zeros((0, len(sizes))),
            nonfinite=nonfinite,
            dropped=self._dropped,
            coordinates=picked,
            parameters=sum(sketch.sizes),
            interrupted=interrupted,
            settings={
                "num_batches": self._num_batches,
                "method": "exact" if exact else "sketch",
                "examples": self._examples.count,
                "distinct_examples": self._examples.distinct,
            },
        )
        if not self._grouped:
            return sample
        return dataclasses.replace(
            sample,
            groups=instrument.groups,
            group_norms=np.sqrt(squares.T),
            group_gradient_norms=np.sqrt(gradients.T),
            group_mean_gradient_norms=np.sqrt(means),
            group_parameters=tuple(sketch.group_sizes),
        )


def _sketched_squares(
    digests: Sequence[Digest], sizes: np.ndarray, sketch: CountSketch
) -> tuple[np.ndarray, np.ndarray]:
    """Returns ‖g − ḡ‖² of each batch and group, shape `(n, groups)`, and ‖ḡ‖² of each group.

    Both are those of the sketches; NaN of no batches.
    """
    starts = np.cumsum([0, *sketch.lengths[:-1]])
    if not digests:
        return _stack([], sketch), np.full(len(starts), np.nan)
    length = sum(sketch.lengths)
    mean = np.zeros(length)
    for size, digest in zip(sizes, digests, strict=True):
        mean += size / sizes.sum() * digest.sketch[:length]
    squares = [np.add.reduceat((digest.sketch[:length] - mean) ** 2, starts) for digest in digests]
    return _stack(squares, sketch), np.add.reduceat(mean**2, starts)


def _stack(rows: Sequence[np.ndarray], sketch: CountSketch) -> np.ndarray:
    return np.array(rows, np.float64).reshape(len(rows), len(sketch.lengths))


def _examples(batch: Batch) -> int:
    return next(leaf for leaf in keras.tree.flatten(batch) if leaf is not None).shape[0]
