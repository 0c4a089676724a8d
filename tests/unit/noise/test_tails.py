import doctest
import re
import subprocess
import sys
import warnings

import numpy as np
import powerlaw
import pytest
from scipy import stats

from keras_acclip import noise
from keras_acclip.noise import tails

pytestmark = pytest.mark.filterwarnings("error")


def pareto(rng, n, alpha):
    return 1 + rng.pareto(alpha, size=n)


def symmetric_stable(rng, size, alpha):
    return stats.levy_stable.rvs(alpha, 0, size=size, random_state=rng)


def isotropic_stable(rng, n, alpha, dimension):
    scale = np.cos(np.pi * alpha / 4) ** (2 / alpha)
    factors = stats.levy_stable.rvs(alpha / 2, 1, scale=scale, size=n, random_state=rng)
    return np.sqrt(factors) * np.linalg.norm(rng.normal(size=(n, dimension)), axis=1)


def independent_stable(rng, n, alpha, dimension):
    return np.linalg.norm(symmetric_stable(rng, (n, dimension), alpha), axis=1)


def gaussian(rng, n, dimension):
    return np.sqrt(rng.chisquare(dimension, size=n))


def sample_of(name, rng, n=500):
    """Samples by name: what a table of verdicts speaks of."""
    return {
        "gaussian d=100": lambda: gaussian(rng, n, 100),
        "gaussian d=10,000": lambda: gaussian(rng, n, 10_000),
        "gaussian, unequal": lambda: np.linalg.norm(
            rng.normal(size=(n, 300)) / np.arange(1, 301) ** 0.5, axis=1
        ),
        "half-normal": lambda: np.abs(rng.normal(size=n)),
        "uniform": lambda: rng.uniform(size=n),
        "exponential": lambda: rng.exponential(size=n),
        "lognormal 0.1": lambda: rng.lognormal(0, 0.1, size=n),
        "lognormal 1": lambda: rng.lognormal(0, 1, size=n),
        "constant and tiny": lambda: 1 + 1e-6 * rng.normal(size=n),
        "student 3": lambda: np.abs(rng.standard_t(3, size=n)),
        "small BERT, trained": lambda: np.abs(20 + 1.5 * rng.standard_t(5, size=n)),
        "stable 1.2": lambda: np.abs(symmetric_stable(rng, n, 1.2)),
        "stable 1.7": lambda: np.abs(symmetric_stable(rng, n, 1.7)),
        "stable 1.7, isotropic d=2": lambda: isotropic_stable(rng, n, 1.7, 2),
        "stable 1.7, isotropic d=100": lambda: isotropic_stable(rng, n, 1.7, 100),
        "stable 1.7, independent d=20": lambda: independent_stable(rng, n, 1.7, 20),
        "stable 1.2, independent d=20": lambda: independent_stable(rng, n, 1.2, 20),
        "pareto 1.2": lambda: pareto(rng, n, 1.2),
        "pareto 1.5": lambda: pareto(rng, n, 1.5),
        "pareto 1.8": lambda: pareto(rng, n, 1.8),
        "pareto 1.5, shifted": lambda: 10 + pareto(rng, n, 1.5),
        "pareto 3": lambda: pareto(rng, n, 3.0),
        # Its bulk looks like a heavy tail, but it ends: so do the norms of a model that knows its
        # examples by heart.
        "pareto 0.5 up to 100": lambda: (1 - 0.9 * rng.uniform(size=n)) ** -2.0,
    }[name]()


def powerlaw_fit(sample):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of its own attributes
        return powerlaw.Fit(sample, parameter_ranges={"alpha": [1, 1000]}, verbose=0)


def share_called(name, label, trials):
    labels = [
        tails.classify(sample_of(name, np.random.default_rng(seed))).label for seed in range(trials)
    ]
    return labels.count(label) / trials


class TestHill:
    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize("alpha", [1.2, 1.5, 2.0, 3.0])
    def test_is_within_five_percent_on_large_pareto_samples(self, alpha, seed):
        estimate = tails.hill(pareto(np.random.default_rng(seed), 100_000, alpha))
        assert estimate.alpha == pytest.approx(alpha, rel=0.05)
        assert estimate.low < estimate.alpha < estimate.high

    @pytest.mark.parametrize("n", [100, 500])
    @pytest.mark.parametrize("alpha", [1.2, 3.0])
    def test_interval_covers_with_k_chosen(self, n, alpha):
        rng = np.random.default_rng(int(n * alpha))
        estimates = [tails.hill(pareto(rng, n, alpha)) for _ in range(300)]
        assert 0.90 <= np.mean([e.low <= alpha <= e.high for e in estimates]) <= 0.99

    @pytest.mark.parametrize("k", [5, 50, 299])
    def test_interval_covers_with_k_given(self, k):
        rng = np.random.default_rng(k)
        estimates = [tails.hill(pareto(rng, 300, 1.5), k=k) for _ in range(300)]
        assert 0.90 <= np.mean([e.low <= 1.5 <= e.high for e in estimates]) <= 0.99

    def test_interval_is_as_wide_as_asked(self):
        rng = np.random.default_rng(0)
        samples = [pareto(rng, 100, 1.5) for _ in range(300)]
        for confidence in (0.5, 0.8):
            estimates = [tails.hill(x, k=60, confidence=confidence) for x in samples]
            covered = np.mean([e.low <= 1.5 <= e.high for e in estimates])
            assert covered == pytest.approx(confidence, abs=0.08)

    def test_standard_error_is_the_spread(self):
        rng = np.random.default_rng(0)
        for k in (None, 200):
            estimates = [tails.hill(pareto(rng, 500, 1.5), k=k) for _ in range(200)]
            spread = np.std([e.alpha for e in estimates])
            assert np.mean([e.stderr for e in estimates]) == pytest.approx(spread, rel=0.25)

    @pytest.mark.parametrize("k", [2, 17, 99])
    def test_follows_the_definition(self, k):
        sample = pareto(np.random.default_rng(k), 100, 2.0)
        largest = sorted(sample, reverse=True)
        expected = k / sum(np.log(x / largest[k]) for x in largest[:k])
        estimate = tails.hill(sample, k=k)
        assert estimate.alpha == pytest.approx(expected)
        assert estimate.threshold == largest[k]
        assert estimate.k == k == np.count_nonzero(sample > estimate.threshold)

    @pytest.mark.parametrize("name", ["pareto 1.5", "stable 1.2", "lognormal 1", "gaussian d=100"])
    def test_agrees_with_powerlaw(self, name):
        sample = sample_of(name, np.random.default_rng(3), n=300)
        peer = powerlaw_fit(sample)
        estimate = tails.hill(sample)
        assert estimate.threshold == peer.xmin
        # The density's exponent, and the threshold counted among the k.
        assert estimate.alpha * (estimate.k + 1) / estimate.k == pytest.approx(
            peer.power_law.alpha - 1
        )

    def test_scale_changes_only_the_threshold(self):
        sample = pareto(np.random.default_rng(0), 500, 1.5)
        estimate, scaled = tails.hill(sample), tails.hill(1e-9 * sample)
        assert scaled.alpha == pytest.approx(estimate.alpha)
        assert scaled.threshold == pytest.approx(1e-9 * estimate.threshold)

    def test_ties_take_the_whole_group(self):
        sample = np.round(pareto(np.random.default_rng(0), 300, 1.5), 1)
        estimate = tails.hill(sample)
        assert estimate.k + 1 == np.count_nonzero(sample >= estimate.threshold)

    def test_zero_norms_stay_below_the_threshold(self):
        sample = np.concatenate([np.zeros(50), pareto(np.random.default_rng(0), 200, 1.5)])
        estimate = tails.hill(sample)
        assert estimate == tails.hill(sample[50:])
        with pytest.raises(ValueError, match="`k` must be from 2 to 199"):
            tails.hill(sample, k=200)


class TestBootstrap:
    def test_covers(self):
        rng = np.random.default_rng(1)
        intervals = [
            tails.bootstrap_interval(pareto(rng, 100, 1.5), resamples=100, seed=seed)
            for seed in range(60)
        ]
        assert np.mean([low <= 1.5 <= high for low, high in intervals]) >= 0.85

    @pytest.mark.slow
    def test_covers_over_300_trials(self):
        rng = np.random.default_rng(2)
        intervals = [
            tails.bootstrap_interval(pareto(rng, 300, 1.5), seed=seed) for seed in range(300)
        ]
        assert 0.90 <= np.mean([low <= 1.5 <= high for low, high in intervals]) <= 0.99

    def test_is_the_percentile_bootstrap_at_a_given_k(self):
        sample = pareto(np.random.default_rng(0), 400, 1.5)
        ours = tails.bootstrap_interval(sample, k=80, resamples=2000)

        def index(resample, axis=-1):
            largest = np.log(np.sort(resample, axis=axis)[..., :-82:-1])
            return 1 / (largest[..., :-1].mean(axis=axis) - largest[..., -1])

        peer = stats.bootstrap(
            (sample,), index, method="percentile", n_resamples=2000, rng=np.random.default_rng(1)
        ).confidence_interval
        assert ours == pytest.approx(tuple(peer), rel=0.05)

    def test_seed_fixes_it(self):
        sample = pareto(np.random.default_rng(0), 200, 1.5)
        first, again, other = (
            tails.bootstrap_interval(sample, resamples=50, seed=s) for s in (4, 4, 5)
        )
        assert first == again != other

    def test_needs_twenty_resamples(self):
        with pytest.raises(ValueError, match="`resamples` must be at least 20"):
            tails.bootstrap_interval(np.arange(1.0, 101.0), resamples=19)


class TestHillPlot:
    def test_holds_the_estimates(self):
        sample = pareto(np.random.default_rng(0), 500, 1.5)
        curve = tails.hill_plot(sample, confidence=0.9, points=50)
        assert len(curve.k) <= 50
        assert np.all(np.diff(curve.k) > 0)
        for i in (0, 20, -1):
            estimate = tails.hill(sample, k=int(curve.k[i]), confidence=0.9)
            assert curve.alpha[i] == pytest.approx(estimate.alpha)
            assert (curve.low[i], curve.high[i]) == pytest.approx((estimate.low, estimate.high))
            assert curve.threshold[i] == estimate.threshold


class TestGeneralizedPareto:
    @pytest.mark.parametrize("shape", [-0.3, 0.0, 0.4, 0.8])
    def test_agrees_with_maximum_likelihood(self, shape):
        excesses = stats.genpareto.rvs(shape, scale=3.0, size=1500, random_state=5)
        fit = tails.generalized_pareto(np.append(excesses, 0.0) + 7.0, k=1500)
        peer_shape, _, peer_scale = stats.genpareto.fit(excesses, floc=0)
        assert fit.shape == pytest.approx(peer_shape, abs=0.02)
        assert fit.scale == pytest.approx(peer_scale, rel=0.02)
        assert fit.threshold == pytest.approx(7.0)

    @pytest.mark.parametrize("n", [100, 500])
    @pytest.mark.parametrize("shape", [0.0, 2 / 3])
    def test_interval_covers_with_k_chosen(self, shape, n):
        rng = np.random.default_rng(n)
        fits = [
            tails.generalized_pareto(stats.genpareto.rvs(shape, size=n, random_state=rng))
            for _ in range(300)
        ]
        assert 0.90 <= np.mean([fit.low <= shape <= fit.high for fit in fits]) <= 0.99

    def test_knows_no_origin(self):
        sample = pareto(np.random.default_rng(0), 500, 1.5)
        near, far = tails.generalized_pareto(sample), tails.generalized_pareto(sample + 1000)
        assert far.shape == pytest.approx(near.shape, rel=1e-6)
        assert far.k == near.k

    def test_ties_at_the_threshold_are_no_excesses(self):
        sample = np.concatenate([np.ones(60), 1 + np.arange(1.0, 41.0)])
        assert tails.generalized_pareto(sample, k=50).k == 40


class TestStableIndex:
    @pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0])
    def test_of_scalars(self, alpha):
        rng = np.random.default_rng(0)
        estimate = tails.stable_index(7 + symmetric_stable(rng, 20_000, alpha))
        assert estimate.alpha == pytest.approx(alpha, rel=0.06)

    @pytest.mark.parametrize("alpha", [1.2, 1.8])
    def test_of_vectors(self, alpha):
        rng = np.random.default_rng(0)
        estimate = tails.stable_index(symmetric_stable(rng, (2_000, 40), alpha))
        assert estimate.alpha == pytest.approx(alpha, rel=0.1)

    def test_of_gaussian_norms_is_two(self):
        estimate = tails.stable_index(gaussian(np.random.default_rng(0), 5_000, 1000))
        assert estimate.alpha == pytest.approx(2, abs=0.1)

    def test_scalars_are_vectors_of_one_dimension(self):
        scalars = np.random.default_rng(0).standard_cauchy(500)
        assert tails.stable_index(scalars) == tails.stable_index(scalars[:, None])

    def test_standard_error_is_the_spread(self):
        rng = np.random.default_rng(0)
        estimates = [tails.stable_index(symmetric_stable(rng, 500, 1.3)) for _ in range(150)]
        spread = np.std([e.alpha for e in estimates])
        assert np.mean([e.stderr for e in estimates]) == pytest.approx(spread, rel=0.3)

    def test_rejects_what_it_cannot_use(self):
        with pytest.raises(ValueError, match="differences vanish"):
            tails.stable_index(np.ones(100))
        with pytest.raises(ValueError, match="`block` must be from 2 to 25"):
            tails.stable_index(np.arange(100.0), block=26)
        with pytest.raises(ValueError, match="`orders` must be at least 2"):
            tails.stable_index(np.arange(100.0), orders=1)


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


NEVER_HEAVY = [
    "half-normal",
    "exponential",
    "lognormal 0.1",
    "lognormal 1",
    "student 3",
    "pareto 3",
    "pareto 0.5 up to 100",
]
NEVER_HEAVY += ["gaussian, unequal", "constant and tiny", "small BERT, trained"]
NEVER_CONCENTRATED = ["pareto 1.5, shifted", "pareto 3", "student 3", "lognormal 1"]
# What is promised of 500 norms: the wrong one of two labels at most one time in twenty.
PROMISED = {
    "gaussian d=100": "heavy-tailed",
    "gaussian d=10,000": "heavy-tailed",
    "stable 1.2": "concentrated",
    "stable 1.7": "concentrated",
    "stable 1.7, isotropic d=2": "concentrated",
    "stable 1.7, isotropic d=100": "concentrated",
    "stable 1.7, independent d=20": "concentrated",
    "pareto 1.2": "concentrated",
    "pareto 1.8": "concentrated",
}
MOSTLY = {
    "gaussian d=100": "concentrated",
    "gaussian d=10,000": "concentrated",
    "gaussian, unequal": "concentrated",
    "half-normal": "concentrated",
    "uniform": "concentrated",
    "lognormal 0.1": "concentrated",
    "constant and tiny": "concentrated",
    "small BERT, trained": "concentrated",
    "pareto 1.2": "heavy-tailed",
    "pareto 1.5": "heavy-tailed",
    "stable 1.2": "heavy-tailed",
    "stable 1.2, independent d=20": "heavy-tailed",
    "student 3": "undecided",
    "lognormal 1": "undecided",
    "pareto 3": "undecided",
}


class TestClassify:
    @pytest.mark.parametrize("name, wrong", PROMISED.items())
    def test_is_wrong_in_at_most_one_of_twenty(self, name, wrong):
        assert share_called(name, wrong, trials=300) <= 0.05

    @pytest.mark.parametrize("name", NEVER_HEAVY)
    def test_seldom_calls_finite_variance_heavy(self, name):
        assert share_called(name, "heavy-tailed", trials=40) <= 0.05

    @pytest.mark.parametrize("name", NEVER_CONCENTRATED)
    def test_seldom_calls_a_long_tail_concentrated(self, name):
        assert share_called(name, "concentrated", trials=40) <= 0.05

    @pytest.mark.parametrize("name, label", MOSTLY.items())
    def test_mostly_says_what_is_there(self, name, label):
        assert share_called(name, label, trials=20) >= 0.6

    def test_more_norms_decide_more(self):
        def share(n):
            rng = np.random.default_rng(n)
            verdicts = [tails.classify(isotropic_stable(rng, n, 1.5, 50)) for _ in range(10)]
            return np.mean([verdict.label == "heavy-tailed" for verdict in verdicts])

        assert share(4_000) >= 0.8 > share(250)

    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize("name", MOSTLY)
    def test_reason_is_a_sentence_with_the_evidence(self, name, seed):
        verdict = tails.classify(sample_of(name, np.random.default_rng(seed)))
        assert verdict.reason[0].isupper()
        assert verdict.reason.endswith(".")
        assert "500 norms" in verdict.reason
        assert len(verdict.reason) < 300
        evidence = verdict.hill.alpha if "Hill" in verdict.reason else 1 / verdict.excess.shape
        assert f"{evidence:.3g}" in verdict.reason

    def test_evidence_is_that_of_the_functions(self):
        sample = sample_of("stable 1.7", np.random.default_rng(0))
        verdict = tails.classify(sample)
        assert verdict.hill == tails.hill(sample)
        assert verdict.excess == tails.generalized_pareto(sample)
        assert verdict.far_excess == tails.generalized_pareto(sample, k=67)
        assert verdict.kurtosis == tails.kurtosis(sample).value
        assert verdict.size == 500

    @pytest.mark.parametrize("factor", [1e-30, 1e6])
    def test_unit_does_not_matter(self, factor):
        for name in ("pareto 1.5", "gaussian d=100", "student 3"):
            sample = sample_of(name, np.random.default_rng(0))
            assert tails.classify(factor * sample).label == tails.classify(sample).label

    @pytest.mark.parametrize(
        "sample, words",
        [
            (np.arange(1.0, 100.0), "99 norms are too few"),
            ([2.5], "1 norms are too few"),
            (np.full(500, 0.1) * 3, "equal"),
            (np.zeros(500), "equal"),
            (np.arange(500.0) % 100, "Only 100 of the 500 norms are distinct"),
            (np.minimum(np.arange(500.0), 400), "largest norms are distinct"),
        ],
    )
    def test_says_undecided_where_there_is_no_tail_to_see(self, sample, words):
        verdict = tails.classify(sample)
        assert verdict.label == "undecided"
        assert re.search(words, verdict.reason)
        assert verdict.hill is None


ON_NORMS = {
    "hill": tails.hill,
    "hill with k": lambda x: tails.hill(x, k=10),
    "bootstrap_interval": tails.bootstrap_interval,
    "hill_plot": tails.hill_plot,
    "generalized_pareto": tails.generalized_pareto,
    "variance_growth": tails.variance_growth,
    "max_to_sum": lambda x: tails.max_to_sum(x, p=2),
    "alpha_moment": lambda x: tails.alpha_moment(x, 1.5),
    "kurtosis": tails.kurtosis,
    "skewness": tails.skewness,
    "gaussian_reference": tails.gaussian_reference,
    "stable_reference": tails.stable_reference,
    "classify": tails.classify,
}
ANY_CONSTANT = {"variance_growth", "max_to_sum", "alpha_moment", "classify"}
LEAST = {
    "hill": 20,
    "hill with k": 20,
    "bootstrap_interval": 20,
    "hill_plot": 20,
    "generalized_pareto": 50,
    "kurtosis": 4,
    "skewness": 4,
    "variance_growth": 2,
    "gaussian_reference": 20,
    "stable_reference": 20,
}


def with_one(value):
    sample = np.arange(1.0, 201.0)
    sample[7] = value
    return sample


class TestAwkwardSamples:
    @pytest.mark.parametrize("name", ON_NORMS)
    @pytest.mark.parametrize(
        "sample, words",
        [
            ([], "at least"),
            (with_one(np.nan), r"1 of 200 values are NaN or infinite; the first at index \[7\]"),
            (with_one(np.inf), "NaN or infinite"),
            (with_one(-1.0), "can't be negative"),
            (with_one(1e200), "at most 1e[+]150"),
            (np.ones((20, 10)), "1 dimension"),
            (3.0, "1 dimension"),
        ],
    )
    def test_raise_an_error_that_says_why(self, name, sample, words):
        with pytest.raises(ValueError, match=words):
            ON_NORMS[name](sample)

    @pytest.mark.parametrize("name", sorted(ON_NORMS.keys() - ANY_CONSTANT))
    @pytest.mark.parametrize("value", [0.0, 0.1, 1e9])
    def test_constant_ones_have_no_tail(self, name, value):
        sample = np.full(300, value)
        sample[::3] = np.nextafter(value, 2 * value)
        with pytest.raises(ValueError, match="no spread"):
            ON_NORMS[name](sample)

    @pytest.mark.parametrize("name, least", LEAST.items())
    def test_tiny_ones_are_too_small(self, name, least):
        sample = np.arange(1.0, least + 1.0)
        ON_NORMS[name](sample)
        with pytest.raises(ValueError, match=f"at least {least} values"):
            ON_NORMS[name](sample[1:])

    @pytest.mark.parametrize("name", ["hill", "hill with k", "hill_plot", "bootstrap_interval"])
    def test_mostly_zero_ones_have_no_tail(self, name):
        sample = np.zeros(100)
        sample[:4] = 1, 2, 3, 4
        with pytest.raises(ValueError, match=r"positive|from 2 to 3|distinct|differ"):
            ON_NORMS[name](sample)

    @pytest.mark.parametrize("sample", [["a", "b"], np.ones(30) * 1j])
    def test_must_be_numbers(self, sample):
        with pytest.raises(TypeError, match="real numbers"):
            tails.hill(sample)

    @pytest.mark.parametrize("seed", range(5))
    def test_ragged_ones_give_finite_numbers(self, seed):
        rng = np.random.default_rng(seed)
        samples = [
            np.round(rng.pareto(1.0, 300), 1),
            rng.pareto(0.3, 300) + 1e-12,
            np.exp(rng.uniform(-300, 300, 300)),
            1 + 1e-12 * rng.uniform(size=300),
            np.where(rng.uniform(size=300) < 0.01, 1e30, rng.uniform(size=300)),
        ]
        for sample in samples:
            verdict = tails.classify(sample)
            assert verdict.label in ("heavy-tailed", "concentrated", "undecided")
            for estimate in (tails.hill(sample), tails.generalized_pareto(sample)):
                assert np.isfinite(list(vars(estimate).values())).all()
            assert np.isfinite(tails.variance_growth(sample).variances).all()
            assert np.isfinite(tails.kurtosis(sample)).all()

    def test_lists_and_float32_are_samples_too(self):
        sample = pareto(np.random.default_rng(0), 200, 1.5).astype(np.float32)
        assert tails.hill(sample) == tails.hill(sample.tolist())


def test_examples_in_docstrings_hold():
    outcome = doctest.testmod(tails)
    assert outcome.failed == 0
    assert outcome.attempted > 20


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


class TestLoading:
    def test_importing_the_package_loads_nothing_and_a_missing_extra_is_named(self):
        done = run_python(
            "import sys, keras_acclip; before = set(sys.modules)\n"
            "import keras_acclip.noise\n"
            "assert 'tails' in dir(keras_acclip.noise)\n"
            "loaded = set(sys.modules) - before\n"
            "assert loaded <= {'keras_acclip.noise'}, loaded\n"
            "try: keras_acclip.noise.missing\n"
            "except AttributeError as error: assert 'missing' in str(error)\n"
            "else: raise SystemExit('no error')\n"
            "sys.modules['scipy'] = None\n"
            "try: keras_acclip.noise.classify\n"
            "except ImportError as error: assert 'keras-acclip[noise]' in str(error), error\n"
            "else: raise SystemExit('no error')\n"
        )
        assert done.returncode == 0, done.stderr

    def test_names_are_those_of_the_modules(self):
        assert noise.hill is tails.hill
        assert noise.classify is tails.classify
        assert noise.Verdict is tails.Verdict
        assert noise.TailEstimate is tails.TailEstimate
