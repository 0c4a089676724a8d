"""What the paper's optimizers share in Keras 3: the variables that they keep, and their step."""

from __future__ import annotations

import functools
import numbers
from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras

from keras_acclip import rules, thresholds
from keras_acclip._utils import arguments, compat
from keras_acclip._utils.typing import Array, Gradient, Ops, Variable
from keras_acclip.optimizers import assembly, held, keras_ops, moving, notices, record
from keras_acclip.optimizers.hyperparameter import (
    Checked,
    compiles,
    optional_length,
    optional_rate,
)
from keras_acclip.optimizers.step import (
    Counters,
    Scalars,
    Settings,
    Step,
    dtype_name,
    is_narrow,
)
from keras_acclip.optimizers.watch import Watch

if keras.backend.backend() == "tensorflow":
    from keras_acclip.optimizers import execution

    OBSTACLE = None
else:
    from keras_acclip.optimizers import in_order as execution

    OBSTACLE = f"the {keras.backend.backend()} backend runs it with the training step around it"

ops: Ops = keras_ops
Schedule = keras.optimizers.schedules.LearningRateSchedule
LearningRate = float | Schedule | Callable[[], Any]
"""A number, a schedule of Keras, or a function without arguments that returns the number."""

Threshold = float | Schedule | thresholds.Moving | dict[str, Any]
"""A number, a schedule of the steps taken, a threshold that moves, or a dict of the first two."""


class RuleOptimizer(keras.optimizers.Optimizer):
    """A Keras 3 optimizer that takes the steps of a rule.

    Args:
        rule: The rule.
        threshold: The threshold, where the rule has one.
        averaging: See `keras_acclip.ACClip`, like all other arguments.
    """

    weight_decay = Checked(optional_rate)
    projection_radius = Checked(optional_length)
    jit_compile = Checked(compiles)
    record_every = Checked(arguments.positive_integer)

    def __init__(
        self,
        rule: rules.Rule,
        learning_rate: LearningRate,
        threshold: Threshold | None,
        averaging: Literal["linear"] | None,
        projection_radius: float | None,
        skip_nonfinite: bool,
        jit_compile: bool | Literal["auto"],
        weight_decay: float | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            learning_rate=_checked_rate(learning_rate), weight_decay=weight_decay, **kwargs
        )
        self._slot_names = None
        self.rule = rule
        self.projection_radius = projection_radius
        self.jit_compile = jit_compile
        if OBSTACLE:
            self._refuse(OBSTACLE)
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
            floatx = keras.config.floatx()
            self._threshold = held.hold(threshold, Schedule, self._number, floatx)
        # Where all gradients' norm is known anyway, a look costs nothing.
        self.record_every = 1 if rule.clips_jointly else 32
        self._counts: Variable = None
        self._sums: Variable = None
        self._squares: Variable = None
        self._state: Variable = None
        self.clipped_paths: list[str] = []
        self.compiled_steps = {}
        self.watch: Watch | None = None

    def __repr__(self) -> str:
        # Keras 2 shows it where `compile` is handed this optimizer.
        name = type(self).__name__
        return (
            f"<{name} {self.name!r}: keras_acclip.{name}, for Keras 3; models of Keras 2 (tf_keras)"
            f" take keras_acclip.tf_keras.{name}>"
        )

    @property
    def learning_rate(self) -> Any:
        """The current learning rate; a float that it was made with can be set anew."""
        return super().learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: LearningRate) -> None:
        if isinstance(learning_rate, numbers.Real):
            learning_rate = _checked_rate(learning_rate)
        compat.set_learning_rate(keras.optimizers.Optimizer, self, learning_rate)

    @property
    def rule(self) -> rules.Rule:
        """The rule whose steps it takes; its fields are attributes of the optimizer."""
        return self._rule

    @rule.setter
    def rule(self, rule: rules.Rule) -> None:
        assembly.check_rule(type(self).__name__, rule, self._slot_names)
        self._rule = rule

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
        return 0 if self._skipped_steps is None else ops.copy(self._skipped_steps)

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
            return record.read(ops.zeros(record.COUNTS), ops.zeros(record.SUMS), ops)
        return record.read(self._counts, self._sums, ops)

    def build(self, variables: list[Variable]) -> None:
        """Makes the slots: of the variable's shape, and float32 for float16 and bfloat16 ones.

        Args:
            variables: The model's trainable variables.

        Raises:
            ValueError: If a variable has no threshold.
        """
        if self.built:
            return
        paths = [getattr(v, "path", v.name) for v in variables]
        self._places = assembly.places(self._moving, self.rule, self._threshold, paths)
        self.clipped_paths = paths
        super().build(variables)
        self._slot_names = self.rule.slots
        shaped = [not assembly.is_overwritten(v) for v in variables]
        self._slots, self._averages = [], []
        for v, has_slots in zip(variables, shaped, strict=True):
            names = self.rule.slots if has_slots else ()
            self._slots.append({name: self._slot(v, name) for name in names})
            averages = self.averaging and has_slots
            self._averages.append(self._slot(v, "linear_average") if averages else None)
        self._counts = self._numbers("clipping_counts", (record.COUNTS,), "int32")
        self._sums = self._numbers("clipping_sums", (record.SUMS,), "float32")
        self._squares = self._numbers("clipping_squares", (len(variables),), "float32")
        if self._moving is not None:
            shape = (assembly.norms(self.rule, variables), self._moving.width)
            self._state = self._numbers("threshold_state", shape, "float32")

    def load_own_variables(self, store: Any) -> None:
        """Reads the variables from a saved file; those of before 0.2.0 hold no record.

        Args:
            store: What `save_own_variables` filled.
        """
        saved = {key: store[key] for key in store.keys()}  # noqa: SIM118
        if self.built and len(saved) == len(self.variables) - 3 and self._state is None:
            places = map(str, range(len(saved), len(saved) + 3))
            values = map(ops.convert_to_numpy, self.clipping_variables[:3])
            saved |= dict(zip(places, values, strict=True))
        super().load_own_variables(saved)

    def _backend_update_step(
        self, grads: Sequence[Gradient], trainable_variables: Sequence[Variable], learning_rate: Any
    ) -> None:
        settings = assembly.settings(self, self._moving)
        indices = tuple(compat.variable_index(self, v) for v in trainable_variables)
        if self.watch is not None:
            run = functools.partial(execution.watch, reduce=True)
            self.watch.look(grads, indices, len(self.clipped_paths), run)
        taus = ()
        if self._threshold is not None:
            taus = held.scalars(self._threshold, self.iterations)
        execution.run(
            functools.partial(self._step, settings, indices),
            trainable_variables,
            grads,
            Scalars(learning_rate, taus),
            compiled=self.compiled_steps if self.jit_compile else None,
            key=(settings, indices),
            refuse=self._refuse,
            reduce=True,
        )

    def _step(self, settings: Settings, indices: Sequence[int]) -> Step:
        variables = compat.trainable_variables(self)
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

    def _apply_weight_decay(self, variables: Sequence[Variable]) -> None:
        """Does nothing: the decay is part of the step, and so of what is compiled."""

    def _update_model_variables_moving_average(
        self, trainable_variables: Sequence[Variable]
    ) -> None:
        """Keras's moving average, but of the steps taken alone: the first of them sets it."""
        if not self.skip_nonfinite:
            super()._update_model_variables_moving_average(trainable_variables)
            return
        taken = ops.equal(self._last_skipped, 0)
        first = ops.equal(ops.cast(self.iterations, self._skipped_steps.dtype), self._skipped_steps)
        averages = compat.moving_averages(self)
        for variable, average in zip(trainable_variables, averages, strict=True):
            if average is None:
                continue
            momentum = ops.where(first, 0.0, self.ema_momentum)
            momentum = ops.cast(momentum, average.dtype)
            value = momentum * average + (1 - momentum) * ops.cast(variable, average.dtype)
            average.assign(ops.where(taken, value, ops.convert_to_tensor(average)))

    def finalize_variable_values(self, var_list: list[Variable]) -> None:
        """Puts the average, if one is kept, into the variables; `fit` calls it when training ends.

        A variable that the optimizer was not built with keeps its value.

        Args:
            var_list: The model's trainable variables.
        """
        if not self.averaging:
            super().finalize_variable_values(var_list)
            return
        pairs = [(variable, self._average(variable)) for variable in var_list]
        pairs = [(variable, average) for variable, average in pairs if average is not None]
        execution.overwrite(pairs, self._averaged_steps, self._strategy)

    def _average(self, variable: Variable) -> Variable | None:
        try:
            return self._averages[compat.variable_index(self, variable)]
        except KeyError:
            return None

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments from which `from_config` makes the same optimizer."""
        config = super().get_config() | {
            "averaging": self.averaging,
            "projection_radius": self.projection_radius,
            "skip_nonfinite": self.skip_nonfinite,
            "jit_compile": self.jit_compile,
        }
        if self._moving is not None:
            config["threshold"] = thresholds.serialize(self._moving)
        elif self._threshold is not None:
            config["threshold"] = held.config(
                self._threshold,
                keras.saving.serialize_keras_object,
                lambda variable: float(ops.convert_to_numpy(variable)),
            )
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
        if "threshold" in config:
            config["threshold"] = held.argument(
                config["threshold"],
                lambda c: (
                    thresholds.deserialize(c)
                    or keras.saving.deserialize_keras_object(c, custom_objects)
                ),
            )
        return super().from_config(config, custom_objects)

    def _refuse(self, reason: str) -> None:
        notices.not_compiled(type(self).__name__, reason, self.jit_compile)

    def _slot(self, variable: Variable, name: str) -> Variable:
        if not is_narrow(variable.dtype):
            return self.add_variable_from_reference(variable, name=name)
        path = getattr(variable, "path", variable.name).replace("/", "_").replace(":", "_")
        # `add_variable_from_reference` would give the slot the variable's own dtype. Keras 3.8 has
        # no layouts, and takes none.
        layout = compat.layout(variable)
        make = functools.partial(
            self.add_variable,
            shape=variable.shape,
            dtype="float32",
            name=f"{path}_{name}",
            **({} if layout is None else {"layout": layout}),
        )
        return execution.colocated(variable, make, self._strategy)

    def _counter(self, name: str) -> Variable:
        return self._scalar(name, 0, dtype_name(compat.counter(self).dtype))

    def _number(self, name: str, value: float) -> Variable:
        return self._scalar(name, value, keras.config.floatx())

    def _scalar(self, name: str, value: float, dtype: str) -> Variable:
        return self._numbers(name, (), dtype, value)

    def _numbers(self, name: str, shape: tuple, dtype: str, value: float = 0) -> Variable:
        initializer: Any = keras.initializers.Constant(value)
        return self.add_variable(
            shape=shape,
            initializer=initializer,
            dtype=dtype,
            aggregation="only_first_replica",
            name=name,
        )


class ThresholdOptimizer(RuleOptimizer):
    """A `RuleOptimizer` with a threshold that can be read and set."""

    @property
    def threshold(self) -> Any:
        """The current threshold: a scalar, or a dict from variable path to it.

        A schedule's is its value at this step. One that moves is infinite before enough norms were
        seen, and with each variable's norm an array. A float can be set anew; a dict, for some
        paths.
        """
        if self._moving is not None:
            return moving.current(self._moving, self._state, self.rule.clips_jointly, ops)
        return held.current(self._threshold, self.iterations)

    @threshold.setter
    def threshold(self, value: float | dict[str, float]) -> None:
        moving.check_settable(self._moving, value)
        held.assign(self._threshold, value, Schedule, keras.config.floatx())


def _checked_rate(learning_rate: Any) -> Any:
    if callable(learning_rate):
        return learning_rate
    rate = arguments.real("learning_rate", learning_rate, low=0.0)
    return arguments.representable("learning_rate", rate, keras.config.floatx())
