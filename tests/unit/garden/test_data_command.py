import json
import re
from pathlib import Path

import pytest
import yaml

from keras_acclip.garden.data import command
from keras_acclip.text.vocabulary import SPECIAL_TOKENS
from tests.unit.garden.samples import docstrings, random_squad, squad

GOOD = squad([("The cat sat.", [("Who sat?", "cat", 4)])])


def test_the_command_makes_everything(english, tmp_path, capsys):
    text = ["--input", str(english)]
    small = ["--vocab_size", "500", "--seq_length", "32", "--dupe_factor", "1", "--processes", "1"]
    folder = tmp_path / "data"
    assert command.main(["pretraining", *text, *small, "--cased", "--output", str(folder)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"data: [\d,]+ train, \d+ validation, \d+ vocabulary\n", out)
    assert f"--config_file={folder / 'data.yaml'}" in out
    assert json.loads((folder / "settings.json").read_text())["lower_case"] is False
    parts = {}
    for seed, name in enumerate(("train", "dev")):
        parts[name] = str(tmp_path / f"{name}.json")
        Path(parts[name]).write_text(json.dumps(random_squad(english, seed, 3)))
    line = ["squad", "--train", parts["train"], "--dev", parts["dev"], "--cased"]
    line += ["--vocab", str(folder / "vocab.txt"), "--output", str(tmp_path / "squad")]
    assert command.main([*line, "--processes", "1"]) == 0
    config = yaml.safe_load((tmp_path / "squad/data.yaml").read_text())
    assert config["task"]["validation_data"]["do_lower_case"] is False
    for name, seed in (("a.txt", 0), ("b.txt", 1)):
        (tmp_path / name).write_text("\n\n".join(docstrings(seed, 30)))
    text = ["--input", str(tmp_path / "a.txt"), "--validation_input", str(tmp_path / "b.txt")]
    assert command.main(["questions", *text, "--output", str(tmp_path / "questions")]) == 0
    assert "train questions" in capsys.readouterr().out


SQUAD = ["squad", "--train", "dev.json", "--dev", "dev.json", "--vocab", "vocab.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretraining", "--input", "none.txt"], "none.txt: no such file"),
        (["pretraining", "--input", "empty.txt"], "empty.txt: the file is empty"),
        (
            ["pretraining", "--input", "binary.txt"],
            "binary.txt: not a text file: it holds a zero byte at 2",
        ),
        (
            ["pretraining", "--input", "control.txt", "--vocab", "vocab.txt"],
            "train-00000-of-00001.tfrecord: no example",
        ),
        (["pretraining", "--input", "control.txt"], "control.txt: there is no word to learn"),
        (
            ["pretraining", "--input", "short.txt"],
            "short.txt: too short: there is no validation text",
        ),
        (
            ["pretraining", "--input", "good.txt", "--vocab", "short.txt"],
            "short.txt: the vocabulary lacks [PAD], [CLS], [SEP], [UNK], [MASK]",
        ),
        (["pretraining", "--input", "good.txt", "--vocab", "none.txt"], "none.txt: can't be read"),
        (
            ["pretraining", "--input", "good.txt", "--vocab_size", "5"],
            "`vocab_size` must be above 5",
        ),
        (
            ["pretraining", "--input", "good.txt", "--seq_length", "4"],
            "`seq_length` must be at least 8",
        ),
        (
            ["pretraining", "--input", "good.txt", "--output", "good.txt"],
            "good.txt: can't be written",
        ),
        (["pretraining", "--one_sentence_per_line"], "need --input"),
        (["questions", "--input", "good.txt"], "the train part has no passage"),
        (
            ["squad", "--train", "good.txt", "--dev", "dev.json", "--vocab", "vocab.txt"],
            "good.txt, line 1, column 1: not JSON",
        ),
        (
            ["squad", "--train", "dev.json", "--dev", "none.json", "--vocab", "vocab.txt"],
            "none.json: can't be read",
        ),
        (
            ["squad", "--train", "dev.json", "--dev", "dev.json", "--vocab", "short.txt"],
            "the vocabulary lacks",
        ),
        *(
            (["pretraining", "--input", "good.txt", f"--{name}", value], f"`{name}` must be in")
            for name in ("masked_lm_prob", "short_seq_prob")
            for value in ("inf", "nan", "-0.1", "1.1")
        ),
        (["pretraining", "--input", ""], "an empty path"),
        (
            ["pretraining", "--input", "good.txt", "--validation_input", "good.txt"],
            "good.txt: given as --input and as --validation_input",
        ),
        (["pretraining", "--input", "good.txt", "--input", "none.txt"], "none.txt: no such file"),
        (
            ["pretraining", "--input", "good.txt", "--max_predictions_per_seq", "129"],
            "`max_predictions_per_seq` must be at most seq_length=128",
        ),
        (
            ["squad", "--train", "deep.json", "--dev", "dev.json", "--vocab", "vocab.txt"],
            "deep.json: too many brackets",
        ),
        (
            [*SQUAD, "--seq_length", "9"],
            "`seq_length` must be above",
        ),
    ],
)
def test_errors_are_one_line_and_status_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("")
    Path("binary.txt").write_bytes(b"ab\0")
    Path("control.txt").write_bytes(b"\x01 \x02\n\n" * 200)
    Path("short.txt").write_text("word\n")
    Path("good.txt").write_text("Some words stand here.\n\n" * 200)
    Path("vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, "cat"]))
    Path("dev.json").write_text(json.dumps(GOOD))
    Path("deep.json").write_text("[" * 100_000)
    if "--output" not in arguments:
        arguments = [*arguments, "--output", "out"]
    assert command.main([*arguments, *["--processes", "1"] * (arguments[0] != "questions")]) == 2
    error = capsys.readouterr().err
    assert re.search(rf"^error: .*{re.escape(message)}", error, re.MULTILINE)
    assert "Traceback" not in error
    assert not list(Path().glob("out/*.yaml"))


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["pretraining"],
        ["squad", "--output", "x"],
        ["pretraining", "--output", "x", "--dupe_factor", "0"],
        ["pretraining", "--output", ""],
        ["squad", "--train", "a", "--dev", " ", "--vocab", "b", "--output", "x"],
    ],
)
def test_a_bad_command_line_is_refused(arguments):
    with pytest.raises(SystemExit) as status:
        command.parse_arguments(arguments)
    assert status.value.code == 2
