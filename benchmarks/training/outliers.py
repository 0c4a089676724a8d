"""A small Transformer on characters; one in a hundred of its batches is an outlier."""

from __future__ import annotations

import zlib

import jax.numpy as jnp
import keras
import numpy as np
from paper.lab.clipping import character_model

from training.order import passes
from training.workloads import Problem, Workload
from training.zipf import cross_entropy


def problem(workload: Workload, seed: int, steps: int) -> Problem:
    """The Transformer of `examples/paper/moving_thresholds.py`; all labels of an outlier are one.

    Args:
        workload: Its `sizes` has the share of `outliers` and the `held_out` rows.
        seed: Of the initial weights, the order of the rows, and the outliers.
        steps: Steps of the training; past the workload's own, its outliers stay what they are.
    """
    rows, sizes = character_model.text_rows(), workload.sizes
    unseen, seen = rows[: sizes["held_out"]], rows[sizes["held_out"] :]
    keras.utils.set_random_seed(seed)
    model = character_model.build_model()
    shared = {"seen": jnp.asarray(seen), "unseen": _next_characters(jnp.asarray(unseen)[None])}
    whole = max(steps, workload.steps)
    stretches = (0, workload.steps), (workload.steps, whole)
    drawn = [_outliers((seed, end), end - first, sizes["outliers"]) for first, end in stretches]
    outlier, wrong = (np.concatenate(part) for part in zip(*drawn, strict=True))
    own = {
        "order": passes(len(seen), workload.batch, seed, whole),
        "outlier": jnp.asarray(outlier),
        "wrong": jnp.asarray(wrong, "int32"),
    }

    def batch(shared, own, step):
        inputs, labels = _next_characters(shared["seen"][own["order"][step]])
        return inputs, jnp.where(own["outlier"][step], own["wrong"][step], labels)

    return Problem(model, cross_entropy, shared, own, batch, lambda shared, own: shared["unseen"])


def _outliers(seed, count, share):
    """Which of so many batches are outliers, and the label of each if it is."""
    random = np.random.default_rng(seed)
    return random.random(count) < share, random.integers(character_model.CHARACTERS, size=count)


def _next_characters(rows):
    return rows[..., :-1], rows[..., 1:]


def name() -> str:
    """Tells one text from another: Python's help depends on its version."""
    rows = character_model.text_rows()
    count, length = rows.shape
    return f"{count} rows of {length} characters, {zlib.crc32(rows.astype('uint8').tobytes()):08x}"
