"""Clipping-threshold schedules, and the constants of the paper's Theorems 2, 4 and 8.

Reference: Zhang et al., "Why are Adaptive Methods Good for Attention Models?", NeurIPS 2020
(https://arxiv.org/abs/1912.03194).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras

from keras_acclip import rules
from keras_acclip._utils import arguments
from keras_acclip._utils.typing import Array


@keras.saving.register_keras_serializable(package="keras_acclip")
class PowerThreshold(keras.optimizers.schedules.LearningRateSchedule):
    """The clipping threshold τ_k = scale·k^{1/α} of Theorems 4 and 8, k counting steps from 1.

    The paper prints k^{α−1}; its proof needs k^{1/α}.

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

    def __call__(self, step: int | Array) -> Array:
        """Returns τ_k as a float32 scalar for `step` = k − 1, a whole number or integer tensor."""
        k: Array = keras.ops.cast(step, "float32")
        return rules.power_threshold(k + 1.0, self.scale, self.alpha)

    def get_config(self) -> dict[str, float]:
        """Returns the arguments from which `from_config` makes the same schedule."""
        return {"scale": self.scale, "alpha": self.alpha}


class Constants(NamedTuple):
    """A learning rate and a clipping threshold, floats or schedules, for `GClip` or `CClip`."""

    learning_rate: Any
    threshold: Any


def nonconvex_constants(
    smoothness: float, sigma: float, alpha: float, steps: int, initial_gap: float
) -> Constants:
    """The step size η and threshold τ of Theorem 2, for GClip on a smooth non-convex function.

        τ = max{2, 48^{1/(α−1)}·σ^{α/(α−1)}, 8σ, (σ^{3α}·K/(L·F₀))^{1/(3α−2)}}
        η = min{1/(4L), (σ/τ)^α/L, 1/(24·L·τ)}

    The printed fourth term of τ falls with K and cannot give the rate. The one here makes the
    three error terms F₀/(η·K), L·η·τ^{2−α}·σ^α and σ^{2α}·τ^{−2(α−1)} of the proof equal, and then
    E‖∇f‖ = O(K^{−(α−1)/(3α−2)}).

    Args:
        smoothness: L > 0, the Lipschitz constant of ∇f.
        sigma: σ > 0 with E‖g − ∇f(x)‖^α ≤ σ^α, in the gradient's units.
        alpha: α in (1, 2].
        steps: K ≥ 1, the number of steps that will be taken.
        initial_gap: F₀ = f(x₀) − inf f > 0, in the loss's units.

    Returns:
        `Constants(learning_rate, threshold)`, two floats.

    Raises:
        TypeError: If an argument is no real number.
        ValueError: If an argument lies outside its range, or α is so near 1 that τ overflows.

    Example:

    >>> eta, tau = nonconvex_constants(1.0, sigma=0.5, alpha=2.0, steps=10_000, initial_gap=1.0)
    >>> tau
    12.0
    """
    L = arguments.positive("smoothness", smoothness)
    sigma = arguments.positive("sigma", sigma)
    alpha = arguments.moment_order("alpha", alpha, open_low=True)
    K = arguments.positive_integer("steps", steps)
    F0 = arguments.positive("initial_gap", initial_gap)
    try:
        tau = max(
            2.0,
            48 ** (1 / (alpha - 1)) * sigma ** (alpha / (alpha - 1)),
            8 * sigma,
            balanced_threshold(L, sigma, alpha, K, F0),
        )
    except OverflowError:
        raise ValueError(
            f"Argument `alpha` is too near 1 for sigma={sigma!r}: Theorem 2's threshold overflows. "
            f"Received: alpha={alpha!r}"
        ) from None
    return Constants(min(1 / (4 * L), (sigma / tau) ** alpha / L, 1 / (24 * L * tau)), tau)


def balanced_threshold(
    smoothness: float, sigma: float, alpha: float, steps: int, initial_gap: float
) -> float:
    """The τ at which Theorem 2's three error terms are equal: (σ^{3α}·K/(L·F₀))^{1/(3α−2)}.

    Arguments as in `nonconvex_constants`, unchecked.
    """
    power = 1 / (3 * alpha - 2)
    return sigma ** (3 * alpha * power) * (steps / (smoothness * initial_gap)) ** power


def strongly_convex_constants(
    gradient_moment: float | dict[str, float], strong_convexity: float, alpha: float
) -> Constants:
    """The schedules of Theorem 4 (GClip) and Theorem 8 (CClip) on a μ-strongly convex function.

    η_k = 4/(μ·(k + 1)) and τ_k = G·k^{1/α}, k from 1; the output is the average Σ j·x_{j−1}/Σ j,
    which is `averaging="linear"`, and the error O(k^{−2(α−1)/α}).

    Args:
        gradient_moment: G > 0 with E‖g‖^α ≤ G^α (Theorem 4); for CClip the bound B of every
            coordinate, or a dict from variable path (a regular expression) to it (Theorem 8).
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
    >>> optimizer = keras_acclip.GClip(rate, threshold, averaging="linear", projection_radius=10.0)
    """
    mu = arguments.positive("strong_convexity", strong_convexity)
    # 4/(μ·(k + 1)) with k = step + 1 is (2/μ)/(1 + step/2).
    decay = keras.optimizers.schedules.InverseTimeDecay
    rate = decay(2 / mu, decay_steps=2, decay_rate=1.0)
    threshold: Any
    if isinstance(gradient_moment, dict):
        threshold = {path: PowerThreshold(G, alpha) for path, G in gradient_moment.items()}
    else:
        threshold = PowerThreshold(gradient_moment, alpha)
    return Constants(rate, threshold)
