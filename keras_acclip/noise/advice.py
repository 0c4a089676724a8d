"""What a measured gradient noise suggests for training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from keras_acclip.noise.sample import NoiseSample
    from keras_acclip.noise.tails import Verdict

# Theorem 2 needs α in (1, 2], and its threshold overflows near 1.
_LEAST_ALPHA = 1.1

_FIRST = {
    "heavy-tailed": "Heavy-tailed noise: clip. Start with ACClip, or GClip as below; plain "
    "momentum may be thrown off by single batches.",
    "concentrated": "Concentrated noise: clipping isn't needed for it. SGD with momentum suits "
    "this noise; an adaptive method may still help for other reasons.",
    "undecided": "Undecided noise: ACClip or GClip are the safe choice, and cost little if the "
    "noise turns out concentrated.",
}


@dataclass(frozen=True)
class Advice:
    """What a measured gradient noise suggests for training; `str()` gives it in plain words.

    Attributes:
        optimizer: `"ACClip"` or `"SGD with momentum"`: what to start with.
        learning_rate: η of Theorem 2 for GClip.
        threshold: τ of Theorem 2 for GClip, in the gradient's units.
        alpha: The α in (1, 2] that they are taken at.
        sigma: σ = (mean norm^α)^(1/α), in the gradient's units.
        text: The advice, how it was reached and how sure it is.
    """

    optimizer: str
    learning_rate: float
    threshold: float
    alpha: float
    sigma: float
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
    from keras_acclip import thresholds
    from keras_acclip.noise import tails

    if len(sample) < 2 or not sample.norms.any():
        raise ValueError(f"No advice on {len(sample)} norms, {np.sum(sample.norms > 0)} above 0.")
    verdict = sample.classify()
    alpha = 2.0
    if verdict.label == "heavy-tailed" and verdict.hill is not None:
        alpha = float(np.clip(verdict.hill.alpha, _LEAST_ALPHA, 2.0))
    sigma = tails.alpha_moment(sample.norms, alpha) ** (1 / alpha)
    gap = initial_gap
    if gap is None:
        gap = max(float(np.mean(sample.losses)), float(np.finfo(np.float32).eps))
    rate, threshold = thresholds.nonconvex_constants(smoothness, sigma, alpha, steps, gap)
    optimizer = "SGD with momentum" if verdict.label == "concentrated" else "ACClip"
    clipped = np.mean(sample.gradient_norms > threshold)
    text = (
        f"{_FIRST[verdict.label]} {verdict.reason}\n"
        f"GClip by Theorem 2, with alpha = {alpha:.3g}, sigma = {sigma:.3g}, "
        f"{steps:,} steps, L = {smoothness:g}"
        f"{' (assumed)' if smoothness == 1.0 else ''} and F0 = {gap:.3g}"
        f"{' (the mean loss)' if initial_gap is None else ''}: threshold {threshold:.3g}, "
        f"learning rate {rate:.3g}. The threshold lies above {1 - clipped:.0%} of the measured "
        "gradient norms. These are worst-case constants: a larger learning rate may do.\n"
        f"How sure: {_certainty(sample, verdict)}"
    )
    return Advice(optimizer, rate, threshold, alpha, sigma, text)


def _certainty(sample: NoiseSample, verdict: Verdict) -> str:
    sure = {
        "heavy-tailed": "the interval of the tail index lies below 2, but a few laws with "
        "finite variance look the same in samples of this size",
        "concentrated": f"{len(sample)} batches show no event rarer than about 1 in {len(sample)}",
        "undecided": "not sure at all; measure more batches, or single examples",
    }[verdict.label]
    return (
        f"{sure}. It holds for this model, these batch sizes and "
        f"{'this point of training' if sample.step < 0 else f'step {sample.step:,}'}; "
        "noise changes during training."
    )
