"""The shell commands of README and the site: each is one that its program takes as it stands."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("official.core.exp_factory", reason="the Model Garden is not installed")

import gin

import keras_acclip.garden.runner  # noqa: F401
from keras_acclip.garden import checks, compare, flags, train
from keras_acclip.garden.data import command

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A page's blocks are read one after the other: later ones use what earlier ones set.
SCRIPTS = {
    page.relative_to(ROOT).as_posix(): "".join(BLOCK.findall(page.read_text("utf-8")))
    for page in PAGES
    if BLOCK.search(page.read_text("utf-8"))
}
# Writes its arguments down in the place of running them.
RECORDER = f"""#!{sys.executable}
import json, sys
open({{path!r}}, "a").write(json.dumps(sys.argv[1:]) + "\\n")
"""
# What the commands take for granted: what the commands before them made, and the reader's file.
MADE = ("data", "text", "sentences", "squad")
DATA = "task:\n  train_data: {input_path: 'train*'}\n  validation_data: {input_path: 'dev*'}\n"
MINE = """
trainer:
  train_steps: 10
  optimizer_config:
    learning_rate: {polynomial: {decay_steps: 10}}
    warmup: {polynomial: {warmup_steps: 1}}
"""


def recorded(script, folder):
    """The arguments of each call of Python in a script, run by a shell in the folder."""
    programs, path = folder / "bin", folder / "recorded"
    programs.mkdir()
    (programs / "python").write_text(RECORDER.format(path=str(path)))
    (programs / "python").chmod(0o755)
    subprocess.run(
        ["bash", "-euc", script],
        cwd=folder,
        env=os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"},
        check=True,
    )
    return [json.loads(line) for line in path.read_text().splitlines()]


def configured(values):
    """The parameters of a command line; Gin stays open for what comes after."""
    gin.clear_config()
    try:
        return train.configured(values)
    finally:
        gin.clear_config()


def take(module, arguments):
    """Has a program take its arguments, without doing what they say."""
    if module in ("keras_acclip.garden.train", "official.nlp.train"):
        params = configured(flags.read(["train", *arguments]))
        checks.check_intervals(params.trainer)
        checks.check_schedule(params.trainer)
    elif module == "keras_acclip.garden.data":
        command.parse_arguments(arguments)
    elif module == "keras_acclip.garden.compare":
        with pytest.raises(SystemExit) as done:
            compare.main([*arguments, "--help"])
        assert done.value.code == 0
    else:
        assert module == "keras_acclip.report" and not arguments


def test_the_pages_have_commands():
    pages = ("pretraining", "raw_text", "squad", "sentences", "resnet", "experiments", "precision")
    assert {f"docs/model_garden/{page}.md" for page in pages} <= set(SCRIPTS)


@pytest.mark.parametrize("page", sorted(SCRIPTS))
def test_the_commands_of_a_page_are_taken(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in MADE:
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.yaml").write_text(DATA)
    (tmp_path / "mine.yaml").write_text(MINE)
    calls = recorded(SCRIPTS[page], tmp_path)
    assert calls
    for flag, module, *arguments in calls:
        assert flag == "-m"
        take(module, arguments)


@pytest.mark.parametrize(
    "line",
    [
        "python -m keras_acclip.garden.train --experiment=acclip/bert_squad --mode=train "
        "--model_dir=x --params_override=trainer.trian_steps=5",
        "python -m keras_acclip.garden.train --mode=train --model_dir=x",
        "python -m keras_acclip.garden.data squad --trian a.json",
    ],
)
def test_a_mistake_in_a_block_is_seen(line, tmp_path):
    ((_, module, *arguments),) = recorded(line, tmp_path)
    with pytest.raises(SystemExit) as stopped:
        take(module, arguments)
    assert stopped.value.code == 2
