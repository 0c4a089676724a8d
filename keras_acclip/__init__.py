"""Clipping against heavy-tailed gradient noise, and the instrument that tells whether you have it.

For Keras 3 on TensorFlow, JAX and PyTorch; `keras_acclip.tf_keras` and `keras_acclip.garden` are
for Keras 2 and the TensorFlow Model Garden. Names load where they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_acclip._utils import lazy

if TYPE_CHECKING:
    from keras_acclip import garden as garden
    from keras_acclip import noise as noise
    from keras_acclip import rules as rules
    from keras_acclip import tf_keras as tf_keras
    from keras_acclip import thresholds as thresholds
    from keras_acclip.noise.callback import GradientNoise as GradientNoise
    from keras_acclip.noise.monitor import GradientMonitor as GradientMonitor
    from keras_acclip.optimizers.acclip import ACClip as ACClip
    from keras_acclip.optimizers.cclip import CClip as CClip
    from keras_acclip.optimizers.clip import Clip as Clip
    from keras_acclip.optimizers.gclip import GClip as GClip

__version__ = "0.2.0"

__all__ = [
    "ACClip",
    "CClip",
    "Clip",
    "GClip",
    "GradientMonitor",
    "GradientNoise",
    "noise",
    "rules",
    "thresholds",
]

# Type checkers would otherwise take any name for one of the package.
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy.attach(
        __name__,
        {
            "ACClip": "keras_acclip.optimizers.acclip",
            "CClip": "keras_acclip.optimizers.cclip",
            "Clip": "keras_acclip.optimizers.clip",
            "GClip": "keras_acclip.optimizers.gclip",
            "GradientMonitor": "keras_acclip.noise.monitor",
            "GradientNoise": "keras_acclip.noise.callback",
            "garden": "garden",
            "noise": "noise",
            "rules": "rules",
            "tf_keras": "tf_keras",
            "thresholds": "thresholds",
        },
    )
