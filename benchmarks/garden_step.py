"""Time and memory of whole BERT training steps in the Model Garden, ACClip beside AdamW.

    python benchmarks/garden_step.py
    python benchmarks/garden_step.py --models bert_base_6l=10 --optimizers acclip adamw gclip sgd

Each model trains with each optimizer in a process of its own, through the trainer of
`keras_acclip.garden` with the shipped files, on batches of the Model Garden's dummy data or,
with `--data`, of real ones. The first step, which traces and compiles, is counted apart; 10 more
are taken of BERT-base with 6 and with 12 layers, one more of BERT-large.

Columns: the median time of a step with its range, its ratio to AdamW's of the same model, the first
step's time, and the process's peak resident memory: in GB, and beyond what the process held before
the model was made in units of the parameters' size, where parameters, gradients and two slots make
4 and activations come on top.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from keras_acclip._utils.commands import Parser, positive, to_path
from keras_acclip.garden import configs

BASELINE = "adamw"
MODELS = {"bert_base_6l": 10, "bert_base_12l": 10, "bert_large_24l": 1}

Figures = dict[str, Any]


def measure(model: str, optimizer: str, steps: int, options: argparse.Namespace) -> Figures:
    """Trains in this process.

    Args:
        model: Name of a model's shipped file.
        optimizer: Name of an optimizer's shipped file.
        steps: Steps to time after the first.
        options: The command line's.

    Returns:
        dict of `parameters` (their number), `first` and `seconds` (of each step after it), `before`
        and `peak` (resident bytes).
    """
    import tensorflow as tf
    from official.core import task_factory, train_utils

    # It registers the experiment.
    from keras_acclip.garden import Trainer, experiments  # noqa: F401

    files = [model, optimizer, "pretraining_128", "cpu", *([options.data] if options.data else [])]
    override = {
        "task.train_data.global_batch_size": options.batch_size,
        "task.validation_data.global_batch_size": options.batch_size,
        "trainer.steps_per_loop": 1,
        "trainer.summary_interval": 1,
    } | ({} if options.data else {"task.train_data.input_path": "dummy"})
    params = train_utils.parse_configuration(
        train_utils.ParseConfigOptions(
            "acclip/bert_pretraining",
            [configs.find(name) for name in files],
            params_override=",".join(f"{name}={value}" for name, value in override.items()),
        ),
        print_return=False,
    )
    before = _peak()
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        task = task_factory.get_task(params.task)
        trainer = train_utils.create_trainer(
            params, task, train=True, evaluate=False, trainer_cls=Trainer
        )
    seconds = []
    for _ in range(1 + steps):
        started = time.perf_counter()
        trainer.train(tf.constant(1))
        seconds.append(time.perf_counter() - started)
    return {
        "parameters": sum(math.prod(v.shape) for v in trainer.model.trainable_variables),
        "first": seconds[0],
        "seconds": seconds[1:],
        "before": before,
        "peak": _peak(),
    }


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure_apart(model: str, optimizer: str, steps: int, options: argparse.Namespace) -> Figures:
    """`measure` in a process of its own, whose peak memory is that of this training alone."""
    line = [sys.executable, __file__, "--measure", model, optimizer, str(steps)]
    line += ["--batch-size", str(options.batch_size)]
    line += ["--data", options.data] if options.data else []
    process = subprocess.run(
        line, stdout=subprocess.PIPE, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"}, text=True
    )
    if process.returncode:
        sys.exit(f"error: {model} with {optimizer} ended with status {process.returncode}")
    return json.loads(process.stdout.splitlines()[-1])


def row(model: str, optimizer: str, measured: Figures, baseline: Figures | None) -> str:
    """A line of the table.

    Args:
        model: Name of the model.
        optimizer: Name of the optimizer.
        measured: What `measure` returned.
        baseline: The same of the baseline, or `None`.
    """
    seconds = measured["seconds"]
    median = statistics.median(seconds)
    spread = f"{median:.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
    ratio = f"{median / statistics.median(baseline['seconds']):.2f}" if baseline else ""
    added = (measured["peak"] - measured["before"]) / (4 * measured["parameters"])
    return (
        f"{model:<15} {optimizer:<7}{measured['parameters'] / 1e6:>7.1f}{spread:>24}{ratio:>8}"
        f"{measured['first']:>9.1f}{measured['peak'] / 1e9:>9.2f}{added:>12.1f}"
    )


def summary(figures: dict[str, dict[str, Figures]]) -> list[dict[str, Any]]:
    """A row for each model and optimizer: what the results' pages take.

    Args:
        figures: What `measure` returned, by model and optimizer.
    """
    rows = []
    for model, found in figures.items():
        base = statistics.median(found[BASELINE]["seconds"]) if BASELINE in found else None
        for optimizer, measured in found.items():
            seconds = statistics.median(measured["seconds"])
            numbers = {
                "parameters": measured["parameters"],
                "seconds": seconds,
                "to_adamw": seconds / base if base else None,
                "first_s": measured["first"],
                "peak_gb": measured["peak"] / 1e9,
            }
            rows.append({"model": model, "optimizer": optimizer} | numbers)
    return rows


def _model(text: str) -> tuple[str, int]:
    name, _, steps = text.partition("=")
    if not steps.isdecimal() or int(steps) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: want MODEL=STEPS, with STEPS above 0")
    return _file(name), int(steps)


def _file(name: str) -> str:
    try:
        configs.find(name)
    except FileNotFoundError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return name


def parsed(argv: list[str] | None) -> argparse.Namespace:
    """The options, checked before anything heavy is imported."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    models = [f"{name}={steps}" for name, steps in MODELS.items()]
    add("--models", nargs="+", type=_model, default=list(MODELS.items()), metavar="MODEL=STEPS")
    add("--optimizers", nargs="+", type=_file, default=["acclip", BASELINE], metavar="NAME")
    add("--batch-size", type=positive, default=4, help="(default: %(default)s)")
    add("--data", metavar="FILE", help="a data.yaml of garden.data (default: dummy data)")
    add("--output", type=to_path, metavar="FILE", help="a JSON file for the results")
    add("--measure", nargs=3, help=argparse.SUPPRESS)
    parser.epilog = f"default models: {' '.join(models)}"
    options = parser.parse_args(argv)
    if options.data and not Path(options.data).is_file():
        parser.error(f"--data: there is no file {options.data!r}")
    return options


def main(argv: list[str] | None = None) -> dict[str, dict[str, Figures]] | None:
    """Reads the options and prints the table; returns its figures."""
    options = parsed(argv)
    if options.measure:
        model, optimizer, steps = options.measure
        print(json.dumps(measure(model, optimizer, int(steps), options)))
        return None
    print(
        f"batches of {options.batch_size} x 128 tokens, {os.cpu_count()} cores\n"
        f"{'model':<15} {'':<7}{'M par.':>7}{'s a step (range)':>24}{'÷ AdamW':>8}"
        f"{'first s':>9}{'peak GB':>9}{'÷ params':>12}"
    )
    figures = {}
    for model, steps in options.models:
        found = {o: measure_apart(model, o, steps, options) for o in options.optimizers}
        for optimizer, measured in found.items():
            print(row(model, optimizer, measured, found.get(BASELINE)), flush=True)
        figures[model] = found
    if options.output:
        from contest import report

        content = report.surroundings("tensorflow") | {"models": figures}
        report.write(options.output, content | {"summary": summary(figures)})
    return figures


if __name__ == "__main__":
    main()
