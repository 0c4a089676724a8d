"""Figures of several samples: along a training, of several models, on several kinds of data."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from keras_acclip.noise.plots.look import FAINT, FILL, INK, NORM, new_figure, style, title_of
from keras_acclip.noise.plots.views import (
    Sample,
    bin_edges,
    draw_histogram,
    draw_tail,
    draw_variance_growth,
    norms_and_verdict,
)
from keras_acclip.noise.tails import Verdict


def evolution(samples: Iterable[Sample], labels: Iterable[str], title: str | None = None) -> Figure:
    """Draws the distribution of the norms at each stage of training, one above the other.

    All stages share the axis of norms; each histogram has the same height, and a tick for each
    norm, so that single large ones show. On the right stand the verdict and its tail
    index (`tails.Verdict.tail_index`), where there is one.

    Args:
        samples: Samples in the order of training, from top to bottom; each as in `histogram`.
        labels: What to call each, such as `"step 1000"`.
        title: What is trained. Defaults to "Gradient noise"; first and last verdict come behind it.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: As `histogram`; if there are no samples, or not as many labels.

    Example:
        >>> figure = plots.evolution([before, after], ["step 0", "step 1000"])

    References:
        Zhang et al. (2020), Figure 2.
    """
    judged, labels = _several(samples, labels)
    with style():
        figure = new_figure(8.5, 1.6 + min(0.55 * len(judged), 12.0))
        axes = figure.subplots()
        bins, _ = bin_edges(axes, np.concatenate([norms for norms, _ in judged]), count=60)
        for row, (norms, verdict) in enumerate(judged):
            counts, _ = np.histogram(norms, bins)
            heights = 1.25 * counts / counts.max()
            axes.stairs(
                heights - row,
                bins,
                baseline=-row,
                fill=True,
                facecolor=FILL,
                edgecolor="white",
                linewidth=0.4,
                zorder=2 + 2 * row,
            )
            axes.stairs(
                heights - row, bins, baseline=None, color=INK, linewidth=0.8, zorder=3 + 2 * row
            )
            ticks = np.full(len(norms), -row)
            axes.plot(norms, ticks, "|", color=INK, markersize=4, alpha=0.3, zorder=3 + 2 * row)
            axes.axhline(-row, color=FAINT, linewidth=0.5, zorder=3 + 2 * row)
            alpha = verdict.tail_index[0]
            index = f", index {alpha:.3g}" if math.isfinite(alpha) else ""
            axes.annotate(
                f"{verdict.label}{index}",
                (1.01, -row),
                xycoords=axes.get_yaxis_transform(),
                va="bottom",
                fontsize=9,
            )
        step = -(-len(judged) // 25)
        axes.set_yticks([-row for row in range(0, len(judged), step)], labels[::step])
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.set_ylim(0.7 - len(judged), 1.35)
        axes.set_xlabel(NORM)
        verdicts = [verdict.label for _, verdict in judged]
        axes.set_title(
            f"{title or 'Gradient noise'}: "
            + " → ".join(label for label, _ in itertools.groupby([verdicts[0], verdicts[-1]])),
            fontweight="bold",
        )
    return figure


def grid(samples: Iterable[Sample], labels: Iterable[str], title: str | None = None) -> Figure:
    """Draws the histograms of several samples in two columns, each with its verdict.

    With four samples this is the paper's comparison of two models on two kinds of data.

    Args:
        samples: Samples, each as in `histogram`; row by row.
        labels: What to call each, such as `"attention, text"`.
        title: A title above all. Defaults to none.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: As `histogram`; if there are no samples, or not as many labels.

    Example:
        >>> figure = plots.grid([a, b, c, d], ["BERT, text", "ResNet, text", "BERT, …", "…"])

    References:
        Zhang et al. (2020), Figure 4.
    """
    judged, labels = _several(samples, labels)
    rows = -(-len(judged) // 2)
    with style():
        figure = new_figure(11, 0.4 + 3.8 * rows)
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=14, fontweight="bold")
        axes = figure.subplots(rows, 2, squeeze=False)
        for ax in axes.flat[len(judged) :]:
            ax.set_axis_off()
        for ax, label, (norms, verdict) in zip(axes.flat, labels, judged, strict=False):
            draw_histogram(ax, norms)
            ax.set_title(title_of(label, verdict), fontweight="bold")
    return figure


def side_by_side(
    samples: Iterable[Sample], labels: Iterable[str], title: str | None = None
) -> Figure:
    """Draws a row for each sample: histogram with references, variance against size, tail.

    Args:
        samples: Samples, each as in `histogram`, from top to bottom.
        labels: What to call each, such as `"BERT, text"`; its verdict is put behind it.
        title: A title above all. Defaults to none.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: As `histogram`; if there are no samples, or not as many labels.

    Example:
        >>> figure = plots.side_by_side([resnet, bert], ["ResNet, images", "BERT, text"])

    References:
        Zhang et al. (2020), Figure 1 (b) to (d) above (f) to (h).
    """
    judged, labels = _several(samples, labels)
    with style():
        figure = new_figure(16, 0.4 + 4.3 * len(judged))
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=14, fontweight="bold")
        rows: Any = figure.subfigures(len(judged), 1, squeeze=False)[:, 0]
        for row, label, (norms, verdict) in zip(rows, labels, judged, strict=True):
            row.suptitle(title_of(label, verdict), x=0.01, ha="left", fontweight="bold")
            draws = (draw_histogram, draw_variance_growth, draw_tail)
            for draw, axes in zip(draws, row.subplots(1, 3), strict=True):
                draw(axes, norms)
    return figure


def _several(
    samples: Iterable[Sample], labels: Iterable[str]
) -> tuple[list[tuple[np.ndarray, Verdict]], list[str]]:
    """Returns the norms and verdict of each sample, and the labels, checked to be as many."""
    samples, labels = list(samples), list(labels)
    if not samples or len(samples) != len(labels):
        raise ValueError(
            "There must be samples, and one label for each. "
            f"Received: {len(samples)} samples, {len(labels)} labels"
        )
    return [norms_and_verdict(sample) for sample in samples], labels
