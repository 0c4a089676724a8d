"""RMSProp is adaptive coordinate clipping: the paper's Discussion, checked on a training run.

    python examples/paper/rmsprop_as_clipping.py
    python examples/paper/rmsprop_as_clipping.py --text 'books/*.txt' --beta-2 0.999 --epsilon 1e-8

RMSProp, which is Adam without momentum, moves each coordinate by h_Adam·g:

    x ← x − h_Adam·g,    h_Adam = α / (ε + √(β2·v + (1−β2)·g²)),    v ← β2·v + (1−β2)·g².

Clipping each coordinate at a threshold of its own moves it by h_clip·g:

    h_clip = η·min(τ/|g|, 1),    τ = (ε + √(β2·v)) / √(1−β2),    η = α / (ε + √(β2·v)).

The claim: for every v, g, α, β2 and ε, ½·h_clip ≤ h_Adam ≤ 2·h_clip. (The paper prints 2α in η
where here stands α. With 2α the first half fails: h_Adam ≤ ½·h_clip, equal only where g = 0.)

It holds, and more: with a = √(β2·v) and b = √(1−β2)·|g|, h_clip is α / max(ε + a, b), and

    max(ε + a, b) ≤ ε + √(a² + b²) ≤ ε + a + b ≤ 2·max(ε + a, b),

so that h_Adam ≤ h_clip ≤ 2·h_Adam: clipping never takes the smaller step. The ratio reaches 2 only
where v = 0 and b = ε; with ε = 0 it is at most √2, where b = a, the border of being clipped.

The small BERT of `bert_pretraining.py` is trained with each of the two, from the same weights on
the same batches at the same rates. At several steps of both runs the ratio h_clip / h_Adam is taken
for every coordinate, in float64, with the v that the run has come to and the g of its next batch.
Under `--output`: `ratio.png` (the ratio and the share of clipped coordinates over training, the
ratio's histogram at the end, the losses) and `results.json`. Stopped and started again, it goes on
after the last stage measured.

What came out stands in docs/results/rmsprop_as_clipping.md.
"""

import sys

from lab import options as shared
from lab import plans, script

SCALES = {
    "small": {
        "steps": 600,
        "warmup": 300,
        "rate": 2e-3,
        "beta_2": 0.99,
        "epsilon": 1e-5,
        "batch_size": 16,
        "sequence_length": 64,
        "layers": 2,
        "hidden": 128,
        "vocabulary_size": 4096,
        "validation_rows": 256,
        "seeds": 2,
    },
    "smoke": {
        "steps": 12,
        "warmup": 5,
        "rate": 2e-3,
        "beta_2": 0.99,
        "epsilon": 1e-5,
        "batch_size": 8,
        "sequence_length": 32,
        "layers": 1,
        "hidden": 64,
        "vocabulary_size": 512,
        "validation_rows": 16,
        "seeds": 1,
    },
    # The paper states β2, ε and the rate; the rest is BERT's (base; Devlin et al., 2019).
    "paper": {
        "steps": 36_000,
        "warmup": 10_000,
        "rate": 1e-4,
        "beta_2": 0.99,
        "epsilon": 1e-5,
        "batch_size": 256,
        "sequence_length": 128,
        "layers": 12,
        "hidden": 768,
        "vocabulary_size": 30_522,
        "validation_rows": 4096,
        "seeds": 1,
    },
}


def parse_arguments(arguments=None):
    """The command line, checked."""
    parser = script.parser(__doc__, SCALES, "out/rmsprop_as_clipping")
    shared.add_text(parser)
    options = script.parse(parser, SCALES, arguments)
    shared.check_text(parser, options)
    shared.check_warmup(parser, options)
    shared.check_width(parser, options)
    if options.beta_2 >= 1:
        parser.error(f"--beta-2 {options.beta_2} must be below 1")
    return options


# --- To read ---------------------------------------------------------------------------------


def table(runs):
    """The stages of all runs as a Markdown table."""
    from lab.rmsprop.step_sizes import QUANTILES
    from lab.tables import markdown

    header = "step size of the run, seed, step, least ratio, median, 99%, 99.9%, largest, outside"
    rows = [[*header.split(", "), "clipped", "g = 0", "√(β2·v) < ε", "validation loss"]]
    for run in runs:
        for row in run["history"]:
            quantiles = dict(zip(QUANTILES, row["quantiles"], strict=True))
            cells = [run["optimizer"], str(run["seed"]), f"{row['step']:,}"]
            cells += [f"{quantiles[q]:.4f}" for q in (0, 0.5, 0.99, 0.999, 1)]
            cells.append(f"{row['outside']:,} of {row['coordinates']:,}")
            cells += [f"{row[name]:.3%}" for name in ("clipped", "still", "small")]
            rows.append([*cells, f"{row['val_loss']:.3f}"])
    return markdown(rows)


def report(runs, options, work):
    """Prints and saves what came out."""
    from lab import comparison, tables
    from lab.rmsprop.picture import draw
    from lab.rmsprop.step_sizes import BINS, GROUPS, QUANTILES

    differences = comparison.paired_difference(runs, "rmsprop")
    ends = [run["history"][-1]["clipped_by_group"] for run in runs]
    print(f"\n{table(runs)}\n")
    print("Clipped at the end, by part of the network (mean over runs): ", end="")
    shares = {group: sum(end[group] for end in ends) / len(ends) for group in GROUPS}
    print(", ".join(f"{group} {share:.3%}" for group, share in shares.items()))
    print(tables.sentences(differences))
    title = f"RMSProp and clipping, {options.layers}-layer BERT, β2 {options.beta_2:g}"
    drawn = [run for run in runs if run["seed"] == 0]
    draw(drawn, options.output / "ratio.png", f"{title}, ε {options.epsilon:g}")
    results = {"quantiles": QUANTILES, "bins": BINS.tolist(), "runs": runs}
    work.write_results(results | {"differences": differences}, ("keras", "keras-hub", "tensorflow"))
    print(f"\nWritten under {options.output}: results.json, ratio.png")


# --- The command -----------------------------------------------------------------------------


def main(arguments=None):
    """Reads the command line, trains and measures what it asks for. Returns the exit status."""
    options = parse_arguments(arguments)
    from lab import resuming, token_rows
    from lab.rmsprop.step_sizes import STEPS
    from lab.rmsprop.training import follow

    settings = script.settings_of(options, SCALES, without=("seeds",))
    try:
        rows = token_rows.load(options)
        work = resuming.Work(options.output, settings | {"text": rows.source})
    except ValueError as error:
        return script.failed(error)
    print(rows)
    verbose = 1 if sys.stdout.isatty() else 2
    specs = [
        plans.Spec(step, options.rate, seed) for step in STEPS for seed in range(options.seeds)
    ]
    try:
        found = [follow(spec, rows, work, verbose) for spec in specs]
    except KeyboardInterrupt:
        return script.stopped(options.output)
    report(found, options, work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
