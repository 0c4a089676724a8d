"""Registers the paper's optimizers with the Model Garden, as this module is imported."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from official.modeling.optimization import optimizer_factory

from keras_acclip import tf_keras as optimizers
from keras_acclip import thresholds

_OPTIMIZERS = {
    "acclip": optimizers.ACClip,
    "gclip": optimizers.GClip,
    "cclip": optimizers.CClip,
}
_MOVING = {
    "moment": thresholds.MovingMoment,
    "quantile": thresholds.MovingQuantile,
    "z_score": thresholds.ZScore,
}


def register() -> None:
    """Registers the optimizers, unless an earlier import of this module has done so.

    Raises:
        ValueError: If another optimizer has one of the names.
    """
    registries = {
        True: optimizer_factory.LEGACY_OPTIMIZERS_CLS,
        False: optimizer_factory.NEW_OPTIMIZERS_CLS,
    }
    for legacy, registry in registries.items():
        makers = {name: _maker(cls) for name, cls in _OPTIMIZERS.items()}
        makers["clip"] = functools.partial(_make_clip, registry)
        for name, make in makers.items():
            known = getattr(registry.get(name), "func", registry.get(name))
            if getattr(known, "__module__", None) != __name__:
                optimizer_factory.register_optimizer_cls(name, make, legacy)


def _maker(cls: Callable[..., Any]) -> Any:
    """Returns a function that makes an optimizer of `cls` from the fields of its config."""

    def make(
        weight_decay_rate: float,
        include_in_weight_decay: Sequence[str] | None,
        exclude_from_weight_decay: Sequence[str] | None,
        **optimizer_arguments: Any,
    ) -> Any:
        moving = optimizer_arguments.pop("moving", None)
        if moving is not None:
            fixed = optimizer_arguments["threshold"]
            optimizer_arguments["threshold"] = _threshold(moving, fixed)
        optimizer = cls(weight_decay=weight_decay_rate or None, **optimizer_arguments)
        optimizer.exclude_from_weight_decay(
            var_names=_excluded(include_in_weight_decay or [], exclude_from_weight_decay or [])
        )
        return optimizer

    return make


def _make_clip(
    registry: Mapping[str, Callable[..., Any]],
    optimizer: Mapping[str, Any],
    threshold: float,
    moving: Mapping[str, Any],
    learning_rate: Any,
    **clip_arguments: Any,
) -> Any:
    """Makes `Clip` around an optimizer of the registry, from the fields of their configs."""
    kind = str(optimizer.get("type"))
    if kind not in registry or kind == "clip":
        names = ", ".join(sorted(name for name in registry if name != "clip"))
        raise ValueError(f"Field `clip.optimizer.type` must be one of {names}. Received: {kind!r}")
    clips = ("clipnorm", "clipvalue", "global_clipnorm")
    fields = {k: v for k, v in optimizer[kind].items() if k not in clips or v is not None}
    inner = registry[kind](learning_rate=learning_rate, **fields)
    return optimizers.Clip(inner, _threshold(moving, threshold), **clip_arguments)


def _threshold(moving: Mapping[str, Any], fixed: float) -> Any:
    """The threshold that the fields `moving` and `threshold` describe."""
    if moving.get("type") is None:
        return fixed
    kind = str(moving["type"])
    return _MOVING[kind](**moving[kind])


def _excluded(include: Sequence[str], exclude: Sequence[str]) -> list[str]:
    """Returns regular expressions found in the names that do not decay; `include` comes first."""
    for field, patterns in (("include", include), ("exclude", exclude)):
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                name = "include_in" if field == "include" else "exclude_from"
                raise ValueError(
                    f"Field `{name}_weight_decay` must hold regular expressions ({error}). "
                    f"Received: {pattern!r}"
                ) from None
    if not include:
        return list(exclude)
    included = "|".join(f"(?:{pattern})" for pattern in include)
    return [f"^(?!.*(?:{included})).*(?:{pattern})" for pattern in exclude]


register()
