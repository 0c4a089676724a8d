"""The panels of `convergence_rates.py`: Table 1's two columns, their slopes, SGD and dimension."""

import numpy as np

from .. import figures
from . import slopes
from .dimension import DIMENSION_ALPHA
from .exponents import ALPHAS, bound_exponent, nonconvex_exponent
from .plain_sgd import METHODS


def draw(results, path):
    """Saves the six panels.

    Args:
        results: Dict from each part of the script's results to its fits.
        path: Where to save the figure.
    """
    title = "Rates under noise with an α-moment (Table 1)"
    with figures.picture(path, title, 2, 3, figsize=(16, 9)) as panels:
        draw_rates(panels[0, 0], results["strongly_convex"], "strongly convex (Theorem 4)")
        panels[0, 0].set(xlabel="step k", ylabel="E f(x̄) − f* (units of the loss)")
        draw_rates(panels[0, 1], results["nonconvex"], "non-convex (Theorem 2)")
        panels[0, 1].set(xlabel="steps K of the run", ylabel="E‖∇f‖ (units of the gradient)")
        draw_slopes(panels[0, 2], results)
        draw_sgd(panels[1, 0], results["sgd"])
        draw_growth(panels[1, 1], results["sgd"])
        draw_dimension(panels[1, 2], results["dimension"])


def draw_rates(axes, fits, title):
    """Errors against steps with the theorem's slope through the last point."""
    for marker, row in zip(figures.MARKERS, fits, strict=False):
        steps, mean = np.array(row["steps"]), np.array(row["mean"])
        label = f"α = {row['alpha']}: {row['slope']:.3f}, theorem {row['bound']:.3f}"
        (line,) = axes.loglog(steps, mean, marker=marker, markersize=4, label=label)
        band = row["mean_low"], row["mean_high"]
        axes.fill_between(steps, *band, color=line.get_color(), alpha=0.15, linewidth=0)
        late = steps[steps >= row.get("first", 0)]
        theory = mean[-1] * (late / late[-1]) ** row["bound"]
        axes.loglog(late, theory, color="#8a8a8a", linestyle="-", linewidth=0.9)
    axes.set_title(f"GClip, {title}")
    axes.legend(title="fitted slope (grey: theorem's, where fitted)", loc="lower left")
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom=bottom * (bottom / top) ** 0.6)  # Room for the legend.


def draw_slopes(axes, results):
    """Fitted slope against α, with intervals, on the theorems' curves."""
    alphas = np.linspace(ALPHAS[0], ALPHAS[-1], 50)
    panels = (
        ("strongly_convex", bound_exponent, "strongly convex", "o"),
        ("nonconvex", nonconvex_exponent, "non-convex", "s"),
    )
    for name, exponent, label, marker in panels:
        (line,) = axes.plot(alphas, exponent(alphas), label=f"{label}, theorem")
        fits = results[name]
        slopes.bars(axes, ALPHAS, fits, fmt=marker, color=line.get_color())
        expected = [row["expected"] for row in fits]
        axes.plot(ALPHAS, expected, "_", color=line.get_color(), markersize=14, linestyle="none")
    axes.set(title="Slope against α", xlabel="α", ylabel="slope of log error on log steps")
    axes.plot([], [], "k_", markersize=14, linestyle="none", label="expected of this instance")
    axes.legend()


def draw_sgd(axes, runs):
    """Median and mean error of each method over time, for one α."""
    alpha = ALPHAS[1]
    for marker, method in zip(figures.MARKERS, METHODS, strict=False):
        (row,) = (run for run in runs if (run["method"], run["alpha"]) == (method, alpha))
        (line,) = axes.loglog(
            row["steps"], row["mean"], marker=marker, markersize=4, label=f"{method}: mean"
        )
        style = {"marker": marker, "markersize": 4, "markerfacecolor": "white", "linewidth": 0.8}
        axes.loglog(
            *(row["steps"], row["median"]), color=line.get_color(), label="… median", **style
        )
    axes.set(title=f"SGD, α = {alpha}", xlabel="step k", ylabel="f(x_k) − f*")
    axes.set_ylim(top=30 * axes.get_ylim()[1])
    axes.legend(ncols=2, loc="upper right")


def draw_growth(axes, runs):
    """The mean error against the number of seeds it is taken over, rate 1/k."""
    for marker, alpha in zip(figures.MARKERS[::2], ALPHAS[::2], strict=False):
        for method in METHODS[2:]:
            (row,) = (run for run in runs if (run["method"], run["alpha"]) == (method, alpha))
            fill = "white" if method.startswith("GClip") else None
            axes.loglog(
                *(row["counts"], row["mean_by_seeds"]),
                marker=marker,
                markersize=4,
                markerfacecolor=fill,
                label=f"{method}, α = {alpha}",
            )
    axes.set(
        title="An infinite mean grows with the seeds",
        xlabel="number of seeds",
        ylabel="mean of f(x_k) − f* over them, at the end",
    )
    axes.legend()


def draw_dimension(axes, fits):
    """Errors of GClip and CClip against the dimension."""
    for marker, row in zip(figures.MARKERS, fits, strict=False):
        label = f"{row['method']}: slope {row['slope']:.3f}, bound {row['bound']:.3f}"
        (line,) = axes.loglog(row["steps"], row["mean"], marker=marker, label=label)
        band = row["mean_low"], row["mean_high"]
        axes.fill_between(row["steps"], *band, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set(
        title=f"Dimension, α = {DIMENSION_ALPHA} (Theorem 8, Corollary 7)",
        xlabel="dimension d",
        ylabel="(E f(x̄) − f*)/‖B‖₂²",
    )
    axes.legend()
