"""Trains what a comparison of optimizers lacks, and keeps every training as a row.

    python benchmarks/training/run.py --workload zipf
    python benchmarks/training/run.py --workload mlm-16 --stage tune --processes 2
    python benchmarks/training/run.py --workload mlm --together 32 --processes 1 --tokens tokens

The stages: `tune` chooses each contestant's hyperparameters (16 trials at a quarter of the budget,
6 at half, 3 at all of it, and trials beyond a grid's edge while the best lies there). `refine` goes
on from there with the whole budget, where the loss stays on a plateau at first: AdamW tries
ACClip's choice and ACClip AdamW's, then each what lies beside its best. `confirm` trains the chosen
on fresh seeds. `choose-defaults` trains on the tuning seeds what ACClip's defaults may become, and
`defaults` AdamW, ACClip and the best of these, untuned, on the fresh ones. `sweep` varies rate, β1,
β2 and warm-up around the chosen. Without `--stage` they come in this order, for the core
of the contestants on every workload first. Ctrl-C stops it; the same command goes on: what has a
row is not trained again, and what a training in progress had done is.

Models train on Keras's JAX backend, each process with one thread for its matrices. On a GPU, many
trainings of small models go together in one program (`--together`). A machine without TensorFlow
needs the text's tokens from another (`--save-tokens` there, `--tokens` here). `report.py` makes the
page from the rows.

`gpt-30m`, a GPT of 31 million parameters on 600 million tokens of a text of yours, in bfloat16, is
for a GPU, and trained only where it is named:

    python benchmarks/training/run.py --workload gpt-30m --save-tokens tokens --text 'text/*.txt'
    python benchmarks/training/run.py --workload gpt-30m --tokens tokens --processes 1
"""

import argparse
import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Executor, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATHS = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "examples")]
sys.path[:0] = [path for path in PATHS if path not in sys.path]

from contest.report import processor  # noqa: E402
from keras_acclip._utils.commands import Parser, positive, to_path  # noqa: E402
from training import rows, workloads  # noqa: E402
from training.contestants import CONTESTANTS, NEW_DEFAULTS  # noqa: E402
from training.plan import FIRST_SEED, Job, Study  # noqa: E402
from training.workloads import TOKENS  # noqa: E402

ROWS = ROOT / "docs" / "results" / "training" / "rows.jsonl"
STAGES = {
    "tune": Study.tuning,
    "refine": Study.refining,
    "confirm": Study.confirming,
    "choose-defaults": Study.choosing_defaults,
    "defaults": Study.comparing_defaults,
    "sweep": Study.sweeping,
}
OF_DEFAULTS = ("choose-defaults", "defaults")


def parse_arguments(arguments=None):
    """The command line, checked."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    names = f"{', '.join(workloads.WORKLOADS)}; zipf or mlm for all sizes"
    add("--workload", nargs="+", default=workloads.usual(), metavar="NAME", help=names)
    add("--stage", nargs="+", choices=STAGES, default=list(STAGES), help="default: all, in order")
    add(
        "--contestants",
        nargs="+",
        choices=CONTESTANTS,
        metavar="NAME",
        help=f"{', '.join(CONTESTANTS)}; default: those that the workload has",
    )
    add("--processes", type=positive, default=2, help="trainings at a time (default: 2)")
    add("--together", type=positive, default=1, help="trainings in one program (default: 1)")
    add("--tokens", type=to_path, metavar="FOLDER", help="tokens made on another machine")
    add("--save-tokens", type=to_path, metavar="FOLDER", help="make them, and train nothing")
    add("--text", nargs="+", metavar="FILE", help="with --save-tokens: text of your own")
    add("--rows", type=to_path, default=ROWS, help="the results file")
    add("--plan", action="store_true", help="list the next trainings and train nothing")
    options = parser.parse_args(arguments)
    try:
        options.workload = workloads.named(options.workload)
    except ValueError as error:
        parser.error(str(error))
    if options.text and not options.save_tokens:
        parser.error("--text goes with --save-tokens; trainings read what it made by --tokens")
    if options.text and "squad" in options.workload:
        parser.error("squad asks about the installed packages' docstrings; it takes no --text")
    return options


def take_part(name, core, contestants=None, stage=None):
    """The contestants of a workload, in or outside the core.

    Args:
        name: The workload's.
        core: Which of the two.
        contestants: Names that alone may take part; `None` for all that the workload has.
        stage: The stage's name: those of defaults take whoever's step may become ACClip's.
    """
    all_take_part = core or workloads.WORKLOADS[name].all_take_part
    asked = {whose for whose, _ in NEW_DEFAULTS.values()} if stage in OF_DEFAULTS else ()
    return [
        c
        for c, made in CONTESTANTS.items()
        if made.core == core and (c in contestants if contestants else all_take_part or c in asked)
    ]


def next_jobs(found, options):
    """The next trainings that wait for nothing: the core on each workload, then the others.

    Returns:
        The stage and its jobs, which are of one workload; `None` and no jobs at the end.
    """
    for core in (True, False):
        for name in options.workload:
            for stage in options.stage:
                contestants = take_part(name, core, options.contestants, stage)
                studies = [Study(name, workloads.WORKLOADS[name], c, found) for c in contestants]
                jobs = [job for study in studies for job in STAGES[stage](study)]
                if jobs:
                    return stage, jobs
    return None, []


@dataclasses.dataclass(frozen=True)
class Batch:
    """Trainings in one program: of one workload and contestant, and of as many steps.

    Attributes:
        workload: Its name.
        contestant: Its name.
        members: Pairs of hyperparameters, as a `Job` has them, and a seed.
        steps: Steps of each.
    """

    workload: str
    contestant: str
    members: tuple[tuple[tuple[tuple[str, float], ...], int], ...]
    steps: int

    def __str__(self):
        first = Job(self.workload, self.contestant, self.members[0][0], (), self.steps)
        more = len(self.members) - 1
        return f"{first}" + (f" and {more} more" if more else "")


def batches(jobs: list[Job], together: int) -> list[Batch]:
    """Jobs as batches of at most `together` trainings."""
    pools: dict[tuple, list] = {}
    for job in jobs:
        kind = job.workload, job.contestant, job.steps
        if not CONTESTANTS[job.contestant].traced:
            kind += (job.hyperparameters,)
        pools.setdefault(kind, []).extend((job.hyperparameters, seed) for seed in job.seeds)
    return [
        Batch(kind[0], kind[1], tuple(members[i : i + together]), kind[2])
        for kind, members in pools.items()
        for i in range(0, len(members), together)
    ]


# --- One process of trainings ----------------------------------------------------------------


def start_process():
    """Makes a process ready to train; the parent alone hears Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    set_backend()


def set_backend():
    """Keras on JAX, with one thread for its matrices; before either is loaded."""
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    os.environ["XLA_FLAGS"] = " ".join(
        [os.environ.get("XLA_FLAGS", ""), "--xla_cpu_multi_thread_eigen=false"]
    ).strip()


def train(batch: Batch, path: Path, known: dict) -> int:
    """Trains what a batch has and adds the rows. Returns how many there were."""
    import jax
    import keras

    from training import trainer

    keras.backend.clear_session()
    jax.clear_caches()
    workload = workloads.WORKLOADS[batch.workload]
    text = workloads.name_of_text(batch.workload)
    if text:
        known = known | {"text": text}
        rows.check_text(rows.read(path), batch.workload, text)
    members = [(dict(settings), seed) for settings, seed in batch.members]
    device = jax.devices()[0]
    filled = members if device.platform == "cpu" else filled_up(members)
    results = trainer.train(workload, batch.contestant, filled, batch.steps)[: len(members)]
    if device.platform != "cpu":
        known = known | {"machine": f"{device.device_kind}, {known['machine']}"}
    for (settings, seed), result in zip(members, results, strict=True):
        if seed in workload.tuning_seeds:
            # Of a trial the final loss alone counts.
            result = {k: v for k, v in result.items() if k not in ("curve", "fifths")}
        row = {
            "workload": batch.workload,
            "contestant": batch.contestant,
            "hyperparameters": settings,
            "seed": seed,
            "steps": batch.steps,
            "tokens": batch.steps * workload.tokens,
        }
        rows.append(path, row | _rounded(result) | known)
    return len(members)


def filled_up(members: list) -> list:
    """Members with repetitions up to a power of two, 4 at least.

    An accelerator compiles a program for longer than it runs it: so a study needs three or four of
    them, not one for each number of trainings, and finds the others in JAX's cache.
    """
    count = max(4, 1 << (len(members) - 1).bit_length())
    return members + [members[-1]] * (count - len(members))


def _rounded(value):
    """JSON values with floats of 6 digits that count, which a results file is read with."""
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def circumstances():
    """Commit, versions and machine, for a row."""
    from importlib.metadata import version

    def git(*words):
        try:
            run = subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True)
        except FileNotFoundError:
            return ""
        return run.stdout.strip()

    cpu = f"{os.cpu_count()} cores of {processor()}"
    changed = bool(git("status", "--porcelain", "--untracked-files=no", "--", "*.py"))
    return {
        "commit": git("rev-parse", "--short=12", "HEAD") + "+" * changed,
        "versions": {name: version(name) for name in ("keras", "jax", "numpy")},
        "machine": cpu,
        "date": time.strftime("%Y-%m-%d"),
    }


# --- The command -----------------------------------------------------------------------------


def conduct(stage: str | None, made: list[Batch], pool: Executor, path: Path, known: dict) -> None:
    """Trains batches, a line of progress for each."""
    started, count = time.perf_counter(), sum(len(batch.members) for batch in made)
    print(f"{stage}: {count} trainings of {made[0].workload}", flush=True)
    waiting = {pool.submit(train, batch, path, known): batch for batch in made}
    done = 0
    while waiting:
        finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
        for future in finished:
            batch = waiting.pop(future)
            done += future.result()
            minutes = (time.perf_counter() - started) / 60
            left = minutes / done * (count - done)
            print(f"  {done}/{count}, about {left:.0f} min left: {batch}", flush=True)


def save_tokens(options):
    """Writes what the workloads of text read. Returns the exit status."""
    from keras_acclip.text.corpus import TextError
    from training import text

    try:
        for size, length in workloads.texts(options.workload):
            print(text.save_rows(options.save_tokens, size, length, options.text), flush=True)
    except TextError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    os.environ[TOKENS] = str(options.save_tokens.resolve())
    for name in options.workload:
        workload = workloads.WORKLOADS[name]
        if workloads.has_masks(name):
            seeds = [*workload.tuning_seeds, *range(FIRST_SEED, FIRST_SEED + max(workload.seeds))]
            for path in text.save_masks(options.save_tokens, workload, seeds):
                print(path, flush=True)
        if name == "squad":
            from training import questions

            os.environ.pop(TOKENS)
            for path in questions.save(options.save_tokens):
                print(path, flush=True)
    return 0


def main(arguments=None):
    """Trains what is missing. Returns the exit status."""
    options = parse_arguments(arguments)
    if options.save_tokens:
        return save_tokens(options)
    try:
        found = rows.read(options.rows)
    except rows.RowsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    stage, jobs = next_jobs(found, options)
    if options.plan or not jobs:
        for job in jobs:
            print(f"{stage}: {job}, seeds {', '.join(map(str, job.seeds))}")
        print(f"{sum(len(job.seeds) for job in jobs)} trainings are next")
        return 0
    if options.tokens:
        os.environ[TOKENS] = str(options.tokens.resolve())
    known = circumstances()
    os.environ["PYTHONPATH"] = os.pathsep.join([*PATHS, os.environ.get("PYTHONPATH", "")])
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(options.processes, context, start_process)
    # A shell starts what runs in the background with its Ctrl-C ignored; a machine that goes down
    # sends the other.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        while jobs:
            conduct(stage, batches(jobs, options.together), pool, options.rows, known)
            stage, jobs = next_jobs(rows.read(options.rows), options)
    except KeyboardInterrupt:
        stop(pool)
        print("\nStopped. The same command goes on.", file=sys.stderr)
        return 130
    except rows.RowsError as error:
        stop(pool)
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenProcessPool:
        print("error: a process died; the same command goes on", file=sys.stderr)
        return 1
    except BaseException:
        stop(pool)
        raise
    pool.shutdown()
    print("Nothing is missing.")
    return 0


def stop(pool):
    """Ends a pool's processes without waiting for their trainings."""
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
        process.join()


if __name__ == "__main__":
    sys.exit(main())
