"""Reads mini-batches from whatever `fit` takes, without disturbing what `fit` will read."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_acclip._utils import arguments, compat
from keras_acclip.noise.engines.base import Batch

Preprocess = Callable[[Any, Any, Any], Any]
"""A function of `(x, y, sample_weight)` that gives the same three, as a KerasHub task has it."""


@dataclass(frozen=True)
class Batches:
    """A source of mini-batches.

    Attributes:
        read: Starts a pass: returns an iterator over `(x, y, sample_weight)`.
        total: Number of batches in a pass, or `None` if unknown or endless.
        repeatable: Whether another pass gives the same batches again.
    """

    read: Callable[[], Iterator[Any]]
    total: int | None
    repeatable: bool

    def held(self, count: int) -> Batches:
        """Returns the first `count` batches, which can be read again: in memory if need be."""
        if self.repeatable:
            return self
        kept = list(itertools.islice(self.read(), count))
        return Batches(lambda: iter(kept), len(kept), repeatable=True)


def open_batches(
    dataset: Any,
    *,
    batch_size: int = 32,
    class_weight: Mapping[int, float] | None = None,
    preprocess: Preprocess | None = None,
    seed: int = 0,
) -> Batches:
    """Returns the mini-batches of `dataset` as `Batches`.

    Args:
        dataset: What `fit` takes as data:
            an array or a (nested) list or dict of arrays, x; or a tuple of them, `(x, y)` or
            `(x, y, sample_weight)`: they are shuffled with `seed` and cut into batches;
            a `keras.utils.PyDataset`, or a Keras 2 `Sequence`: its batches in an order shuffled
            with `seed`;
            a `tf.data.Dataset`, batched: read from a copy, so that its shuffles do not move on; a
            shuffle without a seed gets `seed`;
            a `tf.data.Iterator`: it is put back to where it stood, where TensorFlow can save it;
            a generator or other iterator: its batches are used up;
            a list of tuples, or any other iterable over batches, such as a PyTorch `DataLoader`.
        batch_size: Examples in a batch, for arrays. Defaults to 32.
        class_weight: `None`, or a dict from class index to the weight of its examples in the loss.
        preprocess: `None`, or a function of `(x, y, sample_weight)` that gives the same three.
        seed: Seed of every shuffle, a whole number. Defaults to 0.

    Raises:
        TypeError: If `dataset` is none of these.
        ValueError: If arrays differ in length, or an argument is out of range; while reading, if
            `class_weight` cannot be applied.

    Example:

    >>> batches = open_batches((x, y), batch_size=64)
    >>> x, y, sample_weight = next(batches.read())
    """
    batch_size = arguments.positive_integer("batch_size", batch_size)
    tf = sys.modules.get("tensorflow")
    if tf is not None and isinstance(dataset, tf.data.Dataset):
        source = _of_tf_dataset(tf, dataset, preprocess, seed)
        preprocess = None
    elif tf is not None and isinstance(dataset, tf.data.Iterator):
        source = Batches(lambda: _restoring(tf, dataset), None, repeatable=False)
    elif hasattr(dataset, "__next__"):
        source = Batches(lambda: dataset, None, repeatable=False)
    elif isinstance(dataset, list) and dataset and all(isinstance(b, tuple) for b in dataset):
        source = Batches(lambda: iter(dataset), len(dataset), repeatable=True)
    elif _is_arrays(dataset):
        source = _of_arrays(dataset, batch_size, seed)
    elif hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"):
        source = _of_sequence(dataset, seed)
    elif hasattr(dataset, "__iter__") and not (
        tf is not None and isinstance(dataset, tf.distribute.DistributedDataset)
    ):
        source = Batches(lambda: iter(dataset), None, repeatable=True)
    else:
        raise TypeError(
            "Argument `dataset` must be arrays, a tf.data.Dataset, a PyDataset, a generator or "
            f"another iterable over batches. Received: {dataset!r} (of type "
            f"{type(dataset).__name__})"
        )

    def standard(batch: Any) -> Batch:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        if preprocess is not None:
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(
                preprocess(x, y, sample_weight)
            )
        if class_weight is not None:
            sample_weight = _weigh_classes(y, sample_weight, class_weight)
        x, y, sample_weight = (keras.tree.map_structure(_leaf, p) for p in (x, y, sample_weight))
        return x, y, sample_weight

    return Batches(lambda: map(standard, source.read()), source.total, source.repeatable)


@contextlib.contextmanager
def preserved_random_state() -> Iterator[None]:
    """Puts the global generators of Python, NumPy and PyTorch back to where they stood."""
    torch = sys.modules.get("torch")
    python, numpy = random.getstate(), np.random.get_state()
    pytorch = torch.random.get_rng_state() if torch else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        if torch:
            torch.random.set_rng_state(pytorch)


def _is_arrays(dataset: Any) -> bool:
    leaves = keras.tree.flatten(dataset)
    return all(
        isinstance(leaf, str | int | float | None) or hasattr(leaf, "__array__") for leaf in leaves
    ) and any(leaf is not None for leaf in leaves)


def _of_arrays(dataset: Any, batch_size: int, seed: int) -> Batches:
    parts = dataset if isinstance(dataset, tuple) else (dataset,)

    def as_array(leaf: Any) -> np.ndarray | None:
        return None if leaf is None else np.asarray(leaf)

    arrays = tuple(_map_arrays(as_array, part) for part in parts)
    lengths = {len(a) if a.ndim else None for a in keras.tree.flatten(arrays) if a is not None}
    if len(lengths) != 1 or None in lengths:
        raise ValueError(
            "Arrays in argument `dataset` must all have the same number of examples as their first "
            f"dimension. Received: {sorted(map(str, lengths))}"
        )
    length = int(lengths.pop() or 0)

    def read() -> Iterator[Any]:
        order = np.random.default_rng(seed).permutation(length)
        for start in range(0, length, batch_size):
            index = order[start : start + batch_size]
            yield keras.tree.map_structure(
                lambda a, index=index: None if a is None else a[index], arrays
            )

    return Batches(read, -(-length // batch_size), repeatable=True)


def _map_arrays(function: Callable[[Any], Any], structure: Any) -> Any:
    """Maps over arrays, a list of plain values being one array."""
    if isinstance(structure, dict):
        return {name: _map_arrays(function, value) for name, value in structure.items()}
    if isinstance(structure, list | tuple) and structure and hasattr(structure[0], "__array__"):
        return type(structure)(_map_arrays(function, value) for value in structure)
    return function(structure)


def _of_sequence(dataset: Any, seed: int) -> Batches:
    total = dataset.num_batches if hasattr(dataset, "num_batches") else len(dataset)

    def read() -> Iterator[Any]:
        finite = total is not None
        order = np.random.default_rng(seed).permutation(total) if finite else itertools.count()
        return (dataset[int(i)] for i in order)

    return Batches(read, total, repeatable=True)


def _of_tf_dataset(tf: Any, dataset: Any, preprocess: Preprocess | None, seed: int) -> Batches:
    if preprocess is not None:
        dataset = dataset.map(preprocess)
    total = int(dataset.cardinality())

    def read() -> Iterator[Any]:
        try:
            copy = compat.copy_dataset(dataset, seed)
        except tf.errors.OpError as error:
            warnings.warn(
                "The tf.data.Dataset cannot be copied, so reading it moves its shuffles on and the "
                f"next epoch sees another order: {str(error).splitlines()[0]}",
                stacklevel=2,
            )
            copy = dataset
        return iter(copy) if keras.config.backend() != "jax" else copy.as_numpy_iterator()

    return Batches(read, total if total >= 0 else None, repeatable=True)


def _restoring(tf: Any, iterator: Any) -> Iterator[Any]:
    checkpoint = tf.train.Checkpoint(iterator=iterator)
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = checkpoint.write(os.path.join(folder, "iterator"))
        except tf.errors.OpError as error:
            warnings.warn(
                "The tf.data.Iterator cannot be saved, so the batches read from it are used up: "
                f"{str(error).splitlines()[0]}",
                stacklevel=2,
            )
            yield from iterator
            return
        try:
            yield from iterator
        finally:
            checkpoint.read(path)


def _weigh_classes(y: Any, sample_weight: Any, class_weight: Mapping[int, float]) -> np.ndarray:
    if y is None or keras.tree.is_nested(y):
        raise ValueError("Argument `class_weight` needs a single array of labels, y.")
    labels = np.asarray(y)
    if labels.ndim > 1:
        labels = labels[..., 0] if labels.shape[-1] == 1 else labels.argmax(-1)
    labels = np.round(labels).astype(int)
    weights = [class_weight.get(label, 1.0) for label in labels.ravel().tolist()]
    weights = np.asarray(weights, keras.config.floatx()).reshape(labels.shape)
    return weights if sample_weight is None else weights * np.asarray(sample_weight)


def _leaf(leaf: Any) -> Any:
    if isinstance(leaf, np.ndarray | np.generic | list | float | int):
        leaf = np.asarray(leaf)
        if leaf.dtype == np.float64:
            return leaf.astype(keras.config.floatx())
    elif type(leaf).__module__.startswith("torch"):
        return leaf.detach().cpu().numpy()
    return leaf
