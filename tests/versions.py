"""Keras 3 and Keras 2 by the same names, for tests that hold for both."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_acclip
from keras_acclip import tf_keras as keras_2
from tests import paths

METHODS = ("GClip", "CClip", "ACClip")

KERAS_3 = SimpleNamespace(
    name="Keras 3",
    GClip=keras_acclip.GClip,
    CClip=keras_acclip.CClip,
    ACClip=keras_acclip.ACClip,
    Clip=keras_acclip.Clip,
    PowerThreshold=keras_acclip.thresholds.PowerThreshold,
    schedules=keras.optimizers.schedules,
    make_variables=paths.make_variables,
    Variable=keras.Variable,
    paths=paths.PATHS,
    uncompiled={"jit_compile": False},
)
KERAS_2 = SimpleNamespace(
    name="Keras 2",
    GClip=keras_2.GClip,
    CClip=keras_2.CClip,
    ACClip=keras_2.ACClip,
    Clip=keras_2.Clip,
    PowerThreshold=keras_2.PowerThreshold,
    schedules=tf_keras.optimizers.schedules,
    make_variables=paths.make_native_variables,
    Variable=tf.Variable,
    paths=("eager", "uncompiled graph", "XLA", "two replicas"),
    uncompiled={"jit_compile": False},
)
REPLICAS = "two replicas"
VERSIONS = (KERAS_3, KERAS_2)
PAIRS = [(version, path) for version in VERSIONS for path in version.paths]
PAIR_NAMES = [f"{version.name}, {path}" for version, path in PAIRS]
# Eager and compiled code, and the replicas' own: for what every path need not show by default.
QUICK_PAIRS = [(version, path) for version, path in PAIRS if path in ("eager", "XLA", REPLICAS)]
# Each of them once.
FEW = [(KERAS_2, "eager"), (KERAS_3, "XLA"), (KERAS_3, REPLICAS)]
FEW_PAIRS = [
    pytest.param(*pair, id=name, marks=() if pair in FEW else pytest.mark.slow)
    for pair, name in zip(PAIRS, PAIR_NAMES, strict=True)
]


def apply(version, path, make, values, steps, dtype="float32"):
    """As `paths.apply`, with the variables and the flags of either Keras."""

    def with_flag(jit_compile="auto"):
        # What "auto" is in Keras 3 is True in Keras 2.
        return make(jit_compile=bool(jit_compile) if version is KERAS_2 else jit_compile)

    return paths.apply(path, with_flag, values, steps, dtype, version.make_variables)


def update(optimizer, gradients, variables):
    """One eager step with gradients as lists or arrays."""
    gradients = [None if g is None else _tensor(g) for g in gradients]
    optimizer.apply_gradients(zip(gradients, variables, strict=True))


def _tensor(gradient):
    return gradient if tf.is_tensor(gradient) else tf.constant(np.float32(gradient))


def options(kwargs, other):
    """An optimizer's arguments as `reference.METHODS` names them."""
    names = {"weight_decay": "wd", "projection_radius": "radius"}
    return {names.get(k, k): v for k, v in (kwargs | other).items() if k != "averaging"}


def kinds(slots):
    """Slots sorted by kind instead of by variable."""
    slots = [list(held.values()) if hasattr(held, "values") else held for held in slots]
    return list(zip(*slots, strict=True))


def traces(optimizer):
    """How often each compiled step was traced."""
    return [f.experimental_get_tracing_count() for f in optimizer.compiled_steps.values()]
