"""Clip: the gradient clipped before any optimizer of Keras 2 (`tf_keras`)."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import tensorflow as tf
import tf_keras

from keras_acclip import thresholds
from keras_acclip._utils import arguments, compat
from keras_acclip._utils.typing import Array, Gradient
from keras_acclip.optimizers import clipping, execution, held, moving, notices, record
from keras_acclip.optimizers import tensorflow_ops as ops
from keras_acclip.optimizers.hyperparameter import Checked
from keras_acclip.optimizers.step import Scalars, size_of
from keras_acclip.optimizers.watch import Watch
from keras_acclip.tf_keras.base import Schedule, Threshold, deserialized, floatx, number, serialized
from keras_acclip.tf_keras.legacy_names import LegacyNames


@tf_keras.saving.register_keras_serializable(package="keras_acclip")
class Clip(LegacyNames, tf_keras.optimizers.Optimizer):
    """Clips the gradient, then lets another optimizer of Keras 2 take its usual step.

    The gradient is summed over all replicas first, so that training on n replicas equals training
    on one. While the threshold does not bind, the steps are the optimizer's own.

    Set the optimizer's hyperparameters on `clip.inner_optimizer`; `learning_rate` can be set on
    both.

    Args:
        optimizer: The optimizer to clip for: any of `tf_keras.optimizers`, of its `legacy` module
            or of this package; not `LossScaleOptimizer`, which goes around `Clip`.
        threshold: τ, in the gradient's units: a float above 0; a schedule called with the number of
            steps taken so far; one of `keras_acclip.thresholds` that moves (`MovingMoment`,
            `MovingQuantile`, `ZScore`); or, unless `by="global"`, a dict from variable path (a
            regular expression, searched for in `variable.name`) to float or schedule.
            Defaults to `1.0`.
        by: `"global"` for the norm of all variables together, `"variable"` for each variable's own
            norm, `"coordinate"` for each coordinate. A moving threshold of coordinates follows the
            root mean square of each variable's. Defaults to `"global"`.
        skip_nonfinite: Whether a step whose gradient (summed over replicas) holds a NaN or an
            infinity leaves everything as it is. Defaults to `False`.
        jit_compile: Whether the whole step, the optimizer's included, runs as one XLA computation,
            where the strategy and the variables allow it; otherwise it is said once why they don't.
            Defaults to `True`.
        name: Name of the optimizer. Defaults to `"Clip"`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument lies outside its range, or `optimizer` can't go inside.

    Example:

    >>> adamw = tf_keras.optimizers.AdamW(3e-4)
    >>> model.compile(optimizer=keras_acclip.tf_keras.Clip(adamw, threshold=1.0), loss="mse")

    References:
        [Zhang et al., 2020](https://arxiv.org/abs/1912.03194), Sections 3 and 4.
    """

    skip_nonfinite = Checked(arguments.flag)
    jit_compile = Checked(arguments.flag)

    def __init__(
        self,
        optimizer: tf_keras.optimizers.Optimizer | tf_keras.optimizers.legacy.Optimizer,
        threshold: Threshold | thresholds.Moving = 1.0,
        by: Literal["global", "variable", "coordinate"] = "global",
        skip_nonfinite: bool = False,
        jit_compile: bool = True,
        name: str | None = "Clip",
    ) -> None:
        _check_inner(optimizer)
        arguments.one_of("by", by, clipping.BY)
        clipping.check_threshold(threshold, by)
        super().__init__(name=name or "Clip")
        self.inner_optimizer = optimizer
        self._by: clipping.By = by
        self.skip_nonfinite = skip_nonfinite
        self.jit_compile = jit_compile
        self._strategy = execution.strategy()
        self._moving = moving.of(threshold)
        self._threshold = None
        if self._moving is None:
            self._threshold = held.hold(threshold, Schedule, self._number, floatx())
        self._state: Any = None
        self.clipped_paths: list[str] = compat.untracked(self, [])
        self._squares: Any = None
        self._counts = self._numbers("counts", tf.zeros(record.COUNTS, tf.int32))
        self._sums = self._numbers("sums", tf.zeros(record.SUMS))
        self.compiled_steps = compat.untracked(self, {})
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
    def variables(self) -> Any:
        """Its own variables and the optimizer's."""
        return compat.callable_list([*super().variables, *self._inner_variables()])

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
        held.assign(self._threshold, value, Schedule, floatx())

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
        self, var_list: list[tf.Variable] | None = None, var_names: list[str] | None = None
    ) -> None:
        """Excludes variables from the optimizer's weight decay, as Keras's optimizers do."""
        self.inner_optimizer.exclude_from_weight_decay(var_list, var_names)

    def build(self, var_list: Sequence[tf.Variable]) -> None:
        """Makes the variables, its own and the optimizer's.

        Args:
            var_list: The model's trainable variables.

        Raises:
            ValueError: If a variable has no threshold.
        """
        if compat.is_built(self):
            return
        self.clipped_paths = compat.untracked(self, [v.name for v in var_list])
        self._places = held.places(self._threshold, self.clipped_paths)
        self._sizes = [size_of(v) for v in var_list]
        super().build(var_list)
        compat.create_slots(self.inner_optimizer, var_list)
        self._squares = self._numbers("squares", tf.zeros(len(var_list)))
        if self._moving is not None:
            norms = 1 if self.by == "global" else len(var_list)
            self._state = self._numbers("threshold_state", tf.zeros((norms, self._moving.width)))
        compat.mark_built(self)

    def apply_gradients(
        self,
        grads_and_vars: Iterable[tuple[Gradient, tf.Variable]],
        name: str | None = None,
        skip_gradients_aggregation: bool = False,
        **kwargs: Any,
    ) -> tf.Variable:
        """Clips the gradients and lets the optimizer apply them.

        Args:
            grads_and_vars: Pairs of a gradient, or `None`, and its variable.
            name: Not used.
            skip_gradients_aggregation: Whether the gradients are summed over the replicas already.
            **kwargs: `experimental_aggregate_gradients`, as Keras 2 takes it.

        Returns:
            The variable that counts the steps.
        """
        pairs = list(grads_and_vars)
        with tf.init_scope():
            self.build([variable for _, variable in pairs])
        aggregate = kwargs.pop("experimental_aggregate_gradients", True)
        if aggregate and not skip_gradients_aggregation:
            pairs = self.aggregate_gradients(pairs)
        some = [(gradient, variable) for gradient, variable in pairs if gradient is not None]
        if not some:
            self.inner_optimizer.apply_gradients(pairs, **self._summed())
            return self.iterations
        gradients, variables = zip(*some, strict=True)
        indices = tuple(self._index(v) for v in variables)
        if self.watch is not None:
            run = functools.partial(execution.watch, reduce=False)
            self.watch.look(gradients, indices, len(self.clipped_paths), run)
        taus = held.scalars(self._threshold, self.iterations) if self._moving is None else ()
        inner = self.inner_optimizer
        back = [*self._inner_variables(), *variables] if self.skip_nonfinite else None
        apply = functools.partial(self._apply_inner, variables)
        settings = (indices, self.by, self._moving, self.skip_nonfinite)
        execution.run_around(
            functools.partial(self._clipped, indices),
            apply,
            apply,
            variables,
            gradients,
            Scalars(0.0, taus),
            unless_finite=back,
            compiled=self.compiled_steps if self.jit_compile and _compiles(inner) else None,
            key=(*settings, compat.fingerprint(inner)),
            refuse=self._refuse,
            reduce=False,
        )
        return compat.maybe_merge_call(self._count_step, self._strategy)

    def _create_iteration_variable(self) -> None:
        """Makes the count of its steps, under a name that the optimizer's own does not have."""
        with tf.init_scope():
            zero = tf.zeros((), tf.int64)
            count = tf.Variable(zero, name="clip_iteration", trainable=False)
        self.iterations = count
        compat.add_to_variables(self, count)

    def _apply_inner(
        self, variables: Sequence[tf.Variable], gradients: Sequence[Gradient], _: Array
    ) -> None:
        pairs = zip(gradients, variables, strict=True)
        self.inner_optimizer.apply_gradients(pairs, **self._summed())

    def _summed(self) -> dict[str, bool]:
        """How the optimizer is told that the gradients are summed over replicas."""
        if _is_legacy(self.inner_optimizer):
            return {"experimental_aggregate_gradients": False}
        return {"skip_gradients_aggregation": True}

    def _inner_variables(self) -> list[tf.Variable]:
        inner: Any = self.inner_optimizer
        return list(inner.variables() if _is_legacy(inner) else inner.variables)

    def _count_step(self, strategy: tf.distribute.Strategy) -> tf.Variable:
        return self.iterations.assign_add(1)

    def _clipped(
        self, indices: Sequence[int], gradients: Sequence[Gradient], scalars: Scalars
    ) -> tuple[list[Gradient], Array | None]:
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
            bool(self.skip_nonfinite),
            ops,
            execution.NORM_SLICES,
        )

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Sets its own variables and the optimizer's, as HDF5 files are read.

        Args:
            weights: Arrays, one a variable of `variables`.

        Raises:
            ValueError: If there are more or fewer, or a shape differs.
        """
        for variable, weight in zip(self.variables, weights, strict=True):
            variable.assign(weight)

    def finalize_variable_values(self, var_list: Sequence[tf.Variable]) -> None:
        """Puts an average into the variables where the optimizer keeps one; `fit` calls it.

        Args:
            var_list: The model's trainable variables.
        """
        if not _is_legacy(self.inner_optimizer):
            self.inner_optimizer.finalize_variable_values(var_list)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments from which `from_config` makes the same optimizer."""
        if self._moving is not None:
            threshold: Any = thresholds.serialize(self._moving)
        else:
            threshold = held.config(self._threshold, serialized, number)
        return {
            "optimizer": {
                "class_name": tf_keras.saving.get_registered_name(type(self.inner_optimizer)),
                "config": self.inner_optimizer.get_config(),
                "legacy": _is_legacy(self.inner_optimizer),
            },
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
        config.pop("is_legacy_optimizer", None)
        # HDF5 files are read by older rules, which know no optimizer by its registered name.
        inner = config["optimizer"]
        found: Any = tf_keras.saving.get_registered_object(inner["class_name"], custom_objects)
        if inner.get("legacy"):
            found = getattr(tf_keras.optimizers.legacy, inner["class_name"], found)
        if found is None:
            raise ValueError(
                f"The optimizer {inner['class_name']!r} is unknown. Name its class in "
                "`custom_objects`, or register it with tf_keras.saving.register_keras_serializable."
            )
        config["optimizer"] = found.from_config(dict(inner["config"]))

        def deserialize(saved: dict[str, Any]) -> Any:
            return thresholds.deserialize(saved) or deserialized(saved, custom_objects)

        config["threshold"] = held.argument(config["threshold"], deserialize)
        return cls(**config)

    def _index(self, variable: tf.Variable) -> int:
        index = compat.tf_keras_variable_index(self, variable)
        if index is None:
            raise KeyError(
                f"The optimizer was not built for the variable {variable.name!r}. Call "
                "`optimizer.build(variables)` with all trainable variables before the first step."
            )
        return index

    def _refuse(self, reason: str) -> None:
        notices.not_compiled("Clip", reason, "auto" if self.jit_compile else False)

    def _number(self, name: str, value: float) -> tf.Variable:
        return self._numbers(name, tf.constant(value, floatx()))

    def _numbers(self, name: str, value: tf.Tensor) -> tf.Variable:
        with tf.init_scope():
            variable = tf.Variable(
                value,
                name=name,
                trainable=False,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )
        compat.add_to_variables(self, variable)
        return variable


def _compiles(optimizer: Any) -> bool:
    """Whether XLA can compile its step.

    `Nadam` counts its steps in Python, which a compiled step does once; the kernel of the legacy
    Adam's `amsgrad` is none of XLA's.
    """
    if _is_legacy(optimizer):
        return not getattr(optimizer, "amsgrad", False)
    return not isinstance(optimizer, tf_keras.optimizers.Nadam)


def _is_legacy(optimizer: Any) -> bool:
    return isinstance(optimizer, tf_keras.optimizers.legacy.Optimizer)


KERAS_3 = "one of Keras 3, for which there is keras_acclip.Clip"


def _check_inner(optimizer: Any) -> None:
    if not isinstance(optimizer, tf_keras.optimizers.Optimizer) and not _is_legacy(optimizer):
        raise TypeError(
            "Argument `optimizer` must be an optimizer of tf_keras, made, such as "
            f"tf_keras.optimizers.AdamW(3e-4), not {arguments.unmade(optimizer, KERAS_3)}. "
            f"Received: optimizer={optimizer!r} (of type {type(optimizer).__name__})"
        )
    if isinstance(optimizer, tf_keras.mixed_precision.LossScaleOptimizer):
        raise ValueError(
            "Argument `optimizer` can't be a LossScaleOptimizer, which unscales the gradient that "
            "is to be clipped. Put it around: LossScaleOptimizer(Clip(...)). "
            f"Received: optimizer={optimizer!r}"
        )
