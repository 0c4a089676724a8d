import itertools
import json

import keras
import lower_bounds as script
import numpy as np
import pytest
import tensorflow as tf
from lab.theory import chain, hard_chain, hard_pair, methods, simulate, slopes
from lab.theory.exponents import ALPHAS, bound_exponent, nonconvex_exponent

from keras_acclip import thresholds

uniform = simulate.compiled(simulate.uniform)  # Uncompiled, TensorFlow draws other numbers.


def chain_function(v):
    """F as the paper of Carmon et al. writes it, for v of shape (n, T)."""

    def psi(t):
        safe = tf.where(t > 0.5, t, 1.0)
        return tf.where(t > 0.5, tf.exp(1 - 1 / (2 * safe - 1) ** 2), 0.0)

    def phi(t):
        return np.sqrt(np.pi * np.e / 2) * (1 + tf.math.erf(t / np.sqrt(2)))

    total = -psi(tf.ones_like(v[:, 0])) * phi(v[:, 0])
    for i in range(1, v.shape[1]):
        total += psi(-v[:, i - 1]) * phi(-v[:, i]) - psi(v[:, i - 1]) * phi(v[:, i])
    return total


def gradient(v):
    v = tf.constant(v)
    with tf.GradientTape() as tape:
        tape.watch(v)
        value = chain_function(v)
    return tape.gradient(value, v).numpy()


def points(n, length, seed=0):
    """Points at which every part of F matters: coordinates around 0, 1/4, 1/2 and 1."""
    rng = np.random.default_rng(seed)
    centres = rng.choice([0, 0.25, -0.25, 0.5, -0.5, 1, -1, 2], (n, length))
    return centres + rng.normal(0, 0.3, (n, length))


@pytest.mark.parametrize("alpha", ALPHAS)
def test_theorem_5_s_bound_is_the_error_of_the_best_rule(alpha):
    """All outcomes of three gradients, both signs: the posterior mean has just that error."""
    K = 3
    p, jump, distance, bound = hard_pair.pair(alpha, K)
    assert p * jump == pytest.approx(distance)  # Unbiased.
    assert (p * jump**alpha) ** (1 / alpha) == pytest.approx(hard_pair.RADIUS)
    risk = 0
    for outcome in itertools.product((0, 1), repeat=K):
        probability = np.prod([p if z else 1 - p for z in outcome])
        best = 0.0 if not any(outcome) else distance  # A jump tells the sign.
        truth = np.array([distance, -distance]) * (1 if not any(outcome) else [1, 1])
        answers = np.array([best, best if not any(outcome) else -best])
        risk += probability * np.mean((answers - truth) ** 2 / 2)
    assert bound == pytest.approx(risk)
    chances = np.linspace(1e-3, 0.999, 2000)
    others = (hard_pair.RADIUS * chances ** (1 - 1 / alpha)) ** 2 / 2 * (1 - chances) ** K
    assert others.max() == pytest.approx(bound, rel=1e-4)
    steps = np.array([10**5, 10**6])
    slope = slopes.slope(steps, hard_pair.pair(alpha, steps)[-1])
    assert slope == pytest.approx(bound_exponent(alpha), abs=1e-3)


def test_the_chain_s_gradient_is_automatic_differentiation_s():
    for length in (1, 2, 5):
        v = points(500, length)
        padded = np.concatenate([v, np.random.default_rng(1).normal(size=(500, 3))], 1)
        found = chain.chain_gradient(tf.constant(padded), length).numpy()
        np.testing.assert_allclose(found[:, :length], gradient(v), atol=1e-9)
        assert not found[:, length:].any()


def test_the_chain_has_the_properties_that_the_bound_needs():
    length = 6
    v = points(20_000, length)
    g = gradient(v)
    unfinished = np.abs(v[:, -1]) <= 1
    assert np.linalg.norm(g[unfinished], axis=1).min() > 1
    other = v + np.random.default_rng(2).normal(0, 0.01, v.shape)
    stretch = np.linalg.norm(gradient(other) - g, axis=1) / np.linalg.norm(other - v, axis=1)
    assert stretch.max() < chain.LIPSCHITZ
    drop = chain_function(tf.zeros((1, length), tf.float64)) - chain_function(tf.constant(v))
    assert drop.numpy().max() < chain.DROP * length
    # Coordinates behind the newest have no gradient; the newest one's is bounded.
    behind = chain.newest(tf.constant(v)).numpy()
    newest = behind & (np.cumsum(behind, 1) == 1)
    assert not g[behind & ~newest].any()
    assert 2.5 < np.abs(g[newest]).max() < chain.LARGEST


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_noise_of_the_chain_has_the_moment(alpha):
    for size in (0.3, 0.01):
        p = chain.chance(size, alpha, sigma=1.5)
        moment = p * abs(size * (1 / p - 1)) ** alpha + (1 - p) * size**alpha
        assert moment ** (1 / alpha) == pytest.approx(1.5, rel=1e-6)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_theorem_6_s_bound_falls_at_its_rate(alpha):
    steps = [3 * 10**4, 10**5, 3 * 10**5]
    chains = [chain.chain(alpha, K, 50.0) for K in steps]
    assert all(length < chain.LONGEST_CHAIN for length, *_ in chains)
    slope = slopes.slope(steps, [bound for *_, bound in chains])
    assert slope == pytest.approx(nonconvex_exponent(alpha), abs=0.03)
    for length, gamma, _, bound in chains:
        used = chain.DROP * chain.LIPSCHITZ * gamma**2 * length / chain.SMOOTHNESS
        assert used == pytest.approx(50.0)
        assert 0.3 * gamma < bound < gamma


def test_adam_is_keras_s():
    rng, rate = np.random.default_rng(0), 0.01
    variable = keras.Variable(np.zeros((2, 3)), dtype="float64")
    optimizer = keras.optimizers.Adam(rate, epsilon=1e-8)
    x, slots = tf.zeros((2, 3), tf.float64), [tf.zeros((2, 3), tf.float64)] * 2
    for k in range(1, 6):
        g = tf.constant(rng.normal(size=(2, 3)))
        optimizer.apply([g], [variable])
        step, slots = methods.adam(g, slots, rate, None, tf.constant(k, tf.float64))
        x -= step
    np.testing.assert_allclose(x, variable.numpy(), rtol=1e-4)


def test_gclip_on_the_pair_is_theorem_4_s():
    steps, seeds = 12, 5
    p, jump, distance, _ = (np.asarray(v) for v in hard_pair.pair(ALPHAS, steps))
    x = np.full((2, 5, seeds), hard_pair.RADIUS)
    weighted = np.zeros_like(x)
    signs = np.array([1, -1])[:, None, None]
    for k in range(1, steps + 1):
        weighted += k * x
        z = np.abs(uniform(tf.constant(8), tf.constant(k), (seeds, 1)).numpy()[:, 0]) < p[:, None]
        g = x - signs * z * jump[:, None]
        tau = k ** (1 / ALPHAS)[:, None]
        x = np.clip(x - 4 / (k + 1) * np.clip(g, -tau, tau), -0.5, 0.5)
    average = weighted / (steps * (steps + 1) / 2)
    law = (tf.constant(v) for v in (p, jump, distance))
    found = hard_pair.pair_errors(tf.constant(steps), *law, tf.constant(8), seeds).numpy()
    for column, y in enumerate((x, average)):
        expected = ((y - signs * distance[:, None]) ** 2).mean(0) / 2
        np.testing.assert_allclose(found[-1, column], expected, rtol=1e-10)


def test_sgd_and_gclip_on_the_chain_are_their_boxes():
    steps, length, gamma, p, eta, tau, seeds = 40, 3, 0.05, 0.3, 60.0, 0.1, 4
    unit = chain.LIPSCHITZ * gamma
    plan = methods.Plan(hard_chain.chain_plan(), rank=3)
    found = hard_chain.chain_errors(
        *(tf.constant(v) for v in (steps, length)),
        *(tf.constant(v, tf.float64) for v in (gamma, p, eta, tau)),
        *(tf.constant(3), seeds, 4),
    ).numpy()
    for run, rate, threshold in (
        (plan.settings.index((100.0, 0.0)), 100.0, np.inf),
        (-1, eta, tau),
    ):
        x, norms = np.zeros((seeds, length)), []
        for k in range(1, steps + 1):
            v = x / unit
            g = gamma * gradient(v)
            norms.append(np.linalg.norm(g, axis=1))
            z = np.abs(uniform(tf.constant(3), tf.constant(k), (seeds, 1)).numpy()) < p
            for row, ones in zip(range(seeds), z[:, 0], strict=True):
                over = np.flatnonzero(np.abs(v[row]) > 0.25)
                g[row, over.max() + 1 if len(over) else 0 :] *= ones / p
            norm = np.linalg.norm(g, axis=1, keepdims=True)
            x = x - rate * g * np.minimum(threshold / np.maximum(norm, 1e-300), 1)
        assert np.any(x[:, 1])  # The chain was entered.
        np.testing.assert_allclose(found[run, 0], np.mean(norms, 0), rtol=1e-8)
        np.testing.assert_allclose(found[run, 1], np.min(norms, 0), rtol=1e-8)


def test_the_constants_are_theorem_2_s():
    options = type("Options", (), {"initial_gap": 50.0})
    rate, threshold = hard_chain.gclip_constants(1.6, 1000, options)
    assert threshold == thresholds.balanced_threshold(1.0, 1.0, 1.6, 1000, 50.0)
    assert rate == pytest.approx(threshold**-1.6)


def test_runs_are_tuned_on_one_half_and_measured_on_the_other():
    plan = methods.Plan([("a", methods.sgd, (1.0, 2.0), (0.0, 0.5))], rank=2)
    errors = np.ones((4, 2, 6))
    errors[2, 1, :3] = 0.5  # rate 1, power 1/2, second column
    errors[2, 1, 3:] = [7, 8, 9]
    measured, settings = plan.tuned(errors)["a"]
    assert measured.tolist() == [7, 8, 9]
    assert settings == (1.0, 0.5)


@pytest.mark.slow
def test_a_smoke_run_finds_nothing_below_the_bounds(tmp_path, capsys):
    arguments = ["--scale", "smoke", "--output", str(tmp_path)]
    assert script.main(arguments) == 0
    assert "Theorem 6" in capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    assert (tmp_path / "bounds.png").stat().st_size > 50_000
    for row in results["theorem_5"] + results["theorem_6"]:
        methods = list(row["methods"].values()) + list(row.get("least", {}).values())
        assert len(methods) >= 5
        assert not any(method["below_bound"] for method in methods)
        assert min(min(method["ratio"]) for method in methods) > 0.9
    assert script.main([*arguments, "--seeds", "9"]) == 2
    assert "other settings (seeds: 64 → 9)" in capsys.readouterr().err
