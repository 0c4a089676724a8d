import importlib.util
import json
from pathlib import Path

import model_garden as job
import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("official") is None, reason="needs the Model Garden"
)


def parse(line):
    """The parameters that a training command's flags make."""
    from official.core import train_utils

    from keras_acclip.garden import configs, experiments  # noqa: F401

    flags = [flag.removeprefix("--").partition("=")[::2] for flag in line[3:]]
    values = dict(flags)
    files = [configs.find(value) for name, value in flags if name == "config_file"]
    return train_utils.parse_configuration(
        train_utils.ParseConfigOptions(
            values["experiment"], files, params_override=values["params_override"]
        ),
        print_return=False,
    )


@pytest.fixture
def options(tmp_path):
    for name in ("data", "squad"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.yaml").write_text("{}")
    return job.parse_arguments(["--output", str(tmp_path), "--seed", "3"])


def test_both_optimizers_get_the_same_but_for_rule_and_rate(options):
    stages = job.commands(options)
    for task, rates in job.RATES.items():
        found = {}
        for optimizer, rate in rates.items():
            line = stages[f"{task} {optimizer}"]
            assert "--seed=3" in line
            params = parse(line).as_dict()
            config = params["trainer"].pop("optimizer_config")
            assert config["optimizer"]["type"] == optimizer
            schedule = config["learning_rate"]["polynomial"]
            assert schedule.pop("initial_learning_rate") == rate
            assert schedule["decay_steps"] == params["trainer"]["train_steps"]
            init = params["task"].pop("init_checkpoint")
            assert init == (f"{options.output}/pretraining/{optimizer}" if task == "squad" else "")
            found[optimizer] = params, schedule, config["warmup"]
        assert found["acclip"] == found["adamw"]


def test_every_stage_reads_what_an_earlier_one_wrote(options):
    written = {options.output / folder for folder in ("data", "questions", "squad")}
    made = set()
    for line in job.commands(options).values():
        named = {path for path in written for word in line if str(path) + "/" in word}
        assert named <= made
        if line[2].endswith(".data"):
            made.add(Path(line[line.index("--output") + 1]))
    assert made == written


def test_rates_can_be_tried(tmp_path):
    line = ["--squad-rates", "acclip=0.25", "--output", str(tmp_path)]
    stages = job.commands(job.parse_arguments(line))
    rates = {
        name: float(words[-1].partition("initial_learning_rate=")[2].partition(",")[0])
        for name, words in stages.items()
        if "initial_learning_rate" in words[-1]
    }
    expected = {
        f"{task} {o}": rate for task, found in job.RATES.items() for o, rate in found.items()
    }
    assert rates == expected | {"squad acclip": 0.25}


def test_a_bad_schedule_is_named(capsys):
    with pytest.raises(SystemExit):
        job.parse_arguments(["--pretraining-warmup", "5000"])
    assert "must be below --pretraining-steps 1200" in capsys.readouterr().err


def test_a_failing_stage_ends_with_its_log(tmp_path, capsys):
    (tmp_path / "empty.txt").write_text("")
    line = ["--text", str(tmp_path / "empty.txt"), "--output", str(tmp_path / "out")]
    assert job.main(["--scale", "smoke", *line]) == 1
    assert "empty.txt: the file is empty" in capsys.readouterr().err


@pytest.mark.slow
def test_the_smoke_run_goes_from_text_to_answers(tmp_path, english, capsys, monkeypatch):
    line = ["--scale", "smoke", "--text", str(english), "--output", str(tmp_path)]
    assert job.main(line) == 0
    printed = capsys.readouterr().out
    assert "| acclip | acclip    | 0.002" in printed
    assert "EM (%)" in printed
    results = json.loads((tmp_path / "results.json").read_text())
    for optimizer in ("acclip", "adamw"):
        pretraining = results["metrics"][f"pretraining {optimizer}"]["validation"]
        assert pretraining["step"] == 10
        assert 4 < pretraining["validation_loss"] < 9
        assert 0 <= results["metrics"][f"squad {optimizer}"]["validation"]["exact_match"] <= 1
    assert (tmp_path / "comparison-squad/comparison.png").stat().st_size > 10_000

    monkeypatch.setattr(job.subprocess, "run", lambda *_, **__: pytest.fail("ran again"))
    assert job.main(line) == 0
