"""Trains the Transformer-XL with an optimizer of Keras 2, from the start or where it was."""

import functools
import math
import time

import numpy as np
import tensorflow as tf
import tf_keras

import keras_acclip.tf_keras as clipping
from keras_acclip._utils.files import write_atomically

from ..plans import name_of, run_of
from ..training import WarmupLinearDecay
from .model import build_model
from .text import training_segments, validation_segments


def make_optimizer(rule, settings):
    """The optimizer of a spec's name and betas; its learning rate is set at each step."""
    keras, rate, momentum = tf_keras.optimizers, 0.0, rule.momentum()
    return {
        "sgd": lambda: keras.SGD(rate, momentum=momentum),
        "gclip": lambda: clipping.GClip(rate, settings["gclip_threshold"], momentum=momentum),
        "cclip": lambda: clipping.CClip(rate, settings["cclip_threshold"], momentum=momentum),
        "adam": lambda: keras.Adam(rate, **rule.betas),
        "acclip": lambda: clipping.ACClip(rate, **rule.betas),
    }[rule.optimizer]()


class Trainer:
    """A model and an optimizer whose step is traced and compiled once for all their runs.

    Args:
        rule: A spec, of which the optimizer, a key of `RATES`, and the betas count.
        vocabulary_size: Number of tokens.
        settings: The values of `SCALES`.
        jit: Whether XLA compiles the step and the validation.
    """

    def __init__(self, rule, vocabulary_size, settings, jit):
        self.build_model = functools.partial(build_model, vocabulary_size, settings)
        self.settings = settings
        self.model, self.optimizer = self.build_model(0), make_optimizer(rule, settings)
        # The attention to segments is XLNet's; nothing here has a gradient with respect to it.
        unused = self.model.transformer.segment_attention_bias
        self.trained = [v for v in self.model.trainable_variables if v is not unused]
        self.optimizer.build(self.trained)
        self.fresh_slots = [variable.numpy() for variable in self.optimizer.variables]
        self.step = tf.function(self.step, jit_compile=jit)
        self.loss = tf.function(self.loss, jit_compile=jit)

    def loss(self, tokens, memory, remembered, training=False):
        """Mean cross-entropy of a segment's predictions in nats, and the new memory."""
        logits, memory = self.model(tokens[:, :-1], memory, remembered, training=training)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tokens[:, 1:], logits)
        return tf.reduce_mean(losses), memory

    def step(self, tokens, memory, remembered, rate):
        """One step of the optimizer at that rate. Returns loss and new memory."""
        with tf.GradientTape() as tape:
            loss, memory = self.loss(tokens, memory, remembered, training=True)
        gradients = tape.gradient(loss, self.trained)
        self.optimizer.learning_rate.assign(rate)
        self.optimizer.apply_gradients(zip(gradients, self.trained, strict=True))
        return loss, memory

    def validate(self, segments):
        """Mean loss over contiguous segments, with memory."""
        memory, losses = self.model.empty_memory(), []
        for number, tokens in enumerate(segments):
            loss, memory = self.loss(tokens, memory, self.remembered(number))
            losses.append(float(loss))
        return float(np.mean(losses))

    def remembered(self, number):
        """How many tokens the memory holds before the segment of that number."""
        past = number * self.settings["target_length"]
        return tf.constant(min(past, self.settings["memory_length"]))

    @property
    def variables(self):
        """All that a step changes, but for the memory."""
        return [*self.model.weights, *self.optimizer.variables]

    def start(self, seed):
        """Sets weights and slots as at the beginning of a run. Returns the memory."""
        weights = self.build_model(seed).get_weights()
        for variable, value in zip(self.variables, weights + self.fresh_slots, strict=True):
            variable.assign(value)
        return self.model.empty_memory()

    def save(self, path, memory):
        """Writes weights, slots and memory."""
        values = [*self.variables, *memory]
        write_atomically(path, lambda file: np.savez(file, *(value.numpy() for value in values)))

    def restore(self, path):
        """Sets weights and slots as they were saved. Returns the memory."""
        with np.load(path) as arrays:
            values = list(arrays.values())
        for variable, value in zip(self.variables, values, strict=False):
            variable.assign(value)
        return [tf.constant(value) for value in values[len(self.variables) :]]


@functools.lru_cache(maxsize=1)  # A plan has an optimizer's runs one after another.
def trainer_of(rule, vocabulary_size, settings, jit):
    """The `Trainer` of these arguments, the settings as a tuple of pairs."""
    return Trainer(rule, vocabulary_size, dict(settings), jit)


def train(spec, text, work, jit):
    """One run, from its start or from the last epoch that it finished.

    Args:
        spec: The optimizer, a key of `RATES`, and its betas; the schedule's peak; the seed of the
            initial weights, the documents' order and the dropout.
        text: A `text.Text`.
        work: The `resuming.Work`; its settings are the numbers to use.
        jit: Whether XLA compiles the step.

    Returns:
        The run, as `comparison` takes it.
    """
    name, settings = name_of(spec), work.settings
    done, epochs = len(work.rows(name)), settings["epochs"]
    if done == epochs:
        return run_of(spec, work.finish(name))
    per_epoch = settings["steps"] // epochs
    trainer = trainer_of(spec.rule, text.vocabulary_size, tuple(settings.items()), jit)
    memory = trainer.start(spec.seed)
    if done:
        memory = trainer.restore(work.state(name))
    schedule = WarmupLinearDecay(spec.rate, settings["warmup"], settings["steps"])
    rates = np.asarray(schedule(np.arange(settings["steps"])))
    segments = training_segments(text.train, settings, spec.seed, done * per_epoch)
    held_out = validation_segments(text.validation, settings)
    for epoch in range(done, epochs):
        started = time.perf_counter()
        losses = []
        for step in range(epoch * per_epoch, (epoch + 1) * per_epoch):
            number, tokens = next(segments)
            remembered = trainer.remembered(number)
            loss, memory = trainer.step(tokens, memory, remembered, tf.constant(rates[step]))
            losses.append(loss)
        losses = np.array(losses)
        trained = time.perf_counter()
        held_out_loss = trainer.validate(held_out)
        tokens = per_epoch * settings["batch_size"] * settings["target_length"]
        row = {"step": (epoch + 1) * per_epoch, "loss": float(losses.mean())}
        row |= {"val_loss": held_out_loss, "tokens_per_second": tokens / (trained - started)}
        row |= {"seconds": time.perf_counter() - started}
        row |= {"perplexity": perplexity(row["loss"]), "val_perplexity": perplexity(held_out_loss)}
        work.add(name, row, functools.partial(trainer.save, memory=memory))
    return run_of(spec, work.finish(name))


def perplexity(loss):
    """The perplexity of a cross-entropy in nats; infinite where that is too large."""
    return math.exp(loss) if loss < 700 else math.inf
