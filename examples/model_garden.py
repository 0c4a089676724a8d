"""From raw text to question answering in the Model Garden, ACClip beside AdamW.

    python examples/model_garden.py

Each stage is one command of `keras_acclip.garden`, printed before it runs: data out of the text; a
`bert_tiny` pretrained with each optimizer over the same batches; both fine-tuned on extractive
questions in SQuAD v1.1's form, which the data command makes out of the same text, and evaluated on
questions about held-out documents by SQuAD's official script (exact match and F1); the comparisons.

Stopped by whatever means and started again with the same `--output`, it goes on where it was, as
each of the commands does. The logs are in `OUTPUT/logs`.

The rates are the best of those tried for each optimizer, twice as large each time. What came out
stands in docs/results/model_garden.md.
"""

import contextlib
import json
import os
import shlex
import subprocess
import sys
import time

from paper.lab import resuming, script
from paper.lab.garden import flags

SCALES = {
    "small": {
        "vocabulary_size": 8192,
        "questions": 10_000,
        "pretraining_steps": 1200,
        "pretraining_warmup": 400,
        "pretraining_batch": 16,
        "squad_steps": 800,
        "squad_batch": 16,
        "validation_steps": 30,
    },
    "smoke": {
        "vocabulary_size": 512,
        "questions": 40,
        "pretraining_steps": 10,
        "pretraining_warmup": 5,
        "pretraining_batch": 4,
        "squad_steps": 10,
        "squad_batch": 4,
        "validation_steps": 2,
    },
}
LENGTH = 128  # Tokens of a pretraining example.
SQUAD_LENGTH = 192  # Tokens of a question and its passage, which has 50 to 110 words.

RATES = {
    "pretraining": {"acclip": 2e-3, "adamw": 2e-3},
    "squad": {"acclip": 5e-4, "adamw": 5e-4},
}


def parse_arguments(arguments=None):
    """The command line, checked."""
    parser = script.parser(__doc__, SCALES, "out/model_garden")
    parser.add_argument("--text", nargs="+", metavar="FILE", help="default: docstrings")
    for task, rates in RATES.items():
        default = ",".join(f"{name}={rate:g}" for name, rate in rates.items())
        option = f"--{task}-rates"
        parser.add_argument(
            option, type=script.rates(rates), default={}, help=f"default: {default}"
        )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    options = script.parse(parser, SCALES, arguments)
    if options.pretraining_warmup >= options.pretraining_steps:
        parser.error(
            f"--pretraining-warmup {options.pretraining_warmup} must be below "
            f"--pretraining-steps {options.pretraining_steps}"
        )
    options.rates = {
        task: rates | getattr(options, f"{task}_rates") for task, rates in RATES.items()
    }
    return options


def data_commands(options):
    """The commands that make the data, by stage."""
    output, text = options.output, ["--input", *options.text] if options.text else []
    cache = ["--cache", str(options.cache)]
    pretraining = [
        *("pretraining", "--vocab_size", options.vocabulary_size, "--dupe_factor", 1),
        *("--seq_length", LENGTH, *text, *cache, "--output", output / "data"),
    ]
    questions = [
        *("questions", "--train_questions", options.questions),
        *("--dev_questions", -(-options.questions // 10), *text, *cache),
        *("--output", output / "questions"),
    ]
    squad = [
        *("squad", "--train", output / "questions/train.json"),
        *("--dev", output / "questions/dev.json", "--vocab", output / "data/vocab.txt"),
        *("--seq_length", SQUAD_LENGTH, "--output", output / "squad"),
    ]
    return {
        "pretraining data": module("data", pretraining),
        "questions": module("data", questions),
        "question-answering data": module("data", squad),
    }


def module(name, arguments):
    """The command line of one of the package's modules."""
    return [sys.executable, "-m", f"keras_acclip.garden.{name}", *map(str, arguments)]


def training_command(experiment, optimizer, model_dir, data, seed, override):
    """The command line of one training of `bert_tiny`, as `flags.training_flags`."""
    files = ("bert_tiny", optimizer, "cpu", data)
    return flags.command(flags.training_flags(experiment, files, model_dir, seed, override))


def pretraining_command(optimizer, rate, seed, options):
    """The command that pretrains with an optimizer."""
    steps, warmup = options.pretraining_steps, options.pretraining_warmup
    override = flags.schedule(rate, steps, warmup, reports=8) | {
        "trainer.validation_interval": max(1, options.pretraining_steps // 8),
        "trainer.validation_steps": options.validation_steps,
        "task.train_data.global_batch_size": options.pretraining_batch,
        "task.validation_data.global_batch_size": 64,
    }
    folder = options.output / "pretraining" / optimizer
    data = options.output / "data/data.yaml"
    return training_command("bert_pretraining", optimizer, folder, data, seed, override)


def squad_command(optimizer, rate, seed, options):
    """The command that fine-tunes and evaluates what was pretrained with the same optimizer."""
    steps = options.squad_steps
    override = flags.schedule(rate, steps, steps // 10, reports=4) | {
        "trainer.validation_interval": options.squad_steps,
        "task.init_checkpoint": options.output / "pretraining" / optimizer,
        "task.train_data.global_batch_size": options.squad_batch,
        "task.validation_data.global_batch_size": 64,
    }
    folder = options.output / "squad-runs" / optimizer
    data = options.output / "squad/data.yaml"
    return training_command("bert_squad", optimizer, folder, data, seed, override)


def commands(options):
    """All commands in order: dict from a stage's name to its command line."""
    stages = data_commands(options)
    makers = {"pretraining": pretraining_command, "squad": squad_command}
    for task, make in makers.items():
        for optimizer, rate in options.rates[task].items():
            stages[f"{task} {optimizer}"] = make(optimizer, rate, options.seed, options)
    for task, folder in (("pretraining", "pretraining"), ("squad", "squad-runs")):
        runs = [options.output / folder / optimizer for optimizer in RATES[task]]
        output = options.output / f"comparison-{task}"
        stages[f"comparison {task}"] = module("compare", [*runs, "--output", output])
    return stages


def run(stage, line, folder):
    """Runs a stage's command, its output into a log; returns its seconds.

    Raises:
        RuntimeError: If it fails; with the end of the log.
    """
    log = folder / f"{stage.replace(' ', '-')}.log"
    print(f"\n[{stage}]\n{shlex.join(['python', *line[1:]])}", flush=True)
    started = time.perf_counter()
    with log.open("wb") as file:
        status = subprocess.run(
            line, stdout=file, stderr=file, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"}
        ).returncode
    if status:
        end = "\n".join(log.read_text("utf-8", "replace").splitlines()[-20:])
        raise RuntimeError(f"{stage} failed with status {status}; the end of {log}:\n{end}")
    seconds = time.perf_counter() - started
    print(f"{seconds:.0f} s", flush=True)
    return seconds


def main(arguments=None):
    """Reads the command line and runs all stages. Returns the exit status."""
    options = parse_arguments(arguments)
    settings = script.settings_of(options, SCALES)
    settings |= {"seed": options.seed, "text": options.text, "rates": options.rates}
    try:
        work = resuming.Work(options.output, settings)
    except ValueError as error:
        return script.failed(error)
    logs = options.output / "logs"
    logs.mkdir(exist_ok=True)
    seconds = {}
    try:
        for stage, line in commands(options).items():
            seconds[stage] = work.part(stage.replace(" ", "-"), run, stage, line, logs)
    except KeyboardInterrupt:
        return script.stopped(options.output)
    except RuntimeError as error:
        return script.failed(error, status=1)
    metrics = {}
    for task, folder in (("pretraining", "pretraining"), ("squad", "squad-runs")):
        for optimizer in RATES[task]:
            path = options.output / folder / optimizer / "metrics.json"
            with contextlib.suppress(OSError):
                metrics[f"{task} {optimizer}"] = json.loads(path.read_text())
        print(f"\n{(options.output / f'comparison-{task}' / 'comparison.md').read_text()}", end="")
    work.write_results(
        {"metrics": metrics, "seconds": seconds}, ("tensorflow", "tf_keras", "tf-models-official")
    )
    print(
        f"\n{sum(seconds.values()) / 60:.1f} minutes in all. Written under {options.output}: "
        "results.json, comparison-pretraining/, comparison-squad/"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
