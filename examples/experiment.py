"""The runs of a comparison: which ones to make, how each goes on, and what they come to.

A script says how it trains one run; the optimizers, rates and seeds to train with, the grid that
`--tune` tries, the state on the disk and the report are the same for all.
"""

import functools
import json
import os
import sys
import time
from pathlib import Path

import comparison
import keras
import script
import tensorflow as tf
from script import write_json

from keras_acclip import noise
from keras_acclip._utils import processes
from keras_acclip.noise import plots


class RunError(RuntimeError):
    """A run that could not be finished; the message says which one and why."""


# --- Which runs ------------------------------------------------------------------------------


def add_arguments(parser, rates, default, grid):
    """Adds `--optimizers`, `--rates` and `--tune` to a script's command line.

    Args:
        parser: `script.parser`'s.
        rates: Dict from each optimizer's name to its learning rate.
        default: Names of the optimizers to compare where none are given.
        grid: The factors that `--tune` multiplies a rate with.
    """
    add = parser.add_argument
    add("--optimizers", type=script.names(rates), default=default, help=", ".join(rates))
    add("--rates", type=script.rates(rates), default={}, help="e.g. acclip=3e-3,adam=2e-3")
    apart = grid[1] / grid[0]
    help = f"try {len(grid)} rates for each, {apart:.3g} times apart"
    add("--tune", action="store_true", help=help)


def plan(options, rates, grid):
    """The runs that the command line asks for, as (optimizer, rate, seed).

    Args:
        options: The parsed command line, of which `optimizers`, `rates`, `tune` and `seeds` count.
        rates: Dict from each optimizer's name to its learning rate.
        grid: The factors that `--tune` multiplies a rate with; a tuned rate has two digits.
    """
    middle = rates | options.rates
    factors = grid if options.tune else (1,)
    return [
        (name, middle[name] if factor == 1 else float(f"{middle[name] * factor:.2g}"), seed)
        for name in options.optimizers
        for factor in factors
        for seed in range(options.seeds)
    ]


def add_jobs(parser):
    """Adds `--jobs` to a script's command line."""
    cpus = processes.available_cpus()
    help = f"trainings at a time; default: {cpus}, or 1 off CPU"
    parser.add_argument("--jobs", type=script.positive, help=help)


def jobs(options, on_cpu=None):
    """The number of trainings at a time: `--jobs`, or one for each CPU where there is no GPU.

    Args:
        options: The parsed command line.
        on_cpu: Whether they run on CPUs. Defaults to whether there is no GPU.
    """
    if on_cpu is None:
        on_cpu = not tf.config.list_physical_devices("GPU")
    return options.jobs or (processes.available_cpus() if on_cpu else 1)


def check_schedule(parser, options, parts="epochs"):
    """Ends the command where its steps, warm-up and the option `parts` don't go together."""
    count = getattr(options, parts)
    if options.steps % count:
        parser.error(f"--steps {options.steps} must be a multiple of --{parts} {count}")
    if options.warmup >= options.steps:
        parser.error(f"--warmup {options.warmup} must be below --steps {options.steps}")


def folder(output, optimizer, rate, seed):
    """Where a run keeps its state."""
    return Path(output) / "runs" / f"{optimizer}-{rate:.6g}-{seed}"


def start(function, tasks, jobs):
    """Starts work, `jobs` at a time, in as many processes that share the CPUs; in this one if 1.

    Args:
        function: Module-level function.
        tasks: Dict from a key to what the function is called with.
        jobs: Number of processes.

    Returns:
        Function from a key to what `function` returned, which waits for it. It raises what
        `function` raises, and `RunError` if a process was killed.
    """
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"  # For the processes to come.
    work, prepare = functools.partial(_with_key, function), functools.partial(_share_cpus, jobs)
    results, done = processes.run(work, list(tasks.items()), jobs, prepare), {}

    def wait(key):
        try:
            while key not in done:
                done.update([next(results)])
        except processes.KilledError as error:
            raise RunError(f"{error}; --jobs 1 takes the least memory") from None
        return done[key]

    return wait


def start_missing(train, plan, output, epochs, jobs):
    """Starts the runs of a plan whose history is not whole, and returns the function to have one.

    Args:
        train: Module-level function, or a `partial` of one, from (optimizer, rate, seed) to a run.
        plan: List of (optimizer, rate, seed).
        output: The output folder, with a run's `History` in its `folder`.
        epochs: The length of a whole history.
        jobs: As `start` takes it.

    Returns:
        Function from (optimizer, rate, seed) to the run, as `conduct` takes it.
    """
    missing = {spec: spec for spec in plan if len(History(folder(output, *spec))) < epochs}
    trained = start(train, missing, jobs)
    return lambda *spec: trained(spec) if spec in missing else train(spec)


def _with_key(function, item):
    key, task = item
    return key, function(task)


def _share_cpus(jobs):
    threads = max(1, processes.available_cpus() // jobs)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def conduct(plan, output, prepare, report, measure="val_loss", label="validation loss"):
    """Trains what is missing of the runs of `plan` and reports on all. Returns the exit status.

    Args:
        plan: List of (optimizer, rate, seed).
        output: The output folder.
        prepare: Function that reads the data and returns the function that makes a run of
            (optimizer, rate, seed). A `ValueError` of the one is what is wrong with the data, a
            `RunError` of the other with the run.
        report: Function of the list of runs.
        measure: The name in a run's history to print of its end.
        label: What to call it.
    """
    try:
        train = prepare()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    runs = []
    try:
        for number, (optimizer, rate, seed) in enumerate(plan, 1):
            print(f"[{number}/{len(plan)}] {optimizer}, learning rate {rate:.3g}, seed {seed}")
            runs.append(train(optimizer, rate, seed))
            print(f"        {label} {comparison.final(runs[-1])[measure]:.4f}", flush=True)
    except KeyboardInterrupt:
        print(f"\nStopped. The same command goes on from here ({output}).")
        return 130
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    report(runs)
    return 0


# --- One run ---------------------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="keras_acclip_examples")
class WarmupLinearDecay(keras.optimizers.schedules.LearningRateSchedule):
    """BERT's schedule: linearly up to `peak` in `warmup` steps, then linearly down to 0."""

    def __init__(self, peak, warmup, steps):
        self.peak, self.warmup, self.steps = peak, warmup, steps

    def __call__(self, step):
        """The learning rate of step number `step`, from 0."""
        step = keras.ops.cast(step, "float32") + 1.0
        up = step / max(self.warmup, 1)
        down = (self.steps + 1 - step) / (self.steps + 1 - self.warmup)
        return self.peak * keras.ops.maximum(keras.ops.minimum(up, down), 0.0)

    def get_config(self):
        """The arguments, as Keras wants them."""
        return {"peak": self.peak, "warmup": self.warmup, "steps": self.steps}


class History(list):
    """A run's history, kept in a folder with the state after its last epoch, to go on from.

    The state is written under the epoch's number before the history says that the epoch is done:
    whenever the process dies, the two agree.

    Args:
        folder: The run's folder.
        state: Name of the file of the state, with `{}` for the number of epochs.
    """

    def __init__(self, folder, state="epoch-{}.weights.h5"):
        self.folder, self.state = Path(folder), state
        path = self.folder / "history.json"
        super().__init__(json.loads(path.read_text()) if path.exists() else ())

    def state_path(self, epochs):
        """The file of the state after so many epochs."""
        return self.folder / self.state.format(epochs)

    def add(self, row, save):
        """Adds an epoch; `save(path)` writes the state after it."""
        self.append(row)
        self.folder.mkdir(parents=True, exist_ok=True)
        save(self.state_path(len(self)))
        write_json(self.folder / "history.json", list(self))
        self.state_path(len(self) - 1).unlink(missing_ok=True)

    def finish(self):
        """Removes the state of a run that is done."""
        self.state_path(len(self)).unlink(missing_ok=True)


class Progress(keras.callbacks.Callback):
    """Keeps a `History` of `fit` with the weights and the optimizer's slots after each epoch.

    Args:
        folder: The run's folder.
        steps_per_epoch: Number of steps.
        per_step: How many of `unit` a step takes.
        unit: What the speed counts. Defaults to "tokens".
        name: What to call the run in a line after each epoch; none is printed without.
    """

    def __init__(self, folder, steps_per_epoch, per_step, unit="tokens", name=None):
        super().__init__()
        self.name = name
        self.history = History(folder)
        self.steps_per_epoch, self.per_step, self.unit = steps_per_epoch, per_step, unit

    def restore(self, model):
        """Gives the model and its optimizer the state after the last epoch of the history."""
        if self.history:
            model.optimizer.build(model.trainable_variables)
            model.load_weights(self.history.state_path(len(self.history)))

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the clock."""
        self.started = time.perf_counter()

    def on_test_begin(self, logs=None):
        """Ends the training part of the epoch's time."""
        self.trained = time.perf_counter()

    def on_test_end(self, logs=None):
        """Ends the epoch's time, before another callback takes some."""
        self.ended = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """Writes state and history."""
        speed = self.steps_per_epoch * self.per_step / (self.trained - self.started)
        row = (
            {"step": (epoch + 1) * self.steps_per_epoch}
            | {name: float(value) for name, value in logs.items()}
            | {f"{self.unit}_per_second": speed, "seconds": self.ended - self.started}
        )
        self.history.add(row, lambda path: self.model.save_weights(path, overwrite=True))
        if self.name:
            loss = row["val_loss"]
            print(f"{self.name}, step {row['step']:,}: validation loss {loss:.4f}", flush=True)


class StagedNoise(noise.GradientNoise):
    """Measures the gradient noise after every other epoch, wherever a run was taken up again."""

    def on_epoch_end(self, epoch, logs=None):
        """Measures after the second epoch, the fourth and so on."""
        if epoch % 2:
            super().on_epoch_end(epoch, logs)


# --- What they come to -----------------------------------------------------------------------


def report(runs, tune, baseline="adam", columns=comparison.COLUMNS, measures=None, highest=False):
    """Prints what the runs came to: all rates tried, the best rates' table, paired differences.

    Args:
        runs: Runs of several optimizers and seeds, of several rates each where `tune` is true.
        tune: Whether to choose each optimizer's best rate first.
        baseline: The optimizer that the others are compared with.
        columns: The table's, as `comparison.COLUMNS`.
        measures: Dict from a name in the runs' history to what to call it; of each the paired
            differences are shown, and the first decides on the rate. Defaults to the validation
            loss.
        highest: Whether the rate with the highest mean is the best, not the lowest.

    Returns:
        The runs at each optimizer's best rate, and what was printed as a dict.
    """
    results, measures = {}, measures or {"val_loss": "validation loss"}
    if tune:
        print(f"\nAll rates tried:\n{comparison.table(runs, columns)}")
        results["tuning"] = comparison.summary(runs, columns)
        best = comparison.best_rates(runs, next(iter(measures)), highest)
        for name in comparison.at_the_edge(runs, best):
            print(f"{name}: the best rate is the grid's last; --rates moves its middle")
        runs = [run for run in runs if run["learning_rate"] == best[run["optimizer"]]]
    print(f"\n{comparison.table(runs, columns)}\n")
    results |= {"summary": comparison.summary(runs, columns), "differences": []}
    for measure, label in measures.items():
        differences = comparison.paired_difference(runs, baseline, measure=measure)
        print(comparison.sentences(differences, label))
        results["differences"] += [{"measure": measure} | row for row in differences]
    return runs, results | {"runs": runs}


def report_noise(folder, path, title, steps):
    """Draws the noise that `StagedNoise` measured along a run; prints what it suggests.

    Args:
        folder: The run's folder, with the samples in the folder `noise`.
        path: Where to save the figure.
        title: Its title.
        steps: Steps of the training that the advice is for.

    Returns:
        Dict of the advice and each step's verdict, or `None` if there are no samples.
    """
    paths = sorted((folder / "noise").glob("*.npz"))
    if not paths:
        print("\nNo gradient noise: the run was finished before it was to be measured")
        return None
    samples = [noise.NoiseSample.load(path) for path in paths]
    figure = plots.evolution(samples, [f"step {sample.step:,}" for sample in samples], title)
    plots.save(figure, path)
    advice = samples[-1].advice(steps=steps).text
    print(f"\nGradient noise at step {samples[-1].step:,}:\n{advice}")
    verdicts = {sample.step: sample.classify().label for sample in samples}
    return {"advice": advice, "verdicts": verdicts}
