import importlib.util
import json
import shutil

import pytest

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("official") is None, reason="needs the Model Garden"
    ),
    pytest.mark.xdist_group("bert"),  # The fixture runs once, in one process.
]

import bert as job  # noqa: E402
import squad  # noqa: E402
from lab import plans, resuming, search  # noqa: E402
from lab.garden import flags, pretraining, trainings  # noqa: E402


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory, english):
    """The output of the smoke scale with one optimizer, and the arguments that made it."""
    output = tmp_path_factory.mktemp("bert")
    arguments = ["--scale", "smoke", "--text", str(english), "--output", str(output)]
    arguments += ["--jobs", "1", "--optimizers", "acclip"]
    assert job.main(arguments) == 0
    return output, arguments


def parse(*arguments):
    return pretraining.parse_arguments("doc", [str(argument) for argument in arguments])


def test_all_optimizers_get_the_same_but_for_rule_and_rate(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "data.yaml").write_text("{}")
    options = parse("--output", tmp_path)
    assert options.layers == ["6"]
    made = pretraining.trainings("6", options, resuming.Work(tmp_path, {}))
    assert set(options.optimizers) == {"adamw", "sgd", "gclip", "acclip"}
    found = {}
    for name in options.optimizers:
        spec = pretraining.start(name, 1, options)
        params = flags.parameters(made.flags(spec)).as_dict()
        config = params["trainer"].pop("optimizer_config")
        assert config["optimizer"]["type"] == name
        schedule = config["learning_rate"]["polynomial"]
        assert schedule.pop("initial_learning_rate") == spec.rate
        found[name] = params, schedule, config["warmup"]
    assert all(values == found["adamw"] for values in found.values())


def test_the_papers_scale_is_that_of_the_files(tmp_path, english, monkeypatch, capsys):
    monkeypatch.setattr(pretraining, "make_data", lambda text, options: None)
    line = ["--scale", "paper", "--text", str(english), "--output", str(tmp_path)]
    assert job.main([*line, "--commands"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 * 4
    for model in ("bert_base_6l", "bert_base_12l", "bert_large_24l"):
        assert sum(f"--config_file={model} " in line for line in lines) == 4
    assert not any("hidden_size" in line for line in lines)
    assert all("global_batch_size=256" in line for line in lines)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_the_smoke_run_reports_what_the_summaries_hold(pretrained):
    output, _ = pretrained
    results = json.loads((output / "results.json").read_text())
    (row,) = results["layers"]["2"]["summary"]
    (run,) = results["layers"]["2"]["runs"]
    assert [r["step"] for r in run["history"]] == [3, 6]
    assert row["val_loss"]["mean"] == run["history"][-1]["val_loss"]
    folder = output / "runs" / "bert_tiny" / "acclip-0.002-0"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["validation"]["validation_loss"] == pytest.approx(row["val_loss"]["mean"])
    assert metrics["validation"]["masked_lm_accuracy"] == pytest.approx(row["val_accuracy"]["mean"])
    assert (output / "loss-2-layers.png").stat().st_size > 10_000
    assert "step" in (folder / "train.log").read_text()


@pytest.mark.slow
def test_what_is_done_is_not_trained_again(pretrained, monkeypatch):
    _, arguments = pretrained
    monkeypatch.setattr(trainings, "train", lambda _: pytest.fail("trained again"))
    assert job.main(arguments) == 0


@pytest.mark.slow
def test_a_training_is_the_same_after_another_in_its_process(pretrained, tmp_path):
    output, arguments = pretrained
    first = output / "runs" / "bert_tiny" / "acclip-0.002-0"
    # A copy: it writes down settings of its own.
    work = resuming.Work(shutil.copytree(output, tmp_path / "copy"), {})
    made = pretraining.trainings("2", parse(*arguments), work)
    made = made.flags(plans.Spec("acclip", 2e-3, 0))
    made = [f"--model_dir={tmp_path / 'again'}" if f.startswith("--model_dir") else f for f in made]
    trainings.train(made)
    one, other = (
        json.loads((folder / "metrics.json").read_text())["validation"]
        for folder in (first, tmp_path / "again")
    )
    assert one == pytest.approx(other, rel=1e-5)


@pytest.mark.slow
def test_other_settings_are_refused_in_the_same_folder(pretrained, capsys):
    _, arguments = pretrained
    assert job.main([*arguments, "--warmup", "3"]) == 2
    assert "warmup: 2 → 3" in capsys.readouterr().err


def test_a_missing_text_is_named(tmp_path, capsys):
    assert job.main(["--text", str(tmp_path / "none.txt"), "--output", str(tmp_path)]) == 2
    assert "none.txt" in capsys.readouterr().err


@pytest.mark.slow
def test_squad_fine_tunes_what_bert_pretrained(pretrained, english, tmp_path, monkeypatch, capsys):
    output, _ = pretrained
    arguments = ["--scale", "smoke", "--text", str(english), "--pretraining", str(output)]
    arguments += ["--jobs", "1", "--optimizers", "acclip", "--output", str(tmp_path)]
    assert squad.main(arguments) == 0
    assert "EM (%)" in capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())["layers"]["2"]
    (row,) = results["summary"]
    folder = tmp_path / "runs" / "bert_tiny" / "acclip-0.0005-0"
    metrics = json.loads((folder / "metrics.json").read_text())["validation"]
    assert row["em"]["mean"] == pytest.approx(100 * metrics["exact_match"])
    assert row["f1"]["mean"] == pytest.approx(100 * metrics["final_f1"])
    assert (tmp_path / "scores.png").stat().st_size > 10_000

    monkeypatch.setattr(trainings, "train", lambda _: pytest.fail("trained again"))
    assert squad.main(arguments) == 0


def test_each_seed_starts_from_its_own_optimizers_pretraining(tmp_path):
    options = squad.parse_arguments(["--pretraining", str(tmp_path / "bert"), "--text", "a.txt"])
    pretrained = parse(*squad.pretraining_arguments(options))
    assert (pretrained.text, pretrained.optimizers) == (["a.txt"], ["adamw", "acclip"])
    works = [resuming.Work(tmp_path / name, {}) for name in ("squad", "bert")]
    made = squad.trainings("6", options, works[0], pretrained, works[1])
    for optimizer in options.optimizers:
        for seed in range(2):
            line = made.flags(plans.Spec(optimizer, 1e-3, seed))
            rate = pretraining.RATES["small"][optimizer]
            start = tmp_path / "bert" / "runs" / "bert_base_6l" / f"{optimizer}-{rate:.6g}-{seed}"
            assert f"task.init_checkpoint={start}" in line[-1].split(",")
            assert f"--seed={seed}" in line


def test_a_study_starts_from_tuned_betas_and_takes_others():
    line = ["--scale", "study", "--beta-1", "adamw=0.8,sgd=0.7", "--beta-2", "acclip=0.99"]
    found = {name: pretraining.start(name, 1, parse(*line)).betas for name in ("adamw", "sgd")}
    assert found == {"adamw": {"beta_1": 0.8, "beta_2": 0.95}, "sgd": {"beta_1": 0.7}}
    assert pretraining.start("acclip", 1, parse(*line)).betas == {"beta_1": 0.7, "beta_2": 0.99}
    for scale in ("small", "smoke", "paper"):
        assert not any(pretraining.start(n, 0, parse("--scale", scale)).betas for n in found)


@pytest.mark.parametrize("tune", [False, True])
def test_squads_study_starts_from_berts(tmp_path, monkeypatch, tune):
    line = ["--scale", "study", "--pretraining", str(tmp_path / "bert"), "--seeds", "2"]
    line += ["--output", str(tmp_path / "squad"), "--optimizers", "acclip", "--jobs", "1"]
    line += ["--pretraining-options", "--beta-1 acclip=0.8"] + tune * ["--tune"]
    asked = []

    def conduct(sizes, make, *_):
        (size,) = sizes
        make(lambda plan: asked.append([size.flags(spec) for spec in plan]))
        return len(asked) - 1  # The fine-tunings end the command.

    def prepare(options):
        return resuming.Work(options.output, {})

    monkeypatch.setattr(trainings, "conduct", conduct)
    monkeypatch.setattr(pretraining, "prepare", prepare)
    monkeypatch.setattr(squad, "make_data", lambda options, pretrained: None)
    monkeypatch.setattr(search, "search", lambda starts, grid, runs_of, *_: runs_of(starts))
    assert squad.main(line) == 1
    pretrained, tuned = asked
    seeds = [0] if tune else [1, 2]
    for seed, source, line in zip(seeds, pretrained, tuned, strict=True):
        folder = flags.value(source, "model_dir")
        assert folder.endswith(f"/bert_base_6l/acclip-0.005-beta1-0.8-beta2-0.95-{seed}")
        assert f"task.init_checkpoint={folder}," in flags.value(line, "params_override") + ","
        assert "trainer.validation_interval=128," in flags.value(line, "params_override")
        assert flags.value(line, "model_dir").endswith(f"-beta1-0.7-beta2-0.95-{seed}")


@pytest.mark.parametrize("module", [pretraining, squad])
def test_a_study_has_the_tokens_of_one(module):
    settings = module.SCALES["study"]
    step = settings["batch_size"] * settings["sequence_length"]
    assert step >= 4096
    assert step * settings["steps"] >= 5e6
    assert settings["reports"] >= 10


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["--train", "a.json"], "--train and --dev go together"),
        (["--scale", "paper"], "--scale paper needs --train and --dev"),
        (["--warmup", "300"], "--warmup 300 must be below --steps 300"),
        (["--steps", "5"], "--steps 5 must be a multiple of --reports 2"),
    ],
)
def test_squads_bad_options_are_named(line, message, capsys):
    with pytest.raises(SystemExit):
        squad.parse_arguments(line)
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_whole_smoke_scale_of_both(tmp_path, english, capsys):
    text = ["--scale", "smoke", "--text", str(english), "--jobs", "2"]
    assert job.main([*text, "--output", str(tmp_path / "bert")]) == 0
    line = [*text, "--pretraining", str(tmp_path / "bert"), "--output", str(tmp_path / "squad")]
    assert squad.main(line) == 0
    printed = capsys.readouterr().out
    assert "gclip − adamw, validation loss" in printed
    assert "acclip − adamw, F1 (%)" in printed
