"""What each part of ACClip contributes, and over how many decades of rates a loss holds."""

import math

import numpy as np

from .. import comparison
from .variants import PARTS

MARGIN = 0.1  # Nats above the best loss that a rate may cost to count as one that works.


def differences(runs):
    """Dict from each part to the paired differences of those of its variants that were trained."""
    found, beta_2 = {}, beta_2_of(runs)
    for heading, pairs in PARTS.items():
        rows = []
        for variant, baseline in pairs:
            pair = [run for run in runs if run["optimizer"] in (variant, baseline)]
            rows += comparison.paired_difference(pair, baseline)
        if rows:
            found[heading.format(beta_2=beta_2)] = rows
    return found


def beta_2_of(runs):
    """The β₂ of ACClip's runs; where they were given none, it is the default."""
    given = [run["beta_2"] for run in runs if run["optimizer"] == "acclip" and "beta_2" in run]
    return given[0] if given else 0.99


def width(rates, losses, margin=MARGIN):
    """Over how many decades around the best rate the loss stays within a margin of the best.

    Between two rates the loss is a line over log10 of the rate; where one of them diverged, the
    range ends at the other.

    Args:
        rates: Rates in rising order, at least one.
        losses: Their losses, NaN or infinite where training diverged.
        margin: In the losses' unit. Defaults to `MARGIN`.

    Returns:
        Decades, and whether the range ends before the rates do on either side. (NaN, False) where
        every rate diverged.
    """
    x = np.log10(rates)
    losses = np.where(np.isfinite(losses), losses, np.inf)
    best = int(np.argmin(losses))
    if not np.isfinite(losses[best]):
        return math.nan, False
    limit = losses[best] + margin
    ends = [_end(x[best:], losses[best:], limit), _end(x[best::-1], losses[best::-1], limit)]
    return abs(ends[0][0] - ends[1][0]), ends[0][1] and ends[1][1]


def _end(x, losses, limit):
    """Where the losses, first below the limit, reach it; the last x and False if they never do."""
    above = np.flatnonzero(losses > limit)
    if not len(above):
        return float(x[-1]), False
    k = above[0]
    if not np.isfinite(losses[k]):
        return float(x[k - 1]), True
    share = (limit - losses[k - 1]) / (losses[k] - losses[k - 1])
    return float(x[k - 1] + share * (x[k] - x[k - 1])), True


def robustness(runs):
    """How wide the range of working rates is: for each optimizer and seed, and compared.

    Args:
        runs: Runs of several optimizers, each of several rates over the same seeds.

    Returns:
        dict: `widths`, one dict for each optimizer and seed (`optimizer`, `seed`, `width`,
        `bounded`: whether the range ends within the rates, `best`: the lowest loss), and
        `differences`, those of the widths to ACClip's (`comparison.paired_difference`).
    """
    widths = []
    for optimizer in dict.fromkeys(run["optimizer"] for run in runs):
        for seed in dict.fromkeys(run["seed"] for run in runs):
            line = sorted(
                (run["learning_rate"], comparison.final(run)["val_loss"])
                for run in runs
                if (run["optimizer"], run["seed"]) == (optimizer, seed)
            )
            rates, losses = zip(*line, strict=True)
            decades, bounded = width(rates, losses)
            best = min((loss for loss in losses if math.isfinite(loss)), default=math.nan)
            row = {"optimizer": optimizer, "seed": seed, "width": decades}
            widths.append(row | {"bounded": bounded, "best": best})
    as_runs = [row | {"history": [row | {"seconds": 0.0}]} for row in widths]
    compared = comparison.paired_difference(as_runs, "acclip", measure="width")
    return {"margin": MARGIN, "widths": widths, "differences": compared}
