"""Every command answers at once: what it can tell by its words alone needs no TensorFlow."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
HEAVY = {"jax", "keras", "matplotlib", "official", "scipy", "tensorflow", "tf_keras"}


def answer(*words, cwd=None):
    """Status, output, errors and the packages that were imported."""
    process = subprocess.run(
        [sys.executable, "-X", "importtime", *words],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=cwd,
        capture_output=True,
        text=True,
    )
    errors, packages = [], set()
    for line in process.stderr.splitlines():
        if line.startswith("import time:"):
            packages.add(line.rpartition("|")[2].strip().partition(".")[0])
        else:
            errors.append(line)
    return process.returncode, process.stdout, errors, packages


@pytest.mark.parametrize("name", ["data", "train", "compare"])
def test_help_is_quick(name):
    status, out, errors, packages = answer("-m", f"keras_acclip.garden.{name}", "--help")
    assert (status, errors) == (0, [])
    assert f"keras_acclip.garden.{name}" in out
    assert not packages & HEAVY


@pytest.mark.parametrize(
    "words",
    [
        "data pretraining --output x --input missing.txt",
        "data pretraining --output x --vocab missing.txt",
        "data pretraining --output x --vocab_size 3",
        "data sentences --output x --train missing.tsv --dev missing.tsv --vocab missing.tsv",
        "data squads",
        "train --expermient=acclip/bert_squad",
        "train --experiment=acclip/bert_squad --mode=eval --model_dir=x --config_file=missing",
        "train --experiment=acclip/bert_squads --mode=eval --model_dir=x",
        "compare missing",
        "compare",
    ],
)
def test_a_mistake_is_told_at_once(words, tmp_path):
    name, *rest = words.split()
    line = ("-m", f"keras_acclip.garden.{name}", *rest)
    status, out, errors, packages = answer(*line, cwd=tmp_path)
    assert (status, out, len(errors)) == (2, "", 1)
    assert errors[0].startswith("error: ")
    assert not packages & HEAVY
    assert not list(tmp_path.iterdir())


def test_several_unusable_files_are_told_at_once(tmp_path):
    files = ("--train", "one.json", "--dev", "other.json", "--vocab", "missing.txt")
    command = ("-m", "keras_acclip.garden.data", "squad", "--output", "x", *files)
    status, out, errors, packages = answer(*command, cwd=tmp_path)
    assert (status, out) == (2, "")
    assert errors[0] == "error: 3 input files can't be used:"
    assert [line.split(":")[0].strip() for line in errors[1:]] == [
        "missing.txt",
        "one.json",
        "other.json",
    ]
    assert not packages & HEAVY


def test_importing_the_package_loads_nothing():
    code = "import keras_acclip.garden as g; g.configs.find('cpu'); g.data.Recipe(); g.compare.Run"
    status, _, _, packages = answer("-c", code)
    assert status == 0
    assert "yaml" in packages and not packages & HEAVY


@pytest.mark.parametrize("name", ["train", "data", "compare"])
def test_without_the_model_garden_it_says_so_in_one_line(name, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['official'] = None\n")
    run = subprocess.run(
        [sys.executable, "-m", f"keras_acclip.garden.{name}", "--help"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 2
    needed = "keras_acclip.garden needs the TensorFlow Model Garden: pip install"
    assert run.stderr == f"error: {needed} 'keras-acclip[garden]'\n"


def test_a_program_that_does_without_the_model_garden_goes_on(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['official'] = None\n")
    (tmp_path / "tool").mkdir()
    guarded = "try:\n    import keras_acclip.garden\nexcept ImportError:\n    print('without')\n"
    (tmp_path / "tool/__init__.py").write_text(guarded)
    (tmp_path / "tool/main.py").write_text("print('runs')\n")
    run = subprocess.run(
        [sys.executable, "-m", "tool.main"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stdout) == (0, "without\nruns\n"), run.stderr
