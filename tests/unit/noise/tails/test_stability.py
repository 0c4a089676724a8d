"""The index of α-stable noise from the growth of sums."""

import numpy as np
import pytest

from keras_acclip.noise import tails
from tests.unit.noise.tails.laws import gaussian, symmetric_stable

pytestmark = pytest.mark.filterwarnings("error")


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
