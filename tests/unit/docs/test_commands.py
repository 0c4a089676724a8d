"""The shell commands of README and the site: each is one that its program takes as it stands."""

import gzip
import json
import os
import re
import subprocess
import sys

import pytest

pytest.importorskip("official.core.exp_factory", reason="the Model Garden is not installed")

import gin
import numpy as np
import yaml
from official.core import exp_factory

import keras_acclip.garden.runner  # noqa: F401
from keras_acclip.garden import checks, compare, flags, train
from keras_acclip.garden.data import command
from tests.integration.garden.test_any_experiment import images
from tests.unit.docs.pages import PAGES, ROOT, blocks, code, spans
from tests.unit.docs.test_names import options, takes
from tests.unit.garden.samples import docstrings

# What its program takes as it stands, also where it isn't run to its end.
SCRIPTS = code("bash", not_run=True)
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


def take_script(path, arguments):
    """Looks for the options in what the script's `--help` prints."""
    line = [sys.executable, ROOT / path, "--help"]
    told = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    given = options(arguments)
    assert given
    assert all(takes(told, option, value) for option, value in given)


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
    for first, *rest in calls:
        if first == "-m":
            take(rest[0], rest[1:])
        else:
            take_script(first, rest)


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


# --- To the end ---

# In their order: the later ones use what the first one leaves.
CHAIN = ("pretraining", "raw_text", "precision", "squad", "sentences", "resnet")
SMALL = (
    "trainer.train_steps=4,trainer.steps_per_loop=2,trainer.summary_interval=2,"
    "trainer.checkpoint_interval=4,trainer.validation_interval=4,trainer.validation_steps=1,"
    "trainer.optimizer_config.warmup.{warmup}.warmup_steps=1,"
    "task.train_data.global_batch_size=4,task.validation_data.global_batch_size=4"
)
# Runs the command that it gets, made small: fewer steps, smaller batches, the test's own text.
SHRINKER = """#!{python}
import os, sys

arguments = sys.argv[1:]
module = arguments[1]
if module == "keras_acclip.garden.data":
    kind = arguments[2]
    if kind == "pretraining":
        sizes = ["--vocab_size", "400"]
        if "--dynamic" not in arguments:
            sizes += ["--seq_length", "32", "--dupe_factor", "1"]
        if "--input" not in arguments:
            sizes += ["--input", "books/*.txt.gz"]
        arguments += [*sizes, "--processes", "1"]
    elif kind == "questions":
        arguments += ["--train_questions", "20", "--dev_questions", "8", "--input", "docs.txt"]
    else:
        arguments += ["--seq_length", "128"]
elif module == "keras_acclip.garden.train":
    vision = any("resnet" in a for a in arguments)
    small = {small!r}.format(warmup="linear" if vision else "polynomial")
    if vision:
        small += ",task.model.input_size=[32,32,3],task.model.backbone.resnet.model_id=10"
    if any("gradient_accumulation_steps" in a for a in arguments):
        small += ",trainer.gradient_accumulation_steps=2"
    given = [a for a in arguments if a.startswith("--params_override=")]
    arguments = [a for a in arguments if a not in given]
    values = [a.partition("=")[2] for a in given]
    arguments.append("--params_override=" + ",".join([*values, small]))
    if any(a.startswith("--noise_interval") for a in arguments):
        arguments += ["--noise_interval=2", "--noise_batches=2"]
os.execv({python!r}, [{python!r}, *arguments])
"""


def write_files(folder):
    """What the pages take for granted of the reader's: books, a table, images."""
    (folder / "books").mkdir()
    words = ["the", "cat", "dog", "sees", "likes", "a", "red", "small", "house", "tree"]
    rng = np.random.default_rng(0)
    for book in range(4):
        with gzip.open(folder / f"books/{book}.txt.gz", "wt") as file:
            for _ in range(60):
                for _ in range(12):
                    file.write(" ".join(rng.choice(words, 9)).capitalize() + ". ")
                file.write("\n\n")
    (folder / "docs.txt").write_text("\n\n".join(docstrings(0, 60)), "utf-8")
    for name in ("train", "dev"):
        rows = (f"{' '.join(rng.choice(words, 6))}\t{'yes' if i % 2 else 'no'}" for i in range(16))
        (folder / f"{name}.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")
    (folder / "imagenet").mkdir()
    images(folder / "imagenet")
    record = (folder / "imagenet/images.tfrecord").read_bytes()
    for name in ("train", "valid"):
        (folder / f"imagenet/{name}-0").write_bytes(record)


@pytest.mark.slow
def test_the_commands_of_the_garden_s_pages_run_to_their_end(tmp_path):
    """Each command of a page, in a shell, with fewer steps, on small data."""
    write_files(tmp_path)
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/python"
    program.write_text(SHRINKER.format(python=sys.executable, small=SMALL))
    program.chmod(0o755)
    for page in CHAIN:
        name = f"docs/model_garden/{page}.md"
        assert SCRIPTS[name] == code("bash")[name]
        done = subprocess.run(
            ["bash", "-euc", SCRIPTS[name]],
            cwd=tmp_path,
            env=os.environ
            | {
                "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
                "CUDA_VISIBLE_DEVICES": "",
            },
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{page}: {done.stderr[-3000:]}"
    scores = {
        "acclip": "validation_loss",
        "acclip_text": "masked_lm_accuracy",
        "acclip_squad": "final_f1",
        "acclip_sentences": "cls_accuracy",
        "acclip_resnet": "accuracy",
    }
    for run, score in scores.items():
        assert score in (tmp_path / f"runs/{run}/metrics.json").read_text()
    assert "adamw" in (tmp_path / "comparison/comparison.md").read_text()
    assert list((tmp_path / "runs/acclip_noise/noise").iterdir())


def test_each_page_s_commands_run_or_say_why_not():
    chain = {f"docs/model_garden/{page}.md" for page in CHAIN}
    assert set(code("bash")) == chain | {"docs/troubleshooting.md"}


# --- YAML ---

YAML = [
    (page, b.text) for page, text in PAGES.items() for b in blocks(text) if b.language == "yaml"
]


def test_the_pages_have_yaml():
    assert [page for page, _ in YAML].count("docs/model_garden/experiments.md") == 2


@pytest.mark.parametrize(("page", "text"), YAML)
@pytest.mark.parametrize("experiment", ["acclip/bert_pretraining", "bert/sentence_prediction"])
def test_a_file_is_taken(experiment, page, text, tmp_path):
    (tmp_path / "block.yaml").write_text(text)
    line = [
        f"--experiment={experiment}",
        f"--config_file={tmp_path / 'block.yaml'}",
        "--mode=train",
        f"--model_dir={tmp_path / 'run'}",
    ]
    params = configured(flags.read(["train", *line]))
    written = yaml.safe_load(text)
    assert set(written) <= {"task", "trainer", "runtime"}
    assert holds(params.as_dict(), written)


def holds(params, written):
    """Whether parameters have all that a file says."""
    if isinstance(written, dict):
        return all(key in params and holds(params[key], value) for key, value in written.items())
    return params == written


@pytest.mark.parametrize(
    "text",
    [
        "trainer: {optimizer_config: {optimizer: {type: aklip}}}",
        "trainer: {optimizer_config: {optimizer: {type: clip, clip: {movng: {type: quantile}}}}}",
    ],
)
def test_a_mistake_in_a_file_is_seen(text, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        test_a_file_is_taken("bert/sentence_prediction", "", text, tmp_path)
    assert stopped.value.code == 2


# --- Parameters in the text ---

PARAMETERS = sorted(
    {
        span
        for text in PAGES.values()
        for span in spans(text)
        if re.fullmatch(r"(task|trainer|runtime)(\.\w+)+(=\S+)?", span)
    }
)
EXPERIMENTS = sorted(
    {s for text in PAGES.values() for s in spans(text) if re.fullmatch(r"(acclip|bert)/\w+", s)}
)


def test_the_pages_have_parameters_and_experiments():
    assert len(PARAMETERS) > 10
    assert EXPERIMENTS


def has(params, path):
    """Whether an experiment has a parameter; `allow_cpu` is known to this package's command."""
    params["runtime"]["allow_cpu"] = False
    for name in path.split("."):
        if not isinstance(params, dict) or name not in params:
            return False
        params = params[name]
    return True


@pytest.fixture(scope="module")
def ours():
    """The parameters of this package's experiments."""
    return [exp_factory.get_exp_config(name).as_dict() for name in flags.EXPERIMENTS]


@pytest.mark.parametrize("span", PARAMETERS)
def test_a_parameter_is_an_experiment_s(span, ours):
    assert any(has(params, span.partition("=")[0]) for params in ours)


@pytest.mark.slow
@pytest.mark.parametrize("span", [span for span in PARAMETERS if "=" in span])
def test_a_value_is_taken(span):
    line = ["--experiment=acclip/bert_pretraining", "--mode=train", "--model_dir=x"]
    configured(flags.read(["train", *line, f"--params_override={span}"]))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_is_known(name):
    assert exp_factory.get_exp_config(name)


def test_a_mistake_in_a_parameter_is_seen(ours):
    assert not any(has(params, "trainer.trian_steps") for params in ours)
    with pytest.raises(SystemExit):
        test_a_value_is_taken("trainer.trian_steps=5")
