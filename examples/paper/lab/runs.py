"""Runs made one after another or several at a time, and reported on at the end."""

import functools
import os

from keras_acclip._utils import processes

from . import comparison, script
from .plans import name_of


class RunError(RuntimeError):
    """A run that could not be finished; the message says which one and why."""


def jobs(options, on_cpu=None):
    """The number of trainings at a time: `--jobs`, or one for each CPU where there is no GPU.

    Args:
        options: The parsed command line.
        on_cpu: Whether they run on CPUs. Defaults to whether there is no GPU.
    """
    if options.jobs:
        return options.jobs
    if on_cpu is None:
        on_cpu = not has_gpu()
    return processes.available_cpus() if on_cpu else 1


def has_gpu():
    """Whether TensorFlow finds a GPU."""
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


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


def start_missing(train, plan, work, length, jobs):
    """Starts the runs of a plan that are not whole, and returns the function to have one.

    Args:
        train: Module-level function, or a `partial` of one, from a spec to a run.
        plan: List of specs.
        work: The `resuming.Work` that holds the runs' rows.
        length: The number of rows of a whole run.
        jobs: As `start` takes it.

    Returns:
        Function from a spec to the run, as `conduct` takes it.
    """
    missing = {spec: spec for spec in plan if len(work.rows(name_of(spec))) < length}
    trained = start(train, missing, jobs)
    return lambda spec: trained(spec) if spec in missing else train(spec)


def _with_key(function, item):
    key, task = item
    return key, function(task)


def _share_cpus(jobs):
    import tensorflow as tf

    threads = max(1, processes.available_cpus() // jobs)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def conduct(plan, output, train, report, measure="val_loss", label="validation loss"):
    """Trains the runs of `plan` and reports on all. Returns the exit status.

    Args:
        plan: List of specs.
        output: The output folder, to name where the command goes on.
        train: Function from a spec to its run. A `RunError` of it is what is wrong with the run.
        report: Function of the list of runs.
        measure: The name in a run's history to print of its end.
        label: What to call it.
    """
    runs = []
    try:
        for number, spec in enumerate(plan, 1):
            optimizer, rate, seed = spec
            print(f"[{number}/{len(plan)}] {optimizer}, learning rate {rate:.3g}, seed {seed}")
            runs.append(train(spec))
            print(f"        {label} {comparison.final(runs[-1])[measure]:.4f}", flush=True)
    except KeyboardInterrupt:
        return script.stopped(output)
    except RunError as error:
        return script.failed(error, status=1)
    report(runs)
    return 0
