"""Pretrains BERT of 6, 12 and 24 layers with four optimizers: the paper's Figure 3 (b, c), Table 2.

    python examples/paper/bert.py
    python examples/paper/bert.py --tune --seeds 1
    python examples/paper/bert.py --scale study --tune
    python examples/paper/bert.py --scale paper --text 'wikipedia/*.txt.gz' --runtime tpu --commands

The claim (Section 5.2): ACClip pretrains BERT to a lower validation loss and a higher accuracy of
the masked words than Adam, at each size; SGD with momentum, clipped by its global norm or not, is
behind both.

Every run is a training of `keras_acclip.garden`: the Model Garden's BERT with masked-LM and
next-sentence head, `acclip/bert_pretraining`, by the shipped config files of model, optimizer and
machine. "Adam" is `adamw.yaml`, as BERT was trained (Devlin et al., 2019). With one seed, every
optimizer gets the same initial weights, the same examples in the same order, and the same linear
warm-up and decay. `--scale paper` takes the files as they are; the other scales have as many layers
but narrower ones, shorter examples and fewer of them, and no dropout. `--commands` makes the data
and prints the command line of each training, to be run on machines of your own; where their folders
are in their places, the script takes them as done and compares.

Stopped by whatever means and started again with the same `--output`, each run goes on after its
last checkpoint, with the result that it would have had.

The default rates are the best of `--tune --seeds 1`, five twice apart. Warm-up and GClip's
threshold (0.5) were not tuned. What came out stands in docs/results/bert.md. `--scale small` takes
minutes: it shows the machinery, not the claim.

`--scale study` has 5.2 million tokens, 4,096 a step. There, `--tune` goes on after the rates with
beta_1 (or the momentum), beta_2 and the rates next to the best, as far for AdamW as for ACClip, all
on seed 0, and prints the options to compare with, on seeds from 1 on. The rates, betas and warm-up
of that scale are starting points, of other small attention models, and not yet tuned at that scale.
It was not run.
"""

import sys

from lab import plans, script
from lab.garden import pretraining

LABELS = {"val_loss": "validation loss", "val_accuracy": "masked-LM accuracy"}
COLUMNS = {
    "train loss": ("loss", 3),
    "validation loss": ("val_loss", 3),
    "masked-LM accuracy": ("val_accuracy", 4),
    "tokens/s": ("tokens_per_second", 0),
    "seconds": ("seconds", 1),
}


def picture_of(layers, options):
    """Where the picture of the model with so many layers is saved."""
    return options.output / f"loss-{layers}-layers.png"


def report(options, layers, runs):
    """Prints what the runs of one size came to, and draws it. Returns it as a dict."""
    from lab import figures, reports

    print(f"\n{layers} layers:")
    runs, results = reports.report_asked_for(runs, options, "adamw", COLUMNS, measures=LABELS)
    width = f"{options.hidden} wide, " if options.hidden else ""
    title = (
        f"BERT, {layers} layers, {width}{options.steps:,} steps of {options.batch_size} × "
        f"{options.sequence_length} tokens, {plans.seeds_in_words(options)}"
    )
    curves = {
        "val_loss": ("Validation loss", "masked LM + next sentence (nats)"),
        "val_accuracy": ("Masked-LM accuracy", "part of the masked words"),
    }
    figures.plot_curves(runs, picture_of(layers, options), title, curves)
    return results


def main(arguments=None):
    """Reads the command line, trains what it asks for and reports. Returns the exit status."""
    options = pretraining.parse_arguments(__doc__, arguments)
    results = {}

    def keep(layers, runs):
        results[layers] = report(options, layers, runs)

    try:
        work = pretraining.prepare(options)
    except ValueError as error:
        return script.failed(error)
    status = pretraining.pretrain(options, work, keep)
    if status or options.commands:
        return status
    work.write_results({"layers": results}, ("tensorflow", "tf_keras", "tf-models-official"))
    pictures = ", ".join(picture_of(layers, options).name for layers in options.layers)
    print(f"\nWritten under {options.output}: results.json, {pictures}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
