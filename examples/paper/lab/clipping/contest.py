"""Each contestant tuned on seeds of its own, then measured on fresh ones, at several scales."""

from ..comparison import t_interval
from .contestants import CONTESTANTS, MOVING
from .tuning import climb

START_THRESHOLD = 1.0
SCALES = (1e-3, 1e3)


def contest(make_problem, tuning_seeds, seeds):
    """Tunes and measures all contestants on a problem.

    Args:
        make_problem: Function from a contestant's name to the problem, whose `error(seed, rate,
            threshold, scale)` is what is to be small.
        tuning_seeds: Seeds to tune on.
        seeds: Seeds to measure on.

    Returns:
        dict: `runs`, dicts of `contestant`, `settings` (rate and threshold), `tried` (how many),
        `errors` (by seed), and for moving ones `scaled`, a dict from a scale of the loss to the
        errors; `differences`, dicts of `contestant`, its errors less the best fixed threshold's
        by seed, their `mean`, and `low` and `high` of its 95% interval.
    """
    runs = []
    for contestant in CONTESTANTS:
        problem = make_problem(contestant)
        start = {"rate": problem.start_rate}
        if contestant == "fixed":
            start["threshold"] = START_THRESHOLD

        def measure(settings, problem=problem):
            return sum(problem.error(seed, **settings) for seed in tuning_seeds)

        settings, tried = climb(measure, start)
        errors = [problem.error(seed, **settings) for seed in seeds]
        run = {"contestant": contestant, "settings": settings, "tried": tried, "errors": errors}
        if contestant in MOVING:
            run["scaled"] = {
                f"{scale:g}": [problem.error(seed, **settings, scale=scale) for seed in seeds]
                for scale in SCALES
            }
        runs.append(run)
        print(f"  {contestant}: {settings}, mean error {sum(errors) / len(errors):.4f}", flush=True)
    return {"runs": runs, "differences": _differences(runs)}


def _differences(runs):
    """Each contestant's errors less the best fixed threshold's with the same seeds."""
    (fixed,) = [run["errors"] for run in runs if run["contestant"] == "fixed"]
    rows = []
    for run in runs:
        if run["contestant"] != "fixed":
            differences = [e - f for e, f in zip(run["errors"], fixed, strict=True)]
            low, high = t_interval(differences)
            mean = sum(differences) / len(differences)
            rows.append(
                {"contestant": run["contestant"], "differences": differences}
                | {"mean": mean, "low": low, "high": high}
            )
    return rows
