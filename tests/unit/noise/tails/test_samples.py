"""What is no sample, and samples that are awkward."""

import numpy as np
import pytest

from keras_acclip.noise import tails
from tests.unit.noise.tails.laws import pareto

pytestmark = pytest.mark.filterwarnings("error")


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
