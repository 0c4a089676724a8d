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
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import experiment

from keras_acclip.garden import compare
from keras_acclip.garden.data import DataError

MODELS = {"2": "bert_tiny", "6": "bert_base_6l", "12": "bert_base_12l", "24": "bert_large_24l"}
RUNTIMES = ("cpu", "gpu", "gpus", "multi_worker", "tpu")
VALIDATION_BATCH = 64
_MODULE = "keras_acclip.garden.train"


def add_options(parser):
    """Adds the options of the trainings' machine to a command line of `script`."""
    add = parser.add_argument
    add("--runtime", choices=RUNTIMES, default="cpu", help="the machine; default: %(default)s")
    experiment.add_jobs(parser)
    add("--commands", action="store_true", help="print the trainings' commands, not train")


def check(parser, options):
    """Sets `jobs` where it is not given; ends the command where an option can't be used."""
    experiment.check_schedule(parser, options, "reports")
    options.jobs = experiment.jobs(options, on_cpu=options.runtime == "cpu")
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


def value(flags, name):
    """The value of the flag of that name."""
    return next(f for f in flags if f.startswith(f"--{name}=")).partition("=")[2]


def train(flags):
    """Runs a training in this process, what it prints into its folder's `train.log`.

    Raises:
        experiment.RunError: If it fails; its log says where.
    """
    import tf_keras

    from keras_acclip.garden import run

    path = Path(value(flags, "model_dir"))
    path.mkdir(parents=True, exist_ok=True)
    log = path / "train.log"
    with output_into(log):
        try:
            seed = int(value(flags, "seed"))
            run(parameters(flags), "train_and_eval", str(path), seed=seed)
        except Exception as error:
            traceback.print_exc()
            what = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise experiment.RunError(f"{path}: {what} (see {log})") from None
    tf_keras.backend.clear_session()


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


def history(path, measures, tokens_per_step):
    """A run's history, as `comparison` takes it, out of its folder's summaries.

    Args:
        path: The model directory.
        measures: Dict from a name in the history to the summary of the validation and the factor
            that it is shown with.
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
        row |= {name: k * run.validation[tag][step] for name, (tag, k) in measures.items()}
        row["tokens_per_second"] = run.steps_per_second * tokens_per_step
        row["seconds"] = (step - before) / run.steps_per_second
        rows.append(row)
        before = step
    return rows


@dataclass(frozen=True)
class Trainings:
    """The trainings of one experiment and size, which differ in optimizer, rate and seed alone.

    Attributes:
        experiment: `"bert_pretraining"` or `"bert_squad"`.
        layers: A key of `MODELS`.
        options: The command line's: `output`, `runtime`, `jobs`, `steps`, `warmup`, `reports`,
            `batch_size` and `sequence_length` count. The data are `data/data.yaml` in the output.
        override: Function from (optimizer, seed) to more parameters, as `training_flags` takes
            them.
        measures: What `history` takes.
    """

    experiment: str
    layers: str
    options: object
    override: Callable
    measures: dict

    def folder(self, optimizer, rate, seed):
        """The model directory of a training."""
        output = self.options.output / MODELS[self.layers]
        return experiment.folder(output, optimizer, rate, seed)

    def flags(self, optimizer, rate, seed):
        """The flags of a training.

        Args:
            optimizer: The name of a shipped file.
            rate: The schedule's peak.
            seed: Of weights, dropout and the order of the data.
        """
        options = self.options
        override = schedule(rate, options.steps, options.warmup, options.reports)
        override |= of_a_comparison(options.runtime) | {
            "task.train_data.global_batch_size": options.batch_size,
            "task.validation_data.global_batch_size": VALIDATION_BATCH,
        }
        override |= self.override(optimizer, seed)
        data = options.output / "data" / "data.yaml"
        files = (MODELS[self.layers], optimizer, options.runtime, data)
        folder = self.folder(optimizer, rate, seed)
        return training_flags(self.experiment, files, folder, seed, override)

    def history(self, *spec):
        """The `history` of the training of (optimizer, rate, seed)."""
        tokens = self.options.batch_size * self.options.sequence_length
        return history(self.folder(*spec), self.measures, tokens)

    def done(self, *spec):
        """Whether the training of (optimizer, rate, seed) has come to its end."""
        rows = self.history(*spec)
        return bool(rows) and rows[-1]["step"] == self.options.steps

    def start(self, plan):
        """Starts what is not yet done of a plan, and returns the function to have it.

        Args:
            plan: List of (optimizer, rate, seed).

        Returns:
            Function from (optimizer, rate, seed) to the run, as `experiment.conduct` takes it; it
            waits for the training.
        """
        tasks = {spec: self.flags(*spec) for spec in plan if not self.done(*spec)}
        trained = experiment.start(train, tasks, self.options.jobs)

        def wait(*spec):
            if spec in tasks:
                trained(spec)
            run = dict(zip(("optimizer", "learning_rate", "seed"), spec, strict=True))
            return run | {"history": self.history(*spec)}

        return wait


def conduct(sizes, plan, report, measure, label):
    """Trains what is missing of each size's runs and reports on them. Returns the exit status.

    Args:
        sizes: List of `Trainings`.
        plan: List of (optimizer, rate, seed).
        report: Function of a number of layers and the list of its runs.
        measure: As `experiment.conduct` takes it, and so the next one.
        label: What to call it.
    """
    for trainings in sizes:
        jobs, output = trainings.options.jobs, trainings.options.output
        print(f"\n{trainings.layers} layers: {len(plan)} trainings, {jobs} at a time")
        status = experiment.conduct(
            plan,
            output,
            functools.partial(trainings.start, plan),
            functools.partial(report, trainings.layers),
            measure,
            label,
        )
        if status:
            return status
    return 0


def print_commands(sizes, plan):
    """Prints the command lines of all trainings, to be run anywhere.

    Args:
        sizes: List of `Trainings`.
        plan: List of (optimizer, rate, seed).
    """
    for trainings in sizes:
        for spec in plan:
            print(shlex.join(["python", *command(trainings.flags(*spec))[1:]]))
