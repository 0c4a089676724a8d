"""ACClip: adaptive coordinate-wise clipping, for Keras 3."""

from __future__ import annotations

from typing import Literal

import keras

from keras_acclip import rules
from keras_acclip.optimizers.base import LearningRate, RuleOptimizer
from keras_acclip.optimizers.hyperparameter import Hyperparameter


@keras.saving.register_keras_serializable(package="keras_acclip")
class ACClip(RuleOptimizer):
    """Adaptive coordinate-wise clipping: the paper's optimizer for attention models (ACClip).

    Each coordinate's momentum is clipped to a threshold that follows the α-moment of its own
    gradient (Algorithm 1). Choose it where Adam would be chosen; start from Adam's learning rate,
    and tune the warm-up with it: no coordinate moves by more than lr a step, but steps are larger
    than Adam's at the same lr, so that with a short warm-up the largest rate that trains is a
    little below Adam's.

    Arguments are attributes too. One that is set between steps holds from the next step on, and new
    rates compile nothing anew; `averaging` and `step_size="rms"` must be set before the first.

    `optimizer.clipping` holds what was clipped so far: steps, norms, shares. One step in
    `optimizer.record_every` (32; it can be set) is looked at, since a norm costs a pass over the
    gradients.

    Args:
        learning_rate: A float, a `LearningRateSchedule`, or a callable without arguments.
            Defaults to `0.001`.
        beta_1: β₁ in [0, 1), the decay of the moment m. Defaults to `0.9`.
        beta_2: β₂ in [0, 1), the decay of the threshold's power τ^α. Defaults to `0.99`.
        epsilon: ε ≥ 0, added to |m| and τ in denominators, in the gradient's units.
            Defaults to `1e-5`.
        alpha: α in [1, 2], the order of the moment that the threshold follows. 1 and 2 cost no
            power. Defaults to `1.0`.
        step_size: `"moment"` for η = lr/(τ + ε), with two slots a variable; `"rms"` for
            η = lr/(√(β₂·v) + ε), v the moving average of g² with β₂, with three; `"constant"` for
            η = lr, Algorithm 1 to the letter, with two: its lr is in units of parameter per
            gradient and must be some four orders larger. Defaults to `"moment"`.
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
        jit_compile: `"auto"`, `True` or `False`: whether all variables' updates of a step run as
            one XLA computation. `"auto"` does so on the TensorFlow backend, and otherwise says once
            why not; `True` raises a `ValueError` instead. Defaults to `"auto"`.
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
        loss_scale_factor: `None`, or a factor that the loss is multiplied with and the gradient
            divided by.
        gradient_accumulation_steps: `None`, or the number of calls whose mean gradient makes
            a step.
        name: Name of the optimizer. Defaults to `"acclip"`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument lies outside its range.

    Example:

    >>> optimizer = keras_acclip.ACClip(1e-3)
    >>> model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy")
    >>> model.fit(x, y)

    References:
        [Zhang et al., 2020](https://arxiv.org/abs/1912.03194), Section 4, Algorithm 1.
    """

    beta_1 = Hyperparameter[float]()
    beta_2 = Hyperparameter[float]()
    epsilon = Hyperparameter[float]()
    alpha = Hyperparameter[float]()
    step_size = Hyperparameter[Literal["moment", "rms", "constant"]]()

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        epsilon: float = 1e-5,
        alpha: float = 1.0,
        step_size: Literal["moment", "rms", "constant"] = "moment",
        averaging: Literal["linear"] | None = None,
        projection_radius: float | None = None,
        skip_nonfinite: bool = False,
        jit_compile: bool | Literal["auto"] = "auto",
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = "acclip",
    ) -> None:
        super().__init__(
            rule=rules.ACClip(
                beta_1=beta_1, beta_2=beta_2, epsilon=epsilon, alpha=alpha, step_size=step_size
            ),
            learning_rate=learning_rate,
            threshold=None,
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
            loss_scale_factor=loss_scale_factor,
            gradient_accumulation_steps=gradient_accumulation_steps,
            name=name,
        )
