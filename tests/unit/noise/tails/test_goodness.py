"""The p-values that guard the verdict, against simulations."""

import numpy as np
import pytest

from keras_acclip.noise import tails
from tests.unit.noise.tails.laws import gaussian, pareto

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize("shape", [0.4, 1.0])
def test_fit_s_p_values_are_as_small_as_they_say(shape):
    rng = np.random.default_rng(0)

    def p_value():
        excesses = (rng.uniform(size=67) ** -shape - 1) / shape
        return tails.fit_p_value(tails.generalized_pareto(np.append(excesses, 0.0) + 1, k=67))

    found = np.array([p_value() for _ in range(2000)])
    for level in (0.01, 0.05, 0.1):
        assert np.mean(found < level) == pytest.approx(level, rel=0.5, abs=0.004)


def test_end_s_p_values_are_seldom_small_on_a_power_law():
    """Less often than they say, even: the index is fitted to the same norms."""
    rng = np.random.default_rng(0)

    def p_value():
        norms = pareto(rng, 300, 1.5)
        return tails.end_p_value(norms, tails.hill(norms, k=200))

    found = np.array([p_value() for _ in range(1000)])
    for level in (0.04, 0.2, 0.5):
        assert 0.3 * level <= np.mean(found < level) <= 1.2 * level


def test_a_tail_that_ends_is_seen():
    rng = np.random.default_rng(0)
    norms = np.minimum(pareto(rng, 500, 1.0), 20)
    assert tails.end_p_value(norms, tails.hill(norms, k=300)) < 1e-3


def test_trend_is_that_of_ranks():
    rng = np.random.default_rng(0)
    p_values = [tails.trend_p_value(pareto(rng, 200, 1.2)) for _ in range(500)]
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=0.025)
    norms = gaussian(rng, 200, 10)
    assert tails.trend_p_value(np.sort(norms)) < 1e-10
    assert tails.trend_p_value(norms**9) == tails.trend_p_value(norms)


def test_the_far_tail_s_interval_holds_the_index():
    rng = np.random.default_rng(0)
    for draw in (
        lambda: pareto(rng, 500, 1.5),
        lambda: rng.pareto(1.5, 500),
        lambda: 10 + pareto(rng, 500, 1.5),
        lambda: np.abs(rng.standard_t(1.5, 500)),
        lambda: np.exp(rng.gamma(2, 1 / 1.5, 500)),
    ):
        intervals = [tails.classify(draw()).tail_index for _ in range(60)]
        assert np.mean([low <= 1.5 <= high for _, low, high in intervals]) >= 0.85


@pytest.mark.parametrize("largest", [1e9, 1e30])
def test_references_fit_where_one_norm_dominates(largest):
    norms = np.append(np.arange(1.0, 100.0), largest)
    assert tails.gaussian_reference(norms).dimension == 1.0
    assert 0.5 <= tails.stable_reference(norms).alpha <= 2
