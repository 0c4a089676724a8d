"""The candidates for a better ACClip against NumPy; with all switches off, against ACClip."""

import keras
import numpy as np
import pytest
from training.acclip_variants import ACClipVariant

import keras_acclip

RATE, B1, B2, EPSILON = 0.01, 0.8, 0.9, 1e-3
SWITCHES = [
    {},
    {"nesterov": True},
    {"cautious": True},
    {"smooth": True},
    {"corrected": True},
    {"gradient_multiple": 2.0},
    {"multiple": 0.5},
    {"relative_epsilon": True},
    {"nesterov": True, "corrected": True},
    {"nesterov": True, "cautious": True, "smooth": True},
]


def gradients(seed, steps=6):
    """Of sizes that differ from step to step, with coordinates that are 0 throughout."""
    random = np.random.default_rng(seed)
    found = random.normal(size=(steps, 3, 4)) * random.choice([0.1, 1, 30], size=(steps, 1, 1))
    found[:, 0, 0] = 0
    return found


def stepped(optimizer, start, given):
    variable = keras.Variable(start.astype("float32"))
    for g in given:
        optimizer.apply([keras.ops.convert_to_tensor(g.astype("float32"))], [variable])
    return keras.ops.convert_to_numpy(variable)


def expected(start, given, **on):
    x, m, tau = start.copy(), np.zeros_like(start), np.zeros_like(start)
    for k, gradient in enumerate(given, 1):
        g = gradient
        if on.get("gradient_multiple"):
            bound = np.where(tau > 0, on["gradient_multiple"] * tau, np.inf)
            g = np.clip(g, -bound, bound)
        m, tau = B1 * m + (1 - B1) * g, B2 * tau + (1 - B2) * abs(g)
        corrected = on.get("corrected", False)
        looked, threshold = m, tau * on.get("multiple", 1.0)
        if on.get("nesterov"):
            now, later = (1 - B1**k, 1 - B1 ** (k + 1)) if corrected else (1, 1)
            looked = B1 * m / later + (1 - B1) * g / now
        elif corrected:
            looked = m / (1 - B1**k)
        if corrected:
            threshold = threshold / (1 - B2**k)
        epsilon = EPSILON * (threshold.mean() if on.get("relative_epsilon") else 1)
        if on.get("smooth"):
            root = np.sqrt(threshold**2 + looked**2)
            clipped = np.where(root > 0, looked * threshold / np.where(root > 0, root, 1), 0)
        else:
            clipped = np.minimum(threshold / (abs(looked) + epsilon), 1) * looked
        step = RATE * clipped / (threshold + epsilon)
        if on.get("cautious"):
            kept = step * gradient > 0
            step = step * kept / max(kept.mean(), 1e-3)
        x = x - step
    return x


@pytest.mark.parametrize("on", SWITCHES, ids=lambda on: "+".join(on) or "none")
@pytest.mark.parametrize("seed", range(3))
def test_a_variant(seed, on):
    start, given = np.random.default_rng((seed, 1)).normal(size=(3, 4)), gradients(seed)
    got = stepped(ACClipVariant(RATE, B1, B2, EPSILON, **on), start, given)
    np.testing.assert_allclose(got, expected(start, given, **on), rtol=1e-4, atol=1e-6)
    plain = expected(start, given)
    assert not on or not np.allclose(got, plain, rtol=1e-4, atol=1e-6)


def test_without_switches_it_is_acclip():
    start, given = np.ones((3, 4)), gradients(7, steps=20)
    decay = {"weight_decay": 0.1}
    got = stepped(ACClipVariant(RATE, B1, B2, EPSILON, **decay), start, given)
    peer = stepped(keras_acclip.ACClip(RATE, B1, B2, EPSILON, **decay), start, given)
    np.testing.assert_allclose(got, peer, rtol=1e-5)
