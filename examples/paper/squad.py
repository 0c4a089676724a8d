"""Fine-tunes the BERTs of `bert.py` to answer questions, ACClip beside Adam: the paper's Table 3.

    python examples/paper/squad.py
    python examples/paper/squad.py --tune --seeds 1
    python examples/paper/squad.py --scale study --tune
    python examples/paper/squad.py --scale paper --train train-v1.1.json --dev dev-v1.1.json \\
        --runtime gpu

The claim (Section 5.2): pretrained and fine-tuned with ACClip, BERT answers SQuAD v1.1's questions
better than with Adam, by exact match (EM) and F1, at each size.

Each optimizer fine-tunes what it has pretrained itself, seed by seed: the run of seed 1 starts from
the pretraining of seed 1. What `bert.py` has not yet pretrained under `--pretraining` is pretrained
first, at the same scale. Every run is a training of `keras_acclip.garden`, `acclip/bert_squad`,
scored by SQuAD's official script; "Adam" is `adamw.yaml`. By default the questions are made out of
the text that the models were pretrained on, about held-out documents for the score; `--train` and
`--dev` take SQuAD's files. `--commands` makes the data and prints the fine-tunings' command lines.

Stopped by whatever means and started again with the same `--output`, each run goes on after its
last checkpoint, with the result that it would have had.

The default rates are the best F1 of `--tune --seeds 1 --rates adamw=5e-4`, five twice apart, and of
one more for Adam. What came out stands in docs/results/squad.md. `--scale small` takes minutes: it
shows the machinery, not the claim.

`--scale study` fine-tunes what `bert.py --scale study` pretrained, over 5.2 million tokens, 4,096 a
step. There, `--tune` goes on after the rates with beta_1, beta_2 and the rates next to the best, as
far for AdamW as for ACClip, all on seed 0, and prints the options to compare with, on seeds from 1
on. `--pretraining-options` takes those that `bert.py` printed. The betas of that scale are starting
points, of the pretraining of other small models, its rates and the part of the warm-up are small's;
none of them is tuned at that scale. It was not run.
"""

import shlex
import sys
from itertools import cycle
from pathlib import Path

from lab import plans, script
from lab.garden import flags, pretraining

from keras_acclip._utils.commands import to_path

SCALES = {
    "small": {
        "steps": 300,
        "warmup": 30,
        "reports": 2,
        "batch_size": 8,
        "sequence_length": 128,
        "questions": 4000,
        "seeds": 3,
    },
    "smoke": {
        "steps": 4,
        "warmup": 1,
        "reports": 2,
        "batch_size": 4,
        "sequence_length": 128,
        "questions": 40,
        "seeds": 1,
    },
    "study": {
        "steps": 1280,
        "warmup": 128,
        "reports": 10,
        "batch_size": 32,
        "sequence_length": 128,
        "questions": 8000,
        "seeds": 5,
    },
    "paper": {
        "steps": 8310,
        "warmup": 831,
        "reports": 2,
        "batch_size": 32,
        "sequence_length": 384,
        "questions": 10_000,
        "seeds": 5,
    },
}
RATES = {
    "small": {"adamw": 2e-3, "acclip": 5e-4},
    "paper": {"adamw": 5e-5, "acclip": 5e-5},
}
RATES["smoke"] = RATES["study"] = RATES["small"]
# β₁ and β₂; at the other scales they are those of the optimizers' files.
BETAS = {"study": {"adamw": (0.7, 0.95), "acclip": (0.7, 0.95)}}
GRID = (1 / 4, 1 / 2, 1, 2, 4)  # Times the rate above, for --tune.
MEASURES = {"f1": ("final_f1", 100), "em": ("exact_match", 100)}
LABELS = {"f1": "F1 (%)", "em": "EM (%)"}
COLUMNS = {
    "train loss": ("loss", 3),
    "EM (%)": ("em", 2),
    "F1 (%)": ("f1", 2),
    "seconds": ("seconds", 1),
}


# --- Options ---------------------------------------------------------------------------------


def parse_arguments(arguments=None):
    """The command line, checked."""
    parser = script.parser(__doc__, SCALES, "out/squad")
    add = parser.add_argument
    help = "bert.py's --output; default: %(default)s"
    add("--pretraining", type=to_path, default=Path("out/bert"), metavar="DIR", help=help)
    help = "more of bert.py's options, in one word"
    add("--pretraining-options", default="", metavar="OPTIONS", help=help)
    add(
        "--train",
        type=to_path,
        metavar="FILE",
        help="SQuAD v1.1 JSON; default: made out of the text",
    )
    add("--dev", type=to_path, metavar="FILE", help="the same, to evaluate on")
    pretraining.add_options(parser)
    flags.add_options(parser)
    plans.add_arguments(parser, RATES["small"], list(RATES["small"]), GRID)
    options = script.parse(parser, SCALES, arguments)
    flags.check(parser, options)
    options.layers = options.layers or pretraining.LAYERS[options.scale].split(",")
    if bool(options.train) != bool(options.dev):
        parser.error("--train and --dev go together")
    if options.scale == "paper" and not options.train:
        parser.error("--scale paper needs --train and --dev, SQuAD v1.1's files")
    return options


def pretraining_arguments(options):
    """The arguments of the `bert.py` that pretrains what is to be fine-tuned."""
    arguments = [
        *("--scale", options.scale, "--output", options.pretraining, "--cache", options.cache),
        *("--optimizers", ",".join(options.optimizers), "--seeds", options.seeds),
        *("--layers", ",".join(options.layers), "--runtime", options.runtime),
        *(("--jobs", options.jobs) if options.jobs else ()),
        *(("--text", *options.text) if options.text else ()),
        *shlex.split(options.pretraining_options),
    ]
    return [str(argument) for argument in arguments]


# --- Data and trainings ----------------------------------------------------------------------


def make_data(options, pretrained):
    """Makes the question-answering data, where they are missing.

    Args:
        options: The command line's.
        pretrained: `bert.py`'s, for the text and the vocabulary.
    """
    from keras_acclip.garden.data import Windows, make_questions, make_squad_data

    train, dev = options.train, options.dev
    if not train:
        folder = options.output / "questions"
        text = pretraining.load_text(pretrained)
        make_questions(text, folder, options.questions, max(1, options.questions // 4))
        train, dev = folder / "train.json", folder / "dev.json"
    vocabulary = pretrained.output / "data" / "vocab.txt"
    windows = Windows(seq_length=options.sequence_length)
    make_squad_data(train, dev, vocabulary, options.output / "data", windows)


def trainings(layers, options, work, pretrained, pretrained_work):
    """The fine-tunings of one size; a seed is also that of the pretraining.

    Args:
        layers: A key of `flags.MODELS`.
        options: The command line's.
        work: The fine-tunings' `resuming.Work`.
        pretrained: `bert.py`'s options.
        pretrained_work: The pretrainings' `resuming.Work`.
    """
    from lab.garden.trainings import Trainings

    sources = pretraining.trainings(layers, pretrained, pretrained_work)
    # Scoring takes as long as dozens of steps; a study's curve is worth it.
    validations = options.reports if options.scale == plans.STUDY else 1

    def override(optimizer, seed):
        source = pretraining.start(optimizer, seed, pretrained)
        return flags.narrowed(pretrained.hidden) | {
            "trainer.validation_interval": options.steps // validations,
            "task.init_checkpoint": sources.folder(source),
        }

    return Trainings("bert_squad", layers, options, work, override, MEASURES)


# --- To read ---------------------------------------------------------------------------------


def plot_scores(runs_of, path, title):
    """Saves a panel for EM and one for F1: each seed's score, and mean and standard deviation.

    Args:
        runs_of: Dict from a number of layers to the runs, one learning rate for each optimizer.
        path: Where to save the figure.
        title: Its title.
    """
    from lab import figures

    optimizers = list(dict.fromkeys(r["optimizer"] for runs in runs_of.values() for r in runs))
    with figures.picture(path, title, 1, 2, figsize=(10, 4.2)) as panels:
        for panel, name in zip(panels, ("em", "f1"), strict=True):
            for column, (optimizer, marker) in enumerate(
                zip(optimizers, cycle(figures.MARKERS), strict=False)
            ):
                for place, runs in enumerate(runs_of.values()):
                    scores = [r["history"][-1][name] for r in runs if r["optimizer"] == optimizer]
                    x = place + 0.2 * (column - (len(optimizers) - 1) / 2)
                    label = None if place else optimizer
                    _draw_scores(panel, x, scores, marker, f"C{column}", label)
            panel.set(ylabel=LABELS[name], xlabel="layers", xlim=(-0.6, len(runs_of) - 0.4))
            panel.set_xticks(range(len(runs_of)), list(runs_of))
            panel.legend(title="mean ± sd; each seed")


def _draw_scores(panel, x, scores, marker, color, label):
    import numpy as np

    spread = np.std(scores, ddof=1) if len(scores) > 1 else 0.0
    style = {"fmt": marker, "capsize": 5, "color": color, "label": label}
    panel.errorbar(x, np.mean(scores), spread, **style)
    panel.plot([x + 0.05] * len(scores), scores, ".", color=color)


def report(options, layers, runs):
    """Prints what the runs of one size came to. Returns the best rates' runs, and it as a dict."""
    from lab import figures, reports

    print(f"\n{layers} layers:")
    runs, results = reports.report_asked_for(
        runs, options, "adamw", COLUMNS, measures=LABELS, highest=True
    )
    if options.scale == plans.STUDY:
        path = options.output / f"curves-{layers}-layers.png"
        title = f"Answers to questions, {layers} layers, {plans.seeds_in_words(options)}"
        figures.plot_curves(runs, path, title, {"em": ("EM", "%"), "f1": ("F1", "%")})
    return runs, results


# --- The command -----------------------------------------------------------------------------


def main(arguments=None):
    """Reads the command line, trains what it asks for and reports. Returns the exit status."""
    options = parse_arguments(arguments)
    pretrained = pretraining.parse_arguments(__doc__, pretraining_arguments(options))
    from lab import resuming, runs, search
    from lab.garden.trainings import conduct, print_commands

    options.jobs = runs.jobs(options, on_cpu=options.runtime == "cpu")
    settings = script.settings_of(options, SCALES, without=("seeds",)) | {
        "pretraining": str(options.pretraining),
        "train": options.train and str(options.train),
    }
    try:
        work = resuming.Work(options.output, settings)
        pretrained_work = pretraining.prepare(pretrained)
        make_data(options, pretrained)
    except ValueError as error:
        return script.failed(error)
    sizes = [
        trainings(layers, options, work, pretrained, pretrained_work) for layers in options.layers
    ]
    tables = RATES[options.scale], GRID, BETAS.get(options.scale)
    if options.commands:
        print_commands(sizes, plans.plan(options, *tables))
        return 0
    print("Pretraining")
    seeds = (plans.SEARCH_SEED,) if plans.searches_betas(options) else plans.seeds(options)
    status = pretraining.pretrain_seeds(pretrained, pretrained_work, seeds)
    if status:
        return status
    print("\nFine-tuning")
    runs_of, results = {}, {}

    def keep(layers, found):
        runs_of[layers], results[layers] = report(options, layers, found)

    def make(runs_of_plan):
        return search.runs_asked_for(options, *tables, runs_of_plan, "f1", highest=True)

    status = conduct(sizes, make, keep, "f1", "F1 (%)")
    if status:
        return status
    title = f"Answers to questions, {plans.seeds_in_words(options)}"
    plot_scores(runs_of, options.output / "scores.png", title)
    work.write_results({"layers": results}, ("tensorflow", "tf_keras", "tf-models-official"))
    print(f"\nWritten under {options.output}: results.json, scores.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
