"""The noise scale: how large a batch is worth its examples."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from keras_acclip._utils import arguments
from keras_acclip.noise.sample import LEAST_BATCHES, NoiseSample
from keras_acclip.noise.tails.samples import checked_level


@dataclass(frozen=True)
class NoiseScale:
    """tr Σ/‖∇f‖², the number of examples at which noise and gradient are equally large.

    Attributes:
        value: The estimate, in examples; NaN where there is a bound alone.
        low: Lower end of the interval, in examples; 0 where there is an upper bound alone.
        high: Upper end of the interval; infinite where ‖∇f‖² can't be told from 0.
        trace: tr Σ, the variance of ONE example's gradient, in the gradient's units squared.
        squared_gradient: ‖∇f‖² without the part that the noise adds to ‖ḡ‖²; may be below 0.
        unit: `"examples"`, `"tokens"`, or `"batches"` where their size is unknown.

    Example:

    >>> from keras_acclip.noise.scale import NoiseScale
    >>> scale = NoiseScale(value=64.0, low=32.0, high=128.0, trace=64.0, squared_gradient=1.0)
    >>> print(scale)
    64 examples (95% interval 32 to 128)
    >>> scale.per_token(128).short
    '8.19e+03 tokens'
    """

    value: float
    low: float
    high: float
    trace: float
    squared_gradient: float
    unit: str = "examples"

    def per_token(self, row_length: int) -> NoiseScale:
        """Returns it in tokens, for rows of a given length."""
        length = arguments.positive_integer("row_length", row_length)
        scaled = {name: length * getattr(self, name) for name in ("value", "low", "high")}
        return dataclasses.replace(self, **scaled, unit="tokens")

    @property
    def short(self) -> str:
        """The value or the bound, without the interval."""
        if not math.isnan(self.value):
            return f"{self.value:,.3g} {self.unit}"
        if math.isfinite(self.high):
            return f"at most {self.high:,.3g} {self.unit}"
        if self.low > 0:
            return f"at least {self.low:,.3g} {self.unit}"
        return "can't be told from the training's own gradients"

    def __str__(self) -> str:
        interval = f" (95% interval {self.low:,.3g} to {self.high:,.3g})"
        return self.short + ("" if math.isnan(self.value) else interval)


def noise_scale(
    sample: NoiseSample, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> NoiseScale:
    """Estimates the noise scale of a sample; see `NoiseSample.noise_scale`.

    With batches of b_i examples, N in all, b_i·‖g_i − ḡ‖² has the mean (1 − b_i/N)·tr Σ, and the
    product of a batch's gradient with the mean of the others' has the mean ‖∇f‖². tr Σ and ‖∇f‖²
    are averaged apart, then divided. The interval is from a bootstrap over batches of both; that of
    ‖∇f‖², an average over pairs, moves twice as far as its batches' (Hoeffding), and by the part
    that pairs alone have. Of a training's own gradients (`settings["method"]` is `"training"`) the
    upper end alone is told: what successive gradients share is less than ‖∇f‖².

    Args:
        sample: A `NoiseSample` of at least 10 batches.
        confidence: Level of the interval, between 0 and 1.
        resamples: Number of resamples.
        seed: Seed of the resampling.

    Raises:
        ValueError: If there are fewer batches, or an argument is out of range.
    """
    count = len(sample)
    if count < LEAST_BATCHES:
        raise ValueError(
            f"A noise scale needs at least {LEAST_BATCHES} batches. The sample has {count}."
        )
    confidence = checked_level(confidence)
    resamples = arguments.positive_integer("resamples", resamples)
    sizes = sample.batch_sizes.astype(np.float64)
    total = sizes.sum()
    noise, own, mean = sample.norms**2, sample.gradient_norms**2, sample.mean_gradient_norm**2
    traces = sizes * noise / (1 - sizes / total)
    with_mean = (own + mean - noise) / 2
    with_others = (total * with_mean - sizes * own) / (total - sizes)
    trace = float(np.sum(sizes * noise) / (count - 1))
    squared = float(mean - trace / total)
    generator = np.random.default_rng(seed)
    drawn = generator.integers(count, size=(resamples, count))
    # For Gaussian noise Var ‖g − ∇f‖² is 2 tr Σ², which pairs alone add; for heavier it is more.
    of_pairs = generator.normal(0, math.sqrt(np.var(noise)) / count, resamples)
    moved = with_others[drawn].mean(axis=1) - with_others.mean()
    squares = squared + 2 * moved + of_pairs
    scales = np.full(resamples, np.inf)
    positive = squares > 0
    scales[positive] = traces[drawn[positive]].mean(axis=1) / squares[positive]
    ends = (1 - confidence) / 2, (1 + confidence) / 2
    low, high = np.quantile(scales, ends, method="inverted_cdf")
    unit = sample.settings.get("unit", "examples")
    high = float(high) if squared > 0 else math.inf
    if sample.settings.get("method") == "training":
        return NoiseScale(math.nan, 0.0, high, trace, squared, unit)
    value = trace / squared if math.isfinite(high) else math.nan
    return NoiseScale(value, float(low), high, trace, squared, unit)
