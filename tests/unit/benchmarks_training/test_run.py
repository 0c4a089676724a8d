"""The command that trains a comparison: stopped at any time, it goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training import rows, run

ROOT = Path(__file__).parents[3]
COMMAND = [
    sys.executable,
    str(ROOT / "benchmarks" / "training" / "run.py"),
    *("--workload", "zipf-64", "--stage", "tune", "--contestants", "sgd"),
]


def test_core_contestants_come_first():
    core, others = run.take_part("mlm-16", True), run.take_part("mlm-16", False)
    assert "acclip" in core and "adamw" in core and "sgd" in others
    assert run.take_part("mlm-128", True) == core
    assert run.take_part("mlm-128", False) == []
    assert run.take_part("mlm-128", False, ["sgd"]) == ["sgd"]
    assert run.take_part("mlm-128", False, stage="choose-defaults") == ["acclip_nesterov"]
    assert run.take_part("mlm-128", False, stage="tune") == []


def test_next_are_the_core_on_every_workload(tmp_path):
    """With the core trained on one workload, that of the next comes before the others' turn."""
    options = run.parse_arguments(["--workload", "zipf", "--stage", "tune"])
    stage, jobs = run.next_jobs([], options)
    assert stage == "tune" and {job.workload for job in jobs} == {"zipf-full"}
    assert {job.contestant for job in jobs} == set(run.take_part("zipf-full", True))
    found = []
    while {job.workload for job in jobs} == {"zipf-full"}:
        found += [
            {
                "workload": job.workload,
                "contestant": job.contestant,
                "hyperparameters": dict(job.hyperparameters),
                "seed": seed,
                "steps": job.steps,
                "loss": 1.0,
            }
            for job in jobs
            for seed in job.seeds
        ]
        _, jobs = run.next_jobs(found, options)
    assert {job.workload for job in jobs} == {"zipf-64"}
    assert {job.contestant for job in jobs} == set(run.take_part("zipf-64", True))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--workload", "glue"], "no workload 'glue'"),
        (["--text", "a.txt"], "--text goes with --save-tokens"),
        (["--workload", "squad", "--save-tokens", "x", "--text", "a.txt"], "it takes no --text"),
        (["--processes", "0"], "above 0"),
        (["--contestants", "adamax"], "adamax"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        run.main(arguments)
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error


def test_a_text_that_is_not_there_is_named(tmp_path, capsys):
    words = ["--workload", "lm", "--save-tokens", str(tmp_path), "--text", "none.txt"]
    assert run.main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "none.txt" in error


def test_broken_rows_are_named(tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text("what\n")
    assert run.main(["--rows", str(tmp_path / "rows.jsonl")]) == 2
    assert "rows.jsonl, line 1" in capsys.readouterr().err


def test_a_plan_trains_nothing(tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    assert run.main(["--workload", "zipf-64", "--plan", "--rows", str(path)]) == 0
    assert "192 trainings are next" in capsys.readouterr().out
    assert not path.exists()


@pytest.mark.slow
@pytest.mark.parametrize(("count", "filled"), [(1, 4), (3, 4), (4, 4), (6, 8), (16, 16), (17, 32)])
def test_an_accelerator_trains_powers_of_two(count, filled):
    members = [({"rate": 1e-3}, seed) for seed in range(count)]
    found = run.filled_up(members)
    assert len(found) == filled and found[:count] == members
    assert all(member == members[-1] for member in found[count:])


def test_stopped_it_goes_on_and_trains_nothing_twice(tmp_path):
    path = tmp_path / "rows.jsonl"
    command = [*COMMAND, "--processes", "2", "--rows", str(path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=dict(os.environ)) as process:
        until = time.monotonic() + 300
        while len(rows.read(path)) < 3 and time.monotonic() < until:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        error = process.stderr.read().decode()
    assert process.returncode == 130
    assert error.endswith("Stopped. The same command goes on.\n")
    before = rows.read(path)
    assert 3 <= len(before) < 50
    subprocess.run(command, check=True, timeout=500)
    after = rows.read(path)
    assert after[: len(before)] == before
    assert len({rows.identity(row) for row in after}) == len(after)
    again = subprocess.run([*command, "--plan"], check=True, capture_output=True, text=True)
    assert "0 trainings are next" in again.stdout


@pytest.mark.slow
def test_a_training_is_a_function_of_its_seed(tmp_path):
    """Whatever was trained before it in the same process, or in another."""
    code = (
        "import json, os, sys; os.environ['KERAS_BACKEND'] = 'jax'\n"
        "from training import trainer, workloads\n"
        "from training.contestants import CONTESTANTS\n"
        "w = workloads.WORKLOADS['zipf-64']\n"
        "h = dict(CONTESTANTS['acclip'].default)\n"
        "seeds = json.loads(sys.argv[1])\n"
        "rows = [trainer.train(w, 'acclip', [(h, s)], 64)[0] for s in seeds]\n"
        "print(json.dumps({s: [r['initial'], r['curve']] for s, r in zip(seeds, rows)}))\n"
    )
    path = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "examples")])

    def trained(seeds):
        ran = subprocess.run(
            [sys.executable, "-c", code, json.dumps(seeds)],
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(ran.stdout)

    both, alone = trained([0, 1]), trained([1])
    assert both["1"] == alone["1"]
    assert both["0"] != both["1"]
