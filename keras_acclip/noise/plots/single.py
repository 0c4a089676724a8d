"""Figures of one sample."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_acclip.noise.plots.look import new_figure, style, title_of
from keras_acclip.noise.plots.views import (
    Sample,
    draw_hill_plot,
    draw_histogram,
    draw_tail,
    draw_variance_growth,
    norms_and_verdict,
)


def histogram(sample: Sample, title: str | None = None) -> Figure:
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
    return _single(draw_histogram, sample, title)


def variance_growth(
    sample: Sample, title: str | None = None, orders: int = 8, seed: int = 0
) -> Figure:
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
    return _single(draw_variance_growth, sample, title, orders=orders, seed=seed)


def tail(sample: Sample, title: str | None = None) -> Figure:
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
    return _single(draw_tail, sample, title)


def hill_plot(sample: Sample, title: str | None = None) -> Figure:
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
    return _single(draw_hill_plot, sample, title)


def panel(sample: Sample, title: str | None = None) -> Figure:
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
    norms, verdict = norms_and_verdict(sample)
    with style():
        figure = new_figure(11, 8)
        reason = textwrap.wrap(verdict.reason, 140)
        heading = title_of(title, verdict) + "\n" * len(reason)
        figure.suptitle(heading, x=0.01, ha="left", fontsize=14, fontweight="bold")
        figure.text(0.01, 0.955, "\n".join(reason), va="top", ha="left", fontsize=10)
        draws: tuple[Callable[[Axes, np.ndarray], None], ...] = (
            draw_histogram,
            draw_variance_growth,
            draw_tail,
            draw_hill_plot,
        )
        for draw, axes in zip(draws, figure.subplots(2, 2).flat, strict=True):
            draw(axes, norms)
    return figure


def _single(draw: Callable[..., None], sample: Sample, title: str | None, **options: Any) -> Figure:
    norms, verdict = norms_and_verdict(sample)
    with style():
        figure = new_figure(6.5, 4.5)
        axes = figure.subplots()
        draw(axes, norms, **options)
        axes.set_title(title_of(title, verdict), fontweight="bold")
    return figure
