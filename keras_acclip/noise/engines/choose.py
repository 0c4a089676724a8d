"""Which engine, loss and sweep suit a model."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import keras

from keras_acclip.noise.engines.losses import CompiledLoss, LegacyLoss

if TYPE_CHECKING:
    from keras_acclip._utils.typing import Ops, Variable
    from keras_acclip.noise.engines.base import Batch, Engine, GradientFunction
    from keras_acclip.noise.engines.gradients import TensorFlowSource
    from keras_acclip.noise.sketch import CountSketch, Sweep


class Loss(Protocol):
    """What a meter needs to know of what is differentiated."""

    @property
    def variables(self) -> list[Variable]:
        """The variables to differentiate by."""
        ...

    @property
    def built(self) -> bool:
        """Whether the model has its variables."""
        ...

    def build(self, batch: Batch) -> None:
        """Creates the model's variables, as its first call would."""
        ...


@dataclass(frozen=True)
class Backend:
    """What a model's gradients are evaluated with.

    Attributes:
        loss: What is differentiated.
        sweep: Returns the loop for a `CountSketch` on this machine, or `None`.
        make_engine: Makes the engine, given a `CountSketch` over the loss's variables.
    """

    loss: Loss
    sweep: Callable[[], Sweep | None]
    make_engine: Callable[[CountSketch], Engine]


def choose(model: Any, training: bool, gradient: GradientFunction | None = None) -> Backend:
    """Returns the parts that suit a model.

    Args:
        model: A compiled `keras.Model` or `tf_keras.Model`; with `gradient` a `tf_keras.Model`.
        training: Whether layers run as in training.
        gradient: `None`, or the gradient of a training loop of one's own.

    Raises:
        NotImplementedError: If Keras runs on another backend than TensorFlow or JAX.
        TypeError: If `model` is of another type.
        ValueError: If it is not compiled.
    """
    tf_keras = sys.modules.get("tf_keras")
    is_legacy = tf_keras is not None and isinstance(model, tf_keras.Model)
    if gradient is not None:
        if not is_legacy:
            raise TypeError(
                "Argument `gradient` is for a tf_keras.Model. Received: "
                f"model={model!r} (of type {type(model).__name__})"
            )
        return _of_loop(model, gradient)
    if isinstance(model, keras.Model):
        plain = type(model).train_step is keras.Model.train_step
        compiled = model.compiled
    elif tf_keras is not None and is_legacy:
        plain = type(model).train_step is tf_keras.Model.train_step
        compiled = model.optimizer is not None
    else:
        raise TypeError(
            "Argument `model` must be a keras.Model or a tf_keras.Model. Received: "
            f"model={model!r} (of type {type(model).__name__})"
        )
    if not compiled:
        raise ValueError("Call `model.compile()` first: the noise is that of the compiled loss.")
    if not plain:
        warnings.warn(
            f"{type(model).__name__} overrides `train_step`; the noise measured is that of the "
            "gradient of `compute_loss`.",
            stacklevel=2,
        )
    if is_legacy:
        return _of_keras_2(model, training)
    backend = keras.config.backend()
    if backend == "tensorflow":
        return _of_keras_3(model, training)
    if backend == "jax":
        return _on_jax(model, training)
    raise NotImplementedError(
        "Gradient noise is measured on the TensorFlow and JAX backends of Keras. This is "
        f"{backend!r}: set KERAS_BACKEND before importing keras."
    )


def suitable(model: Any) -> tuple[Ops, Sweep | None]:
    """The array namespace of a model's gradients, and the loop for a `CountSketch` over them.

    Raises:
        NotImplementedError: If Keras runs on another backend than TensorFlow or JAX.
    """
    if isinstance(model, keras.Model) and keras.config.backend() == "jax":
        import jax.numpy as jnp

        from keras_acclip.noise.engines.jax import suitable_sweep

        return jnp, suitable_sweep()
    if isinstance(model, keras.Model) and keras.config.backend() != "tensorflow":
        raise NotImplementedError(
            "Gradient noise is measured on the TensorFlow and JAX backends of Keras. This is "
            f"{keras.config.backend()!r}: set KERAS_BACKEND before importing keras."
        )
    from keras_acclip.noise.engines.tensorflow import suitable_sweep, tnp

    return tnp, suitable_sweep()


def _of_keras_3(model: Any, training: bool) -> Backend:
    from keras_acclip.noise.engines.gradients import Keras3Gradient

    loss = CompiledLoss(model, training)
    return _on_tensorflow(loss, Keras3Gradient(loss))


def _of_keras_2(model: Any, training: bool) -> Backend:
    from keras_acclip.noise.engines.gradients import Keras2Gradient

    loss = LegacyLoss(model, training)
    return _on_tensorflow(loss, Keras2Gradient(loss))


def _of_loop(model: Any, gradient: GradientFunction) -> Backend:
    from keras_acclip.noise.engines.gradients import LoopGradient

    source = LoopGradient(model, gradient)
    return _on_tensorflow(source, source)


def _on_tensorflow(loss: Loss, source: TensorFlowSource) -> Backend:
    from keras_acclip.noise.engines.tensorflow import TensorFlowEngine, suitable_sweep

    return Backend(loss, suitable_sweep, functools.partial(TensorFlowEngine, source))


def _on_jax(model: Any, training: bool) -> Backend:
    from keras_acclip.noise.engines.jax import JaxEngine, suitable_sweep

    loss = CompiledLoss(model, training)
    return Backend(loss, suitable_sweep, functools.partial(JaxEngine, loss))
