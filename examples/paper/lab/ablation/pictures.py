"""The pictures of `ablation.py`: what each part contributes, and loss against rate."""

import math

import numpy as np

from .. import comparison, figures


def draw_parts(found, path, title):
    """Saves the paired differences, a panel for each part.

    Args:
        found: `outcome.differences`'s.
        path: Where to save the figure.
        title: Its title.
    """
    heights = [len(rows) + 0.9 for rows in found.values()]
    shape = {
        "figsize": (9, 0.42 * sum(heights) + 1.2),
        "height_ratios": heights,
        "sharex": True,
        "squeeze": False,
    }
    with figures.picture(path, title, len(found), 1, **shape) as panels:
        for panel, (heading, rows) in zip(panels.flat, found.items(), strict=True):
            _draw_part(panel, rows)
            panel.set_title(heading)
        panels.flat[-1].set_xlabel(
            "difference in validation loss (nats a token; left of 0: lower)\n"
            "diamond: mean; circles: seeds; line: 95% interval"
        )
        # What lies farther out has diverged.
        most = max((abs(row["mean"]) for rows in found.values() for row in rows), default=1.0)
        panels.flat[-1].set_xlim(-min(1.5 * most, 1), min(1.5 * most, 1))


def _draw_part(panel, rows):
    for y, row in enumerate(rows):
        values = row["differences"]
        panel.plot(values, [y] * len(values), "o", mfc="none", mec="#8a8a8a", ms=5)
        if math.isfinite(row["low"]):
            panel.plot([row["low"], row["high"]], [y, y], "-", color="black")
        panel.plot(row["mean"], y, "D", color="#d55e00", ms=6)
    panel.axvline(0, color="black", linestyle=":", linewidth=1.2)
    names = [f"{row['optimizer']} − {row['baseline']}" for row in rows]
    panel.set_yticks(range(len(rows)), names)
    panel.set_ylim(len(rows) - 0.4, -0.6)


def draw_curves(runs, path, title, ceiling):
    """Saves loss against learning rate: mean and range over seeds, diverged runs as crosses.

    The rates of each optimizer are relative to its best, as their scales have nothing in common.

    Args:
        runs: Runs of several optimizers, each of several rates over the same seeds.
        path: Where to save the figure.
        title: Its title.
        ceiling: The loss above which a run counts as diverged.
    """
    best = {name: spec.rate for name, spec in comparison.best_specs(runs).items()}
    with figures.picture(path, title, figsize=(8, 4.8)) as panel:
        for marker, (name, rate) in zip(figures.MARKERS, best.items(), strict=False):
            own = [run for run in runs if run["optimizer"] == name]
            _draw_line(panel, marker, name, own, rate, ceiling)
        panel.set(xscale="log", xlabel="learning rate ÷ the optimizer's best")
        panel.set_ylabel("validation loss (nats a token)")
        panel.legend(title="× at the top: diverged on some seed")


def _draw_line(panel, marker, name, runs, best, ceiling):
    groups = comparison.grouped(runs)
    rates = np.array([spec.rate for spec in groups])
    losses = np.array([[comparison.final(run)["val_loss"] for run in g] for g in groups.values()])
    losses[~(losses <= ceiling)] = np.nan
    least = losses.mean(1)[list(rates).index(best)]
    label = f"{name}, best at {best:.3g}: {least:.3f}"
    (line,) = panel.plot(rates / best, losses.mean(1), marker=marker, markersize=5, label=label)
    style = {"color": line.get_color(), "alpha": 0.15, "linewidth": 0}
    panel.fill_between(rates / best, losses.min(1), losses.max(1), **style)
    diverged = rates[~np.isfinite(losses).all(1)] / best
    top = np.full(len(diverged), 0.97)
    axis = panel.get_xaxis_transform()
    panel.plot(diverged, top, "x", color=line.get_color(), transform=axis)
