"""Cost of measuring gradient noise, against plain evaluations of the same batches' gradients.

    python benchmarks/noise_cost.py
    KERAS_BACKEND=jax python benchmarks/noise_cost.py --batch-sizes 8

The model is a BERT with its masked-language-model head (KerasHub), dropout on. "plain" computes
loss and gradient of each batch in one XLA computation that stores the gradient and returns the
loss; "sketch" and "exact" are the two methods of `measure_noise`, from first batch to finished
sample. "training" takes training steps with ACClip, "followed" the same while `GradientNoise()`
follows them; its ratio is to "training". All take turns, so that a drift of the machine's speed
meets all alike; compilation is not counted. Ctrl-C ends a race early, with the rows of the turns
taken so far.

Columns: the median time a batch with its quartiles, and the median over turns of the ratio to plain
(of "followed" to "training") in the same turn. Below them, for a model of large matrices and few
activations, the memory needed beyond the model, in units of the gradient's size: the sum of the
gradients, the gradient, and what XLA plans for its temporary arrays.
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

from keras_acclip._utils.commands import Parser, positive, to_path

# What the two methods compute in their last pass, as XLA names it, and how many gradients they hold
# beside its temporary arrays: their sum and, where it is returned, the gradient.
PASSES = {
    "tensorflow": {"sketch": ("_absorb_step", 1), "exact": ("_gradient_step", 2)},
    "jax": {"sketch": ("_absorb_step", 1), "exact": ("_deviate_step", 1)},
}

Run = Callable[[list[Any]], None]


def make_model(options: argparse.Namespace, optimizer: Any = "sgd") -> Any:
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
    model.compile(optimizer=optimizer, jit_compile=True)
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


def ways(model: Any) -> dict[str, Run]:
    """Returns the functions that take turns, by name; each takes a list of batches."""
    from contest import plain
    from keras_acclip.noise import NoiseMeter
    from keras_acclip.noise.data import open_batches

    def measured(method):
        meter = NoiseMeter(model, method=method)

        def run(batches):
            sample = meter.measure(open_batches(batches), len(batches), verbose=0)
            assert sample.settings["method"] == method

        return run

    return {
        "plain": plain.gradients(model),
        "sketch": measured("sketch"),
        "exact": measured("exact"),
    }


def trainings(options: argparse.Namespace) -> dict[str, Run]:
    """Returns functions that train on a list of batches, without and with `GradientNoise()`."""
    from keras_acclip import ACClip
    from keras_acclip.noise.online import OnlineNoise

    def training(followed):
        model = make_model(options, ACClip(1e-4))
        if followed:
            OnlineNoise(num_batches=256, groups=None, seed=0, batch_size=None).begin(model)

        def run(batches):
            for batch in batches:
                model.train_on_batch(*batch)

        return run

    return {"training": training(False), "followed": training(True)}


def compare(options: argparse.Namespace, size: int) -> list[dict[str, Any]]:
    """Prints the table's rows for one batch size, and returns them."""
    import keras

    from contest.race import Contestant, quartiles, race, ratio

    keras.utils.set_random_seed(0)
    runs = ways(make_model(options)) | trainings(options)
    batches = make_batches(options, size)
    contestants = [
        Contestant(name, f"batches of {size}", functools.partial(run, batches), steps=len(batches))
        for name, run in runs.items()
    ]
    race(contestants, options.rounds)
    rows = []
    seconds = {c.method: c.seconds for c in contestants}
    for c in contestants:
        low, middle, high = (1e3 * s for s in quartiles(c.seconds))
        to_plain = ratio(c.seconds, seconds["training" if c.method == "followed" else "plain"])
        to_plain = to_plain or []
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
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--layers", type=positive, default=4, help="(default: %(default)s)")
    add("--hidden", type=positive, default=256, help="(default: %(default)s)")
    add("--vocabulary", type=positive, default=8192, help="(default: %(default)s)")
    add("--length", type=positive, default=128, help="tokens a row (default: %(default)s)")
    add(
        "--batch-sizes", type=positive, nargs="*", default=[1, 8, 16], help="(default: %(default)s)"
    )
    add("--batches", type=positive, default=6, help="batches a turn (default: %(default)s)")
    add("--rounds", type=positive, default=7, help="turns (default: %(default)s)")
    add("--width", type=positive, default=4096, help="of the dense layers (default: %(default)s)")
    add("--output", type=to_path, metavar="FILE", help="a JSON file for the results")
    add("--dense", type=positive, help=argparse.SUPPRESS)
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
        keys = ("batch_size", "method", "ms")
        summary = [{k: row[k] for k in keys} | {"to_plain": row["to_plain"][1]} for row in rows]
        content |= {"parameters": parameters, "rows": rows, "memory_gradients": memory}
        report.write(options.output, content | {"summary": summary})


if __name__ == "__main__":
    main()
