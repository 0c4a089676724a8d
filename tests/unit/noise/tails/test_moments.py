"""Moments and their standard errors."""

import numpy as np
import pytest
from scipy import stats

from keras_acclip.noise import tails
from tests.unit.noise.tails.laws import gaussian, pareto

pytestmark = pytest.mark.filterwarnings("error")


class TestMoments:
    def test_variance_growth_is_the_variance_of_each_beginning(self):
        sample = 1e3 + np.random.default_rng(0).exponential(size=60)
        growth = tails.variance_growth(sample, orders=3, seed=9)
        generator = np.random.default_rng(9)
        for row in growth.variances:
            order = generator.permutation(sample)
            expected = [np.var(order[:size], ddof=1) for size in growth.sizes]
            np.testing.assert_allclose(row, expected, rtol=1e-9)
        assert growth.variances.shape == (3, 59)

    def test_variance_growth_settles_or_not(self):
        rng = np.random.default_rng(0)

        def last_jump(sample):
            variances = tails.variance_growth(sample).variances
            return np.max(variances[:, -1] / variances[:, len(sample) // 4])

        assert last_jump(gaussian(rng, 5_000, 100)) < 1.3
        assert last_jump(pareto(rng, 5_000, 1.2)) > 3

    def test_max_to_sum(self):
        assert tails.max_to_sum([3.0, 4.0], p=2) == pytest.approx(16 / 25)
        assert tails.max_to_sum([1e100, 0.0, 1e100], p=4) == pytest.approx(0.5)
        sample = pareto(np.random.default_rng(0), 100_000, 1.5)
        assert tails.max_to_sum(sample, p=1) < 0.05 < tails.max_to_sum(sample, p=3)
        with pytest.raises(ValueError, match="All norms are zero"):
            tails.max_to_sum(np.zeros(5), p=2)
        with pytest.raises(ValueError, match="`p` must be"):
            tails.max_to_sum([1.0], p=0)

    def test_alpha_moment(self):
        sample = np.array([1.0, 2.0, 4.0])
        for alpha in (1.3, 2):
            assert tails.alpha_moment(sample, alpha) == pytest.approx(np.mean(sample**alpha))
        assert tails.alpha_moment(np.zeros(3), 1.5) == 0
        for alpha in (1, 2.1):
            with pytest.raises(ValueError, match="alpha"):
                tails.alpha_moment(sample, alpha)

    @pytest.mark.parametrize("n", [4, 10, 1000])
    def test_kurtosis_and_skewness_are_those_of_scipy(self, n):
        sample = np.random.default_rng(n).exponential(size=n)
        assert tails.kurtosis(sample).value == pytest.approx(stats.kurtosis(sample, bias=False))
        assert tails.skewness(sample).value == pytest.approx(stats.skew(sample, bias=False))

    @pytest.mark.parametrize("moment", [tails.kurtosis, tails.skewness])
    def test_standard_error_is_the_spread(self, moment):
        rng = np.random.default_rng(0)
        estimates = [moment(rng.gamma(10, size=3_000)) for _ in range(300)]
        spread = np.std([value for value, _ in estimates])
        assert np.mean([stderr for _, stderr in estimates]) == pytest.approx(spread, rel=0.2)
