"""The picture of `rmsprop_as_clipping.py`."""

import math

from .. import figures
from .step_sizes import BINS, BOUNDS, QUANTILES


def draw(runs, path, title):
    """Saves the ratio over training and at the end, the clipped share, and the losses.

    Args:
        runs: Runs of one seed, one for each of `STEPS`.
        path: Where to save the figure.
        title: Its title.
    """
    steps = [row["step"] for row in runs[0]["history"]]
    with figures.picture(path, title, 2, 2, figsize=(12, 8)) as panels:
        (ratio, histogram), (clipped, loss) = panels
        _draw_quantiles(ratio, steps, runs[0])
        for run, marker in zip(runs, "os", strict=True):
            rows, name = run["history"], run["optimizer"]
            line = {"label": name, "marker": marker, "markersize": 4.5}
            dash = "-" if marker == "o" else "--"
            histogram.stairs(rows[-1]["counts"], BINS, label=name, linestyle=dash)
            clipped.plot(steps, [100 * row["clipped"] for row in rows], **line)
            loss.plot(steps, [row["val_loss"] for row in rows], **line)
        histogram.axvline(
            math.sqrt(2), color="black", linestyle=":", label="√2, the bound for ε = 0"
        )
        histogram.set(title=f"At the end, step {steps[-1]:,}", xlabel="h_clip / h_Adam")
        histogram.set(ylabel="coordinates in a bin (count)", yscale="log")
        clipped.set(title="Clipped coordinates, |g| > τ", ylabel="share of coordinates (%)")
        loss.set(title="Validation", ylabel="masked-LM cross-entropy (nats a token)")
        for panel in (ratio, clipped, loss):
            panel.set_xscale("symlog", linthresh=1)
            panel.xaxis.set_major_formatter("{x:,.0f}")
            panel.set(xlabel="step", xlim=(-0.1, 1.3 * steps[-1]))
        for panel in panels.flat:
            panel.legend()


def _draw_quantiles(panel, steps, run):
    for q, label, marker in (
        (1, "largest", "^"),
        (0.999, "99.9%", "D"),
        (0.99, "99%", "s"),
        (0.5, "median", "o"),
        (0, "least", "v"),
    ):
        values = [row["quantiles"][QUANTILES.index(q)] for row in run["history"]]
        panel.plot(steps, values, marker=marker, markersize=4.5, label=label)
    for bound in BOUNDS:
        panel.axhline(bound, color="black", linestyle=":", linewidth=1.2)
    axis = panel.get_yaxis_transform()
    panel.annotate("the paper's bounds: ½ and 2", (0.98, 0.55), ha="right", xycoords=axis)
    panel.set(title=f"Ratio of the steps, {run['optimizer']}", ylabel="h_clip / h_Adam")
    panel.set_ylim(0.4, 2.1)
