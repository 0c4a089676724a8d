"""The generalized Pareto law of excesses."""

import numpy as np
import pytest
from scipy import stats

from keras_acclip.noise import tails
from tests.unit.noise.tails.laws import pareto

pytestmark = pytest.mark.filterwarnings("error")


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
