"""The same for Keras 2 (`tf_keras`), which the TensorFlow Model Garden trains with.

With the environment variable `TF_USE_LEGACY_KERAS=1`, `tf.keras` is this Keras.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from keras_acclip._utils import lazy

if TYPE_CHECKING:
    from keras_acclip.noise.callback_tf_keras import GradientNoise as GradientNoise
    from keras_acclip.noise.monitor_tf_keras import GradientMonitor as GradientMonitor
    from keras_acclip.tf_keras.acclip import ACClip as ACClip
    from keras_acclip.tf_keras.cclip import CClip as CClip
    from keras_acclip.tf_keras.clip import Clip as Clip
    from keras_acclip.tf_keras.gclip import GClip as GClip
    from keras_acclip.tf_keras.thresholds import PowerThreshold as PowerThreshold
    from keras_acclip.tf_keras.thresholds import (
        strongly_convex_constants as strongly_convex_constants,
    )

if importlib.util.find_spec("tf_keras") is None:
    raise ImportError("keras_acclip.tf_keras needs tf_keras: pip install 'keras-acclip[garden]'")

__all__ = [
    "ACClip",
    "CClip",
    "Clip",
    "GClip",
    "GradientMonitor",
    "GradientNoise",
    "PowerThreshold",
    "strongly_convex_constants",
]

# Type checkers would otherwise take any name for one of the package.
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy.attach(
        __name__,
        {
            "ACClip": "acclip",
            "CClip": "cclip",
            "Clip": "clip",
            "GClip": "gclip",
            "GradientMonitor": "keras_acclip.noise.monitor_tf_keras",
            "GradientNoise": "keras_acclip.noise.callback_tf_keras",
            "PowerThreshold": "thresholds",
            "strongly_convex_constants": "thresholds",
        },
    )
