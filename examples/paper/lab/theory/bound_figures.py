"""The panels of `lower_bounds.py`: errors over K with the bound, and slopes over α."""

import numpy as np

from .. import figures
from . import slopes
from .exponents import ALPHAS, bound_exponent, nonconvex_exponent


def draw(results, path):
    """Saves both theorems' panels.

    For Theorem 6 the second panel and the slopes are those of the best iterate.

    Args:
        results: Dict of `theorem_5` and `theorem_6`, lists of `methods.summary`'s, one for each α.
        path: Where to save the figure.
    """
    low, high = 1, 3
    best = [row | {"methods": row["least"]} for row in results["theorem_6"]]
    theorems = (
        ("Theorem 5", results["theorem_5"], results["theorem_5"], (low, high), bound_exponent),
        ("Theorem 6", results["theorem_6"], best, (high, high), nonconvex_exponent),
    )
    labels = (("E f(x) − f*",) * 2, ("E‖∇f‖, average over the run", "E‖∇f‖, best iterate"))
    title = "Lower bounds and what methods reach"
    with figures.picture(path, title, 2, 3, figsize=(16, 9)) as panels:
        for axes, names, theorem in zip(panels, labels, theorems, strict=True):
            title, rows, other, shown, exponent = theorem
            for panel, drawn, i, label in zip(axes, (rows, other), shown, names, strict=False):
                draw_errors(panel, drawn[i], f"{title}, α = {ALPHAS[i]}", label)
            draw_slopes(axes[2], other, exponent, title)


def draw_errors(axes, row, title, label):
    """Each method's error over K, above the bound."""
    axes.fill_between(row["steps"], row["bounds"], 0.5 * min(row["bounds"]), color="#e6e6e6")
    axes.loglog(row["steps"], row["bounds"], color="#8a8a8a", linestyle="-", label="lower bound")
    for marker, (name, fitted) in zip(figures.MARKERS, row["methods"].items(), strict=False):
        axes.loglog(row["steps"], fitted["mean"], marker=marker, markersize=4, label=name)
    axes.set(title=title, xlabel="stochastic gradients K", ylabel=label)
    axes.legend()


def draw_slopes(axes, rows, exponent, title):
    """GClip's slope in K with its interval, the bound's own slope and the theorem's exponent."""
    fine = np.linspace(ALPHAS[0], ALPHAS[-1], 50)
    axes.plot(fine, exponent(fine), label="the theorem's exponent")
    bounds = [row["bound_slope"] for row in rows]
    axes.plot(ALPHAS, bounds, "_", linestyle="none", markersize=14, label="the bound's, same K")
    own = list(rows[0]["methods"])[-1]
    for shift, name, marker in ((-0.01, "GClip", "s"), (0.01, own, "o")):
        fits = [row["methods"][name] for row in rows]
        label = "GClip, tuned" if name == "GClip" else name
        slopes.bars(axes, ALPHAS + shift, fits, fmt=marker, label=label)
    axes.set(title=f"{title}: slope against α", xlabel="α", ylabel="slope of log error on log K")
    axes.legend()
