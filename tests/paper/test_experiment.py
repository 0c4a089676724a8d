import argparse
import json
import math

import experiment
import keras
import numpy as np
import pytest

from keras_acclip._utils import processes

RATES = {"acclip": 2e-3, "adam": 1e-3, "sgd": 0.5}
GRID = (1 / 4, 1 / 2, 1, 2, 4)


def parse(*arguments):
    parser = argparse.ArgumentParser()
    experiment.add_arguments(parser, RATES, ["acclip", "adam"], GRID)
    options = parser.parse_args(arguments)
    options.seeds = 2
    return options


# --- Which runs ---


def test_plan_takes_every_seed_of_every_optimizer():
    assert experiment.plan(parse(), RATES, GRID) == [
        (name, rate, seed) for name, rate in (("acclip", 2e-3), ("adam", 1e-3)) for seed in (0, 1)
    ]
    given = parse("--optimizers", "sgd,adam,sgd", "--rates", "sgd=0.123,adam=3e-4")
    assert experiment.plan(given, RATES, GRID)[::2] == [("sgd", 0.123, 0), ("adam", 3e-4, 0)]


def test_tuning_tries_as_many_rates_for_each_around_its_own():
    plan = experiment.plan(parse("--tune", "--rates", "adam=0.123"), RATES, GRID)
    for name, middle in (("acclip", 2e-3), ("adam", 0.123)):
        rates = [rate for optimizer, rate, seed in plan if (optimizer, seed) == (name, 1)]
        assert rates[2] == middle
        np.testing.assert_allclose(rates, middle * np.array(GRID), rtol=0.05)
    assert len(plan) == 2 * len(GRID) * 2
    folders = {experiment.folder("out", *spec) for spec in plan}
    assert len(folders) == len(plan)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optimizers", "acclip,adma"], "'adma' is none of acclip, adam, sgd"),
        (["--rates", "adam"], "want NAME=RATE"),
        (["--rates", "adma=1"], "'adma' is none of"),
        (["--rates", "adam=-1"], "above 0"),
        (["--rates", "adam=inf"], "above 0"),
    ],
)
def test_a_bad_argument_is_named(arguments, message, capsys):
    with pytest.raises(SystemExit):
        parse(*arguments)
    assert message in capsys.readouterr().err


def test_conduct_trains_the_plan_and_reports_its_runs(capsys):
    plan, reported = [("adam", 0.5, 0), ("sgd", 1.0, 1)], []

    def train(optimizer, rate, seed):
        return run(optimizer, rate, seed, loss=rate)

    assert experiment.conduct(plan, "out", lambda: train, reported.append) == 0
    assert [(r["optimizer"], r["learning_rate"], r["seed"]) for r in reported[0]] == plan
    assert "[2/2] sgd, learning rate 1, seed 1\n        validation loss 1.0000" in (
        capsys.readouterr().out
    )


def test_conduct_tells_what_went_wrong(capsys):
    def without_data():
        raise ValueError("--text x: no such file")

    assert experiment.conduct([], "out", without_data, pytest.fail) == 2
    assert capsys.readouterr().err == "error: --text x: no such file\n"

    def interrupted(*_):
        raise KeyboardInterrupt

    plan = [("adam", 0.5, 0)]
    assert experiment.conduct(plan, "out", lambda: interrupted, pytest.fail) == 130
    assert "goes on from here (out)" in capsys.readouterr().out


# --- One run ---


@pytest.mark.parametrize(("warmup", "steps"), [(5, 20), (1, 4), (19, 20)])
def test_rate_rises_to_its_peak_and_falls_to_zero(warmup, steps):
    schedule = experiment.WarmupLinearDecay(0.5, warmup, steps)
    rates = [float(schedule(step)) for step in range(steps + 1)]
    corners = np.interp(range(1, steps + 2), [0, warmup, steps + 1], [0, 0.5, 0])
    np.testing.assert_allclose(rates, corners, atol=1e-7)
    assert min(rates[:-1]) > 0
    copy = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    assert float(copy(3)) == rates[3]


def test_history_and_state_agree_wherever_the_process_dies(tmp_path, monkeypatch):
    history = experiment.History(tmp_path / "run", "state-{}.txt")
    assert history == []
    for epoch in range(3):
        history.add({"step": epoch}, lambda path, epoch=epoch: path.write_text(f"after {epoch}"))

    def die(*_):
        raise KeyboardInterrupt

    # In the saving of the state, and between it and the history.
    for save, write_json in ((die, experiment.write_json), (lambda p: p.write_text("x"), die)):
        monkeypatch.setattr(experiment, "write_json", write_json)
        with pytest.raises(KeyboardInterrupt):
            experiment.History(tmp_path / "run", "state-{}.txt").add({"step": 9}, save)
        found = experiment.History(tmp_path / "run", "state-{}.txt")
        assert found == [{"step": 0}, {"step": 1}, {"step": 2}]
        assert found.state_path(len(found)).read_text() == "after 2"
    found.finish()
    assert not found.state_path(3).exists()


# --- Several at a time ---


def test_work_is_waited_for_by_its_key():
    wait = experiment.start(abs, {"a": -1, "b": -2, "c": -3}, jobs=1)
    assert [wait(key) for key in "bacb"] == [2, 1, 3, 2]


def test_a_killed_process_is_a_run_error_that_says_what_to_do(monkeypatch):
    def run(*_):
        raise processes.KilledError("a process was killed at its work")
        yield

    monkeypatch.setattr(processes, "run", run)
    with pytest.raises(experiment.RunError, match="killed at its work; --jobs 1 takes the least"):
        experiment.start(abs, {"a": -1, "b": -2}, jobs=2)("a")


def test_a_run_error_ends_the_command_with_one_line(tmp_path, capsys):
    def train(*_):
        raise experiment.RunError("acclip: out of luck")

    plan = [("acclip", 1e-3, 0)]
    assert experiment.conduct(plan, tmp_path, lambda: train, pytest.fail) == 1
    assert capsys.readouterr().err == "error: acclip: out of luck\n"


# --- What they come to ---


def run(optimizer, rate, seed, loss):
    row = {"step": 10, "loss": 1.0, "val_loss": loss, "accuracy": loss / 10, "seconds": 1.0}
    return {"optimizer": optimizer, "learning_rate": rate, "seed": seed, "history": [row]}


def test_report_compares_the_best_rates(capsys):
    losses = {1.0: (3.0, 3.2), 2.0: (2.0, 2.2), 4.0: (math.nan, 1.0)}
    runs = [
        run(name, rate, seed, loss - shift)
        for name, shift in (("adam", 0), ("sgd", 0.5))
        for rate, values in losses.items()
        for seed, loss in enumerate(values)
    ]
    columns = {"loss": ("val_loss", 2), "share": ("accuracy", 3)}
    measures = {"val_loss": "loss", "accuracy": "share"}
    best, results = experiment.report(runs, True, columns=columns, measures=measures)
    assert [(r["optimizer"], r["learning_rate"], r["seed"]) for r in best] == [
        (name, 2.0, seed) for name in ("adam", "sgd") for seed in (0, 1)
    ]
    assert len(results["tuning"]) == 6
    assert results["runs"] == best
    assert [(d["measure"], round(d["mean"], 6)) for d in results["differences"]] == [
        ("val_loss", -0.5),
        ("accuracy", -0.05),
    ]
    printed = capsys.readouterr().out
    assert "| 2.10 ± 0.14 | 0.210 ± 0.014 |" in printed
    assert "sgd − adam, share, same seeds: -0.050" in printed
    assert "last" not in printed
    experiment.report(runs[:4] + runs[6:10], True, columns=columns)
    printed = capsys.readouterr().out
    assert "adam: the best rate is the grid's last" in printed
    assert json.dumps(results["runs"])
