"""The gradient of a batch on TensorFlow: of Keras 3, of Keras 2, of a training loop of one's own.

Each class says what an engine needs to know of its kind of model: where the random numbers start,
the gradient, and which variables an evaluation may write.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import tensorflow as tf

from keras_acclip._utils.typing import Array, Gradient, Variable
from keras_acclip.noise.engines.base import Batch, GradientFunction
from keras_acclip.noise.engines.losses import CompiledLoss, LegacyLoss

if TYPE_CHECKING:
    import tf_keras

Gradients: TypeAlias = tuple[Array, list[Array], list[Array]]
"""The loss, a float32 gradient for each variable, and the next seeds."""


class TensorFlowSource(Protocol):
    """What a `TensorFlowEngine` takes gradients of."""

    model: Any

    @property
    def variables(self) -> list[Variable]:
        """The variables to differentiate by."""
        ...

    @property
    def scale(self) -> float:
        """What the loss is multiplied by before differentiation, at the present step."""
        ...

    def seeds(self) -> list[Array]:
        """The seeds of the first batch."""
        ...

    def gradient(self, seeds: list[Array], scale: Array, batch: Batch) -> Gradients:
        """The loss of a batch, `scale` times its gradient, and the seeds of the next one."""
        ...

    def may_write(self, variable: tf.Variable) -> bool:
        """Whether an evaluation may write a variable that it reads."""
        ...

    def written(self) -> list[tf.Variable]:
        """The variables that an evaluation may write, as far as they are known beforehand."""
        ...


class Keras3Gradient:
    """Gradients of the compiled loss of a Keras 3 model.

    Args:
        loss: The loss; its model is built.
    """

    def __init__(self, loss: CompiledLoss) -> None:
        self._loss = loss
        self.model = loss.model

    @property
    def variables(self) -> list[Variable]:
        """The model's trainable variables."""
        return self._loss.variables

    @property
    def scale(self) -> float:
        """The optimizer's loss scale."""
        return self._loss.scale

    def seeds(self) -> list[Array]:
        """The model's present seeds."""
        return [tf.convert_to_tensor(seed.value) for seed in self._loss.seeds]

    def gradient(self, seeds: list[Array], scale: Array, batch: Batch) -> Gradients:
        """The loss of a batch, `scale` times its gradient, and the seeds of the next one."""
        sources = [tf.convert_to_tensor(variable.value) for variable in self.variables]

        def evaluate() -> tuple[Array, list[Array]]:
            weights = zip(self.variables, sources, strict=True)
            pairs = [*weights, *zip(self._loss.seeds, seeds, strict=True)]
            return self._loss.evaluate(pairs, batch)

        return _differentiated(evaluate, sources, scale)

    def may_write(self, variable: tf.Variable) -> bool:
        """Keras writes none of the model's own, which `StatelessScope` guards."""
        own = (v.value for v in self.model.variables)
        return not (variable.trainable or any(variable is value for value in own))

    def written(self) -> list[tf.Variable]:
        """None that is known beforehand."""
        return []


class Keras2Gradient:
    """Gradients of the compiled loss of a Keras 2 (`tf_keras`) model.

    Args:
        loss: The loss; its model is built.
    """

    def __init__(self, loss: LegacyLoss) -> None:
        self._loss = loss
        self.model = loss.model

    @property
    def variables(self) -> list[Variable]:
        """The model's trainable variables."""
        return self._loss.variables

    @property
    def scale(self) -> float:
        """The optimizer's loss scale."""
        return self._loss.scale

    def seeds(self) -> list[Array]:
        """The same for every measurement: Keras 2 keeps no seed that could be read."""
        return _first_seeds()

    def gradient(self, seeds: list[Array], scale: Array, batch: Batch) -> Gradients:
        """The loss of a batch, `scale` times its gradient, and the seeds of the next one."""

        def evaluate() -> tuple[Array, list[Array]]:
            return self._loss.evaluate(seeds[0], batch), _next_seeds(seeds)

        return _differentiated(evaluate, self.variables, scale)

    def may_write(self, variable: tf.Variable) -> bool:
        """All that isn't trained."""
        return not variable.trainable

    def written(self) -> list[tf.Variable]:
        """Everything of the model and its metrics that isn't trained."""
        return _untrained(self.model)


class LoopGradient:
    """What a training loop of one's own hands to its optimizer, for a Keras 2 (`tf_keras`) model.

    Args:
        model: A `tf_keras.Model` that has its variables.
        function: `gradient(batch, seed)`, as `NoiseMeter` describes it.
    """

    built = True
    scale = 1.0

    def __init__(self, model: tf_keras.Model, function: GradientFunction) -> None:
        self.model: Any = model
        self._function = function

    @property
    def variables(self) -> list[Variable]:
        """The model's trainable variables."""
        return self.model.trainable_variables

    def build(self, batch: Batch) -> None:
        """Does nothing: the model has its variables."""

    def seeds(self) -> list[Array]:
        """The same for every measurement."""
        return _first_seeds()

    def gradient(self, seeds: list[Array], scale: Array, batch: Batch) -> Gradients:
        """The loss of a batch, `scale` times its gradient, and the seeds of the next one."""
        loss, gradients = self._function(batch, seeds[0])
        scaled = [
            scale
            * _dense(tf.zeros(variable.shape) if gradient is None else gradient, variable.shape)
            for gradient, variable in zip(gradients, self.variables, strict=True)
        ]
        return tf.cast(loss, tf.float32), scaled, _next_seeds(seeds)

    def may_write(self, variable: tf.Variable) -> bool:
        """All that isn't trained."""
        return not variable.trainable

    def written(self) -> list[tf.Variable]:
        """Everything of the model and its metrics that isn't trained."""
        return _untrained(self.model)


def _differentiated(
    evaluate: Callable[[], tuple[Array, list[Array]]], sources: Sequence[Array], scale: Array
) -> Gradients:
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(sources)
        loss, seeds = evaluate()
        loss = tf.cast(loss, tf.float32)
        scaled = loss * scale
    gradients = tape.gradient(scaled, sources, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    dense = [_dense(g, source.shape) for g, source in zip(gradients, sources, strict=True)]
    return loss, dense, seeds


def _dense(gradient: Gradient, shape: tf.TensorShape) -> Array:
    """A gradient as a float32 tensor of its variable's static shape, whatever it came as."""
    return tf.ensure_shape(tf.cast(tf.convert_to_tensor(gradient), tf.float32), shape)


def _first_seeds() -> list[Array]:
    return [tf.zeros((2,), tf.int32)]


def _next_seeds(seeds: list[Array]) -> list[Array]:
    return [seeds[0] + [1, 0]]


def _untrained(model: Any) -> list[tf.Variable]:
    metrics = [v for metric in model.metrics for v in metric.variables]
    # Keras 2 lists the vocabulary of a lookup layer among the variables, which is none.
    kept = [v for v in [*model.variables, *metrics] if hasattr(v, "trainable")]
    return [v for v in kept if not v.trainable]
