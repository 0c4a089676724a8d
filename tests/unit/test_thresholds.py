import keras
import numpy as np
import pytest
from scipy import optimize

from keras_acclip import thresholds


def test_power_threshold_counts_steps_from_one():
    schedule = thresholds.PowerThreshold(scale=0.7, alpha=1.3)
    for step in (0, 1, 9, 999):
        assert float(schedule(step)) == pytest.approx(0.7 * (step + 1) ** (1 / 1.3), rel=1e-6)


def test_power_threshold_serializes_like_a_schedule():
    schedule = thresholds.PowerThreshold(scale=0.7, alpha=1.3)
    saved = keras.optimizers.schedules.serialize(schedule)
    again = keras.optimizers.schedules.deserialize(saved)
    assert isinstance(again, thresholds.PowerThreshold)
    assert again.get_config() == {"scale": 0.7, "alpha": 1.3}


@pytest.mark.parametrize(
    ("scale", "alpha", "error"),
    [
        (0.0, 1.5, ValueError),
        (-1.0, 1.5, ValueError),
        (float("inf"), 1.5, ValueError),
        (float("nan"), 1.5, ValueError),
        ("1", 1.5, TypeError),
        (True, 1.5, TypeError),
        (1.0, 1.0, ValueError),
        (1.0, 2.1, ValueError),
    ],
)
def test_bad_arguments_are_named(scale, alpha, error):
    with pytest.raises(error, match=r"Argument `(scale|alpha)`.*Received: (scale|alpha)="):
        thresholds.PowerThreshold(scale, alpha)


@pytest.mark.parametrize("alpha", [1.2, 1.5, 2.0])
def test_balanced_threshold_minimizes_the_sum_of_theorem_2s_error_terms(alpha):
    """At every K the best (η, τ) found numerically gains no more than a constant factor."""
    L, sigma, F0 = 3.0, 0.2, 5.0

    def error(log_eta, log_tau, K):
        eta, tau = np.exp(log_eta), np.exp(log_tau)
        return (
            F0 / (eta * K)
            + L * eta * tau ** (2 - alpha) * sigma**alpha
            + sigma ** (2 * alpha) * tau ** (-2 * (alpha - 1))
        )

    ratios = []
    for K in (10**4, 10**6, 10**8):
        tau = thresholds.balanced_threshold(L, sigma, alpha, K, F0)
        eta = (sigma / tau) ** alpha / L
        terms = (
            F0 / (eta * K),
            L * eta * tau ** (2 - alpha) * sigma**alpha,
            sigma ** (2 * alpha) * tau ** (-2 * (alpha - 1)),
        )
        np.testing.assert_allclose(terms, terms[0], rtol=1e-9)
        best = optimize.minimize(
            lambda p: np.log(error(*p, K)),  # noqa: B023
            [np.log(eta), np.log(tau)],
            method="Nelder-Mead",
            options={"maxiter": 4000, "xatol": 1e-8, "fatol": 1e-10},
        )
        ratios.append(sum(terms) / np.exp(best.fun))
    assert max(ratios) <= 3
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-3)


@pytest.mark.parametrize("alpha", [1.2, 1.5, 2.0])
def test_nonconvex_constants_give_the_rate_of_theorem_2(alpha):
    """The largest error term falls as K^{−2(α−1)/(3α−2)}, the square of the rate of E‖∇f‖."""
    L, sigma, F0 = 1.0, 0.05, 1.0
    steps = np.array([10**13, 10**14, 10**15])
    bias = []
    for K in steps:
        eta, tau = thresholds.nonconvex_constants(L, sigma, alpha, int(K), F0)
        assert 0 < eta <= 1 / (4 * L)
        assert tau >= max(2, 8 * sigma)
        bias.append(sigma ** (2 * alpha) * tau ** (-2 * (alpha - 1)))
    slope = np.polyfit(np.log(steps), np.log(bias), 1)[0]
    assert slope == pytest.approx(-2 * (alpha - 1) / (3 * alpha - 2), rel=1e-6)


def test_nonconvex_constants_are_the_smallest_and_largest_of_their_terms():
    eta, tau = thresholds.nonconvex_constants(2.0, 0.5, 2.0, 100, 1.0)
    assert tau == max(2, 48 * 0.25, 4, (0.5**6 * 100 / 2) ** 0.25)
    assert eta == min(1 / 8, (0.5 / tau) ** 2 / 2, 1 / (48 * tau))


def test_nonconvex_constants_say_when_they_overflow():
    with pytest.raises(ValueError, match="`alpha` is too near 1"):
        thresholds.nonconvex_constants(1.0, 2.0, 1.0001, 10, 1.0)


@pytest.mark.parametrize("name", ["smoothness", "sigma", "alpha", "steps", "initial_gap"])
def test_nonconvex_constants_name_bad_arguments(name):
    good = {"smoothness": 1.0, "sigma": 1.0, "alpha": 1.5, "steps": 10, "initial_gap": 1.0}
    with pytest.raises(ValueError, match=f"`{name}`"):
        thresholds.nonconvex_constants(**(good | {name: 0}))


def test_strongly_convex_constants_are_theorem_4s():
    rate, threshold = thresholds.strongly_convex_constants(3.0, 0.5, 1.6)
    for k in (1, 2, 10, 1000):
        assert float(rate(k - 1)) == pytest.approx(4 / (0.5 * (k + 1)), rel=1e-6)
        assert float(threshold(k - 1)) == pytest.approx(3 * k ** (1 / 1.6), rel=1e-6)


def test_strongly_convex_constants_take_a_bound_for_each_group():
    _, threshold = thresholds.strongly_convex_constants({"kernel": 1.0, ".*": 2.0}, 0.5, 1.6)
    assert float(threshold["kernel"](0)) == 1.0
    assert float(threshold[".*"](0)) == 2.0
