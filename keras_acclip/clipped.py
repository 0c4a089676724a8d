"""GClip, CClip and ACClip whatever Keras holds their variables: arguments, slots and one step.

The formulas stand in `rules`. `optimizers` and `tf_keras` put these classes above their Keras's
`Optimizer`, and supply what differs between the two.
"""

import logging
import re

from keras_acclip import rules
from keras_acclip._utils import arguments

_TEXTS = {
    "shared_args": """averaging: `None`, or `"linear"` to keep x̄ = Σ j·x_{j−1}/Σ j over the steps
            j in one more slot a variable (Theorem 4's output). The model's weights become x̄ when
            training ends: `fit` does it, a custom loop calls
            `optimizer.finalize_variable_values(variables)`. Defaults to `None`.
        projection_radius: `None`, or the radius of the ball around 0, in the joint norm of all
            variables of a step, onto which the variables are projected after each step
            (the paper's proj-GClip). Defaults to `None`.
        skip_nonfinite: Whether a step whose gradient (summed over replicas) holds a NaN or an
            infinity leaves variables, slots and averages as they are. Such steps are counted
            in `optimizer.skipped_steps`. Defaults to `False`.
        jit_compile: {{jit_compile}}
        weight_decay: `None`, or the rate wd ≥ 0 of decoupled weight decay: x ← x − lr·wd·x before
            the step.
        **kwargs: {{kwargs}}""",
    "threshold": """a float above 0, or a schedule called with the number of
            steps taken so far: `{{PowerThreshold}}` or any {{Keras}}
            `LearningRateSchedule`. A float can be changed later: `optimizer.threshold = 0.5`.""",
}


def documented(**texts):
    """Makes a decorator: a class gets the docstring of the method it holds, with texts filled in.

    Args:
        **texts: What stands for each `{{name}}` in the docstring.
    """

    def decorate(cls):
        doc = cls.__bases__[0].__doc__
        for name, text in (_TEXTS | texts).items():
            doc = doc.replace("{{" + name + "}}", text)
        cls.__doc__ = doc
        return cls

    return decorate


class Clipped:
    """What the paper's optimizers share: one `update_step` over the slots that a subclass names.

    A subclass sets `_slot_names` and defines `_step(gradient, slots, variable, learning_rate)`,
    which returns the step to subtract and the new slots. `_clip_jointly` may scale all gradients
    before. The class after it in the method resolution order is a Keras `Optimizer` with

    - `_ops`, array functions with the names of `keras.ops`; `_backend`, a module of `backend`;
      `_Schedule`, its `LearningRateSchedule`, and `_serialize` and `_deserialize` for it;
      `_said`, the set of what `not_compiled` has said already;
      `_home`, words for where the class is and where its twin for the other Keras is;
    - `_slot(variable, name, initial)`, `_counter(name)` and `_number(name, value)`, which make the
      variables that it keeps; `_dtype_name(dtype)`; `_checked_rate(learning_rate)`;
      `_must_compile`, whether a step that can't be one XLA computation is an error.
    """

    _slot_names = ()

    def __init__(
        self,
        learning_rate,
        averaging=None,
        projection_radius=None,
        skip_nonfinite=False,
        weight_decay=None,
        **kwargs,
    ):
        if weight_decay is not None:
            weight_decay = arguments.real("weight_decay", weight_decay, low=0.0)
        super().__init__(
            learning_rate=self._checked_rate(learning_rate), weight_decay=weight_decay, **kwargs
        )
        self.averaging = arguments.one_of("averaging", averaging, (None, "linear"))
        if averaging and self.use_ema:
            raise ValueError(
                "Arguments `averaging` and `use_ema` exclude each other: both decide what the "
                "weights become when training ends. "
                f"Received: averaging={averaging!r}, use_ema=True"
            )
        self.projection_radius = (
            None
            if projection_radius is None
            else arguments.positive("projection_radius", projection_radius)
        )
        if self.averaging:
            # Iterations won't do: they count steps left out, here or by a loss-scaling optimizer.
            self._averaged_steps = self._counter("averaged_steps")
        self.skip_nonfinite = arguments.flag("skip_nonfinite", skip_nonfinite)
        if self.skip_nonfinite:
            self._skipped_steps = self._counter("skipped_steps")
            # Keras updates its moving average after the step, so it must be told of a skipped one.
            self._last_step_skipped = self._counter("last_step_skipped")

    def __repr__(self):
        # Keras shows it where `compile` is handed the optimizer of the other Keras.
        method = next(c.__name__ for c in type(self).__mro__ if c.__module__ == __name__)
        return f"<{type(self).__name__} {self.name!r}: {self._home.format(method)}>"

    @property
    def skipped_steps(self):
        """How many steps `skip_nonfinite=True` has left out; 0 without it."""
        return self._ops.copy(self._skipped_steps) if self.skip_nonfinite else 0

    def build(self, variables):
        """Makes the slots: of the variable's shape, and float32 for float16 and bfloat16 ones.

        Args:
            variables: The model's trainable variables.
        """
        if self.built:
            return
        super().build(variables)
        slots = [[] if _overwritten(v) else self._slots_of(v) for v in variables]
        self._averages = [s.pop() if self.averaging and s else None for s in slots]
        self._slots = slots

    def _slots_of(self, variable):
        slots = [self._slot(variable, name, "zeros") for name in self._slot_names]
        if self.averaging:
            # A variable that never gets a gradient keeps its value when training ends.
            slots.append(self._slot(variable, "linear_average", "variable"))
        return slots

    def update_all(self, gradients, variables, learning_rate):
        """One whole step: clips the gradients, updates all variables and projects them.

        Args:
            gradients: One gradient a variable, summed over replicas.
            variables: The variables to update.
            learning_rate: lr, a scalar.
        """
        gradients, finite = self.prepare(gradients)
        for gradient, variable in zip(gradients, variables, strict=True):
            self.update_step(gradient, variable, learning_rate, finite)
        if self.projection_radius is not None:
            factor = self.projection_factor(finite)
            for variable in self.projected_variables():
                self.scale(variable, factor)
        self.count_step(finite)

    def update_step(self, gradient, variable, learning_rate, finite=None):
        """Updates one variable and its slots.

        Args:
            gradient: The gradient, clipped jointly where the rule does so.
            variable: The variable to update.
            learning_rate: lr, a scalar.
            finite: `None`, or a boolean scalar: where `False` nothing changes.
        """
        ops, backend = self._ops, self._backend
        index = self._get_variable_index(variable)
        dtype = self._wide(variable.dtype)
        learning_rate = ops.cast(learning_rate, dtype)
        gradient = backend.map_rows(lambda g: ops.cast(g, dtype), gradient)
        if backend.is_sparse(gradient) and self.updates_rows_alone(variable):
            step, _ = self._step(gradient.values, (), variable, learning_rate)
            backend.subtract_rows(variable, gradient.indices, step, finite)
            return
        gradient = backend.dense(gradient)
        x = ops.cast(variable, dtype)
        slots = [ops.convert_to_tensor(slot) for slot in self._slots[index]]
        step, new_slots = self._step(gradient, slots, variable, learning_rate)
        if self.averaging:
            average = ops.convert_to_tensor(self._averages[index])
            k = ops.cast(self._averaged_steps + 1, dtype)
            average = rules.linear_average(average, x, k)
            self._assign_where(finite, self._averages[index], average)
        if self._decays(variable):
            x = x - x * (self.weight_decay * learning_rate)
        self._assign_where(finite, variable, x - step)
        for slot, value in zip(self._slots[index], new_slots, strict=True):
            self._assign_where(finite, slot, value)

    def _step(self, gradient, slots, variable, learning_rate):
        raise NotImplementedError

    def _clip_jointly(self, gradients):
        return gradients

    def prepare(self, gradients):
        """Returns the gradients as the rule wants them, and whether all are finite (or `None`)."""
        backend = self._backend
        gradients = [
            backend.map_rows(lambda g: self._ops.cast(g, self._wide(g.dtype)), gradient)
            for gradient in gradients
        ]
        gradients = [backend.sum_repeated_rows(g) for g in gradients]
        finite = self._all_finite(gradients) if self.skip_nonfinite else None
        return self._clip_jointly(gradients), finite

    def projected_variables(self):
        """The variables whose joint norm `projection_radius` bounds."""
        return [v for v in self._trainable_variables if not _overwritten(v)]

    def projection_factor(self, finite=None):
        """The factor that brings the variables into their ball; 1 where `finite` is `False`."""
        ops = self._ops
        norm = self._global_norm([ops.convert_to_tensor(v) for v in self.projected_variables()])
        factor = rules.projection_factor(norm, self.projection_radius, ops)
        return factor if finite is None else ops.where(finite, factor, ops.ones_like(factor))

    def scale(self, variable, factor):
        """Multiplies a variable by a scalar."""
        x = self._ops.cast(variable, self._wide(variable.dtype))
        self._assign_where(None, variable, x * self._ops.cast(factor, x.dtype))

    def count_step(self, finite):
        """Counts the step: as skipped where `finite` is `False`, else as averaged."""
        ops = self._ops
        if self.averaging:
            dtype = self._averaged_steps.dtype
            self._averaged_steps.assign_add(ops.cast(True if finite is None else finite, dtype))
        if finite is not None:
            skipped = ops.cast(ops.logical_not(finite), self._skipped_steps.dtype)
            self._skipped_steps.assign_add(skipped)
            self._last_step_skipped.assign(skipped)

    def updates_rows_alone(self, variable):
        """Whether rows without a gradient keep their value, so that sparse gradients stay so."""
        narrow = self._wide(variable.dtype) != self._dtype_name(variable.dtype)
        return not (self._slot_names or self.averaging or narrow or self._decays(variable))

    def not_compiled(self, reason):
        """Says once why the step is no XLA computation of its own, or raises if that was asked for.

        Args:
            reason: Words that follow "…XLA computation: ".
        """
        name = type(self).__name__
        if self._must_compile:
            raise ValueError(
                f"{name} can't run its step as one XLA computation: {reason}. "
                "Use jit_compile='auto' or False. Received: jit_compile=True"
            )
        if self.jit_compile and (name, reason) not in self._said:
            self._said.add((name, reason))
            logging.getLogger("keras_acclip").warning(
                "%s runs its step without an XLA computation of its own: %s.", name, reason
            )

    def _decays(self, variable):
        return self.weight_decay is not None and self._use_weight_decay(variable)

    def _apply_weight_decay(self, variables):
        """Does nothing: the decay is part of `update_step`, and so of the compiled step."""

    def finalize_variable_values(self, var_list):
        """Puts the average, if one is kept, into the variables; `fit` calls it when training ends.

        Args:
            var_list: The model's trainable variables.
        """
        if self.averaging:
            averages = [self._averages[self._get_variable_index(v)] for v in var_list]
            self._backend.overwrite(self, var_list, averages)
        else:
            super().finalize_variable_values(var_list)

    def get_config(self):
        """Returns the arguments from which `from_config` makes the same optimizer."""
        return super().get_config() | {
            "averaging": self.averaging,
            "projection_radius": self.projection_radius,
            "skip_nonfinite": self.skip_nonfinite,
            "jit_compile": self.jit_compile,
        }

    def _assign_where(self, finite, variable, value):
        ops = self._ops
        value = ops.cast(value, variable.dtype)
        if finite is not None:
            value = ops.where(finite, value, ops.convert_to_tensor(variable))
        self.assign(variable, value)

    def _wide(self, dtype):
        """The dtype to compute in: float32 for float16 and bfloat16, else the dtype itself."""
        name = self._dtype_name(dtype)
        return "float32" if name in ("float16", "bfloat16") else name

    def _global_norm(self, arrays):
        dtypes = {self._wide(a.dtype) for a in arrays}
        widest = "float64" if "float64" in dtypes else "float32"
        arrays = [self._ops.cast(a, widest) for a in arrays]
        return rules.global_norm(arrays, self._ops, self._backend.NORM_SLICES)

    def _all_finite(self, gradients):
        ops = self._ops
        each = [ops.all(ops.isfinite(self._backend.rows(g))) for g in gradients]
        return ops.all(ops.stack(each))


class Thresholded(Clipped):
    """What GClip and CClip share: a threshold, and momentum on the clipped gradient."""

    def __init__(self, learning_rate=0.01, threshold=1.0, momentum=0.0, nesterov=False, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.momentum = arguments.real("momentum", momentum, low=0.0, high=1.0, open_high=True)
        self.nesterov = arguments.flag("nesterov", nesterov)
        if nesterov and momentum == 0:
            raise ValueError(
                "Argument `nesterov` needs momentum above 0. Received: nesterov=True, momentum=0.0"
            )
        if momentum:
            self._slot_names = ("momentum",)
        self._threshold = self._held("threshold", threshold)

    @property
    def threshold(self):
        """The current threshold: a scalar variable, or what the schedule gives for this step."""
        return self._current(self._threshold)

    @threshold.setter
    def threshold(self, value):
        if isinstance(self._threshold, self._Schedule):
            raise TypeError(
                "This optimizer was made with a schedule as its `threshold`, which is hence not "
                f"settable. Received: threshold={value!r}"
            )
        self._threshold.assign(arguments.positive("threshold", value))

    def _step(self, gradient, slots, variable, learning_rate):
        gradient = self._clip(gradient, variable)
        if not slots:
            return learning_rate * gradient, ()
        step, velocity = rules.momentum(
            gradient,
            *slots,
            learning_rate=learning_rate,
            momentum=self.momentum,
            nesterov=self.nesterov,
        )
        return step, (velocity,)

    def _clip(self, gradient, variable):
        return gradient

    def _held(self, name, value):
        """A schedule as it is; a float as a variable, so that changing it retraces nothing."""
        if isinstance(value, self._Schedule):
            return value
        return self._number(name, arguments.positive("threshold", value))

    def _current(self, threshold):
        return threshold(self.iterations) if isinstance(threshold, self._Schedule) else threshold

    def _saved(self, threshold):
        if isinstance(threshold, self._Schedule):
            return self._serialize(threshold)
        if isinstance(threshold, dict):
            return {path: self._saved(value) for path, value in threshold.items()}
        return float(self._ops.convert_to_numpy(threshold))

    @classmethod
    def _loaded(cls, threshold, custom_objects):
        if not isinstance(threshold, dict):
            return threshold
        if {"class_name", "config"} <= set(threshold):
            return cls._deserialize(threshold, custom_objects)
        return {path: cls._loaded(value, custom_objects) for path, value in threshold.items()}

    def get_config(self):
        """Returns the arguments from which `from_config` makes the same optimizer."""
        return super().get_config() | {
            "threshold": self._saved(self._threshold),
            "momentum": self.momentum,
            "nesterov": self.nesterov,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Makes the optimizer that `get_config` describes.

        Args:
            config: What `get_config` returned.
            custom_objects: Classes of one's own that the config names.
        """
        config = dict(config)
        config["threshold"] = cls._loaded(config["threshold"], custom_objects)
        return super().from_config(config, custom_objects)


class GClip(Thresholded):
    """SGD with the gradient of all variables together clipped to a norm (GClip).

    x ← x − lr·min(τ/‖g‖, 1)·g. The choice where the noise is heavy-tailed and plain SGD would do
    otherwise, and where the theory is wanted: `thresholds` has the constants of Theorems 2 and 4.
    For attention models `ACClip` learns faster. Rates are those of SGD; where every step is
    clipped, lr·τ is the length of a step.

    {{norm}} of the gradient summed over all replicas,
    so that training on n replicas equals training on one. The norm is accumulated in float32 at
    least. The gradient is clipped first, then enters the momentum.

    Args:
        learning_rate: {{learning_rate}}
            Defaults to `0.01`.
        threshold: τ, {{threshold}}
            Defaults to `1.0`.
        momentum: μ in [0, 1). Defaults to `0.0`, which holds no slot and touches only the rows
            concerned of a variable with a sparse gradient.
        nesterov: Whether the momentum looks ahead. Defaults to `False`.
        {{shared_args}}

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument lies outside its range.

    Example:

    >>> optimizer = {{module}}.GClip(learning_rate=0.3, threshold=0.5, momentum=0.9)
    >>> model.compile(optimizer=optimizer, loss="mse")

    References:
        [Zhang et al., 2020](https://arxiv.org/abs/1912.03194), Section 3, Theorems 2 and 4.
    """

    def _clip_jointly(self, gradients):
        ops, backend = self._ops, self._backend
        norm = self._global_norm([backend.rows(g) for g in gradients])
        factor = rules.gclip_factor(norm, ops.cast(self.threshold, norm.dtype), ops)
        return [backend.map_rows(lambda g: g * ops.cast(factor, g.dtype), g) for g in gradients]


class CClip(Thresholded):
    """SGD with every coordinate of the gradient clipped to [−τ, τ] (CClip).

    Unlike GClip's, its guarantee does not grow with the dimension when coordinates have noise of
    different sizes (Theorem 8); give each group of variables its own threshold then. An infinite
    coordinate becomes ±τ.

    Args:
        learning_rate: {{learning_rate}}
            Defaults to `0.01`.
        threshold: τ, {{threshold}} Or a dict from
            variable path (a regular expression, searched for in `{{path}}`; the first that
            matches counts) to float or schedule; every variable must match one.
            Defaults to `1.0`.
        momentum: μ in [0, 1). Defaults to `0.0`, which holds no slot and touches only the rows
            concerned of a variable with a sparse gradient.
        nesterov: Whether the momentum looks ahead. Defaults to `False`.
        {{shared_args}}

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument lies outside its range, or, when the variables are known, if one
            matches none of the paths.

    Example:

    >>> optimizer = {{module}}.CClip(0.1, threshold={"embedding": 0.01, ".*": 0.1})
    >>> model.compile(optimizer=optimizer, loss="mse")

    References:
        [Zhang et al., 2020](https://arxiv.org/abs/1912.03194), Section 4, Theorem 8.
    """

    def build(self, variables):
        """Makes the slots, and finds each variable's threshold.

        Args:
            variables: The model's trainable variables.
        """
        if self.built:
            return
        if isinstance(self._threshold, dict):
            self._patterns = [self._pattern(getattr(v, "path", v.name)) for v in variables]
        super().build(variables)

    @property
    def threshold(self):
        """The current threshold, or a dict from variable path to it."""
        if isinstance(self._threshold, dict):
            return {path: self._current(value) for path, value in self._threshold.items()}
        return self._current(self._threshold)

    @threshold.setter
    def threshold(self, value):
        if not isinstance(self._threshold, dict):
            Thresholded.threshold.fset(self, value)
            return
        if not isinstance(value, dict) or not set(value) <= set(self._threshold):
            raise ValueError(
                "Argument `threshold` must be a dict with keys among "
                f"{sorted(self._threshold)}. Received: threshold={value!r}"
            )
        for path in value:
            if isinstance(self._threshold[path], self._Schedule):
                raise TypeError(
                    f"The `threshold` of {path!r} is a schedule, which is hence not settable."
                    f" Received: threshold={value!r}"
                )
        for path, number in value.items():
            self._threshold[path].assign(arguments.positive("threshold", number))

    def _held(self, name, value):
        if not isinstance(value, dict):
            return super()._held(name, value)
        if not value:
            raise ValueError(
                "Argument `threshold` must not be an empty dict. Received: threshold={}"
            )
        for path in value:
            try:
                re.compile(path)
            except (re.error, TypeError) as error:
                raise ValueError(
                    f"Argument `threshold` must have regular expressions as keys ({error}). "
                    f"Received: {path!r}"
                ) from None
        return {
            path: super(CClip, self)._held(f"{name}_{i}", number)
            for i, (path, number) in enumerate(value.items())
        }

    def _pattern(self, path):
        for pattern in self._threshold:
            if re.search(pattern, path):
                return pattern
        raise ValueError(
            f"Argument `threshold` names no threshold for the variable {path!r}: none of "
            f"{list(self._threshold)} matches. Add '.*' for all others."
        )

    def _clip(self, gradient, variable):
        threshold = self._threshold
        if isinstance(threshold, dict):
            threshold = threshold[self._patterns[self._get_variable_index(variable)]]
        threshold = self._ops.cast(self._current(threshold), gradient.dtype)
        return rules.cclip(gradient, threshold, self._ops)


class ACClip(Clipped):
    """Adaptive coordinate-wise clipping: the paper's optimizer for attention models (ACClip).

    Each coordinate's momentum is clipped to a threshold that follows the α-moment of its own
    gradient (Algorithm 1). Choose it where Adam would be chosen; start from Adam's learning rate,
    and tune the warm-up with it: no coordinate moves by more than lr a step, but steps are larger
    than Adam's at the same lr, so that with a short warm-up the largest rate that trains is a
    little below Adam's.

    Args:
        learning_rate: {{learning_rate}}
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
        {{shared_args}}

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument lies outside its range.

    Example:

    >>> model.compile(optimizer={{module}}.ACClip(1e-3), loss="sparse_categorical_crossentropy")
    >>> model.fit(x, y)

    References:
        [Zhang et al., 2020](https://arxiv.org/abs/1912.03194), Section 4, Algorithm 1.
    """

    def __init__(
        self,
        learning_rate=0.001,
        beta_1=0.9,
        beta_2=0.99,
        epsilon=1e-5,
        alpha=1.0,
        step_size="moment",
        **kwargs,
    ):
        super().__init__(learning_rate, **kwargs)
        self.beta_1 = arguments.real("beta_1", beta_1, low=0.0, high=1.0, open_high=True)
        self.beta_2 = arguments.real("beta_2", beta_2, low=0.0, high=1.0, open_high=True)
        self.epsilon = arguments.real("epsilon", epsilon, low=0.0)
        self.alpha = arguments.moment_order("alpha", alpha)
        self.step_size = arguments.one_of("step_size", step_size, rules.STEP_SIZES)
        self._slot_names = ("moment", "threshold_power")
        if step_size == "rms":
            self._slot_names += ("second_moment",)

    def _step(self, gradient, slots, variable, learning_rate):
        step, *slots = rules.acclip(
            gradient,
            *slots,
            learning_rate=learning_rate,
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            epsilon=self.epsilon,
            alpha=self.alpha,
            step_size=self.step_size,
            ops=self._ops,
        )
        return step, slots

    def get_config(self):
        """Returns the arguments from which `from_config` makes the same optimizer."""
        return super().get_config() | {
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "alpha": self.alpha,
            "step_size": self.step_size,
        }


def _overwritten(variable):
    """Whether the variable's gradient is its next value, as with float8 scales."""
    return getattr(variable, "overwrite_with_gradient", False)
