import json

import convergence_rates as script
import numpy as np
import pytest
import tensorflow as tf
from lab.theory import dimension, instances, nonconvex, plain_sgd, simulate, slopes, strongly_convex
from lab.theory.exponents import ALPHAS, bound_exponent, nonconvex_exponent

from keras_acclip import thresholds

EXCESS, SEEDS = 0.1, 7

uniform = simulate.compiled(simulate.uniform)  # Uncompiled, TensorFlow draws other numbers.


def noise(seed, k, shape, sigma, alphas=ALPHAS):
    """Symmetric Pareto noise in NumPy; an axis for α in front."""
    u = uniform(tf.constant(seed), tf.constant(k), shape).numpy()
    return np.stack([np.sign(u) * radius(u, sigma, alpha) for alpha in alphas])


def radius(u, sigma, alpha):
    p = alpha + EXCESS
    scale = sigma / (p / (p - alpha)) ** (1 / alpha)
    return scale * np.abs(u) ** (-1 / p)


def column(values):
    return np.array(values)[:, None]


@pytest.mark.slow
def test_projected_gclip_is_the_paper_s_box():
    steps, G = [1, 2, 30], 1.3
    x = np.ones((5, SEEDS))
    weighted, expected = np.zeros_like(x), []
    for k in range(1, 31):
        weighted += k * x
        g = x + noise(3, k, (SEEDS,), 0.3)
        tau = column([G * k ** (1 / alpha) for alpha in ALPHAS])
        x = np.clip(x - 4 / (k + 1) * np.minimum(tau / abs(g), 1) * g, -1, 1)
        if k in steps:
            expected.append((weighted / (k * (k + 1) / 2)) ** 2 / 2)
    found = strongly_convex.projected_gclip(tf.constant(steps), 3, SEEDS, EXCESS)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)


def test_sgd_and_gclip_see_the_same_noise():
    steps = [1, 5, 20]
    x, expected = np.ones((4, 5, SEEDS)), []
    for k in range(1, 21):
        g = x + noise(4, k, (SEEDS,), 0.3)
        tau = column([1.3 * k ** (1 / alpha) for alpha in ALPHAS])
        g[3] *= np.minimum(tau / abs(g[3]), 1)
        etas = [0.1, 0.5 * k**-0.5, 4 / (k + 1), 4 / (k + 1)]
        x = x - np.array(etas)[:, None, None] * g
        if k in steps:
            expected.append(x**2 / 2)
    found = plain_sgd.last_iterates(tf.constant(steps), 4, SEEDS, EXCESS)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-9)


def test_gclip_in_two_dimensions_clips_the_norm():
    steps, rates_, taus = 25, [0.1, 0.2, 0.05, 0.2, 0.1], [0.3, 0.2, 1.0, 5.0, 0.1]
    x, y, total = np.ones((5, SEEDS)), np.zeros((5, SEEDS)), 0
    for k in range(1, steps + 1):
        gx, gy = nonconvex.nonconvex_gradient(x, y)
        total += np.hypot(gx, gy)
        u, v = uniform(tf.constant(6), tf.constant(k), (2, SEEDS)).numpy()
        r = np.stack([radius(u, 0.3, alpha) for alpha in ALPHAS])
        gx, gy = gx + r * np.cos(np.pi * v), gy + r * np.sin(np.pi * v)
        factor = column(rates_) * np.minimum(column(taus) / np.hypot(gx, gy), 1)
        x, y = x - factor * gx, y - factor * gy
    constants = instances.column(rates_), instances.column(taus)
    found = nonconvex.mean_gradient_norm(
        tf.constant(steps), *constants, tf.constant(6), SEEDS, EXCESS
    )
    np.testing.assert_allclose(found, total / steps, rtol=1e-10)


def test_the_gradient_is_that_of_a_smooth_function_with_the_stated_gap():
    q = nonconvex.FLATNESS
    x, y = (tf.constant(v) for v in np.random.default_rng(0).normal(0, 3, (2, 500)))
    with tf.GradientTape() as tape:
        tape.watch([x, y])
        value = (1 + x**2) ** (-q / 2) / q + y**2 / 2
    np.testing.assert_allclose(
        tape.gradient(value, [x, y]), nonconvex.nonconvex_gradient(x, y), rtol=1e-10
    )
    line = np.linspace(-20, 20, 100_001)
    slopes = np.diff(nonconvex.nonconvex_gradient(line, 0.0)[0]) / np.diff(line)
    assert np.abs(slopes).max() == pytest.approx(1, abs=1e-6)  # L = 1
    assert (1 + nonconvex.START**2) ** (-q / 2) / q == pytest.approx(nonconvex.GAP)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_theorem_4_s_bound_sums_the_terms_of_its_proof(alpha):
    """Variance η_k/2·G^α·τ^{2−α} and bias G^{2α}·τ^{2−2α}/μ, weighted by k."""
    G, mu, K = 2.0, 0.5, 3000
    k = np.arange(1, K + 1)
    tau = G * k ** (1 / alpha)
    terms = 2 / (mu * (k + 1)) * G**alpha * tau ** (2 - alpha)
    terms += G ** (2 * alpha) * tau ** (2 - 2 * alpha) / mu
    exact = np.sum(k * terms) / (K * (K + 1) / 2)
    (bound,) = strongly_convex.theorem_4_bound([K], alpha, G, mu)
    assert exact <= bound <= 1.01 * exact
    steps = np.array([10**5, 10**6])
    slope = slopes.slope(steps, strongly_convex.theorem_4_bound(steps, alpha, G))
    assert slope == pytest.approx(bound_exponent(alpha), abs=0.01)


def test_exponents_are_table_1_s():
    """At α = 2 the rates of SGD with bounded variance; at α → 1 none."""
    assert bound_exponent(2) == -1
    assert nonconvex_exponent(2) == -1 / 4
    assert bound_exponent(1.5) == pytest.approx(-2 / 3)
    assert nonconvex_exponent(1.5) == pytest.approx(-1 / 5)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_literal_and_balanced_constants_meet_where_stated(alpha):
    steps = nonconvex.steps_of_the_literal_constants(alpha)
    for factor, same in ((1.01, True), (0.5, False)):
        K = int(factor * steps)
        literal = thresholds.nonconvex_constants(1.0, instances.SIGMA, alpha, K, nonconvex.GAP)
        assert (
            literal.threshold == pytest.approx(nonconvex.balanced_constants(alpha, K)[1])
        ) == same


def test_both_clips_follow_their_own_rule_on_the_same_noise():
    steps, d, seeds, alpha = 6, 3, 4, dimension.DIMENSION_ALPHA
    B = d**-0.5
    x = np.full((2, seeds, d), B)
    weighted = np.zeros_like(x)
    for k in range(1, steps + 1):
        weighted += k * x
        g = x + noise(9, k, (seeds, d), B, [alpha])[0]
        norm = np.linalg.norm(g[0], axis=-1, keepdims=True)
        tau = k ** (1 / alpha)
        g[0] *= np.minimum(d ** (1 / alpha) * B * tau / norm, 1)
        g[1] = np.clip(g[1], -B * tau, B * tau)
        x = x - 4 / (k + 1) * g
    expected = ((weighted / (steps * (steps + 1) / 2)) ** 2).sum(-1) / 2
    found = dimension.both_clips(tf.constant(steps), 9, seeds, d, EXCESS)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_mean_over_seeds_grows_only_where_it_is_infinite():
    u = np.random.default_rng(0).uniform(size=2**18)
    for index, growth in ((0.625, 0.6), (4.0, 0.0)):
        counts, means = plain_sgd.mean_by_seeds(u ** (-1 / index))
        assert counts[0] == 1 and counts[-1] == 2**14
        assert slopes.slope(counts[5:], means[5:]) == pytest.approx(growth, abs=0.12)


@pytest.mark.slow
def test_a_smoke_run_reports_and_goes_on_where_it_was(tmp_path, capsys, monkeypatch):
    arguments = ["--scale", "smoke", "--output", str(tmp_path)]
    assert script.main(arguments) == 0
    table = capsys.readouterr().out
    assert "strongly convex" in table and "GClip, 1/k" in table
    results = json.loads((tmp_path / "results.json").read_text())
    assert (tmp_path / "rates.png").stat().st_size > 50_000

    for row in results["strongly_convex"]:
        assert row["share"] < 1  # Theorem 4's bound, at every step.
        assert row["low"] <= row["slope"] <= row["high"]
    gclip, cclip = results["dimension"]
    assert gclip["low"] > 0.3
    assert cclip["low"] - 0.05 < 0 < cclip["high"] + 0.05

    # Only the part that is missing is computed again.
    (tmp_path / "runs" / "sgd" / "rows.json").unlink()
    monkeypatch.setattr(strongly_convex, "strongly_convex", None)
    assert script.main(arguments) == 0
    assert json.loads((tmp_path / "results.json").read_text()) == results

    assert script.main([*arguments, "--seeds", "9"]) == 2
    assert "other settings (seeds: 200 → 9)" in capsys.readouterr().err
