import os
import subprocess
import sys

import gin
import pytest
from absl import flags as absl_flags

from keras_acclip.garden import configs, flags, train

NEEDED = ["--experiment=acclip/bert_pretraining", "--mode=train", "--model_dir=runs/a"]


def read(*words):
    return flags.read(["train", *words])


def test_every_flag_of_the_model_gardens_driver_is_there():
    from official.common import flags as model_gardens
    from official.nlp import train as driver

    from keras_acclip.garden import runner

    assert driver and runner
    if "experiment" not in absl_flags.FLAGS:
        model_gardens.define_flags()
    ours = flags.define()
    modules = absl_flags.FLAGS.flags_by_module_dict()
    found = {
        flag.name
        for module in ("official.common.flags", "official.nlp.train", "absl.app", "absl.logging")
        for flag in modules[module]
    }
    assert {"experiment", "config_file", "pretrain_steps", "gin_params", "verbosity"} < found
    found |= {flag.name for flag in ours.flags_by_module_dict()[flags.LIBRARIES]}
    for name in found:
        theirs, mine = absl_flags.FLAGS[name], ours[name]
        assert (type(mine), mine.default) == (type(theirs), theirs.default), name
        assert type(mine.parser) is type(theirs.parser), name
        choices = [getattr(flag.parser, "enum_values", None) or [] for flag in (mine, theirs)]
        assert list(choices[0]) == list(choices[1]), name


@pytest.mark.slow
def test_every_flag_of_the_libraries_that_a_training_loads_is_there():
    code = (
        "from official.nlp import train; from keras_acclip.garden import runner;"
        "from absl import flags; modules = flags.FLAGS.flags_by_module_dict();"
        # absl's own testing library defines flags, too.
        "print(*(f.name for m in modules if 'testing' not in m for f in modules[m]))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = set(run.stdout.splitlines()[-1].split())
    assert "tfhub_cache_dir" in found
    assert found <= set(flags.define())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {"seed": 0, "noise_interval": None, "noise_batches": 256}),
        ([], {"enable_async_checkpointing": True, "config_file": [], "gin_params": None}),
        (["--seed=3"], {"seed": 3}),
        (["--seed", "3"], {"seed": 3}),
        (["-seed", "3", "-noise_interval=7"], {"seed": 3, "noise_interval": 7}),
        (["--mode", "eval"], {"mode": "eval"}),
        (["--noenable_async_checkpointing"], {"enable_async_checkpointing": False}),
        (["--enable_async_checkpointing=false"], {"enable_async_checkpointing": False}),
        (
            ["--noenable_async_checkpointing", "--enable_async_checkpointing"],
            {"enable_async_checkpointing": True},
        ),
        (
            ["--config_file=cpu", "--config_file", "squad.yaml"],
            {"config_file": [configs.find("cpu"), configs.find("squad")]},
        ),
        (["--config_file=gs://bucket/a.yaml"], {"config_file": ["gs://bucket/a.yaml"]}),
        (
            ["--gin_params=a.b = 1", "--gin_params", "c.d = 2", "--gin_file=a.gin"],
            {"gin_params": ["a.b = 1", "c.d = 2"], "gin_file": ["a.gin"]},
        ),
        (
            ["--params_override=trainer.train_steps=5,runtime.num_gpus=0"],
            {"params_override": "trainer.train_steps=5,runtime.num_gpus=0"},
        ),
        (["--params_override={runtime: {num_gpus: 0}}"], {"seed": 0}),
        (["--tpu=grpc://10.0.0.2:8470", "--pretrain_steps=9"], {"pretrain_steps": 9}),
        (["--undefok=unheard_of", "--unheard_of=1"], {"seed": 0}),
        (["--experiment=bert/pretraining"], {"experiment": "bert/pretraining"}),
    ],
)
def test_flags_are_read_as_absl_reads_them(words, expected):
    values = read(*NEEDED, *words)
    assert {name: values[name].value for name in expected} == expected


def test_a_file_of_flags_is_read(tmp_path):
    (tmp_path / "flags").write_text("\n".join([*NEEDED, "--seed=5", "# a comment"]))
    assert read(f"--flagfile={tmp_path / 'flags'}").seed == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--expermient=a"], "Unknown command line flag 'expermient'. Did you mean: experiment ?"),
        (["--mode=foo"], "--mode=foo: value should be one of <train|eval|"),
        (["--seed=x"], "flag --seed=x: invalid literal"),
        (["--noise_interval=0"], "flag --noise_interval=0: 0 is not a positive integer"),
        (["--noise_batches=1"], "flag --noise_batches=1: 1 is not integer >= 2"),
        (["--enable_async_checkpointing=perhaps"], "Non-boolean argument"),
        (["--noenable_async_checkpointing=1"], "does not take an argument"),
        (["--seed"], "Missing value for flag --seed"),
        (["--config_file=bert_tyni"], "There is no file 'bert_tyni' here"),
        (["--config_file=data/data.yaml"], "data/data.yaml: no such file"),
        (["--experiment=resnet"], "There is no experiment 'resnet'. There are: acclip/"),
        (["--experiment=acclip/bert_squat"], "did you mean acclip/bert_squad? There are: acclip/"),
        (["--params_override=changes.yaml"], "changes.yaml: no such file and no name=value"),
        (["--params_override={trainer: "], "flag --params_override: while parsing"),
        (["--model_dir=file"], "file: a file, not a folder"),
        (["--flagfile=nowhere"], "Unable to open flagfile"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as status:
        train.main(["train", *NEEDED, *words])
    assert status.value.code == 2
    out, error = capsys.readouterr()
    assert error.startswith("error: ") and message in error
    assert error.count("\n") == 1 and not out


@pytest.mark.parametrize("missing", range(3))
def test_a_missing_flag_is_named(missing, capsys):
    given = [*NEEDED[:missing], *NEEDED[missing + 1 :]]
    with pytest.raises(SystemExit):
        read(*given)
    name = NEEDED[missing].partition("=")[0]
    assert capsys.readouterr().err == f"error: required: {name}\n"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--params_override=a=1", "given 2 times; put commas between its values"),
        ("--allow_changed=task", "given 2 times; put commas between its values"),
    ],
)
def test_a_value_that_another_would_replace_is_named(word, message, capsys):
    with pytest.raises(SystemExit) as status:
        read(*NEEDED, word, word)
    assert status.value.code == 2
    name = word.partition("=")[0]
    assert capsys.readouterr().err == f"error: {name} is {message}\n"


def test_words_that_are_no_flags_are_named(capsys):
    with pytest.raises(SystemExit) as status:
        read(*NEEDED, "gclip", "trainer.train_steps=5")
    assert status.value.code == 2
    assert capsys.readouterr().err == "error: 'gclip' is no flag: flags begin with --\n"


@pytest.mark.parametrize("name", ["experiment", "model_dir"])
def test_an_empty_flag_is_a_missing_one(name, capsys):
    with pytest.raises(SystemExit):
        read(*(word for word in NEEDED if name not in word), f"--{name}=")
    assert capsys.readouterr().err == f"error: required: --{name}\n"


@pytest.mark.parametrize("word", ["--help", "-?", "--helpshort", "--helpfull", "--helpxml"])
def test_help_describes_every_flag(word, capsys):
    with pytest.raises(SystemExit) as status:
        train.main(["train", word])
    assert not status.value.code
    out = capsys.readouterr().out
    assert all(name in out for name in flags.define())
    if word != "--helpxml":
        assert out.startswith("The Model Garden's training driver")
        assert all(name in out for name in (*flags.EXPERIMENTS, *configs.shipped()))


def test_flags_of_libraries_reach_them():
    from keras_acclip.garden import runner

    assert runner
    flag = absl_flags.FLAGS["tfhub_cache_dir"]
    before = flag.value
    try:
        flags.hand_on(read(*NEEDED, "--tfhub_cache_dir=/cache"))
        assert absl_flags.FLAGS.tfhub_cache_dir == "/cache"
        flags.hand_on(read(*NEEDED))
        assert absl_flags.FLAGS.tfhub_cache_dir == "/cache"
    finally:
        flag.value = before


def test_the_experiments_named_are_those_registered():
    from keras_acclip.garden import experiments

    factories = {name for name in experiments.__all__ if name.islower()}
    assert {name.removeprefix("acclip/") for name in flags.EXPERIMENTS} == factories


def test_the_last_line_says_where_things_are():
    line = train.where("there", 10)
    for place in ("there/ckpt-*", "summaries: there/;", "there/metrics.json", "there/noise/*.npz"):
        assert place in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--experiment=bert/nope"], "bert/nope"),
        (["--params_override=task.nope=1"], "nope"),
        (["--params_override=trainer.nope.nope=1"], "nope"),
        (["--gin_params=nope.nope=1"], "nope"),
    ],
)
def test_a_mistake_in_the_parameters_is_one_line(words, message, capsys):
    gin.clear_config()  # Of another test in this process.
    values = read(*NEEDED, *words)
    with pytest.raises(SystemExit) as status:
        train.configured(values)
    assert status.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith("error: ") and message in line
    gin.clear_config()
    with pytest.raises(Exception, match="nope"):
        train.configured(read(*NEEDED, *words, "--debug"))


def test_gins_additions_to_a_message_are_left_out():
    error = ValueError("a\n b\n  In call to configurable 'f' (<function f>)")
    assert train.in_one_line(error) == "a b"
    assert train.in_one_line(KeyError("a")) == "a" and train.in_one_line(OSError()) == "OSError"


def test_what_continuous_training_would_pass_over_is_refused(capsys):
    gin.clear_config()
    words = ["--params_override=trainer.gradient_accumulation_steps=2"]
    values = read(*NEEDED[:1], "--mode=continuous_train_and_eval", "--model_dir=x", *words)
    with pytest.raises(SystemExit) as status:
        train.train(values)
    assert status.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: trainer.gradient_accumulation_steps=2 is not for --mode=conti")


CONTINUOUS = "--mode=continuous_train_and_eval"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "needs task.init_checkpoint"),
        (["--params_override=task.init_checkpoint=x,trainer.steps_per_loop=0"], "at least 1"),
    ],
)
def test_continuous_training_is_checked_before_it_waits(words, message, tmp_path, capsys):
    gin.clear_config()
    values = read(NEEDED[0], CONTINUOUS, f"--model_dir={tmp_path}", "--config_file=cpu", *words)
    with pytest.raises(SystemExit) as status:
        train.train(values)
    assert status.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_continuous_training_leaves_another_experiments_checkpoints(tmp_path, capsys):
    gin.clear_config()
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "ckpt-10"')
    (tmp_path / "ckpt-10.index").touch()
    params = "task: {model: {encoder: {type: bert, bert: {num_layers: 99}}}}"
    (tmp_path / "params.yaml").write_text(params)
    words = ["--config_file=cpu", "--params_override=task.init_checkpoint=x"]
    with pytest.raises(SystemExit) as status:
        train.train(read(NEEDED[0], CONTINUOUS, f"--model_dir={tmp_path}", *words))
    assert status.value.code == 2
    assert "holds another experiment" in capsys.readouterr().err.splitlines()[-1]
    assert (tmp_path / "ckpt-10.index").exists()
    assert (tmp_path / "params.yaml").read_text() == params


@pytest.mark.parametrize(
    ("level", "lines"), [(None, 1), pytest.param("0", 2, marks=pytest.mark.slow)]
)
def test_a_mistake_is_one_line_unless_tensorflows_log_is_asked_for(level, lines, tmp_path):
    words = ["--config_file=cpu", "--params_override=task.train_data.input_path=/nowhere/a"]
    line = [*NEEDED[:2], f"--model_dir={tmp_path}", *words]
    env = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    run = subprocess.run(
        [sys.executable, "-m", "keras_acclip.garden.train", *line],
        env=env | ({"TF_CPP_MIN_LOG_LEVEL": level} if level else {}),
        capture_output=True,
        text=True,
    )
    found = run.stderr.splitlines()
    assert run.returncode == 2
    assert found[-1] == "error: task.train_data.input_path: /nowhere/a: no such file"
    assert len(found) == 1 if lines == 1 else len(found) >= lines
