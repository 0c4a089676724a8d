import json

import bert_pretraining as job
import keras
import numpy as np
import pytest
import tensorflow as tf

ROWS = np.random.default_rng(0).integers(5, 100, (40, 32)).astype("int32")
ROWS[:, 0], ROWS[:, -1], ROWS[:, 7] = job.CLS, job.SEP, job.SEP


# --- Data ---


def test_masks_follow_berts_recipe():
    tokens = np.tile(ROWS, (100, 1))
    inputs, labels = job.mask_tokens(tf.constant(tokens), 100, (3, 4))
    masked, positions, labels = (
        value.numpy() for value in (inputs["token_ids"], inputs["mask_positions"], labels)
    )
    assert positions.shape == labels.shape == (4000, 5)  # 15% of 32.
    assert all(len(set(row)) == 5 for row in positions)
    np.testing.assert_array_equal(np.take_along_axis(tokens, positions, 1), labels)
    assert (labels > job.MASK).all()  # [CLS] and [SEP] are never to be predicted.
    untouched = masked.copy()
    np.put_along_axis(untouched, positions, labels, 1)
    np.testing.assert_array_equal(untouched, tokens)

    seen = np.take_along_axis(masked, positions, 1)
    other = seen[(seen != job.MASK) & (seen != labels)]
    # 20,000 draws: four standard deviations. A random token is the old one in 1 of 95.
    assert (seen == job.MASK).mean() == pytest.approx(0.8, abs=0.012)
    assert other.size / seen.size == pytest.approx(0.1 * 94 / 95, abs=0.009)
    assert other.min() > job.MASK
    assert other.max() == 99
    np.testing.assert_allclose(np.bincount(positions.ravel())[1:7], 20_000 / 29, rtol=0.2)


def batches(seed, first, last):
    return [
        {name: value.numpy() for name, value in inputs.items()} | {"labels": labels.numpy()}
        for inputs, labels in job.training_batches(ROWS, 100, 8, seed, first, last)
    ]


def test_a_batch_depends_on_its_number_and_the_seed_alone():
    whole, resumed, other = batches(1, 0, 12), batches(1, 7, 12), batches(2, 0, 12)
    assert len(whole) == 12
    for expected, found in zip(whole[7:], resumed, strict=True):
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert any((a["token_ids"] != b["token_ids"]).any() for a, b in zip(whole, other, strict=True))


def test_each_pass_takes_every_row_once_in_a_new_order_with_new_masks():
    def restore(batch):
        rows = batch["token_ids"].copy()
        np.put_along_axis(rows, batch["mask_positions"], batch["labels"], 1)
        return rows

    whole = batches(1, 0, 10)  # Two passes over 40 rows.
    first, second = (np.concatenate([restore(b) for b in part]) for part in (whole[:5], whole[5:]))
    for rows in (first, second):
        np.testing.assert_array_equal(np.unique(rows, axis=0), np.unique(ROWS, axis=0))
    assert (first != second).any()
    positions = [np.concatenate([b["mask_positions"] for b in p]) for p in (whole[:5], whole[5:])]
    ranks = [np.lexsort(rows.T) for rows in (first, second)]
    assert (positions[0][ranks[0]] != positions[1][ranks[1]]).any()


def test_validation_batches_are_always_the_same():
    first, second = (list(job.validation_batches(ROWS, 100, 8, 20)) for _ in range(2))
    assert sum(len(labels) for _, labels in first) == 20
    for (a, x), (b, y) in zip(first, second, strict=True):
        np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(a["token_ids"], b["token_ids"])


# --- The command ---


def test_job_reports_and_keeps_finished_runs(command, tmp_path, capsys, monkeypatch):
    small = ("--steps", "4", "--warmup", "1", "--jobs", "1")
    assert command(tmp_path, *small, "--optimizers", "acclip,adam", "--seeds", "1") == 0
    printed = capsys.readouterr().out
    assert "| acclip " in printed
    assert "acclip − adam, validation loss" in printed
    results = json.loads((tmp_path / "results.json").read_text())
    assert [row["optimizer"] for row in results["summary"]] == ["acclip", "adam"]
    assert results["settings"]["steps"] == 4
    for run in results["runs"]:
        assert [row["step"] for row in run["history"]] == [2, 4]
        assert all(0 < row["val_loss"] < 7 for row in run["history"])
    for name in ("loss.png", "noise.png"):
        assert (tmp_path / name).stat().st_size > 10_000
    assert results["noise"]["run"] == ["acclip", 0.002, 0]
    assert list(results["noise"]["verdicts"]) == ["0", "4"]
    assert results["noise"]["advice"] in printed
    for run in results["runs"]:
        assert ("noise_norm" in run["history"][1]) == (run["optimizer"] == "acclip")
    assert not list(tmp_path.rglob("*.h5"))

    monkeypatch.setattr(keras.Model, "fit", lambda *_, **__: pytest.fail("trained again"))
    assert command(tmp_path, *small, "--optimizers", "acclip,adam", "--seeds", "1") == 0
    assert json.loads((tmp_path / "results.json").read_text()) == results
    with pytest.raises(pytest.fail.Exception):
        command(tmp_path, *small, "--optimizers", "acclip", "--rates", "acclip=1", "--seeds", "1")

    assert command(tmp_path, "--steps", "6", "--warmup", "1", "--optimizers", "adam") == 2
    assert "other settings (steps: 4 → 6)" in capsys.readouterr().err


@pytest.mark.slow
def test_interrupted_run_ends_as_the_unbroken_one(command, tmp_path, interrupt_next, capsys):
    arguments = ("--optimizers", "acclip", "--seeds", "1")
    assert command(tmp_path / "unbroken", *arguments, "--no-noise") == 0

    interrupt_next()
    assert command(tmp_path / "broken", *arguments) == 130
    assert "goes on from here" in capsys.readouterr().out
    assert command(tmp_path / "broken", *arguments) == 0

    # The unbroken run's noise was not measured: neither that nor the break shows in the training.
    histories = []
    for name in ("unbroken", "broken"):
        results = json.loads((tmp_path / name / "results.json").read_text())
        (run,) = results["runs"]
        exact = ("step", "loss", "val_loss", "val_accuracy")
        histories.append([{key: row[key] for key in exact} for row in run["history"]])
    assert histories[0] == histories[1]
    assert list(results["noise"]["verdicts"]) == ["0", "20"]


def test_every_optimizer_can_be_made_and_is_tuned_over_as_many_rates():
    options = job.parse_arguments(["--optimizers", ",".join(job.OPTIMIZERS), "--tune"])
    plan = job.plan_runs(options)
    for name, make in job.OPTIMIZERS.items():
        rates = sorted({rate for optimizer, rate, _ in plan if optimizer == name})
        assert len(rates) == len(job.GRID)
        assert rates[len(rates) // 2] == job.RATES[name]
        np.testing.assert_allclose(np.diff(np.log(rates)), np.log(2) / 2, atol=0.06)
        assert float(make(0.5).learning_rate) == 0.5


def test_too_short_a_text_is_an_error_that_names_it(tmp_path, capsys):
    (tmp_path / "short.txt").write_text("A few words, and no more than that.\n" * 9)
    output = tmp_path / "out"
    arguments = ["--text", str(tmp_path / "short.txt"), "--cache", str(tmp_path / "cache")]
    assert job.main([*arguments, "--output", str(output)]) == 2
    assert "short.txt: too short" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optimizers", "acclip,adma"], "'adma' is none of acclip"),
        (["--rates", "adam"], "want NAME=RATE"),
        (["--rates", "adma=1"], "'adma' is none of"),
        (["--rates", "adam=-1"], "above 0"),
        (["--rates", "adam=nan"], "above 0"),
        (["--steps", "0"], "not a whole number above 0"),
        (["--seeds", "1.5"], "not a whole number above 0"),
        (["--steps", "15", "--warmup", "5"], "--steps 15 must be a multiple of --epochs 8"),
        (["--warmup", "3000"], "must be below --steps"),
        (["--hidden", "100"], "multiple of 64"),
        (["--validation-text", "a"], "needs --text"),
    ],
)
def test_a_bad_argument_is_named(arguments, message, capsys):
    with pytest.raises(SystemExit):
        job.parse_arguments(arguments)
    assert message in capsys.readouterr().err
