"""A compiled model's training loss as a function of its weights that changes nothing else."""

import contextlib
import inspect
import itertools

import keras


class CompiledLoss:
    """The loss that `fit` differentiates, for a Keras 3 model on TensorFlow or JAX.

    Sample weights, regularization, `add_loss` and an overridden `compute_loss` are in it. It runs
    in a `keras.StatelessScope`, so that no variable of the model, its metrics or its optimizer is
    written. Dropout draws from `seeds`, everything else reads the model's present state.

    Args:
        model: A compiled `keras.Model`.
        training: Whether layers run in training mode.
    """

    def __init__(self, model, training=True):
        self.model = model
        self.training = training

    @property
    def variables(self):
        """The variables to differentiate by: the model's trainable ones, as `fit` has them."""
        return self.model.trainable_variables

    @property
    def seeds(self):
        """The states of the model's seed generators: a list of variables."""
        return [v for v in self.model.variables if v.name == "seed_generator_state"]

    @property
    def scale(self):
        """What the optimizer multiplies the loss by before differentiation, as a float."""
        optimizer = self.model.optimizer
        return 1.0 if optimizer is None else float(optimizer.scale_loss(keras.ops.ones(())))

    def build(self, batch):
        """Creates the model's variables, as its first call would."""
        if not self.model.built:
            x = keras.tree.map_structure(
                lambda leaf: None if leaf is None else keras.KerasTensor(leaf.shape, leaf.dtype),
                batch[0],
            )
            self._call(x)

    def evaluate(self, values, batch):
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

    def _call(self, x):
        return self.model(x, **self._mode("call"))

    def _mode(self, method):
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

    def __init__(self, model, training=True):
        self.model = model
        self.training = training

    @property
    def variables(self):
        """The variables to differentiate by: the model's trainable ones, as `fit` has them."""
        return self.model.trainable_variables

    @property
    def scale(self):
        """What the optimizer multiplies the loss by before differentiation, as a float."""
        return float(getattr(self.model.optimizer, "loss_scale", None) or 1.0)

    def build(self, batch):
        """Creates the model's variables, as its first call would, without running it."""
        import tensorflow as tf

        if not self.model.built:
            forward = tf.function(self._call, autograph=False)
            forward.get_concrete_function(batch[0], tf.zeros((2,), tf.int32))

    def evaluate(self, seed, batch):
        """Returns the loss of a batch, a scalar.

        Args:
            seed: Seed of the random layers: int32, shape `(2,)`.
            batch: `(x, y, sample_weight)`.
        """
        x, y, sample_weight = batch
        return self.model.compute_loss(x, y, self._call(x, seed), sample_weight)

    def _call(self, x, seed):
        with seeded_layers(self.model, seed):
            return self.model(x, training=self.training)


@contextlib.contextmanager
def seeded_layers(model, seed):
    """Lets a Keras 2 model's random layers draw stateless numbers from `seed`, a tensor."""
    import tensorflow as tf

    draws = itertools.count()

    def draw():
        return tf.random.experimental.stateless_fold_in(seed, next(draws))

    before = seed_layers(model, draw)
    try:
        yield
    finally:
        for layer, generator in before.items():
            object.__setattr__(layer, "_random_generator", generator)


def seed_layers(model, draw):
    """Lets a Keras 2 model's random layers draw stateless numbers, from now on.

    Args:
        model: A `tf_keras.Model`.
        draw: A function without arguments that returns a seed, an int32 tensor of shape `(2,)`.

    Returns:
        A dict from the layers to the random generators that they had.
    """
    before = {m: m._random_generator for m in model.submodules if hasattr(m, "_random_generator")}
    for layer, generator in before.items():
        stateless = type(generator)(seed=0, rng_type=generator.RNG_STATELESS)
        stateless.make_seed_for_stateless_op = draw
        # Past Keras, which would track it.
        object.__setattr__(layer, "_random_generator", stateless)
    return before
