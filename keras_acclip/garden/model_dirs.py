"""A model directory belongs to one experiment."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf
import yaml

from keras_acclip.garden.errors import ExperimentError
from keras_acclip.garden.parameters import SCHEDULES, stretched

# What a run may change as it goes on: where it ends, how often it reports, what it runs on.
_FREE = ("task.validation_data", "runtime")
# What a training is, beside its steps; an evaluation has its model.
_TRAINING = ("task", "trainer.optimizer_config", "trainer.gradient_accumulation_steps")
_DATA = "data.json"  # What the training data were, wherever they lie.
_PATHS = ("input_path", "vocab_file", "vocab_file_path")
# Bytes of data that a fingerprint reads whole; of more it reads pieces, of as many files.
_WHOLE, _PIECE, _SEVERAL = 64 * 2**20, 4096, 100
_OURS = (
    "checkpoint",
    "ckpt-*",
    "metrics.json",
    "params.yaml",
    "operative_config.*",
    "noise",
    _DATA,
)


def check(
    params: Mapping[str, Any], model_dir: str, mode: str, allow_changed: Iterable[str] = ()
) -> None:
    """Raises an `ExperimentError` where a directory's checkpoints are of another experiment.

    Training goes on only with the same task, its training data and batch, and the same optimizer
    with its rate; evaluation needs the same model. The same data at another path are the same, and
    others at the same path are not.

    Args:
        params: The experiment's parameters.
        model_dir: The model directory; one without a checkpoint is anyone's. Checkpoints without
            a `params.yaml` can be evaluated, and not trained.
        mode: What is to be done.
        allow_changed: Names of parameters that may differ, or of sections that hold them; one
            that neither experiment has is an error, too.
    """
    if not tf.io.gfile.exists(os.path.join(model_dir, "checkpoint")):
        return
    kept = _kept(model_dir)
    if kept is None:
        if "train" not in mode:
            return
        raise ExperimentError(
            f"--model_dir={model_dir} holds checkpoints, and no params.yaml says of what. Name "
            "another folder; or start anew in it with --fresh; to fine-tune their model, give it "
            "as task.init_checkpoint"
        )
    _check_names(allow_changed, kept, params)
    belongs = _TRAINING if "train" in mode else ("task.model",)
    allowed = [*_FREE, *allow_changed]
    before, now = _kept_data(model_dir), fingerprints(params)
    same = {name for name, found in now.items() if before.get(name) == found}
    found = [
        (name, old, new)
        for name, old, new in differences(kept, params)
        if name not in same
        and _within(name, belongs)
        and not _within(name, allowed)
        and not _means_the_same(name, old, new)
        and not _is_stretched(name, old, new, kept, params)
    ]
    # Of another optimizer, its name says more than that each has settings which the other lacks.
    telling = [change for change in found if not any(isinstance(v, Mapping) for v in change[1:])]
    changes = {name: f"{name} {_short(old)} → {_short(new)}" for name, old, new in telling or found}
    for name in (now.keys() & before.keys()) - same:
        if _within(name, belongs) and not _within(name, allowed):
            changes.setdefault(name, f"{name} holds other data than it did")
    changes = list(changes.values())
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


def _check_names(names: Iterable[str], *parameters: Mapping[str, Any]) -> None:
    known = {name for nested in parameters for name in _names(nested)}
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            meant = f"; did you mean {close[0]}?" if close else ""
            raise ExperimentError(f"--allow_changed={name}: no such parameter{meant}")


def _names(nested: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """The names, with dots, of all sections and values in nested dicts."""
    for name, value in nested.items():
        place = f"{at}.{name}" if at else str(name)
        yield place
        if isinstance(value, Mapping):
            yield from _names(value, place)


def fingerprints(params: Mapping[str, Any]) -> dict[str, str]:
    """What the files of the training data hold, by the parameter that names them.

    Two sets of files have one fingerprint where their names and contents are alike; of more than
    64 MiB, where their names and sizes are, and the beginning, middle and end of up to 100 of them.
    Files that aren't there, or aren't files, have none.

    Args:
        params: The experiment's parameters.
    """
    data = (params.get("task") or {}).get("train_data") or {}
    found = {}
    for name in _PATHS:
        value = data.get(name)
        if isinstance(value, str | list | tuple) and value and value != "dummy":
            fingerprint = _fingerprint(value)
            if fingerprint:
                found[f"task.train_data.{name}"] = fingerprint
    return found


def _fingerprint(patterns: str | Sequence[str]) -> str | None:
    words = patterns.split(",") if isinstance(patterns, str) else patterns
    try:
        paths = sorted({p for word in words for p in tf.io.gfile.glob(str(word).strip())})
        sizes = [tf.io.gfile.stat(path).length for path in paths]
        whole = sum(sizes) <= _WHOLE
        every = 1 if whole else -(-len(paths) // _SEVERAL)
        digest = hashlib.sha256()
        for number, (path, size) in enumerate(zip(paths, sizes, strict=True)):
            digest.update(f"{os.path.basename(path)} {size}\n".encode())
            if number % every == 0:
                with tf.io.gfile.GFile(path, "rb") as file:
                    for start in (0,) if whole else (0, size // 2, max(0, size - _PIECE)):
                        file.seek(start)
                        digest.update(file.read(size if whole else _PIECE))
    except tf.errors.OpError:
        return None
    return digest.hexdigest()[:16] if paths else None


def keep_data(params: Mapping[str, Any], model_dir: str) -> None:
    """Notes in a directory what its experiment's training data hold.

    Args:
        params: The experiment's parameters.
        model_dir: The model directory.
    """
    with tf.io.gfile.GFile(os.path.join(model_dir, _DATA), "w") as file:
        file.write(json.dumps(fingerprints(params), indent=1) + "\n")


def _kept_data(model_dir: str) -> dict[str, str]:
    """What `keep_data` has noted; nothing where an earlier version has trained."""
    path = os.path.join(model_dir, _DATA)
    if not tf.io.gfile.exists(path):
        return {}
    try:
        with tf.io.gfile.GFile(path) as file:
            return dict(json.loads(file.read()))
    except (ValueError, TypeError, tf.errors.OpError) as error:
        what = getattr(error, "message", None) or error
        raise ExperimentError(f"{path} can't be read: {what}; remove it") from error


def summaries(trainer: Any) -> tuple[str, ...]:
    """The folders with summaries and exported checkpoints in a model directory.

    Args:
        trainer: The experiment's trainer.
    """
    return ("train", trainer.validation_summary_subdir, trainer.best_checkpoint_export_subdir)


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


def _short(value: Any) -> str:
    """A value for a line that a person reads; a whole section is told by its having one."""
    return f"{{{len(value)} settings}}" if isinstance(value, Mapping) else repr(value)


def _plain(value: Any) -> Any:
    """A value as YAML gives it back: without tuples."""
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _kept(model_dir: str) -> dict[str, Any] | None:
    """The parameters of the checkpoints in a directory, or `None`."""
    path = os.path.join(model_dir, "params.yaml")
    if not tf.io.gfile.exists(path):
        return None
    try:
        with tf.io.gfile.GFile(path) as file:
            kept = yaml.safe_load(file.read())
    except (yaml.YAMLError, UnicodeDecodeError, tf.errors.OpError) as error:
        what = getattr(error, "message", None) or error
        raise ExperimentError(f"{path} can't be read: {' '.join(str(what).split())}") from error
    if not isinstance(kept, dict):
        raise ExperimentError(f"{path} can't be read: it holds no experiment's parameters")
    return kept


def _means_the_same(name: str, old: Any, new: Any) -> bool:
    """Whether two values differ, and a training goes on in the same way."""
    if name == "task.init_checkpoint":
        return not new  # It has begun, and needs no more what it began from.
    # The Model Garden's own driver writes none.
    return name == "trainer.gradient_accumulation_steps" and {old, new} == {None, 1}


def _is_stretched(
    name: str, old: Any, new: Any, kept: Mapping[str, Any], params: Mapping[str, Any]
) -> bool:
    """Whether a schedule is as long, for the training's new length, as it was for its old one."""
    of_schedules = {
        f"trainer.optimizer_config.{section}.{kind}.{field}"
        for section, kinds, field in SCHEDULES
        for kind in kinds
    }
    if name not in of_schedules or not (isinstance(old, int) and isinstance(new, int)):
        return False
    before, steps = (p["trainer"].get("train_steps") or 0 for p in (kept, params))
    return bool(before) and abs(new - stretched(old, before, steps)) <= 1


def _within(name: str, sections: Iterable[str]) -> bool:
    return any(name == section or name.startswith(f"{section}.") for section in sections)
