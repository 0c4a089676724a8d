"""Reads what a run has left in its model directory: parameters and summaries."""

from __future__ import annotations

import math
import statistics
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import yaml

from keras_acclip.garden.data.shards import DataError

if TYPE_CHECKING:
    from keras_acclip.noise.sample import NoiseSample

Scalars: TypeAlias = dict[str, dict[int, float]]
"""A summary's name to its values by step."""


@dataclass(frozen=True)
class Run:
    """A model directory.

    Attributes:
        name: What the run is called.
        params: The experiment's parameters, as `params.yaml` has them.
        train: Dict from a summary's name to a dict from step to value.
        validation: The same of the validations.
        noise: The last measurement of the gradient noise, or `None`.
    """

    name: str
    params: dict[str, Any]
    train: Scalars
    validation: Scalars
    noise: NoiseSample | None = None

    @property
    def trainer(self) -> dict[str, Any]:
        """The trainer's parameters."""
        return self.params["trainer"]

    @property
    def optimizer(self) -> str:
        """The optimizer's name among the Model Garden's."""
        return self.trainer["optimizer_config"]["optimizer"]["type"]

    @property
    def learning_rate(self) -> float:
        """The schedule's initial learning rate; if it has none, the highest summary's, or NaN."""
        schedule = self.trainer["optimizer_config"].get("learning_rate") or {}
        fields = schedule.get(schedule.get("type")) or {}
        for name in ("initial_learning_rate", "learning_rate"):
            if name in fields:
                return fields[name]
        return max(self.train.get("learning_rate", {}).values(), default=math.nan)

    @property
    def steps(self) -> int:
        """The last step with a summary."""
        return max(step for values in self.train.values() for step in values)

    @property
    def steps_per_second(self) -> float:
        """Median of the training loops after the first, which traces and compiles."""
        speeds = list(self.train.get("steps_per_second", {}).values())
        return statistics.median(speeds[1:] or speeds or [math.nan])


def read_run(folder: str | Path, name: str | None = None) -> Run:
    """Reads a model directory.

    Args:
        folder: Path of the directory.
        name: What to call the run. Defaults to the directory's name.

    Returns:
        The run. Of a step that was run again after an interruption the later summary counts.

    Raises:
        DataError: If `params.yaml` or the training's event files are missing or can't be read.
    """
    folder = Path(folder)
    params = read_params(folder)
    train = read_scalars(folder / "train")
    if not train:
        raise DataError(f"{folder / 'train'}: holds no summaries of training")
    subfolder = params["trainer"].get("validation_summary_subdir", "validation")
    validation = read_scalars(folder / subfolder)
    return Run(name or folder.name, params, train, validation, read_noise(folder))


def read_noise(folder: str | Path) -> NoiseSample | None:
    """The last measurement of the gradient noise in a model directory; `None` if there is none.

    Raises:
        DataError: If its file can't be read.
    """
    from keras_acclip.noise.sample import NoiseSample

    newest = max(Path(folder).glob("noise/noise-*.npz"), default=None)
    if newest is None:
        return None
    try:
        return NoiseSample.load(newest)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{newest}: can't be read: {error}") from error


def read_params(folder: Path) -> dict[str, Any]:
    """Reads the parameters of a model directory that holds event files of a training.

    Raises:
        DataError: If `params.yaml` can't be read, or there are no such files.
    """
    path = folder / "params.yaml"
    try:
        params = yaml.safe_load(path.read_text("utf-8"))
        params["trainer"]["optimizer_config"]["optimizer"]["type"]
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror}") from error
    except (ValueError, yaml.YAMLError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not an experiment's parameters: {error}") from error
    if not _has_events(folder / "train"):
        raise DataError(f"{folder / 'train'}: holds no summaries of training")
    return params


def read_scalars(folder: Path) -> Scalars:
    """The scalars in a folder's event files."""
    if not _has_events(folder):
        return {}
    import tensorflow as tf
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    scalars: Scalars = {}
    for tag in events.Tags()["tensors"]:
        if events.SummaryMetadata(tag).plugin_data.plugin_name == "scalars":
            found = sorted(events.Tensors(tag), key=lambda event: event.wall_time)
            values = {event.step: float(tf.make_ndarray(event.tensor_proto)) for event in found}
            scalars[tag] = dict(sorted(values.items()))
    return scalars


def _has_events(folder: Path) -> bool:
    return any(folder.glob("*tfevents*"))
