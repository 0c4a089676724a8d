"""Linear regression whose targets have noise of Student's t distribution, without a variance."""

import math

import numpy as np
import tensorflow as tf

from .contestants import make_optimizer

FEATURES, BATCH, SPREAD = 20, 8, 1.0


class Regression:
    """Trains by SGD, whose rate falls to 0, and measures the distance from the truth.

    Args:
        freedom: Degrees of freedom of the noise; from 1 to 2 it has a mean and no variance.
        steps: Steps of a training.
        contestant: What `contestants.make_optimizer` takes.
        **settings: The same.
    """

    def __init__(self, freedom, steps, contestant, **settings):
        import keras

        self._freedom, self._steps = freedom, steps
        self._weights = keras.Variable(np.zeros(FEATURES, "float32"))
        self._optimizer = make_optimizer(keras.optimizers.SGD(0.1), contestant, **settings)
        self._optimizer.build([self._weights])
        # The rate and a fixed threshold are set; all else starts at these values.
        self._first = [np.array(v) for v in self._optimizer.variables]
        self._train = tf.function(self._loop, jit_compile=True, autograph=False)

    def error(self, seed, rate, threshold=None, scale=1.0):
        """The logarithm of the final distance over the first; infinite if it diverged.

        Args:
            seed: Of truth, inputs and noise.
            rate: The first learning rate, of the loss as it is: `scale` divides it.
            threshold: Of a fixed threshold, the value.
            scale: Factor on the loss.
        """
        rng = np.random.default_rng([seed, int(10 * self._freedom)])
        truth = rng.standard_normal(FEATURES).astype("float32")
        x = rng.standard_normal((self._steps, BATCH, FEATURES)).astype("float32")
        noise = rng.standard_t(self._freedom, (self._steps, BATCH)) * SPREAD
        y = (x @ truth + noise).astype("float32")
        self._weights.assign(np.zeros(FEATURES, "float32"))
        for variable, value in zip(self._optimizer.variables, self._first, strict=True):
            variable.assign(value)
        if threshold is not None:
            self._optimizer.threshold = threshold
        self._train(tf.constant(x), tf.constant(y), tf.constant(rate / scale), tf.constant(scale))
        distance = np.linalg.norm(np.array(self._weights) - truth) / np.linalg.norm(truth)
        return math.log(distance) if math.isfinite(distance) else math.inf

    def _loop(self, x, y, rate, scale):
        def step(k):
            self._optimizer.learning_rate.assign(
                rate * (1.0 - tf.cast(k, tf.float32) / self._steps)
            )
            inputs = x[k]
            residuals = tf.linalg.matvec(inputs, self._weights.value) - y[k]
            gradient = tf.linalg.matvec(inputs, residuals, transpose_a=True) / BATCH
            self._optimizer.apply([scale * gradient], [self._weights])
            return (k + 1,)

        tf.while_loop(lambda k: k < self._steps, step, [tf.constant(0)])
