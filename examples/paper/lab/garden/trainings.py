"""Trainings of the Model Garden as the runs of a comparison, some of them at the same time.

Each is run in one of a few processes, and its summaries are read as `comparison` takes them. A
training that was run by its command, on whatever machine, counts as well, if its folder is in its
place. One that was stopped goes on after the Model Garden's last checkpoint.
"""

import contextlib
import os
import shlex
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .. import runs
from ..plans import name_of, run_of
from ..resuming import Work
from . import flags as garden_flags

VALIDATION_BATCH = 64


@dataclass(frozen=True)
class Trainings:
    """The trainings of one experiment and size, which differ in what a spec tells alone.

    Attributes:
        experiment: `"bert_pretraining"` or `"bert_squad"`.
        layers: A key of `flags.MODELS`.
        options: The command line's: `runtime`, `jobs`, `steps`, `warmup`, `reports`, `batch_size`
            and `sequence_length` count.
        work: Where their results are kept. The data are `data/data.yaml` in its output folder.
        override: Function from (optimizer, seed) to more parameters, as `training_flags` takes
            them.
        measures: What `history` takes.
    """

    experiment: str
    layers: str
    options: object
    work: Work
    override: Callable
    measures: dict

    @property
    def model(self):
        """The name of the model's file."""
        return garden_flags.MODELS[self.layers]

    def name(self, spec):
        """The name of a training among its work."""
        return f"{self.model}/{name_of(spec)}"

    def folder(self, spec):
        """The model directory of a training."""
        return self.work.folder(self.name(spec))

    def flags(self, spec):
        """The flags of a training.

        Args:
            spec: The name of the optimizer's shipped file, and its betas where the file's don't
                hold; the schedule's peak; the seed of weights, dropout and the order of the data.
        """
        options = self.options
        override = garden_flags.schedule(spec.rate, options.steps, options.warmup, options.reports)
        override |= garden_flags.betas(spec) | garden_flags.of_a_comparison(options.runtime)
        override |= {
            "task.train_data.global_batch_size": options.batch_size,
            "task.validation_data.global_batch_size": VALIDATION_BATCH,
        }
        override |= self.override(spec.optimizer, spec.seed)
        data = self.work.output / "data" / "data.yaml"
        files = (self.model, spec.optimizer, options.runtime, data)
        return garden_flags.training_flags(
            self.experiment, files, self.folder(spec), spec.seed, override
        )

    def history(self, spec):
        """The `history` of a training."""
        tokens = self.options.batch_size * self.options.sequence_length
        return history(self.folder(spec), self.measures, tokens)

    def done(self, spec):
        """Whether a training has come to its end, here or elsewhere."""
        if self.work.rows(self.name(spec)):
            return True
        rows = self.history(spec)
        return bool(rows) and rows[-1]["step"] == self.options.steps

    def start(self, plan, pool):
        """Starts what is not yet done of a plan, and returns the function to have it.

        Args:
            plan: List of specs.
            pool: A `processes.Pool`.

        Returns:
            Function from a spec to the run, as `runs.conduct` takes it; it waits for the training.
        """
        tasks = {spec: self.flags(spec) for spec in plan if not self.done(spec)}
        trained = runs.start(train, tasks, pool)

        def whole(spec):
            if spec in tasks:
                trained(spec)
            return {"history": self.history(spec)}

        return lambda spec: run_of(spec, self.work.part(self.name(spec), whole, spec)["history"])


def conduct(sizes, make, report, measure, label):
    """Trains what is missing of each size's runs and reports on them. Returns the exit status.

    Args:
        sizes: List of `Trainings`.
        make: Function that makes all runs of a size; what it is called with makes a plan's.
        report: Function of a number of layers and the list of its runs.
        measure: As `runs.trained` takes it, and so the next one.
        label: What to call it.
    """
    for size in sizes:
        print(f"\n{size.layers} layers, {size.options.jobs} trainings at a time")
        with runs.pool(size.options.jobs) as pool:
            status = _conduct(size, pool, make, report, measure, label)
        if status:
            return status
    return 0


def _conduct(size, pool, make, report, measure, label):
    def runs_of(plan):
        return runs.trained(plan, size.start(plan, pool), measure, label)

    return runs.conclude(
        lambda: make(runs_of), size.work.output, lambda found: report(size.layers, found)
    )


def print_commands(sizes, plan):
    """Prints the command lines of all trainings, to be run anywhere.

    Args:
        sizes: List of `Trainings`.
        plan: List of specs.
    """
    for size in sizes:
        for spec in plan:
            print(shlex.join(["python", *garden_flags.command(size.flags(spec))[1:]]))


# --- One training ----------------------------------------------------------------------------


def train(flags):
    """Runs a training in this process, what it prints into its folder's `train.log`.

    Raises:
        runs.RunError: If it fails; its log says where.
    """
    import tf_keras

    from keras_acclip.garden import run

    path = Path(garden_flags.value(flags, "model_dir"))
    path.mkdir(parents=True, exist_ok=True)
    log = path / "train.log"
    with output_into(log):
        try:
            seed = int(garden_flags.value(flags, "seed"))
            run(garden_flags.parameters(flags), "train_and_eval", str(path), seed=seed)
        except Exception as error:
            traceback.print_exc()
            what = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise runs.RunError(f"{path}: {what} (see {log})") from None
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
    from keras_acclip.garden import compare
    from keras_acclip.garden.data import DataError

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
