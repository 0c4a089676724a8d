"""What the paper's optimizers share in Keras 2: the variables that they keep, and their step."""

from __future__ import annotations

import functools
import numbers
from collections.abc import Callable, Sequence
from typing import Any, Literal

import tensorflow as tf
import tf_keras

from keras_acclip import rules, thresholds
from keras_acclip._utils import arguments, compat
from keras_acclip._utils.typing import Array, Gradient, Variable
from keras_acclip.optimizers import (
    assembly,
    execution,
    held,
    moving,
    notices,
    record,
    tensorflow_ops,
)
from keras_acclip.optimizers.hyperparameter import Checked, optional_length, optional_rate
from keras_acclip.optimizers.step import Counters, Scalars, Settings, Step, is_narrow, take
from keras_acclip.optimizers.watch import Watch
from keras_acclip.tf_keras.legacy_names import LegacyNames

Schedule = tf_keras.optimizers.schedules.LearningRateSchedule
LearningRate = float | Schedule
"""A number, or a schedule of `tf_keras`."""

Threshold = float | Schedule | thresholds.Moving | dict[str, Any]
"""A number, a schedule of the steps taken, a threshold that moves, or a dict of the first two."""


class RuleOptimizer(LegacyNames, tf_keras.optimizers.Optimizer):
    """A Keras 2 optimizer that takes the steps of a rule.

    Args:
        rule: The rule.
        threshold: The threshold, where the rule has one.
        averaging: See `keras_acclip.tf_keras.ACClip`, like all other arguments.
    """

    weight_decay = Checked(optional_rate)
    projection_radius = Checked(optional_length)
    jit_compile = Checked(arguments.flag)
    record_every = Checked(arguments.positive_integer)

    def __init__(
        self,
        rule: rules.Rule,
        learning_rate: LearningRate,
        threshold: Threshold | None,
        averaging: Literal["linear"] | None,
        projection_radius: float | None,
        skip_nonfinite: bool,
        jit_compile: bool,
        weight_decay: float | None,
        name: str | None,
        **kwargs: Any,
    ) -> None:
        kwargs |= {"name": name or type(self).__name__, "weight_decay": weight_decay}
        super().__init__(**kwargs)
        self._learning_rate = compat.build_learning_rate(self, _checked_rate(learning_rate))
        self._slot_names = None
        self.rule = rule
        self.projection_radius = projection_radius
        # Keras 2 itself compiles on GPUs alone.
        self.jit_compile = jit_compile
        self._strategy = execution.strategy()
        # The order in which variables are made is that of saved files.
        self._averaged_steps: Variable = None
        self.averaging = averaging
        self._skipped_steps: Variable = None
        self._last_skipped: Variable = None
        self.skip_nonfinite = skip_nonfinite
        self._threshold = None
        self._moving = moving.of(threshold)
        if rule.has_threshold and self._moving is None:
            self._threshold = held.hold(threshold, Schedule, self._number, floatx())
        # Where all gradients' norm is known anyway, a look costs nothing.
        self.record_every = 1 if rule.clips_jointly else 32
        self._counts: Variable = None
        self._sums: Variable = None
        self._squares: Variable = None
        self._state: Variable = None
        self.clipped_paths: list[str] = compat.untracked(self, [])
        self.compiled_steps = compat.untracked(self, {})
        self.watch: Watch | None = None

    def __repr__(self) -> str:
        # Keras 3 shows it where `compile` is handed this optimizer.
        name = type(self).__name__
        return (
            f"<{name} {self.name!r}: keras_acclip.tf_keras.{name}, for Keras 2 (tf_keras); models "
            f"of Keras 3 take keras_acclip.{name}>"
        )

    @property
    def rule(self) -> rules.Rule:
        """The rule whose steps it takes; its fields are attributes of the optimizer."""
        return self._rule

    @rule.setter
    def rule(self, rule: rules.Rule) -> None:
        assembly.check_rule(type(self).__name__, rule, self._slot_names)
        self._rule = rule

    @property
    def learning_rate(self) -> Any:
        """The current learning rate; a float that it was made with can be set anew."""
        return super().learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: LearningRate) -> None:
        if isinstance(learning_rate, numbers.Real):
            learning_rate = _checked_rate(learning_rate)
        compat.set_learning_rate(tf_keras.optimizers.Optimizer, self, learning_rate)

    @property
    def averaging(self) -> Literal["linear"] | None:
        """Which average of the weights is kept; it can be set before the first step."""
        return self._averaging

    @averaging.setter
    def averaging(self, averaging: Literal["linear"] | None) -> None:
        assembly.check_averaging(averaging, self.use_ema, self._slot_names is not None)
        self._averaging: Literal["linear"] | None = averaging
        if averaging and self._averaged_steps is None:
            # Iterations won't do: they count steps left out, here or by a loss-scaling optimizer.
            self._averaged_steps = self._counter("averaged_steps")

    @property
    def skip_nonfinite(self) -> bool:
        """Whether a step whose gradient is not finite changes nothing."""
        return self._skip_nonfinite

    @skip_nonfinite.setter
    def skip_nonfinite(self, value: bool) -> None:
        self._skip_nonfinite = arguments.flag("skip_nonfinite", value)
        if value and self._skipped_steps is None:
            self._skipped_steps = self._counter("skipped_steps")
            # Keras updates its moving average after the step, so it must be told of a skipped one.
            self._last_skipped = self._counter("last_step_skipped")

    @property
    def skipped_steps(self) -> Array:
        """How many steps `skip_nonfinite=True` has left out; 0 without it."""
        return 0 if self._skipped_steps is None else tf.identity(self._skipped_steps)

    @property
    def made_under(self) -> Any:
        """The `tf.distribute` strategy in whose scope it was made; `None` off TensorFlow."""
        return self._strategy

    @property
    def clipping_variables(self) -> record.Kept:
        """The variables that hold the record; `None`s before the optimizer is built."""
        return record.Kept(self._counts, self._sums, self._squares, self._state)

    @property
    def clipping(self) -> record.Record:
        """What was clipped so far."""
        if self._counts is None:
            zeros = tf.zeros(record.COUNTS, tf.int32), tf.zeros(record.SUMS)
            return record.read(*zeros, tensorflow_ops)
        return record.read(self._counts, self._sums, tensorflow_ops)

    @property
    def built(self) -> bool:
        """Whether the slots have been made."""
        return self._slot_names is not None

    def build(self, var_list: Sequence[tf.Variable]) -> None:
        """Makes the slots: of the variable's shape, and float32 for float16 and bfloat16 ones.

        Args:
            var_list: The model's trainable variables.

        Raises:
            ValueError: If a variable has no threshold.
        """
        if self.built:
            return
        names = [v.name for v in var_list]
        self._places = assembly.places(self._moving, self.rule, self._threshold, names)
        self.clipped_paths = compat.untracked(self, names)
        super().build(var_list)
        compat.mark_built(self)
        self._trainable_variables = compat.untracked(self, list(var_list))
        self._slot_names = self.rule.slots
        self._slots, self._averages = [], []
        for v in var_list:
            self._slots.append({name: self._slot(v, name) for name in self.rule.slots})
            self._averages.append(self._slot(v, "linear_average") if self.averaging else None)
        with tf.init_scope():
            self._counts = self._kept(tf.zeros(record.COUNTS, tf.int32), "clipping_counts")
            self._sums = self._kept(tf.zeros(record.SUMS), "clipping_sums")
            self._squares = self._kept(tf.zeros(len(var_list)), "clipping_squares")
            if self._moving is not None:
                shape = (assembly.norms(self.rule, var_list), self._moving.width)
                self._state = self._kept(tf.zeros(shape), "threshold_state")

    def load_own_variables(self, store: Any) -> None:
        """Reads the variables from a saved file; those of before 0.2.0 hold no record.

        Args:
            store: What `save_own_variables` filled.
        """
        saved = {key: store[key] for key in store.keys()}  # noqa: SIM118
        if self.built and len(saved) == len(self.variables) - 3 and self._state is None:
            places = map(str, range(len(saved), len(saved) + 3))
            values = [variable.numpy() for variable in self.clipping_variables[:3]]
            saved |= dict(zip(places, values, strict=True))
        super().load_own_variables(saved)

    def _deduplicate_sparse_grad(self, grads: list[Gradient]) -> list[Gradient]:
        """Does nothing: the step sums repeated rows, in static shapes."""
        return grads

    def _apply_weight_decay(self, variables: Sequence[tf.Variable]) -> None:
        """Does nothing: the decay is part of the step, and so of what is compiled."""

    def _internal_apply_gradients(
        self, grads_and_vars: Sequence[tuple[Gradient, tf.Variable]]
    ) -> tf.Tensor | None:
        gradients, variables = zip(*grads_and_vars, strict=True)
        settings = assembly.settings(self, self._moving)
        indices = tuple(self._index(v) for v in variables)
        if self.watch is not None:
            run = functools.partial(execution.watch, reduce=False)
            self.watch.look(gradients, indices, len(self.clipped_paths), run)
        taus = ()
        if self._threshold is not None:
            taus = held.scalars(self._threshold, self.iterations)
        scalars = Scalars(self.learning_rate, taus)
        if compat.uses_dtensor(self):
            self._refuse("its variables are laid out over a DTensor mesh")
            take(self._step(settings, indices), gradients, scalars, tensorflow_ops)
            return self._finish_step(None, variables)
        execution.run(
            functools.partial(self._step, settings, indices),
            variables,
            gradients,
            scalars,
            compiled=self.compiled_steps if self.jit_compile else None,
            key=(settings, indices),
            refuse=self._refuse,
            reduce=False,
        )
        return compat.maybe_merge_call(self._finish_step, self._strategy, variables)

    def _step(self, settings: Settings, indices: Sequence[int]) -> Step:
        variables = self._trainable_variables
        return assembly.step(
            settings,
            indices,
            variables=variables,
            slots=self._slots,
            averages=self._averages,
            places=self._places,
            decays=[compat.decays(self, variable) for variable in variables],
            counters=Counters(self._averaged_steps, self._skipped_steps, self._last_skipped),
            kept=self.clipping_variables,
        )

    def _finish_step(
        self, strategy: tf.distribute.Strategy | None, variables: Sequence[tf.Variable]
    ) -> tf.Tensor | None:
        if self.use_ema:
            self._update_model_variables_moving_average(variables)
            if self.ema_overwrite_frequency:
                tf.cond(
                    tf.equal((self.iterations + 1) % self.ema_overwrite_frequency, 0),
                    lambda: compat.overwrite_with_average(self, variables),
                    lambda: None,
                )
        return self.iterations.assign_add(1)

    def _update_model_variables_moving_average(self, var_list: Sequence[tf.Variable]) -> None:
        def update() -> None:
            super(RuleOptimizer, self)._update_model_variables_moving_average(var_list)

        if self.skip_nonfinite:
            tf.cond(tf.equal(self._last_skipped, 0), update, lambda: None)
        else:
            update()

    def finalize_variable_values(self, var_list: Sequence[tf.Variable]) -> None:
        """Puts the average, if one is kept, into the variables; `fit` calls it when training ends.

        A variable that the optimizer was not built with keeps its value.

        Args:
            var_list: The model's trainable variables.
        """
        if not self.averaging:
            super().finalize_variable_values(var_list)
            return
        known = [v for v in var_list if compat.tf_keras_variable_index(self, v) is not None]
        pairs = [(v, self._averages[self._index(v)]) for v in known]
        execution.overwrite(pairs, self._averaged_steps, self._strategy)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments from which `from_config` makes the same optimizer."""
        rate = compat.learning_rate(self)
        config = super().get_config() | {
            "learning_rate": serialized(rate) if isinstance(rate, Schedule) else number(rate),
            "averaging": self.averaging,
            "projection_radius": self.projection_radius,
            "skip_nonfinite": self.skip_nonfinite,
        }
        # Keras 2 means by it that there are optimizers of another kind.
        config.pop("is_legacy_optimizer")
        if self._moving is not None:
            config["threshold"] = thresholds.serialize(self._moving)
        elif self._threshold is not None:
            config["threshold"] = held.config(self._threshold, serialized, number)
        return config | rules.config(self.rule)

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> RuleOptimizer:
        """Makes the optimizer that `get_config` describes.

        Args:
            config: What `get_config` returned.
            custom_objects: Classes of one's own that the config names.
        """
        config = dict(config)
        config.pop("is_legacy_optimizer", None)

        def deserialize(saved: dict[str, Any]) -> Any:
            return thresholds.deserialize(saved) or deserialized(saved, custom_objects)

        for name in ("learning_rate", "threshold"):
            if name in config:
                config[name] = held.argument(config[name], deserialize)
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
        # True, the default here, asks for what "auto" does in Keras 3.
        notices.not_compiled(type(self).__name__, reason, "auto" if self.jit_compile else False)

    def _slot(self, variable: tf.Variable, name: str) -> tf.Variable:
        # A layer of mixed precision reports the dtype that it casts to.
        if not is_narrow(getattr(variable, "true_dtype", variable.dtype)):
            return self.add_variable_from_reference(variable, name)

        def make() -> tf.Variable:
            shared_name = compat.shared_name(variable)
            return self._kept(tf.zeros(variable.shape), f"{name}/{shared_name}")

        # `add_variable_from_reference` would give the slot the variable's own dtype.
        return execution.colocated(variable, make, tf.distribute.get_strategy())

    def _counter(self, name: str) -> tf.Variable:
        with tf.init_scope():
            return self._kept(tf.zeros((), tf.int64), name)

    def _kept(self, value: tf.Tensor, name: str) -> tf.Variable:
        variable = tf.Variable(value, name=name, trainable=False)
        compat.add_to_variables(self, variable)
        return variable

    def _number(self, name: str, value: float) -> tf.Variable:
        # As with the learning rate, checkpoints hold it, and files the config with its value.
        with tf.init_scope():
            number = tf.constant(value, floatx())
            return tf.Variable(number, name=name, trainable=False)


class ThresholdOptimizer(RuleOptimizer):
    """A `RuleOptimizer` with a threshold that can be read and set."""

    @property
    def threshold(self) -> Any:
        """The current threshold: a scalar, or a dict from variable name to it.

        A schedule's is its value at this step. One that moves is infinite before enough norms were
        seen, and with each variable's norm an array. A float can be set anew; a dict, for some
        names.
        """
        if self._moving is not None:
            single = self.rule.clips_jointly
            return moving.current(self._moving, self._state, single, tensorflow_ops)
        return held.current(self._threshold, self.iterations)

    @threshold.setter
    def threshold(self, value: float | dict[str, float]) -> None:
        moving.check_settable(self._moving, value)
        held.assign(self._threshold, value, Schedule, floatx())


def floatx() -> str:
    """The float type of Keras 2's variables."""
    return tf_keras.backend.floatx()


def _checked_rate(learning_rate: Any) -> Any:
    if isinstance(learning_rate, Schedule):
        return learning_rate
    rate = arguments.real("learning_rate", learning_rate, low=0.0)
    return arguments.representable("learning_rate", rate, floatx())


def number(variable: tf.Variable) -> float:
    """The number that a variable holds."""
    return float(variable.numpy())


def serialized(schedule: Schedule) -> Any:
    """A schedule's config."""
    return tf_keras.optimizers.schedules.serialize(schedule)


def deserialized(
    config: dict[str, Any], custom_objects: dict[str, Callable[..., Any]] | None
) -> Any:
    """The schedule that a config describes."""
    # HDF5 files are read by older rules, which don't look for a class's registered name.
    registered = tf_keras.saving.get_registered_object(config.get("registered_name"))
    known = {config["class_name"]: registered} if registered else {}
    return tf_keras.optimizers.schedules.deserialize(config, known | (custom_objects or {}))
