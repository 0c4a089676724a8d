"""Measures the gradient noise of the comparison's models while AdamW trains them.

    python benchmarks/training/noise.py
    python benchmarks/training/noise.py --workload mlm-16 --stages 0.5 --batches 1000

Each workload is trained once, by AdamW on seed 0, with the settings that the tuning chose, or with
its own where none are chosen yet. At the start, a quarter, half and the end of the steps the
weights stand still, and `keras_acclip.noise` measures the gradients of fresh batches of the
training's size: those that would come after its last. Models run on Keras's JAX backend with one
thread, as `run.py` trains.

Every stage of a workload is a line of `noise.jsonl`, beside the rows of the trainings. Ctrl-C stops
it; the same command goes on: a stage that has its line is not measured again, and a training goes
on from where it stood (a sixteenth of it is lost at most). `report.py` makes the tables.
"""

import argparse
import dataclasses
import json
import math
import re
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATHS = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "examples")]
sys.path[:0] = [path for path in PATHS if path not in sys.path]

from keras_acclip._utils.commands import Parser, positive, to_path  # noqa: E402
from keras_acclip._utils.files import write_atomically  # noqa: E402
from keras_acclip.noise.sample import LEAST_BATCHES  # noqa: E402
from keras_acclip.text.corpus import cache_key, default_cache_dir  # noqa: E402
from training import rows, workloads  # noqa: E402
from training.contestants import WITHOUT_DECAY  # noqa: E402
from training.noise_tables import NOISE, identity  # noqa: E402
from training.plan import FIRST_SEED, Study  # noqa: E402
from training.run import ROWS, circumstances, set_backend  # noqa: E402

CONTESTANT, SEED = "adamw", FIRST_SEED
USUAL = ("mlm-16", "mlm-128", "outliers", "zipf-64", "images", "lm")
STAGES = (0.0, 0.25, 0.5, 1.0)
# The first that a variable's path fits is its kind.
KINDS = {
    "normalizations and biases": "|".join(f"{name}$" for name in WITHOUT_DECAY),
    "embeddings": "embedding",
    "attention": "attention",
    "convolutions": "conv",
    "dense layers": "dense|feedforward|spans",
}


def parse_arguments(arguments=None):
    """The command line, checked."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--workload", nargs="+", default=list(USUAL), metavar="NAME", help="default: %(default)s")
    add(
        "--stages",
        nargs="+",
        type=share,
        default=list(STAGES),
        metavar="SHARE",
        help="shares of the steps to measure at (default: %(default)s)",
    )
    add("--batches", type=positive, default=400, help="batches a stage (default: %(default)s)")
    add("--rows", type=to_path, default=ROWS, help="the trainings' results file")
    options = parser.parse_args(arguments)
    if options.batches < LEAST_BATCHES:
        parser.error(f"--batches: at least {LEAST_BATCHES}, for a noise scale")
    try:
        options.workload = workloads.named(options.workload)
        options.found = rows.read(options.rows)
        rows.read(options.rows.parent / NOISE, identity)
    except ValueError as error:
        parser.error(str(error))
    for name in options.workload:
        if workloads.WORKLOADS[name].sizes.get("full"):
            parser.error(f"{name}: all steps see the same examples, so that there is no noise")
    return options


def share(text):
    """A number from 0 to 1, as the `type` of an option."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def settings_of(name, found):
    """AdamW's hyperparameters on a workload: what the tuning chose, else its own."""
    study = Study(name, workloads.WORKLOADS[name], CONTESTANT, found)
    return study.chosen() or study.untuned()


def planned(name, options):
    """The rows of a workload's stages, as far as they are known before any training."""
    steps = workloads.WORKLOADS[name].steps
    return [
        {
            "workload": name,
            "hyperparameters": settings_of(name, options.found),
            "seed": SEED,
            "steps": steps,
            "stage": stage,
            "step": round(stage * steps),
            "batches": options.batches,
        }
        for stage in sorted(set(options.stages))
    ]


# --- One workload ----------------------------------------------------------------------------


def with_further(workload, count):
    """A workload whose problems have so many batches beyond the training's last."""

    def make(of, seed, steps):
        return workload.make(of, seed, steps + count)

    return dataclasses.replace(workload, make=make)


def further_batches(problem, first, count):
    """Pairs of inputs and labels, NumPy arrays, of the steps from the first on."""
    import jax
    import numpy as np

    batch = jax.jit(problem.batch)
    made = (batch(problem.shared, problem.own, step) for step in range(first, first + count))
    return [jax.tree.map(np.asarray, pair) for pair in made]


def compile_loss(problem):
    """Compiles the model with the mean of the problem's losses, which the instrument measures."""

    def loss(labels, outputs):
        # Keras hands labels over as floats.
        return problem.losses(outputs, labels.astype("int32"))

    problem.model.compile(optimizer=None, loss=loss)


def groups_of(paths):
    """The kinds of variables that there are, as the instrument's groups."""
    return {
        kind: pattern
        for kind, pattern in KINDS.items()
        if any(re.search(pattern, path) for path in paths)
    }


def assign(model, state):
    """Puts the variables of a training's state, the first of it, into its model."""
    trainable, others, _ = state
    variables = [*model.trainable_variables, *model.non_trainable_variables]
    for variable, value in zip(variables, [*trainable, *others], strict=True):
        variable.assign(value[0])


def state_file(row):
    """Where the state of a stage's training is kept until its last stage is measured."""
    of = ("workload", "hyperparameters", "seed", "steps", "text", "versions", "commit")
    return default_cache_dir() / f"noise-{cache_key([row.get(name) for name in of])}.npz"


def save_state(path, taken, state):
    """Keeps a training's state after some steps."""
    import jax
    import numpy as np

    arrays = [np.asarray(x) for x in jax.tree.leaves(state)]
    write_atomically(path, lambda file: np.savez(file, np.int64(taken), *arrays))


def going_on(path, start, step):
    """Where a training goes on: the steps taken and its state.

    Args:
        path: Where it may have been kept.
        start: Its state before the first step.
        step: The next step to measure at; what was kept after it is of no use.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    if not path.exists():
        return 0, start
    with np.load(path) as kept:
        taken, *arrays = (kept[name] for name in kept.files)
    if taken > step:
        return 0, start
    return int(taken), jax.tree.unflatten(jax.tree.structure(start), map(jnp.asarray, arrays))


def samples(name, settings, steps_of_stages, count, path, progress):
    """Trains a workload's model, and measures its noise where the training comes to a stage.

    Args:
        name: The workload's.
        settings: AdamW's hyperparameters.
        steps_of_stages: The steps to measure at, rising.
        count: Batches of a measurement.
        path: Where to keep the training's state.
        progress: A function that is called with the steps taken and the measurements made.

    Yields:
        For each stage the held-out loss and a `NoiseSample`.
    """
    import jax
    import keras

    from keras_acclip.noise import NoiseMeter
    from keras_acclip.noise.data import open_batches
    from training import trainer

    keras.backend.clear_session()
    jax.clear_caches()
    workload = workloads.WORKLOADS[name]
    steps = workload.steps
    made = trainer.prepared(with_further(workload, count), CONTESTANT, [(settings, SEED)], steps)
    take, held_out = made.compiled()
    model = made.problem.model
    compile_loss(made.problem)
    meter = NoiseMeter(model, groups=groups_of([v.path for v in model.trainable_variables]))
    batches = open_batches(further_batches(made.problem, steps, count))
    taken, state = going_on(path, made.state, steps_of_stages[0])
    progress(taken, 0)
    stretch = -(-steps // workloads.CHECKPOINTS)
    for number, step in enumerate(steps_of_stages):
        while taken < step:
            until = min(step, taken + stretch)
            state, _ = take(state, taken, until)
            taken = until
            save_state(path, taken, state)
            progress(taken, number)
        assign(model, state)
        sample = meter.measure(batches, count, verbose=0)
        if sample.interrupted:
            raise KeyboardInterrupt
        losses, _ = held_out(state)
        progress(taken, number + 1)
        yield float(losses[0]), sample
    path.unlink(missing_ok=True)


def as_json(value):
    """A number of 6 digits that count; infinity as a text, and what is not a number as `None`."""
    if math.isnan(value):
        return None
    return float(f"{value:.6g}") if math.isfinite(value) else str(value)


def described(sample):
    """What a sample of norms tells of noise and gradient, as JSON values."""
    verdict, scale = sample.classify(), sample.noise_scale()
    return {
        "parameters": sample.parameters,
        "verdict": verdict.label,
        "reason": verdict.reason,
        "tail_index": [as_json(x) for x in verdict.tail_index],
        "noise_scale": [as_json(x) for x in (scale.value, scale.low, scale.high)],
        "noise_variance": as_json(sample.variance()),
        "squared_gradient": as_json(scale.squared_gradient),
    }


def row_of(sample, workload):
    """What a measurement adds to a stage's row."""
    length = workload.tokens // workload.batch
    tokens = sample.noise_scale().per_token(length)
    return {
        **described(sample),
        "batch": workload.batch,
        "noise_scale_in_tokens": [as_json(x) for x in (tokens.value, tokens.low, tokens.high)],
        "training_loss": as_json(sample.losses.mean()),
        "examples": sample.settings["examples"],
        "distinct_examples": sample.settings["distinct_examples"],
        "not_finite": sample.nonfinite,
        "groups": {group: described(sample.group(group)) for group in sample.groups},
        "norms": [as_json(norm) for norm in sample.norms],
    }


class Progress:
    """Prints how far a workload is; a batch that is measured counts as a step.

    Args:
        name: The workload's.
        last: The last step to measure at.
        stages: How many stages there are.
        count: Batches of each.
    """

    def __init__(self, name, last, stages, count):
        self.name, self.last, self.stages, self.count = name, last, stages, count
        self._first = None

    def __call__(self, taken, measured):
        """Prints a line.

        Args:
            taken: Steps of the training.
            measured: Stages, of those to measure.
        """
        done, whole = taken + self.count * measured, self.last + self.count * self.stages
        first, started = self._first = self._first or (done, time.perf_counter())
        left = ""
        if first < done < whole:
            minutes = (time.perf_counter() - started) / (done - first) * (whole - done) / 60
            left = f", about {minutes:.0f} min left"
        print(
            f"  {self.name}: step {taken:,} of {self.last:,}, "
            f"{measured} of {self.stages} stages measured{left}",
            flush=True,
        )


def measure(name, options, known):
    """Measures a workload's stages that have no row yet, and adds each row as it is made.

    Args:
        name: The workload's.
        options: The command line's.
        known: What else each row says.
    """
    path, workload = options.rows.parent / NOISE, workloads.WORKLOADS[name]
    there = {identity(row) for row in rows.read(path, identity)}
    missing = [row for row in planned(name, options) if identity(row) not in there]
    if not missing:
        return
    text = workloads.name_of_text(name)
    if text:
        rows.check_text(options.found, name, text)
        known = known | {"text": text}
    steps = [row["step"] for row in missing]
    progress = Progress(name, steps[-1], len(steps), options.batches)
    settings, kept = missing[0]["hyperparameters"], state_file(missing[0] | known)
    print(f"{name}: AdamW with {json.dumps(settings)}", flush=True)
    made = samples(name, settings, steps, options.batches, kept, progress)
    for row, (loss, sample) in zip(missing, made, strict=True):
        added = row | {"loss": as_json(loss)} | row_of(sample, workload) | known
        rows.append(path, added)
        print(f"  {sample.noise_scale()}; {added['verdict']}: {added['reason']}", flush=True)


def main(arguments=None):
    """Measures what is missing. Returns the exit status."""
    options = parse_arguments(arguments)
    known = circumstances()
    set_backend()
    # A shell starts what runs in the background with its Ctrl-C ignored; a machine that goes down
    # sends the other.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        for name in options.workload:
            measure(name, options, known)
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on.", file=sys.stderr)
        return 130
    except rows.RowsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("Nothing is missing.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
