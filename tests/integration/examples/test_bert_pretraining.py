import json

import bert_pretraining as job
import keras
import numpy as np
import pytest
from paper.lab import plans, resuming


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
    assert list(results["noise"]["verdicts"]) == ["2", "4"]
    assert results["noise"]["advice"] in printed
    for run in results["runs"]:
        for row in run["history"]:
            assert ("noise_norm" in row) == (run["optimizer"] == "acclip")
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
    arguments = ("--optimizers", "acclip", "--seeds", "1", "--jobs", "1")
    assert command(tmp_path / "unbroken", *arguments, "--no-noise") == 0

    interrupt_next(resuming)
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
    assert list(results["noise"]["verdicts"]) == ["10", "20"]


def test_every_optimizer_can_be_made_and_is_tuned_over_as_many_rates():
    options = job.parse_arguments(["--optimizers", ",".join(job.RATES), "--tune"])
    plan = plans.plan(options, job.RATES, job.GRID)
    for name, middle in job.RATES.items():
        rates = sorted({spec.rate for spec in plan if spec.optimizer == name})
        assert len(rates) == len(job.GRID)
        assert rates[len(rates) // 2] == middle
        np.testing.assert_allclose(np.diff(np.log(rates)), np.log(2) / 2, atol=0.06)
        assert float(job.make_optimizer(plans.Spec(name), 0.5).learning_rate) == 0.5


def test_betas_reach_every_optimizer():
    for name in job.RATES:
        momentum = name in plans.MOMENTUM_ALONE
        line = ["--optimizers", name, "--beta-1", f"{name}=0.75", "--seeds", "1"]
        line += [] if momentum else ["--beta-2", f"{name}=0.875"]
        (spec,) = plans.plan(job.parse_arguments(line), job.RATES, job.GRID)
        config = job.make_optimizer(spec, 0.5).get_config()
        assert config["momentum" if momentum else "beta_1"] == 0.75
        assert momentum or config["beta_2"] == 0.875


@pytest.mark.parametrize("epochs", [1, 2, 5, 8])
def test_noise_is_measured_half_way_and_at_the_end(epochs):
    measured = job.noise_epochs(epochs)
    assert max(measured) == epochs
    assert abs(min(measured) - epochs / 2) <= 0.5


def test_too_short_a_text_is_an_error_that_names_it(tmp_path, capsys):
    (tmp_path / "short.txt").write_text("A few words, and no more than that.\n" * 9)
    output = tmp_path / "out"
    arguments = ["--text", str(tmp_path / "short.txt"), "--cache", str(tmp_path / "cache")]
    assert job.main([*arguments, "--output", str(output), "--jobs", "1"]) == 2
    assert "short.txt: too short" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "16", "--warmup", "5"], "--steps 16 must be a multiple of --epochs 5"),
        (["--warmup", "3000"], "must be below --steps"),
        (["--hidden", "100"], "multiple of 64"),
        (["--validation-text", "a"], "needs --text"),
    ],
)
def test_a_bad_argument_is_named(arguments, message, capsys):
    with pytest.raises(SystemExit):
        job.parse_arguments(arguments)
    assert message in capsys.readouterr().err
