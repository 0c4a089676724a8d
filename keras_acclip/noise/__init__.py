"""Gradient noise: measured at fixed weights, its tail judged, followed through training, drawn.

The public names load where they are first used, so that importing this package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_acclip._utils import lazy

if TYPE_CHECKING:
    from keras_acclip.noise import plots as plots
    from keras_acclip.noise import tails as tails
    from keras_acclip.noise.advice import Advice as Advice
    from keras_acclip.noise.callback import GradientNoise as GradientNoise
    from keras_acclip.noise.measure import NoiseMeter as NoiseMeter
    from keras_acclip.noise.measure import measure_noise as measure_noise
    from keras_acclip.noise.sample import NoiseSample as NoiseSample
    from keras_acclip.noise.tails import TailEstimate as TailEstimate
    from keras_acclip.noise.tails import Verdict as Verdict
    from keras_acclip.noise.tails import classify as classify
    from keras_acclip.noise.tails import hill as hill

__all__ = [
    "Advice",
    "GradientNoise",
    "NoiseMeter",
    "NoiseSample",
    "TailEstimate",
    "Verdict",
    "classify",
    "hill",
    "measure_noise",
    "plots",
    "tails",
]

# Type checkers would otherwise take any name for one of the package.
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy.attach(
        __name__,
        {
            "Advice": "advice",
            "GradientNoise": "callback",
            "NoiseMeter": "measure",
            "NoiseSample": "sample",
            "TailEstimate": "tails",
            "Verdict": "tails",
            "classify": "tails",
            "hill": "tails",
            "measure_noise": "measure",
            "plots": "plots",
            "tails": "tails",
        },
    )
