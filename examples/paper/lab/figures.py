"""Pictures: a figure in the package's style, and the curves of runs."""

import contextlib
import math
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np

from keras_acclip.noise import plots

from .comparison import grouped

MARKERS = "os^DvxP"


@contextlib.contextmanager
def picture(path, title, *shape, **options):
    """A figure to draw on, saved where nothing goes wrong: a context whose value is its panels.

    Args:
        path: Where to save it (PNG or SVG).
        title: Its title.
        *shape: Rows and columns of panels.
        **options: As `plt.subplots` takes them.

    Example:

    >>> with picture("loss.png", "Loss", 1, 2, figsize=(10, 4)) as panels:
    ...     panels[0].plot(losses)
    """
    with plots.style():
        figure, panels = plt.subplots(*shape, layout="constrained", **options)
        try:
            yield panels
            figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
            plots.save(figure, path)
        finally:
            plt.close(figure)


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
    count = len(curves)
    with picture(path, title, 1, count, figsize=(5 * count, 4.2), sharey=sharey) as panels:
        for panel, (name, (heading, label)) in zip(panels, curves.items(), strict=True):
            for marker, group in zip(cycle(MARKERS), grouped(runs).values(), strict=False):
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


def _draw_curve(axes, group, name, marker):
    """Mean and range over seeds of the measure `name` of one optimizer's runs."""
    steps = [row["step"] for row in group[0]["history"]]
    values = np.array([[row[name] for row in run["history"]] for run in group])
    label = f"{group[0]['optimizer']}, {group[0]['learning_rate']:.3g}: {values[:, -1].mean():#.4g}"
    (line,) = axes.plot(steps, values.mean(0), label=label, marker=marker, markersize=4.5)
    axes.fill_between(
        steps, values.min(0), values.max(0), color=line.get_color(), alpha=0.15, linewidth=0
    )
