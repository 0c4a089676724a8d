"""The views of one sample, each drawn on axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from keras_acclip.noise import tails
from keras_acclip.noise.plots.look import ACCENT, FAINT, FILL, INK, NORM, note, plain_log_ticks


class HasNorms(Protocol):
    """An object with norms, such as a `NoiseSample`."""

    @property
    def norms(self) -> np.ndarray:
        """The norms; shape `(n,)`."""
        ...


Sample: TypeAlias = ArrayLike | HasNorms
"""Norms, shape `(n,)`, or an object with such an array as `.norms`."""

# Norms that spread over more than this factor are drawn on a logarithmic axis.
_WIDE = 8.0


def norms_and_verdict(sample: Sample) -> tuple[np.ndarray, tails.Verdict]:
    """Returns a sample's norms, and the verdict on them."""
    norms = np.asarray(getattr(sample, "norms", sample))
    return norms, tails.classify(norms)


def draw_histogram(axes: Axes, norms: np.ndarray) -> None:
    """Draws the histogram of norms, with the references that can be fitted."""
    bins, wide = bin_edges(axes, norms, count=40)
    counts, _ = np.histogram(norms, bins)
    axes.stairs(counts, bins, fill=True, color=FILL, label=f"{len(norms)} batches")
    middles = np.sqrt(bins[1:] * bins[:-1]) if wide else (bins[1:] + bins[:-1]) / 2
    references: tuple[tuple[Callable[[np.ndarray], tails.Reference], str, dict[str, Any]], ...] = (
        (tails.gaussian_reference, "Gaussian", {"color": INK, "linestyle": "--"}),
        (tails.stable_reference, "α-stable", {"color": ACCENT, "linestyle": "-"}),
    )
    for fit, name, line in references:
        try:
            law = fit(norms)
        except ValueError:
            axes.plot([], [], " ", label=f"{name} vectors: can't be fitted")
            continue
        parameter = "" if name == "Gaussian" else f", α = {law.alpha:.3g}"
        axes.plot(
            middles,
            len(norms) * np.diff(law.cdf(bins)),
            label=f"{name} vectors{parameter} (fit: p {_share(law.p_value)})",
            **line,
        )
    axes.set_title("Histogram and references")
    axes.set_yscale("log")
    axes.set_ylim(0.5, 8 * max(counts.max(), 1))
    axes.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axes.set_xlabel(NORM)
    axes.set_ylabel("batches in a bin (count)")
    axes.legend(loc="upper right")


def draw_variance_growth(axes: Axes, norms: np.ndarray, orders: int = 8, seed: int = 0) -> None:
    """Draws the variance against the sample size, in several random orders."""
    axes.set_title("Variance as the sample grows")
    axes.set_xlabel("sample size (batches)")
    axes.set_ylabel("variance of the norm (units squared)")
    try:
        growth = tails.variance_growth(norms, orders=orders, seed=seed)
    except ValueError as error:
        if len(norms) >= 2:
            raise
        note(axes, str(error))
        return
    shown = growth.sizes >= min(10, len(norms))
    sizes, variances = growth.sizes[shown], growth.variances[:, shown]
    for i, row in enumerate(variances):
        axes.plot(
            sizes,
            row,
            color=FAINT,
            linestyle="-",
            linewidth=0.9,
            label=f"{len(variances)} random orders" if i == 0 else None,
        )
    axes.axhline(variances[0, -1], color=INK, linestyle="--", linewidth=1.2, label="of all batches")
    if variances.min() > 0 and variances.max() > 10 * variances.min():
        axes.set_yscale("log")
    axes.legend(loc="best")


def draw_tail(axes: Axes, norms: np.ndarray) -> None:
    """Draws the share of norms above x, with Hill's fit."""
    axes.set_title("Tail and Hill's fit")
    axes.set_xlabel(NORM)
    axes.set_ylabel("share of batches above (log)")
    try:
        fit = tails.hill(norms)
    except ValueError as error:
        note(axes, str(error))
        return
    ascending = np.sort(norms[norms > 0])
    n = len(norms)
    above = (np.arange(len(ascending), 0, -1) - 0.5) / n
    axes.plot(ascending, above, ".", color=FAINT, markersize=4, label=f"{n} batches")
    x = np.geomspace(fit.threshold, ascending[-1], 50)
    ratio = fit.threshold / x

    def line(alpha: float) -> np.ndarray:
        return fit.k / n * ratio**alpha

    axes.fill_between(x, line(fit.high), line(fit.low), color=ACCENT, alpha=0.25, linewidth=0)
    axes.plot(
        x,
        line(fit.alpha),
        color=ACCENT,
        linestyle="-",
        label=f"Hill: {fit.alpha:.3g} ({fit.low:.3g} to {fit.high:.3g}), {fit.k} largest",
    )
    axes.plot(x, line(2.0), color=INK, linestyle=":", label="index 2: flatter is infinite variance")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(0.3 / n, 1.5)
    plain_log_ticks(axes.xaxis, ascending[-1] / ascending[0])
    axes.legend(loc="lower left")


def draw_hill_plot(axes: Axes, norms: np.ndarray) -> None:
    """Draws Hill's tail index against the number of largest norms."""
    axes.set_title("Hill plot")
    axes.set_xlabel("largest batches used, k (count)")
    axes.set_ylabel("tail index α")
    try:
        curve = tails.hill_plot(norms)
        fit = tails.hill(norms)
    except ValueError as error:
        note(axes, str(error))
        return
    axes.fill_between(
        curve.k, curve.low, curve.high, color=FILL, alpha=0.7, linewidth=0, label="95% interval"
    )
    axes.plot(curve.k, curve.alpha, color=INK, linestyle="-", label="Hill's estimate")
    axes.errorbar(
        fit.k,
        fit.alpha,
        [[fit.alpha - fit.low], [fit.high - fit.alpha]],
        fmt="o",
        color=ACCENT,
        capsize=4,
        label=f"chosen k = {fit.k}: α = {fit.alpha:.3g}",
    )
    axes.axhline(2, color=INK, linestyle=":", label="index 2: infinite variance below")
    axes.set_xscale("log")
    axes.set_yscale("log")
    plain_log_ticks(axes.xaxis, curve.k[-1] / curve.k[0])
    low, high = min(curve.low.min(), 1.5), max(curve.high.max(), 3.0)
    axes.set_ylim(low / 1.1, high * 1.1)
    plain_log_ticks(axes.yaxis, high / low)
    axes.legend(loc="best")


def bin_edges(axes: Axes, norms: np.ndarray, count: int) -> tuple[np.ndarray, bool]:
    """Returns the edges of `count` bins, and whether they and the axis are logarithmic."""
    low, high = norms.min(), norms.max()
    if low > 0 and high > _WIDE * np.median(norms):
        axes.set_xscale("log")
        plain_log_ticks(axes.xaxis, high / low)
        return np.geomspace(low, np.nextafter(high, 2 * high), count + 1), True
    return np.histogram_bin_edges(norms, count), False


def _share(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"
