"""Measures the gradient noise of a compiled model at fixed weights."""

import math
import os
import re
import sys
import warnings

import keras
import numpy as np

from keras_acclip._utils import arguments
from keras_acclip.noise.batches import open_batches, preserved_random_state
from keras_acclip.noise.losses import CompiledLoss, LegacyLoss
from keras_acclip.noise.sample import Advice, NoiseSample
from keras_acclip.noise.sketch import BUCKETS, CountSketch

__all__ = ["Advice", "NoiseMeter", "NoiseSample", "measure_noise"]

METHODS = ("sketch", "exact")
REMAINDERS = ("drop", "weight")
_REST = "rest"
# How far a batch's loss may differ between the two passes of the exact method.
_SAME_LOSS = 1e-3


def measure_noise(
    model,
    dataset,
    num_batches=256,
    *,
    method="sketch",
    batch_size=32,
    class_weight=None,
    groups=None,
    remainder="drop",
    training=True,
    sketch_size=BUCKETS,
    seed=0,
    verbose=1,
):
    """Measures the norms of a model's gradient noise over mini-batches, at fixed weights.

    The gradient g of a batch is that of the loss that `fit` minimizes: sample weights,
    regularization, `add_loss` and an overridden `compute_loss` are in it; not an overridden
    `train_step`. Norms are those of unscaled float32 gradients; under `tf.distribute`, of the
    global batch's.

    The model is left as it was: weights, optimizer, metrics, BatchNorm statistics, seed generators
    and compiled functions; a following `fit` gives bitwise the same result. Only a model without
    weights is given them, as its first call would.

    Memory: two gradients (a batch's and the sum of all) beyond the model, on its device; and
    4·sketch_size bytes a batch and group, on the host.

    Args:
        model: A compiled `keras.Model` on the TensorFlow or JAX backend, or a `tf_keras.Model`.
        dataset: Batches for `fit`: a batched `tf.data.Dataset`, arrays `(x, y)` or
            `(x, y, sample_weight)`, a `keras.utils.PyDataset`, a generator or another iterable. A
            `tf.data.Dataset` is read from a copy, so that its shuffles do not move on; a
            generator's batches are used up. A KerasHub task gets raw data, as in `fit`.
        num_batches: Most batches to measure; fewer if the data ends before. Defaults to 256.
        method: `"sketch"`, one pass: ‖g − ḡ‖ is the norm of the difference of two sketches
            (`keras_acclip.noise.sketch`), with a relative standard error of at most
            √(1/(2·sketch_size)), 0.28%; exact for models of at most `sketch_size` parameters.
            `"exact"`, two passes over the same batches: data that reads only once, such as a
            generator, is held in memory. ‖g‖ and ‖ḡ‖ are exact in both. Defaults to `"sketch"`.
        batch_size: Examples in a batch, if `dataset` is arrays. Defaults to 32.
        class_weight: `None`, or a dict from class index to weight, as in `fit`.
        groups: A break-down of the norms: `None`; `"layer"`, by the part of variable paths after
            what all share; a list of regular expressions on variable paths, or a dict of names to
            such. A variable belongs to the first that is found in its path, else to `"rest"`.
        remainder: `"drop"` leaves out batches with more or fewer examples than the first;
            `"weight"` keeps them, weighted by their examples in ḡ and in moments. Defaults to
            `"drop"`.
        training: Whether layers run as in training, with dropout. Defaults to `True`.
        sketch_size: Length of a group's sketch; best a prime. Defaults to 65521.
        seed: Seed of the sketch's signs and of the order of arrays; a whole number.
        verbose: 0 silent, 1 a progress bar, 2 one line. Interruption (Ctrl-C) returns what was
            measured so far; an interrupted exact measurement, by its sketches.

    Returns:
        A `NoiseSample`.

    Raises:
        NotImplementedError: If Keras runs on another backend.
        TypeError: If `model` or `dataset` is of another type.
        ValueError: If the model is not compiled or has no trainable variables, there are fewer than
            two batches, an argument is out of range, or the second pass differs from the first.

    Example:

    >>> sample = measure_noise(model, dataset, num_batches=400)
    >>> print(sample.summary())
    >>> sample.classify().label
    'concentrated'

    References:
        Zhang et al., "Why are Adaptive Methods Good for Attention Models?", NeurIPS 2020,
        Section 2 and Figure 1 (https://arxiv.org/abs/1912.03194).
    """
    meter = NoiseMeter(
        model,
        method=method,
        groups=groups,
        remainder=remainder,
        training=training,
        sketch_size=sketch_size,
        seed=seed,
    )
    batches = open_batches(
        dataset,
        batch_size=arguments.positive_integer("batch_size", batch_size),
        class_weight=class_weight,
        preprocess=getattr(model, "preprocess_samples", None),
        seed=seed,
    )
    return meter.measure(batches, num_batches, verbose=verbose)


class NoiseMeter:
    """Measures one model's noise as often as asked, compiling the computation once.

    Args:
        model: As in `measure_noise`, like all other arguments.
        method: `"sketch"` or `"exact"`.
        groups: Break-down.
        remainder: `"drop"` or `"weight"`.
        training: Whether layers run as in training.
        sketch_size: Length of a group's sketch.
        seed: Seed of the sketch's signs.
    """

    def __init__(
        self,
        model,
        *,
        method="sketch",
        groups=None,
        remainder="drop",
        training=True,
        sketch_size=BUCKETS,
        seed=0,
    ):
        self.model = model
        self.settings = {
            "method": method,
            "groups": groups,
            "remainder": remainder,
            "training": training,
            "sketch_size": sketch_size,
            "seed": seed,
        }
        self.method = arguments.one_of("method", method, METHODS)
        self.remainder = arguments.one_of("remainder", remainder, REMAINDERS)
        self.groups = checked_groups(groups)
        self.training = arguments.flag("training", training)
        self.sketch_size = arguments.positive_integer("sketch_size", sketch_size)
        self.seed = seed
        self._make_engine, loss = _backend(model)
        self._loss = loss(model, training)
        self._engine = None
        self._variables = None

    def measure(self, batches, num_batches=256, verbose=1):
        """Returns a `NoiseSample` of at most `num_batches` of `batches`.

        On `KeyboardInterrupt` the sample holds what was measured, if that is two batches or more,
        and its `interrupted` is `True`.

        Args:
            batches: A `Batches` source.
            num_batches: Most batches to measure.
            verbose: As in `measure_noise`.
        """
        num_batches = arguments.positive_integer("num_batches", num_batches)
        if not self.model.built and batches.repeatable:
            with preserved_random_state():
                batch = next(batches.read(), None)
            if batch is not None:
                self.engine(batch)
        with preserved_random_state():
            return _Measurement(self, batches, num_batches, verbose).run()

    def engine(self, batch):
        """Returns the engine, made anew if the set of trainable variables has changed."""
        self._loss.build(batch)
        variables = [id(v) for v in self._loss.variables]
        if variables != self._variables:
            if not variables:
                raise ValueError("The model has no trainable variables, so no gradient noise.")
            paths = [getattr(v, "path", v.name) for v in self._loss.variables]
            self.group_names, members = _divide(paths, self.groups)
            sizes = [math.prod(v.shape) for v in self._loss.variables]
            self.sketch = CountSketch(sizes, members, self.sketch_size, self.seed)
            self._engine = self._make_engine(self._loss, self.sketch)
            self._variables = variables
        return self._engine


class _Measurement:
    """One run of a `NoiseMeter` over batches."""

    def __init__(self, meter, batches, num_batches, verbose):
        self._meter = meter
        self._batches = batches.held(num_batches) if meter.method == "exact" else batches
        self._num_batches = num_batches
        self._engine = None
        self._outcomes = []
        self._sizes = []
        self._dropped = 0
        passes = 1 if meter.method == "sketch" else 2
        total = min(num_batches, self._batches.total or num_batches)
        self._bar = keras.utils.Progbar(passes * total, verbose=verbose, unit_name="batch")

    def run(self):
        """Returns the `NoiseSample`."""
        squares, interrupted = None, False
        try:
            try:
                self._first_pass()
                if self._needs_second_pass():
                    squares = self._second_pass()
            except KeyboardInterrupt:
                interrupted = True
                if len(self._finite(self._outcomes)) < 2:
                    raise
            return self._sample(squares, interrupted)
        finally:
            if self._engine is not None:
                self._engine.close()

    def _needs_second_pass(self):
        return self._meter.method == "exact" and not self._meter.sketch.is_whole

    def _first_pass(self):
        for batch, size in self._chosen():
            if self._engine is None:
                self._engine = self._meter.engine(batch)
                self._engine.open()
            digest = self._engine.absorb(batch, size / (self._sizes[0] if self._sizes else size))
            self._outcomes.append(digest)
            self._sizes.append(size)
            norm = math.sqrt(digest.squares.sum())
            self._bar.update(len(self._outcomes), [("gradient_norm", norm)])
        if len(self._outcomes) < 2:
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
        if not self._needs_second_pass():
            self._bar.update(len(self._outcomes), finalize=True)

    def _second_pass(self):
        """Returns ‖g − ḡ‖² of each finite batch and group; shape `(n, groups)`."""
        self._engine.rewind()
        squares = []
        again = self._chosen()
        for i, first in enumerate(self._outcomes):
            batch, _ = next(again, (None, 0))
            same = batch is not None
            if same:
                loss, deviations = self._engine.deviate(batch, self._total)
                same = np.isclose(loss, first.loss, _SAME_LOSS, _SAME_LOSS, equal_nan=True)
            if not same:
                raise ValueError(
                    'method="exact" needs the same batches and random numbers in both passes, but '
                    f"batch {i} came out differently in the second. Give shuffles and random "
                    'layers a seed, or use method="sketch".'
                )
            if first.is_finite:
                squares.append(deviations)
            self._bar.update(len(self._outcomes) + i + 1, finalize=i + 1 == len(self._outcomes))
        return np.array(squares, np.float64)

    def _chosen(self):
        """Yields batches with their sizes, up to the number asked for."""
        self._dropped = count = first = 0
        for batch in self._batches.read():
            size = _examples(batch)
            first = first or size
            if size != first and self._meter.remainder == "drop":
                self._dropped += 1
                continue
            yield batch, size
            count += 1
            if count == self._num_batches:
                return

    def _finite(self, values):
        return [v for v, digest in zip(values, self._outcomes, strict=True) if digest.is_finite]

    @property
    def _total(self):
        """Sum of the weights of the finite batches, the first batch having weight 1."""
        return sum(self._finite(self._sizes)) / self._sizes[0]

    def _sample(self, squares, interrupted):
        meter, digests = self._meter, self._finite(self._outcomes)
        sizes = np.array(self._finite(self._sizes), np.int64)
        gradients = _stack([d.squares for d in digests], meter.sketch)
        nonfinite = len(self._outcomes) - len(digests)
        if nonfinite:
            warnings.warn(
                f"{nonfinite} of {len(self._outcomes)} batches had a gradient that is not finite; "
                "they are left out of the sample.",
                stacklevel=2,
            )
        deviations, means = _sketched_squares(digests, sizes, meter.sketch)
        exact = squares is not None or meter.sketch.is_whole
        squares = deviations if squares is None else squares
        # An interruption may have come between the sum of the gradients and the count of batches.
        if digests and not interrupted:
            means = np.asarray(self._engine.mean_squares(self._total), np.float64)
        grouped = meter.groups is not None
        return NoiseSample(
            norms=np.sqrt(squares.sum(1)),
            gradient_norms=np.sqrt(gradients.sum(1)),
            losses=np.array([d.loss for d in digests], np.float64),
            batch_sizes=sizes,
            mean_gradient_norm=float(np.sqrt(means.sum())),
            groups=tuple(meter.group_names) if grouped else (),
            group_norms=np.sqrt(squares.T) if grouped else np.zeros((0, len(sizes))),
            group_gradient_norms=np.sqrt(gradients.T) if grouped else np.zeros((0, len(sizes))),
            group_mean_gradient_norms=np.sqrt(means) if grouped else np.zeros(0),
            group_parameters=tuple(meter.sketch.group_sizes) if grouped else (),
            nonfinite=nonfinite,
            dropped=self._dropped,
            parameters=sum(meter.sketch.sizes),
            model=meter.model.name,
            step=_step(meter.model),
            interrupted=interrupted,
            settings=meter.settings
            | {"num_batches": self._num_batches, "method": "exact" if exact else "sketch"},
        )


def _sketched_squares(digests, sizes, sketch):
    """Returns ‖g − ḡ‖² of each batch and group, shape `(n, groups)`, and ‖ḡ‖² of each group.

    Both are those of the sketches; NaN of no batches.
    """
    starts = np.cumsum([0, *sketch.lengths[:-1]])
    if not digests:
        return _stack([], sketch), np.full(len(starts), np.nan)
    mean = np.zeros(sum(sketch.lengths))
    for size, digest in zip(sizes, digests, strict=True):
        mean += size / sizes.sum() * digest.sketch
    squares = [np.add.reduceat((digest.sketch - mean) ** 2, starts) for digest in digests]
    return _stack(squares, sketch), np.add.reduceat(mean**2, starts)


def _stack(rows, sketch):
    return np.array(rows, np.float64).reshape(len(rows), len(sketch.lengths))


def _examples(batch):
    return next(leaf for leaf in keras.tree.flatten(batch) if leaf is not None).shape[0]


def _step(model):
    iterations = getattr(model.optimizer, "iterations", None)
    return -1 if iterations is None else int(np.asarray(iterations))


def checked_groups(groups):
    """Returns `groups` as `None`, `"layer"` or a dict from name to regular expression."""
    if groups is None or groups == "layer":
        return groups
    patterns = groups if isinstance(groups, dict) else {p: p for p in groups}
    for pattern in patterns.values():
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise ValueError(
                "Argument `groups` must be None, 'layer', or regular expressions on variable "
                f"paths, as a list or as a dict's values. Received: {pattern!r} ({error})"
            ) from error
    return patterns


def _divide(paths, groups):
    """Returns the names of the groups, and the positions of each group's variables."""
    if groups is None:
        return ["all"], [list(range(len(paths)))]
    if groups == "layer":
        common = os.path.commonpath([os.path.dirname(path) for path in paths])
        shared = len(common.split("/")) if common else 0
        names = ["/".join(path.split("/")[: shared + 1]) for path in paths]
    else:
        names = [
            next((name for name, pattern in groups.items() if re.search(pattern, path)), _REST)
            for path in paths
        ]
        for name, pattern in groups.items():
            if name not in names:
                raise ValueError(
                    f"Argument `groups`: no variable is left for {pattern!r}. Variable paths are: "
                    f"{', '.join(paths)}"
                )
    order = list(dict.fromkeys(names))
    return order, [[i for i, n in enumerate(names) if n == name] for name in order]


def _backend(model):
    """Returns the classes of the engine and of the loss for a model, which must be compiled."""
    tf_keras = sys.modules.get("tf_keras")
    if isinstance(model, keras.Model):
        plain = type(model).train_step is keras.Model.train_step
        compiled = model.compiled
        backend = keras.config.backend()
    elif tf_keras is not None and isinstance(model, tf_keras.Model):
        plain = type(model).train_step is tf_keras.Model.train_step
        compiled = model.optimizer is not None
        backend = "tf_keras"
    else:
        raise TypeError(
            "Argument `model` must be a keras.Model or a tf_keras.Model. Received: "
            f"model={model!r} (of type {type(model).__name__})"
        )
    if not compiled:
        raise ValueError("Call `model.compile()` first: the noise is that of the compiled loss.")
    if not plain:
        warnings.warn(
            f"{type(model).__name__} overrides `train_step`; the noise measured is that of the "
            "gradient of `compute_loss`.",
            stacklevel=2,
        )
    if backend == "tensorflow":
        from keras_acclip.noise.on_tensorflow import TensorFlowEngine

        return TensorFlowEngine, CompiledLoss
    if backend == "tf_keras":
        from keras_acclip.noise.on_tensorflow import LegacyEngine

        return LegacyEngine, LegacyLoss
    if backend == "jax":
        from keras_acclip.noise.on_jax import JaxEngine

        return JaxEngine, CompiledLoss
    raise NotImplementedError(
        "Gradient noise is measured on the TensorFlow and JAX backends of Keras. This is "
        f"{backend!r}: set KERAS_BACKEND before importing keras."
    )
