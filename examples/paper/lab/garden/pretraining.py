"""BERT's pretraining in the Model Garden, which `bert.py` compares and `squad.py` starts from."""

from keras_acclip._utils.commands import positive

from .. import plans, script
from . import flags

SCALES = {
    "small": {
        "steps": 360,
        "warmup": 120,
        "reports": 3,
        "batch_size": 16,
        "sequence_length": 64,
        "vocabulary_size": 4096,
        "characters": 4_000_000,
        "validation_batches": 6,
        "seeds": 3,
    },
    "smoke": {
        "steps": 6,
        "warmup": 2,
        "reports": 2,
        "batch_size": 4,
        "sequence_length": 32,
        "vocabulary_size": 512,
        "characters": 50_000,
        "validation_batches": 1,
        "seeds": 1,
    },
    "study": {
        "steps": 1280,
        "warmup": 512,
        "reports": 16,
        "batch_size": 32,
        "sequence_length": 128,
        "vocabulary_size": 4096,
        "characters": 30_000_000,
        "validation_batches": 6,
        "seeds": 5,
    },
    "paper": {
        "steps": 900_000,
        "warmup": 10_000,
        "reports": 90,
        "batch_size": 256,
        "sequence_length": 128,
        "vocabulary_size": 30_522,
        "characters": 10**12,
        "validation_batches": 64,
        "seeds": 1,
    },
}
LAYERS = {"small": "6", "smoke": "2", "study": "6", "paper": "6,12,24"}
HIDDEN = {"small": 64, "smoke": 32, "study": 64, "paper": None}
RATES = {
    "small": {"adamw": 4e-3, "sgd": 0.1, "gclip": 0.5, "acclip": 2e-3},
    "study": {"adamw": 1e-2, "sgd": 0.1, "gclip": 0.5, "acclip": 5e-3},
    "paper": {"adamw": 1e-4, "sgd": 0.1, "gclip": 0.3, "acclip": 1e-4},
}
RATES["smoke"] = RATES["small"]
# β₁ (or the momentum) and β₂; at the other scales they are those of the optimizers' files.
BETAS = {
    "study": {
        "adamw": (0.7, 0.95),
        "sgd": (0.9, None),
        "gclip": (0.9, None),
        "acclip": (0.7, 0.95),
    },
}
GRID = (1 / 4, 1 / 2, 1, 2, 4)  # Times the rate above, for --tune.
MEASURES = {"val_loss": ("validation_loss", 1), "val_accuracy": ("masked_lm_accuracy", 1)}


# --- Options ---------------------------------------------------------------------------------


def add_options(parser):
    """Adds the options that name text and sizes to a command line of `script`."""
    add = parser.add_argument
    add("--text", nargs="+", metavar="FILE", help="plain or .gz, globs; default: docstrings")
    sizes = script.names(flags.MODELS)
    defaults = "; ".join(f"{scale} {layers}" for scale, layers in LAYERS.items())
    add("--layers", type=sizes, help=f"of {', '.join(flags.MODELS)}; default: {defaults}")


def parse_arguments(doc, arguments=None):
    """`bert.py`'s command line, checked.

    Args:
        doc: The script's docstring.
        arguments: The command line; `sys.argv`'s by default.
    """
    parser = script.parser(doc, SCALES, "out/bert")
    add_options(parser)
    help = "width of a layer; default: small, study 64; smoke 32; paper as the model's file has it"
    parser.add_argument("--hidden", type=positive, help=help)
    flags.add_options(parser)
    plans.add_arguments(parser, RATES["small"], list(RATES["small"]), GRID)
    options = script.parse(parser, SCALES, arguments)
    flags.check(parser, options)
    options.layers = options.layers or LAYERS[options.scale].split(",")
    options.hidden = options.hidden or HIDDEN[options.scale]
    if options.hidden and options.hidden % flags.HEAD:
        head = f"{flags.HEAD}, the size of a head"
        parser.error(f"--hidden {options.hidden} must be a multiple of {head}")
    return options


def start(optimizer, seed, options):
    """The spec of an optimizer's pretraining at the rate and betas that are asked for."""
    return plans.start(optimizer, seed, options, *_tables(options))


def _tables(options):
    return RATES[options.scale], BETAS.get(options.scale)


# --- Data and trainings ----------------------------------------------------------------------


def load_text(options):
    """The text that the command line asks for: docstrings, or files; `--characters` of it.

    Raises:
        corpus.TextError: If a file can't be used; the message names it.
    """
    from keras_acclip.garden.data import PACKAGES
    from keras_acclip.text import corpus

    if options.text:
        text = corpus.text_files(options.text)
    else:
        text = corpus.embedded_corpus(options.cache, PACKAGES)
    return corpus.excerpt(text, options.characters)


def make_data(text, options):
    """Makes the pretraining data, where they are missing."""
    from keras_acclip.garden.data import Recipe, make_pretraining_data

    make_pretraining_data(
        text,
        options.output / "data",
        vocab_size=options.vocabulary_size,
        recipe=Recipe(seq_length=options.sequence_length, dupe_factor=1),
    )


def prepare(options):
    """Makes the data, where they are missing. Returns the pretrainings' `resuming.Work`.

    Raises:
        ValueError: If the text can't be used, or the output holds runs of other settings.
    """
    from ..resuming import Work

    settings = script.settings_of(options, SCALES, without=("seeds",))
    text = load_text(options)
    settings |= {"hidden": options.hidden, "text": f"{text.name} ({text.fingerprint})"}
    work = Work(options.output, settings)
    make_data(text, options)
    return work


def trainings(layers, options, work):
    """The pretrainings of one size.

    Args:
        layers: A key of `flags.MODELS`.
        options: The command line's.
        work: What `prepare` returned.
    """
    from .trainings import Trainings

    override = flags.narrowed(options.hidden) | {
        "trainer.validation_interval": options.steps // options.reports,
        "trainer.validation_steps": options.validation_batches,
    }
    return Trainings(
        "bert_pretraining", layers, options, work, lambda optimizer, seed: override, MEASURES
    )


def pretrain(options, work, report):
    """Trains what is missing of each size's runs and reports on them. Returns the exit status.

    With `--commands` it prints the trainings' command lines instead.

    Args:
        options: The command line's.
        work: What `prepare` returned.
        report: Function of a number of layers and a list of runs.
    """
    from .. import search
    from .trainings import print_commands

    rates, betas = _tables(options)
    if options.commands:
        print_commands(_sizes(options, work), plans.plan(options, rates, GRID, betas))
        return 0

    def make(runs_of):
        return search.runs_asked_for(options, rates, GRID, betas, runs_of)

    return _conduct(options, work, make, report)


def pretrain_seeds(options, work, seeds):
    """Trains what is missing of each size's runs of some seeds. Returns the exit status."""
    plan = [start(optimizer, seed, options) for optimizer in options.optimizers for seed in seeds]
    return _conduct(options, work, lambda runs_of: runs_of(plan), lambda layers, runs: None)


def _conduct(options, work, make, report):
    from ..runs import jobs
    from .trainings import conduct

    options.jobs = jobs(options, on_cpu=options.runtime == "cpu")
    return conduct(_sizes(options, work), make, report, "val_loss", "validation loss")


def _sizes(options, work):
    return [trainings(layers, options, work) for layers in options.layers]
