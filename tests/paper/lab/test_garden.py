import argparse
import importlib.util

import pytest

from keras_acclip._utils import processes

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("official") is None, reason="needs the Model Garden"
)

from lab.garden import flags as garden_flags  # noqa: E402
from lab.garden import pretraining, trainings  # noqa: E402
from lab.plans import Spec  # noqa: E402
from lab.resuming import Work  # noqa: E402


def flags(model, optimizer="acclip", hidden=None, folder="runs/a"):
    override = garden_flags.schedule(3e-3, 40, 10, reports=4) | garden_flags.narrowed(hidden)
    return garden_flags.training_flags(
        "bert_pretraining", (model, optimizer, "cpu"), folder, 3, override
    )


@pytest.mark.parametrize(("layers", "model"), garden_flags.MODELS.items())
def test_a_narrow_model_has_the_layers_of_its_file(layers, model):
    encoder = garden_flags.parameters(flags(model, hidden=64)).task.model.encoder.bert
    assert encoder.num_layers == int(layers)
    assert (encoder.hidden_size, encoder.intermediate_size) == (64, 256)
    assert encoder.hidden_size % encoder.num_attention_heads == 0
    assert encoder.dropout_rate == encoder.attention_dropout_rate == 0
    whole = garden_flags.parameters(flags(model)).task.model.encoder.bert
    assert whole.hidden_size == {"2": 128, "6": 768, "12": 768, "24": 1024}[layers]
    assert whole.dropout_rate == 0.1


def test_the_schedule_is_the_one_asked_for():
    trainer = garden_flags.parameters(flags("bert_tiny")).trainer
    assert (trainer.train_steps, trainer.steps_per_loop, trainer.summary_interval) == (40, 10, 10)
    rate = trainer.optimizer_config.learning_rate.polynomial
    assert (rate.initial_learning_rate, rate.decay_steps) == (3e-3, 40)
    assert trainer.optimizer_config.warmup.polynomial.warmup_steps == 10


GIVEN = {
    "acclip": {"beta_1": 0.7, "beta_2": 0.95},
    "adamw": {"beta_1": 0.8, "beta_2": 0.9},
    "sgd": {"momentum": 0.7},
    "gclip": {"momentum": 0.0},
}


@pytest.mark.parametrize(("name", "given"), GIVEN.items())
def test_betas_override_the_optimizers_file(name, given, tmp_path):
    made = trainings_in(tmp_path)
    found = []
    for betas in ((), given.values()):
        line = made.flags(Spec(name, 1e-3, 0, *betas))
        optimizer = garden_flags.parameters(line).trainer.optimizer_config.optimizer.as_dict()
        assert optimizer["type"] == name
        found.append(optimizer[name])
    own, changed = found
    assert changed == own | given
    assert own != changed
    override = garden_flags.value(made.flags(Spec(name, 1e-3, 0)), "params_override")
    assert "optimizer_config.optimizer." not in override


def test_the_command_line_has_the_same_flags(tmp_path, capsys):
    made, plan = trainings_in(tmp_path), [Spec("acclip", 1e-3, 0), Spec("sgd", 0.1, 1)]
    trainings.print_commands([made], plan)
    lines = capsys.readouterr().out.splitlines()
    for line, spec in zip(lines, plan, strict=True):
        assert line.startswith("python -m keras_acclip.garden.train --experiment=acclip/bert_pret")
        assert all(flag in line for flag in made.flags(spec))


def test_history_is_what_the_summaries_hold(tmp_path):
    from tests.unit.garden.model_dirs import write_run

    folder = write_run(tmp_path / "a", validation_loss=2.5, masked_lm_accuracy=0.25)
    measures = {"val_loss": ("validation_loss", 1), "percent": ("masked_lm_accuracy", 100)}
    first, last = trainings.history(folder, measures, tokens_per_step=100)
    assert (first["step"], first["val_loss"], first["percent"]) == (20, 3.5, 125)
    assert (last["step"], last["val_loss"], last["percent"]) == (40, 2.5, 25)
    # The speed is the median of the loops after the first: 7 of 7, 5, 9.
    assert last["tokens_per_second"] == 700
    assert first["seconds"] + last["seconds"] == pytest.approx(40 / 7)
    assert trainings.history(tmp_path / "none", measures, 1) == []


def trainings_in(output, jobs=1):
    """`Trainings` of 40 steps, whose data's files are missing."""
    (output / "data").mkdir(exist_ok=True)
    (output / "data" / "data.yaml").write_text("{}")
    options = argparse.Namespace(
        runtime="cpu",
        jobs=jobs,
        steps=40,
        warmup=10,
        reports=2,
        batch_size=4,
        sequence_length=32,
    )
    work = Work(output, {})
    return trainings.Trainings("bert_pretraining", "2", options, work, lambda *_: {}, {})


def test_only_what_is_missing_is_trained(tmp_path, monkeypatch):
    plan = [Spec("acclip", 1e-3, seed) for seed in range(3)]
    made, trained = trainings_in(tmp_path), []
    rows = {0: [{"step": 40}], 1: [{"step": 20}], 2: []}
    monkeypatch.setattr(trainings, "history", lambda folder, *_: rows[int(folder.name[-1])])

    def train(flags):
        trained.append(int(garden_flags.value(flags, "seed")))
        rows[trained[-1]] = [{"step": 40, "loss": 1.0}]

    monkeypatch.setattr(trainings, "train", train)
    wait = made.start(plan, processes.Pool(1))
    # The last one first: the others are trained on the way.
    assert wait(plan[2])["history"] == [{"step": 40, "loss": 1.0}]
    assert trained == [1, 2]
    assert wait(plan[0]) == {
        "optimizer": "acclip",
        "learning_rate": 1e-3,
        "seed": 0,
        "history": [{"step": 40}],
    }
    wait(plan[1])
    assert trained == [1, 2]
    # From now on what came out is kept, whatever becomes of the summaries.
    rows.clear()
    assert trainings_in(tmp_path).start(plan, processes.Pool(1))(plan[2])["history"] == [
        {"step": 40, "loss": 1.0}
    ]


def test_a_training_that_fails_ends_the_command_with_one_line(tmp_path, capsys):
    plan, made = [Spec("acclip", 1e-3, 0)], trainings_in(tmp_path)

    def make(runs_of):
        return runs_of(plan)

    assert trainings.conduct([made], make, pytest.fail, "val_loss", "validation loss") == 1
    (line,) = capsys.readouterr().err.splitlines()
    folder = made.folder(plan[0])
    assert line.startswith(f"error: {folder}: ")
    assert line.endswith(f"(see {folder}/train.log)")
    assert "Traceback" in (folder / "train.log").read_text()


def test_what_a_training_prints_goes_into_its_log(tmp_path, capfd):
    import os

    log = tmp_path / "train.log"
    with trainings.output_into(log):
        print("from Python")
        os.write(2, b"from C++\n")
    print("after")
    assert sorted(log.read_text().split("\n")) == ["", "from C++", "from Python"]
    assert capfd.readouterr().out == "after\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["--runtime", "gpu", "--jobs", "2"], "--jobs 2 must be 1 with --runtime gpu"),
        (["--jobs", "0"], "'0' is not a whole number above 0"),
        (["--hidden", "48"], "--hidden 48 must be a multiple of 32"),
        (["--layers", "5"], "'5' is none of 2, 6, 12, 24"),
        (["--steps", "10", "--reports", "3"], "--steps 10 must be a multiple of --reports 3"),
        (["--warmup", "360"], "--warmup 360 must be below --steps 360"),
        (["--beta-2", "gclip=0.9"], "argument --beta-2: gclip does not take it"),
        (["--scale", "study", "--tune", "--commands"], "--commands can't list a study's --tune"),
    ],
)
def test_bad_options_are_named(line, message, capsys):
    with pytest.raises(SystemExit):
        pretraining.parse_arguments("doc", line)
    assert message in capsys.readouterr().err
