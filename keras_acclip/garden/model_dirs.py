"""A model directory belongs to one experiment."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf
import yaml

from keras_acclip.garden.errors import ExperimentError

# What a run may change as it goes on: where it ends, how often it reports, what it runs on.
_FREE = ("task.validation_data", "task.init_checkpoint", "runtime")
_OURS = ("checkpoint", "ckpt-*", "metrics.json", "params.yaml", "operative_config.*", "noise")


def check(
    params: Mapping[str, Any], model_dir: str, mode: str, allow_changed: Iterable[str] = ()
) -> None:
    """Raises an `ExperimentError` where a directory's checkpoints are of another experiment.

    Training goes on only with the same task, its training data and batch, and the same optimizer
    with its rate; evaluation needs the same model.

    Args:
        params: The experiment's parameters.
        model_dir: The model directory; one without a checkpoint or `params.yaml` is anyone's.
        mode: What is to be done.
        allow_changed: Names of parameters that may differ, or of sections that hold them.
    """
    kept = _kept(model_dir)
    if kept is None:
        return
    belongs = ["task", "trainer.optimizer_config"] if "train" in mode else ["task.model"]
    allowed = [*_FREE, *allow_changed]
    changes = [
        f"{name} {old!r} → {new!r}"
        for name, old, new in differences(kept, params)
        if _within(name, belongs) and not _within(name, allowed)
    ]
    if changes:
        shown = changes[:5] + ([f"and {len(changes) - 5} more"] if len(changes) > 5 else [])
        if "train" not in mode:
            raise ExperimentError(
                f"--model_dir={model_dir} holds another model: {'; '.join(shown)}"
            )
        raise ExperimentError(
            f"--model_dir={model_dir} holds another experiment: {'; '.join(shown)}. Name another "
            "folder; or start anew in it with --fresh; or go on with the change by "
            "--allow_changed=NAME,...; to fine-tune its model, give it as task.init_checkpoint"
        )


def clear(model_dir: str, summaries: Sequence[str]) -> None:
    """Removes what a run has left in a directory, and nothing else.

    Args:
        model_dir: The model directory.
        summaries: Names of its folders with summaries and exported checkpoints.
    """
    for name in (*_OURS, *filter(None, summaries)):
        for path in tf.io.gfile.glob(os.path.join(model_dir, name)):
            (tf.io.gfile.rmtree if tf.io.gfile.isdir(path) else tf.io.gfile.remove)(path)


def differences(old: Any, new: Any, at: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The values that two nested dicts don't share: name with dots, the old one, the new one."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in dict.fromkeys((*old, *new)):
            place = f"{at}.{name}" if at else str(name)
            yield from differences(old.get(name), new.get(name), place)
    elif _plain(old) != _plain(new):
        yield at, old, new


def _plain(value: Any) -> Any:
    """A value as YAML gives it back: without tuples."""
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _kept(model_dir: str) -> dict[str, Any] | None:
    """The parameters of the checkpoints in a directory; `None` if it has not both."""
    path = os.path.join(model_dir, "params.yaml")
    if not (tf.io.gfile.exists(path) and tf.io.gfile.exists(os.path.join(model_dir, "checkpoint"))):
        return None
    try:
        with tf.io.gfile.GFile(path) as file:
            kept = yaml.safe_load(file.read())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ExperimentError(f"{path} can't be read: {' '.join(str(error).split())}") from error
    if not isinstance(kept, dict):
        raise ExperimentError(f"{path} can't be read: it holds no experiment's parameters")
    return kept


def _within(name: str, sections: Iterable[str]) -> bool:
    return any(name == section or name.startswith(f"{section}.") for section in sections)
