"""Predicting the next token with a small GPT-2, by any variant's optimizer."""

import functools
import itertools
import math
import time

import keras
import keras_hub
import numpy as np
import tensorflow as tf

from ..plans import run_of
from ..training import WarmupLinearDecay
from .variants import VARIANTS

HEAD = 32  # Coordinates of an attention head.


class Task:
    """Predicting the next token as a function of one flat vector of weights, compiled for all runs.

    Args:
        rows: `token_rows.TokenRows`.
        settings: The values of `SCALES`.
    """

    def __init__(self, rows, settings):
        self.rows, self.settings = rows, settings
        self.model = self.build(0)
        self.shapes = [tuple(v.shape) for v in self.model.trainable_variables]
        self.fixed = [tf.convert_to_tensor(v) for v in self.model.non_trainable_variables]
        self.cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.compiled_loss = tf.function(self.loss, jit_compile=True)
        self.gradient = tf.function(self.gradient, jit_compile=True)
        self.start = functools.cache(self.start)
        self.held_out = validation_batches(rows.validation, settings)

    def build(self, seed):
        """The model with the initial weights of that seed."""
        keras.utils.set_random_seed(seed)
        return build_model(len(self.rows.vocabulary), self.settings)

    def start(self, seed):
        """The initial weights of that seed: a flat float32 array."""
        return np.concatenate([v.numpy().ravel() for v in self.build(seed).trainable_variables])

    def loss(self, weights, inputs, labels):
        """Mean cross-entropy of a batch's tokens, in nats."""
        parts = tf.split(weights, [math.prod(shape) for shape in self.shapes])
        parts = [tf.reshape(p, shape) for p, shape in zip(parts, self.shapes, strict=True)]
        logits, _ = self.model.stateless_call(parts, self.fixed, inputs, training=True)
        return self.cross_entropy(labels, logits)

    def gradient(self, weights, inputs, labels):
        """A batch's loss, and its gradient: flat like the weights."""
        with tf.GradientTape() as tape:
            tape.watch(weights)
            loss = self.loss(weights, inputs, labels)
        return loss, tape.gradient(loss, weights)

    def validate(self, weights):
        """Mean loss over the held-out rows."""
        sizes = [len(labels) for _, labels in self.held_out]
        losses = [float(self.compiled_loss(weights, *batch)) for batch in self.held_out]
        return float(np.average(losses, weights=sizes))


def build_model(vocabulary_size, settings):
    """A GPT-2 from scratch, without dropout: no row is seen often enough to be learned by heart."""
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=vocabulary_size,
        num_layers=settings["layers"],
        num_heads=settings["hidden"] // HEAD,
        hidden_dim=settings["hidden"],
        intermediate_dim=4 * settings["hidden"],
        dropout=0.0,
        max_sequence_length=settings["sequence_length"],
    )
    return keras_hub.models.GPT2CausalLM(backbone)


def training_batches(rows, batch_size, seed, steps):
    """So many batches, a function of the seed alone; the rows in another order for each pass.

    Args:
        rows: int array of shape `(rows, sequence_length)`.
        batch_size: Rows a batch.
        seed: An int.
        steps: Number of batches.

    Returns:
        Iterator of `inputs_and_labels`'s pairs.
    """
    passes = (np.random.default_rng((seed, p)).permutation(len(rows)) for p in itertools.count())
    order = itertools.chain.from_iterable(passes)
    for _ in range(steps):
        yield inputs_and_labels(rows[list(itertools.islice(order, batch_size))])


def validation_batches(rows, settings):
    """Evenly spread held-out rows, in batches."""
    count = min(settings["validation_rows"], len(rows))
    spread = rows[np.linspace(0, len(rows) - 1, count).astype(int)]
    starts = range(0, count, 4 * settings["batch_size"])
    return [inputs_and_labels(spread[i : i + 4 * settings["batch_size"]]) for i in starts]


def inputs_and_labels(rows):
    """The inputs of KerasHub's `GPT2CausalLM`, and the next tokens: int32 tensors.

    A row's last token is left out: it is always `[SEP]`, so its place gives it away.
    """
    tokens = tf.constant(rows, tf.int32)
    inputs = {"token_ids": tokens[:, :-2], "padding_mask": tf.ones_like(tokens[:, :-2])}
    return inputs, tokens[:, 1:-1]


class Stepper:
    """A variant's optimizer on one flat vector, its step compiled once for all rates and seeds.

    Args:
        rule: A spec, of which the name in `VARIANTS` and the betas count.
        size: Number of weights.
    """

    def __init__(self, rule, size):
        self.weights = keras.Variable(np.zeros(size, "float32"), name="weights")
        self.optimizer = VARIANTS[rule.optimizer].make(rule)
        self.optimizer.build([self.weights])
        self.fresh = [variable.numpy() for variable in self.optimizer.variables]
        self.step = tf.function(self.step, jit_compile=True)

    def start(self, weights):
        """Sets weights and slots as at the beginning of a run."""
        self.weights.assign(weights)
        for variable, value in zip(self.optimizer.variables, self.fresh, strict=True):
            variable.assign(value)

    def step(self, gradient, rate):
        """One step at that rate."""
        self.optimizer.learning_rate.assign(rate)
        self.optimizer.apply([gradient], [self.weights])


def train(spec, task, stepper_of):
    """One run.

    Args:
        spec: A name in `VARIANTS` with its betas; the schedule's peak; the seed of the initial
            weights and the order of the rows.
        task: A `Task`.
        stepper_of: Function from a spec's `rule` to its `Stepper`.

    Returns:
        The run, as `comparison` takes it, with a row for each of its reports. `loss` is the mean
        over the last tenth of the steps so far.
    """
    steps, warmup = task.settings["steps"], task.settings["warmup"]
    interval = steps // task.settings["reports"]
    stepper = stepper_of(spec.rule)
    stepper.start(task.start(spec.seed))
    rates = np.asarray(WarmupLinearDecay(spec.rate, warmup, steps)(np.arange(steps)))
    losses, history, started = [], [], time.perf_counter()
    rows = batch_size(spec.optimizer, task.settings)
    batches = training_batches(task.rows.train, rows, spec.seed, steps)
    for step, (batch, now) in enumerate(zip(batches, rates, strict=True), 1):
        loss, gradient = task.gradient(tf.convert_to_tensor(stepper.weights), *batch)
        stepper.step(gradient, tf.constant(now))
        losses.append(loss)
        if step % interval == 0:
            row = {"step": step, "loss": float(np.mean(np.array(losses[step * 9 // 10 :])))}
            trained = time.perf_counter() - started
            row |= {"val_loss": task.validate(tf.convert_to_tensor(stepper.weights))}
            row |= {"ms_per_step": 1000 * trained / interval}
            row |= {"seconds": time.perf_counter() - started}
            history.append(row)
            started = time.perf_counter()
    return run_of(spec, history)


def batch_size(variant, settings):
    """Rows a batch of a variant."""
    return int(VARIANTS[variant].batch * settings["batch_size"])
