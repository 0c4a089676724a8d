import json

import keras
import numpy as np
import pytest
import resnet as job
from lab import plans, resuming

SMALL = ("--scale", "smoke", "--steps", "4", "--warmup", "1", "--noise-batches", "100")


def command(output, *arguments):
    return job.main([*SMALL, "--output", str(output), *arguments])


@pytest.mark.slow
def test_smoke_scale_reports_curves_differences_and_noise(tmp_path, capsys):
    assert command(tmp_path, "--seeds", "2", "--optimizers", "sgd,adam") == 0
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    assert [row["optimizer"] for row in results["summary"]] == ["sgd", "adam"]
    assert [row["seeds"] for row in results["summary"]] == [2, 2]
    ends = {
        (run["optimizer"], run["seed"]): run["history"][-1]
        for run in results["runs"]
        if [row["step"] for row in run["history"]] == [2, 4]
    }
    assert len(ends) == 4
    found = {row["measure"]: row for row in results["differences"]}
    for measure in ("val_loss", "val_accuracy"):
        differences = [ends["sgd", s][measure] - ends["adam", s][measure] for s in (0, 1)]
        assert found[measure]["differences"] == pytest.approx(differences)
    assert "sgd − adam, validation accuracy, same seeds" in printed
    assert set(results["noise"]["verdicts"]) == {"0", "4"}
    assert results["noise"]["advice"] in printed
    for name in ("curves.png", "noise.png"):
        assert (tmp_path / name).stat().st_size > 10_000
    assert not list(tmp_path.rglob("*.h5"))


@pytest.mark.slow
def test_interrupted_run_ends_as_the_unbroken_one(tmp_path, interrupt_next, monkeypatch, capsys):
    arguments = ("--optimizers", "acclip")
    assert command(tmp_path / "unbroken", *arguments) == 0
    interrupt_next(resuming)
    assert command(tmp_path / "broken", *arguments) == 130
    assert "goes on from here" in capsys.readouterr().out
    assert command(tmp_path / "broken", *arguments) == 0
    histories = []
    for name in ("unbroken", "broken"):
        (run,) = json.loads((tmp_path / name / "results.json").read_text())["runs"]
        exact = ("loss", "accuracy", "val_loss", "val_accuracy", "noise_norm")
        histories.append([[row.get(key) for key in exact] for row in run["history"]])
    np.testing.assert_array_equal(histories[0], histories[1])

    monkeypatch.setattr(keras.Model, "fit", lambda *_, **__: pytest.fail("trained again"))
    assert command(tmp_path / "broken", *arguments) == 0


def test_every_optimizer_is_tuned_over_as_many_rates_as_far_apart():
    options = job.parse_arguments(["--tune"])
    plan = plans.plan(options, job.RATES, job.GRID)
    for name in job.RATES:
        rates = sorted({spec.rate for spec in plan if spec.optimizer == name})
        assert len(rates) == len(job.GRID)
        np.testing.assert_allclose(np.diff(np.log10(rates)), 0.5, atol=0.02)
        assert float(job.make_optimizer(plans.Spec(name), 0.5).learning_rate) == 0.5


def test_betas_reach_the_optimizer():
    for name in job.RATES:
        spec = plans.Spec(name, beta_1=0.7, beta_2=None if name == "sgd" else 0.95)
        config = job.make_optimizer(spec, 0.5).get_config()
        assert config.get("beta_1", config.get("momentum")) == 0.7
        assert config.get("beta_2", None) == spec.beta_2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "15", "--warmup", "5"], "--steps 15 must be a multiple of --epochs 10"),
        (["--warmup", "3000"], "must be below --steps"),
        (["--rates", "gclip=1"], "'gclip' is none of sgd, adam, acclip"),
    ],
)
def test_a_bad_argument_is_named(arguments, message, capsys):
    with pytest.raises(SystemExit):
        job.parse_arguments(arguments)
    assert message in capsys.readouterr().err


def test_images_that_cannot_be_used_are_an_error_that_names_them(tmp_path, capsys):
    output = tmp_path / "out"
    assert job.main(["--images", str(tmp_path / "none"), "--output", str(output)]) == 2
    assert "--images" in capsys.readouterr().err
    assert not output.exists()
