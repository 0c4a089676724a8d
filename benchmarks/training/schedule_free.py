"""ScheduleFreeAdamW: an average of the iterates in the place of a decay of the rate."""

from __future__ import annotations

from typing import Any

import keras

ops: Any = keras.ops


class ScheduleFreeAdamW(keras.optimizers.Optimizer):
    """Schedule-Free AdamW: gradients at a mix of the iterates and their average.

    The variables are y, where gradients are taken. `evaluated` gives x, the average, on which a
    model is judged. With η the rate, warm-up included, and c = η²/Σ η² over the steps so far:
    z ← z − η·(g/(√v̂ + ε) + wd·y), x ← (1 − c)·x + c·z, y ← (1 − β₁)·z + β₁·x.

    Args:
        learning_rate: A float or a schedule, that warms up and then holds.
        beta_1: β₁ in (0, 1).
        beta_2: β₂ in [0, 1).
        epsilon: ε > 0.
        decay: wd ≥ 0; of one axis, as biases and normalizations are, variables do not decay.

    References:
        [Defazio et al., 2024](https://arxiv.org/abs/2405.15682), Algorithm 1.
    """

    def __init__(
        self, learning_rate, beta_1=0.9, beta_2=0.999, epsilon=1e-8, decay=0.0, name="schedule_free"
    ):
        super().__init__(learning_rate=learning_rate, name=name)
        self.beta_1, self.beta_2, self.epsilon, self.decay = beta_1, beta_2, epsilon, decay

    def build(self, variables):
        """Makes the slots; z begins where the variables do."""
        if self.built:
            return
        super().build(variables)
        self._z = [self.add_variable_from_reference(v, "z", initializer="zeros") for v in variables]
        self._v = [self.add_variable_from_reference(v, "v") for v in variables]
        for z, variable in zip(self._z, variables, strict=True):
            z.assign(variable)
        self._weights = [
            self.add_variable((), initializer="zeros", dtype="float32", name=f"weight_{i}")
            for i in range(len(variables))
        ]

    def update_step(self, gradient, variable, learning_rate):
        """One step for one variable."""
        i = self._get_variable_index(variable)
        z: Any = self._z[i]
        v: Any = self._v[i]
        weight: Any = self._weights[i]
        rate = ops.cast(learning_rate, variable.dtype)
        step = ops.cast(self.iterations, variable.dtype) + 1
        x = self._average(variable, z)
        self.assign(v, self.beta_2 * v + (1 - self.beta_2) * ops.square(gradient))
        moment = v / (1 - ops.power(self.beta_2, step))
        decay = self.decay if len(variable.shape) > 1 else 0.0
        direction = gradient / (ops.sqrt(moment) + self.epsilon) + decay * variable
        self.assign(weight, weight + ops.square(rate))
        share = ops.square(rate) / ops.maximum(weight, 1e-30)
        self.assign(z, z - rate * direction)
        x = (1 - share) * x + share * z
        self.assign(variable, (1 - self.beta_1) * z + self.beta_1 * x)

    def evaluated(self, variables):
        """X for each of the variables."""
        return [self._average(y, z) for y, z in zip(variables, self._z, strict=True)]

    def _average(self, y, z):
        return (y - (1 - self.beta_1) * z) / self.beta_1
