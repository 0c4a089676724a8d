"""StableAdamW: AdamW whose step Adafactor's update clipping bounds."""

from __future__ import annotations

from typing import Any

import keras

ops: Any = keras.ops


class StableAdamW(keras.optimizers.AdamW):
    """AdamW whose rate falls, variable by variable, where the second moment is out of date.

    The rate of a variable is divided by max(1, RMS), RMS² the mean of g²/max(v̂, ε²) over its
    coordinates, v̂ the second moment, corrected for its start. Arguments are those of
    `keras.optimizers.AdamW`; the decay of the weights keeps the whole rate.

    References:
        [Wortsman et al., 2023](https://arxiv.org/abs/2304.13013), Algorithm 2.
    """

    def update_step(self, gradient, variable, learning_rate):
        """One step for one variable."""
        gradient = ops.cast(gradient, variable.dtype)
        step = ops.cast(self.iterations, variable.dtype) + 1
        # What AdamW is about to make of it.
        v = self._velocities[self._get_variable_index(variable)]
        moment = self.beta_2 * v + (1 - self.beta_2) * ops.square(gradient)
        moment = moment / (1 - ops.power(self.beta_2, step))
        ratio = ops.square(gradient) / ops.maximum(moment, self.epsilon**2)
        rms = ops.sqrt(ops.mean(ratio))
        super().update_step(gradient, variable, learning_rate / ops.maximum(1.0, rms))
