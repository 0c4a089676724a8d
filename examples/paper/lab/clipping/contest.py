"""Each contestant tuned on seeds of its own, then measured on fresh ones, at several scales."""

from ..comparison import t_interval
from .contestants import CONTESTANTS, MOVING, TUNED
from .tuning import climb

SCALES = (1e-3, 1e3)


def contest(make_problem, start_rate, tuning_seeds, seeds):
    """Tunes and measures all contestants on a problem.

    Args:
        make_problem: Function from a contestant's name and settings to the problem, whose
            `error(seed, rate, threshold, scale)` is what is to be small.
        start_rate: Where the grid of rates starts.
        tuning_seeds: Seeds to tune on.
        seeds: Seeds to measure on.

    Returns:
        dict: `runs`, dicts of `contestant`, `settings` (rate and what else was tuned), `tried`
        (how many), `errors` (by seed), and for moving ones `scaled`, a dict from a scale of the
        loss to the errors; `differences`, dicts of `contestant`, its errors less the best fixed
        threshold's by seed, their `mean`, and `low` and `high` of its 95% interval.
    """
    runs = []
    for contestant in CONTESTANTS:
        made = {}

        def error(seed, settings, scale=1.0, contestant=contestant, made=made):
            # A fixed threshold is set anew; a moving one's settings are compiled.
            own = {k: v for k, v in settings.items() if k in ("multiple", "odds")}
            key = tuple(own.values())
            if key not in made:
                made[key] = make_problem(contestant, **own)
            given = {k: v for k, v in settings.items() if k not in own}
            return made[key].error(seed, **given, scale=scale)

        def measure(settings, error=error):
            return sum(error(seed, settings) for seed in tuning_seeds)

        start = {"rate": start_rate} | TUNED.get(contestant, {})
        settings, tried = climb(measure, start)
        errors = [error(seed, settings) for seed in seeds]
        run = {"contestant": contestant, "settings": settings, "tried": tried, "errors": errors}
        if contestant in MOVING:
            run["scaled"] = {
                f"{scale:g}": [error(seed, settings, scale) for seed in seeds] for scale in SCALES
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
