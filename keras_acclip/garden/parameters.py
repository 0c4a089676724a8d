"""Reads an experiment's parameters, and names every key and value that can't be meant."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from official.core import config_definitions, exp_factory, train_utils
from official.modeling import hyperparams
from official.modeling.hyperparams import base_config, oneof

from keras_acclip.garden.errors import ExperimentError

_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    type(None): "null",
}
_ABSENT: Any = object()
SCHEDULES = (
    ("learning_rate", ("polynomial", "cosine"), "decay_steps"),
    ("warmup", ("polynomial", "linear"), "warmup_steps"),
)
"""Numbers that are a part of `trainer.train_steps`: section, kinds, field."""


def parse(options: Any) -> config_definitions.ExperimentConfig:
    """The parameters of an experiment, after files and overrides, locked.

    Where a file or the overrides set `trainer.train_steps` without its schedule, decay and warm-up
    keep their parts of the training.

    Args:
        options: What has the fields of `official.core.train_utils.ParseConfigOptions`.

    Raises:
        ExperimentError: If a key is unknown or a value of the wrong kind; the message has the key
            in full, the value, and what is allowed.

    Example:

    >>> from keras_acclip.garden import experiments  # Makes them known by name.
    >>> params = parse(train_utils.ParseConfigOptions("acclip/bert_squad", []))
    """
    params = _Parser(options).parse()
    reference = exp_factory.get_exp_config(options.experiment)
    for fault in faults(params, reference):
        raise ExperimentError(fault)
    if not isinstance(params.runtime.allow_cpu, bool):
        raise ExperimentError(
            f"runtime.allow_cpu must be true or false. Received: {params.runtime.allow_cpu!r}"
        )
    params.validate()
    if not params.runtime.allow_cpu:
        # So that the Model Garden's own driver takes the file of parameters.
        del params.runtime.allow_cpu
    params.lock()
    return params


class _Parser(train_utils.ExperimentParser):
    """The Model Garden's, but unknown keys are named in full, beside the known ones."""

    def base_experiment(self) -> config_definitions.ExperimentConfig:
        params = super().base_experiment()
        params.runtime.override({"allow_cpu": False}, is_strict=False)
        return params

    def parse_config_file(
        self, params: config_definitions.ExperimentConfig
    ) -> config_definitions.ExperimentConfig:
        for path in self._flags_obj.config_file or []:
            _override(params, path)
        return params

    def parse_params_override(
        self, params: config_definitions.ExperimentConfig
    ) -> config_definitions.ExperimentConfig:
        _override(params, self._flags_obj.params_override)
        return params


def _override(params: config_definitions.ExperimentConfig, source: str | None) -> None:
    if not source:
        return
    everything = hyperparams.override_params_dict(hyperparams.ParamsDict(), source, is_strict=False)
    changes = everything.as_dict()
    for fault in unknown(params, changes):
        raise ExperimentError(fault)
    before = params.trainer.train_steps
    params.override(changes, is_strict=True)
    trainer = changes.get("trainer")
    if isinstance(trainer, Mapping) and "train_steps" in trainer:
        _stretch(params.trainer, before, trainer)


def _stretch(
    trainer: config_definitions.TrainerConfig, before: int, changes: Mapping[str, Any]
) -> None:
    """Has the decay of the rate and the warm-up keep their parts of a training of other length.

    Args:
        trainer: The experiment's trainer, its `train_steps` changed.
        before: Its `train_steps` before that.
        changes: What was set beside it; numbers of steps among it stay as they are.
    """
    steps = trainer.train_steps
    if not (_fits(steps, int) and _fits(before, int) and steps > 0 and before > 0):
        return
    for section, kinds, field in SCHEDULES:
        choice: Any = getattr(trainer.optimizer_config, section, None)
        kind = getattr(choice, "type", None)
        value = getattr(choice.get(), field, None) if kind in kinds else None
        beside: Any = changes
        for name in ("optimizer_config", section, kind, field):
            beside = beside.get(name) if isinstance(beside, Mapping) else None
        if beside is None and _fits(value, int) and value:
            choice.get().override({field: stretched(value, before, steps)})


def stretched(value: int, before: int, steps: int) -> int:
    """A number of a schedule's steps, after the training's have changed.

    Args:
        value: The number.
        before: Steps of the training that it is for.
        steps: Steps of the other training.
    """
    return max(1, round(value * steps / before))


def unknown(config: base_config.Config, changes: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """Says of each key of `changes` that a config does not have, what it has instead.

    Args:
        config: A config of the Model Garden.
        changes: Nested dict of what to change in it.
        at: The config's own name, with dots.
    """
    known = {
        name: value
        for name, value in vars(config).items()
        if name not in hyperparams.ParamsDict.RESERVED_ATTR
    }
    for name, value in changes.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            meant = f"; did you mean {close[0]}?" if close else "."
            where = f"{at} has" if at else "There are"
            yield f"{_join(at, name)}: no such parameter{meant} {where}: {', '.join(sorted(known))}"
        elif isinstance(value, Mapping) and isinstance(known[name], base_config.Config):
            yield from unknown(known[name], value, _join(at, name))


def faults(config: base_config.Config, reference: object, at: str = "") -> Iterator[str]:
    """Says of each value of the wrong kind where it stands, what it is and what is allowed.

    Args:
        config: A config of the Model Garden.
        reference: The same as it is registered: what is as there is taken as it is, for not every
            default is of its annotation.
        at: The config's own name, with dots.
    """
    annotations = type(config)._get_annotations()
    for name, value in vars(config).items():
        before = getattr(reference, name, _ABSENT)
        place = _join(at, name)
        if isinstance(config, oneof.OneOfConfig) and name == "type":
            choices = sorted(set(annotations) & set(vars(config)) - {"type"})
            if value is not None and value not in choices:
                yield f"{place} must be one of {', '.join(choices)}. Received: {value!r}"
        elif isinstance(value, base_config.Config):
            yield from faults(value, before, place)
        elif isinstance(before, base_config.Config) and (
            value is not None or (isinstance(config, oneof.OneOfConfig) and name == config.type)
        ):
            yield f"{place} must have parameters of its own. Received: {value!r}"
        elif name in annotations and value != before:
            allowed = _alternatives(annotations[name])
            if not any(_fits(value, kind) for kind in allowed):
                kinds = " or ".join(dict.fromkeys(map(_describe, allowed)))
                yield f"{place} must be {kinds}. Received: {value!r}"


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(k for part in typing.get_args(annotation) for k in _alternatives(part))
    return (annotation,)


def _fits(value: object, kind: Any) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind in _KINDS:
        return isinstance(value, kind)
    if _is_sequence(kind):
        elements = [k for k in typing.get_args(kind)[:1] if k in _KINDS]
        return isinstance(value, list | tuple) and all(
            _fits(each, k) for each in value for k in elements
        )
    return True


def _describe(kind: Any) -> str:
    if _is_sequence(kind):
        return "a list"
    return _KINDS.get(kind, str(kind))


def _is_sequence(kind: Any) -> bool:
    origin = typing.get_origin(kind) or kind
    return isinstance(origin, type) and origin is not str and issubclass(origin, Sequence)


def _join(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name
