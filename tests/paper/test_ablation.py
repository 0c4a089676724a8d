import json
import math

import ablation as job
import keras
import numpy as np
import pytest
import tensorflow as tf
from lab import plans, token_rows
from lab.ablation import outcome, variants
from lab.ablation import task as tasks
from lab.ablation.global_moving import GlobalMoving
from lab.training import WarmupLinearDecay
from scipy import stats

SETTINGS = job.SCALES["smoke"]
CLS, SEP = 1, 2
CHOSEN = ("--variants", "acclip,global-moving,adam")


def a_run(optimizer, rate, seed, loss):
    row = {"step": 1, "loss": loss, "val_loss": loss, "ms_per_step": 1.0, "seconds": 1.0}
    return {"optimizer": optimizer, "learning_rate": rate, "seed": seed, "history": [row]}


# --- The global moving threshold ---


def in_words(gradients, lr, beta_1, beta_2, epsilon, alpha):
    """The box of `GlobalMoving` on all coordinates in one row, a coordinate at a time."""
    x, m, power = [0.0] * gradients.shape[1], [0.0] * gradients.shape[1], 0.0
    for g in gradients:
        m = [beta_1 * mi + (1 - beta_1) * gi for mi, gi in zip(m, g, strict=True)]
        power = beta_2 * power + (1 - beta_2) * math.hypot(*g) ** alpha
        tau = power ** (1 / alpha)
        factor = min(tau / (math.hypot(*m) + epsilon), 1)
        x = [xi - lr / (tau + epsilon) * factor * mi for xi, mi in zip(x, m, strict=True)]
    return x


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("epsilon", [1e-5, 0.1])
def test_the_global_moving_threshold_is_its_box(alpha, epsilon):
    gradients = np.random.default_rng(0).standard_cauchy((40, 12))
    constants = {"beta_1": 0.8, "beta_2": 0.95, "epsilon": epsilon, "alpha": alpha}
    optimizer = GlobalMoving(0.125, **constants)
    variables = [keras.Variable(np.zeros(shape), dtype="float64") for shape in ((3, 2), (6,))]
    for g in gradients:
        parts = (g[:6].reshape(3, 2), g[6:])
        optimizer.apply([keras.ops.convert_to_tensor(part) for part in parts], variables)
    found = np.concatenate([v.numpy().ravel() for v in variables])
    np.testing.assert_allclose(found, in_words(gradients, 0.125, **constants), rtol=1e-12)


def test_no_step_of_the_global_moving_threshold_is_longer_than_its_rate():
    gradients = np.random.default_rng(1).standard_cauchy((50, 30)) * 1e3
    optimizer, x = GlobalMoving(0.125), keras.Variable(np.zeros(30), dtype="float64")
    for g in [*gradients, np.zeros(30)]:
        before = x.numpy()
        optimizer.apply([keras.ops.convert_to_tensor(g)], [x])
        assert np.linalg.norm(x.numpy() - before) <= 0.125 * (1 + 1e-12)
    assert np.isfinite(x.numpy()).all()


def test_the_global_moving_threshold_keeps_its_arguments():
    optimizer = GlobalMoving(0.1, beta_1=0.8, beta_2=0.9, epsilon=1e-3, alpha=1.5)
    copy = GlobalMoving.from_config(optimizer.get_config())
    assert copy.get_config() == optimizer.get_config()


# --- Training ---


@pytest.fixture(scope="module")
def rows():
    train, held_out = np.random.default_rng(0).integers(5, 512, (2, 64, 16)).astype("int32")
    train[:, 0] = held_out[:, 0] = CLS
    train[:, -1] = held_out[:, -1] = SEP
    return token_rows.TokenRows(train, held_out, [str(i) for i in range(512)], "random", "0")


@pytest.fixture(scope="module")
def task(rows):
    return tasks.Task(rows, SETTINGS)


def stepper_of(task):
    made = {}

    def get(rule):
        if rule not in made:
            made[rule] = tasks.Stepper(rule, len(task.start(0)))
        return made[rule]

    return get


def keras_run(spec, rows, steps):
    """The same run by Keras's own training step, variable by variable."""
    keras.utils.set_random_seed(spec.seed)
    model = tasks.build_model(len(rows.vocabulary), SETTINGS)
    optimizer = variants.VARIANTS[spec.optimizer].make(spec)
    optimizer.learning_rate = WarmupLinearDecay(spec.rate, SETTINGS["warmup"], steps)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, cross_entropy, jit_compile=False)
    size = SETTINGS["batch_size"]
    for inputs, labels in tasks.training_batches(rows.train, size, spec.seed, steps):
        model.train_on_batch(inputs, labels)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["acclip", "global-moving"])
def test_training_is_keras_own(variant, rows, task):
    get, rate = stepper_of(task), variants.VARIANTS[variant].rate / 10
    # What a run leaves must not matter.
    other = tasks.train(plans.Spec(variant, 3 * rate, 4), task, get)
    spec = plans.Spec(variant, rate, 3)
    run = tasks.train(spec, task, get)
    model = keras_run(spec, rows, SETTINGS["steps"])
    expected = np.concatenate([v.numpy().ravel() for v in model.trainable_variables])
    start, found = task.start(3), get(spec.rule).weights.numpy()
    moved = np.linalg.norm(expected - start)
    assert np.linalg.norm(found - expected) < 0.02 * moved
    assert np.linalg.norm(task.start(4) - start) > moved
    inputs, labels = tasks.inputs_and_labels(rows.validation[np.linspace(0, 63, 16).astype(int)])
    loss = model.evaluate(inputs, labels, verbose=0, return_dict=True)["loss"]
    assert run["history"][0]["val_loss"] == pytest.approx(loss, rel=1e-4)
    assert other["history"][0]["val_loss"] != run["history"][0]["val_loss"]


def test_every_variant_starts_alike_on_the_same_batches(task, monkeypatch):
    seen = {}

    def gradient(weights, inputs, labels):
        seen.setdefault(variant, []).append((weights.numpy(), labels.numpy()))
        return tf.constant(1.0), tf.ones_like(weights)

    monkeypatch.setattr(task, "gradient", gradient)
    monkeypatch.setattr(task, "validate", lambda weights: 1.0)
    for variant in ("acclip", "sgd", "acclip-large-batch"):
        spec = plans.Spec(variant, 0.1, 1)
        tasks.train(spec, task, lambda rule: tasks.Stepper(rule, len(task.start(0))))
    for (_, labels), (_, other) in zip(seen["acclip"], seen["sgd"], strict=True):
        np.testing.assert_array_equal(labels, other)
    weights = [steps[0][0] for steps in seen.values()]
    np.testing.assert_array_equal(weights[0], weights[1])
    np.testing.assert_array_equal(weights[0], weights[2])
    assert [len(steps[0][1]) for steps in seen.values()] == [8, 8, 32]
    assert [len(steps) for steps in seen.values()] == 3 * [SETTINGS["steps"]]


def test_a_row_gives_each_token_but_its_first_and_last_to_predict():
    inputs, labels = tasks.inputs_and_labels(np.array([[CLS, 7, 8, 9, SEP], [CLS, 5, 6, 7, SEP]]))
    np.testing.assert_array_equal(inputs["token_ids"], [[CLS, 7, 8], [CLS, 5, 6]])
    np.testing.assert_array_equal(inputs["padding_mask"], np.ones((2, 3)))
    np.testing.assert_array_equal(labels, [[7, 8, 9], [5, 6, 7]])


def test_a_pass_has_each_row_once_in_an_order_of_its_own():
    rows = np.arange(100).reshape(20, 5)
    batches = list(tasks.training_batches(rows, 8, 3, 5))
    taken = np.concatenate([labels[:, 0].numpy() for _, labels in batches]) // 5
    assert sorted(taken[:20]) == sorted(taken[20:]) == list(range(20))
    assert (taken[:20] != taken[20:]).any()
    assert (
        np.concatenate([b[1] for b in tasks.training_batches(rows, 8, 4, 5)])[:, 0] // 5 != taken
    ).any()


# --- Which runs ---


def test_every_variant_is_tuned_alike_and_compared_on_other_seeds():
    options = job.parse_arguments([])
    for grid in (job.GRID, job.COARSE_GRID):
        plan = job.search_plan(options, grid)
        for name in variants.VARIANTS:
            rates = [spec.rate for spec in plan if spec.optimizer == name]
            ratios = np.log(np.array(rates) / rates[len(grid) // 2])
            np.testing.assert_allclose(ratios, np.log(grid), atol=0.06)
        assert {spec.seed for spec in plan} == {job.SEARCH_SEED}
    best = {name: plans.Spec(name, 0.5) for name in variants.VARIANTS}
    compared = job.comparison_plan(options, best)
    assert {spec.seed for spec in compared} == set(range(1, 1 + options.seeds))
    assert {spec.rate for spec in compared} == {0.5}
    curve = job.curve_plan(options)
    for name in job.CURVES:
        rates = sorted({spec.rate for spec in curve if spec.optimizer == name})
        assert len(rates) == len(job.CURVE_GRID)
        assert math.log10(rates[-1] / rates[0]) == pytest.approx(2, abs=0.02)


def test_every_part_is_of_variants_and_every_variant_in_a_part():
    pairs = [pair for part in variants.PARTS.values() for pair in part]
    assert {name for pair in pairs for name in pair} == set(variants.VARIANTS)
    for variant, baseline in pairs:
        assert variants.VARIANTS[variant].batch == variants.VARIANTS[baseline].batch


# --- Betas ---


OWN = {"beta2-0.9": (0.9, 0.9), "beta2-0.999": (0.9, 0.999)}  # Of those not at the defaults.
OWN |= dict.fromkeys(("adam", "adam-small-batch", "adam-large-batch"), (0.9, 0.999))
OWN |= dict.fromkeys(("sgd", "coordinate-fixed", "global-fixed"), (0.9, None))


def betas_of(name, *line):
    """The betas of the optimizer that a variant makes for a command line."""
    spec = variants.start(name, 0, job.parse_arguments(line))
    config = variants.VARIANTS[name].make(spec).get_config()
    return config.get("beta_1", config.get("momentum")), config.get("beta_2")


@pytest.mark.parametrize("scale", ["small", "smoke", "paper"])
def test_betas_are_the_optimizers_own_at_other_scales(scale):
    for name in variants.VARIANTS:
        assert betas_of(name, "--scale", scale) == pytest.approx(OWN.get(name, (0.9, 0.99)))
    plan = job.search_plan(job.parse_arguments(["--scale", scale]), job.GRID)
    assert not any(spec.betas for spec in plan)


def test_a_studys_variants_have_its_betas_but_for_the_one_they_vary():
    study = {"beta2-0.9": (0.7, 0.9), "beta2-0.999": (0.7, 0.999), "sgd": (0.9, None)}
    study |= dict.fromkeys(("coordinate-fixed", "global-fixed"), (0.7, None))
    for name in variants.VARIANTS:
        assert betas_of(name, "--scale", "study") == study.get(name, (0.7, 0.95))


def test_acclips_variants_follow_the_betas_given_to_it():
    line = ("--beta-1", "acclip=0.8,alpha-2=0.6,sgd=0.5", "--beta-2", "acclip=0.98,adam=0.9")
    expected = {"acclip": (0.8, 0.98), "alpha-2": (0.6, 0.98), "global-moving": (0.8, 0.98)}
    expected |= {"global-fixed": (0.8, None), "beta2-0.9": (0.8, 0.9), "sgd": (0.5, None)}
    expected |= {"adam": (0.9, 0.9), "adam-large-batch": (0.9, 0.9)}
    for name, betas in expected.items():
        assert betas_of(name, *line) == betas


def test_a_study_has_the_tokens_of_one():
    settings = job.SCALES["study"]
    step = settings["batch_size"] * settings["sequence_length"]
    assert step >= 4096
    assert step * settings["steps"] >= 5e6
    assert settings["reports"] >= 12


def test_reports_on_the_way_change_nothing_of_the_end(task, monkeypatch):
    monkeypatch.setattr(task, "validate", lambda weights: float(tf.reduce_sum(weights)))
    get, ends = stepper_of(task), []
    for reports in (1, 3):
        monkeypatch.setattr(task, "settings", SETTINGS | {"reports": reports})
        history = tasks.train(plans.Spec("acclip", 0.01, 1, 0.7, 0.95), task, get)["history"]
        assert [row["step"] for row in history] == list(range(6 // reports, 7, 6 // reports))
        ends.append([history[-1][name] for name in ("loss", "val_loss")])
    assert ends[0] == ends[1]


# --- What they come to ---


def test_differences_are_those_of_the_same_seeds():
    runs = [a_run("acclip", 1e-3, seed, loss) for seed, loss in ((1, 4.0), (2, 5.0), (3, 4.5))]
    runs += [a_run("adam", 2e-3, seed, loss) for seed, loss in ((1, 4.1), (2, 5.3), (3, 4.7))]
    found = outcome.differences(runs)
    betas = [{**a_run(name, 1.0, 1, 4.0), "beta_2": 0.95} for name in ("acclip", "beta2-0.9")]
    assert list(outcome.differences(betas)) == ["β₂; ACClip: 0.95"]
    without = [a_run(name, 1.0, 1, 4.0) for name in ("acclip", "beta2-0.9")]
    assert list(outcome.differences(without)) == ["β₂; ACClip: 0.99"]
    assert list(found) == [list(variants.PARTS)[-2], list(variants.PARTS)[-1]]
    ((row,), (reverse,)) = found[list(variants.PARTS)[-1]], found[list(variants.PARTS)[-2]]
    by_seed = np.array([0.1, 0.3, 0.2])
    np.testing.assert_allclose(row["differences"], by_seed)
    half = stats.t.ppf(0.975, 2) * 0.1 / math.sqrt(3)
    assert (row["low"], row["high"]) == pytest.approx((0.2 - half, 0.2 + half))
    assert reverse["mean"] == pytest.approx(-row["mean"])


@pytest.mark.parametrize(
    ("losses", "expected", "bounded"),
    [
        ([5.0, 4.0, 5.0], 0.2, True),  # A tenth of a decade either side.
        ([4.0, 4.05, 4.05], 2.0, False),
        ([4.2, 4.0, math.nan], 0.5, True),
        ([math.nan, 4.0, math.inf], 0.0, True),
        ([math.nan, math.nan, math.nan], math.nan, False),
    ],
)
def test_width_is_in_decades(losses, expected, bounded):
    found = outcome.width([0.01, 0.1, 1.0], losses, margin=0.1)
    assert found == (pytest.approx(expected, nan_ok=True), bounded)


def test_robustness_compares_the_widths_by_seed():
    curves = {"acclip": ([5.0, 4.0, 5.0], [4.05, 4.0, 5.0]), "adam": ([5.0, 4.0, 5.0],) * 2}
    runs = [
        a_run(name, rate, seed, loss)
        for name, lines in curves.items()
        for seed, line in enumerate(lines, 1)
        for rate, loss in zip((0.1, 0.01, 1.0), (line[1], line[0], line[2]), strict=True)
    ]
    found = outcome.robustness(runs)
    assert [row["width"] for row in found["widths"]] == pytest.approx([0.2, 1.1, 0.2, 0.2])
    assert [row["bounded"] for row in found["widths"]] == [True, False, True, True]
    (row,) = found["differences"]
    assert row["differences"] == pytest.approx([0.0, -0.9])


# --- The command ---


def ends(path):
    results = json.loads(path.read_text())
    return [
        (run["optimizer"], run["learning_rate"], run["seed"], run["history"][0]["val_loss"])
        for run in results["runs"]
    ]


@pytest.mark.slow
def test_smoke_scale_reports_and_goes_on_where_it_was(command, tmp_path, monkeypatch, capsys):
    assert command(tmp_path / "unbroken", *CHOSEN) == 0
    printed = capsys.readouterr().out
    assert "global-moving − acclip, validation loss, same seeds" in printed
    assert "acclip, seed 2: within 0.1 nats of its best" in printed
    results = json.loads((tmp_path / "unbroken" / "results.json").read_text())
    for figure in ("ablation.png", "robustness.png"):
        assert (tmp_path / "unbroken" / figure).read_bytes().startswith(b"\x89PNG")
    tried = {}
    for row in results["search"]:
        tried.setdefault(row["optimizer"], {})[row["val_loss"]["mean"]] = row["learning_rate"]
    for name, _, _, loss in ends(tmp_path / "unbroken" / "results.json"):
        assert 4 < loss < 8
        assert len(tried[name]) == len(job.GRID)
    assert {row["optimizer"]: row["learning_rate"] for row in results["summary"]} == {
        name: losses[min(losses)] for name, losses in tried.items()
    }

    train, left = tasks.train, iter(range(5))

    def die(*arguments):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return train(*arguments)

    monkeypatch.setattr(tasks, "train", die)
    assert command(tmp_path / "broken", *CHOSEN) == 130
    assert "goes on from here" in capsys.readouterr().out
    monkeypatch.setattr(tasks, "train", train)
    assert command(tmp_path / "broken", *CHOSEN) == 0
    broken, unbroken = (ends(tmp_path / name / "results.json") for name in ("broken", "unbroken"))
    assert broken == unbroken

    monkeypatch.setattr(tasks, "train", lambda *_: pytest.fail("trained again"))
    assert command(tmp_path / "broken", *CHOSEN) == 0
    assert command(tmp_path / "broken", *CHOSEN, "--warmup", "3") == 2
    assert "other settings (warmup: 2 → 3)" in capsys.readouterr().err


@pytest.mark.slow
def test_tuning_only_looks_for_the_middles(command, tmp_path, capsys):
    arguments = ("--tune", "--variants", "sgd", "--rates", "sgd=1e-6")
    assert command(tmp_path, *arguments) == 0
    assert "sgd: the best rate is the grid's last" in capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    assert [row["learning_rate"] for row in results["search"]] == pytest.approx(
        [1e-7, 3.2e-7, 1e-6, 3.2e-6, 1e-5]
    )
    assert "summary" not in results


@pytest.mark.slow
def test_a_studys_tuning_goes_on_with_betas_and_compares_with_what_it_printed(
    command, tmp_path, monkeypatch, capsys
):
    tiny = ["--scale", "study", "--steps", "4", "--warmup", "1", "--batch-size", "4"]
    tiny += ["--sequence-length", "16", "--validation-rows", "4", "--reports", "2"]
    tiny += ["--variants", "sgd", "--seeds", "2", "--no-curves"]
    assert command(tmp_path, *tiny, "--tune") == 0
    results = json.loads((tmp_path / "results.json").read_text())
    tried = {(row["learning_rate"], row["beta_1"]) for row in results["tuning"]}
    assert len(tried) == len(results["tuning"]) == 5 + 3 + results_again(results)
    assert {beta for _, beta in tried} == {0.7, 0.8, 0.9, 0.95}
    (best,) = results["best"]
    line = f"--rates sgd={best['learning_rate']:g} --beta-1 sgd={best['beta_1']:g}"
    assert results["options"] == line
    assert capsys.readouterr().out.count(f"{line}\n") == 1
    (run,) = results["runs"]
    assert [row["step"] for row in run["history"]] == [2, 4]

    assert command(tmp_path, *tiny, *line.split()) == 0
    compared = json.loads((tmp_path / "results.json").read_text())["runs"]
    assert [run["seed"] for run in compared] == [1, 2]
    assert {run["beta_1"] for run in compared} == {best["beta_1"]}
    assert (tmp_path / "loss.png").stat().st_size > 10_000
    monkeypatch.setattr(tasks, "train", lambda *_: pytest.fail("trained again"))
    assert command(tmp_path, *tiny, "--tune") == 0


def results_again(results):
    """How many of the rates next to the best were new: those at other betas than the first."""
    (best,) = results["best"]
    return sum(row["beta_1"] == best["beta_1"] for row in results["tuning"]) - (
        5 if best["beta_1"] == 0.9 else 1
    )


@pytest.mark.slow
def test_every_variant_trains(task):
    get = stepper_of(task)
    losses = [
        tasks.train(plans.Spec(name, variant.rate, 0), task, get)["history"][0]["val_loss"]
        for name, variant in variants.VARIANTS.items()
    ]
    assert np.isfinite(losses).all()
    assert len({round(loss, 6) for loss in losses}) == len(variants.VARIANTS)


def test_every_scale_goes_together():
    for scale, settings in job.SCALES.items():
        assert job.parse_arguments(["--scale", scale]).hidden == settings["hidden"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--warmup", "4000"], "--warmup 4000 must be below --steps"),
        (["--hidden", "100"], "--hidden 100 must be a multiple of 32"),
        (["--batch-size", "6"], "--batch-size 6 must be a multiple of 4"),
        (["--variants", "adma"], "'adma' is none of acclip, coordinate-fixed"),
        (["--rates", "adam=0"], "a rate must be above 0"),
        (["--beta-2", "sgd=0.9"], "sgd does not take it"),
        (["--beta-2", "beta2-0.9=0.95"], "beta2-0.9 does not take it"),
        (["--reports", "3"], "--steps 400 must be a multiple of --reports 3"),
        (["--validation-text", "a"], "--validation-text needs --text"),
    ],
)
def test_a_bad_argument_is_named(arguments, message, capsys):
    with pytest.raises(SystemExit):
        job.parse_arguments(arguments)
    assert message in capsys.readouterr().err
