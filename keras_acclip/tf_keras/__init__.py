"""The same for Keras 2 (`tf_keras`), which the TensorFlow Model Garden trains with.

With the environment variable `TF_USE_LEGACY_KERAS=1`, `tf.keras` is this Keras.
"""

import tensorflow as tf

try:
    import tf_keras
except ImportError as error:
    raise ImportError(
        "keras_acclip.tf_keras needs tf_keras: pip install 'keras-acclip[garden]'"
    ) from error

from keras_acclip import clipped, thresholds
from keras_acclip._utils import arguments
from keras_acclip.backend import tensorflow as backend
from keras_acclip.backend import tensorflow_ops
from keras_acclip.noise import callback

__all__ = [
    "ACClip",
    "CClip",
    "GClip",
    "GradientNoise",
    "PowerThreshold",
    "strongly_convex_constants",
]

_register = tf_keras.saving.register_keras_serializable(package="keras_acclip")

# What `not_compiled` has said already.
_said = set()

_documented = clipped.documented(
    module="keras_acclip.tf_keras",
    Keras="`tf_keras`",
    PowerThreshold="keras_acclip.tf_keras.PowerThreshold",
    norm="The norm is that",
    learning_rate="A float, or a `LearningRateSchedule` of `tf_keras`.",
    path="variable.name",
    jit_compile="""Whether all variables' updates of a step run as one XLA computation, where
            the strategy and the variables allow it, on CPUs too; otherwise it is said once why they
            don't. Defaults to `True`.""",
    kwargs="""The other arguments of every Keras 2 optimizer: `name`, `clipnorm`, `clipvalue`,
            `global_clipnorm`, `use_ema`, `ema_momentum`, `ema_overwrite_frequency`, `mesh`.""",
)


class _Optimizer(tf_keras.optimizers.Optimizer):
    """Keras 2's optimizer, as `clipped.Clipped` wants it."""

    _ops = tensorflow_ops
    _backend = backend
    _Schedule = tf_keras.optimizers.schedules.LearningRateSchedule
    _serialize = staticmethod(tf_keras.optimizers.schedules.serialize)
    _said = _said
    _home = (
        "keras_acclip.tf_keras.{0}, for Keras 2 (tf_keras); models of Keras 3 take keras_acclip.{0}"
    )
    _must_compile = False

    def __init__(self, learning_rate, name=None, jit_compile=True, **kwargs):
        super().__init__(name=name or type(self).__name__, **kwargs)
        self._learning_rate = self._build_learning_rate(learning_rate)
        # Keras 2 itself compiles on GPUs alone.
        self.jit_compile = arguments.flag("jit_compile", jit_compile)
        self.compiled_steps = self._no_dependency({})

    @property
    def built(self):
        """Whether the slots have been made."""
        return getattr(self, "_built", False)

    def build(self, var_list):
        """Makes what every optimizer of Keras 2 has.

        Args:
            var_list: The model's trainable variables.
        """
        super().build(var_list)
        self._trainable_variables = self._no_dependency(list(var_list))
        self._built = True

    def summed_over_replicas(self, gradients, variables):
        """Returns the gradients, which `apply_gradients` has summed."""
        return gradients

    def assign(self, variable, value):
        """Assigns a value to a variable."""
        variable.assign(value)

    def _deduplicate_sparse_grad(self, grads):
        """Does nothing: `prepare` sums repeated rows, in static shapes."""
        return grads

    def _internal_apply_gradients(self, grads_and_vars):
        gradients, variables = zip(*grads_and_vars, strict=True)
        if self._mesh or self._run_with_dtensor:
            self.not_compiled("its variables are laid out over a DTensor mesh")
            self.update_all(gradients, variables, self.learning_rate)
            return self._finish_step(None, variables)
        backend.update(self, gradients, variables, self.learning_rate)
        return tf.__internal__.distribute.interim.maybe_merge_call(
            self._finish_step, self._distribution_strategy, variables
        )

    def _finish_step(self, strategy, variables):
        if self.use_ema:
            self._update_model_variables_moving_average(variables)
            if self.ema_overwrite_frequency:
                tf.cond(
                    tf.equal((self.iterations + 1) % self.ema_overwrite_frequency, 0),
                    lambda: self._overwrite_model_variables_with_average_value(variables),
                    lambda: None,
                )
        return self.iterations.assign_add(1)

    def _update_model_variables_moving_average(self, var_list):
        def update():
            super(_Optimizer, self)._update_model_variables_moving_average(var_list)

        if self.skip_nonfinite:
            tf.cond(tf.equal(self._last_step_skipped, 0), update, lambda: None)
        else:
            update()

    def _get_variable_index(self, variable):
        try:
            return self._index_dict[self._var_key(variable)]
        except KeyError:
            raise KeyError(
                f"The optimizer was not built for the variable {variable.name!r}. Call "
                "`optimizer.build(variables)` with all trainable variables before the first step."
            ) from None

    @staticmethod
    def _dtype_name(dtype):
        return tf.as_dtype(dtype).name

    def _checked_rate(self, learning_rate):
        if isinstance(learning_rate, self._Schedule):
            return learning_rate
        return arguments.real("learning_rate", learning_rate, low=0.0)

    def _slot(self, variable, name, initial):
        value = variable if initial == "variable" else None
        # A layer of mixed precision reports the dtype that it casts to.
        dtype = getattr(variable, "true_dtype", variable.dtype)
        wide = self._wide(dtype)
        if wide == self._dtype_name(dtype):
            return self.add_variable_from_reference(variable, name, initial_value=value)

        def make():
            value = tf.zeros(variable.shape) if initial == "zeros" else tf.cast(variable, wide)
            return self._kept(value, f"{name}/{variable._shared_name}")

        # `add_variable_from_reference` would give the slot the variable's own dtype.
        return backend.colocated(self, variable, make)

    def _counter(self, name):
        with tf.init_scope():
            return self._kept(tf.zeros((), tf.int64), name)

    def _kept(self, value, name):
        variable = tf.Variable(value, name=name, trainable=False)
        self._variables.append(variable)
        return variable

    def _number(self, name, value):
        # As with the learning rate, checkpoints hold it, and files the config with its value.
        with tf.init_scope():
            return tf.Variable(value, name=name, dtype=tf_keras.backend.floatx(), trainable=False)

    @staticmethod
    def _deserialize(config, custom_objects):
        # HDF5 files are read by older rules, which don't look for a class's registered name.
        registered = tf_keras.saving.get_registered_object(config.get("registered_name"))
        known = {config["class_name"]: registered} if registered else {}
        return tf_keras.optimizers.schedules.deserialize(config, known | (custom_objects or {}))

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Makes the optimizer that `get_config` describes.

        Args:
            config: What `get_config` returned.
            custom_objects: Classes of one's own that the config names.
        """
        config = dict(config)
        if isinstance(config["learning_rate"], dict):
            config["learning_rate"] = cls._deserialize(config["learning_rate"], custom_objects)
        return super().from_config(config, custom_objects)

    def get_config(self):
        """Returns the arguments from which `from_config` makes the same optimizer."""
        rate = self._serialize_hyperparameter(self._learning_rate)
        return super().get_config() | {
            "learning_rate": rate if isinstance(rate, dict) else float(rate)
        }

    # What the Model Garden's `ExponentialMovingAverage` asks of the optimizer in it, which it takes
    # for one of `tf_keras.optimizers.legacy`.

    @property
    def weights(self):
        """The optimizer's variables."""
        return self.variables

    def _create_hypers(self):
        """Does nothing: there are no hyperparameters to make."""

    def _create_slots(self, var_list):
        self.build(var_list)

    def _get_hyper(self, name):
        return getattr(self, name)

    def _set_hyper(self, name, value):
        setattr(self, name, value)


@_register
@_documented
class GClip(clipped.GClip, _Optimizer):
    """`clipped.GClip` for Keras 2, with its docstring."""


@_register
@_documented
class CClip(clipped.CClip, _Optimizer):
    """`clipped.CClip` for Keras 2, with its docstring."""


@_register
@_documented
class ACClip(clipped.ACClip, _Optimizer):
    """`clipped.ACClip` for Keras 2, with its docstring."""


@_register
class PowerThreshold(thresholds.PowerLaw, tf_keras.optimizers.schedules.LearningRateSchedule):
    """`keras_acclip.thresholds.PowerThreshold` for Keras 2: the same arguments and values."""

    _ops = tensorflow_ops


def strongly_convex_constants(gradient_moment, strong_convexity, alpha):
    """`keras_acclip.thresholds.strongly_convex_constants` with schedules for Keras 2."""
    schedules = tf_keras.optimizers.schedules.InverseTimeDecay, PowerThreshold
    return thresholds.strongly_convex_schedules(
        *schedules, gradient_moment, strong_convexity, alpha
    )


class GradientNoise(callback.NoiseCallback, tf_keras.callbacks.Callback):
    """`keras_acclip.GradientNoise` for Keras 2: the same arguments, logs and attributes."""

    # Without it, Keras 2 waits for the logs of every batch.
    _supports_tf_logs = True
