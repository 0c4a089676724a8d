"""Figures of gradient noise: the paper's Figures 1, 2 and 4 for samples of one's own.

Each function takes norms (an array, or anything with a `.norms` array, such as a `NoiseSample`) and
returns a Matplotlib figure. None shows a window, registers the figure with pyplot or changes
Matplotlib's settings.

Example:
    >>> from keras_acclip.noise import plots
    >>> plots.save(plots.panel(norms, title="BERT, step 1000"), "noise.png")
"""

import contextlib
import itertools
import textwrap
from pathlib import Path

import numpy as np

from keras_acclip import noise

try:
    import matplotlib
    from matplotlib import ticker
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError(
        "keras_acclip.noise.plots needs Matplotlib: pip install 'keras-acclip[plot]'"
    ) from error

NORM = "noise norm ‖g − ∇f‖ (units of the gradient)"

_INK = "#000000"
_ACCENT = "#d55e00"
_FILL = "#c9c9c9"
_FAINT = "#8a8a8a"

_STYLE = {
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
    "axes.prop_cycle": matplotlib.cycler(
        color=[_INK, _ACCENT, "#0072b2", "#56b4e9", "#009e73", "#cc79a7"],
        linestyle=["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2))],
    ),
}

# Norms that spread over more than this factor are drawn on a logarithmic axis.
_WIDE = 8.0


@contextlib.contextmanager
def style():
    """The look that all figures of the project share, as a context; readable in grey.

    Lines differ by dash as well as by colour. Matplotlib's settings are as before on leaving.

    Example:
        >>> with plots.style():
        ...     figure, axes = plt.subplots()
        ...     axes.plot(losses)
    """
    with matplotlib.rc_context(_STYLE):
        yield


def histogram(sample, title=None):
    """Draws the histogram of the norms beside the Gaussian and the α-stable reference.

    Counts are on a logarithmic axis, so that a single large norm shows; so are norms, where the
    largest is over 8 times the median. The references are the fitted laws of norms of Gaussian and
    of α-stable vectors, as counts expected in each bin; p is that of the goodness of fit. The
    legend says where one can't be fitted: fewer than 20 norms, a norm of 0, or no or (α-stable) too
    little spread.

    Args:
        sample: Norms, shape `(n,)`, or an object with such an array as `.norms`.
        title: What the norms are of; the verdict is put behind it. Defaults to "Gradient noise".

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: If the sample is empty, not one-dimensional, or holds NaN, infinite or negative
            values.

    Example:
        >>> figure = plots.histogram(norms, title="ResNet")

    References:
        Zhang et al. (2020), Figure 1 (a), (c), (e), (g).
    """
    return _single(_draw_histogram, sample, title)


def variance_growth(sample, title=None, orders=8, seed=0):
    """Draws the empirical variance against the sample size, in several random orders.

    Args:
        sample: Norms, shape `(n,)`, or an object with such an array as `.norms`; at least 2.
        title: What the norms are of; the verdict is put behind it. Defaults to "Gradient noise".
        orders: Number of random orders. Defaults to 8.
        seed: Seed of the orders. Defaults to 0.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: As `histogram`; if `orders` is no positive whole number.

    Example:
        >>> figure = plots.variance_growth(norms)

    References:
        Zhang et al. (2020), Figure 1 (d), (h).
    """
    return _single(_draw_variance_growth, sample, title, orders=orders, seed=seed)


def tail(sample, title=None):
    """Draws the share of norms above x against x, both logarithmic, with Hill's fit and interval.

    A straight line is a power law; one flatter than the dotted line has infinite variance.

    Args:
        sample: Norms, shape `(n,)`, or an object with such an array as `.norms`.
        title: What the norms are of; the verdict is put behind it. Defaults to "Gradient noise".

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: As `histogram`.

    Example:
        >>> figure = plots.tail(norms)
    """
    return _single(_draw_tail, sample, title)


def hill_plot(sample, title=None):
    """Draws Hill's tail index against the number of largest norms that it rests on.

    Args:
        sample: Norms, shape `(n,)`, or an object with such an array as `.norms`.
        title: What the norms are of; the verdict is put behind it. Defaults to "Gradient noise".

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: As `histogram`.

    Example:
        >>> figure = plots.hill_plot(norms)

    References:
        H. Drees, L. de Haan, S. Resnick, "How to make a Hill plot", Annals of Statistics 28 (2000).
    """
    return _single(_draw_hill_plot, sample, title)


def panel(sample, title=None):
    """Draws all four views of one sample, with the verdict and its reason above.

    Histogram with references, variance against sample size, tail with Hill's fit, Hill plot.

    Args:
        sample: Norms, shape `(n,)`, or an object with such an array as `.norms`.
        title: What the norms are of; the verdict is put behind it. Defaults to "Gradient noise".

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: As `histogram`.

    Example:
        >>> plots.save(plots.panel(sample, title="BERT, step 1000"), "noise.png")

    References:
        Zhang et al. (2020), Figure 1.
    """
    norms, verdict = _judged(sample)
    with style():
        figure = _figure(11, 8)
        reason = textwrap.wrap(verdict.reason, 140)
        heading = _title(title, verdict) + "\n" * len(reason)
        figure.suptitle(heading, x=0.01, ha="left", fontsize=14, fontweight="bold")
        figure.text(0.01, 0.955, "\n".join(reason), va="top", ha="left", fontsize=10)
        for draw, axes in zip(
            (_draw_histogram, _draw_variance_growth, _draw_tail, _draw_hill_plot),
            figure.subplots(2, 2).flat,
            strict=True,
        ):
            draw(axes, norms)
    return figure


def evolution(samples, labels, title=None):
    """Draws the distribution of the norms at each stage of training, one above the other.

    All stages share the axis of norms; each histogram has the same height, and a tick for each
    norm, so that single large ones show. On the right stand the verdict and Hill's tail index.

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
    judged = _several(samples, labels)
    with style():
        figure = _figure(8.5, 1.6 + min(0.55 * len(judged), 12.0))
        axes = figure.subplots()
        bins, _ = _bins(axes, np.concatenate([norms for norms, _ in judged]), count=60)
        for row, (norms, verdict) in enumerate(judged):
            counts, _ = np.histogram(norms, bins)
            heights = 1.25 * counts / counts.max()
            axes.stairs(
                heights - row,
                bins,
                baseline=-row,
                fill=True,
                facecolor=_FILL,
                edgecolor="white",
                linewidth=0.4,
                zorder=2 + 2 * row,
            )
            axes.stairs(
                heights - row, bins, baseline=None, color=_INK, linewidth=0.8, zorder=3 + 2 * row
            )
            ticks = np.full(len(norms), -row)
            axes.plot(norms, ticks, "|", color=_INK, markersize=4, alpha=0.3, zorder=3 + 2 * row)
            axes.axhline(-row, color=_FAINT, linewidth=0.5, zorder=3 + 2 * row)
            index = "" if verdict.hill is None else f", index {verdict.hill.alpha:.3g}"
            axes.annotate(
                f"{verdict.label}{index}",
                (1.01, -row),
                xycoords=axes.get_yaxis_transform(),
                va="bottom",
                fontsize=9,
            )
        step = -(-len(judged) // 25)
        axes.set_yticks([-row for row in range(0, len(judged), step)], list(labels)[::step])
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


def grid(samples, labels, title=None):
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
    judged = _several(samples, labels)
    rows = -(-len(judged) // 2)
    with style():
        figure = _figure(11, 0.4 + 3.8 * rows)
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=14, fontweight="bold")
        axes = figure.subplots(rows, 2, squeeze=False)
        for ax in axes.flat[len(judged) :]:
            ax.set_axis_off()
        for ax, label, (norms, verdict) in zip(axes.flat, labels, judged, strict=False):
            _draw_histogram(ax, norms)
            ax.set_title(_title(label, verdict), fontweight="bold")
    return figure


def side_by_side(samples, labels, title=None):
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
    judged = _several(samples, labels)
    with style():
        figure = _figure(16, 0.4 + 4.3 * len(judged))
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=14, fontweight="bold")
        rows = np.atleast_1d(figure.subfigures(len(judged), 1))
        for row, label, (norms, verdict) in zip(rows, labels, judged, strict=True):
            row.suptitle(_title(label, verdict), x=0.01, ha="left", fontweight="bold")
            draws = (_draw_histogram, _draw_variance_growth, _draw_tail)
            for draw, axes in zip(draws, row.subplots(1, 3), strict=True):
                draw(axes, norms)
    return figure


def save(figure, path):
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


def _figure(width, height):
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _judged(sample):
    norms = np.asarray(getattr(sample, "norms", sample))
    return norms, noise.tails.classify(norms)


def _several(samples, labels):
    samples, labels = list(samples), list(labels)
    if not samples or len(samples) != len(labels):
        raise ValueError(
            "There must be samples, and one label for each. "
            f"Received: {len(samples)} samples, {len(labels)} labels"
        )
    return [_judged(sample) for sample in samples]


def _title(title, verdict):
    return f"{title or 'Gradient noise'}: {verdict.label}"


def _single(draw, sample, title, **options):
    norms, verdict = _judged(sample)
    with style():
        figure = _figure(6.5, 4.5)
        axes = figure.subplots()
        draw(axes, norms, **options)
        axes.set_title(_title(title, verdict), fontweight="bold")
    return figure


def _draw_histogram(axes, norms):
    bins, wide = _bins(axes, norms, count=40)
    counts, _ = np.histogram(norms, bins)
    axes.stairs(counts, bins, fill=True, color=_FILL, label=f"{len(norms)} batches")
    middles = np.sqrt(bins[1:] * bins[:-1]) if wide else (bins[1:] + bins[:-1]) / 2
    for fit, name, line in (
        (noise.tails.gaussian_reference, "Gaussian", {"color": _INK, "linestyle": "--"}),
        (noise.tails.stable_reference, "α-stable", {"color": _ACCENT, "linestyle": "-"}),
    ):
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


def _draw_variance_growth(axes, norms, orders=8, seed=0):
    axes.set_title("Variance as the sample grows")
    axes.set_xlabel("sample size (batches)")
    axes.set_ylabel("variance of the norm (units squared)")
    try:
        growth = noise.tails.variance_growth(norms, orders=orders, seed=seed)
    except ValueError as error:
        if len(norms) >= 2:
            raise
        _note(axes, str(error))
        return
    shown = growth.sizes >= min(10, len(norms))
    sizes, variances = growth.sizes[shown], growth.variances[:, shown]
    for i, row in enumerate(variances):
        axes.plot(
            sizes,
            row,
            color=_FAINT,
            linestyle="-",
            linewidth=0.9,
            label=f"{len(variances)} random orders" if i == 0 else None,
        )
    axes.axhline(
        variances[0, -1], color=_INK, linestyle="--", linewidth=1.2, label="of all batches"
    )
    if variances.min() > 0 and variances.max() > 10 * variances.min():
        axes.set_yscale("log")
    axes.legend(loc="best")


def _draw_tail(axes, norms):
    axes.set_title("Tail and Hill's fit")
    axes.set_xlabel(NORM)
    axes.set_ylabel("share of batches above (log)")
    try:
        fit = noise.tails.hill(norms)
    except ValueError as error:
        _note(axes, str(error))
        return
    ascending = np.sort(norms[norms > 0])
    n = len(norms)
    above = (np.arange(len(ascending), 0, -1) - 0.5) / n
    axes.plot(ascending, above, ".", color=_FAINT, markersize=4, label=f"{n} batches")
    x = np.geomspace(fit.threshold, ascending[-1], 50)
    ratio = fit.threshold / x

    def line(alpha):
        return fit.k / n * ratio**alpha

    axes.fill_between(x, line(fit.high), line(fit.low), color=_ACCENT, alpha=0.25, linewidth=0)
    axes.plot(
        x,
        line(fit.alpha),
        color=_ACCENT,
        linestyle="-",
        label=f"Hill: {fit.alpha:.3g} ({fit.low:.3g} to {fit.high:.3g}), {fit.k} largest",
    )
    axes.plot(
        x, line(2.0), color=_INK, linestyle=":", label="index 2: flatter is infinite variance"
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(0.3 / n, 1.5)
    _plain_log_ticks(axes.xaxis, ascending[-1] / ascending[0])
    axes.legend(loc="lower left")


def _draw_hill_plot(axes, norms):
    axes.set_title("Hill plot")
    axes.set_xlabel("largest batches used, k (count)")
    axes.set_ylabel("tail index α")
    try:
        curve = noise.tails.hill_plot(norms)
        fit = noise.tails.hill(norms)
    except ValueError as error:
        _note(axes, str(error))
        return
    axes.fill_between(
        curve.k, curve.low, curve.high, color=_FILL, alpha=0.7, linewidth=0, label="95% interval"
    )
    axes.plot(curve.k, curve.alpha, color=_INK, linestyle="-", label="Hill's estimate")
    axes.errorbar(
        fit.k,
        fit.alpha,
        [[fit.alpha - fit.low], [fit.high - fit.alpha]],
        fmt="o",
        color=_ACCENT,
        capsize=4,
        label=f"chosen k = {fit.k}: α = {fit.alpha:.3g}",
    )
    axes.axhline(2, color=_INK, linestyle=":", label="index 2: infinite variance below")
    axes.set_xscale("log")
    axes.set_yscale("log")
    _plain_log_ticks(axes.xaxis, curve.k[-1] / curve.k[0])
    low, high = min(curve.low.min(), 1.5), max(curve.high.max(), 3.0)
    axes.set_ylim(low / 1.1, high * 1.1)
    _plain_log_ticks(axes.yaxis, high / low)
    axes.legend(loc="best")


def _bins(axes, norms, count):
    """Bin edges, and whether they and the axis are logarithmic."""
    low, high = norms.min(), norms.max()
    if low > 0 and high > _WIDE * np.median(norms):
        axes.set_xscale("log")
        _plain_log_ticks(axes.xaxis, high / low)
        return np.geomspace(low, np.nextafter(high, 2 * high), count + 1), True
    return np.histogram_bin_edges(norms, count), False


def _plain_log_ticks(axis, ratio):
    if ratio < 50:
        axis.set_major_locator(ticker.MaxNLocator(6, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(ticker.ScalarFormatter())
    else:
        axis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


def _share(p):
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"


def _note(axes, text):
    axes.set(xticks=[], yticks=[])
    axes.text(
        0.5,
        0.5,
        textwrap.fill(text, 50),
        transform=axes.transAxes,
        ha="center",
        va="center",
        fontsize=9,
        color=_FAINT,
    )
