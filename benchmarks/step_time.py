"""Time and memory of one optimizer step over BERT's variables, beside peers and the memory limit.

    python benchmarks/step_time.py
    python benchmarks/step_time.py --parameters 110M --torch
    python benchmarks/step_time.py --backend jax --parameters 110M 1B --torch

One step applies given float32 gradients to the variables of a BERT: by default BERT-base with 6
layers, 67 million parameters in 106 variables. All contestants take turns, so that a drift of the
machine's speed meets all alike. Ctrl-C ends the race early, with the table of the rounds run so
far.

With TensorFlow there are three modes: eager (`optimizer.apply` as it stands), graph (inside a
`tf.function`) and XLA (inside a `tf.function(jit_compile=True)`). Contestants share the variables,
so that only slots come on top: 6 GB for 6 layers, 9 GB for 12.

With JAX, on a CPU or a GPU and without TensorFlow, a step donates variables and slots, in two
modes: call (a computation a step, called from Python) and loop (10 steps in one computation, the
device's work alone, as in a compiled training step). A third is there for a GPU: concurrent, which
is loop under XLA_FLAGS=--xla_gpu_command_buffer_scheduling_mode=CONCURRENT. A turn is as many steps
as fill 0.05 s. A plain copy of the bytes that ACClip must move, a few sums over its variables that
move as many (bare pass), and optax's Adam where it is installed race too. --one-array tells what it
costs that a model's parameters are many variables. The 1B need 65 GB with PyTorch, 40 GB without.

Columns: the median time with its quartiles; the bytes a parameter that the rule must read or write,
each counted once, and the bandwidth at that; the latter's ratio to the plain copy's; the ratio to
Keras's Adam in the same mode; the ratio to the bound, a multi-threaded C loop that does the same
arithmetic in one pass (two for GClip, whose norm comes first); memory beyond variables and
gradients, the slots and the most that a step needs besides; the time of the first step, which
traces and compiles. A ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
from typing import Any

from contest.methods import METHODS, USUAL
from contest.shapes import SIZES, VOCABULARY, Shape, bert_shapes, parameters_and_gradients
from keras_acclip._utils.commands import Parser, positive, to_path

MODES = {"tensorflow": ["eager", "graph", "XLA"], "jax": ["call", "loop", "concurrent"]}
USUAL_MODES = {"tensorflow": MODES["tensorflow"], "jax": ["call", "loop"]}


def parsed(argv: list[str] | None) -> argparse.Namespace:
    """The options, checked before anything heavy is imported."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    backend = backend if backend in MODES else "tensorflow"
    add("--backend", choices=MODES, default=backend, help="(default: %(default)s)")
    add("--parameters", nargs="+", choices=SIZES, metavar="N", help=f"among {', '.join(SIZES)}")
    add("--layers", type=positive, help="another number of layers")
    add("--hidden", type=positive, default=768, help="with --layers (default: %(default)s)")
    add("--vocabulary", type=positive, default=VOCABULARY, help="(default: %(default)s)")
    add("--one-array", action="store_true", help="as many parameters in one variable")
    add("--rounds", type=positive, default=15, help="turns of each (default: %(default)s)")
    add("--methods", nargs="+", choices=METHODS, metavar="NAME", help="(default: the usual ones)")
    add("--modes", nargs="+", metavar="MODE", help="(default: the usual ones)")
    add("--torch", action="store_true", help="PyTorch's Adam too, and on a CPU a plain ACClip")
    add("--output", type=to_path, help="a JSON file for the results")
    modes = "; ".join(f"{name}: {', '.join(all)}" for name, all in MODES.items())
    parser.epilog = f"modes: {modes}. methods: {'; '.join(METHODS)}."
    options = parser.parse_args(argv)
    if options.layers and options.parameters:
        parser.error("--layers and --parameters exclude each other")
    usual = [name for name in USUAL[options.backend] if METHODS[name].is_there]
    options.methods = options.methods or usual
    for name in options.methods:
        if options.backend not in METHODS[name].backends:
            parser.error(f"{name!r} does not run on the backend {options.backend}")
        if not METHODS[name].is_there:
            parser.error(f"{name!r} needs the package {METHODS[name].package}")
    if options.torch and importlib.util.find_spec("torch") is None:
        parser.error("--torch needs the package torch")
    options.modes = options.modes or USUAL_MODES[options.backend]
    for mode in options.modes:
        if mode not in MODES[options.backend]:
            parser.error(f"the backend {options.backend} has no mode {mode!r}")
    return options


def all_shapes(options: argparse.Namespace) -> list[list[Shape]]:
    """The shapes of each model that the options name."""
    sizes = [SIZES[name] for name in options.parameters or ["67M"]]
    if options.layers:
        sizes = [(options.layers, options.hidden)]
    found = [bert_shapes(*size, options.vocabulary) for size in sizes]
    return [[(sum(map(math.prod, shapes)),)] for shapes in found] if options.one_array else found


def on_tensorflow(shapes: list[Shape], options: argparse.Namespace) -> list[Any]:
    """The contestants of the TensorFlow backend, and the C loops beside them."""
    import keras
    import tensorflow as tf

    from contest import c_loops, on_tensorflow

    on_tensorflow.prepare()
    arrays, gradients = parameters_and_gradients(shapes)
    contestants = []
    library = c_loops.compiled()
    if library is None:
        print("No C compiler found: without the bound.")
    else:
        loops = dict.fromkeys(METHODS[n].loop for n in options.methods if METHODS[n].loop)
        contestants += c_loops.contestants(library, arrays, gradients, loops)
    variables = [keras.Variable(a, name=f"v{i}") for i, a in enumerate(arrays)]
    tensors = [tf.constant(g) for g in gradients]
    for name in options.methods:
        contestants += on_tensorflow.contestants(name, variables, tensors, options.modes)
    if options.torch:
        from contest import on_torch

        contestants += on_torch.contestants(shapes)
    return contestants


def on_jax(shapes: list[Shape], options: argparse.Namespace) -> list[Any]:
    """The contestants of the JAX backend, and the plain copy and the bare pass beside them."""
    from contest import jax_turns, on_jax
    from contest.race import progress

    field = on_jax.field(shapes)
    contestants = [jax_turns.copy(sum(map(math.prod, shapes)))]
    progress("compiling")
    contestants += on_jax.contestants(options.methods, field, options.modes)
    if options.torch:
        from contest import on_torch

        contestants += on_torch.beside_jax(shapes, options.modes)
    return contestants


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    """Runs the benchmark; returns its rows."""
    options = parsed(argv)
    os.environ["KERAS_BACKEND"] = options.backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if options.torch:
        # Leaves PyTorch its part of a GPU.
        os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.55")
    import keras

    if keras.backend.backend() != options.backend:
        raise RuntimeError(f"Keras already runs on {keras.backend.backend()} in this process")

    from contest import report
    from contest.race import race

    content = report.surroundings(options.backend) | {"races": []}
    results = []
    for shapes in all_shapes(options):
        number = sum(map(math.prod, shapes))
        print(f"{number:,} parameters in {len(shapes)} variables; {content['machine']}", flush=True)
        contestants = {"tensorflow": on_tensorflow, "jax": on_jax}[options.backend](shapes, options)
        race(contestants, options.rounds)
        rows, loops = list(report.rows(contestants, number)), report.bounds(contestants)
        print(report.table(rows, MODES[options.backend]))
        if loops:
            print("", report.bounds_line(loops), sep="\n")
        print("", *report.goals(contestants), "", sep="\n", flush=True)
        results += rows
        found = {"parameters": number, "variables": len(shapes), "bounds_s": loops, "rows": rows}
        content["races"].append(found)
        if options.output:
            summary = report.summary(content["races"])
            report.write(options.output, content | {"summary": summary})
    return results


if __name__ == "__main__":
    main()
