"""The flags of `python -m keras_acclip.garden.train`, and the options that decide on them."""

import sys

from .. import options as shared
from .. import plans

MODELS = {"2": "bert_tiny", "6": "bert_base_6l", "12": "bert_base_12l", "24": "bert_large_24l"}
RUNTIMES = ("cpu", "gpu", "gpus", "multi_worker", "tpu")
HEAD = 32  # Coordinates of a narrowed model's attention head.
_MODULE = "keras_acclip.garden.train"


# --- Options of a script ---------------------------------------------------------------------


def add_options(parser):
    """Adds the options of the trainings' machine to a command line of `script`."""
    add = parser.add_argument
    add("--runtime", choices=RUNTIMES, default="cpu", help="the machine; default: %(default)s")
    shared.add_jobs(parser)
    add("--commands", action="store_true", help="print the trainings' commands, not train")


def check(parser, options):
    """Ends the command where an option can't be used."""
    shared.check_schedule(parser, options, "reports")
    if options.commands and plans.searches_betas(options):
        parser.error("--commands can't list a study's --tune: it goes by what came out before")
    if options.runtime != "cpu" and (options.jobs or 1) > 1:
        parser.error(f"--jobs {options.jobs} must be 1 with --runtime {options.runtime}")


# --- Parameters ------------------------------------------------------------------------------


def of_a_comparison(runtime):
    """Parameters of a short run that is to be compared, whatever comes of it."""
    # One that diverges goes on to its end; on a CPU compilation takes longer than it saves.
    xla = {"runtime.enable_xla": False} if runtime == "cpu" else {}
    return {"trainer.recovery_max_trials": -1} | xla


def narrowed(hidden):
    """Parameters of a model `hidden` wide instead of as its file has it; none if that is `None`.

    Without dropout: so small a model sees no row often enough to learn it by heart.
    """
    if hidden is None:
        return {}
    encoder = "task.model.encoder.bert"
    return {
        f"{encoder}.hidden_size": hidden,
        f"{encoder}.num_attention_heads": max(1, hidden // HEAD),
        f"{encoder}.intermediate_size": 4 * hidden,
        f"{encoder}.dropout_rate": 0.0,
        f"{encoder}.attention_dropout_rate": 0.0,
    }


def betas(spec):
    """Parameters of the betas that a spec gives; none where the optimizer's file decides."""
    optimizer = f"trainer.optimizer_config.optimizer.{spec.optimizer}"
    beta_1 = "momentum" if spec.optimizer in plans.MOMENTUM_ALONE else "beta_1"
    names = {"beta_1": beta_1, "beta_2": "beta_2"}
    return {f"{optimizer}.{names[name]}": value for name, value in spec.betas.items()}


def schedule(rate, steps, warmup, reports):
    """Parameters of a linear warm-up and decay, and of so many reports and checkpoints on the way.

    Args:
        rate: The schedule's peak.
        steps: Number of steps, of which the first `warmup` warm up.
        warmup: Number of steps.
        reports: Number of summaries.
    """
    interval = max(1, steps // reports)
    config = "trainer.optimizer_config"
    return {
        "trainer.train_steps": steps,
        "trainer.steps_per_loop": interval,
        "trainer.summary_interval": interval,
        "trainer.checkpoint_interval": interval,
        f"{config}.learning_rate.polynomial.initial_learning_rate": rate,
        f"{config}.learning_rate.polynomial.decay_steps": steps,
        f"{config}.warmup.polynomial.warmup_steps": warmup,
    }


# --- Flags -----------------------------------------------------------------------------------


def training_flags(experiment, files, model_dir, seed, override):
    """The flags of one training with evaluation.

    Args:
        experiment: `"bert_pretraining"` or `"bert_squad"`.
        files: Config files, by path or by the name of a shipped one; later ones override.
        model_dir: Where the run is kept.
        seed: Of weights, dropout and the order of the data.
        override: Dict from a parameter's name to its value.
    """
    values = ",".join(f"{name}={value}" for name, value in override.items())
    return [
        *(f"--experiment=acclip/{experiment}", "--mode=train_and_eval"),
        *(f"--config_file={file}" for file in files),
        *(f"--model_dir={model_dir}", f"--seed={seed}", f"--params_override={values}"),
    ]


def command(flags):
    """The command line of a training."""
    return [sys.executable, "-m", _MODULE, *flags]


def value(flags, name):
    """The value of the flag of that name."""
    return next(f for f in flags if f.startswith(f"--{name}=")).partition("=")[2]


def parameters(flags):
    """The `ExperimentConfig` that a training's flags make."""
    from official.core import train_utils

    from keras_acclip.garden import configs, experiments  # noqa: F401

    pairs = [flag.removeprefix("--").partition("=")[::2] for flag in flags]
    values = dict(pairs)
    files = [configs.find(value) for name, value in pairs if name == "config_file"]
    parse = train_utils.ParseConfigOptions(
        values["experiment"], files, params_override=values["params_override"]
    )
    return train_utils.parse_configuration(parse, print_return=False)
