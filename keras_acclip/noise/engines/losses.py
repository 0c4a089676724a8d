"""A compiled model's training loss as a function of its weights that changes nothing else."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras

from keras_acclip._utils import compat
from keras_acclip._utils.typing import Array, Variable
from keras_acclip.noise.engines.base import Batch

if TYPE_CHECKING:
    import tf_keras


class CompiledLoss:
    """The loss that `fit` differentiates, for a Keras 3 model on TensorFlow or JAX.

    Sample weights, regularization, `add_loss` and an overridden `compute_loss` are in it. It runs
    in a `keras.StatelessScope`, so that no variable of the model, its metrics or its optimizer is
    written. Dropout draws from `seeds`, everything else reads the model's present state.

    Args:
        model: A compiled `keras.Model`.
        training: Whether layers run in training mode.
    """

    def __init__(self, model: keras.Model, training: bool = True) -> None:
        self.model: Any = model
        self.training = training

    @property
    def variables(self) -> list[Variable]:
        """The variables to differentiate by: the trainable ones that the optimizer knows."""
        return _trained(self.model)

    @property
    def seeds(self) -> list[Variable]:
        """The states of the model's seed generators: a list of variables."""
        return compat.seed_states(self.model)

    @property
    def scale(self) -> float:
        """What the optimizer multiplies the loss by before differentiation."""
        optimizer = self.model.optimizer
        return 1.0 if optimizer is None else float(optimizer.scale_loss(keras.ops.ones(())))

    @property
    def built(self) -> bool:
        """Whether the model has its variables."""
        return self.model.built

    def build(self, batch: Batch) -> None:
        """Creates the model's variables, as its first call would."""
        if not self.built:
            x = keras.tree.map_structure(
                lambda leaf: None if leaf is None else keras.KerasTensor(leaf.shape, leaf.dtype),
                batch[0],
            )
            self._call(x)

    def evaluate(
        self, values: Sequence[tuple[Variable, Array]], batch: Batch
    ) -> tuple[Array, list[Array]]:
        """Returns the loss of a batch, a scalar, and the next seeds.

        Args:
            values: Pairs `(variable, value)`: the values that variables take, weights and seeds
                included.
            batch: `(x, y, sample_weight)`.
        """
        x, y, sample_weight = batch
        with keras.StatelessScope(values, collect_losses=True) as scope:
            y_pred = self._call(x)
            loss = self.model.compute_loss(
                x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, **self._mode("compute_loss")
            )
        return loss, [scope.get_current_value(seed) for seed in self.seeds]

    def _call(self, x: Any) -> Any:
        return self.model(x, **self._mode("call"))

    def _mode(self, method: str) -> dict[str, bool]:
        takes = inspect.signature(getattr(self.model, method)).parameters
        return {"training": self.training} if "training" in takes else {}


class LegacyLoss:
    """The loss that `fit` differentiates, for a Keras 2 (`tf_keras`) model.

    Keras 2 has no scope that keeps layers and metrics from writing their variables: put back what
    `evaluate` writes. Its random layers draw from `seed`, and their generators stay as they are.

    Args:
        model: A compiled `tf_keras.Model`.
        training: Whether layers run in training mode.
    """

    def __init__(self, model: tf_keras.Model, training: bool = True) -> None:
        self.model: Any = model
        self.training = training

    @property
    def variables(self) -> list[Variable]:
        """The variables to differentiate by: the trainable ones that the optimizer knows."""
        return _trained(self.model)

    @property
    def scale(self) -> float:
        """What the optimizer multiplies the loss by before differentiation."""
        return float(getattr(self.model.optimizer, "loss_scale", None) or 1.0)

    @property
    def built(self) -> bool:
        """Whether the model has its variables."""
        return self.model.built

    def build(self, batch: Batch) -> None:
        """Creates the model's variables, as its first call would, without running it."""
        import tensorflow as tf

        if not self.built:
            forward = tf.function(self._call, autograph=False)
            forward.get_concrete_function(batch[0], tf.zeros((2,), tf.int32))

    def evaluate(self, seed: Array, batch: Batch) -> Array:
        """Returns the loss of a batch, a scalar.

        Args:
            seed: Seed of the random layers: int32, shape `(2,)`.
            batch: `(x, y, sample_weight)`.
        """
        x, y, sample_weight = batch
        return self.model.compute_loss(x, y, self._call(x, seed), sample_weight)

    def _call(self, x: Any, seed: Array) -> Any:
        with compat.seeded_layers(self.model, seed):
            return self.model(x, training=self.training)


def _trained(model: Any) -> list[Variable]:
    """A model's trainable variables without those of layers unfrozen since its first step.

    `fit` trains these only after the model is compiled again.
    """
    variables = model.trainable_variables
    return [v for v in variables if compat.knows(model.optimizer, v)] or variables
