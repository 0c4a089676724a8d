"""When and on what `GradientNoise` measures, for the callbacks of Keras 3 and of Keras 2 alike."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any, Literal

from keras_acclip._utils import arguments
from keras_acclip.noise.data import Batches, open_batches
from keras_acclip.noise.groups import Groups, checked_groups
from keras_acclip.noise.measure import NoiseMeter
from keras_acclip.noise.measurement import METHODS, Method
from keras_acclip.noise.online import OnlineNoise
from keras_acclip.noise.recorder import NoiseRecorder

LEAST_FOR_VERDICT = 100


class NoiseFollower:
    """Follows the noise through trainings by `fit`.

    Args:
        dataset: As in `GradientNoise`, like all other arguments.
        num_batches: Most batches a measurement.
        every: `"epoch"`, or a number of steps.
        at_start: Whether to measure before the first step.
        method: `"sketch"` or `"exact"`.
        groups: Break-down.
        log_dir: Folder for TensorBoard.
        save_dir: Folder for the samples.
        seed: Seed of signs and orders.
        verbose: What to print.
        batch_size: Examples in a batch of arrays.
        class_weight: Weights of classes.

    Attributes:
        recorder: The `NoiseRecorder` that keeps the samples.

    Raises:
        ImportError: If SciPy is missing, or matplotlib where `log_dir` is given.
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, or does not go without a dataset.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        num_batches: int,
        every: int | Literal["epoch"],
        at_start: bool,
        method: Method,
        groups: Groups | None,
        log_dir: str | os.PathLike[str] | None,
        save_dir: str | os.PathLike[str] | None,
        seed: int,
        verbose: int,
        batch_size: int | None,
        class_weight: Mapping[int, float] | None,
    ) -> None:
        self.recorder = NoiseRecorder(
            num_batches=num_batches, log_dir=log_dir, save_dir=save_dir, verbose=verbose
        )
        self._dataset = dataset
        self._options: dict[str, Any] = {
            "batch_size": 32 if batch_size is None else batch_size,
            "class_weight": class_weight,
            "seed": seed,
        }
        self._verbose = verbose
        if dataset is not None:
            # Read at the beginning of training, when the model is known; checked now.
            open_batches(dataset, **self._options)
        elif class_weight is not None or method != "sketch":
            raise ValueError(
                "Arguments `class_weight` and `method` are for measurements on a dataset; without "
                "one the training's own gradients are followed. Received: "
                f"class_weight={class_weight!r}, method={method!r}, dataset=None"
            )
        elif batch_size is not None:
            arguments.positive_integer("batch_size", batch_size)
        self._num_batches = num_batches
        self._every_epoch = every == "epoch"
        self._every = 1 if self._every_epoch else arguments.positive_integer("every", every)
        self._at_start = arguments.flag("at_start", at_start)
        self._meter_options: dict[str, Any] = {
            "method": arguments.one_of("method", method, METHODS),
            "groups": checked_groups(groups),
            "seed": seed,
        }
        self._meter: NoiseMeter | None = None
        self._batches: Batches | None = None
        self._online: OnlineNoise | None = None
        self._following = False
        if dataset is None:
            self._online = OnlineNoise(
                num_batches=num_batches,
                groups=self._meter_options["groups"],
                seed=seed,
                batch_size=batch_size,
            )
        self._steps = self._steps_before_epoch = 0

    def begin(self, model: Any, params: Mapping[str, Any] | None = None) -> None:
        """Opens the data, and measures if `at_start`.

        Args:
            model: The model that `fit` trains.
            params: Keras's `params` of a callback: `steps` an epoch, if known, and `epochs`.
        """
        self._steps = self._steps_before_epoch = 0
        if self._online is not None:
            self._following = self._online.begin(model)
            steps, epochs = ((params or {}).get(name) for name in ("steps", "epochs"))
            total = steps * epochs if steps and epochs else self._num_batches
            self._say_if_few(min(self._num_batches, total))
            return
        preprocess = getattr(model, "preprocess_samples", None)
        batches = open_batches(self._dataset, preprocess=preprocess, **self._options)
        self._batches = batches.held(self._num_batches)
        self._meter = NoiseMeter(model, **self._meter_options)
        self._say_if_few(min(self._num_batches, batches.total or self._num_batches))
        if self._at_start:
            self.measure(model)

    def _say_if_few(self, batches: int) -> None:
        if self._verbose and batches < LEAST_FOR_VERDICT:
            print(
                f"GradientNoise: {batches} batches are too few for a verdict on the tail; at least "
                f"{LEAST_FOR_VERDICT} are needed, 256 are sensible. Norms and their spread are "
                "measured all the same.",
                flush=True,
            )

    def is_due_after_batch(self, batch: int, model: Callable[[], Any]) -> bool:
        """Counts a step; returns whether another `every` steps are done.

        Args:
            batch: The batch's number in its epoch, from 0.
            model: Returns the model.
        """
        if self._online is not None and not self._following:
            # The first step has built the model.
            self._following = self._online.begin(model())
        if self._every_epoch:
            return False
        due = self._steps // self._every + 1
        self._steps = self._steps_before_epoch + batch + 1
        return self._steps >= due * self._every

    def is_due_after_epoch(self) -> bool:
        """Counts an epoch; returns whether `every` is an epoch."""
        self._steps_before_epoch = self._steps
        return self._every_epoch

    def measure(self, model: Any, logs: Mapping[str, Any] | None = None) -> None:
        """Takes a sample.

        Args:
            model: The model of `begin`, read anew from the callback: on JAX that makes `fit` hand
                over its state.
            logs: Those of the training, for the loss of late.
        """
        if self._online is not None:
            sample = self._online.sample(model, float((logs or {}).get("loss", math.nan)))
            if sample is not None:
                self.recorder.keep(sample)
            return
        if self._meter is None or self._meter.model is not model or self._batches is None:
            raise RuntimeError("GradientNoise measures from within `fit`.")
        self.recorder.measure(self._meter, self._batches)

    def end(self, model: Any) -> None:
        """Lets go of the data and of what was compiled.

        Args:
            model: The model.
        """
        if self._online is not None:
            self._online.end(model)
        self._following = False
        self._meter = self._batches = None
        self.recorder.close()
