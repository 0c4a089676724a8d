"""The paper's updates: arrays in, arrays out, the same lines for every Keras and for NumPy.

Each rule turns a gradient into the *step* that is subtracted from the parameters, x ← x − step.
Rules use Python operators and a namespace `ops` with `abs`, `concatenate`, `cond`, `logical_and`,
`maximum`, `minimum`, `ones_like`, `reshape`, `sqrt`, `square`, `stack`, `sum` and `where`:
`keras.ops` has them all.

Reference: Zhang et al., "Why are Adaptive Methods Good for Attention Models?", NeurIPS 2020
(https://arxiv.org/abs/1912.03194).
"""

import math

# Stands in for ε = 0 in ACClip's ratio: its square is still a normal float32, so 0/0 can't be.
_TINY = 2.0**-60

# Between these, the square of a norm is neither rounded to zero nor to infinity in float32;
# outside, this power of two brings it there.
_SAFE_NORMS = (2.0**-50, 2.0**60)
_RESCALE = 2.0**70
# Arrays of fewer coordinates are not worth slicing.
_LARGE = 2**17

STEP_SIZES = ("moment", "rms", "constant")


def global_norm(arrays, ops, slices=1):
    """The Euclidean norm ‖g‖ of all arrays together.

    Where float32 squares would overflow or vanish, all are scaled by a power of two first.

    Args:
        arrays: Non-empty list of arrays of one floating dtype, float32 or wider.
        ops: Namespace of array functions.
        slices: In how many parts to sum a large array. XLA on a CPU writes the squares of a whole
            array to memory before it sums them, but adds 16 parts in one pass, ten times as fast.
            With 1, the default, an array that lies on several devices stays there.

    Returns:
        A scalar of that dtype: NaN or infinite if and only if a coordinate is (or the norm itself
        is too large for the dtype).
    """

    def rescaled_norm():
        one = ops.ones_like(norm)
        scale = ops.where(norm > 1, one / _RESCALE, one * _RESCALE)
        # One array, though a copy, compiles in half the time of many, and hardly ever runs.
        flat = ops.concatenate([ops.reshape(a, (-1,)) for a in arrays])
        return ops.sqrt(ops.sum(ops.square(flat * scale))) / scale

    arrays = [a for a in arrays if 0 not in a.shape]
    norm = ops.sqrt(ops.sum(ops.stack([_sum_of_squares(a, ops, slices) for a in arrays])))
    low, high = _SAFE_NORMS
    return ops.cond(ops.logical_and(norm > low, norm < high), lambda: norm, rescaled_norm)


def _sum_of_squares(array, ops, slices):
    size = 0 if None in array.shape else math.prod(array.shape)
    if slices == 1 or size < _LARGE:
        return ops.sum(ops.square(array))
    flat, part = ops.reshape(array, (-1,)), size // slices
    squares = [ops.square(flat[i * part : (i + 1) * part]) for i in range(slices)]
    return ops.sum(sum(squares)) + ops.sum(ops.square(flat[slices * part :]))


def gclip_factor(norm, threshold, ops):
    """min(τ/‖g‖, 1), the factor by which GClip shortens the gradient (Section 3, Equation GClip).

    Args:
        norm: ‖g‖ over all variables together, a scalar.
        threshold: τ > 0, a scalar.
        ops: Namespace of array functions.
    """
    return threshold / ops.maximum(threshold, norm)


def cclip(gradient, threshold, ops):
    """Each coordinate of the gradient clipped to [−τ, τ] (Section 3, Equation CClip).

    An infinite coordinate becomes ±τ; a NaN stays one.
    """
    return ops.minimum(ops.maximum(gradient, -threshold), threshold)


def momentum(gradient, velocity, *, learning_rate, momentum, nesterov):
    """One step of heavy-ball or Nesterov momentum, with the learning rate inside the velocity.

    v ← μ·v + η·g; the step is v, or μ·v + η·g with Nesterov's look-ahead (as in `keras`' `SGD`).

    Returns:
        The pair (step, velocity).
    """
    velocity = momentum * velocity + learning_rate * gradient
    if nesterov:
        return momentum * velocity + learning_rate * gradient, velocity
    return velocity, velocity


def acclip(
    gradient,
    moment,
    threshold_power,
    second_moment=None,
    *,
    learning_rate,
    beta_1,
    beta_2,
    epsilon,
    alpha,
    step_size,
    ops,
):
    """ACClip, adaptive coordinate-wise clipping (Section 4, Algorithm 1).

        m   ← β₁·m + (1 − β₁)·g
        τ^α ← β₂·τ^α + (1 − β₂)·|g|^α
        ĝ   = min(τ/(|m| + ε), 1)·m
        x   ← x − η·ĝ

    with η = lr/(τ + ε) for `step_size="moment"`, lr/(√(β₂·v) + ε) for `"rms"` where
    v ← β₂·v + (1 − β₂)·g², and lr for `"constant"` (the algorithm to the letter).

    Args:
        gradient: g.
        moment: m.
        threshold_power: τ^α.
        second_moment: v, for `step_size="rms"` alone.
        learning_rate: lr, a scalar.
        beta_1: β₁ in [0, 1).
        beta_2: β₂ in [0, 1).
        epsilon: ε ≥ 0; below 2^−60 it counts as that, so that a zero gradient makes a zero step.
        alpha: α in [1, 2].
        step_size: `"moment"`, `"rms"` or `"constant"`.
        ops: Namespace of array functions.

    Returns:
        The tuple (step, moment, threshold_power), and second_moment last for `"rms"`.
    """
    epsilon = max(epsilon, _TINY)
    moment = beta_1 * moment + (1 - beta_1) * gradient
    magnitude = ops.abs(gradient)
    threshold_power = beta_2 * threshold_power + (1 - beta_2) * _power(magnitude, alpha)
    threshold = _root(threshold_power, alpha, ops)
    # min(τ/(|m| + ε), 1)·m = τ·m/max(τ, |m| + ε). With η's denominator it makes one division, the
    # dearest operation; where the product overflows, the step is 0 and not NaN.
    denominator = ops.maximum(threshold, ops.abs(moment) + epsilon)
    slots = (moment, threshold_power)
    if step_size == "moment":
        denominator = denominator * (threshold + epsilon)
    elif step_size == "rms":
        second_moment = beta_2 * second_moment + (1 - beta_2) * ops.square(gradient)
        denominator = denominator * (ops.sqrt(beta_2 * second_moment) + epsilon)
        slots += (second_moment,)
    return (learning_rate * moment) * (threshold / denominator), *slots


def _power(x, alpha):
    if alpha == 1:
        return x
    if alpha == 2:
        return x * x
    return x**alpha


def _root(x, alpha, ops):
    if alpha == 1:
        return x
    if alpha == 2:
        return ops.sqrt(x)
    return x ** (1 / alpha)


def linear_average(average, x, step):
    """x̄ after step k of the weighted average Σ j·x_{j−1} / Σ j (Theorem 4's output).

    Args:
        average: x̄ after k − 1 steps; any finite value when k = 1.
        x: x_{k−1}, the parameters before step k.
        step: k ≥ 1.
    """
    return average + (2 / (step + 1)) * (x - average)


def projection_factor(norm, radius, ops):
    """The factor that brings a point of this norm into the ball of this radius around 0."""
    return radius / ops.maximum(radius, norm)


def power_threshold(step, scale, alpha):
    """The clipping threshold τ_k = scale·k^{1/α} of Theorems 4 and 8.

    Args:
        step: k ≥ 1, a floating-point scalar.
        scale: The bound G or B of the gradient's α-moment.
        alpha: α in (1, 2].
    """
    return scale * step ** (1 / alpha)
