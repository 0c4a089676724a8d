"""The bootstrap interval of Hill's index."""

import numpy as np
import pytest
from scipy import stats

from keras_acclip.noise import tails
from tests.unit.noise.tails.laws import pareto

pytestmark = pytest.mark.filterwarnings("error")


class TestBootstrap:
    def test_covers(self):
        rng = np.random.default_rng(1)
        intervals = [
            tails.bootstrap_interval(pareto(rng, 100, 1.5), resamples=100, seed=seed)
            for seed in range(40)
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
