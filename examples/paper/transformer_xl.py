"""Trains a 6-layer Transformer-XL with five optimizers and compares them: the paper's Figure 3 (a).

    python examples/paper/transformer_xl.py
    python examples/paper/transformer_xl.py --tune
    python examples/paper/transformer_xl.py --scale study --tune
    python examples/paper/transformer_xl.py --scale paper --ptb DIR

The claim (Section 5, Figure 3 (a)): clipping helps SGD with momentum on an attention model, and
adaptive methods, Adam and ACClip, are ahead of clipping with one fixed threshold.

The model is the Model Garden's Transformer-XL (Dai et al., 2019): segments of 128 tokens, each of
which also attends to what the layers have remembered of the 128 tokens before it, in training as in
validation. Each row of a batch is a stretch of the text, read segment by segment; the memory goes
from one to the next and is empty at the start of each pass over the text. With one seed, every
optimizer gets the same initial weights, the same segments and the same linear warm-up and decay.

By default the text is `keras_acclip.text.corpus`'s in word pieces, its documents in another order
for each pass and seed. `--ptb` takes the Penn Treebank's `ptb.train.txt` and `ptb.valid.txt`, word
by word. `--scale paper` has the paper's 6 layers and target length; width, heads, dropout and batch
size are those of Transformer-XL's base model, GClip's threshold that of its code. The paper states
no more; CClip's threshold, steps and warm-up are ours.

Stopped by whatever means and started again with the same `--output`, it goes on after the last
finished epoch, with the result that it would have had (with dropout: with other dropout).

The default rates are the best of `--tune --seeds 1 --no-jit`, five √10 apart, and of one more
between the best two; those of Adam and ACClip by the mean of two seeds, as ACClip nearly failed on
the second. Warm-up and the two thresholds were not tuned. What came out stands in
docs/results/transformer_xl.md. `--scale small` takes minutes: it shows the machinery, not the
claim.

`--scale study` has 5.2 million tokens, 4,096 a step. There, `--tune` goes on after the rates with
beta_1 (or the momentum), beta_2 and the rates next to the best, as far for Adam as for ACClip, all
on seed 0, and prints the options to compare with, on seeds from 1 on. The rates, betas and warm-up
of that scale are starting points, of other small attention models, and not yet tuned at that scale.
It was not run.
"""

import argparse
import functools
import sys

from lab import options as shared
from lab import plans, script

from keras_acclip._utils.commands import to_path

SCALES = {
    "small": {
        "steps": 240,
        "warmup": 80,
        "epochs": 6,
        "batch_size": 8,
        "target_length": 128,
        "memory_length": 128,
        "layers": 6,
        "hidden": 64,
        "heads": 2,
        "inner": 256,
        "dropout": 0.0,
        "vocabulary_size": 2048,
        "validation_segments": 16,
        "seeds": 2,
        "gclip_threshold": 0.25,
        "cclip_threshold": 1e-3,
    },
    "smoke": {
        "steps": 8,
        "warmup": 2,
        "epochs": 2,
        "batch_size": 4,
        "target_length": 16,
        "memory_length": 16,
        "layers": 2,
        "hidden": 32,
        "heads": 2,
        "inner": 64,
        "dropout": 0.0,
        "vocabulary_size": 512,
        "validation_segments": 4,
        "seeds": 1,
        "gclip_threshold": 0.25,
        "cclip_threshold": 1e-3,
    },
    "study": {
        "steps": 1280,
        "warmup": 512,
        "epochs": 16,
        "batch_size": 32,
        "target_length": 128,
        "memory_length": 128,
        "layers": 6,
        "hidden": 64,
        "heads": 2,
        "inner": 256,
        "dropout": 0.0,
        "vocabulary_size": 2048,
        "validation_segments": 16,
        "seeds": 5,
        "gclip_threshold": 0.25,
        "cclip_threshold": 1e-3,
    },
    "paper": {
        "steps": 20_000,
        "warmup": 2_000,
        "epochs": 50,
        "batch_size": 60,
        "target_length": 128,
        "memory_length": 128,
        "layers": 6,
        "hidden": 410,
        "heads": 10,
        "inner": 2100,
        "dropout": 0.1,
        "vocabulary_size": 10_000,
        "validation_segments": 100,
        "seeds": 3,
        "gclip_threshold": 0.25,
        "cclip_threshold": 1e-3,
    },
}
RATES = {
    "small": {"sgd": 0.095, "gclip": 0.57, "cclip": 0.57, "adam": 1.7e-3, "acclip": 1.2e-3},
    "study": {"sgd": 0.095, "gclip": 0.57, "cclip": 0.57, "adam": 1e-2, "acclip": 5e-3},
}
RATES["smoke"] = RATES["paper"] = RATES["small"]
# β₁ (or the momentum) and β₂; at the other scales they are the optimizers' own.
BETAS = {
    "study": {
        "sgd": (0.9, None),
        "gclip": (0.9, None),
        "cclip": (0.9, None),
        "adam": (0.7, 0.95),
        "acclip": (0.7, 0.95),
    },
}
GRID = (1 / 10, 1 / 10**0.5, 1, 10**0.5, 10)  # Times the rate above, for --tune.
COLUMNS = {
    "train loss": ("loss", 3),
    "validation loss": ("val_loss", 3),
    "validation perplexity": ("val_perplexity", 1),
    "tokens/s": ("tokens_per_second", 0),
    "seconds": ("seconds", 1),
}


def parse_arguments(arguments=None):
    """The command line, checked."""
    parser = script.parser(__doc__, SCALES, "out/transformer_xl")
    parser.add_argument(
        "--ptb",
        type=to_path,
        metavar="DIR",
        help="folder of ptb.train.txt and ptb.valid.txt; default: docstrings, in word pieces",
    )
    parser.add_argument(
        "--jit",
        action=argparse.BooleanOptionalAction,
        help="compile the step with XLA; default: where there is a GPU",
    )
    shared.add_jobs(parser)
    plans.add_arguments(parser, RATES["small"], list(RATES["small"]), GRID)
    options = script.parse(parser, SCALES, arguments)
    shared.check_schedule(parser, options)
    if options.hidden % options.heads or options.hidden % 2:
        parser.error(
            f"--hidden {options.hidden} must be even and a multiple of --heads {options.heads}"
        )
    return options


def report(runs, options, work):
    """Prints and saves what came out."""
    from lab import figures, reports

    runs, results = reports.report_asked_for(runs, options, columns=COLUMNS)
    title = (
        f"{options.layers}-layer Transformer-XL, {options.steps} steps of {options.batch_size} × "
        f"{options.target_length} tokens, {plans.seeds_in_words(options)}"
    )
    curves = {
        "perplexity": ("Training", "perplexity"),
        "val_perplexity": ("Validation", ""),
    }
    path = options.output / "perplexity.png"
    figures.plot_curves(runs, path, title, curves, sharey=True, scale="log")
    work.write_results(results, ("tensorflow", "tf_keras", "tf-models-official"))
    print(f"\nWritten under {options.output}: results.json, perplexity.png")


def main(arguments=None):
    """Reads the command line, trains what it asks for and reports. Returns the exit status."""
    options = parse_arguments(arguments)
    from lab import resuming, runs, search
    from lab.transformer import text as texts

    settings = script.settings_of(options, SCALES, without=("seeds",))
    try:
        text = texts.load(options)
        settings |= {"text": text.name}
        work = resuming.Work(options.output, settings, state="state-{}.npz")
    except ValueError as error:
        return script.failed(error)
    print(text)
    from lab.transformer.training import train

    jit = runs.has_gpu() if options.jit is None else options.jit
    tables = RATES[options.scale], GRID, BETAS.get(options.scale)
    one = functools.partial(train, text=text, work=work, jit=jit)
    with runs.pool(runs.jobs(options)) as pool:

        def runs_of(plan):
            return runs.trained(plan, runs.start_missing(one, plan, work, options.epochs, pool))

        return runs.conclude(
            lambda: search.runs_asked_for(options, *tables, runs_of),
            options.output,
            lambda found: report(found, options, work),
        )


if __name__ == "__main__":
    sys.exit(main())
