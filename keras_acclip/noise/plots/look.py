"""The look that all figures share, their titles, axes and files."""

from __future__ import annotations

import contextlib
import os
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from keras_acclip.noise.tails import Verdict

NORM = "noise norm ‖g − ∇f‖ (units of the gradient)"

INK = "#000000"
ACCENT = "#d55e00"
FILL = "#c9c9c9"
FAINT = "#8a8a8a"

_STYLE: Any = {
    "figure.facecolor": "white",
    "figure.dpi": 100,
    "savefig.dpi": 150,
    "svg.fonttype": "none",
    "svg.hashsalt": "keras-acclip",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "white",
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
    "axes.prop_cycle": cycler(
        color=[INK, ACCENT, "#0072b2", "#56b4e9", "#009e73", "#cc79a7"],
        linestyle=["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2))],
    ),
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The look that all figures of the project share, as a context; readable in grey.

    Lines differ by dash as well as by colour. Matplotlib's settings are as before on leaving.

    Example:
        >>> with plots.style():
        ...     figure, axes = plt.subplots()
        ...     axes.plot(losses)
    """
    with matplotlib.rc_context(_STYLE):
        yield


def save(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Writes a figure to a PNG or SVG file.

    Args:
        figure: A figure of this module, or any other of Matplotlib's.
        path: The file, ending in `.png` or `.svg`; its folder must exist.

    Returns:
        The path, as a `pathlib.Path`.

    Raises:
        ValueError: If the path ends otherwise.

    Example:
        >>> plots.save(plots.panel(norms), "noise.svg")
    """
    path = Path(path)
    if path.suffix.lower() not in (".png", ".svg"):
        raise ValueError(f"Argument `path` must end in .png or .svg. Received: {str(path)!r}")
    metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
    with style():
        figure.savefig(path, metadata=metadata)
    return path


def new_figure(width: float, height: float) -> Figure:
    """Returns an empty figure that pyplot doesn't know of; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def title_of(title: str | None, verdict: Verdict) -> str:
    """Returns a title with the verdict behind it."""
    return f"{title or 'Gradient noise'}: {verdict.label}"


def plain_log_ticks(axis: Axis, ratio: float) -> None:
    """Writes plain numbers on a logarithmic axis, whose ends are `ratio` apart."""
    if ratio < 50:
        axis.set_major_locator(ticker.MaxNLocator(6, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(ticker.ScalarFormatter())
    else:
        axis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


def note(axes: Axes, text: str) -> None:
    """Writes why there is nothing to draw."""
    axes.set(xticks=[], yticks=[])
    axes.text(
        0.5,
        0.5,
        textwrap.fill(text, 50),
        transform=axes.transAxes,
        ha="center",
        va="center",
        fontsize=9,
        color=FAINT,
    )
