import json
import math
import os
import signal
from types import SimpleNamespace

import pytest
from lab import plans, reports, runs
from lab.resuming import Work

from keras_acclip._utils import processes


def run(optimizer, rate, seed, loss):
    row = {"step": 10, "loss": 1.0, "val_loss": loss, "accuracy": loss / 10, "seconds": 1.0}
    return plans.run_of(plans.Spec(optimizer, rate, seed), [row])


# --- Conducted ---


def test_conduct_trains_the_plan_and_reports_its_runs(capsys):
    plan, reported = [plans.Spec("adam", 0.5, 0), plans.Spec("sgd", 1.0, 1)], []

    def train(spec):
        return run(*spec[:3], loss=spec.rate)

    assert runs.conduct(plan, "out", train, reported.append) == 0
    assert [plans.spec_of(r) for r in reported[0]] == plan
    assert "[2/2] sgd, learning rate 1, seed 1\n        validation loss 1.0000" in (
        capsys.readouterr().out
    )


def test_conduct_tells_what_went_wrong(capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    plan = [plans.Spec("adam", 0.5, 0)]
    assert runs.conduct(plan, "out", interrupted, pytest.fail) == 130
    assert "goes on from here (out)" in capsys.readouterr().out

    def failing(_):
        raise runs.RunError("acclip: out of luck")

    assert runs.conduct(plan, "out", failing, pytest.fail) == 1
    assert capsys.readouterr().err == "error: acclip: out of luck\n"


# --- Several at a time ---


def test_work_is_waited_for_by_its_key():
    wait = runs.start(abs, {"a": -1, "b": -2, "c": -3}, runs.pool(1))
    assert [wait(key) for key in "bacb"] == [2, 1, 3, 2]


def die(_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_is_a_run_error_that_says_what_to_do():
    # Not `runs.pool`, whose processes load TensorFlow.
    with processes.Pool(2) as pool:
        wait = runs.start(die, {"a": 1, "b": 2}, pool)
        with pytest.raises(runs.RunError, match="killed at its work; --jobs 1 takes the least"):
            wait("a")


def test_only_what_is_missing_is_started(tmp_path, monkeypatch):
    work, started = Work(tmp_path, {}), []
    plan = [plans.Spec("adam", 0.5, seed) for seed in range(3)]
    for number in range(2):
        work.add(plans.name_of(plan[0]), {"step": number})
    work.add(plans.name_of(plan[1]), {"step": 0})
    start = runs.start

    def note(function, tasks, pool):
        started.extend(tasks)
        return start(function, tasks, pool)

    monkeypatch.setattr(runs, "start", note)
    train = runs.start_missing(
        lambda spec: f"run {spec.seed}", plan, work, length=2, pool=runs.pool(1)
    )
    assert started == plan[1:]
    assert [train(spec) for spec in plan] == ["run 0", "run 1", "run 2"]


def test_as_many_jobs_as_asked_for_or_as_cpus(monkeypatch):
    monkeypatch.setattr(processes, "available_cpus", lambda: 7)
    assert runs.jobs(SimpleNamespace(jobs=3), on_cpu=False) == 3
    assert runs.jobs(SimpleNamespace(jobs=None), on_cpu=True) == 7
    assert runs.jobs(SimpleNamespace(jobs=None), on_cpu=False) == 1
    assert runs.jobs(SimpleNamespace(jobs=None)) == (1 if runs.has_gpu() else 7)


# --- What they come to ---


def test_report_compares_the_best_rates(capsys):
    losses = {1.0: (3.0, 3.2), 2.0: (2.0, 2.2), 4.0: (math.nan, 1.0)}
    found = [
        run(name, rate, seed, loss - shift)
        for name, shift in (("adam", 0), ("sgd", 0.5))
        for rate, values in losses.items()
        for seed, loss in enumerate(values)
    ]
    columns = {"loss": ("val_loss", 2), "share": ("accuracy", 3)}
    measures = {"val_loss": "loss", "accuracy": "share"}
    best, results = reports.report(found, True, columns=columns, measures=measures)
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
    reports.report(found[:4] + found[6:10], True, columns=columns)
    printed = capsys.readouterr().out
    assert "adam: the best rate is the grid's last" in printed
    assert json.dumps(results["runs"])
