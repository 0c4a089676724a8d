"""Optimizers and a measuring instrument for training under heavy-tailed gradient noise."""

from keras_acclip import noise, thresholds
from keras_acclip.optimizers import ACClip, CClip, GClip

__all__ = ["ACClip", "CClip", "GClip", "GradientNoise", "noise", "thresholds"]


def __getattr__(name):
    if name == "GradientNoise":
        return noise.GradientNoise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
