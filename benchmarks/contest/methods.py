"""The optimizers that race: how to make each, and what its rule must move through memory."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

RATE = 1e-3
BASELINE = "Keras Adam"
CLIPNORM = "Keras Adam, global_clipnorm"


@dataclasses.dataclass(frozen=True)
class Method:
    """An optimizer in the race.

    Attributes:
        make: Makes it; heavy packages are imported only then.
        reads: How many float32 numbers a parameter its rule must load.
        writes: How many it must store.
        loop: The name of the C loop that does the same arithmetic, or `None`.
        backends: Where it can run.
        package: What must be installed for it beside Keras and its backend, or `None`.
    """

    make: Callable[[], Any]
    reads: int
    writes: int
    loop: str | None = None
    backends: tuple[str, ...] = ("tensorflow", "jax")
    package: str | None = None

    @property
    def is_there(self) -> bool:
        """Whether what it needs is installed."""
        return self.package is None or importlib.util.find_spec(self.package) is not None

    @property
    def bytes(self) -> int:
        """Bytes a parameter that no implementation can avoid moving."""
        return 4 * (self.reads + self.writes)


def _maker(path: str, **settings: Any) -> Callable[[], Any]:
    module, _, name = path.rpartition(".")
    return lambda: getattr(importlib.import_module(module), name)(RATE, **settings)


def _acclip(**settings: Any) -> Callable[[], Any]:
    return _maker("keras_acclip.ACClip", **settings)


def _keras(name: str, **settings: Any) -> Callable[[], Any]:
    return _maker(f"keras.optimizers.{name}", **settings)


def _clip(threshold: str | None = None, by: str = "global") -> Callable[[], Any]:
    """`Clip` around Keras's Adam, at 1.0 or at a threshold that moves."""

    def make():
        import keras

        import keras_acclip

        moving = getattr(keras_acclip.thresholds, threshold)() if threshold else 1.0
        return keras_acclip.Clip(keras.optimizers.Adam(RATE), moving, by=by)

    return make


METHODS = {
    "ACClip": Method(_acclip(), 4, 3, "acclip"),
    "ACClip, weight decay": Method(_acclip(weight_decay=0.01), 4, 3, "acclip"),
    "ACClip, rms": Method(_acclip(step_size="rms"), 5, 4),
    "ACClip, constant": Method(_acclip(step_size="constant"), 4, 3),
    "ACClip, alpha 1.5": Method(_acclip(alpha=1.5), 4, 3),
    "GClip": Method(_maker("keras_acclip.GClip"), 3, 1, "gclip"),
    "CClip": Method(_maker("keras_acclip.CClip", threshold=1e-3), 2, 1, "cclip"),
    "Clip, Keras Adam": Method(_clip(), 5, 3),
    "Clip, Keras Adam, moving moment": Method(_clip("MovingMoment"), 5, 3),
    "Clip, Keras Adam, moving quantile": Method(_clip("MovingQuantile"), 5, 3),
    "Clip, Keras Adam, z-score": Method(_clip("ZScore"), 5, 3),
    "Clip, Keras Adam, variables": Method(_clip("MovingMoment", by="variable"), 5, 3),
    "Clip, Keras Adam, coordinates": Method(_clip(by="coordinate"), 4, 3),
    CLIPNORM: Method(_keras("Adam", global_clipnorm=1.0), 5, 3),
    "Keras Adam": Method(_keras("Adam"), 4, 3, "adam"),
    "Keras AdamW": Method(_keras("AdamW", weight_decay=0.01), 4, 3, "adam"),
    "Keras SGD, momentum": Method(_keras("SGD", momentum=0.9), 3, 2, "momentum"),
    "Keras Lion": Method(_keras("Lion"), 3, 2, "lion"),
    "optax Adam": Method(_maker("optax.adam"), 4, 3, "adam", ("jax",), "optax"),
    "optax AdamW": Method(
        _maker("optax.adamw", weight_decay=0.01), 4, 3, "adam", ("jax",), "optax"
    ),
}

# The rest of METHODS race where they are named.
USUAL = {
    "tensorflow": [
        *("ACClip", "ACClip, weight decay", "GClip", "CClip"),
        *("Clip, Keras Adam", "Clip, Keras Adam, moving moment", CLIPNORM),
        *("Keras Adam", "Keras AdamW", "Keras SGD, momentum", "Keras Lion"),
    ],
    "jax": list(METHODS),
}

COPY, BARE = "plain copy", "bare pass"

# PyTorch's best Adam beside each of JAX's modes, and the mode it runs in.
FUSED = {
    "call": ("PyTorch Adam, fused", "call"),
    "loop": ("PyTorch Adam, fused, CUDA graph", "loop"),
    "concurrent": ("PyTorch Adam, fused, CUDA graph", "loop"),
}

# What a row's name begins with where it stands for no entry of METHODS.
PEERS = {
    "PyTorch ACClip": METHODS["ACClip"],
    "PyTorch Adam": METHODS[BASELINE],
    COPY: METHODS["ACClip"],
    BARE: METHODS["ACClip"],
}


def of_row(name: str) -> Method:
    """The entry of METHODS whose arithmetic a row's optimizer does."""
    if name in METHODS:
        return METHODS[name]
    return next(method for begin, method in PEERS.items() if name.startswith(begin))
