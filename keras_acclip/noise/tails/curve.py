"""Hill's tail index against the number of norms that it rests on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from keras_acclip._utils import arguments
from keras_acclip.noise.tails.samples import (
    LEAST_FOR_TAIL,
    checked_level,
    checked_sample,
    varying,
)
from keras_acclip.noise.tails.tail_index import descending_logs, hill_interval, hill_of_logs


@dataclass(frozen=True)
class HillPlot:
    """Hill's estimate against the number of order statistics, ready to draw.

    Attributes:
        k: Number of largest norms used, increasing; shape `(points,)`.
        alpha: Hill's estimate at each `k`.
        low: Lower end of its confidence interval at a given `k`.
        high: Upper end of its confidence interval at a given `k`.
        threshold: The norm above which the `k` largest lie, in the sample's unit.

    Example:

    >>> import numpy as np
    >>> from keras_acclip.noise import tails
    >>> plot = tails.hill_plot(np.random.default_rng(0).pareto(1.5, 1000) + 1, points=50)
    >>> bool(plot.low[-1] < plot.alpha[-1] < plot.high[-1])
    True
    """

    k: np.ndarray
    alpha: np.ndarray
    low: np.ndarray
    high: np.ndarray
    threshold: np.ndarray


def hill_plot(sample: ArrayLike, confidence: float = 0.95, points: int = 200) -> HillPlot:
    """Hill's estimate at many numbers of order statistics.

    A power law shows as a level stretch, a lighter tail as a curve that rises towards small k. Look
    at it before believing the one estimate of `hill`: where no stretch is level, there is no index.
    `plots.hill_plot` draws it.

    Args:
        sample: Norms, shape `(n,)`, finite and non-negative; at least 20.
        confidence: Level of the band, between 0 and 1. Defaults to 0.95.
        points: Most values of k, evenly in log k from 5 on. Defaults to 200.

    Returns:
        A `HillPlot`: arrays of one length, at most `points`.

    Raises:
        ValueError: As `hill`; if `points` is no positive whole number.

    Example:
        >>> curve = hill_plot([*range(1, 101)])
        >>> curve.k.shape == curve.alpha.shape
        True

    References:
        Hill (1975); H. Drees, L. de Haan, S. Resnick, "How to make a Hill plot", Annals of
        Statistics 28 (2000).
    """
    norms = varying(checked_sample(sample, LEAST_FOR_TAIL))
    confidence = checked_level(confidence)
    arguments.positive_integer("points", points)
    logs = descending_logs(norms)
    ks = np.unique(np.geomspace(5, max(len(logs) - 1, 5), points).round().astype(int))
    ks = ks[ks < len(logs)]
    ks = ks[logs[0] > logs[ks]]
    if len(ks) == 0:
        raise ValueError("Too few of the norms are positive and distinct for a Hill plot.")
    alphas = hill_of_logs(logs, ks)
    low, high = hill_interval(alphas, ks, confidence)
    return HillPlot(ks, alphas, low, high, np.sort(norms)[::-1][ks])
