"""Cost of measuring gradient noise, against plain evaluations of the same batches' gradients.

    python benchmarks/noise_cost.py
    KERAS_BACKEND=jax python benchmarks/noise_cost.py --batch-sizes 8

The model is a BERT with its masked-language-model head (KerasHub), dropout on. "plain" computes
loss and gradient of each batch in one XLA computation that stores the gradient and returns the
loss; "sketch" and "exact" are the two methods of `measure_noise`, from first batch to finished
sample. All take turns, so that a drift of the machine's speed meets all alike; compilation is not
counted.

Columns: the median time a batch with its quartiles, and the median over turns of the ratio to plain
in the same turn. Below them, for a model of large matrices and few activations, the memory needed
beyond the model, in units of the gradient's size: the sum of the gradients, the gradient, and what
XLA plans for its temporary arrays.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import keras_hub
import numpy as np

from keras_acclip.noise.batches import open_batches
from keras_acclip.noise.sampling import NoiseMeter


def make_model(options):
    """Returns a compiled BERT for masked language modelling."""
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=options.vocabulary,
        num_layers=options.layers,
        num_heads=max(1, options.hidden // 64),
        hidden_dim=options.hidden,
        intermediate_dim=4 * options.hidden,
        max_sequence_length=options.length,
    )
    model = keras_hub.models.BertMaskedLM(backbone, preprocessor=None)
    model.compile(optimizer="sgd", jit_compile=True)
    return model


def make_batches(options, size):
    """Returns random tokens, an eighth of them to predict: a list of `(x, y, sample_weight)`."""
    rng = np.random.default_rng(0)
    masks = options.length // 8

    def batch():
        shape = (size, options.length)
        x = {
            "token_ids": rng.integers(0, options.vocabulary, shape, "int32"),
            "segment_ids": np.zeros(shape, "int32"),
            "padding_mask": np.ones(shape, "int32"),
            "mask_positions": np.sort(rng.integers(0, options.length, (size, masks), "int32")),
        }
        y = rng.integers(0, options.vocabulary, (size, masks), "int32")
        return x, y, np.ones((size, masks), "float32")

    return [batch() for _ in range(options.batches)]


def plain_on_tensorflow(model):
    """Returns a function that evaluates and stores the gradient of each batch."""
    import tensorflow as tf

    variables = [v.value for v in model.trainable_variables]
    stored = [
        tf.Variable(tf.zeros((0,)), shape=tf.TensorShape(None), trainable=False) for _ in variables
    ]

    @tf.function(jit_compile=True, autograph=False)
    def plain_step(x, y, sample_weight):
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x, y, model(x, training=True), sample_weight)
        gradients = tape.gradient(loss, variables, unconnected_gradients="zero")
        for store, gradient in zip(stored, gradients, strict=True):
            store.assign(gradient)
        return loss

    def run(batches):
        for store, variable in zip(stored, variables, strict=True):
            store.assign(tf.zeros(variable.shape))
        for batch in batches:
            float(plain_step(*keras.tree.map_structure(tf.convert_to_tensor, batch)))
        for store in stored:
            store.assign(tf.zeros((0,)))

    return run


def plain_on_jax(model):
    """Returns a function that evaluates and stores the gradient of each batch."""
    import jax

    def plain_step(stored, trainable, non_trainable, metrics, batch):
        x, y, sample_weight = batch

        def loss(trainable):
            y_pred, state, losses = model.stateless_call(
                trainable, non_trainable, x, return_losses=True, training=True
            )
            total, _ = model.stateless_compute_loss(
                trainable, non_trainable, metrics, x, y, y_pred, sample_weight
            )
            return total + sum(losses), state

        (value, state), gradients = jax.value_and_grad(loss, has_aux=True)(trainable)
        return value, state, gradients

    step = jax.jit(plain_step, donate_argnums=0)

    def run(batches):
        trainable = [v.value for v in model.trainable_variables]
        state = [v.value for v in model.non_trainable_variables]
        metrics = [v.value for v in model.metrics_variables]
        stored = [jax.numpy.zeros_like(value) for value in trainable]
        for batch in batches:
            value, state, stored = step(stored, trainable, state, metrics, batch)
            float(value)

    return run


def contestants(model):
    """Returns the functions that take turns, by name; each takes a list of batches."""
    plain = {"tensorflow": plain_on_tensorflow, "jax": plain_on_jax}[keras.config.backend()]

    def measured(method):
        meter = NoiseMeter(model, method=method)

        def run(batches):
            sample = meter.measure(open_batches(batches), len(batches), verbose=0)
            assert sample.settings["method"] == method

        return run

    return {"plain": plain(model), "sketch": measured("sketch"), "exact": measured("exact")}


def compare(options, size):
    """Prints the table's rows for one batch size."""
    keras.utils.set_random_seed(0)
    runs, batches = contestants(make_model(options)), make_batches(options, size)
    for run in runs.values():
        run(batches[:2])
    times = {name: [] for name in runs}
    for _ in range(options.rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run(batches)
            times[name].append((time.perf_counter() - start) / len(batches))
    for name, seconds in times.items():
        low, middle, high = 1e3 * np.quantile(seconds, [0.25, 0.5, 0.75])
        ratio = np.median(np.divide(seconds, times["plain"]))
        spread = f"{middle:.1f} ({low:.1f} to {high:.1f})"
        print(f"{size:>10} {name:<8}{spread:>26}{ratio:>8.2f}", flush=True)


def run_dense(width):
    """Runs each contestant on a model of large matrices and few activations."""
    model = keras.Sequential(
        [keras.Input((width,)), *(keras.layers.Dense(width, use_bias=False) for _ in range(3))]
    )
    model.compile(optimizer="sgd", loss="mse", jit_compile=True)
    batches = [tuple(np.ones(shape, "float32") for shape in ((2, width), (2, width), (2,)))] * 2
    for run in contestants(model).values():
        run(batches)


def compare_memory(width):
    """Prints how much memory XLA plans for each computation, in gradients."""
    print(f"\nmemory beyond the model, three dense layers of {width} x {width}:")
    with tempfile.TemporaryDirectory() as folder:
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_to={folder}"
        subprocess.run(
            [sys.executable, __file__, "--dense", str(width)],
            env=os.environ | {"XLA_FLAGS": flags},
            check=True,
            stderr=subprocess.DEVNULL,
        )
        # The sum of the gradients, and for "exact" the gradient that its second pass returns.
        for name, step, held in (("sketch", "_absorb_step", 1), ("exact", "_gradient_step", 2)):
            reports = [p.read_text() for p in Path(folder).glob(f"*{step}*buffer-assignment.txt")]
            sizes = [re.findall(r"size (\d+), preallocated-temp", report) for report in reports]
            largest = max(int(size) for found in sizes for size in found)
            print(f"{name:>19}{held + largest / (12 * width**2):>8.2f} gradients", flush=True)


def main(argv=None):
    """Reads the options and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--layers", type=int, default=4, help="(default: %(default)s)")
    add("--hidden", type=int, default=256, help="(default: %(default)s)")
    add("--vocabulary", type=int, default=8192, help="(default: %(default)s)")
    add("--length", type=int, default=128, help="tokens a row (default: %(default)s)")
    add("--batch-sizes", type=int, nargs="*", default=[1, 8, 16], help="(default: %(default)s)")
    add("--batches", type=int, default=6, help="batches a turn (default: %(default)s)")
    add("--rounds", type=int, default=7, help="turns (default: %(default)s)")
    add("--width", type=int, default=4096, help="of the dense layers (default: %(default)s)")
    add("--dense", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.dense:
        run_dense(options.dense)
        return
    model = make_model(options)
    print(
        f"BERT: {options.layers} layers, hidden {options.hidden}, {model.count_params():,} "
        f"parameters, {options.length} tokens; Keras {keras.__version__} on "
        f"{keras.config.backend()}, {os.cpu_count()} cores\n"
        f"{'batch size':>10} {'method':<8}{'ms a batch (quartiles)':>26}{'ratio':>8}"
    )
    for size in options.batch_sizes:
        compare(options, size)
    compare_memory(options.width)


if __name__ == "__main__":
    main()
