"""Takes ACClip apart: what each of its parts contributes, and how much its learning rate matters.

    python examples/paper/ablation.py
    python examples/paper/ablation.py --tune
    python examples/paper/ablation.py --variants acclip,global-moving,adam --seeds 8
    python examples/paper/ablation.py --scale study --tune --variants acclip,adam

Of Sections 4 and 5.1 of the paper. A variant differs from ACClip in one part: global or coordinate
clip, fixed or moving threshold, α, β₂, ε, `step_size`; batches of a quarter and of four times the
rows, each beside Adam's at that size (with as many steps, so not as many tokens). Each tries three
rates, twice apart, on seed 0; its best is compared on seeds that chose none, from 1 on, by paired
differences with 95% intervals. Last comes the loss against the rate over two decades,
ACClip's and Adam's. With one seed, all start from the same weights and see the same rows. The fixed
thresholds (0.5, 1e-3) and the warm-up (40% of the steps) are not tuned. Under `--output`:
`ablation.png`, `robustness.png`, `results.json`. Started again, it goes on after the last run done.

The model is a GPT-2 that predicts the next token: the masked-LM BERT of `bert_pretraining.py`
stayed near the frequencies of the tokens for as many steps as fit here. The middles of the rates
are the best of `--tune`, five √10 apart, on seed 0; with them no variant's best rate is at its
grid's edge. `--scale small` takes minutes: it shows the machinery, not the claim.

`--scale study` has 5.2 million tokens, 4,096 a step. There, `--tune` goes on after the rates with
beta_1, beta_2 and the rates next to the best, as far for Adam as for ACClip, and prints the options
to compare with. What differs from ACClip in one part has its beta_1, as momentum with the fixed
thresholds, and its beta_2, but for those that vary that. The rates and betas of ACClip, Adam and
SGD there are its best, and the rates of the global clips; the other variants' rates go with
ACClip's and are not tuned. `--scale paper` was not run. What came out stands in
docs/results/ablation.md.
"""

import argparse
import functools
import math
import sys

from lab import options as shared
from lab import plans, script
from lab.ablation.variants import VARIANTS, WITHOUT_BETA_2, start
from lab.plans import SEARCH_SEED

SCALES = {
    "small": {
        "steps": 400,
        "warmup": 160,
        "batch_size": 8,
        "sequence_length": 32,
        "layers": 1,
        "hidden": 32,
        "vocabulary_size": 512,
        "validation_rows": 256,
        "reports": 1,
        "seeds": 3,
        "curve_seeds": 2,
    },
    "smoke": {
        "steps": 6,
        "warmup": 2,
        "batch_size": 8,
        "sequence_length": 16,
        "layers": 1,
        "hidden": 32,
        "vocabulary_size": 512,
        "validation_rows": 16,
        "reports": 1,
        "seeds": 2,
        "curve_seeds": 2,
    },
    "study": {
        "steps": 1280,
        "warmup": 512,
        "batch_size": 32,
        "sequence_length": 128,
        "layers": 1,
        "hidden": 32,
        "vocabulary_size": 512,
        "validation_rows": 256,
        "reports": 16,
        "seeds": 5,
        "curve_seeds": 2,
    },
    # Length, layers, batch, width (to a multiple of 32) and vocabulary of transformer_xl.py's.
    "paper": {
        "steps": 20_000,
        "warmup": 2_000,
        "batch_size": 60,
        "sequence_length": 128,
        "layers": 6,
        "hidden": 384,
        "vocabulary_size": 10_000,
        "validation_rows": 4096,
        "reports": 1,
        "seeds": 3,
        "curve_seeds": 2,
    },
}
HEAD = 32  # Coordinates of an attention head.
GRID = (1 / 2, 1, 2)  # Times a variant's middle rate.
COARSE_GRID = (1 / 10, 1 / 10**0.5, 1, 10**0.5, 10)  # For --tune.
CURVE_GRID = tuple(10 ** (k / 4) for k in range(-4, 5))  # Two decades.
CURVES = ("acclip", "adam")
COLUMNS = {
    "train loss": ("loss", 3),
    "validation loss": ("val_loss", 3),
    "ms a step": ("ms_per_step", 1),
}


def parse_arguments(arguments=None):
    """The command line, checked."""
    parser = script.parser(__doc__, SCALES, "out/ablation")
    shared.add_text(parser)
    add = parser.add_argument
    names = list(VARIANTS)
    add("--variants", type=script.names(VARIANTS), default=names, help=", ".join(names))
    add("--rates", type=script.rates(VARIANTS), default={}, help="middles: acclip=3e-3,adam=2e-3")
    plans.add_betas(parser, VARIANTS, WITHOUT_BETA_2)
    help = "only look for the middles, five rates √10 apart; with --scale study for betas, too"
    add("--tune", action="store_true", help=help)
    add(
        "--curves",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="loss against rate over two decades (the default)",
    )
    options = script.parse(parser, SCALES, arguments)
    shared.check_text(parser, options)
    shared.check_schedule(parser, options, "reports")
    shared.check_width(parser, options, HEAD)
    if options.batch_size % 4:
        parser.error(
            f"--batch-size {options.batch_size} must be a multiple of 4: a quarter of it is tried"
        )
    return options


# --- Which runs ------------------------------------------------------------------------------


def search_plan(options, grid):
    """The runs that choose each variant's rate."""
    return [
        spec._replace(rate=rate)
        for spec in (start(variant, SEARCH_SEED, options) for variant in options.variants)
        for rate in plans.rates_around(spec.rate, grid)
    ]


def comparison_plan(options, best):
    """The runs to compare, each variant at its best, on seeds that chose none."""
    seeds = range(SEARCH_SEED + 1, SEARCH_SEED + 1 + options.seeds)
    return [best[variant]._replace(seed=seed) for variant in options.variants for seed in seeds]


def curve_plan(options):
    """The runs of the robustness curves."""
    seeds = range(SEARCH_SEED + 1, SEARCH_SEED + 1 + options.curve_seeds)
    starts = [start(variant, None, options) for variant in CURVES if variant in options.variants]
    return [
        spec._replace(rate=rate, seed=seed)
        for spec in starts
        for rate in plans.rates_around(spec.rate, CURVE_GRID)
        for seed in seeds
    ]


# --- To read ---------------------------------------------------------------------------------


def report_search(runs):
    """Prints all rates tried. Returns each variant's best spec, and what was printed."""
    from lab import comparison, reports, tables

    print(f"\nAll rates tried, seed {SEARCH_SEED}:\n{tables.table(runs, COLUMNS)}")
    best = comparison.best_specs(runs)
    edges = reports.warn_of_edges(runs, best)
    return best, {"search": comparison.summary(runs, COLUMNS), "at_the_edge": edges}


def report_comparison(runs, options, title):
    """Prints and draws the parts, and the losses on the way. Returns what was printed."""
    from lab import comparison, figures, tables
    from lab.ablation import outcome, pictures

    found = outcome.differences(runs)
    print(f"\n{tables.table(runs, COLUMNS)}")
    for heading, rows in found.items():
        print(f"\n{heading}\n{tables.sentences(rows)}")
    if found:
        pictures.draw_parts(found, options.output / "ablation.png", title)
    if options.reports > 1:
        label = "cross-entropy (nats a token)"
        figures.plot_losses(runs, options.output / "loss.png", title, label)
    return {"summary": comparison.summary(runs, COLUMNS), "differences": found}


def report_curves(runs, options, title):
    """Prints and draws the robustness curves. Returns what was printed."""
    from lab import comparison, tables
    from lab.ablation import outcome, pictures

    found = outcome.robustness(runs)
    print(f"\nLoss against rate:\n{tables.table(runs, COLUMNS)}\n")
    for row in found["widths"]:
        least = "" if row["bounded"] else "at least "
        print(
            f"{row['optimizer']}, seed {row['seed']}: within {outcome.MARGIN:g} nats of its best "
            f"({row['best']:.3f}) over {least}{row['width']:.2f} decades of rates"
        )
    print(tables.sentences(found["differences"], "decades"))
    ceiling = math.log(options.vocabulary_size)  # What it costs to know nothing.
    pictures.draw_curves(runs, options.output / "robustness.png", title, ceiling)
    return {"curves": comparison.summary(runs, COLUMNS), "robustness": found}


# --- The command -----------------------------------------------------------------------------


def conduct(options, runs_of):
    """Trains what the command line asks for and reports. Returns the results.

    Args:
        options: The parsed command line.
        runs_of: Function from a plan to its runs.
    """
    if plans.searches_betas(options):
        return search_betas(options, runs_of)
    grid = COARSE_GRID if options.tune else GRID
    best, results = report_search(runs_of(search_plan(options, grid)))
    if options.tune:
        return results
    model = f"{options.layers}-layer GPT-2, {options.steps} steps of {options.batch_size} × "
    model += f"{options.sequence_length} tokens"
    runs = runs_of(comparison_plan(options, best))
    results |= report_comparison(
        runs, options, f"ACClip's parts: {model}, seeds 1 to {options.seeds}"
    )
    plan = curve_plan(options) if options.curves else []
    if plan:
        seeds = f"seeds 1 to {options.curve_seeds}"
        results |= report_curves(runs_of(plan), options, f"{model}, {seeds}")
    return results | {"runs": runs}


def search_betas(options, runs_of):
    """Searches for the variants' rates and betas, and reports. Returns the results."""
    from lab import reports, search

    starts = [start(variant, SEARCH_SEED, options) for variant in options.variants]
    _, results = reports.report_search(search.search(starts, COARSE_GRID, runs_of), COLUMNS)
    return results


def main(arguments=None):
    """Reads the command line, trains what it asks for and reports. Returns the exit status."""
    options = parse_arguments(arguments)
    from lab import comparison, resuming, token_rows
    from lab.ablation import task as tasks

    # Reports change nothing of a run's end.
    settings = script.settings_of(options, SCALES, without=("seeds", "curve_seeds", "reports"))
    try:
        rows = token_rows.load(options)
        work = resuming.Work(options.output, settings | {"text": rows.source})
    except ValueError as error:
        return script.failed(error)
    print(rows)
    task = functools.cache(lambda: tasks.Task(rows, settings | {"reports": options.reports}))

    @functools.cache
    def stepper_of(rule):
        return tasks.Stepper(rule, len(task().start(SEARCH_SEED)))

    def run(spec):
        return tasks.train(spec, task(), stepper_of)

    def runs_of(plan):
        runs = []
        for number, spec in enumerate(plan, 1):
            name = plans.name_of(spec)
            runs.append(work.part(name, run, spec))
            loss = comparison.final(runs[-1])["val_loss"]
            print(f"[{number}/{len(plan)}] {name}: validation loss {loss:.4f}", flush=True)
        return runs

    try:
        results = conduct(options, runs_of)
    except KeyboardInterrupt:
        return script.stopped(options.output)
    work.write_results(results, ("keras", "keras-hub", "tensorflow"))
    print(f"\nWritten under {options.output}: results.json and the figures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
