"""Learning rates over a training: a linear warm-up, then a linear decay or none."""

from __future__ import annotations

from typing import Any

import keras

ops: Any = keras.ops


class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up to a rate, then a linear decay to 0 at the end, or the rate held.

    Args:
        rate: The peak, above 0.
        warmup: The share of the steps that warm up, in [0, 1).
        steps: Steps of the training.
        decay: Whether the rate falls after the warm-up.
    """

    def __init__(self, rate: float, warmup: float, steps: int, decay: bool = True) -> None:
        self.rate, self.warmup, self.steps, self.decay = rate, warmup, steps, decay

    def __call__(self, step):
        """The rate of the step after `step` others, a float32 scalar."""
        step = ops.cast(step, "float32")
        start = ops.maximum(1.0, self.warmup * self.steps)
        rising = (step + 1) / start
        falling = (self.steps - step) / ops.maximum(1.0, self.steps - start) if self.decay else 1.0
        return self.rate * ops.clip(ops.minimum(rising, falling), 0.0, 1.0)

    def get_config(self):
        """The arguments."""
        names = ("rate", "warmup", "steps", "decay")
        return {name: getattr(self, name) for name in names}
