"""Whether a sample of norms is heavy-tailed, concentrated, or doesn't tell."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from keras_acclip.noise.tails.excesses import ExcessEstimate, generalized_pareto
from keras_acclip.noise.tails.moments import kurtosis
from keras_acclip.noise.tails.samples import LEAST_FOR_VERDICT, checked_sample, is_constant
from keras_acclip.noise.tails.tail_index import TailEstimate, hill

# The shape ξ that excesses must show beside Hill's index before a sample is called heavy-tailed.
# Less than the 1/2 of infinite variance, for ξ of 500 norms has a standard error of 0.1 to 0.2.
_HEAVY_SHAPE = 0.4
# α-stable samples of 300 or more with α up to 1.7 have a kurtosis above n/80 in 98% of cases.
_KURTOSIS_SHARE = 1 / 80


@dataclass(frozen=True)
class Verdict:
    """What a sample of norms says about its tail.

    Attributes:
        label: `"heavy-tailed"` (tail index below 2: infinite variance), `"concentrated"` (finite
            variance) or `"undecided"`.
        reason: The evidence in one sentence.
        size: How many norms it rests on.
        hill: Hill's estimate; None where the sample doesn't allow it, as for those below.
        excess: Generalized Pareto fit with a data-chosen threshold.
        far_excess: Generalized Pareto fit to the far tail alone.
        kurtosis: Excess kurtosis.
    """

    label: str
    reason: str
    size: int
    hill: TailEstimate | None = None
    excess: ExcessEstimate | None = None
    far_excess: ExcessEstimate | None = None
    kurtosis: float | None = None


def classify(sample: ArrayLike) -> Verdict:
    """Says whether a sample of norms is heavy-tailed, concentrated, or doesn't tell.

    Heavy-tailed means, as in the paper, a tail index below 2: infinite variance. It is said when
    the 95% interval of Hill's index lies below 2 and the shape ξ of the excesses is above 0.4, both
    over a data-chosen threshold and over the far tail alone (the largest 3√n norms, at most a
    fifth); or when the 95% interval of the former ξ lies above 1/2 and that of the latter doesn't
    lie below: a wide bulk with an end is no heavy tail.

    Concentrated means finite variance. It is said when Hill's interval lies above 2, the interval
    of ξ over the far tail alone lies below 1/2, and the
    excess kurtosis is below n/80, which 98% of α-stable samples with α ≤ 1.7 exceed. The last two
    guard against α-stable noise with α near 2, whose bulk looks Gaussian and hides its tail from
    Hill's estimator.

    Anything else is undecided. That is what to expect of laws near the border, such as α-stable
    ones with α from 1.5 to 2 or Student's with 3 degrees of freedom, until there are thousands of
    norms. Some laws with finite variance look as if they had none in samples of this size and are
    called heavy-tailed: lognormal with a standard deviation of the logarithm near 2 (nearly always,
    of 500 norms), stretched exponential with exponent 1/2 (one time in six).

    Args:
        sample: Norms, shape `(n,)`, finite and non-negative. With fewer than 100 norms, or where
            half of them, or of the largest, repeat others, the verdict is undecided.

    Returns:
        A `Verdict`.

    Raises:
        ValueError: If the sample is empty, not one-dimensional, or holds NaN, infinite or negative
            values.

    Example:
        >>> norms = np.linalg.norm(np.random.default_rng(0).normal(size=(500, 100)), axis=1)
        >>> classify(norms).label
        'concentrated'

    References:
        Zhang et al. (2020), section 2; Hill (1975); Zhang and Stephens (2009).
    """
    norms = checked_sample(sample, 1)
    size = len(norms)
    if size < LEAST_FOR_VERDICT:
        return Verdict(
            "undecided",
            f"{size} norms are too few to tell a tail by; at least {LEAST_FOR_VERDICT} are needed.",
            size,
        )
    if is_constant(norms):
        return Verdict("undecided", f"All {size} norms are equal: there is no tail to see.", size)
    far_count = int(min(size / 5, 3 * math.sqrt(size)))
    for what, values in (("", norms), (" largest", np.sort(norms)[-far_count - 1 :])):
        distinct = len(np.unique(values))
        if distinct <= len(values) / 2:
            return Verdict(
                "undecided",
                f"Only {distinct} of the {len(values)}{what} norms are distinct: rounding or "
                "clipping hides the tail.",
                size,
            )
    estimate = hill(norms)
    excess = generalized_pareto(norms)
    far = generalized_pareto(norms, k=far_count)
    excess_kurtosis = kurtosis(norms).value
    label, reason = _judge(size, estimate, excess, far, excess_kurtosis)
    return Verdict(label, reason, size, estimate, excess, far, excess_kurtosis)


def _judge(
    size: int,
    estimate: TailEstimate,
    excess: ExcessEstimate,
    far: ExcessEstimate,
    excess_kurtosis: float,
) -> tuple[str, str]:
    evidence = (
        f"Hill's tail index of the {estimate.k} largest of {size} norms is {estimate.alpha:.3g} "
        f"(95% interval {estimate.low:.3g} to {estimate.high:.3g})"
    )
    if estimate.high < 2 and min(excess.shape, far.shape) > _HEAVY_SHAPE:
        return "heavy-tailed", (
            f"{evidence}, below 2: infinite variance; that of their excesses over a threshold "
            f"agrees ({1 / excess.shape:.3g}, of the {far.k} largest alone {1 / far.shape:.3g})."
        )
    if excess.low > 0.5 and far.high >= 0.5:
        return "heavy-tailed", (
            f"The tail index of the {excess.k} largest of {size} norms, by their excesses over a "
            f"threshold, is {1 / excess.shape:.3g} (95% interval {1 / excess.high:.3g} to "
            f"{1 / excess.low:.3g}), below 2: infinite variance."
        )
    far_words = f"{1 / far.high:.3g}" if far.high > 1e-3 else "1000"
    most = size * _KURTOSIS_SHARE
    doubts = []
    if excess.low > 0.5:
        doubts.append(f"the excesses of the {far.k} largest alone fall off faster than the bulk's")
    elif estimate.high < 2:
        doubts.append("their excesses over a threshold fall off faster than that")
    elif estimate.low <= 2:
        doubts.append("that leaves open on which side of 2 it lies")
    if far.high >= 0.5:
        doubts.append(f"the {far.k} largest alone allow an index as low as {far_words}")
    if excess_kurtosis >= most:
        doubts.append(
            f"the excess kurtosis of {excess_kurtosis:.3g} is as large as α-stable noise's "
            f"(over {most:.3g})"
        )
    if doubts:
        return "undecided", f"{evidence}, but {', and '.join(doubts)}."
    return "concentrated", (
        f"{evidence}, above 2: finite variance; the {far.k} largest alone put it at {far_words} or "
        f"more, and the excess kurtosis of {excess_kurtosis:.3g} is smaller than α-stable noise's "
        f"(over {most:.3g})."
    )
