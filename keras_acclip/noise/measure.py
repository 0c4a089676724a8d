"""Measures the gradient noise of a compiled model at fixed weights."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_acclip._utils import arguments
from keras_acclip.noise import measurement
from keras_acclip.noise.data import Batches, open_batches, preserved_random_state
from keras_acclip.noise.engines.base import Batch, GradientFunction
from keras_acclip.noise.engines.choose import choose
from keras_acclip.noise.groups import Groups, Patterns, checked_groups, divide
from keras_acclip.noise.sample import NoiseSample
from keras_acclip.noise.sketch import BUCKETS, CountSketch

if TYPE_CHECKING:
    import keras
    import tf_keras

__all__ = ["NoiseMeter", "measure_noise"]


def measure_noise(
    model: keras.Model | tf_keras.Model,
    dataset: Any,
    num_batches: int = 256,
    *,
    method: measurement.Method = "sketch",
    batch_size: int = 32,
    class_weight: Mapping[int, float] | None = None,
    groups: Groups | None = None,
    remainder: measurement.Remainder = "drop",
    training: bool = True,
    sketch_size: int = BUCKETS,
    coordinates: int = 0,
    seed: int = 0,
    verbose: int = 1,
) -> NoiseSample:
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
        coordinates: How many coordinates of the noise, drawn by `seed`, to keep for every batch
            (`NoiseSample.coordinates`): Şimşekli's view of the tail, beside the norm's. Defaults
            to 0.
        seed: Seed of the sketch's signs, of the coordinates and of the order of arrays; a whole
            number.
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
        coordinates=coordinates,
        seed=seed,
    )
    batches = open_batches(
        dataset,
        batch_size=batch_size,
        class_weight=class_weight,
        preprocess=getattr(model, "preprocess_samples", None),
        seed=seed,
    )
    return meter.measure(batches, num_batches, verbose=verbose)


class NoiseMeter:
    """Measures one model's noise as often as asked, compiling the computation once.

    Args:
        model: As in `measure_noise`.
        method: `"sketch"` or `"exact"`, as in `measure_noise`. Defaults to `"sketch"`.
        groups: A break-down of the norms, as in `measure_noise`. Defaults to none.
        remainder: `"drop"` or `"weight"`, as in `measure_noise`. Defaults to `"drop"`.
        training: Whether layers run as in training. Defaults to `True`.
        sketch_size: Length of a group's sketch; best a prime. Defaults to 65521.
        coordinates: How many coordinates to keep, as in `measure_noise`. Defaults to 0.
        seed: Seed of the sketch's signs and the coordinates, a whole number. Defaults to 0.
        gradient: What a training loop of one's own hands to its optimizer, for a `tf_keras.Model`
            that has its variables; it need not be compiled. Default: the gradient of the compiled
            loss. `gradient(batch, seed)` gets `(x, y, sample_weight)` as tensors, on several
            replicas a replica's part, and a seed, an int32 tensor of shape `(2,)`, from which all
            that is random must be drawn. It returns the loss, a scalar, and a gradient for each of
            `model.trainable_variables`, in their order: a tensor, `tf.IndexedSlices` or `None`,
            without a loss scale. Losses and gradients of replicas are summed. It runs in a
            `tf.function`; variables that are not trainable are put back to what they were.
        step: A function that returns the training step for the samples to carry. Default: the
            optimizer's `iterations`.

    Raises:
        NotImplementedError: If Keras runs on another backend.
        TypeError: If `model` is of another type, or of Keras 3 beside a `gradient`.
        ValueError: If the model is not compiled, or an argument is out of range.

    Example:

    >>> meter = NoiseMeter(model)
    >>> batches = open_batches(dataset)  # of keras_acclip.noise.data
    >>> before = meter.measure(batches)
    >>> model.fit(dataset)
    >>> after = meter.measure(batches)
    """

    def __init__(
        self,
        model: keras.Model | tf_keras.Model,
        *,
        method: measurement.Method = "sketch",
        groups: Groups | None = None,
        remainder: measurement.Remainder = "drop",
        training: bool = True,
        sketch_size: int = BUCKETS,
        coordinates: int = 0,
        seed: int = 0,
        gradient: GradientFunction | None = None,
        step: Callable[[], int] | None = None,
    ) -> None:
        self.model: Any = model
        self.method: measurement.Method = arguments.one_of("method", method, measurement.METHODS)
        remainders = measurement.REMAINDERS
        self.remainder: measurement.Remainder = arguments.one_of("remainder", remainder, remainders)
        self.groups: Patterns = checked_groups(groups)
        self.training = arguments.flag("training", training)
        self.sketch_size = arguments.positive_integer("sketch_size", sketch_size)
        self.coordinates = 0
        if coordinates != 0:
            self.coordinates = arguments.positive_integer("coordinates", coordinates)
        self.seed = seed
        self.settings = {
            "method": method,
            "groups": groups,
            "remainder": remainder,
            "training": training,
            "sketch_size": sketch_size,
            "coordinates": coordinates,
            "seed": seed,
        }
        self._backend = choose(model, training, gradient)
        self._step = step or self._iterations
        self._instrument: measurement.Instrument | None = None
        self._variables: list[int] = []

    def measure(self, batches: Batches, num_batches: int = 256, verbose: int = 1) -> NoiseSample:
        """Returns a `NoiseSample` of at most `num_batches` of `batches`.

        On `KeyboardInterrupt` the sample holds what was measured, if that is two batches or more,
        and its `interrupted` is `True`.

        Args:
            batches: A `Batches` source, as `keras_acclip.noise.data.open_batches` returns it.
            num_batches: Most batches to measure. Defaults to 256.
            verbose: As in `measure_noise`. Defaults to 1.

        Raises:
            ValueError: If the model has no trainable variables, there are fewer than two batches,
                or the second pass differs from the first.
        """
        num_batches = arguments.positive_integer("num_batches", num_batches)
        if not self._backend.loss.built and batches.repeatable:
            with preserved_random_state():
                batch = next(batches.read(), None)
            if batch is not None:
                self._find_instrument(batch)
        with preserved_random_state():
            sample = measurement.Measurement(
                self._find_instrument,
                batches,
                num_batches,
                method=self.method,
                remainder=self.remainder,
                grouped=self.groups is not None,
                verbose=verbose,
            ).run()
        return dataclasses.replace(
            sample,
            model=self.model.name,
            step=int(self._step()),
            settings=self.settings | sample.settings,
        )

    def _find_instrument(self, batch: Batch) -> measurement.Instrument:
        """Returns the instrument, made anew if the set of trainable variables has changed."""
        loss = self._backend.loss
        loss.build(batch)
        variables = [id(v) for v in loss.variables]
        if self._instrument is None or variables != self._variables:
            if not variables:
                raise ValueError("The model has no trainable variables, so no gradient noise.")
            paths = [getattr(v, "path", v.name) for v in loss.variables]
            names, members = divide(paths, self.groups)
            sizes = [math.prod(v.shape) for v in loss.variables]
            sketch = CountSketch(
                sizes,
                members,
                self.sketch_size,
                self.seed,
                self._backend.sweep(),
                self.coordinates,
            )
            engine = self._backend.make_engine(sketch)
            self._instrument = measurement.Instrument(engine, sketch, tuple(names))
            self._variables = variables
        return self._instrument

    def _iterations(self) -> int:
        iterations = getattr(self.model.optimizer, "iterations", None)
        return -1 if iterations is None else int(np.asarray(iterations))
