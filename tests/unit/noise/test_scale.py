"""The noise scale, where it is known in closed form."""

import dataclasses

import numpy as np
import pytest

from keras_acclip.noise import NoiseSample


def sample_of(rng, gradient, spread, sizes):
    """Gradients of batches with a known mean and a known spread of one example's gradient."""
    noise = rng.normal(size=(len(sizes), len(gradient))) * spread / np.sqrt(sizes)[:, None]
    gradients = gradient + noise
    mean = sizes / sizes.sum() @ gradients
    return NoiseSample(
        norms=np.linalg.norm(gradients - mean, axis=1),
        gradient_norms=np.linalg.norm(gradients, axis=1),
        losses=np.ones(len(sizes)),
        batch_sizes=sizes,
        mean_gradient_norm=float(np.linalg.norm(mean)),
    )


@pytest.mark.parametrize("length", [0.3, 1.0])
@pytest.mark.parametrize("equal", [True, False])
def test_it_is_that_of_the_closed_form(length, equal):
    spread = 1 / np.sqrt(np.arange(1, 51))
    gradient = np.append(length, np.zeros(49))
    true = np.sum(spread**2) / length**2
    held, values = 0, []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        sizes = np.full(200, 16) if equal else rng.integers(8, 25, 200)
        scale = sample_of(rng, gradient, spread, sizes).noise_scale()
        assert scale.value == pytest.approx(scale.trace / scale.squared_gradient)
        values.append(scale.value)
        held += scale.low <= true <= scale.high
    assert np.mean(values) == pytest.approx(true, rel=0.05)
    assert held / 60 >= 0.85


def test_a_gradient_lost_in_the_noise_gives_a_lower_bound_alone():
    rng = np.random.default_rng(0)
    scale = sample_of(rng, np.append(1e-3, np.zeros(49)), 1.0, np.full(100, 16)).noise_scale()
    assert np.isnan(scale.value) and np.isinf(scale.high)
    assert 100 < scale.low < 50 / 1e-6
    assert str(scale) == f"at least {scale.low:,.3g} examples"


def test_of_a_training_s_own_gradients_it_is_an_upper_bound_alone():
    rng = np.random.default_rng(0)
    sample = sample_of(rng, np.ones(5), 1.0, np.full(50, 4))
    followed = dataclasses.replace(sample, settings={"method": "training"})
    scale = followed.noise_scale()
    assert np.isnan(scale.value) and scale.low == 0
    assert scale.high == sample.noise_scale().high
    assert str(scale) == f"at most {scale.high:,.3g} examples"
    lost = dataclasses.replace(followed, mean_gradient_norm=0.0)
    assert "can't be told" in str(lost.noise_scale())
    assert "GradientNoise(dataset)" in lost.advice().text


def test_tokens_are_rows_times_their_length():
    rng = np.random.default_rng(0)
    scale = sample_of(rng, np.ones(5), 1.0, np.full(50, 4)).noise_scale()
    tokens = scale.per_token(128)
    assert (tokens.value, tokens.low, tokens.unit) == (128 * scale.value, 128 * scale.low, "tokens")
    with pytest.raises(ValueError, match="row_length"):
        scale.per_token(0)


def test_too_few_batches_are_refused():
    with pytest.raises(ValueError, match="at least 10 batches"):
        sample_of(np.random.default_rng(0), np.ones(5), 1.0, np.full(9, 4)).noise_scale()


def test_advice_says_how_the_batch_compares():
    rng = np.random.default_rng(0)
    for gradient, words in ((0.1, "are below it"), (30.0, "are above it")):
        sample = sample_of(rng, np.full(50, gradient), 1.0, np.full(256, 16))
        assert words in sample.advice().text
        assert "noise scale" in sample.summary()
