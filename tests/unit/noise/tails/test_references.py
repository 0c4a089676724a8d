"""The norms of Gaussian and α-stable vectors."""

import numpy as np
import pytest
from scipy import stats

from keras_acclip.noise import tails
from tests.unit.noise.tails.laws import gaussian, independent_stable, isotropic_stable, pareto

pytestmark = pytest.mark.filterwarnings("error")


class TestReferences:
    @pytest.mark.parametrize("alpha", [0.8, 1.0, 1.5, 1.95])
    def test_stable_density_in_one_dimension_is_that_of_scipy(self, alpha):
        x = np.array([0.01, 0.3, 1.0, 3.0, 10.0, 100.0])
        reference = tails.stable_reference(x.repeat(4), alpha=alpha, dimension=1)
        peer = stats.levy_stable(alpha, 0, scale=reference.scale / np.sqrt(2))
        np.testing.assert_allclose(reference.pdf(x), 2 * peer.pdf(x), rtol=2e-4)
        # Below 0.1 SciPy's own distribution function is off.
        np.testing.assert_allclose(reference.cdf(x[1:]), 2 * peer.cdf(x[1:]) - 1, atol=1e-4)
        shares = np.array([1e-6, 0.01, 0.5, 0.99, 1 - 1e-9])
        np.testing.assert_allclose(reference.cdf(reference.ppf(shares)), shares)

    @pytest.mark.parametrize("alpha, dimension", [(0.6, 3), (1.5, 10), (1.9, 1000), (2.0, 50)])
    def test_draws_follow_the_law(self, alpha, dimension):
        reference = tails.stable_reference(np.arange(1.0, 31.0), alpha=alpha, dimension=dimension)
        draws = reference.rvs((50, 100), seed=1)
        assert draws.shape == (50, 100)
        assert stats.kstest(draws.ravel(), reference.cdf).pvalue > 0.01

    def test_gaussian_is_fitted_by_maximum_likelihood(self):
        sample = 3 * gaussian(np.random.default_rng(0), 2_000, 40)
        reference = tails.gaussian_reference(sample)
        m, _, spread = stats.nakagami.fit(sample, floc=0)
        assert reference.dimension == pytest.approx(2 * m, rel=1e-2)
        assert reference.scale * np.sqrt(reference.dimension) == pytest.approx(spread, rel=1e-3)
        assert reference.dimension == pytest.approx(40, rel=0.15)
        assert reference.log_likelihood == pytest.approx(
            stats.nakagami.logpdf(sample, m, scale=spread).sum(), abs=0.01
        )

    @pytest.mark.parametrize("spread", [1e-3, 1e-6, 1e-10])
    def test_gaussian_holds_for_narrow_samples(self, spread):
        sample = 5 * (1 + spread * np.random.default_rng(0).normal(size=500))
        reference = tails.gaussian_reference(sample)
        assert reference.dimension == pytest.approx(0.5 / spread**2, rel=0.2)
        assert reference.ks < 0.08

    def test_gaussian_dimension_can_be_given(self):
        sample = gaussian(np.random.default_rng(0), 500, 40)
        reference = tails.gaussian_reference(sample, dimension=40)
        assert reference.dimension == 40
        assert reference.scale == pytest.approx(1, rel=0.05)
        with pytest.raises(ValueError, match="`dimension` must be"):
            tails.gaussian_reference(sample, dimension=0.5)

    @pytest.mark.parametrize("alpha, dimension", [(1.3, 1), (1.6, 30), (1.9, 1000)])
    def test_stable_is_fitted_by_maximum_likelihood(self, alpha, dimension):
        law = tails.stable_reference(np.arange(1.0, 31.0), alpha=alpha, dimension=dimension)
        sample = law.rvs(3_000, seed=2)
        reference = tails.stable_reference(sample)
        assert reference.alpha == pytest.approx(alpha, abs=0.1)
        assert reference.scale * np.sqrt(reference.dimension) == pytest.approx(
            law.scale * np.sqrt(dimension), rel=0.1
        )
        assert reference.log_likelihood >= law.logpdf(sample).sum()
        assert reference.p_value > 0.01

    def test_independent_coordinates_give_the_same_law(self):
        sample = independent_stable(np.random.default_rng(0), 2_000, 1.5, 300)
        reference = tails.stable_reference(sample)
        assert reference.alpha == pytest.approx(1.5, abs=0.1)
        assert reference.p_value > 0.01

    def test_goodness_of_fit_and_quantiles(self):
        sample = np.random.default_rng(0).permutation(gaussian(np.random.default_rng(1), 400, 60))
        for reference in (tails.gaussian_reference(sample), tails.stable_reference(sample)):
            assert reference.ks == pytest.approx(stats.kstest(sample, reference.cdf).statistic)
            np.testing.assert_array_equal(reference.sample_quantiles, np.sort(sample))
            np.testing.assert_allclose(
                reference.cdf(reference.reference_quantiles),
                (np.arange(400) + 0.5) / 400,
                atol=1e-4,
            )
            assert reference.p_value > 0.01
        heavy = tails.gaussian_reference(pareto(np.random.default_rng(2), 400, 1.5))
        assert heavy.p_value < 1e-6

    def test_p_value_is_uniform_where_the_law_holds(self):
        rng = np.random.default_rng(0)
        p_values = [
            tails.gaussian_reference(gaussian(rng, 300, 80), seed=seed).p_value
            for seed in range(200)
        ]
        assert stats.kstest(p_values, "uniform").pvalue > 0.01

    def test_likelihood_ratio_tells_the_two_apart(self):
        rng = np.random.default_rng(0)

        def ratio(sample):
            return tails.likelihood_ratio(
                tails.gaussian_reference(sample), tails.stable_reference(sample)
            )

        assert ratio(isotropic_stable(rng, 500, 1.8, 50)).p_value < 1e-6
        assert min(ratio(gaussian(rng, 500, 50)).p_value for _ in range(5)) > 0.05
        with pytest.raises(ValueError, match="different samples"):
            tails.likelihood_ratio(
                tails.gaussian_reference(np.arange(1.0, 31.0)),
                tails.stable_reference(np.arange(2.0, 32.0)),
            )

    def test_rejects_what_it_cannot_fit(self):
        with pytest.raises(ValueError, match="holds a zero"):
            tails.gaussian_reference(np.arange(30.0))
        with pytest.raises(ValueError, match=r"at least 0\.001"):
            tails.stable_reference(1 + 1e-5 * np.arange(30.0))
        with pytest.raises(ValueError, match="`alpha` must be"):
            tails.stable_reference(np.arange(1.0, 31.0), alpha=0.4)
