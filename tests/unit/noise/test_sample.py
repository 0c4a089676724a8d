"""What a sample says of itself."""

import numpy as np
import pytest

from keras_acclip.noise import NoiseSample, tails


def make_sample(norms, step=7, **fields):
    norms = np.asarray(norms, np.float64)
    defaults = {
        "gradient_norms": np.hypot(norms, 1),
        "losses": np.full(len(norms), 2.0),
        "batch_sizes": np.ones(len(norms), np.int64),
        "mean_gradient_norm": 1.0,
        "model": "bert",
        "step": step,
    }
    return NoiseSample(norms=norms, **defaults | fields)


def gaussian_norms(n=500):
    return np.linalg.norm(np.random.default_rng(0).normal(size=(n, 100)), axis=1)


def test_is_saved_and_loaded(tmp_path):
    norms = gaussian_norms(6)
    sample = make_sample(
        norms,
        groups=("dense", "rest"),
        group_norms=np.stack([norms, norms / 2]),
        group_gradient_norms=np.stack([norms, norms]),
        group_mean_gradient_norms=np.array([1.0, 2.0]),
        group_parameters=(3, 4),
        settings={"method": "sketch", "groups": {"dense": "dense/"}},
    )
    path = sample.save(tmp_path / "new" / "noise")
    assert path.endswith("noise.npz")
    loaded = NoiseSample.load(path)
    assert loaded.summary() == sample.summary()
    for name, value in vars(sample).items():
        np.testing.assert_array_equal(getattr(loaded, name), value)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["noise.npz"]
    (tmp_path / "bad.npz").write_bytes(b"not a sample")
    np.savez(tmp_path / "other.npz", norms=[1.0])
    np.savez(tmp_path / "older.npz", format="keras_acclip.NoiseSample/0")
    np.save(tmp_path / "array.npy", [1.0])
    for name in ("bad.npz", "other.npz", "older.npz", "array.npy"):
        with pytest.raises(ValueError, match=f"{name} holds no NoiseSample"):
            NoiseSample.load(tmp_path / name)


def test_a_failing_save_leaves_the_old_file(tmp_path):
    path = make_sample(gaussian_norms(6)).save(tmp_path / "noise.npz")
    with pytest.raises(TypeError):
        make_sample(gaussian_norms(6), settings={"groups": object()}).save(path)
    assert len(NoiseSample.load(path)) == 6
    assert [p.name for p in tmp_path.iterdir()] == ["noise.npz"]


def test_advice_follows_the_verdict():
    rng = np.random.default_rng(0)
    sample = make_sample(1 + rng.pareto(1.3, 2000))
    heavy = sample.advice(steps=1000, smoothness=2.0)
    assert heavy.label == "heavy-tailed"
    assert heavy.threshold == np.quantile(sample.gradient_norms, 0.25)
    assert (heavy.alpha, *heavy.alpha_interval) == sample.classify().tail_index
    assert heavy.order == (1 + heavy.alpha) / 2
    assert heavy.batches is None
    gaussian = make_sample(gaussian_norms())
    calm = gaussian.advice(steps=1000, initial_gap=3.0)
    assert (calm.label, calm.order) == ("concentrated", 2.0)
    assert calm.threshold == np.quantile(gaussian.gradient_norms, 0.9)
    np.testing.assert_allclose(calm.sigma, np.sqrt(np.mean(gaussian.norms**2)))
    # A footnote: Theorem 2's constants.
    tau = max(2, 48 * calm.sigma**2, 8 * calm.sigma, (calm.sigma**6 * 1000 / 3) ** 0.25)
    rate = min(1 / 4, (calm.sigma / tau) ** 2, 1 / (24 * tau))
    assert f"the threshold {tau:.3g} and the learning rate {rate:.3g}" in calm.text
    assert "not decided by the tail" in calm.text
    # A threshold that no norm comes near is told nowhere; a rate that Adam would not bear neither.
    far = make_sample(1 + np.random.default_rng(2).pareto(1.2, 2000)).advice()
    assert far.order < 1.2 and "Theorem 2" not in far.text
    assert "no longer than rate times threshold. Adam and the like" in far.text
    few = make_sample(rng.normal(10, 1, 20), step=-1).advice()
    assert (few.label, few.batches) == ("undecided", 256)
    assert "with 256 batches it would more likely be decided" in few.text
    assert "this point of training" in few.text
    with pytest.raises(ValueError, match="No advice"):
        make_sample(np.zeros(5)).advice()


def test_sigma_does_not_grow_with_the_sample():
    rng = np.random.default_rng(0)
    sigmas = [make_sample(1 + rng.pareto(1.5, n)).advice().sigma for n in (500, 5000, 50_000)]
    assert max(sigmas) / min(sigmas) < 1.35


def test_without_a_mean_there_is_no_sigma():
    advice = make_sample(1 + np.random.default_rng(1).pareto(0.7, 500)).advice()
    assert advice.alpha < 1
    assert np.isnan(advice.order) and advice.sigma == np.inf
    assert "Theorem 2" not in advice.text


def test_recurring_examples_are_said():
    sample = make_sample(gaussian_norms(), settings={"examples": 800, "distinct_examples": 100})
    for text in (sample.summary(), str(sample.advice())):
        assert "examples recur: 100 of 800 differ" in text


def test_summary_names_model_step_and_verdict():
    sample = make_sample(gaussian_norms())
    summary = sample.summary()
    assert "bert at step 7" in summary
    assert "concentrated" in summary
    assert sample.tail_index(k=50) == tails.hill(sample, k=50)
    assert sample.classify() == tails.classify(sample.norms)
    np.testing.assert_array_equal(np.asarray(sample), sample.norms)
    figure = sample.plot()
    assert len(figure.axes) == 4
    scale = sample.noise_scale().short
    assert f"bert at step 7, noise scale {scale}: concentrated" in figure.get_suptitle()
    with pytest.raises(KeyError, match="There are: none"):
        sample.group("dense")
