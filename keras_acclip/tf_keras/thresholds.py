"""`keras_acclip.thresholds` with schedules for Keras 2."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras

from keras_acclip import rules
from keras_acclip._utils import arguments
from keras_acclip.thresholds import Constants


@tf_keras.saving.register_keras_serializable(package="keras_acclip")
class PowerThreshold(tf_keras.optimizers.schedules.LearningRateSchedule):
    """The clipping threshold τ_k = scale·k^{1/α} of Theorems 4 and 8, for Keras 2.

    The paper prints k^{α−1}; its proof needs k^{1/α}. k counts steps from 1.

    Args:
        scale: G (Theorem 4) or B (Theorem 8), the α-moment bound of the gradient: E‖g‖^α ≤ G^α.
            In the gradient's units, above 0.
        alpha: α in (1, 2], the order of the largest moment that the noise has.

    Raises:
        TypeError: If an argument is no real number.
        ValueError: If an argument lies outside its range.

    Example:

    >>> schedule = PowerThreshold(scale=2.0, alpha=2.0)
    >>> float(schedule(0)), float(schedule(3))  # k = 1 and k = 4
    (2.0, 4.0)

    References:
        Zhang et al. (2020), Theorems 4 and 8.
    """

    def __init__(self, scale: float, alpha: float) -> None:
        scale = arguments.positive("scale", scale)
        self.scale = arguments.representable("scale", scale, "float32")
        self.alpha = arguments.moment_order("alpha", alpha, open_low=True)

    def __call__(self, step: int | tf.Tensor) -> tf.Tensor:
        """Returns τ_k as a float32 scalar for `step` = k − 1, a whole number or integer tensor."""
        return rules.power_threshold(tf.cast(step, "float32") + 1.0, self.scale, self.alpha)

    def get_config(self) -> dict[str, float]:
        """Returns the arguments from which `from_config` makes the same schedule."""
        return {"scale": self.scale, "alpha": self.alpha}


def strongly_convex_constants(
    gradient_moment: float | dict[str, float], strong_convexity: float, alpha: float
) -> Constants:
    """`keras_acclip.thresholds.strongly_convex_constants` with schedules for Keras 2.

    Args:
        gradient_moment: G > 0 with E‖g‖^α ≤ G^α (Theorem 4); for CClip the bound B of every
            coordinate, or a dict from variable name (a regular expression) to it (Theorem 8).
        strong_convexity: μ > 0.
        alpha: α in (1, 2].

    Returns:
        `Constants(learning_rate, threshold)`: a `LearningRateSchedule` and a `PowerThreshold`, or
        a dict of those.

    Raises:
        TypeError: If an argument is no real number.
        ValueError: If an argument lies outside its range.

    Example:

    >>> rate, threshold = strongly_convex_constants(3.0, strong_convexity=2.0, alpha=1.5)
    >>> optimizer = keras_acclip.tf_keras.GClip(rate, threshold, averaging="linear")

    References:
        Zhang et al. (2020), Theorems 4 and 8.
    """
    mu = arguments.positive("strong_convexity", strong_convexity)
    # 4/(μ·(k + 1)) with k = step + 1 is (2/μ)/(1 + step/2).
    decay = tf_keras.optimizers.schedules.InverseTimeDecay
    rate = decay(2 / mu, decay_steps=2, decay_rate=1.0)
    threshold: Any
    if isinstance(gradient_moment, dict):
        threshold = {path: PowerThreshold(G, alpha) for path, G in gradient_moment.items()}
    else:
        threshold = PowerThreshold(gradient_moment, alpha)
    return Constants(rate, threshold)
