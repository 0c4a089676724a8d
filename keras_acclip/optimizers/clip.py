"""Clip: the gradient clipped before any optimizer of Keras 3."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal

import keras

from keras_acclip import thresholds
from keras_acclip._utils import arguments, compat
from keras_acclip._utils.typing import Array, Gradient, Ops, Variable
from keras_acclip.optimizers import clipping, held, keras_ops, moving, notices, record
from keras_acclip.optimizers.base import OBSTACLE, Schedule, Threshold, execution
from keras_acclip.optimizers.hyperparameter import Checked, compiles
from keras_acclip.optimizers.step import Scalars, size_of
from keras_acclip.optimizers.watch import Watch

ops: Ops = keras_ops
# Settings of every Keras optimizer that `Clip` carries out itself, with their values for "not".
_TAKEN_OVER = {
    "loss_scale_factor": None,
    "use_ema": False,
    "ema_momentum": 0.99,
    "ema_overwrite_frequency": None,
}


@keras.saving.register_keras_serializable(package="keras_acclip")
class Clip(keras.optimizers.Optimizer):
    """Clips the gradient, then lets another optimizer take its usual step.

    The gradient is summed over all replicas first, so that training on n replicas equals training
    on one; Keras's own `global_clipnorm` clips each replica's. With gradient accumulation what was
    accumulated is clipped. While the threshold does not bind, the steps are the optimizer's own.

    `Clip` takes over the optimizer's gradient accumulation, loss scale factor and exponential
    moving average, and does with them what Keras does. Set its other hyperparameters on
    `clip.inner_optimizer`; `learning_rate` and `weight_decay` can be set on both.

    Args:
        optimizer: The optimizer to clip for: any of `keras.optimizers` or of this package, or one
            of your own that leaves `apply` to Keras. Not `LossScaleOptimizer`, which goes around
            `Clip`, and not `MultiOptimizer`.
        threshold: τ, in the gradient's units: a float above 0; a schedule called with the number of
            steps taken so far; one of `keras_acclip.thresholds` that moves (`MovingMoment`,
            `MovingQuantile`, `ZScore`); or, unless `by="global"`, a dict from variable path (a
            regular expression, searched for in `variable.path`) to float or schedule.
            Defaults to `1.0`.
        by: `"global"` for the norm of all variables together, `"variable"` for each variable's own
            norm, `"coordinate"` for each coordinate. A moving threshold of coordinates follows the
            root mean square of each variable's. Defaults to `"global"`.
        skip_nonfinite: Whether a step whose gradient (summed over replicas) holds a NaN or an
            infinity leaves everything as it is. Defaults to `False`.
        jit_compile: `"auto"`, `True` or `False`: whether the whole step, the optimizer's included,
            runs as one XLA computation. `"auto"` does so on the TensorFlow backend, and otherwise
            says once why not; `True` raises a `ValueError` instead. Defaults to `"auto"`.
        name: Name of the optimizer. Defaults to `"clip"`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument lies outside its range, or `optimizer` can't go inside.

    Example:

    >>> optimizer = keras_acclip.Clip(keras.optimizers.AdamW(3e-4), threshold=1.0)
    >>> model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy")

    References:
        [Zhang et al., 2020](https://arxiv.org/abs/1912.03194), Sections 3 and 4.
    """

    skip_nonfinite = Checked(arguments.flag)
    jit_compile = Checked(compiles)

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        threshold: Threshold | thresholds.Moving = 1.0,
        by: Literal["global", "variable", "coordinate"] = "global",
        skip_nonfinite: bool = False,
        jit_compile: bool | Literal["auto"] = "auto",
        name: str | None = "clip",
    ) -> None:
        _check_inner(optimizer)
        arguments.one_of("by", by, clipping.BY)
        clipping.check_threshold(threshold, by)
        taken_over = {setting: getattr(optimizer, setting) for setting in _TAKEN_OVER}
        super().__init__(
            learning_rate=lambda: optimizer.learning_rate,
            gradient_accumulation_steps=optimizer.gradient_accumulation_steps,
            name=name,
            **taken_over,
        )
        self.inner_optimizer = optimizer
        self._by: clipping.By = by
        for setting, nothing in _TAKEN_OVER.items():
            setattr(optimizer, setting, nothing)
        self.skip_nonfinite = skip_nonfinite
        self.jit_compile = jit_compile
        if OBSTACLE:
            self._refuse(OBSTACLE)
        self._strategy = execution.strategy()
        self._moving = moving.of(threshold)
        self._threshold = None
        if self._moving is None:
            floatx = keras.config.floatx()
            self._threshold = held.hold(threshold, Schedule, self._number, floatx)
        self._state: Variable = None
        self.clipped_paths: list[str] = []
        self._squares: Variable = None
        self._counts = self._numbers("counts", (record.COUNTS,), "int32")
        self._sums = self._numbers("sums", (record.SUMS,), "float32")
        self.compiled_steps = {}
        self.watch: Watch | None = None

    def __repr__(self) -> str:
        return f"<Clip {self.name!r} around {self.inner_optimizer!r}>"

    @property
    def learning_rate(self) -> Any:
        """The optimizer's learning rate; it can be set where the optimizer's can."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self.inner_optimizer.learning_rate = learning_rate

    @property
    def weight_decay(self) -> float | None:
        """The optimizer's weight decay."""
        return self.inner_optimizer.weight_decay if hasattr(self, "inner_optimizer") else None

    @weight_decay.setter
    def weight_decay(self, weight_decay: float | None) -> None:
        if hasattr(self, "inner_optimizer"):
            self.inner_optimizer.weight_decay = weight_decay

    @property
    def variables(self) -> list[Variable]:
        """Its own variables and the optimizer's."""
        return super().variables + self.inner_optimizer.variables

    @property
    def by(self) -> clipping.By:
        """What is clipped: all variables' norm, each variable's, or each coordinate."""
        return self._by

    @property
    def threshold(self) -> Any:
        """The current threshold: a scalar, a dict from variable path to it, or, where it moves with
        each variable's norm, an array; infinite before enough norms were seen.
        """
        if self._moving is not None:
            return moving.current(self._moving, self._state, self.by == "global", ops)
        return held.current(self._threshold, self.iterations)

    @threshold.setter
    def threshold(self, value: float | dict[str, float]) -> None:
        moving.check_settable(self._moving, value)
        held.assign(self._threshold, value, Schedule, keras.config.floatx())

    @property
    def made_under(self) -> Any:
        """The `tf.distribute` strategy in whose scope it was made; `None` off TensorFlow."""
        return self._strategy

    @property
    def clipping_variables(self) -> record.Kept:
        """The variables that hold the record."""
        return record.Kept(self._counts, self._sums, self._squares, self._state)

    @property
    def clipping(self) -> record.Record:
        """What was clipped so far."""
        return record.read(self._counts, self._sums, ops)

    @property
    def skipped_steps(self) -> Array:
        """How many steps `skip_nonfinite=True` has left out."""
        return self.clipping.skipped_steps

    def exclude_from_weight_decay(
        self, var_list: list[Variable] | None = None, var_names: list[str] | None = None
    ) -> None:
        """Excludes variables from the optimizer's weight decay, as Keras's optimizers do."""
        self.inner_optimizer.exclude_from_weight_decay(var_list, var_names)

    def build(self, variables: list[Variable]) -> None:
        """Makes the variables, its own and the optimizer's.

        Args:
            variables: The model's trainable variables.

        Raises:
            ValueError: If a variable has no threshold.
        """
        if self.built:
            return
        self.clipped_paths = [getattr(v, "path", v.name) for v in variables]
        self._places = held.places(self._threshold, self.clipped_paths)
        self._sizes = [size_of(v) for v in variables]
        super().build(variables)
        inner = self.inner_optimizer
        if not inner.built:
            # Its own accumulators would stay empty; it still divides its iterations by the steps.
            inner.gradient_accumulation_steps = None
            inner.build(variables)
            inner.gradient_accumulation_steps = self.gradient_accumulation_steps
        self._squares = self._numbers("squares", (len(variables),), "float32")
        if self._moving is not None:
            norms = 1 if self.by == "global" else len(variables)
            self._state = self._numbers("threshold_state", (norms, self._moving.width), "float32")

    def _apply_weight_decay(self, variables: Sequence[Variable]) -> None:
        """Does nothing: the decay is part of the optimizer's step."""

    def _backend_update_step(
        self, grads: Sequence[Gradient], trainable_variables: Sequence[Variable], learning_rate: Any
    ) -> None:
        indices = tuple(compat.variable_index(self, v) for v in trainable_variables)
        if self.watch is not None:
            run = functools.partial(execution.watch, reduce=True)
            self.watch.look(grads, indices, len(self.clipped_paths), run)
        taus = ()
        if self._moving is None:
            taus = held.scalars(self._threshold, self.iterations)
        inner = self.inner_optimizer
        back = [*inner.variables, *trainable_variables] if self.skip_nonfinite else None
        settings = (indices, self.by, self._moving, self.skip_nonfinite)
        execution.run_around(
            functools.partial(self._clipped, indices),
            functools.partial(compat.take_step, inner, trainable_variables),
            functools.partial(compat.take_summed_step, inner, trainable_variables),
            trainable_variables,
            grads,
            Scalars(learning_rate, taus),
            unless_finite=back,
            compiled=self.compiled_steps if self.jit_compile else None,
            key=(*settings, compat.fingerprint(inner)),
            refuse=self._refuse,
            reduce=True,
        )

    def _clipped(
        self, indices: Sequence[int], gradients: Sequence[Gradient], scalars: Scalars
    ) -> tuple[list[Gradient], Array | None]:
        """Clips the gradients of some variables, and keeps the record and the threshold's state.

        Returns:
            The gradients, in their own dtypes, and whether all were finite, or `None`.
        """
        taus = scalars.thresholds
        if len(taus) > 1:
            taus = [taus[self._places[i]] for i in indices]
        return clipping.clip_and_keep(
            self.by,
            self._moving,
            self.clipping_variables,
            indices,
            [self._sizes[i] for i in indices],
            gradients,
            taus,
            self.skip_nonfinite,
            ops,
            execution.NORM_SLICES,
        )

    def finalize_variable_values(self, var_list: list[Variable]) -> None:
        """Puts an average into the variables where one is kept; `fit` calls it at the end.

        Args:
            var_list: The model's trainable variables.
        """
        if self.use_ema:
            super().finalize_variable_values(var_list)
        else:
            self.inner_optimizer.finalize_variable_values(var_list)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments from which `from_config` makes the same optimizer."""
        inner: Any = keras.saving.serialize_keras_object(self.inner_optimizer)
        inner["config"] |= {setting: getattr(self, setting) for setting in _TAKEN_OVER}
        if self._moving is not None:
            threshold: Any = thresholds.serialize(self._moving)
        else:
            threshold = held.config(
                self._threshold,
                keras.saving.serialize_keras_object,
                lambda variable: float(ops.convert_to_numpy(variable)),
            )
        return {
            "optimizer": inner,
            "threshold": threshold,
            "by": self.by,
            "skip_nonfinite": self.skip_nonfinite,
            "jit_compile": self.jit_compile,
            "name": self.name,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> Clip:
        """Makes the optimizer that `get_config` describes.

        Args:
            config: What `get_config` returned.
            custom_objects: Classes of one's own that the config names.
        """
        config = dict(config)

        def deserialize(saved: dict[str, Any]) -> Any:
            threshold = thresholds.deserialize(saved)
            return threshold or keras.saving.deserialize_keras_object(saved, custom_objects)

        config["optimizer"] = keras.saving.deserialize_keras_object(
            config["optimizer"], custom_objects
        )
        config["threshold"] = held.argument(config["threshold"], deserialize)
        return cls(**config)

    def _refuse(self, reason: str) -> None:
        notices.not_compiled("Clip", reason, self.jit_compile)

    def _number(self, name: str, value: float) -> Variable:
        return self._numbers(name, (), keras.config.floatx(), value)

    def _numbers(self, name: str, shape: tuple, dtype: str, value: float = 0) -> Variable:
        initializer: Any = keras.initializers.Constant(value)
        return self.add_variable(
            shape=shape,
            initializer=initializer,
            dtype=dtype,
            aggregation="only_first_replica",
            name=name,
        )


def _check_inner(optimizer: Any) -> None:
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(
            "Argument `optimizer` must be a Keras 3 optimizer, made, such as "
            f"keras.optimizers.AdamW(3e-4), not {arguments.unmade(optimizer, 'one of Keras 2')}. "
            f"Received: optimizer={optimizer!r} (of type {type(optimizer).__name__})"
        )
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        raise ValueError(
            "Argument `optimizer` can't be a LossScaleOptimizer, which unscales the gradient that "
            "is to be clipped. Put it around: LossScaleOptimizer(Clip(...)). "
            f"Received: optimizer={optimizer!r}"
        )
    if compat.has_an_apply_of_its_own(optimizer):
        raise ValueError(
            f"Argument `optimizer` can't be a {type(optimizer).__name__}: its `apply` is not that "
            "of keras.optimizers.Optimizer, whose steps Clip takes one by one. "
            f"Received: optimizer={optimizer!r}"
        )
    averages = optimizer.use_ema or optimizer.gradient_accumulation_steps
    if optimizer.built and averages:
        raise ValueError(
            "Argument `optimizer` must not have taken a step where it averages or accumulates: "
            f"Clip does so in its place. Received: optimizer={optimizer!r}"
        )
