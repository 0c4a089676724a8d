import json

import keras
import noise_histograms as job
import numpy as np
import pytest
from lab import bert, images, token_rows
from lab.histograms import description, names, networks, stages
from lab.resuming import Work
from scipy import stats

from keras_acclip.noise import NoiseSample, tails

SETTINGS = job.SCALES["smoke"] | {"scale": "smoke"}


# --- Data ---


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(0)
    rows = generator.integers(5, 512, (40, SETTINGS["sequence_length"])).astype("int32")
    vocabulary = [str(i) for i in range(512)]
    text = token_rows.TokenRows(rows, rows, vocabulary, "random", "0")
    return networks.Data(text, images.digits(), SETTINGS)


def read(batches):
    return [
        ({name: value.numpy() for name, value in inputs.items()}, labels.numpy())
        for inputs, labels in batches
    ]


def test_gaussian_input_stands_in_for_the_text_of_the_same_rows_and_masks(data):
    text, _, gaussian, other = (read(data.batches(name, 8, 3, 0, 20)) for name in names.FIGURE_4)
    for (a, a_labels), (b, b_labels), (c, _) in zip(text, gaussian, other, strict=True):
        np.testing.assert_array_equal(a_labels, b_labels)
        np.testing.assert_array_equal(a["mask_positions"], b["mask_positions"])
        np.testing.assert_array_equal(b["embeddings"], c["embeddings"])
        assert set(a) == {"token_ids", "mask_positions"}
        assert set(b) == {"embeddings", "mask_positions"}
    vectors = np.stack([inputs["embeddings"] for inputs, _ in gaussian])
    draws = vectors.ravel() / bert.INITIAL_SCALE
    assert stats.kstest(draws, "norm").pvalue > 1e-3
    neighbours = [stats.pearsonr(vectors[0].ravel(), vectors[i].ravel())[0] for i in range(1, 5)]
    assert np.abs(neighbours).max() < 0.04  # 16,384 draws: five standard errors.

    resumed = read(data.batches("attention, Gaussian input", 8, 3, 13, 20))
    for (expected, _), (found, _) in zip(gaussian[13:], resumed, strict=True):
        np.testing.assert_array_equal(found["embeddings"], expected["embeddings"])


# --- Measuring along training ---


@pytest.mark.slow
def test_an_interrupted_run_ends_as_the_unbroken_one(data, tmp_path, monkeypatch):
    network = "no attention, Gaussian input"
    whole, broken = (Work(tmp_path / name, data.settings) for name in ("whole", "broken"))

    def follow(work):
        return stages.follow(network, 0, data, work, verbose=0)

    unbroken = follow(whole)
    assert [row["step"] for row in unbroken] == [0, 1, 3, 5, 7, 9]

    save, deaths = NoiseSample.save, iter([1])

    def die_in_the_fourth_stage(sample, path):
        if sample.step == 5 and next(deaths, None):
            raise KeyboardInterrupt
        return save(sample, path)

    monkeypatch.setattr(NoiseSample, "save", die_in_the_fourth_stage)
    with pytest.raises(KeyboardInterrupt):
        follow(broken)
    assert follow(broken) == unbroken
    pairs = zip(stages.samples(broken, network, 0), stages.samples(whole, network, 0), strict=True)
    for (found, expected), row in zip(pairs, unbroken, strict=True):
        np.testing.assert_array_equal(found.norms, expected.norms)
        assert found.step == row["step"]
    assert not list(tmp_path.rglob("*.h5"))
    monkeypatch.setattr(keras.Model, "fit", lambda *_, **__: pytest.fail("trained again"))
    assert follow(broken) == unbroken


# --- What the norms say ---


def sample(norms):
    ones = np.ones(len(norms))
    return NoiseSample(np.asarray(norms), ones, ones, ones.astype(int), mean_gradient_norm=1.0)


@pytest.mark.parametrize("seed", range(5))
def test_a_sample_is_described_by_its_statistics(seed):
    norms = 1 + np.random.default_rng(seed).pareto(1.4, 400)
    found = description.describe(sample(norms))
    assert found["spread"] == pytest.approx(stats.variation(norms, ddof=1))
    assert found["largest"] == pytest.approx(norms.max() / np.median(norms))
    estimate, verdict = tails.hill(norms), tails.classify(norms)
    assert found["hill"] == [estimate.alpha, estimate.low, estimate.high]
    assert (found["verdict"], found["reason"]) == (verdict.label, verdict.reason)
    growth = tails.variance_growth(norms)
    (column,) = np.flatnonzero(growth.sizes == 100)
    quarter = growth.variances[:, column] / np.var(norms, ddof=1)
    np.testing.assert_allclose(found["variance_at_quarter"], [quarter.min(), quarter.max()])
    assert found["gaussian"]["p_value"] < 0.01
    json.dumps(found)


def test_tail_weight_is_one_over_hills_index_of_the_largest_tenth():
    norms = np.random.default_rng(0).pareto(2.5, (3, 500)) + 1
    expected = [1 / tails.hill(row, k=50).alpha for row in norms]
    np.testing.assert_allclose(description.tail_weight(norms), expected)
    np.testing.assert_allclose(description.tail_weight(norms.T, axis=0), expected)
    np.testing.assert_allclose(description.spread(norms), stats.variation(norms, axis=1, ddof=1))


def test_paired_intervals_cover_the_true_difference():
    # Two lognormal samples that share most of their scatter: standard deviations 0.4 and 0.3.
    generator = np.random.default_rng(0)
    truth = np.sqrt(np.expm1(0.4**2)) - np.sqrt(np.expm1(0.3**2))
    covered, widths = 0, []
    for _ in range(60):
        common, own = generator.normal(size=(2, 400))
        pair = [sample(np.exp(s * (0.95 * common + 0.31 * own))) for s in (0.4, 0.3)]
        value, low, high = description.difference(*pair)["spread"]
        assert low < value < high
        covered += low < truth < high
        widths.append(high - low)
    assert covered >= 50  # Of 60 at 95%: fewer come once in thousands of trials.
    unpaired = sample(np.exp(0.3 * generator.normal(size=400)))
    _, low, high = description.difference(pair[0], unpaired)["spread"]
    assert high - low > 1.5 * np.mean(widths)


def test_a_sample_does_not_differ_from_itself():
    norms = sample(np.random.default_rng(1).pareto(3, 200) + 1)
    assert description.difference(norms, norms) == {"spread": [0, 0, 0], "tail_weight": [0, 0, 0]}


# --- The command ---


@pytest.mark.slow
def test_the_smoke_scale_reports_every_network_at_every_stage(
    command, tmp_path, capsys, monkeypatch
):
    assert command(tmp_path, "--jobs", "1") == 0
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results["stages"]) == len(names.NETWORKS) * len(names.STAGES)
    for row in results["stages"]:
        assert f"| {row['network']} " in printed
        assert row["norms"] == 20
        assert row["verdict"] == "undecided"  # 20 norms never tell.
        assert 0 < row["loss"] < 8
    assert len(results["differences"]) == 2 * len(names.PAIRS)
    pictures = {path.name for path in tmp_path.glob("*.png")}
    developments = {f"figure2-{names.slug(name)}.png" for name in names.NETWORKS}
    assert pictures == developments | {"figure1.png", "figure4-step-0.png", "figure4-step-9.png"}

    monkeypatch.setattr(stages, "build_network", lambda *_: pytest.fail("trained again"))
    assert command(tmp_path, "--jobs", "1") == 0
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert command(tmp_path, "--noise-batches", "30") == 2
    assert "other settings (noise_batches: 20 → 30)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", "no/such/file"], "no/such/file: no such file"),
        (["--images", "no/such"], "--images no/such: "),
        (["--image-batch-size", "2000"], "too few for a batch of 2000"),
    ],
)
def test_unusable_data_are_an_error_that_names_them(command, arguments, message, tmp_path, capsys):
    assert command(tmp_path / "out", *arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "8"], "--steps 8 must be at least 9"),
        (["--image-steps", "8"], "--image-steps 8 must be at least 9"),
        (["--noise-batches", "19"], "--noise-batches 19 must be at least 20"),
        (["--warmup", "360"], "--warmup 360 must be below --steps 360"),
        (["--hidden", "100"], "--hidden 100 must be a multiple of 64"),
        (["--validation-text", "a"], "--validation-text needs --text"),
        (["--tfds-dir", "a"], "--tfds-dir needs --tfds"),
    ],
)
def test_a_bad_argument_is_named(arguments, message, capsys):
    with pytest.raises(SystemExit):
        job.parse_arguments(arguments)
    assert message in capsys.readouterr().err
