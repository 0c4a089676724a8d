"""Training runs compared: mean and spread over seeds, paired differences, the loss figure.

A run is a dict: `optimizer`, `learning_rate`, `seed` and `history`, a list with one dict an epoch
of `step`, `loss`, `val_loss`, `val_accuracy`, `tokens_per_second` and `seconds`.
"""

import math
from itertools import cycle, groupby

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from keras_acclip.noise import plots

_COLUMNS = {
    "train loss": ("loss", 3),
    "validation loss": ("val_loss", 3),
    "accuracy": ("val_accuracy", 4),
    "tokens/s": ("tokens_per_second", 0),
    "seconds": ("seconds", 1),
}
_MARKERS = "os^Dvx"


def grouped(runs):
    """Dict from (optimizer, learning rate) to its runs, in the runs' order."""
    groups = {}
    for run in runs:
        groups.setdefault((run["optimizer"], run["learning_rate"]), []).append(run)
    return groups


def final(run):
    """What a run ended with: the last epoch's losses and speed, and the whole run's seconds."""
    history = run["history"]
    return {
        **history[-1],
        "tokens_per_second": float(np.median([row["tokens_per_second"] for row in history])),
        "seconds": sum(row["seconds"] for row in history),
    }


def summary(runs):
    """One dict for each optimizer and learning rate: mean and standard deviation over its seeds.

    The standard deviation is that of a sample (n − 1), NaN for a single seed.
    """
    rows = []
    for (optimizer, rate), group in grouped(runs).items():
        ends = [final(run) for run in group]
        row = {"optimizer": optimizer, "learning_rate": rate, "seeds": len(group)}
        for name, _ in _COLUMNS.values():
            values = [end[name] for end in ends]
            known = len(values) > 1 and np.isfinite(values).all()
            spread = float(np.std(values, ddof=1)) if known else math.nan
            row[name] = {"mean": float(np.mean(values)), "sd": spread}
        rows.append(row)
    return rows


def best_rates(runs):
    """Dict from optimizer to the learning rate of its lowest mean validation loss.

    A rate with a loss that is not finite counts as infinitely bad.
    """
    rates = {}
    for optimizer, rows in groupby(summary(runs), key=lambda row: row["optimizer"]):
        losses = {row["learning_rate"]: row["val_loss"]["mean"] for row in rows}
        rates[optimizer] = min(losses, key=lambda r: _or_infinite(losses[r]))
    return rates


def at_the_edge(runs, best):
    """The optimizers whose best rate is the lowest or the highest of those tried."""
    edges = []
    for name, rate in best.items():
        tried = [run["learning_rate"] for run in runs if run["optimizer"] == name]
        if rate in (min(tried), max(tried)):
            edges.append(name)
    return edges


def paired_difference(runs, baseline, confidence=0.95):
    """Each run's final validation loss less that of `baseline`'s run with the same seed.

    Args:
        runs: Runs of several optimizers over the same seeds, one learning rate each.
        baseline: The optimizer to compare with.
        confidence: Of the interval.

    Returns:
        List of dicts: `optimizer`, `differences` by seed, their `mean`, and `low` and `high`, the
        interval of Student's t over seeds (NaN for a single seed).
    """
    losses = {}
    for run in runs:
        losses.setdefault(run["optimizer"], {})[run["seed"]] = final(run)["val_loss"]
    reference = losses.pop(baseline, {})
    rows = []
    for optimizer, by_seed in losses.items():
        differences = [by_seed[seed] - reference[seed] for seed in by_seed if seed in reference]
        if not differences:
            continue
        low, high = _t_interval(differences, confidence)
        mean = float(np.mean(differences))
        rows.append(
            {"optimizer": optimizer, "differences": differences, "mean": mean}
            | {"baseline": baseline, "confidence": confidence, "low": low, "high": high}
        )
    return rows


def _t_interval(values, confidence):
    error = stats.sem(values) if len(values) > 1 else math.nan
    if not error > 0:
        return math.nan, math.nan
    low, high = stats.t.interval(confidence, len(values) - 1, np.mean(values), error)
    return float(low), float(high)


def plain(value):
    """`value` as strict JSON holds it: numbers that are not finite become `None`."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _or_infinite(loss):
    return loss if math.isfinite(loss) else math.inf


# --- To read ---------------------------------------------------------------------------------


def table(runs):
    """The summary as a Markdown table: mean ± standard deviation over seeds."""
    rows = [["optimizer", "learning rate", "seeds", *_COLUMNS]]
    for row in summary(runs):
        cells = [row["optimizer"], f"{row['learning_rate']:.3g}", str(row["seeds"])]
        cells += [_mean_and_spread(row[name], digits) for name, digits in _COLUMNS.values()]
        rows.append(cells)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    )


def sentences(differences):
    """The paired differences in words, one line each."""
    lines = []
    for row in differences:
        values = ", ".join(f"{value:+.3f}" for value in row["differences"])
        if math.isnan(row["low"]):
            interval = "no interval: it takes two seeds or more"
        else:
            interval = f"{row['confidence']:.0%} interval {row['low']:+.3f} to {row['high']:+.3f}"
        lines.append(
            f"{row['optimizer']} − {row['baseline']}, validation loss, same seeds: "
            f"{row['mean']:+.3f} ({interval}; by seed {values})"
        )
    return "\n".join(lines)


def _mean_and_spread(value, digits):
    mean = f"{value['mean']:,.{digits}f}"
    return mean if math.isnan(value["sd"]) else f"{mean} ± {value['sd']:,.{digits}f}"


def plot_losses(runs, path, title):
    """Saves train and validation curves, one line for each optimizer: mean and range over seeds.

    Args:
        runs: Runs, one learning rate for each optimizer.
        path: Where to save the figure (PNG or SVG).
        title: Its title.
    """
    with plots.style():
        figure, panels = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
        for marker, group in zip(cycle(_MARKERS), grouped(runs).values(), strict=False):
            for panel, name in zip(panels, ("loss", "val_loss"), strict=True):
                _draw_losses(panel, group, name, marker)
        for panel, name in zip(panels, ("Training", "Validation"), strict=True):
            panel.set(title=name, xlabel="step")
            panel.legend(title="optimizer, rate: at the end")
        panels[0].set_ylabel("masked-LM cross-entropy (nats a token)")
        # Training starts far above what is worth a look.
        validation = [row["val_loss"] for run in runs for row in run["history"]]
        highest = max(filter(math.isfinite, validation), default=None)
        panels[0].set_ylim(top=highest and 1.02 * highest)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
        plots.save(figure, path)
    plt.close(figure)


def _draw_losses(axes, group, name, marker):
    """Mean and range over seeds of the loss `name` of one optimizer's runs."""
    steps = [row["step"] for row in group[0]["history"]]
    losses = np.array([[row[name] for row in run["history"]] for run in group])
    label = f"{group[0]['optimizer']}, {group[0]['learning_rate']:.3g}: {losses[:, -1].mean():.3f}"
    (line,) = axes.plot(steps, losses.mean(0), label=label, marker=marker, markersize=4.5)
    axes.fill_between(
        steps, losses.min(0), losses.max(0), color=line.get_color(), alpha=0.15, linewidth=0
    )
