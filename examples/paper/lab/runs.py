"""Runs made one after another or several at a time, and reported on at the end."""

import contextlib
import functools
import importlib
import os

from keras_acclip._utils import processes

from . import comparison, script
from .plans import described, name_of


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


def pool(jobs, modules=()):
    """As many processes as there are jobs, which share the CPUs; this one if there is one job.

    Args:
        jobs: Number of trainings at a time.
        modules: Names of modules that they load at once, while this process does something else.

    Returns:
        A `processes.Pool`, a context.
    """
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"  # For the processes to come.
    return processes.Pool(jobs, functools.partial(_get_ready, jobs, tuple(modules)))


def start(function, tasks, pool):
    """Has work done by the processes of a pool.

    Args:
        function: Module-level function.
        tasks: Dict from a key to what the function is called with.
        pool: A `processes.Pool`.

    Returns:
        Function from a key to what `function` returned, which waits for it. It raises what
        `function` raises, and `RunError` if a process was killed.
    """
    results, done = pool.map(functools.partial(_with_key, function), tasks.items()), {}

    def wait(key):
        with killing_reported():
            while key not in done:
                done.update([next(results)])
        return done[key]

    return wait


def start_missing(train, plan, work, length, pool):
    """Starts the runs of a plan that are not whole, and returns the function to have one.

    Args:
        train: Module-level function, or a `partial` of one, from a spec to a run.
        plan: List of specs.
        work: The `resuming.Work` that holds the runs' rows.
        length: The number of rows of a whole run.
        pool: As `start` takes it.

    Returns:
        Function from a spec to the run, as `conduct` takes it.
    """
    missing = {spec: spec for spec in plan if len(work.rows(name_of(spec))) < length}
    trained = start(train, missing, pool)
    return lambda spec: trained(spec) if spec in missing else train(spec)


@contextlib.contextmanager
def killing_reported():
    """A context that raises `RunError` where a process was killed."""
    try:
        yield
    except processes.KilledError as error:
        raise RunError(f"{error}; --jobs 1 takes the least memory") from None


def _with_key(function, item):
    key, task = item
    return key, function(task)


def _get_ready(jobs, modules):
    import tensorflow as tf

    threads = max(1, processes.available_cpus() // jobs)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    for module in modules:
        importlib.import_module(module)


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
    return conclude(lambda: trained(plan, train, measure, label), output, report)


def conclude(make, output, report):
    """Reports on the runs that a function makes. Returns the exit status.

    Args:
        make: Function without arguments that returns the runs, and may raise a `RunError`.
        output: The output folder, to name where the command goes on.
        report: Function of the list of runs.
    """
    try:
        found = make()
    except KeyboardInterrupt:
        return script.stopped(output)
    except RunError as error:
        return script.failed(error, status=1)
    report(found)
    return 0


def trained(plan, train, measure="val_loss", label="validation loss"):
    """Trains the runs of `plan`, a line before and after each. Returns them.

    Args:
        plan: As `conduct` takes it, like the others.
        train: Function from a spec to its run.
        measure: The name in a run's history to print of its end.
        label: What to call it.
    """
    runs = []
    for number, spec in enumerate(plan, 1):
        print(f"[{number}/{len(plan)}] {described(spec)}", flush=True)
        runs.append(train(spec))
        print(f"        {label} {comparison.final(runs[-1])[measure]:.4f}", flush=True)
    return runs
