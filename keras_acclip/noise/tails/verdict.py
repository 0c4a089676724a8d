"""Whether a sample of norms is heavy-tailed, concentrated, or doesn't tell."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from keras_acclip.noise.tails.excesses import ExcessEstimate, generalized_pareto
from keras_acclip.noise.tails.goodness import end_p_value, fit_p_value, trend_p_value
from keras_acclip.noise.tails.moments import kurtosis
from keras_acclip.noise.tails.samples import LEAST_FOR_VERDICT, checked_sample, is_constant
from keras_acclip.noise.tails.tail_index import TailEstimate, hill

# The shape ξ that excesses must show beside Hill's index before a sample is called heavy-tailed.
# Less than the 1/2 of infinite variance, for ξ of 500 norms has a standard error of 0.1 to 0.2.
_HEAVY_SHAPE = 0.4
# α-stable samples of 300 or more with α up to 1.7 have a kurtosis above n/80 in 98% of cases.
_KURTOSIS_SHARE = 1 / 80
# Below these p-values what looks like a power law is none. Together they cost at most 5 points of
# the share of heavy laws that are found.
_LEAST_FIT, _LEAST_END, _LEAST_TREND = 0.01, 0.04, 0.001


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
        fit: p-value of that fit to the far tail; see `fit_p_value`.
        end: p-value of the largest norm, for a power law; see `end_p_value`.
        trend: p-value of a trend along the sample; see `trend_p_value`.

    Example:

    >>> import numpy as np
    >>> from keras_acclip.noise import tails
    >>> verdict = tails.classify(np.random.default_rng(0).pareto(1.5, 1000) + 1)
    >>> verdict.label
    'heavy-tailed'
    >>> index, low, high = verdict.tail_index
    >>> low < 1.5 < high
    True
    """

    label: str
    reason: str
    size: int
    hill: TailEstimate | None = None
    excess: ExcessEstimate | None = None
    far_excess: ExcessEstimate | None = None
    kurtosis: float | None = None
    fit: float | None = None
    end: float | None = None
    trend: float | None = None

    @property
    def tail_index(self) -> tuple[float, float, float]:
        """The tail index and its 95% interval, of the excesses of the far tail; NaN without one.

        It is infinite where the tail falls off as fast as an exponential or faster.
        """
        if self.far_excess is None:
            return math.nan, math.nan, math.nan
        return self.far_excess.tail_index


def classify(sample: ArrayLike) -> Verdict:
    """Says whether a sample of norms is heavy-tailed, concentrated, or doesn't tell.

    Heavy-tailed means, as in the paper, a tail index below 2: infinite variance. It is said when
    the 95% interval of Hill's index lies below 2 and the shape ξ of the excesses is above 0.4, both
    over a data-chosen threshold and over the far tail alone (the largest 3√n norms, at most a
    fifth); or when the 95% interval of the former ξ lies above 1/2 and that of the latter doesn't
    lie below: a wide bulk with an end is no heavy tail. It is not said where the sample is none
    that a power law can be read from: the fit to the far tail, or to the chosen one, is too poor
    (p < 0.01: a mixture of sizes), the largest norm too small (p < 0.04: a tail that ends), or the
    norms rise or fall along the sample (p < 0.001).

    Concentrated means finite variance. It is said when Hill's interval lies above 2, the interval
    of ξ over the far tail alone lies below 1/2, and the
    excess kurtosis is below n/80, which 98% of α-stable samples with α ≤ 1.7 exceed. The last two
    guard against α-stable noise with α near 2, whose bulk looks Gaussian and hides its tail from
    Hill's estimator.

    Anything else is undecided. That is what to expect of laws near the border, such as α-stable
    ones with α from 1.5 to 2 or Student's with 3 degrees of freedom, until there are thousands of
    norms. Some laws with finite variance can't be told from heavy-tailed ones in samples of this
    size: lognormal with a standard deviation of the logarithm from 1.5 on is called heavy-tailed
    half of the times, of 500 norms, stretched exponential with exponent 1/2 one time in seven.

    Args:
        sample: Norms in the order taken, shape `(n,)`, finite and non-negative. With fewer than 100
            norms, or where half of them, or of the largest, repeat others, the verdict is
            undecided.

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
    evidence = _Evidence(
        size,
        estimate,
        excess,
        far,
        kurtosis(norms).value,
        min(fit_p_value(far), fit_p_value(excess)),
        end_p_value(norms, estimate),
        trend_p_value(norms),
    )
    label, reason = _judge(evidence)
    return Verdict(
        label,
        reason,
        size,
        estimate,
        excess,
        far,
        evidence.kurtosis,
        evidence.fit,
        evidence.end,
        evidence.trend,
    )


@dataclass(frozen=True)
class _Evidence:
    size: int
    hill: TailEstimate
    excess: ExcessEstimate
    far: ExcessEstimate
    kurtosis: float
    fit: float
    end: float
    trend: float

    @property
    def index(self) -> str:
        index, low, high = self.far.tail_index
        of = f"The tail index of the {self.far.k} largest of {self.size} norms"
        if low == math.inf:
            return f"{of} is past all bounds: they fall off faster than any power law"
        value = "past all bounds" if index == math.inf else f"{index:.3g}"
        interval = f"{low:.3g} to {high:.3g}" if high < math.inf else f"from {low:.3g} on"
        return f"{of} is {value} (95% interval {interval}, if they follow a generalized Pareto law)"


def _judge(found: _Evidence) -> tuple[str, str]:
    estimate, excess, far = found.hill, found.excess, found.far
    by_hill = estimate.high < 2 and min(excess.shape, far.shape) > _HEAVY_SHAPE
    by_excesses = excess.low > 0.5 and far.high >= 0.5
    if by_hill or by_excesses:
        against = _against_a_power_law(found)
        if against:
            return "undecided", f"{found.index}, but {' and '.join(against)}."
        what, k = ("Hill's index", estimate.k) if by_hill else ("that", excess.k)
        high = estimate.high if by_hill else 1 / excess.low
        return "heavy-tailed", (
            f"{found.index}; {what} of the {k} largest lies below {high:.3g} with 95%, so below 2: "
            f"infinite variance. The fit is good (p = {found.fit:.2g})."
        )
    most = found.size * _KURTOSIS_SHARE
    doubts = []
    if excess.low > 0.5:
        doubts.append("they fall off faster than the bulk")
    elif estimate.high < 2:
        doubts.append(
            f"Hill's index of the {estimate.k} largest is {estimate.alpha:.3g}, and their excesses "
            "over a threshold fall off faster than that"
        )
    elif estimate.low <= 2:
        doubts.append(
            f"Hill's index of the {estimate.k} largest ({estimate.low:.3g} to {estimate.high:.3g}) "
            "leaves open on which side of 2 it lies"
        )
    if far.high >= 0.5:
        doubts.append("the interval does not exclude 2")
    if found.kurtosis >= most:
        doubts.append(
            f"an excess kurtosis of {found.kurtosis:.3g} is as large as α-stable noise's "
            f"(over {most:.3g})"
        )
    if doubts and found.fit < _LEAST_FIT:
        doubts.append(f"no such law fits them (p = {found.fit:.1g})")
    if doubts:
        return "undecided", f"{found.index}, but {', and '.join(doubts)}."
    return "concentrated", (
        f"{found.index}; Hill's index of the {estimate.k} largest is over {estimate.low:.3g}, so "
        "above 2: finite variance; and "
        f"the excess kurtosis of {found.kurtosis:.3g} is smaller than α-stable noise's "
        f"(over {most:.3g})."
    )


def _against_a_power_law(found: _Evidence) -> list[str]:
    against = []
    if found.fit < _LEAST_FIT:
        against.append(
            f"no such law fits them (p = {found.fit:.1g}): batches of different sizes, rather"
        )
    if found.end < _LEAST_END:
        against.append(f"the very largest is too small for such a tail (p = {found.end:.1g})")
    if found.trend < _LEAST_TREND:
        against.append(
            f"the norms rise or fall along the sample (p = {found.trend:.1g}), which looks the same"
        )
    return against
