"""Candidates for a better ACClip, each a switch of one optimizer; all off, it is ACClip."""

from __future__ import annotations

from typing import Any

import keras

from keras_acclip import rules

ops: Any = keras.ops

LEAST_SHARE = 1e-3  # Of coordinates that cautious masking counts as kept.
TINY = 2.0**-60  # Keeps 0/0 out, as in ACClip.


class ACClipVariant(keras.optimizers.Optimizer):
    """ACClip with α = 1 and η = lr/(τ + ε), changed by the switches.

        g ← clip(g, ±gradient_multiple·τ)                    where it is given and τ > 0
        m ← β₁·m + (1 − β₁)·g
        τ ← β₂·τ + (1 − β₂)·|g|
        m̃ = β₁·m + (1 − β₁)·g                                with `nesterov`, else m
        ĝ = min(c·τ/(|m̃| + ε), 1)·m̃                         c the `multiple`
        ĝ = m̃·c·τ/√((c·τ)² + m̃²)                            with `smooth`
        x ← x − lr·ĝ/(c·τ + ε)

    Args:
        learning_rate: A float or a schedule.
        beta_1: β₁.
        beta_2: β₂.
        epsilon: ε; in units of the mean of c·τ over the variable with `relative_epsilon`.
        nesterov: Whether the step looks ahead (Dozat, 2016).
        cautious: Whether coordinates whose step opposes the gradient get none and the rest is
            longer by one over the share that is left (Liang et al., 2024, Algorithm 2).
        smooth: Whether the clip bends instead of breaking.
        corrected: Whether m and τ are divided by what their start at 0 leaves out.
        gradient_multiple: `None`, or how many times the last τ bounds a gradient's coordinate.
        multiple: c.
        relative_epsilon: Whether ε has no unit.
        weight_decay: As Keras has it.
    """

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        epsilon: float = 1e-5,
        nesterov: bool = False,
        cautious: bool = False,
        smooth: bool = False,
        corrected: bool = False,
        gradient_multiple: float | None = None,
        multiple: float = 1.0,
        relative_epsilon: bool = False,
        weight_decay: float | None = None,
    ) -> None:
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, name="variant")
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon
        self.nesterov, self.cautious, self.smooth = nesterov, cautious, smooth
        self.corrected, self.relative_epsilon = corrected, relative_epsilon
        self.gradient_multiple, self.multiple = gradient_multiple, multiple

    def build(self, variables):
        """Makes the slots."""
        if not self.built:
            super().build(variables)
            self.moments, self.thresholds = self.add_optimizer_variables(
                variables, ["moment", "threshold"]
            )

    def update_step(self, gradient, variable, learning_rate):
        """One step for one variable."""
        index = self._get_variable_index(variable)
        m, tau, g = self.moments[index], self.thresholds[index], gradient
        if self.gradient_multiple is not None:
            bound = ops.where(tau > 0, self.gradient_multiple * tau, float("inf"))
            g = rules.clipped_coordinates(g, bound, ops)
        m_new = self.beta_1 * m + (1 - self.beta_1) * g
        tau_new = self.beta_2 * tau + (1 - self.beta_2) * ops.abs(g)
        self.assign(m, m_new)
        self.assign(tau, tau_new)
        clipped, threshold, epsilon = self._clipped(g, m_new, tau_new)
        step = learning_rate * clipped / (threshold + epsilon)
        if self.cautious:
            kept = ops.cast(step * gradient > 0, step.dtype)
            step = step * kept / ops.maximum(ops.mean(kept), LEAST_SHARE)
        self.assign_sub(variable, step)

    def _clipped(self, g, m, tau):
        """ĝ, its threshold c·τ, and ε."""
        # Of the gradients' weights in m and τ, so much is there after so many steps.
        steps = ops.cast(self.iterations, g.dtype) + 1
        in_m = 1 - self.beta_1 ** (steps + self.nesterov) if self.corrected else 1.0
        in_tau = 1 - self.beta_2**steps if self.corrected else 1.0
        m = m / in_m
        if self.nesterov:
            in_g = 1 - self.beta_1**steps if self.corrected else 1.0
            m = self.beta_1 * m + (1 - self.beta_1) * g / in_g
        tau = self.multiple * tau / in_tau
        epsilon = self.epsilon * (ops.mean(tau) if self.relative_epsilon else 1.0) + TINY
        if self.smooth:
            return m * tau / (ops.sqrt(tau * tau + m * m) + TINY), tau, epsilon
        return m * tau / ops.maximum(tau, ops.abs(m) + epsilon), tau, epsilon
