import json
import math

import keras
import numpy as np
import pytest
import rmsprop_as_clipping as job
from lab import bert
from lab.rmsprop import step_sizes, training
from lab.training import WarmupLinearDecay

BETA_2, EPSILON = 0.99, 1e-5


def random_states(seed, count=20_000):
    """Mean squares and gradients over twenty orders of magnitude, zeros among them."""
    generator = np.random.default_rng(seed)
    v, g = 10 ** generator.uniform(-20, 2, (2, count))
    g *= generator.choice([-1, 1], count)
    v[: count // 10] = 0
    g[count // 20 : count // 5] = 0
    return v, g


# --- The two step sizes ---


def in_words(v, g, rate, beta_2, epsilon):
    """The paper's formulas for one coordinate, as they are printed."""
    root = epsilon + math.sqrt(beta_2 * v)
    tau, eta = root / math.sqrt(1 - beta_2), rate / root
    h_clip = eta * (min(tau / abs(g), 1) if g else 1)
    h_adam = rate / (epsilon + math.sqrt(beta_2 * v + (1 - beta_2) * g**2))
    return h_adam, h_clip


def test_steps_are_the_papers():
    for v, g in zip(*random_states(0, 500), strict=True):
        found = [step(v, g, 0.3, BETA_2, EPSILON) for step in step_sizes.STEPS.values()]
        np.testing.assert_allclose(found, in_words(v, g, 0.3, BETA_2, EPSILON), rtol=1e-13)


@pytest.mark.parametrize("epsilon", [1e-12, 1e-5, 1.0])
@pytest.mark.parametrize("beta_2", [0.5, 0.9, 0.999])
def test_clipping_is_within_once_and_twice_of_rmsprop_and_both_are_reached(beta_2, epsilon):
    v, g = random_states(1)
    constants = (0.1, beta_2, epsilon)
    ratio = step_sizes.clip_step(v, g, *constants) / step_sizes.adam_step(v, g, *constants)
    assert ratio.min() >= 1 - 1e-12
    assert ratio.max() <= 2 + 1e-12

    worst = epsilon / math.sqrt(1 - beta_2)  # v = 0 and b = ε.
    assert step_sizes.clip_step(0, worst, *constants) / step_sizes.adam_step(
        0, worst, *constants
    ) == (pytest.approx(2))
    assert step_sizes.clip_step(1, 0, *constants) == step_sizes.adam_step(1, 0, *constants)


def test_without_epsilon_the_ratio_is_at_most_the_root_of_two():
    v, g = random_states(2)
    v, g = v[v * g**2 > 0], g[v * g**2 > 0]
    constants = (0.1, BETA_2, 0.0)
    ratio = step_sizes.clip_step(v, g, *constants) / step_sizes.adam_step(v, g, *constants)
    assert ratio.min() >= 1 - 1e-12
    assert ratio.max() <= math.sqrt(2) + 1e-12
    border = math.sqrt(BETA_2 / (1 - BETA_2))  # |g| = τ at v = 1.
    assert step_sizes.clip_step(1, border, *constants) / step_sizes.adam_step(
        1, border, *constants
    ) == (pytest.approx(math.sqrt(2)))


def test_a_coordinate_is_clipped_to_the_threshold():
    v, g = random_states(3)
    tau = step_sizes.threshold(v, BETA_2, EPSILON)
    eta = 0.1 / (EPSILON + np.sqrt(BETA_2 * v))
    moves = step_sizes.clip_step(v, g, 0.1, BETA_2, EPSILON) * g
    np.testing.assert_allclose(moves, eta * np.clip(g, -tau, tau), rtol=1e-12)


# --- The optimizer ---


def train(optimizer, gradients):
    x = keras.Variable(np.zeros(gradients.shape[1]), dtype="float64", name="x")
    path = []
    for g in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(g)], [x])
        path.append(x.numpy())
    return np.array(path)


@pytest.mark.parametrize("step", step_sizes.STEPS)
def test_the_optimizer_takes_these_steps(step):
    gradients = np.random.default_rng(0).standard_cauchy((30, 50)) * 1e-3
    rates = [0.01 / (k + 1) for k in range(30)]
    schedule = WarmupLinearDecay(0.01, 5, 30)
    found = train(training.StepSize(schedule, step, BETA_2, EPSILON), gradients)
    x = v = np.zeros(50)
    for k, g in enumerate(gradients):
        rates[k] = float(schedule(k))
        h = [in_words(*pair, rates[k], BETA_2, EPSILON) for pair in zip(v, g, strict=True)]
        x = x - np.array(h)[:, list(step_sizes.STEPS).index(step)] * g
        v = BETA_2 * v + (1 - BETA_2) * g**2
        np.testing.assert_allclose(found[k], x, rtol=1e-6, atol=1e-12)


def test_rmsprop_is_keras_adam_without_momentum_but_for_the_bias_correction():
    gradients = np.random.default_rng(1).normal(size=(1, 50))
    adam = keras.optimizers.Adam(0.01, beta_1=0.0, beta_2=BETA_2, epsilon=1e-12)
    expected = train(adam, gradients) / math.sqrt(1 - BETA_2)
    found = train(training.StepSize(0.01, "rmsprop", BETA_2, 1e-12), gradients)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


# --- Their ratio over the coordinates ---


def test_distribution_counts_each_coordinate():
    v, g = random_states(4, 3000)
    groups = np.arange(3000) % len(step_sizes.GROUPS)
    found = step_sizes.distribution(
        v.astype("float32"), g.astype("float32"), groups, BETA_2, EPSILON
    )
    v, g = (values.astype("float32").astype(float) for values in (v, g))
    pairs = np.array([in_words(*pair, 1, BETA_2, EPSILON) for pair in zip(v, g, strict=True)])
    ratio = pairs[:, 1] / pairs[:, 0]
    np.testing.assert_allclose(
        found["quantiles"], np.quantile(ratio, step_sizes.QUANTILES), rtol=1e-12
    )
    assert found["coordinates"] == sum(found["counts"]) == 3000
    assert (found["outside"], found["below_one"]) == (0, 0)
    assert found["still"] == np.mean(g == 0)
    clipped = np.abs(g) * math.sqrt(1 - BETA_2) > EPSILON + np.sqrt(BETA_2 * v)
    assert found["clipped"] == pytest.approx(clipped.mean(), abs=1e-9)
    assert 0.05 < found["clipped"] < 0.95
    for i, share in enumerate(found["clipped_by_group"].values()):
        assert share == pytest.approx(clipped[groups == i].mean())
    assert found["small"] == np.mean(np.sqrt(BETA_2 * v) < EPSILON)


def test_distribution_reports_what_lies_outside(monkeypatch):
    wrong = step_sizes.clip_step
    monkeypatch.setattr(
        step_sizes, "clip_step", lambda *args: wrong(*args) / np.array([1, 1.5, 2.5])
    )
    found = step_sizes.distribution([1, 1, 1], [0, 0, 0], [0, 1, 2], BETA_2, EPSILON)
    assert (found["outside"], found["below_one"]) == (1, 2)


@pytest.mark.parametrize("steps", [1, 2, 12, 600, 36_000])
def test_stages_reach_from_the_start_to_the_end(steps):
    stages = training.measured_steps(steps)
    assert (stages[0], stages[-1]) == (0, steps)
    assert stages == sorted(set(stages))
    assert len(stages) <= training.STAGES


# --- The command ---


@pytest.mark.slow
def test_the_smoke_scale_measures_the_runs_own_coordinates(command, tmp_path, capsys, monkeypatch):
    measured, deaths = [], iter([1])
    distribution = step_sizes.distribution

    def keep(v, g, *rest):
        measured.append((v, g))
        if len(measured) == 5 and next(deaths, None):
            raise KeyboardInterrupt
        return distribution(v, g, *rest)

    monkeypatch.setattr(training, "distribution", keep)
    assert command(tmp_path) == 130
    assert "goes on from here" in capsys.readouterr().out
    measured.pop()
    assert command(tmp_path) == 0
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    assert (tmp_path / "ratio.png").read_bytes().startswith(b"\x89PNG")
    assert "clipping − rmsprop, validation loss" in printed

    stages = training.measured_steps(job.SCALES["smoke"]["steps"])
    rows = [row for run in results["runs"] for row in run["history"]]
    assert [row["step"] for row in rows] == 2 * stages
    for row, (v, g) in zip(rows, measured, strict=True):
        assert (row["outside"], row["below_one"]) == (0, 0)
        assert row["coordinates"] == len(v) == len(g)
        assert (v == 0).all() == (row["step"] == 0)
    # The gradient that a step takes is the one measured before it.
    (_, g), (v, _) = measured[stages.index(0)], measured[stages.index(1)]
    np.testing.assert_allclose(v, (1 - BETA_2) * g**2, rtol=2e-3, atol=1e-12)
    # Both runs start from the same weights and batches.
    np.testing.assert_array_equal(measured[0][1], measured[len(stages)][1])

    monkeypatch.setattr(keras.Model, "fit", lambda *_, **__: pytest.fail("trained again"))
    assert command(tmp_path) == 0
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert command(tmp_path, "--beta-2", "0.9") == 2
    assert "other settings (beta_2: 0.99 → 0.9)" in capsys.readouterr().err


def test_every_variable_of_the_network_has_its_group():
    settings = job.SCALES["smoke"]
    model = bert.build_model(settings["vocabulary_size"], settings)
    sizes = dict.fromkeys(step_sizes.GROUPS, 0)
    for variable in model.trainable_variables:
        sizes[list(step_sizes.GROUPS)[step_sizes.group_of(variable.path)]] += math.prod(
            variable.shape
        )
    hidden = settings["hidden"]
    assert sizes["token embeddings"] == settings["vocabulary_size"] * hidden
    assert sizes["attention"] == 4 * hidden * (hidden + 1) + 2 * hidden
    assert sizes["feed-forward"] == 8 * hidden**2 + 5 * hidden + 2 * hidden


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--beta-2", "1"], "--beta-2 1.0 must be below 1"),
        (["--epsilon", "0"], "'0' is not a number above 0"),
        (["--warmup", "600"], "--warmup 600 must be below --steps 600"),
        (["--hidden", "100"], "--hidden 100 must be a multiple of 64"),
    ],
)
def test_a_bad_argument_is_named(arguments, message, capsys):
    with pytest.raises(SystemExit):
        job.parse_arguments(arguments)
    assert message in capsys.readouterr().err
