"""A sample of gradient noise in a few lines of text."""

from __future__ import annotations

import numpy as np

from keras_acclip.noise.sample import LEAST_BATCHES, LEAST_DISTINCT, NoiseSample


def summarize(sample: NoiseSample) -> str:
    """Returns what was measured, the noise, the verdict and the noise scale, also by groups.

    Args:
        sample: A `NoiseSample`.
    """
    lines = [
        f"Gradient noise of {sample.where}: {len(sample)} batches, "
        f"{sample.parameters:,} parameters, method {sample.settings.get('method', '?')}"
    ]
    lines += [
        f"  {count} {what}"
        for count, what in (
            (sample.nonfinite, "batches with a gradient that is not finite, left out"),
            (sample.dropped, "batches of another size, left out"),
        )
        if count
    ]
    if recurring(sample):
        lines.append(f"  {recurring(sample)}")
    if sample.interrupted:
        lines.append("  interrupted before all batches were measured")
    if len(sample) >= 2:
        low, median, high = np.quantile(sample.norms, [0.05, 0.5, 0.95])
        lines += [
            f"  noise norm    mean {sample.norm:.4g}, median {median:.4g}, "
            f"5% to 95% {low:.4g} to {high:.4g}, largest {sample.norms.max():.4g}",
            f"  noise std     {sample.std:.4g}",
            f"  gradient norm of a batch {sample.gradient_norms.mean():.4g}, "
            f"of the mean {sample.mean_gradient_norm:.4g}; mean loss {sample.losses.mean():.4g}",
        ]
    if len(sample) >= LEAST_BATCHES:
        lines.append(f"  noise scale   {sample.noise_scale()}")
    if len(sample):
        verdict = sample.classify()
        lines.append(f"  {verdict.label}: {verdict.reason}")
        if sample.coordinates.size:
            lines.append(f"  {_of_coordinates(sample)}")
        lines += [f"  {name:<30} {_in_short(sample.group(name))}" for name in sample.groups]
    return "\n".join(lines)


def _of_coordinates(sample: NoiseSample) -> str:
    labels = [verdict.label for verdict in sample.classify_coordinates()]
    counts = ", ".join(f"{labels.count(label)} {label}" for label in sorted(set(labels)))
    return f"of {len(labels)} coordinates: {counts}"


def recurring(sample: NoiseSample) -> str:
    """Says that examples recur, where fewer than nine of ten differ; else nothing."""
    count = sample.settings.get("examples", 0)
    distinct = sample.settings.get("distinct_examples", count)
    if distinct >= LEAST_DISTINCT * count:
        return ""
    return (
        f"examples recur: {distinct:,} of {count:,} differ, so the sample is smaller than it looks"
    )


def _in_short(group: NoiseSample) -> str:
    words = [
        f"noise norm {group.norms.mean():.4g}",
        f"gradient {group.mean_gradient_norm:.4g}",
        group.classify().label,
    ]
    if len(group) >= LEAST_BATCHES:
        words.append(f"noise scale {group.noise_scale()}")
    return ", ".join(words)
