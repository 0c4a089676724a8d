"""ACClip with one threshold for all coordinates."""

import keras
from keras import ops

from keras_acclip import rules


@keras.saving.register_keras_serializable(package="keras_acclip_examples")
class GlobalMoving(keras.optimizers.Optimizer):
    """ACClip with one threshold for all coordinates: the clip is global, the threshold moves.

        m   ← β₁·m + (1 − β₁)·g
        τ^α ← β₂·τ^α + (1 − β₂)·‖g‖^α
        ĝ   = min(τ/(‖m‖ + ε), 1)·m
        x   ← x − lr/(τ + ε)·ĝ

    with norms over all variables together. No step is longer than lr.

    Args:
        learning_rate: lr, or its schedule.
        beta_1: β₁ in [0, 1). Defaults to `0.9`.
        beta_2: β₂ in [0, 1). Defaults to `0.99`.
        epsilon: ε > 0. Defaults to `1e-5`.
        alpha: α in [1, 2]. Defaults to `1.0`.
    """

    def __init__(self, learning_rate, beta_1=0.9, beta_2=0.99, epsilon=1e-5, alpha=1.0, **kwargs):
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.beta_1, self.beta_2 = beta_1, beta_2
        self.epsilon, self.alpha = epsilon, alpha

    def build(self, variables):
        """Makes m for each variable, and τ^α."""
        if not self.built:
            super().build(variables)
            self.moments = [self.add_variable_from_reference(v, "moment") for v in variables]
            dtype = keras.backend.standardize_dtype(variables[0].dtype)
            self.threshold_power = self.add_variable((), dtype=dtype, name="threshold_power")

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        norm = rules.global_norm(grads, ops)
        power = self.beta_2 * self.threshold_power + (1 - self.beta_2) * norm**self.alpha
        threshold = power ** (1 / self.alpha)
        moments = [
            self.beta_1 * m + (1 - self.beta_1) * g
            for m, g in zip(self.moments, grads, strict=True)
        ]
        clip = ops.minimum(threshold / (rules.global_norm(moments, ops) + self.epsilon), 1)
        rate = ops.cast(learning_rate, norm.dtype) / (threshold + self.epsilon)
        for x, slot, m in zip(trainable_variables, self.moments, moments, strict=True):
            x.assign(x - rate * clip * m)
            slot.assign(m)
        self.threshold_power.assign(power)

    def get_config(self):
        """The arguments, as Keras wants them."""
        names = ("beta_1", "beta_2", "epsilon", "alpha")
        return super().get_config() | {name: getattr(self, name) for name in names}
