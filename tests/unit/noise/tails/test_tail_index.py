"""Hill's estimator and its curve."""

import warnings

import numpy as np
import powerlaw
import pytest

from keras_acclip.noise import tails
from tests.unit.noise.tails.laws import pareto, sample_of

pytestmark = pytest.mark.filterwarnings("error")


def powerlaw_fit(sample):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of its own attributes
        return powerlaw.Fit(sample, parameter_ranges={"alpha": [1, 1000]}, verbose=0)


class TestHill:
    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize("alpha", [1.2, 1.5, 2.0, 3.0])
    def test_is_within_five_percent_on_large_pareto_samples(self, alpha, seed):
        estimate = tails.hill(pareto(np.random.default_rng(seed), 100_000, alpha))
        assert estimate.alpha == pytest.approx(alpha, rel=0.05)
        assert estimate.low < estimate.alpha < estimate.high

    @pytest.mark.parametrize("alpha", [1.2, 3.0])
    @pytest.mark.parametrize("n, trials", [(100, 300), (500, 150)])
    def test_interval_covers_with_k_chosen(self, n, trials, alpha):
        rng = np.random.default_rng(int(n * alpha))
        estimates = [tails.hill(pareto(rng, n, alpha)) for _ in range(trials)]
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
