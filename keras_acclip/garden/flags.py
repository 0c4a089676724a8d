"""The flags of `python -m keras_acclip.garden.train`, read and checked before TensorFlow loads.

They are read by absl, as the Model Garden reads them, into values of their own: the Model Garden
defines its flags where it is imported, which takes seconds.
"""

from __future__ import annotations

import difflib
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import yaml

# Imported for the flags that it defines.
from absl import app, flags  # noqa: F401

from keras_acclip.garden import input_paths
from keras_acclip.garden.configs import files

EXPERIMENTS = (
    "acclip/bert_pretraining",
    "acclip/bert_pretraining_text",
    "acclip/bert_sentence_prediction",
    "acclip/bert_squad",
    "acclip/resnet_imagenet",
)
MODES = (
    "train",
    "eval",
    "train_and_eval",
    "continuous_eval",
    "continuous_train_and_eval",
    "train_and_validate",
    "train_and_post_eval",
)
_SECTIONS = ("task", "trainer", "runtime")
_JOINED = ("params_override", "allow_changed")
_REQUIRED = ("experiment", "mode", "model_dir")
OPTIMIZERS = ("acclip", "gclip", "cclip", "clip", "adamw", "sgd", "lamb")
OVERRIDES = {
    "trainer.train_steps": "100000",
    "trainer.steps_per_loop": "100",
    "trainer.checkpoint_interval": "1000",
    "trainer.validation_interval": "1000",
    "trainer.optimizer_config.optimizer.type": "adamw",
    "trainer.optimizer_config.learning_rate.polynomial.initial_learning_rate": "0.0002",
    "trainer.optimizer_config.warmup.polynomial.warmup_steps": "1000",
    "task.train_data.global_batch_size": "64",
    "task.init_checkpoint": "runs/pretrained",
    "runtime.num_gpus": "4",
}
"""What `--params_override` is needed for most, each with an example."""
# Headings of the help, in its order; absl keeps them as the names of the defining modules.
_GARDEN, _OURS, _ABSL = "The Model Garden's flags", "This package's flags", "absl's flags"
LIBRARIES = "Flags of TensorFlow's libraries"
_HEADINGS = (_GARDEN, _OURS, LIBRARIES, _ABSL)
_HELP = ("help", "helpshort", "helpfull")


def read(argv: Sequence[str], description: str = "") -> flags.FlagValues:
    """Reads a command line, and ends the process where it asks for help or is mistaken.

    Args:
        argv: The command line, the program's name first.
        description: What `--help` shows above the flags.

    Returns:
        The flags' values. Those of `config_file` are paths: names of shipped files are looked up.

    Raises:
        SystemExit: With status 0 after `--help`; with status 2, and one line on stderr, after a
            mistake.

    Example:

    >>> values = read(["train", "--experiment=acclip/bert_squad", "--mode=eval", "--model_dir=x"])
    >>> values.mode, values.seed
    ('eval', 0)
    """
    values = define()
    try:
        words = values(list(argv))[1:]
        if any(values[name].value for name in _HELP):
            print(description, _lists(), *map(values.module_help, _HEADINGS), sep="\n")
            raise SystemExit(0)
        if values.helpxml:
            values.write_help_in_xml_format()
            raise SystemExit(0)
        if words:
            fail(f"{words[0]!r} is no flag: flags begin with --")
        _check(values)
    except (flags.Error, FileNotFoundError, ValueError) as error:
        fail(error)
    return values


def _lists() -> str:
    """What stands in the help beside the flags: the names that they take, and examples."""
    return "\n".join(
        [
            "Experiments (--experiment), and all of the Model Garden's:",
            *(f"  {name}" for name in EXPERIMENTS),
            "\nFiles of this package (--config_file):",
            *(f"  {name:<18}{files.describe(name)}" for name in files.shipped()),
            "\nOptimizers (trainer.optimizer_config.optimizer.type), and the Model Garden's:",
            f"  {', '.join(OPTIMIZERS)} (clip goes around another: clip.optimizer.type)",
            "\nThe parameters that people change most (--params_override):",
            *(f"  {name}={value}" for name, value in OVERRIDES.items()),
            "",
        ]
    )


def define() -> flags.FlagValues:
    """Defines the flags, with the Model Garden's names, kinds and defaults."""
    values = flags.FlagValues()
    _define_the_model_gardens(values)
    _define_ours(values)
    _define_the_libraries(values)
    for module in ("absl.app", "absl.logging"):
        for flag in flags.FLAGS.flags_by_module_dict()[module]:
            if not flag.name.startswith("help"):
                flags.DEFINE_flag(flag, values, _ABSL)
    flags.DEFINE_boolean("help", False, "Show this help.", values, _ABSL, short_name="?")
    flags.DEFINE_boolean("helpshort", False, "The same.", values, _ABSL)
    flags.DEFINE_boolean("helpfull", False, "The same.", values, _ABSL)
    flags.DEFINE_boolean("helpxml", False, "The same, as XML.", values, _ABSL)
    return values


def hand_on(values: flags.FlagValues) -> None:
    """Gives the flags that libraries have defined as they were imported what was read for them.

    Args:
        values: What `read` returned.
    """
    for flag in values.flags_by_module_dict()[LIBRARIES]:
        if flag.present and flag.name in flags.FLAGS:
            flags.FLAGS[flag.name].value = flag.value
    flags.FLAGS.mark_as_parsed()


def _define_the_model_gardens(values: flags.FlagValues) -> None:
    add = functools.partial(_string, values, _GARDEN)
    add_several = functools.partial(_strings, values, _GARDEN)
    experiments, shipped = ", ".join(EXPERIMENTS), ", ".join(files.shipped())
    add("experiment", f"The experiment, required: {experiments}, or another of the Model Garden's.")
    meaning = "What to do, required. train_and_validate is not in the open source version."
    flags.DEFINE_enum("mode", None, MODES, meaning, values, _GARDEN)
    add("model_dir", "Folder for checkpoints, summaries and metrics, required.")
    add_several(
        "config_file",
        "A YAML or JSON file with parameters of the experiment, by its path, or one of this "
        f"package by its name: {shipped}. Of several, later ones override.",
    )
    add(
        "params_override",
        "Parameters that override those of the files: name.of.one=value,name.of.another=value, "
        "YAML, JSON, or the path of a file.",
    )
    add_several("gin_file", "A file with Gin's bindings.")
    add_several("gin_params", "One of Gin's bindings.")
    add("tpu", "The TPU's name or its address, grpc://IP:8470.")
    add("tf_data_service", "Address of a tf.data service.")
    meaning = (
        "With continuous_train_and_eval: steps of the pretraining whose checkpoints are awaited."
    )
    _integer(values, _GARDEN, "pretrain_steps", None, meaning)
    meaning = (
        "Whether training goes on while a checkpoint is written; not on one device or on several "
        "workers."
    )
    flags.DEFINE_boolean("enable_async_checkpointing", True, meaning, values, _GARDEN)
    for name in ("tpu_platform", "tfhub_handle", "tflex_output_uri"):
        add(name, "Has no effect here.")


def _define_ours(values: flags.FlagValues) -> None:
    meaning = "Seed of initial weights, of dropout, and of the data's order if not configured."
    _integer(values, _OURS, "seed", 0, meaning, lower_bound=0, upper_bound=2**32 - 1)
    meaning = (
        "Steps between measurements of the gradient noise; a multiple of trainer.steps_per_loop. "
        "They go into MODEL_DIR/noise. Default: none."
    )
    _integer(values, _OURS, "noise_interval", None, meaning, lower_bound=1)
    meaning = "Most batches of a measurement of the gradient noise."
    _integer(values, _OURS, "noise_batches", 256, meaning, lower_bound=2)
    meaning = (
        "Whether an earlier run's checkpoints, summaries and metrics in model_dir are removed."
    )
    flags.DEFINE_boolean("fresh", False, meaning, values, _OURS)
    meaning = (
        "Parameters that may differ from those that the checkpoints in model_dir were trained "
        "with, with commas between them; a section such as task.train_data stands for all in it."
    )
    parser, serializer = flags.ListParser(), flags.CsvListSerializer(",")
    flags.DEFINE(parser, "allow_changed", None, meaning, values, serializer, _OURS)
    meaning = "Whether a mistake shows its traceback instead of one line."
    flags.DEFINE_boolean("debug", False, meaning, values, _OURS)


def _define_the_libraries(values: flags.FlagValues) -> None:
    _string(values, LIBRARIES, "tfhub_cache_dir", "Folder that TensorFlow Hub keeps modules in.")
    formats, meaning = ["COMPRESSED", "UNCOMPRESSED", "AUTO"], "How TensorFlow Hub reads modules."
    flags.DEFINE_enum("tfhub_model_load_format", "AUTO", formats, meaning, values, LIBRARIES)
    for name, default, meaning in (
        ("tfds_debug_list_dir", False, "Debugs TensorFlow Datasets' catalog."),
        ("runtime_oom_exit", True, "Whether to exit where the TPU runtime is out of memory."),
        ("hbm_oom_exit", True, "Whether to exit where the TPU's memory is used up."),
        ("tt_check_filter", False, "Of the tensor tracer: ends early to check its filter."),
        ("tt_single_core_summaries", False, "Of the tensor tracer: no aggregation over cores."),
        ("op_conversion_fallback_to_while_loop", True, "Has no effect."),
    ):
        flags.DEFINE_boolean(name, default, meaning, values, LIBRARIES)
    parser, serializer = flags.FloatParser(), flags.ArgumentSerializer()
    meaning = "Of the tensor tracer: difference from the history above which it logs."
    flags.DEFINE(parser, "delta_threshold", 0.5, meaning, values, serializer, LIBRARIES)


def _string(values: flags.FlagValues, heading: str, name: str, meaning: str) -> None:
    parser, serializer = flags.ArgumentParser(), flags.ArgumentSerializer()
    flags.DEFINE(parser, name, None, meaning, values, serializer, heading)


def _strings(values: flags.FlagValues, heading: str, name: str, meaning: str) -> None:
    parser, serializer = flags.ArgumentParser(), flags.ArgumentSerializer()
    flags.DEFINE_multi(parser, serializer, name, None, meaning, values, heading)


def _integer(
    values: flags.FlagValues,
    heading: str,
    name: str,
    default: int | None,
    meaning: str,
    lower_bound: int | None = None,
    upper_bound: int | None = None,
) -> None:
    parser, serializer = flags.IntegerParser(lower_bound, upper_bound), flags.ArgumentSerializer()
    flags.DEFINE(parser, name, default, meaning, values, serializer, heading)


def _check(values: flags.FlagValues) -> None:
    for name in _JOINED:
        times = values[name].present
        if times > 1:
            fail(f"--{name} is given {times} times; put commas between its values")
    missing = [f"--{name}" for name in _REQUIRED if not values[name].value]
    if missing:
        fail(f"required: {', '.join(missing)}")
    if values.experiment.startswith("acclip/") and values.experiment not in EXPERIMENTS:
        fail(no_such_experiment(values.experiment))
    values.config_file = [files.find(name) for name in values.config_file or []]
    for name in [*values.config_file, *_files_of_overrides(values.params_override or "")]:
        if "://" not in name and not Path(name).exists():
            other = " and no name=value" if name == values.params_override else ""
            fail(f"{name}: no such file{other}")
    for name in values.config_file:
        if "://" not in name:
            _check_file(name)
    if "://" not in values.model_dir and Path(values.model_dir).is_file():
        fail(f"{values.model_dir}: a file, not a folder")


def check_data(values: flags.FlagValues) -> None:
    """Ends the command where one of this package's BERT experiments gets no data.

    Args:
        values: What `read` returned.

    Raises:
        SystemExit: With status 2, after one line on stderr, if no file names the data, or the data
            that one names aren't there.
    """
    if values.experiment.startswith("acclip/bert"):
        fault = input_paths.missing(values.config_file, values.mode, values.params_override or "")
        if fault:
            fail(fault)


def _check_file(name: str) -> None:
    """Ends the command where a file doesn't hold an experiment's parameters."""
    try:
        content = yaml.safe_load(Path(name).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        fail(f"{name}: can't be read: {' '.join(str(error).split())}")
    if not isinstance(content, dict):
        fail(f"{name}: holds no parameters, such as trainer: {{train_steps: 1000}}")
    for section in content:
        if section not in _SECTIONS:
            fail(f"{name}: {section}: no such section; there are {', '.join(_SECTIONS)}")


def _files_of_overrides(text: str) -> list[str]:
    """What `params_override` names as a file, as the Model Garden understands it."""
    if "=" in text:
        return []
    try:
        return [text] if isinstance(yaml.safe_load(text), str) else []
    except yaml.YAMLError as error:
        fail(f"flag --params_override: {' '.join(str(error).split())}")


def no_such_experiment(name: str) -> str:
    """Says that there is no experiment of a name, and which there are.

    Args:
        name: What was asked for.
    """
    names = ", ".join(EXPERIMENTS)
    close = difflib.get_close_matches(name, EXPERIMENTS, 1)
    meant = f"; did you mean {close[0]}?" if close else "."
    return f"There is no experiment {name!r}{meant} There are: {names}, and the Model Garden's"


def fail(message: object) -> NoReturn:
    """Ends the command with one line on stderr and status 2.

    Args:
        message: What is wrong.
    """
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)
