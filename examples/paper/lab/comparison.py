"""Training runs compared: mean and spread over seeds, the best rates, paired differences.

A run is a dict, as `plans.run_of` makes it: `optimizer`, `learning_rate`, `seed`, `beta_1` and
`beta_2` where they are given, and `history`, a list with one dict an epoch of `step`, `loss`,
`val_loss`, `seconds` and whatever else a table's columns name, such as `val_accuracy` and
`tokens_per_second`.
"""

import math

import numpy as np
from scipy import stats

from .plans import spec_of

# Heading of a table's column: the name in a run's history and the digits that it is shown with.
COLUMNS = {
    "train loss": ("loss", 3),
    "validation loss": ("val_loss", 3),
    "accuracy": ("val_accuracy", 4),
    "tokens/s": ("tokens_per_second", 0),
    "seconds": ("seconds", 1),
}


def grouped(runs):
    """Dict from the specs but for the seed to their runs, in the runs' order."""
    groups = {}
    for run in runs:
        groups.setdefault(spec_of(run)._replace(seed=None), []).append(run)
    return groups


def final(run):
    """What a run ended with: the last epoch's losses, the usual speed, the whole run's seconds."""
    history = run["history"]
    speeds = [name for name in history[-1] if name.endswith("_per_second")]
    return {
        **history[-1],
        **{name: float(np.median([row[name] for row in history])) for name in speeds},
        "seconds": sum(row["seconds"] for row in history),
    }


def summary(runs, columns=COLUMNS):
    """One dict for each optimizer, rate and betas: mean and standard deviation over its seeds.

    The standard deviation is that of a sample (n − 1), NaN for a single seed.

    Args:
        runs: Runs of several optimizers and learning rates.
        columns: What to sum up, as `COLUMNS`, the default.
    """
    rows = []
    for spec, group in grouped(runs).items():
        ends = [final(run) for run in group]
        row = {"optimizer": spec.optimizer, "learning_rate": spec.rate} | spec.betas
        row["seeds"] = len(group)
        for name, _ in columns.values():
            values = [end[name] for end in ends]
            known = len(values) > 1 and np.isfinite(values).all()
            spread = float(np.std(values, ddof=1)) if known else math.nan
            row[name] = {"mean": float(np.mean(values)), "sd": spread}
        rows.append(row)
    return rows


def best_specs(runs, measure="val_loss", highest=False):
    """Dict from optimizer to the spec, without a seed, of the lowest mean of a measure.

    Means are over the runs of a rate and betas. A value that is not finite counts as infinitely
    bad.

    Args:
        runs: Runs of several optimizers, learning rates and betas.
        measure: A name in the runs' history, of which the last value counts.
        highest: Whether the highest mean is the best instead.
    """
    sign = -1 if highest else 1
    means = {
        spec: _or_infinite(sign * float(np.mean([final(run)[measure] for run in group])))
        for spec, group in grouped(runs).items()
    }
    best = {}
    for spec, mean in means.items():
        if spec.optimizer not in best or mean < means[best[spec.optimizer]]:
            best[spec.optimizer] = spec
    return best


def at_the_edge(runs, best, field="rate"):
    """The optimizers whose best rate or beta is the lowest or the highest of those tried.

    Args:
        runs: The runs of all that was tried.
        best: `best_specs`'s.
        field: `"rate"`, `"beta_1"` or `"beta_2"`; a beta that was not varied has no edge.
    """
    edges = []
    for name, spec in best.items():
        tried = {getattr(spec_of(run), field) for run in runs if run["optimizer"] == name}
        varied = field == "rate" or len(tried) > 1
        if varied and getattr(spec, field) in (min(tried), max(tried)):
            edges.append(name)
    return edges


def paired_difference(runs, baseline, confidence=0.95, measure="val_loss"):
    """Each run's final validation loss less that of `baseline`'s run with the same seed.

    Args:
        runs: Runs of several optimizers over the same seeds, one learning rate each.
        baseline: The optimizer to compare with.
        confidence: Of the interval.
        measure: What to compare instead of the validation loss: a name in the runs' history.

    Returns:
        List of dicts: `optimizer`, `differences` by seed, their `mean`, and `low` and `high`, the
        interval of Student's t over seeds (NaN for a single seed).
    """
    losses = {}
    for run in runs:
        losses.setdefault(run["optimizer"], {})[run["seed"]] = final(run)[measure]
    reference = losses.pop(baseline, {})
    rows = []
    for optimizer, by_seed in losses.items():
        differences = [by_seed[seed] - reference[seed] for seed in by_seed if seed in reference]
        if not differences:
            continue
        low, high = t_interval(differences, confidence)
        mean = float(np.mean(differences))
        rows.append(
            {"optimizer": optimizer, "differences": differences, "mean": mean}
            | {"baseline": baseline, "confidence": confidence, "low": low, "high": high}
        )
    return rows


def t_interval(values, confidence=0.95):
    """The interval of Student's t for the mean of some values; NaNs for a single one."""
    error = stats.sem(values) if len(values) > 1 else math.nan
    if not error > 0:
        return math.nan, math.nan
    low, high = stats.t.interval(confidence, len(values) - 1, np.mean(values), error)
    return float(low), float(high)


def _or_infinite(value):
    return value if math.isfinite(value) else math.inf
