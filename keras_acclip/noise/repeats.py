"""Whether the examples of a measurement recur."""

from __future__ import annotations

import zlib
from typing import Any

import keras
import numpy as np

from keras_acclip.noise.engines.base import Batch


class Examples:
    """Counts examples, and how many of them differ, by a checksum of all that each consists of.

    Attributes:
        count: Examples seen.
    """

    def __init__(self) -> None:
        self.count = 0
        self._seen: set[tuple[int, int]] = set()

    def add(self, batch: Batch) -> None:
        """Counts the examples of a batch.

        Args:
            batch: `(x, y, sample_weight)`.
        """
        leaves = [_array(leaf) for leaf in keras.tree.flatten(batch) if leaf is not None]
        size = len(leaves[0])
        self.count += size
        for i in range(size):
            # Two checksums of 32 bits: with one, of 100,000 examples one pair would meet.
            one, other = 0, 1
            for leaf in leaves:
                content = _bytes(leaf[i])
                one, other = zlib.crc32(content, one), zlib.adler32(content, other)
            self._seen.add((one, other))

    @property
    def distinct(self) -> int:
        """How many differ."""
        return len(self._seen)


def _array(leaf: Any) -> np.ndarray:
    try:
        return np.asarray(leaf)
    except (TypeError, RuntimeError):  # A tensor on a GPU, of PyTorch.
        return np.asarray(keras.ops.convert_to_numpy(leaf))


def _bytes(row: Any) -> bytes:
    row = np.asarray(row)
    return repr(row.tolist()).encode() if row.dtype == object else row.tobytes()
