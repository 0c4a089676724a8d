"""A threshold that moves needs no tuning: beside the best fixed one, and beside no clipping.

    python examples/paper/moving_thresholds.py
    python examples/paper/moving_thresholds.py --scale paper --output out/moving_thresholds_paper

The claim (Section 4.2): a threshold that follows the moment of the gradient clips well without
being told how large the gradient is. Here for the norm of all variables together, with
`keras_acclip.Clip` and the three thresholds that move, at their defaults: MovingMoment (the paper's
estimator), MovingQuantile (AutoClip's) and ZScore (ZClip's).

- Linear regression by SGD in 20 dimensions, batches of 8, targets with Student's t noise of 1.2 and
  1.5 degrees of freedom, which has no variance. The error is the logarithm of the final distance
  from the truth over the first.
- A small Transformer on characters of Python's own help, by AdamW, into whose batches outliers are
  planted: in one of a hundred, all labels are one wrong character. The error is the held-out loss.

The rate falls linearly to 0. The first rate, and the fixed threshold, are tuned on seeds that are
then left out: from a start, by factors of 2, until no neighbour is better. The fixed threshold is
tuned jointly with its rate. So are, in a second entry each, the multiple of MovingMoment and the
odds of MovingQuantile's quantile, which have no unit. Moving thresholds are trained again with the
loss times 1e-3 and 1e3 (SGD's rate divided by it), which should change nothing.

What came out stands in docs/results/moving_thresholds.md.
"""

import sys

from lab.theory import command

SCALES = {
    "small": {"steps": 2000, "seeds": 32, "character_steps": 200, "character_seeds": 8},
    "smoke": {"steps": 50, "seeds": 3, "character_steps": 4, "character_seeds": 2},
    "paper": {"steps": 20_000, "seeds": 100, "character_steps": 2000, "character_seeds": 16},
}
FREEDOMS = (1.2, 1.5)


def report(work, options):
    """Computes what is missing, prints and saves it."""
    import functools

    from lab.clipping.characters import Characters
    from lab.clipping.contest import contest
    from lab.clipping.regression import Regression
    from lab.clipping.report import draw, records, rows
    from lab.tables import markdown

    results = {}
    for freedom in FREEDOMS:
        name = f"regression, t({freedom})"
        print(name, flush=True)
        make = functools.partial(Regression, freedom, options.steps)
        tuning, seeds = range(1000, 1000 + options.seeds // 2 + 1), range(options.seeds)
        results[name] = work.part(f"t-{freedom}", contest, make, 0.0125, tuning, seeds)
    print("Transformer", flush=True)
    make = functools.partial(Characters, options.character_steps)
    seeds = range(options.character_seeds)
    results["Transformer"] = work.part("transformer", contest, make, 4e-3, (1000, 1001), seeds)
    found = records(results)
    print(markdown(rows(found)))
    draw(results, options.output / "errors.png")
    work.write_results({"rows": found, "problems": results}, ("tensorflow", "keras", "numpy"))
    print(f"\nWritten under {options.output}: results.json, errors.png")


def main(arguments=None):
    """Runs the command line; returns the exit status."""
    return command.run(__doc__, SCALES, "out/moving_thresholds", report, arguments)


if __name__ == "__main__":
    sys.exit(main())
