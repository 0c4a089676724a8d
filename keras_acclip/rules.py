"""The paper's updates as pure rules: what each keeps for a variable, and one step of it.

A rule turns a gradient into the *step* that is subtracted from the parameters, x ← x − step. It
is a frozen dataclass that holds its hyperparameters, checked. It calls an array namespace `ops`
with `abs`, `concatenate`, `cond`, `isnan`, `logical_and`, `maximum`, `minimum`, `ones_like`,
`reshape`, `sqrt`, `square`, `stack`, `sum`, `where` and `zeros_like`: `keras.ops` has them all.

Reference: Zhang et al., "Why are Adaptive Methods Good for Attention Models?", NeurIPS 2020
(https://arxiv.org/abs/1912.03194).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from keras_acclip._utils import arguments
from keras_acclip._utils.typing import Array, Ops

# Stands in for ε = 0 in ACClip's ratio: its square is still a normal float32, so 0/0 can't be.
_TINY = 2.0**-60

# Between these, the square of a norm is neither rounded to zero nor to infinity in float32;
# outside, this power of two brings it there.
SAFE_NORMS = (2.0**-50, 2.0**60)
_RESCALE = 2.0**70
# Arrays of fewer coordinates are not worth slicing.
_LARGE = 2**17

STEP_SIZES = ("moment", "rms", "constant")


class Rule(Protocol):
    """What an optimizer asks of a rule.

    Its slots have the variable's shape and are 0 at first. Where it clips jointly, all variables'
    gradients are scaled by one factor before the steps.

    Example:

    >>> from keras_acclip import rules
    >>> rule = rules.GClip(momentum=0.9)
    >>> rule.slots, rule.clips_jointly, rule.has_threshold
    (('momentum',), True, True)
    """

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the arrays that it keeps for each variable."""
        ...

    @property
    def clips_jointly(self) -> bool:
        """Whether `factor` is to be applied to all gradients."""
        ...

    @property
    def has_threshold(self) -> bool:
        """Whether `factor` or `step` takes a threshold; else it is a slot."""
        ...

    def factor(self, norm: Array, threshold: Array, ops: Ops) -> Array:
        """Returns the factor for all gradients, given the norm of all together."""
        ...

    def step(
        self,
        gradient: Array,
        slots: Sequence[Array],
        *,
        learning_rate: Array,
        threshold: Array,
        ops: Ops,
    ) -> tuple[Array, tuple[Array, ...]]:
        """Returns the step to subtract, and the new slots."""
        ...

    def clipped(
        self, gradient: Array, slots: Sequence[Array], *, threshold: Array, ops: Ops
    ) -> tuple[Array, Array]:
        """Returns which coordinates were clipped by the step that made these slots, and τ."""
        ...


@dataclass(frozen=True)
class GClip:
    """GClip: SGD with the gradient of all variables together clipped to a norm (Section 3).

        x ← x − η·min(τ/‖g‖, 1)·g

    Args:
        momentum: μ in [0, 1], on the clipped gradient. Defaults to 0, which keeps no slot.
        nesterov: Whether the momentum looks ahead. Defaults to `False`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument lies outside its range.

    Example:

    >>> rule = GClip()
    >>> factor = rule.factor(norm=4.0, threshold=2.0, ops=keras.ops)  # 0.5
    >>> step, _ = rule.step(factor * g, (), learning_rate=0.1, threshold=2.0, ops=keras.ops)
    """

    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        _check_momentum(self)

    @property
    def slots(self) -> tuple[str, ...]:
        """`("momentum",)`, or none without momentum."""
        return ("momentum",) if self.momentum else ()

    @property
    def clips_jointly(self) -> bool:
        """`True`: the norm is that of all variables."""
        return True

    @property
    def has_threshold(self) -> bool:
        """`True`."""
        return True

    def factor(self, norm: Array, threshold: Array, ops: Ops) -> Array:
        """min(τ/‖g‖, 1), the factor by which the gradient is shortened (Equation GClip).

        Args:
            norm: ‖g‖ over all variables together, a scalar.
            threshold: τ, a scalar; below 0 it counts as 0.
            ops: Namespace of array functions.

        Returns:
            A scalar; NaN where the norm is NaN, 1 where it is 0.
        """
        # XLA's maximum and comparisons drop a NaN, so that it must be put back.
        return ops.where(ops.isnan(norm), norm, _at_most(norm, threshold, ops))

    def step(
        self,
        gradient: Array,
        slots: Sequence[Array],
        *,
        learning_rate: Array,
        threshold: Array,
        ops: Ops,
    ) -> tuple[Array, tuple[Array, ...]]:
        """Returns the step of a gradient that is scaled by `factor` already, and the new slots.

        Args:
            gradient: min(τ/‖g‖, 1)·g.
            slots: The velocity, or none without momentum.
            learning_rate: η, a scalar.
            threshold: Not used: `factor` has applied it.
            ops: Not used.
        """
        return _momentum_step(self, gradient, slots, learning_rate)

    def clipped(
        self, gradient: Array, slots: Sequence[Array], *, threshold: Array, ops: Ops
    ) -> tuple[Array, Array]:
        """None of the coordinates by itself: `factor` clips all together.

        Args:
            gradient: min(τ/‖g‖, 1)·g.
            slots: Not used.
            threshold: τ, a scalar.
            ops: Namespace of array functions.

        Returns:
            Booleans of the gradient's shape, and τ.
        """
        return ops.abs(gradient) < 0, threshold


@dataclass(frozen=True)
class CClip:
    """CClip: SGD with every coordinate of the gradient clipped to [−τ, τ] (Section 4).

    Args:
        momentum: μ in [0, 1], on the clipped gradient. Defaults to 0, which keeps no slot.
        nesterov: Whether the momentum looks ahead. Defaults to `False`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument lies outside its range.

    Example:

    >>> step, _ = CClip().step(g, (), learning_rate=0.1, threshold=0.5, ops=keras.ops)
    """

    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        _check_momentum(self)

    @property
    def slots(self) -> tuple[str, ...]:
        """`("momentum",)`, or none without momentum."""
        return ("momentum",) if self.momentum else ()

    @property
    def clips_jointly(self) -> bool:
        """`False`: each coordinate is clipped by itself."""
        return False

    @property
    def has_threshold(self) -> bool:
        """`True`."""
        return True

    def factor(self, norm: Array, threshold: Array, ops: Ops) -> Array:
        """1, whatever the norm."""
        return ops.ones_like(norm)

    def step(
        self,
        gradient: Array,
        slots: Sequence[Array],
        *,
        learning_rate: Array,
        threshold: Array,
        ops: Ops,
    ) -> tuple[Array, tuple[Array, ...]]:
        """Returns the step, and the new slots.

        Args:
            gradient: g.
            slots: The velocity, or none without momentum.
            learning_rate: η, a scalar.
            threshold: τ, a scalar; below 0 it counts as 0.
            ops: Namespace of array functions.
        """
        gradient = clipped_coordinates(gradient, threshold, ops)
        return _momentum_step(self, gradient, slots, learning_rate)

    def clipped(
        self, gradient: Array, slots: Sequence[Array], *, threshold: Array, ops: Ops
    ) -> tuple[Array, Array]:
        """Which coordinates a step clips.

        Args:
            gradient: g.
            slots: Not used.
            threshold: τ, a scalar; below 0 it counts as 0.
            ops: Namespace of array functions.

        Returns:
            Booleans of the gradient's shape, and τ.
        """
        return ops.abs(gradient) > ops.maximum(threshold, ops.zeros_like(threshold)), threshold


@dataclass(frozen=True)
class ACClip:
    """ACClip, adaptive coordinate-wise clipping (Section 4, Algorithm 1).

        m   ← β₁·m + (1 − β₁)·g
        τ^α ← β₂·τ^α + (1 − β₂)·|g|^α
        ĝ   = min(τ/(|m| + ε), 1)·m
        x   ← x − η·ĝ

    with η = lr/(τ + ε) for `step_size="moment"`, lr/(√(β₂·v) + ε) for `"rms"` where
    v ← β₂·v + (1 − β₂)·g², and lr for `"constant"` (the algorithm to the letter).

    Args:
        beta_1: β₁ in [0, 1). Defaults to 0.9.
        beta_2: β₂ in [0, 1). Defaults to 0.99.
        epsilon: ε ≥ 0; below 2^−60 it counts as that, so that a zero gradient makes a zero step.
            Defaults to 1e-5.
        alpha: α in [1, 2]. 1 and 2 cost no power. Defaults to 1.
        step_size: `"moment"`, `"rms"` or `"constant"`. Defaults to `"moment"`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument lies outside its range.

    Example:

    >>> rule, slots = ACClip(), (np.zeros(3), np.zeros(3))
    >>> step, slots = rule.step(g, slots, learning_rate=1e-3, threshold=None, ops=keras.ops)
    """

    beta_1: float = 0.9
    beta_2: float = 0.99
    epsilon: float = 1e-5
    alpha: float = 1.0
    step_size: Literal["moment", "rms", "constant"] = "moment"

    def __post_init__(self) -> None:
        checked = {
            "beta_1": arguments.real("beta_1", self.beta_1, low=0.0, high=1.0, open_high=True),
            "beta_2": arguments.real("beta_2", self.beta_2, low=0.0, high=1.0, open_high=True),
            "epsilon": arguments.real("epsilon", self.epsilon, low=0.0),
            "alpha": arguments.moment_order("alpha", self.alpha),
            "step_size": arguments.one_of("step_size", self.step_size, STEP_SIZES),
        }
        _set(self, checked)

    @property
    def slots(self) -> tuple[str, ...]:
        """Those of m and τ^α, and of v for `step_size="rms"`."""
        return ("moment", "threshold_power") + ("second_moment",) * (self.step_size == "rms")

    @property
    def clips_jointly(self) -> bool:
        """`False`: each coordinate is clipped by itself."""
        return False

    @property
    def has_threshold(self) -> bool:
        """`False`: the thresholds are a slot."""
        return False

    def factor(self, norm: Array, threshold: Array, ops: Ops) -> Array:
        """1, whatever the norm."""
        return ops.ones_like(norm)

    def step(
        self,
        gradient: Array,
        slots: Sequence[Array],
        *,
        learning_rate: Array,
        threshold: Array,
        ops: Ops,
    ) -> tuple[Array, tuple[Array, ...]]:
        """Returns the step, and the new slots.

        Args:
            gradient: g.
            slots: m and τ^α, and v for `step_size="rms"`.
            learning_rate: lr, a scalar.
            threshold: Not used: the threshold is a slot.
            ops: Namespace of array functions.
        """
        epsilon = self.epsilon + _TINY
        moment, threshold_power, *second_moment = slots
        moment = self.beta_1 * moment + (1 - self.beta_1) * gradient
        magnitude = ops.abs(gradient)
        power = _power(magnitude, self.alpha)
        threshold_power = self.beta_2 * threshold_power + (1 - self.beta_2) * power
        tau = _root(threshold_power, self.alpha, ops)
        # min(τ/(|m| + ε), 1)·m = τ·m/max(τ, |m| + ε). With η's denominator it makes one division,
        # the dearest operation; where the product overflows, the step is 0 and not NaN.
        denominator = ops.maximum(tau, ops.abs(moment) + epsilon)
        kept = (moment, threshold_power)
        if self.step_size == "moment":
            denominator = denominator * (tau + epsilon)
        elif self.step_size == "rms":
            v = self.beta_2 * second_moment[0] + (1 - self.beta_2) * ops.square(gradient)
            denominator = denominator * (ops.sqrt(self.beta_2 * v) + epsilon)
            kept += (v,)
        return (learning_rate * moment) * (tau / denominator), kept

    def clipped(
        self, gradient: Array, slots: Sequence[Array], *, threshold: Array, ops: Ops
    ) -> tuple[Array, Array]:
        """Which coordinates were clipped by the step that made these slots: where |m| + ε > τ.

        Args:
            gradient: Not used.
            slots: The new m and τ^α.
            threshold: Not used: the threshold is a slot.
            ops: Namespace of array functions.

        Returns:
            Booleans of the slots' shape, and τ of the same.
        """
        moment, tau = slots[0], _root(slots[1], self.alpha, ops)
        return ops.abs(moment) + (self.epsilon + _TINY) > tau, tau


def config(rule: Rule) -> dict[str, float | bool | str]:
    """A rule's hyperparameters, from which its class makes it again.

    Example:

    >>> from keras_acclip import rules
    >>> rules.config(rules.GClip(momentum=0.9))
    {'momentum': 0.9, 'nesterov': False}
    """
    if not dataclasses.is_dataclass(rule) or isinstance(rule, type):
        raise TypeError(f"A rule is a dataclass. Received: {rule!r}")
    return dataclasses.asdict(rule)


def global_norm(arrays: Sequence[Array], ops: Ops, slices: int = 1) -> Array:
    """The Euclidean norm ‖g‖ of all arrays together.

    Where float32 squares would overflow or vanish, all are scaled by a power of two first.

    Args:
        arrays: Non-empty sequence of arrays of one floating dtype, float32 or wider.
        ops: Namespace of array functions.
        slices: In how many parts to sum a large array. XLA on a CPU writes the squares of a whole
            array to memory before it sums them, but adds 16 parts in one pass, ten times as fast.
            With 1, the default, an array that lies on several devices stays there.

    Returns:
        A scalar of that dtype: NaN or infinite if and only if a coordinate is (or the norm itself
        is too large for the dtype).

    Example:

    >>> from keras import ops
    >>> from keras_acclip import rules
    >>> float(rules.global_norm([ops.array([3.0]), ops.array([4.0])], ops))
    5.0
    """

    def rescaled_norm() -> Array:
        one = ops.ones_like(norm)
        scale = ops.where(norm > 1, one / _RESCALE, one * _RESCALE)
        # One array, though a copy, compiles in half the time of many, and hardly ever runs.
        flat = ops.concatenate([ops.reshape(a, (-1,)) for a in filled])
        return ops.sqrt(ops.sum(ops.square(flat * scale))) / scale

    filled = [a for a in arrays if 0 not in a.shape]
    if not filled:
        return ops.sum(arrays[0])
    norm = ops.sqrt(ops.sum(ops.stack([sum_of_squares(a, ops, slices) for a in filled])))
    low, high = SAFE_NORMS
    return ops.cond(ops.logical_and(norm > low, norm < high), lambda: norm, rescaled_norm)


def sum_of_squares(array: Array, ops: Ops, slices: int = 1) -> Array:
    """‖a‖² of one array, a scalar; 0 if it is empty.

    Args:
        array: An array, float32 or wider.
        ops: Namespace of array functions.
        slices: As `global_norm` takes it.

    Example:

    >>> from keras import ops
    >>> from keras_acclip import rules
    >>> float(rules.sum_of_squares(ops.array([3.0, 4.0]), ops))
    25.0
    """
    size = 0 if None in array.shape else math.prod(array.shape)
    if slices == 1 or size < _LARGE:
        return ops.sum(ops.square(array))
    flat, part = ops.reshape(array, (-1,)), size // slices
    squares = [ops.square(flat[i * part : (i + 1) * part]) for i in range(slices)]
    return ops.sum(sum(squares)) + ops.sum(ops.square(flat[slices * part :]))


def clipped_coordinates(gradient: Array, threshold: Array, ops: Ops) -> Array:
    """Each coordinate of the gradient clipped to [−τ, τ] (Section 3, Equation CClip).

    An infinite coordinate becomes ±τ; a NaN stays one.

    Args:
        gradient: g.
        threshold: τ, a scalar; below 0 it counts as 0.
        ops: Namespace of array functions.

    Example:

    >>> from keras import ops
    >>> from keras_acclip import rules
    >>> clipped = rules.clipped_coordinates(ops.array([-3.0, 0.5]), ops.array(1.0), ops)
    >>> [float(c) for c in clipped]
    [-1.0, 0.5]
    """
    # Not 0·τ: a threshold that moves is infinite at first.
    tau = ops.maximum(threshold, ops.zeros_like(threshold))
    clipped = ops.minimum(ops.maximum(gradient, -tau), tau)
    return ops.where(ops.isnan(gradient), gradient, clipped)


def linear_average(average: Array, x: Array, step: Array) -> Array:
    """x̄ after step k of the weighted average Σ j·x_{j−1} / Σ j (Theorem 4's output).

    Args:
        average: x̄ after k − 1 steps; any finite value when k = 1.
        x: x_{k−1}, the parameters before step k.
        step: k ≥ 1.

    Example:

    >>> from keras_acclip import rules
    >>> first = rules.linear_average(0.0, 1.0, 1)
    >>> first, rules.linear_average(first, 4.0, 2)  # (1·1 + 2·4)/3
    (1.0, 3.0)
    """
    return average + (2 / (step + 1)) * (x - average)


def projection_factor(norm: Array, radius: float, ops: Ops) -> Array:
    """The factor that brings a point of this norm into the ball of this radius around 0.

    Example:

    >>> from keras import ops
    >>> from keras_acclip import rules
    >>> float(rules.projection_factor(ops.array(10.0), 5.0, ops))
    0.5
    """
    return ops.where(ops.isnan(norm), norm, _at_most(norm, 0 * norm + radius, ops))


def power_threshold(step: Array, scale: float, alpha: float) -> Array:
    """The clipping threshold τ_k = scale·k^{1/α} of Theorems 4 and 8.

    Args:
        step: k ≥ 1, a floating-point scalar.
        scale: The bound G or B of the gradient's α-moment.
        alpha: α in (1, 2].

    Example:

    >>> from keras_acclip import rules
    >>> rules.power_threshold(4.0, scale=2.0, alpha=2.0)
    4.0
    """
    return scale * step ** (1 / alpha)


def _at_most(norm: Array, bound: Array, ops: Ops) -> Array:
    """min(bound/norm, 1), of a norm that may be 0 and a bound that counts as 0 below it."""
    bound = ops.maximum(bound, ops.zeros_like(bound))
    return ops.where(norm > bound, bound / norm, ops.ones_like(norm))


def _check_momentum(rule: GClip | CClip) -> None:
    momentum = arguments.real("momentum", rule.momentum, low=0.0, high=1.0)
    _set(rule, {"momentum": momentum, "nesterov": arguments.flag("nesterov", rule.nesterov)})


def _set(rule: GClip | CClip | ACClip, checked: dict) -> None:
    for name, value in checked.items():
        object.__setattr__(rule, name, value)


def _momentum_step(
    rule: GClip | CClip, gradient: Array, slots: Sequence[Array], learning_rate: Array
) -> tuple[Array, tuple[Array, ...]]:
    """Heavy-ball or Nesterov momentum, v ← μ·v + η·g, as in Keras's `SGD`."""
    if not slots:
        return learning_rate * gradient, ()
    (velocity,) = slots
    velocity = rule.momentum * velocity + learning_rate * gradient
    if rule.nesterov:
        return rule.momentum * velocity + learning_rate * gradient, (velocity,)
    return velocity, (velocity,)


def _power(x: Array, alpha: float) -> Array:
    if alpha == 1:
        return x
    if alpha == 2:
        return x * x
    return x**alpha


def _root(x: Array, alpha: float, ops: Ops) -> Array:
    if alpha == 1:
        return x
    if alpha == 2:
        return ops.sqrt(x)
    return x ** (1 / alpha)
