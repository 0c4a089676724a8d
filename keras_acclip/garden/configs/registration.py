"""Registers the paper's optimizers with the Model Garden, as this module is imported."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from official.modeling.optimization import optimizer_factory

from keras_acclip import tf_keras as optimizers

_OPTIMIZERS = {
    "acclip": optimizers.ACClip,
    "gclip": optimizers.GClip,
    "cclip": optimizers.CClip,
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
        for name, cls in _OPTIMIZERS.items():
            if getattr(registry.get(name), "__module__", None) != __name__:
                optimizer_factory.register_optimizer_cls(name, _maker(cls), legacy)


def _maker(cls: Callable[..., Any]) -> Any:
    """Returns a function that makes an optimizer of `cls` from the fields of its config."""

    def make(
        weight_decay_rate: float,
        include_in_weight_decay: Sequence[str] | None,
        exclude_from_weight_decay: Sequence[str] | None,
        **optimizer_arguments: Any,
    ) -> Any:
        optimizer = cls(weight_decay=weight_decay_rate or None, **optimizer_arguments)
        optimizer.exclude_from_weight_decay(
            var_names=_excluded(include_in_weight_decay or [], exclude_from_weight_decay or [])
        )
        return optimizer

    return make


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
