"""Trainings of the Model Garden as the runs of a comparison, some of them at the same time.

A training is the flags of `python -m keras_acclip.garden.train`. Here they are run from a script,
each in one of a few processes, and their summaries are read as `comparison` takes them. A training
that was run by its command, on whatever machine, counts as well, if its folder is in its place.
"""

import contextlib
import functools
import os
import shlex
import sys
from pathlib import Path

import script

from keras_acclip.garden import compare, processes
from keras_acclip.garden.shards import DataError

MODELS = {"2": "bert_tiny", "6": "bert_base_6l", "12": "bert_base_12l", "24": "bert_large_24l"}
RUNTIMES = ("cpu", "gpu", "gpus", "multi_worker", "tpu")
_MODULE = "keras_acclip.garden.train"


def add_options(parser):
    """Adds the options of the trainings' machine to a command line of `script`."""
    add = parser.add_argument
    cpus = processes.available_cpus()
    add("--runtime", choices=RUNTIMES, default="cpu", help="the machine; default: %(default)s")
    add("--jobs", type=script.positive, help=f"trainings at a time; default: {cpus}, or 1 off CPU")
    add("--commands", action="store_true", help="print the trainings' commands, not train")


def check(parser, options):
    """Sets `jobs` where it is not given; ends the command where it is too large."""
    options.jobs = options.jobs or (processes.available_cpus() if options.runtime == "cpu" else 1)
    if options.runtime != "cpu" and options.jobs > 1:
        parser.error(f"--jobs {options.jobs} must be 1 with --runtime {options.runtime}")


def of_a_comparison(runtime):
    """Parameters of a short run that is to be compared, whatever comes of it."""
    # One that diverges goes on to its end; on a CPU compilation takes longer than it saves.
    xla = {"runtime.enable_xla": False} if runtime == "cpu" else {}
    return {"trainer.recovery_max_trials": -1} | xla


def narrowed(hidden):
    """Parameters of a model `hidden` wide instead of as its file has it; none if that is `None`.

    Without dropout: so small a model sees no row often enough to learn it by heart.
    """
    if hidden is None:
        return {}
    encoder = "task.model.encoder.bert"
    return {
        f"{encoder}.hidden_size": hidden,
        f"{encoder}.num_attention_heads": max(1, hidden // 32),
        f"{encoder}.intermediate_size": 4 * hidden,
        f"{encoder}.dropout_rate": 0.0,
        f"{encoder}.attention_dropout_rate": 0.0,
    }


def schedule(rate, steps, warmup, reports):
    """Parameters of a linear warm-up and decay, and of so many reports and checkpoints on the way.

    Args:
        rate: The schedule's peak.
        steps: Number of steps, of which the first `warmup` warm up.
        warmup: Number of steps.
        reports: Number of summaries.
    """
    interval = max(1, steps // reports)
    config = "trainer.optimizer_config"
    return {
        "trainer.train_steps": steps,
        "trainer.steps_per_loop": interval,
        "trainer.summary_interval": interval,
        "trainer.checkpoint_interval": interval,
        f"{config}.learning_rate.polynomial.initial_learning_rate": rate,
        f"{config}.learning_rate.polynomial.decay_steps": steps,
        f"{config}.warmup.polynomial.warmup_steps": warmup,
    }


def training_flags(experiment, files, model_dir, seed, override):
    """The flags of one training with evaluation.

    Args:
        experiment: `"bert_pretraining"` or `"bert_squad"`.
        files: Config files, by path or by the name of a shipped one; later ones override.
        model_dir: Where the run is kept.
        seed: Of weights, dropout and the order of the data.
        override: Dict from a parameter's name to its value.
    """
    values = ",".join(f"{name}={value}" for name, value in override.items())
    return [
        *(f"--experiment=acclip/{experiment}", "--mode=train_and_eval"),
        *(f"--config_file={file}" for file in files),
        *(f"--model_dir={model_dir}", f"--seed={seed}", f"--params_override={values}"),
    ]


def command(flags):
    """The command line of a training."""
    return [sys.executable, "-m", _MODULE, *flags]


def parameters(flags):
    """The `ExperimentConfig` that a training's flags make."""
    from official.core import train_utils

    from keras_acclip.garden import configs, experiments  # noqa: F401

    pairs = [flag.removeprefix("--").partition("=")[::2] for flag in flags]
    values = dict(pairs)
    files = [configs.find(value) for name, value in pairs if name == "config_file"]
    parse = train_utils.ParseConfigOptions(
        values["experiment"], files, params_override=values["params_override"]
    )
    return train_utils.parse_configuration(parse, print_return=False)


def folder(flags):
    """The model directory of a training."""
    return Path(next(f for f in flags if f.startswith("--model_dir=")).partition("=")[2])


def train(flags):
    """Runs a training in this process, what it prints into its folder's `train.log`.

    Returns:
        The flags.
    """
    import tf_keras

    from keras_acclip.garden import train

    path = folder(flags)
    path.mkdir(parents=True, exist_ok=True)
    seed = int(next(f for f in flags if f.startswith("--seed=")).partition("=")[2])
    with output_into(path / "train.log"):
        train.run(parameters(flags), "train_and_eval", str(path), seed=seed)
    tf_keras.backend.clear_session()
    return flags


@contextlib.contextmanager
def output_into(path):
    """Sends what this process prints, C++ included, to the end of a file, as a context."""
    streams = sys.stdout, sys.stderr
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    with path.open("a") as log:
        try:
            for number, stream in enumerate(streams, 1):
                stream.flush()
                os.dup2(log.fileno(), number)
            with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
                yield
        finally:
            for number, descriptor in enumerate(kept, 1):
                os.dup2(descriptor, number)
                os.close(descriptor)


def share_cpus(jobs):
    """Leaves this process its part of the CPUs."""
    import tensorflow as tf

    threads = max(1, processes.available_cpus() // jobs)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def history(path, measures, tokens_per_step):
    """A run's history, as `comparison` takes it, out of its folder's summaries.

    Args:
        path: The model directory.
        measures: Dict from a name in the history to the summary of the validation.
        tokens_per_step: Number of tokens.

    Returns:
        List of dicts, one for each validation; empty if there is none yet.
    """
    try:
        run = compare.read_run(path)
    except DataError:
        return []
    rows, before = [], 0
    for step in next(iter(run.validation.values()), {}):
        row = {"step": step, "loss": run.train["training_loss"][step]}
        row |= {name: run.validation[tag][step] for name, tag in measures.items()}
        row["tokens_per_second"] = run.steps_per_second * tokens_per_step
        row["seconds"] = (step - before) / run.steps_per_second
        rows.append(row)
        before = step
    return rows


def start(flags_of, plan, steps, history_of, jobs):
    """Starts the trainings of a plan that are not yet done, and returns the function to have them.

    Args:
        flags_of: Function from (optimizer, rate, seed) to a training's flags.
        plan: List of (optimizer, rate, seed).
        steps: Steps of a training that is done.
        history_of: Function from a model directory to its `history`.
        jobs: Trainings at a time.

    Returns:
        Function from (optimizer, rate, seed) to the run, as `experiment.conduct` takes it; it waits
        for the training.
    """
    flags = {spec: flags_of(*spec) for spec in plan}

    def rows(spec):
        return history_of(folder(flags[spec]))

    def done(found):
        return bool(found) and found[-1]["step"] == steps

    missing = [flags[spec] for spec in plan if not done(rows(spec))]
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"  # For the processes to come.
    results = processes.run(train, missing, jobs, functools.partial(share_cpus, jobs))
    waiting = [folder(found) for found in missing]

    def wait(optimizer, rate, seed):
        spec = optimizer, rate, seed
        while folder(flags[spec]) in waiting:
            waiting.remove(folder(next(results)))
        return {"optimizer": optimizer, "learning_rate": rate, "seed": seed, "history": rows(spec)}

    return wait


def print_commands(all_flags):
    """Prints the command lines of trainings, to be run anywhere."""
    for flags in all_flags:
        print(shlex.join(["python", *command(flags)[1:]]))
