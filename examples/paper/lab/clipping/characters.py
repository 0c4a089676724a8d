"""A small Transformer that predicts characters, with outliers among its batches."""

import math

import numpy as np
import tensorflow as tf

from .character_model import BATCH, CHARACTERS, HELD_OUT, OUTLIERS, build_model, text_rows
from .contestants import make_optimizer


class Characters:
    """Trains on batches of which some have one wrong character for all labels.

    Args:
        steps: Steps of a training.
        contestant: What `contestants.make_optimizer` takes.
        **settings: The same.
    """

    def __init__(self, steps, contestant, **settings):
        import keras

        self._steps = steps
        rows = text_rows()
        self._held_out, self._rows = rows[:HELD_OUT], rows[HELD_OUT:]
        self._model = build_model()
        inner = keras.optimizers.AdamW(1e-3, weight_decay=0.01)
        self._optimizer = make_optimizer(inner, contestant, **settings)
        self._optimizer.build(self._model.trainable_variables)
        # The rate and a fixed threshold are set; all else starts at these values.
        self._first = [np.array(v) for v in self._optimizer.variables]
        self._loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self._step = tf.function(self._take, jit_compile=True, autograph=False)

    def error(self, seed, rate, threshold=None, scale=1.0):
        """The held-out loss after training, in nats a character; infinite if it diverged.

        Args:
            seed: Of initial weights, batches and outliers.
            rate: The first learning rate; it falls linearly to 0.
            threshold: Of a fixed threshold, the value.
            scale: Factor on the loss.
        """
        import keras

        keras.utils.set_random_seed(seed)
        fresh = keras.models.clone_model(self._model)
        self._model.set_weights(fresh.get_weights())
        for variable, value in zip(self._optimizer.variables, self._first, strict=True):
            variable.assign(value)
        if threshold is not None:
            self._optimizer.threshold = threshold
        rng = np.random.default_rng(seed)
        wrong = rng.random(self._steps) < OUTLIERS
        for k in range(self._steps):
            batch = self._rows[rng.integers(len(self._rows), size=BATCH)]
            x, y = batch[:, :-1], batch[:, 1:]
            if wrong[k]:
                y = np.full_like(y, rng.integers(CHARACTERS))
            self._optimizer.learning_rate = rate * (1 - k / self._steps)
            self._step(tf.constant(x), tf.constant(y), tf.constant(scale))
        logits = self._model.predict(self._held_out[:, :-1], batch_size=256, verbose=0)
        loss = float(self._loss(self._held_out[:, 1:], logits))
        return loss if math.isfinite(loss) else math.inf

    def _take(self, x, y, scale):
        with tf.GradientTape() as tape:
            loss = self._loss(y, self._model(x, training=True)) * scale
        variables = self._model.trainable_variables
        gradients = tape.gradient(loss, [v.value for v in variables])
        self._optimizer.apply(gradients, variables)
