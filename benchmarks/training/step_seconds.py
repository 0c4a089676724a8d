"""Times a step of each tuned contestant on the comparison's workloads, all in turns.

    python benchmarks/training/step_seconds.py
    python benchmarks/training/step_seconds.py --workload mlm-16 --rounds 9

Run it with nothing else on the machine. A step is the model's, forward and backward, and the
optimizer's, compiled, on Keras's JAX backend with one thread, as `run.py` trains. All contestants
of a workload whose tuning is through take turns, so that a drift of the machine's speed meets all
alike. `report.py` then tells the seconds to tuned AdamW's loss. Ctrl-C ends it; the workloads that
are through are kept.
"""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATHS = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "examples")]
sys.path[:0] = [path for path in PATHS if path not in sys.path]

from keras_acclip._utils.commands import Parser, positive, to_path  # noqa: E402
from training import rows, workloads  # noqa: E402
from training.contestants import CONTESTANTS  # noqa: E402
from training.plan import Study  # noqa: E402
from training.run import ROWS, circumstances, set_backend  # noqa: E402

SECONDS = "step_seconds.json"  # Beside the rows.


def parse_arguments(arguments=None):
    """The command line, checked."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    usual = workloads.usual()
    add("--workload", nargs="+", default=usual, metavar="NAME", help=", ".join(usual))
    add("--rounds", type=positive, default=9, help="turns of each (default: %(default)s)")
    add("--rows", type=to_path, default=ROWS, help="the results file")
    options = parser.parse_args(arguments)
    try:
        options.workload = workloads.named(options.workload)
        options.found = rows.read(options.rows)
    except ValueError as error:
        parser.error(str(error))
    return options


def entrant(workload, name, settings, seconds):
    """A contestant of a race; a turn is as many of its steps as fill some seconds.

    Args:
        workload: The `Workload`.
        name: A key of `CONTESTANTS`.
        settings: Its hyperparameters.
        seconds: Of a turn.
    """
    from contest import race
    from training import trainer

    steps = workload.steps
    made = trainer.prepared(workload, name, [(settings, 0)], steps)
    take, _ = made.compiled()
    state, taken = made.state, 0

    def turn(count):
        nonlocal state, taken
        # A training's data are as long as it is.
        taken = taken if taken + count <= steps else 0
        state, losses = take(state, taken, taken + count)
        losses.block_until_ready()
        taken += count

    turn(4)
    count = min(steps, race.calls_in(seconds, lambda: turn(4), 4))
    return race.Contestant(name, "compiled", lambda: turn(count), steps=count)


def timed(name, found, rounds):
    """Dict from each tuned contestant to the seconds of a step in each round."""
    from contest import race

    workload = workloads.WORKLOADS[name]
    chosen = {c: Study(name, workload, c, found).chosen() for c in CONTESTANTS}
    entrants = [entrant(workload, c, of, 0.5) for c, of in chosen.items() if of is not None]
    if entrants:
        race.race(entrants, rounds)
    return {e.method: [float(f"{s:.4g}") for s in e.seconds] for e in entrants}


def main(arguments=None):
    """Times what is tuned. Returns the exit status."""
    options = parse_arguments(arguments)
    known = circumstances()
    set_backend()
    path = options.rows.parent / SECONDS
    kept = json.loads(path.read_text("utf-8")) if path.exists() else {}
    from contest.report import write

    for name in options.workload:
        try:
            seconds = timed(name, options.found, options.rounds)
        except KeyboardInterrupt:
            print("\nStopped.", file=sys.stderr)
            return 130
        if not seconds:
            print(f"{name}: no contestant is tuned")
            continue
        kept[name] = {"seconds": seconds} | known
        write(path, kept)
        for contestant, of in seconds.items():
            print(f"{name}, {contestant}: {1e3 * sorted(of)[len(of) // 2]:.3g} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
