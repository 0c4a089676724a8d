"""What a measured gradient noise suggests for training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from keras_acclip.noise.sample import LEAST_BATCHES, NoiseSample

if TYPE_CHECKING:
    from keras_acclip.noise.scale import NoiseScale
    from keras_acclip.noise.tails import Verdict

QUANTILES = {"heavy-tailed": 0.25, "undecided": 0.25, "concentrated": 0.9}
"""The quantile of the gradient norms that is advised as a threshold, by the verdict."""

_SHOWN = (0.1, 0.25, 0.5, 0.9)
_LEAST_ORDER = 1.1
_FARTHEST = 1e3  # Times the largest norm: a threshold beyond it tells nothing.
# Sizes at which more laws are told apart; docs/results/tail_verdicts has the shares.
_DECIDING_SIZES = (256, 1000, 5000)

_FIRST = {
    "heavy-tailed": "Heavy-tailed noise: clip; without it single batches may undo many steps.",
    "concentrated": "Concentrated noise: it calls for no clipping, which does little harm either.",
    "undecided": "Undecided noise: clip, which costs little if the noise is concentrated.",
}
_ADAPTIVE = (
    "Whether Adam or another adaptive method does better than SGD is not decided by the tail: Adam "
    "can lead with concentrated noise, and without any. Compare them."
)


@dataclass(frozen=True)
class Advice:
    """What a measured gradient noise suggests for training; `str()` gives it in plain words.

    Attributes:
        label: The verdict's label.
        threshold: The threshold to start with, in the gradient's units: the 25% quantile of the
            measured gradient norms, or the 90% quantile where the noise is concentrated.
        alpha: The tail index of the noise norms; infinite past all power laws, NaN if unknown.
        alpha_interval: Its 95% interval.
        order: The order of `sigma`, from 1 to 2, halfway between 1 and `alpha` where the noise is
            not concentrated; NaN where `alpha` is at most 1, so that there is none.
        sigma: σ = (mean norm^order)^(1/order), in the gradient's units; infinite without an order.
        noise_scale: The noise scale, or `None` with too few batches.
        batches: With how many batches, all told, an undecided sample would more likely be decided;
            `None` where it is decided, or there are more already than was measured with.
        text: The advice, how it was reached and how sure it is.

    Example:

    >>> import numpy as np
    >>> from keras_acclip.noise import NoiseSample
    >>> norms = np.random.default_rng(0).pareto(1.5, 1000) + 1
    >>> sample = NoiseSample(norms, norms, norms, np.full(1000, 8), mean_gradient_norm=1.0)
    >>> advice = sample.advice()
    >>> advice.label, round(advice.threshold, 2)
    ('heavy-tailed', 1.23)
    >>> print(advice.text.splitlines()[0][:24])
    Heavy-tailed noise: clip
    """

    label: str
    threshold: float
    alpha: float
    alpha_interval: tuple[float, float]
    order: float
    sigma: float
    noise_scale: NoiseScale | None
    batches: int | None
    text: str

    def __str__(self) -> str:
        return self.text


def advise(
    sample: NoiseSample,
    steps: int = 10_000,
    smoothness: float = 1.0,
    initial_gap: float | None = None,
) -> Advice:
    """Returns the `Advice` that a sample's `advice` method gives.

    Args:
        sample: A `NoiseSample`.
        steps: As in `NoiseSample.advice`, like the other arguments.
        smoothness: L.
        initial_gap: F₀, or `None` for the mean loss.

    Raises:
        ValueError: If there are fewer than two norms, they are all 0, or an argument is out of
            range.
    """
    from keras_acclip.noise import tails

    if len(sample) < 2 or not sample.norms.any():
        raise ValueError(f"No advice on {len(sample)} norms, {np.sum(sample.norms > 0)} above 0.")
    verdict = sample.classify()
    alpha, low, high = verdict.tail_index
    order = _order(verdict)
    sigma = math.inf
    if not math.isnan(order):
        sigma = tails.alpha_moment(sample.norms, order) ** (1 / order)
    threshold = float(np.quantile(sample.gradient_norms, QUANTILES[verdict.label]))
    scale = sample.noise_scale() if len(sample) >= LEAST_BATCHES else None
    batches = None
    if verdict.label == "undecided":
        batches = next((size for size in _DECIDING_SIZES if size > len(sample)), None)
    paragraphs = [
        f"{_FIRST[verdict.label]} {verdict.reason}",
        _on_threshold(sample, threshold, QUANTILES[verdict.label]),
        _on_rate(verdict),
        _on_batch(sample, scale, verdict),
        _ADAPTIVE,
        f"How sure: {_certainty(sample, verdict, batches)}",
        _theory(sample, order, sigma, steps, smoothness, initial_gap),
    ]
    return Advice(
        label=verdict.label,
        threshold=threshold,
        alpha=alpha,
        alpha_interval=(low, high),
        order=order,
        sigma=sigma,
        noise_scale=scale,
        batches=batches,
        text="\n".join(filter(None, paragraphs)),
    )


def _order(verdict: Verdict) -> float:
    """An order above 1 at which the norms have a moment, so that it does not grow with them."""
    alpha = verdict.tail_index[0]
    if verdict.label == "concentrated" or math.isnan(alpha):
        return 2.0
    return min(2.0, (1 + alpha) / 2) if alpha > 1 else math.nan


def _on_threshold(sample: NoiseSample, threshold: float, quantile: float) -> str:
    shown = ", ".join(
        f"{q:.0%}: {value:.3g}"
        for q, value in zip(_SHOWN, np.quantile(sample.gradient_norms, _SHOWN), strict=True)
        if q != quantile
    )
    return (
        f"Threshold: {threshold:.3g}, the {quantile:.0%} quantile of the measured gradient norms "
        f"({shown}), for GClip or for Clip around your optimizer; or one that follows the norms: "
        f"MovingQuantile({quantile})"
        f"{' or MovingMoment(1.0)' if quantile < 0.5 else ''}. ACClip needs none."
    )


def _on_rate(verdict: Verdict) -> str:
    if verdict.label == "concentrated":
        return "Learning rate: with a threshold that seldom binds, the one that you train with."
    return (
        "Learning rate: with GClip, or Clip around SGD, begin with the one that you train with, "
        "and try up to 32 times it, by factors of 2: a clipped step bears more, and is no longer "
        "than rate times threshold. Adam and the like, which divide by the gradient's size, keep "
        "theirs."
    )


def _on_batch(sample: NoiseSample, scale: NoiseScale | None, verdict: Verdict) -> str:
    if scale is None:
        return ""
    size = float(np.mean(sample.batch_sizes))
    lowest, most = scale.low, scale.high if math.isnan(scale.value) else scale.value
    text = f"Noise scale: {scale}."
    if size < lowest:
        text += f" Batches of {size:.4g} are below it: a larger batch would need fewer steps."
    elif size > most:
        text += f" Batches of {size:.4g} are above it: a smaller batch would need fewer examples."
    elif not math.isnan(scale.value):
        text += f" Batches of {size:.4g} are about as large."
    else:
        text += " To know it, measure at fixed weights: GradientNoise(dataset)."
    if verdict.label == "heavy-tailed":
        text += " With an infinite variance it grows with the sample: clipping matters more."
    return text


def _certainty(sample: NoiseSample, verdict: Verdict, batches: int | None) -> str:
    more = (
        f"with {batches:,} batches it would more likely be decided"
        if batches
        else "more batches may not decide it; single examples may"
    )
    sure = {
        "heavy-tailed": "the tail index lies below 2, but a few laws with finite variance look the "
        "same in samples of this size",
        "concentrated": f"{len(sample)} batches show no event rarer than about 1 in {len(sample)}",
        "undecided": f"not sure at all; {more}",
    }[verdict.label]
    from keras_acclip.noise.summary import recurring

    if recurring(sample):
        sure += f"; {recurring(sample)}"
    return (
        f"{sure}. It holds for this model, these batch sizes and "
        f"{'this point of training' if sample.step < 0 else f'step {sample.step:,}'}; "
        "noise changes during training."
    )


def _theory(
    sample: NoiseSample,
    order: float,
    sigma: float,
    steps: int,
    smoothness: float,
    initial_gap: float | None,
) -> str:
    from keras_acclip import thresholds

    gap = initial_gap
    if gap is None:
        gap = max(float(np.mean(sample.losses)), float(np.finfo(np.float32).eps))
    # Near order 1 the theorem's threshold is past all use; the arguments are checked still.
    told = order >= _LEAST_ORDER
    rate, threshold = thresholds.nonconvex_constants(
        smoothness, sigma if told else 1.0, order if told else 2.0, steps, gap
    )
    if not told or threshold > _FARTHEST * float(np.max(sample.gradient_norms)):
        return ""
    return (
        f"Theory: for the worst function with L = {smoothness:g}"
        f"{' (assumed)' if smoothness == 1.0 else ''}, F0 = {gap:.3g}"
        f"{' (the mean loss)' if initial_gap is None else ''}, sigma = {sigma:.3g} of order "
        f"{order:.3g} and {steps:,} steps, Theorem 2 takes the threshold {threshold:.3g} and the "
        f"learning rate {rate:.3g}; in practice that clips and learns too little."
    )
