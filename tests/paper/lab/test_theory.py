import numpy as np
import pytest
import tensorflow as tf
from lab.theory import simulate, slopes
from scipy import integrate, stats


def test_the_radius_is_scipys_pareto():
    u = np.random.default_rng(1).uniform(-1, 1, 1000)
    for index, scale in ((1.25, 0.3), (2.05, 4.0)):
        radius = simulate.pareto_radius(tf.constant(u), index, scale).numpy()
        np.testing.assert_allclose(radius, stats.pareto.isf(abs(u), index, scale=scale), rtol=1e-12)


@pytest.mark.parametrize(("index", "order", "moment"), [(1.7, 1.2, 0.3), (2.5, 2.0, 5.0)])
def test_the_scale_gives_the_moment(index, order, moment):
    scale = simulate.pareto_scale(index, order, moment)
    # E r^α by substitution of log r, whose integrand decays exponentially.
    value, _ = integrate.quad(
        lambda t: index * scale**order * np.exp((order - index) * t), 0, np.inf
    )
    assert value ** (1 / order) == pytest.approx(moment, rel=1e-6)


@pytest.mark.parametrize("index", [1.25, 1.85, 2.05])
def test_the_truncated_second_moment_is_the_integral(index):
    scale, cut = 0.2, 50.0
    law = stats.pareto(index, scale=scale)
    inside = integrate.quad(lambda t: np.exp(3 * t) * law.pdf(np.exp(t)), *np.log((scale, cut)))[0]
    expected = inside + cut**2 * law.sf(cut)
    assert simulate.truncated_second_moment(index, scale, cut) == pytest.approx(expected, rel=1e-6)


def test_uniform_numbers_are_a_function_of_seed_and_step():
    def draw(seed, step):
        return simulate.uniform(seed, tf.constant(step), (4000,)).numpy()

    np.testing.assert_array_equal(draw(1, 2), draw(1, 2))
    for other in (draw(1, 3), draw(2, 2)):
        assert abs(np.corrcoef(draw(1, 2), other)[0, 1]) < 0.08
        assert stats.kstest(other, stats.uniform(-1, 2).cdf).pvalue > 1e-4


def test_a_state_is_measured_after_the_steps_asked_for():
    @simulate.compiled
    def run(checkpoints):
        def advance(k, total, product):
            k = tf.cast(k, tf.float64)
            return total + k, product * k

        one = tf.ones((2,), tf.float64)
        return simulate.record(
            advance, [one - 1, one], checkpoints, lambda k, a, b: tf.stack([a, b])
        )

    found = run(tf.constant([1, 2, 5, 6])).numpy()
    np.testing.assert_array_equal(found[:, 0, 0], [1, 3, 15, 21])
    np.testing.assert_array_equal(found[:, 1, 1], [1, 2, 120, 720])


def test_checkpoints_are_whole_and_hold_both_ends():
    assert simulate.checkpoints(10, 1000, 2).tolist() == [10, 32, 100, 316, 1000]
    assert simulate.checkpoints(1, 4, 10).tolist() == [1, 2, 3, 4]


def test_the_interval_of_a_slope_holds_the_true_one_as_often_as_it_says():
    rng, steps = np.random.default_rng(0), np.array([3, 10, 30, 100, 300, 1000])
    held = 0
    for _ in range(40):
        # A seed's own size and its own slope: errors of one run depend on each other.
        size, tilt = rng.lognormal(0, 1, 300), rng.normal(0, 0.3, 300)
        errors = size * steps[:, None] ** (-0.7 + tilt) * rng.exponential(size=(6, 300))
        law = steps**-0.7 * np.exp((0.3 * np.log(steps)) ** 2 / 2)
        true = slopes.slope(steps, law)
        fitted = slopes.fit(steps, errors)
        held += fitted["low"] <= true <= fitted["high"]
        assert fitted["slope"] == pytest.approx(slopes.slope(steps, errors.mean(-1)))
        assert all(np.array(fitted["mean_low"]) <= fitted["mean"])
    assert 32 <= held <= 40


def test_a_slope_is_fitted_from_the_first_step_asked_for():
    steps = np.array([1, 10, 100, 1000])
    errors = np.array([7.0, 1.0, 0.1, 0.01])[:, None] * np.ones(5)
    assert slopes.fit(steps, errors, first=10)["slope"] == pytest.approx(-1)


@pytest.mark.parametrize(
    ("low", "high", "word"), [(-2, -1, "below"), (-1, 0, "matches"), (-0.2, 0, "above")]
)
def test_a_verdict_compares_interval_and_bound(low, high, word):
    assert slopes.verdict({"low": low, "high": high}, -0.5) == word
    assert slopes.interval({"slope": -1, "low": low, "high": high}).startswith("-1.000 [")
