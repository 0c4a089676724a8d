"""Fine-tunes the BERTs of `bert.py` to answer questions, ACClip beside Adam: the paper's Table 3.

    python examples/squad.py
    python examples/squad.py --tune --seeds 1
    python examples/squad.py --scale paper --train train-v1.1.json --dev dev-v1.1.json --runtime gpu

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

Where the default rates come from: `--tune --seeds 1 --rates adamw=5e-4`, five rates twice apart,
and for Adam, whose best was the grid's last, one more (4e-3: 10.2 and 0.5). F1, and EM in
brackets, in percent on seed 0, of 564 questions about held-out documents (TensorFlow 2.20):

    rate    1.3e-4      2.5e-4      5e-4         1e-3         2e-3
    adamw   6.2 (2.1)   7.1 (2.5)    9.3 (2.5)    9.1 (2.0)   10.2 (3.7)
    acclip  6.2 (2.0)   7.7 (2.5)   11.3 (2.0)   11.3 (2.8)    6.1 (0.2)

The first command, fine-tuning the 6-layer BERTs of `bert.py`, seeds 0 to 2, mean ± standard
deviation:

    adamw   EM 3.13 ± 1.02  F1 10.46 ± 0.71
    acclip  EM 2.07 ± 0.10  F1 11.69 ± 0.48
    ACClip less Adam, 95% interval: EM -3.74 to +1.62, F1 -1.36 to +3.81

So nothing is settled: ACClip was ahead in F1 on each seed and behind in EM on two of three. Models
as small and as briefly trained answer hardly any question; the choice of the questions alone gives
EM a standard error of 0.7.
"""

import shlex
import sys
from itertools import cycle
from pathlib import Path

import bert
import experiment
import garden_runs
import matplotlib.pyplot as plt
import numpy as np
import script

from keras_acclip.garden.data import Windows, make_questions, make_squad_data
from keras_acclip.noise import plots

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
RATES["smoke"] = RATES["small"]
GRID = (1 / 4, 1 / 2, 1, 2, 4)  # Times the rate above, for --tune.
MEASURES = {"f1": ("final_f1", 100), "em": ("exact_match", 100)}
LABELS = {"f1": "F1 (%)", "em": "EM (%)"}
COLUMNS = {
    "train loss": ("loss", 3),
    "EM (%)": ("em", 2),
    "F1 (%)": ("f1", 2),
    "seconds": ("seconds", 1),
}


def pretraining_arguments(options):
    """The arguments of the `bert.py` that pretrains what is to be fine-tuned."""
    arguments = [
        *("--scale", options.scale, "--output", options.pretraining, "--cache", options.cache),
        *("--optimizers", ",".join(options.optimizers), "--seeds", options.seeds),
        *("--layers", ",".join(options.layers), "--runtime", options.runtime),
        *("--jobs", options.jobs),
        *(("--text", *options.text) if options.text else ()),
        *shlex.split(options.pretraining_options),
    ]
    return [str(argument) for argument in arguments]


def make_data(options, pretraining):
    """The path of the question-answering data's `data.yaml`, made where it is missing.

    Args:
        options: The command line's.
        pretraining: `bert.py`'s, for the text and the vocabulary.
    """
    train, dev = options.train, options.dev
    if not train:
        folder = options.output / "questions"
        text = bert.load_text(pretraining)
        make_questions(text, folder, options.questions, max(1, options.questions // 4))
        train, dev = folder / "train.json", folder / "dev.json"
    vocabulary = pretraining.output / "data" / "vocab.txt"
    windows = Windows(seq_length=options.sequence_length)
    make_squad_data(train, dev, vocabulary, options.output / "data", windows)
    return options.output / "data" / "data.yaml"


def trainings(layers, options, pretraining):
    """The fine-tunings of one size; a seed is also that of the pretraining.

    Args:
        layers: A key of `garden_runs.MODELS`.
        options: The command line's.
        pretraining: `bert.py`'s.
    """
    pretrainings, rates = bert.trainings(layers, pretraining), bert.rates(pretraining)

    def override(optimizer, seed):
        return garden_runs.narrowed(pretraining.hidden) | {
            "trainer.validation_interval": options.steps,
            "task.init_checkpoint": pretrainings.folder(optimizer, rates[optimizer], seed),
        }

    return garden_runs.Trainings("bert_squad", layers, options, override, MEASURES)


def plot_scores(runs_of, path, title):
    """Saves a panel for EM and one for F1: each seed's score, and mean and standard deviation.

    Args:
        runs_of: Dict from a number of layers to the runs, one learning rate for each optimizer.
        path: Where to save the figure.
        title: Its title.
    """
    with plots.style():
        figure, panels = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
        for panel, name in zip(panels, ("em", "f1"), strict=True):
            optimizers = list(
                dict.fromkeys(r["optimizer"] for runs in runs_of.values() for r in runs)
            )
            for column, (optimizer, marker) in enumerate(
                zip(optimizers, cycle("os^D"), strict=False)
            ):
                for place, runs in enumerate(runs_of.values()):
                    scores = [r["history"][-1][name] for r in runs if r["optimizer"] == optimizer]
                    x = place + 0.2 * (column - (len(optimizers) - 1) / 2)
                    spread = np.std(scores, ddof=1) if len(scores) > 1 else 0.0
                    label = optimizer if not place else None
                    line = panel.errorbar(
                        x,
                        np.mean(scores),
                        spread,
                        fmt=marker,
                        capsize=5,
                        label=label,
                        color=f"C{column}",
                    )
                    panel.plot([x + 0.05] * len(scores), scores, ".", color=line[0].get_color())
            panel.set(ylabel=LABELS[name], xlabel="layers", xlim=(-0.6, len(runs_of) - 0.4))
            panel.set_xticks(range(len(runs_of)), list(runs_of))
            panel.legend(title="mean ± sd; each seed")
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
        plots.save(figure, path)
    plt.close(figure)


# --- The command -----------------------------------------------------------------------------


def parse_arguments(arguments=None):
    """The command line, checked."""
    parser = script.parser(__doc__, SCALES, "out/squad")
    add = parser.add_argument
    help = "bert.py's --output; default: %(default)s"
    add("--pretraining", type=Path, default=Path("out/bert"), metavar="DIR", help=help)
    help = "more of bert.py's options, in one word"
    add("--pretraining-options", default="", metavar="OPTIONS", help=help)
    add("--train", type=Path, metavar="FILE", help="SQuAD v1.1 JSON; default: made out of the text")
    add("--dev", type=Path, metavar="FILE", help="the same, to evaluate on")
    bert.add_options(parser)
    garden_runs.add_options(parser)
    experiment.add_arguments(parser, RATES["small"], list(RATES["small"]), GRID)
    options = script.parse(parser, SCALES, arguments)
    garden_runs.check(parser, options)
    options.layers = options.layers or bert.LAYERS[options.scale].split(",")
    if bool(options.train) != bool(options.dev):
        parser.error("--train and --dev go together")
    if options.scale == "paper" and not options.train:
        parser.error("--scale paper needs --train and --dev, SQuAD v1.1's files")
    return options


def report(options, layers, runs):
    """Prints what the runs of one size came to. Returns the best rates' runs, and it as a dict."""
    print(f"\n{layers} layers:")
    return experiment.report(runs, options.tune, "adamw", COLUMNS, LABELS, highest=True)


def main(arguments=None):
    """Reads the command line, trains what it asks for and reports. Returns the exit status."""
    options = parse_arguments(arguments)
    pretraining = bert.parse_arguments(pretraining_arguments(options))
    settings = {name: getattr(options, name) for name in SCALES["small"] if name != "seeds"}
    settings |= {
        "pretraining": str(options.pretraining),
        "train": options.train and str(options.train),
    }
    try:
        parts = script.Parts(options.output, settings)
        bert.prepare(pretraining)
        make_data(options, pretraining)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    sizes = [trainings(layers, options, pretraining) for layers in options.layers]
    plan = experiment.plan(options, RATES[options.scale], GRID)
    if options.commands:
        garden_runs.print_commands(sizes, plan)
        return 0
    print("Pretraining")
    status = bert.pretrain(pretraining, report=lambda layers, runs: None)
    if status:
        return status
    print("\nFine-tuning")
    runs_of, results = {}, {}

    def keep(layers, runs):
        runs_of[layers], results[layers] = report(options, layers, runs)

    status = garden_runs.conduct(sizes, plan, keep, "f1", "F1 (%)")
    if status:
        return status
    seeds = f"seeds 0 to {options.seeds - 1}"
    plot_scores(runs_of, options.output / "scores.png", f"Answers to questions, {seeds}")
    parts.finish({"layers": results}, ("tensorflow", "tf_keras", "tf-models-official"))
    print(f"\nWritten under {options.output}: results.json, scores.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
