"""Cost of measuring gradient noise, against plain evaluations of the same batches' gradients.

    python benchmarks/noise_cost.py
    KERAS_BACKEND=jax python benchmarks/noise_cost.py --batch-sizes 8

The model is a BERT with its masked-language-model head (KerasHub), dropout on. "plain" computes
loss and gradient of each batch in one XLA computation that stores the gradient and returns the
loss; "sketch" and "exact" are the two methods of `measure_noise`, from first batch to finished
sample. All take turns, so that a drift of the machine's speed meets all alike; compilation is not
counted. Ctrl-C ends a race early, with the rows of the turns taken so far.

Columns: the median time a batch with its quartiles, and the median over turns of the ratio to plain
in the same turn. Below them, for a model of large matrices and few activations, the memory needed
beyond the model, in units of the gradient's size: the sum of the gradients, the gradient, and what
XLA plans for its temporary arrays.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contest.flags import count

# What the two methods compute in their last pass, as XLA names it, and how many gradients they hold
# beside its temporary arrays: their sum and, where it is returned, the gradient.
PASSES = {
    "tensorflow": {"sketch": ("_absorb_step", 1), "exact": ("_gradient_step", 2)},
    "jax": {"sketch": ("_absorb_step", 1), "exact": ("_deviate_step", 1)},
}

Run = Callable[[list[Any]], None]


def make_model(options: argparse.Namespace) -> Any:
    """Returns a compiled BERT for masked language modelling."""
    import keras_hub

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


def make_batches(options: argparse.Namespace, size: int) -> list[Any]:
    """Returns random tokens, an eighth of them to predict: a list of `(x, y, sample_weight)`."""
    import numpy as np

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


def plain_on_tensorflow(model: Any) -> Run:
    """Returns a function that evaluates and stores the gradient of each batch."""
    import keras
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


def plain_on_jax(model: Any) -> Run:
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


def ways(model: Any) -> dict[str, Run]:
    """Returns the functions that take turns, by name; each takes a list of batches."""
    import keras

    from keras_acclip.noise import NoiseMeter
    from keras_acclip.noise.data import open_batches

    plain = {"tensorflow": plain_on_tensorflow, "jax": plain_on_jax}[keras.config.backend()]

    def measured(method):
        meter = NoiseMeter(model, method=method)

        def run(batches):
            sample = meter.measure(open_batches(batches), len(batches), verbose=0)
            assert sample.settings["method"] == method

        return run

    return {"plain": plain(model), "sketch": measured("sketch"), "exact": measured("exact")}


def compare(options: argparse.Namespace, size: int) -> list[dict[str, Any]]:
    """Prints the table's rows for one batch size, and returns them."""
    import keras

    from contest.race import Contestant, quartiles, race, ratio

    keras.utils.set_random_seed(0)
    runs, batches = ways(make_model(options)), make_batches(options, size)
    contestants = [
        Contestant(name, f"batches of {size}", functools.partial(run, batches), steps=len(batches))
        for name, run in runs.items()
    ]
    race(contestants, options.rounds)
    rows = []
    for c in contestants:
        low, middle, high = (1e3 * s for s in quartiles(c.seconds))
        to_plain = ratio(c.seconds, contestants[0].seconds) or []
        spread = f"{middle:.1f} ({low:.1f} to {high:.1f})"
        print(f"{size:>10} {c.method:<8}{spread:>26}{to_plain[1]:>8.2f}", flush=True)
        found = {"ms": middle, "quartiles_ms": [low, high], "to_plain": to_plain}
        rows.append({"batch_size": size, "method": c.method} | found)
    return rows


def run_dense(width: int) -> None:
    """Runs each contestant on a model of large matrices and few activations."""
    import keras
    import numpy as np

    model = keras.Sequential(
        [keras.Input((width,)), *(keras.layers.Dense(width, use_bias=False) for _ in range(3))]
    )
    model.compile(optimizer="sgd", loss="mse", jit_compile=True)
    batches = [tuple(np.ones(shape, "float32") for shape in ((2, width), (2, width), (2,)))] * 2
    for run in ways(model).values():
        run(batches)


def compare_memory(width: int) -> dict[str, float]:
    """Prints how much memory XLA plans for each computation, in gradients, and returns it."""
    print(f"\nmemory beyond the model, three dense layers of {width} x {width}:")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_to={folder}"
        subprocess.run(
            [sys.executable, __file__, "--dense", str(width)],
            env=os.environ | {"XLA_FLAGS": flags},
            check=True,
            stderr=subprocess.DEVNULL,
        )
        for name, (step, held) in PASSES[os.environ["KERAS_BACKEND"]].items():
            reports = [p.read_text() for p in Path(folder).glob(f"*{step}*buffer-assignment.txt")]
            sizes = [re.findall(r"size (\d+), preallocated-temp", report) for report in reports]
            largest = max(int(size) for each in sizes for size in each)
            found[name] = held + largest / (12 * width**2)
            print(f"{name:>19}{found[name]:>8.2f} gradients", flush=True)
    return found


def parsed(argv: list[str] | None) -> argparse.Namespace:
    """The options, checked before anything heavy is imported."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--layers", type=count, default=4, help="(default: %(default)s)")
    add("--hidden", type=count, default=256, help="(default: %(default)s)")
    add("--vocabulary", type=count, default=8192, help="(default: %(default)s)")
    add("--length", type=count, default=128, help="tokens a row (default: %(default)s)")
    add("--batch-sizes", type=count, nargs="*", default=[1, 8, 16], help="(default: %(default)s)")
    add("--batches", type=count, default=6, help="batches a turn (default: %(default)s)")
    add("--rounds", type=count, default=7, help="turns (default: %(default)s)")
    add("--width", type=count, default=4096, help="of the dense layers (default: %(default)s)")
    add("--output", type=Path, metavar="FILE", help="a JSON file for the results")
    add("--dense", type=count, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if os.environ.setdefault("KERAS_BACKEND", "tensorflow") not in PASSES:
        parser.error(f"runs on the Keras backends {' and '.join(PASSES)}")
    if options.batches < 2:
        parser.error("--batches: noise needs two batches or more")
    return options


def main(argv: list[str] | None = None) -> None:
    """Reads the options and prints the table."""
    options = parsed(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if options.dense:
        run_dense(options.dense)
        return
    import keras

    from contest import report

    parameters = make_model(options).count_params()
    content = report.surroundings(keras.config.backend())
    print(
        f"BERT: {options.layers} layers, hidden {options.hidden}, {parameters:,} "
        f"parameters, {options.length} tokens; Keras {keras.__version__} on "
        f"{keras.config.backend()}, {os.cpu_count()} cores\n"
        f"{'batch size':>10} {'method':<8}{'ms a batch (quartiles)':>26}{'ratio':>8}"
    )
    rows = [row for size in options.batch_sizes for row in compare(options, size)]
    memory = compare_memory(options.width)
    if options.output:
        content |= {"parameters": parameters, "rows": rows, "memory_gradients": memory}
        report.write(options.output, content)


if __name__ == "__main__":
    main()
