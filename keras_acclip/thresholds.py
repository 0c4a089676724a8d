"""Clipping thresholds: schedules, those that move with the norms, the theorems' constants.

Reference: Zhang et al., "Why are Adaptive Methods Good for Attention Models?", NeurIPS 2020
(https://arxiv.org/abs/1912.03194).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import keras

from keras_acclip import rules
from keras_acclip._utils import arguments
from keras_acclip._utils.typing import Array, Ops


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


class Moving(Protocol):
    """What an optimizer asks of a threshold that moves.

    A state is an array of the shape `(norms, width)`, 0 at first, in float32.

    Example:

    >>> from keras import ops
    >>> from keras_acclip import thresholds
    >>> moving = thresholds.MovingQuantile(0.5, window=4, warmup=2)
    >>> state = ops.zeros((1, moving.width))
    >>> for norm in (1.0, 3.0):
    ...     state = moving.updated(state, ops.array([norm]), ops)
    >>> float(moving.thresholds(state, ops)[0])
    2.0
    """

    @property
    def width(self) -> int:
        """How many numbers are kept for each norm."""
        ...

    def thresholds(self, state: Array, ops: Ops) -> Array:
        """Returns each norm's threshold; infinite before enough norms were seen."""
        ...

    def updated(self, state: Array, norms: Array, ops: Ops) -> Array:
        """Returns the state after these norms; a norm that is 0 or not finite changes nothing."""
        ...


@keras.saving.register_keras_serializable(package="keras_acclip")
@dataclass(frozen=True)
class MovingMoment:
    """A threshold that follows the norms' α-moment: τ = c·(moving average of n^α)^{1/α}.

    The paper's online estimate of the moment (Section 4.2), of a norm instead of a coordinate. Each
    norm n counts as it is after clipping, so that an outlier cannot lift the threshold by more than
    a norm of the threshold's size would. With one norm a variable (`by="variable"`), it is what
    AdaGC does (Wang et al., 2025).

    The first `warmup` norms are not clipped: the estimate starts at their median, which one outlier
    among them does not move. Norms that are 0, infinite or NaN are left out.

    Args:
        multiple: c > 0. Defaults to `2.0`.
        alpha: α in [1, 2]. Defaults to `1.0`.
        decay: The moving average's decay in [0, 1). Defaults to `0.98`.
        warmup: How many norms are seen before any is clipped, at least 1. Defaults to `10`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument lies outside its range.

    Example:

    >>> optimizer = Clip(keras.optimizers.AdamW(3e-4), threshold=MovingMoment(multiple=1.5))

    References:
        Zhang et al. (2020), Section 4.2; AdaGC: https://arxiv.org/abs/2502.11034.
    """

    multiple: float = 2.0
    alpha: float = 1.0
    decay: float = 0.98
    warmup: int = 10

    def __post_init__(self) -> None:
        _set(
            self,
            multiple=arguments.positive("multiple", self.multiple),
            alpha=arguments.moment_order("alpha", self.alpha),
            decay=arguments.real("decay", self.decay, low=0.0, high=1.0, open_high=True),
            warmup=arguments.positive_integer("warmup", self.warmup),
        )

    @property
    def width(self) -> int:
        """How many numbers are kept for each norm: count, root of the moment, first norms."""
        return 2 + self.warmup

    def thresholds(self, state: Array, ops: Ops) -> Array:
        """Returns τ of each norm, shape `(norms,)`; infinite in the warm-up.

        Args:
            state: The state, shape `(norms, width)`.
            ops: Namespace of array functions.
        """
        count, root = state[:, 0], state[:, 1]
        return _unless_warm(self.multiple * root, count >= self.warmup, ops)

    def updated(self, state: Array, norms: Array, ops: Ops) -> Array:
        """Returns the state after these norms.

        Args:
            state: The state, shape `(norms, width)`.
            norms: The norms before clipping, shape `(norms,)`.
            ops: Namespace of array functions.
        """
        count, root, first = state[:, 0], state[:, 1], state[:, 2:]
        n = ops.minimum(norms, self.thresholds(state, ops))
        # As a ratio to the last root, no power of a norm can overflow.
        ratio = n / ops.where(root > 0, root, ops.ones_like(root))
        power = self.decay + (1 - self.decay) * ratio**self.alpha
        first = _put(first, count, n, ops)
        seed = _masked_quantile(first, count + 1, 0.5, ops)
        root = ops.where(count < self.warmup, seed, root * power ** (1 / self.alpha))
        new = ops.concatenate([ops.stack([count + 1, root], 1), first], 1)
        return _where_seen(norms, new, state, ops)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments from which `from_config` makes the same threshold."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MovingMoment:
        """Makes the threshold that `get_config` describes."""
        return cls(**config)


@keras.saving.register_keras_serializable(package="keras_acclip")
@dataclass(frozen=True)
class MovingQuantile:
    """A threshold at a quantile of the last norms (AutoClip).

    Each norm counts as it was before clipping, which moves a quantile by its rank alone, however
    long it is. Norms that are 0, infinite or NaN are left out. The quantile is interpolated
    between the norms beside it, as `numpy.quantile` does.

    Args:
        q: The quantile in (0, 1). Defaults to `0.9`.
        window: How many norms are looked back on, at least 2. Defaults to `128`.
        warmup: How many norms are seen before any is clipped, from 1 to `window`. Defaults to `10`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument lies outside its range.

    Example:

    >>> optimizer = Clip(keras.optimizers.SGD(0.1), threshold=MovingQuantile(0.9))

    References:
        Seetharaman et al., "AutoClip: Adaptive Gradient Clipping for Source Separation Networks",
        2020 (https://arxiv.org/abs/2007.14469), with a window in the place of all norms.
    """

    q: float = 0.9
    window: int = 128
    warmup: int = 10

    def __post_init__(self) -> None:
        window = arguments.positive_integer("window", self.window)
        if window < 2:
            raise ValueError(f"Argument `window` must be at least 2. Received: window={window}")
        warmup = arguments.positive_integer("warmup", self.warmup)
        if warmup > window:
            raise ValueError(
                f"Argument `warmup` must be at most `window`, {window}. Received: warmup={warmup}"
            )
        q = arguments.real("q", self.q, low=0.0, high=1.0, open_low=True, open_high=True)
        _set(self, q=q, window=window, warmup=warmup)

    @property
    def width(self) -> int:
        """How many numbers are kept for each norm: count, and the last norms."""
        return 1 + self.window

    def thresholds(self, state: Array, ops: Ops) -> Array:
        """Returns τ of each norm, shape `(norms,)`; infinite in the warm-up.

        Args:
            state: The state, shape `(norms, width)`.
            ops: Namespace of array functions.
        """
        count = state[:, 0]
        quantile = _masked_quantile(state[:, 1:], count, self.q, ops)
        return _unless_warm(quantile, count >= self.warmup, ops)

    def updated(self, state: Array, norms: Array, ops: Ops) -> Array:
        """Returns the state after these norms.

        Args:
            state: The state, shape `(norms, width)`.
            norms: The norms before clipping, shape `(norms,)`.
            ops: Namespace of array functions.
        """
        count, last = state[:, 0], state[:, 1:]
        # Counted around the window twice, so that a float holds it however long a training is.
        place = ops.where(count < self.window, count, count - self.window)
        last = _put(last, place, norms, ops)
        count = ops.where(count + 1 < 2 * self.window, count + 1, self.window + 0 * count)
        return _where_seen(norms, ops.concatenate([count[:, None], last], 1), state, ops)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments from which `from_config` makes the same threshold."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MovingQuantile:
        """Makes the threshold that `get_config` describes."""
        return cls(**config)


@keras.saving.register_keras_serializable(package="keras_acclip")
@dataclass(frozen=True)
class ZScore:
    """A threshold z standard deviations above the mean of the norms (ZClip).

    Mean and variance are moving averages of the norms after clipping, so that an outlier cannot
    lift the threshold by more than a norm of the threshold's size would. The first `warmup` norms
    are not clipped: mean and deviation start at their median and at 1.4826 times their median
    absolute deviation. Norms that are 0, infinite or NaN are left out.

    Args:
        z: Above 0. Defaults to `2.5`.
        decay: The moving averages' decay in [0, 1). Defaults to `0.97`.
        warmup: How many norms are seen before any is clipped, at least 2. Defaults to `25`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument lies outside its range.

    Example:

    >>> optimizer = Clip(keras.optimizers.Lion(1e-4), threshold=ZScore(z=2.5))

    References:
        Kumar et al., "ZClip: Adaptive Spike Mitigation for LLM Pre-Training", 2025
        (https://arxiv.org/abs/2504.02507), which clips to the mean where it clips.
    """

    z: float = 2.5
    decay: float = 0.97
    warmup: int = 25

    def __post_init__(self) -> None:
        warmup = arguments.positive_integer("warmup", self.warmup)
        if warmup < 2:
            raise ValueError(f"Argument `warmup` must be at least 2. Received: warmup={warmup}")
        _set(
            self,
            z=arguments.positive("z", self.z),
            decay=arguments.real("decay", self.decay, low=0.0, high=1.0, open_high=True),
            warmup=warmup,
        )

    @property
    def width(self) -> int:
        """How many numbers are kept for each norm: count, mean, deviation, first norms."""
        return 3 + self.warmup

    def thresholds(self, state: Array, ops: Ops) -> Array:
        """Returns τ of each norm, shape `(norms,)`; infinite in the warm-up.

        Args:
            state: The state, shape `(norms, width)`.
            ops: Namespace of array functions.
        """
        count, mean, deviation = state[:, 0], state[:, 1], state[:, 2]
        return _unless_warm(mean + self.z * deviation, count >= self.warmup, ops)

    def updated(self, state: Array, norms: Array, ops: Ops) -> Array:
        """Returns the state after these norms.

        Args:
            state: The state, shape `(norms, width)`.
            norms: The norms before clipping, shape `(norms,)`.
            ops: Namespace of array functions.
        """
        count, mean, deviation, first = state[:, 0], state[:, 1], state[:, 2], state[:, 3:]
        n = ops.minimum(norms, self.thresholds(state, ops))
        first = _put(first, count, n, ops)
        middle = _masked_quantile(first, count + 1, 0.5, ops)
        away = ops.abs(first - middle[:, None])
        spread = 1.4826 * _masked_quantile(away, count + 1, 0.5, ops)
        # The variance of a moving average, as ratios to the mean: no square can overflow.
        unit = ops.where(mean > 0, mean, ops.ones_like(mean))
        step = (n - mean) / unit
        moved = self.decay * ((deviation / unit) ** 2 + (1 - self.decay) * step**2)
        warm = count < self.warmup
        new_mean = ops.where(warm, middle, mean + (1 - self.decay) * (n - mean))
        new_deviation = ops.where(warm, spread, unit * ops.sqrt(moved))
        numbers = ops.stack([count + 1, new_mean, new_deviation], 1)
        return _where_seen(norms, ops.concatenate([numbers, first], 1), state, ops)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments from which `from_config` makes the same threshold."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ZScore:
        """Makes the threshold that `get_config` describes."""
        return cls(**config)


MOVING = (MovingMoment, MovingQuantile, ZScore)


def serialize(threshold: Moving) -> dict[str, Any]:
    """The config of a threshold that moves, for either version of Keras.

    Example:

    >>> from keras_acclip import thresholds
    >>> thresholds.serialize(thresholds.ZScore(z=3.0))["config"]
    {'z': 3.0, 'decay': 0.97, 'warmup': 25}
    """
    name = type(threshold).__name__
    return {"class_name": name, "config": dataclasses.asdict(threshold)}  # type: ignore[call-overload]


def deserialize(config: dict[str, Any]) -> Moving | None:
    """The moving threshold that a config describes, or `None` if it describes something else.

    Example:

    >>> from keras_acclip import thresholds
    >>> thresholds.deserialize(thresholds.serialize(thresholds.ZScore(z=3.0)))
    ZScore(z=3.0, decay=0.97, warmup=25)
    """
    for cls in MOVING:
        if config["class_name"] == cls.__name__:
            return cls(**config["config"])
    return None


def _set(threshold: Any, **checked: Any) -> None:
    for name, value in checked.items():
        object.__setattr__(threshold, name, value)


def _unless_warm(threshold: Array, ready: Array, ops: Ops) -> Array:
    return ops.where(ready, threshold, float("inf") * ops.ones_like(threshold))


def _where_seen(norms: Array, new: Array, old: Array, ops: Ops) -> Array:
    """The new state of each norm that counts, the old one of the others."""
    seen = ops.logical_and(norms > 0, norms < float("inf"))
    return ops.where(seen[:, None], new, old)


def _put(row: Array, place: Array, value: Array, ops: Ops) -> Array:
    """Each row with a value at its place; rows whose place is beyond their end stay."""
    columns = ops.cast(ops.arange(row.shape[1]), row.dtype)
    return ops.where(columns[None, :] == place[:, None], value[:, None], row)


def _masked_quantile(rows: Array, count: Array, q: float, ops: Ops) -> Array:
    """The q-quantile of the first `count` numbers of each row, of at least one, interpolated."""
    width = rows.shape[1]
    columns = ops.cast(ops.arange(width), rows.dtype)[None, :]
    count = ops.minimum(ops.maximum(count, 1 + 0 * count), width + 0 * count)[:, None]
    ordered = ops.sort(ops.where(columns < count, rows, float("inf") * ops.ones_like(rows)), 1)
    place = q * (count - 1)
    low = ops.floor(place)
    # The number at a place, without an index that changes from step to step.
    at = [ops.where(columns == i, ordered, ops.zeros_like(ordered)) for i in (low, low + 1)]
    below, above = (ops.sum(a, 1) for a in at)
    share = (place - low)[:, 0]
    return below + ops.where(share > 0, share * (above - below), 0 * below)


class Constants(NamedTuple):
    """A learning rate and a clipping threshold, floats or schedules, for `GClip` or `CClip`.

    Example:

    >>> import keras_acclip
    >>> from keras_acclip import thresholds
    >>> constants = thresholds.nonconvex_constants(
    ...     smoothness=1.0, sigma=0.5, alpha=2.0, steps=10_000, initial_gap=1.0
    ... )
    >>> optimizer = keras_acclip.GClip(**constants._asdict())
    >>> constants.threshold
    12.0
    """

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

    Example:

    >>> from keras_acclip import thresholds
    >>> round(thresholds.balanced_threshold(1.0, 1.0, alpha=2.0, steps=10_000, initial_gap=1.0), 6)
    10.0
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
