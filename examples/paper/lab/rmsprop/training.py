"""Trains the small BERT with either step size and measures their ratio on the way."""

import functools
import math
import time

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_acclip._utils import compat

from .. import bert, masked_lm
from ..plans import name_of, run_of
from ..training import WarmupLinearDecay, fit_in_stages
from .step_sizes import STEPS, distribution, group_of

STAGES = 9  # From the start to the end of training, ever further apart.


@keras.saving.register_keras_serializable(package="keras_acclip_examples")
class StepSize(keras.optimizers.Optimizer):
    """RMSProp as the paper writes it, or the clipping that it stands beside.

    Args:
        learning_rate: α, or its schedule.
        step: A name in `STEPS`.
        beta_2: β2.
        epsilon: ε.
    """

    def __init__(self, learning_rate, step, beta_2, epsilon, **kwargs):
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.step, self.beta_2, self.epsilon = step, beta_2, epsilon

    def build(self, variables):
        """Makes v, the mean square of the gradients, for each variable."""
        if not self.built:
            super().build(variables)
            self.mean_squares = [
                self.add_variable_from_reference(variable, "mean_square") for variable in variables
            ]

    def update_step(self, gradient, variable, learning_rate):
        """One step: x ← x − h·g, then v ← β2·v + (1−β2)·g²."""
        rate, g = ops.cast(learning_rate, variable.dtype), tf.convert_to_tensor(gradient)
        v = self.mean_squares[compat.variable_index(self, variable)]
        step = STEPS[self.step](v, g, rate, self.beta_2, self.epsilon, ops)
        self.assign_sub(variable, step * g)
        self.assign(v, self.beta_2 * v + (1 - self.beta_2) * g * g)

    def get_config(self):
        """The arguments, as Keras wants them."""
        own = {"step": self.step, "beta_2": self.beta_2, "epsilon": self.epsilon}
        return super().get_config() | own


def follow(spec, rows, work, verbose):
    """Trains the BERT with one of `STEPS` and measures the ratio along the way, or goes on.

    Args:
        spec: A name in `STEPS`; the schedule's peak; the seed of the initial weights and the
            training batches.
        rows: `token_rows.TokenRows`.
        work: The `resuming.Work`; its settings are the numbers to use.
        verbose: As in `model.fit`.

    Returns:
        The run, as `comparison` takes it; its history has a row for each stage.
    """
    (step, rate, seed), name, settings = spec[:3], name_of(spec), work.settings
    stages = measured_steps(settings["steps"])
    if len(work.rows(name)) == len(stages):
        return run_of(spec, work.finish(name))
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = bert.build_model(len(rows.vocabulary), settings)
    constants = settings["beta_2"], settings["epsilon"]
    schedule = WarmupLinearDecay(rate, settings["warmup"], settings["steps"])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(StepSize(schedule, step, *constants), loss, jit_compile=settings["steps"] > 100)
    variables = model.trainable_variables
    model.optimizer.build(variables)
    groups = np.concatenate([np.full(math.prod(v.shape), group_of(v.path)) for v in variables])
    data = len(rows.vocabulary), settings["batch_size"]
    batches = functools.partial(masked_lm.training_batches, rows.train, *data, seed)
    held_out = masked_lm.validation_batches(rows.validation, *data, settings["validation_rows"])
    gradient = tf.function(functools.partial(flat_gradient, model))
    started = time.perf_counter()

    def measure(number):
        nonlocal started
        ((inputs, labels),) = batches(number, number + 1)
        g = gradient(inputs, labels).numpy()
        v = flat(model.optimizer.mean_squares).numpy()
        row = distribution(v, g, groups, *constants)
        row["val_loss"] = float(model.evaluate(held_out, verbose=0, return_dict=True)["loss"])
        row["seconds"], started = time.perf_counter() - started, time.perf_counter()
        low, *_, high = row["quantiles"]
        print(f"{step}, seed {seed}, step {number:,}: ratio {low:.6f} to {high:.6f}", flush=True)
        return row

    history = fit_in_stages(model, stages, batches, measure, work, name, verbose)
    return run_of(spec, history)


def measured_steps(steps):
    """The stages of so many steps: 0, 1, the last, and some between, ever further apart."""
    apart = np.unique(np.geomspace(1, steps, STAGES - 1).round().astype(int))
    return [0, *apart.tolist()]


def flat_gradient(model, inputs, labels):
    """The gradient of a batch's loss, all variables in one row."""
    with tf.GradientTape() as tape:
        outputs = model(inputs, training=True)
        loss = model.compute_loss(x=inputs, y=labels, y_pred=outputs, training=True)
    return flat(tape.gradient(loss, [v.value for v in model.trainable_variables]))


def flat(tensors):
    """Tensors as one row."""
    return tf.concat([tf.reshape(tf.convert_to_tensor(tensor), [-1]) for tensor in tensors], 0)
