"""GClip, CClip and ACClip for Keras 3, on every Keras backend.

What they do stands in `clipped`, the formulas in `rules`; the class here keeps their variables, and
lets all variables' updates of a step run as one XLA computation where TensorFlow can (see
`backend`).
"""

import keras
from keras import ops

from keras_acclip import clipped
from keras_acclip._utils import arguments

if keras.backend.backend() == "tensorflow":
    from keras_acclip.backend import tensorflow as backend
else:
    from keras_acclip.backend import other as backend

_register = keras.saving.register_keras_serializable(package="keras_acclip")

# What `not_compiled` has said already.
_said = set()

_documented = clipped.documented(
    module="keras_acclip",
    Keras="Keras",
    PowerThreshold="keras_acclip.thresholds.PowerThreshold",
    norm="Unlike with SGD's `global_clipnorm`, the norm is that",
    learning_rate="A float, a `LearningRateSchedule`, or a callable without arguments.",
    path="variable.path",
    jit_compile="""`"auto"`, `True` or `False`: whether all variables' updates of a step run
            as one XLA computation. `"auto"` does so on the TensorFlow backend, and otherwise says
            once why not; `True` raises a `ValueError` instead. Defaults to `"auto"`.""",
    kwargs="""The other arguments of every Keras optimizer: `name`, `clipnorm`, `clipvalue`,
            `global_clipnorm`, `use_ema`, `ema_momentum`, `ema_overwrite_frequency`,
            `loss_scale_factor`, `gradient_accumulation_steps`.""",
)


class _Optimizer(keras.optimizers.Optimizer):
    """Keras 3's optimizer, as `clipped.Clipped` wants it."""

    _ops = ops
    _backend = backend
    _Schedule = keras.optimizers.schedules.LearningRateSchedule
    _serialize = staticmethod(keras.saving.serialize_keras_object)
    _deserialize = staticmethod(keras.saving.deserialize_keras_object)
    _said = _said
    _home = (
        "keras_acclip.{0}, for Keras 3; models of Keras 2 (tf_keras) take keras_acclip.tf_keras.{0}"
    )

    def __init__(self, learning_rate, jit_compile="auto", **kwargs):
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.jit_compile = arguments.one_of("jit_compile", jit_compile, ("auto", True, False))
        if backend.OBSTACLE:
            self.not_compiled(backend.OBSTACLE)
        self.compiled_steps = {}

    @property
    def _must_compile(self):
        return self.jit_compile is True

    def summed_over_replicas(self, gradients, variables):
        """Returns the gradients summed over the replicas of a `tf.distribute` strategy."""
        reduced = self._all_reduce_sum_gradients(list(zip(gradients, variables, strict=True)))
        return [gradient for gradient, _ in reduced]

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        backend.update(self, grads, trainable_variables, learning_rate)

    def _update_model_variables_moving_average(self, trainable_variables):
        if not self.skip_nonfinite:
            super()._update_model_variables_moving_average(trainable_variables)
            return
        averages = [a for a in self._model_variables_moving_average if a is not None]
        before = [ops.copy(average) for average in averages]
        super()._update_model_variables_moving_average(trainable_variables)
        taken = ops.equal(self._last_step_skipped, 0)
        for average, value in zip(averages, before, strict=True):
            average.assign(ops.where(taken, ops.convert_to_tensor(average), value))

    _dtype_name = staticmethod(keras.backend.standardize_dtype)

    def _checked_rate(self, learning_rate):
        if callable(learning_rate):
            return learning_rate
        return arguments.real("learning_rate", learning_rate, low=0.0)

    def _slot(self, variable, name, initial):
        wide = self._wide(variable.dtype)
        initializer = initial

        if initial == "variable":

            def initializer(shape, dtype=None):
                # Without the copy, JAX and PyTorch would make both of one buffer.
                return ops.copy(ops.cast(variable, dtype))

        if wide == self._dtype_name(variable.dtype):
            return self.add_variable_from_reference(variable, name=name, initializer=initializer)
        path = getattr(variable, "path", variable.name).replace("/", "_").replace(":", "_")
        # `add_variable_from_reference` would give the slot the variable's own dtype.
        options = {"shape": variable.shape, "dtype": wide, "name": f"{path}_{name}"}
        if getattr(variable, "_layout", None) is not None:
            options["layout"] = variable._layout
        return backend.colocated(
            self, variable, lambda: self.add_variable(initializer=initializer, **options)
        )

    def _counter(self, name):
        return self._scalar(name, 0, self._iterations.dtype)

    def _number(self, name, value):
        return self._scalar(name, value, keras.backend.floatx())

    def _scalar(self, name, value, dtype):
        with keras.name_scope(self.name):
            return keras.Variable(
                value,
                name=name,
                dtype=dtype,
                trainable=False,
                aggregation="only_first_replica",
            )


@_register
@_documented
class GClip(clipped.GClip, _Optimizer):
    """`clipped.GClip` for Keras 3, with its docstring."""


@_register
@_documented
class CClip(clipped.CClip, _Optimizer):
    """`clipped.CClip` for Keras 3, with its docstring."""


@_register
@_documented
class ACClip(clipped.ACClip, _Optimizer):
    """`clipped.ACClip` for Keras 3, with its docstring."""
