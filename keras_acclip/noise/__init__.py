"""Gradient noise: measured at fixed weights, its tail judged, followed through training, drawn.

The public names load where they are first used, so that importing this package costs nothing.
"""

import importlib

_HOMES = {
    "GradientNoise": "callback",
    "NoiseSample": "sampling",
    "TailEstimate": "tails",
    "Verdict": "tails",
    "classify": "tails",
    "hill": "tails",
    "measure_noise": "sampling",
}
_MODULES = ("callback", "plots", "sampling", "tails")

__all__ = [*_HOMES, *_MODULES]


def __getattr__(name):
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
