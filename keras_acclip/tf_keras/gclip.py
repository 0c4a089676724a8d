"""GClip: the gradient of all variables together, clipped to a norm, for Keras 2 (`tf_keras`)."""

from __future__ import annotations

from typing import Literal

import tensorflow as tf
import tf_keras

from keras_acclip import rules
from keras_acclip.optimizers.hyperparameter import Hyperparameter
from keras_acclip.tf_keras.base import LearningRate, Schedule, ThresholdOptimizer
from keras_acclip.thresholds import Moving


@tf_keras.saving.register_keras_serializable(package="keras_acclip")
class GClip(ThresholdOptimizer):
    """SGD with the gradient of all variables together clipped to a norm (GClip).

    x ← x − lr·min(τ/‖g‖, 1)·g. The choice where the noise is heavy-tailed and plain SGD would do
    otherwise, and where the theory is wanted: `keras_acclip.thresholds` has the constants of
    Theorems 2 and 4. For attention models the paper has `ACClip`. Rates are those of SGD; where
    every step is clipped, lr·τ is the length of a step.

    The norm is that of the gradient summed over all replicas,
    so that training on n replicas equals training on one. The norm is accumulated in float32 at
    least. The gradient is clipped first, then enters the momentum.

    Arguments are attributes too. One that is set between steps holds from the next step on, and new
    rates and thresholds compile nothing anew; `averaging`, and a `momentum` where there was none,
    must be set before the first.

    `optimizer.clipping` holds what was clipped so far: steps, norms, thresholds.

    Args:
        learning_rate: A float, or a `LearningRateSchedule` of `tf_keras`.
            Defaults to `0.01`.
        threshold: τ, a float above 0; a schedule called with the number of steps taken so far:
            `keras_acclip.tf_keras.PowerThreshold` or any `tf_keras` `LearningRateSchedule`; or
            one of `keras_acclip.thresholds` that moves with the norm (`MovingMoment`,
            `MovingQuantile`, `ZScore`). Defaults to `1.0`.
        momentum: μ in [0, 1]. Defaults to `0.0`, which holds no slot and touches only the rows
            concerned of a variable with a sparse gradient.
        nesterov: Whether the momentum looks ahead. Defaults to `False`.
        averaging: `None`, or `"linear"` to keep x̄ = Σ j·x_{j−1}/Σ j over the steps j in one more
            slot a variable (Theorem 4's output). The model's weights become x̄ when training ends:
            `fit` does it, a custom loop calls `optimizer.finalize_variable_values(variables)`.
            Defaults to `None`.
        projection_radius: `None`, or the radius of the ball around 0, in the joint norm of all
            variables, onto which the variables are projected after each step (the paper's
            proj-GClip). Defaults to `None`.
        skip_nonfinite: Whether a step whose gradient (summed over replicas) holds a NaN or an
            infinity leaves variables, slots and averages as they are. Such steps are counted in
            `optimizer.skipped_steps`. Defaults to `False`.
        jit_compile: Whether all variables' updates of a step run as one XLA computation, where the
            strategy and the variables allow it, on CPUs too; otherwise it is said once why they
            don't. Defaults to `True`.
        weight_decay: `None`, or the rate wd ≥ 0 of decoupled weight decay: x ← x − lr·wd·x before
            the step. `exclude_from_weight_decay` names variables without it. Defaults to `None`.
        clipnorm: `None`, or the norm to which each variable's gradient is clipped before all else.
        clipvalue: `None`, or the size to which each coordinate is clipped before all else.
        global_clipnorm: `None`, or the norm to which all gradients together are clipped before all
            else; under `tf.distribute` on each replica by itself, as Keras does it.
        use_ema: Whether to keep an exponential moving average of the weights, which become the
            weights when training ends. Defaults to `False`.
        ema_momentum: The decay of that average. Defaults to `0.99`.
        ema_overwrite_frequency: `None`, or the number of steps after which the average overwrites
            the weights.
        mesh: `None`, or a `tf.experimental.dtensor.Mesh` over which the variables are laid out.
        name: Name of the optimizer. Defaults to `"GClip"`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument lies outside its range.

    Example:

    >>> optimizer = keras_acclip.tf_keras.GClip(learning_rate=0.3, threshold=0.5, momentum=0.9)
    >>> model.compile(optimizer=optimizer, loss="mse")

    References:
        [Zhang et al., 2020](https://arxiv.org/abs/1912.03194), Section 3, Theorems 2 and 4.
    """

    momentum = Hyperparameter[float]()
    nesterov = Hyperparameter[bool]()

    def __init__(
        self,
        learning_rate: LearningRate = 0.01,
        threshold: float | Schedule | Moving = 1.0,
        momentum: float = 0.0,
        nesterov: bool = False,
        averaging: Literal["linear"] | None = None,
        projection_radius: float | None = None,
        skip_nonfinite: bool = False,
        jit_compile: bool = True,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        mesh: tf.experimental.dtensor.Mesh | None = None,
        name: str | None = "GClip",
    ) -> None:
        super().__init__(
            rule=rules.GClip(momentum=momentum, nesterov=nesterov),
            learning_rate=learning_rate,
            threshold=threshold,
            averaging=averaging,
            projection_radius=projection_radius,
            skip_nonfinite=skip_nonfinite,
            jit_compile=jit_compile,
            weight_decay=weight_decay,
            clipnorm=clipnorm,
            clipvalue=clipvalue,
            global_clipnorm=global_clipnorm,
            use_ema=use_ema,
            ema_momentum=ema_momentum,
            ema_overwrite_frequency=ema_overwrite_frequency,
            mesh=mesh,
            name=name,
        )
