"""Training runs compared: mean and spread over seeds, paired differences, the loss figure.

A run is a dict: `optimizer`, `learning_rate`, `seed` and `history`, a list with one dict an epoch
of `step`, `loss`, `val_loss`, `seconds` and whatever else a table's columns name, such as
`val_accuracy` and `tokens_per_second`.
"""

import math
from itertools import cycle, groupby

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from keras_acclip.noise import plots

# Heading of a table's column: the name in a run's history and the digits that it is shown with.
COLUMNS = {
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
    """What a run ended with: the last epoch's losses, the usual speed, the whole run's seconds."""
    history = run["history"]
    speeds = [name for name in history[-1] if name.endswith("_per_second")]
    return {
        **history[-1],
        **{name: float(np.median([row[name] for row in history])) for name in speeds},
        "seconds": sum(row["seconds"] for row in history),
    }


def summary(runs, columns=COLUMNS):
    """One dict for each optimizer and learning rate: mean and standard deviation over its seeds.

    The standard deviation is that of a sample (n − 1), NaN for a single seed.

    Args:
        runs: Runs of several optimizers and learning rates.
        columns: What to sum up, as `COLUMNS`, the default.
    """
    rows = []
    for (optimizer, rate), group in grouped(runs).items():
        ends = [final(run) for run in group]
        row = {"optimizer": optimizer, "learning_rate": rate, "seeds": len(group)}
        for name, _ in columns.values():
            values = [end[name] for end in ends]
            known = len(values) > 1 and np.isfinite(values).all()
            spread = float(np.std(values, ddof=1)) if known else math.nan
            row[name] = {"mean": float(np.mean(values)), "sd": spread}
        rows.append(row)
    return rows


def best_rates(runs, measure="val_loss", highest=False):
    """Dict from optimizer to the learning rate of the lowest mean of a measure over its runs.

    A rate with a value that is not finite counts as infinitely bad.

    Args:
        runs: Runs of several optimizers and learning rates.
        measure: A name in the runs' history, of which the last value counts.
        highest: Whether the highest mean is the best instead.
    """
    sign = -1 if highest else 1
    rates = {}
    for optimizer, groups in groupby(grouped(runs).items(), key=lambda group: group[0][0]):
        means = {
            rate: sign * float(np.mean([final(run)[measure] for run in group]))
            for (_, rate), group in groups
        }
        rates[optimizer] = min(means, key=lambda rate: _or_infinite(means[rate]))
    return rates


def at_the_edge(runs, best):
    """The optimizers whose best rate is the lowest or the highest of those tried."""
    edges = []
    for name, rate in best.items():
        tried = [run["learning_rate"] for run in runs if run["optimizer"] == name]
        if rate in (min(tried), max(tried)):
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


def _or_infinite(value):
    return value if math.isfinite(value) else math.inf


# --- To read ---------------------------------------------------------------------------------


def table(runs, columns=COLUMNS):
    """The summary as a Markdown table: mean ± standard deviation over seeds."""
    rows = [["optimizer", "learning rate", "seeds", *columns]]
    for row in summary(runs, columns):
        cells = [row["optimizer"], f"{row['learning_rate']:.3g}", str(row["seeds"])]
        cells += [_mean_and_spread(row[name], digits) for name, digits in columns.values()]
        rows.append(cells)
    return markdown(rows)


def markdown(rows):
    """Rows of texts, the header first, as a Markdown table with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    header, *body = rows
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in (header, ["-" * width for width in widths], *body)
    )


def sentences(differences, measure="validation loss"):
    """The paired differences of `measure` in words, one line each."""
    lines = []
    for row in differences:
        values = ", ".join(f"{value:+.3f}" for value in row["differences"])
        if math.isnan(row["low"]):
            interval = "no interval: it takes two seeds or more"
        else:
            interval = f"{row['confidence']:.0%} interval {row['low']:+.3f} to {row['high']:+.3f}"
        lines.append(
            f"{row['optimizer']} − {row['baseline']}, {measure}, same seeds: "
            f"{row['mean']:+.3f} ({interval}; by seed {values})"
        )
    return "\n".join(lines)


def _mean_and_spread(value, digits):
    mean = f"{value['mean']:,.{digits}f}"
    return mean if math.isnan(value["sd"]) else f"{mean} ± {value['sd']:,.{digits}f}"


def plot_losses(runs, path, title, label="masked-LM cross-entropy (nats a token)"):
    """Saves train and validation curves, one line for each optimizer: mean and range over seeds.

    Args:
        runs: Runs, one learning rate for each optimizer.
        path: Where to save the figure (PNG or SVG).
        title: Its title.
        label: What the losses are, with their unit.
    """
    curves = {"loss": ("Training", label), "val_loss": ("Validation", "")}
    plot_curves(runs, path, title, curves, sharey=True)


def plot_curves(runs, path, title, curves, sharey=False, scale="linear"):
    """Saves a panel for each measure, one line for each optimizer: mean and range over seeds.

    Args:
        runs: Runs, one learning rate for each optimizer.
        path: Where to save the figure (PNG or SVG).
        title: Its title.
        curves: Dict from a name in the runs' history to its panel's title and y label.
        sharey: Whether the panels share their y axis; it then reaches as high as the last panel's
            curves, as training starts far above what is worth a look.
        scale: The y axes' scale.
    """
    with plots.style():
        count = len(curves)
        figure, panels = plt.subplots(
            1, count, figsize=(5 * count, 4.2), sharey=sharey, layout="constrained"
        )
        for panel, (name, (heading, label)) in zip(panels, curves.items(), strict=True):
            for marker, group in zip(cycle(_MARKERS), grouped(runs).values(), strict=False):
                _draw_curve(panel, group, name, marker)
            panel.set(title=heading, xlabel="step", ylabel=label, yscale=scale)
            if scale == "log":
                # Curves seldom span a decade: the minor ticks are what there is to read.
                panel.yaxis.set_major_formatter("{x:g}")
                panel.yaxis.set_minor_formatter("{x:g}")
                panel.grid(which="both")
            panel.legend(title="optimizer, rate: at the end")
        if sharey:
            values = [row[name] for run in runs for row in run["history"]]
            highest = max(filter(math.isfinite, values), default=None)
            panels[0].set_ylim(top=highest and 1.02 * highest)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
        plots.save(figure, path)
    plt.close(figure)


def _draw_curve(axes, group, name, marker):
    """Mean and range over seeds of the measure `name` of one optimizer's runs."""
    steps = [row["step"] for row in group[0]["history"]]
    values = np.array([[row[name] for row in run["history"]] for run in group])
    label = f"{group[0]['optimizer']}, {group[0]['learning_rate']:.3g}: {values[:, -1].mean():#.4g}"
    (line,) = axes.plot(steps, values.mean(0), label=label, marker=marker, markersize=4.5)
    axes.fill_between(
        steps, values.min(0), values.max(0), color=line.get_color(), alpha=0.15, linewidth=0
    )
