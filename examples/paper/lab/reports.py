"""What a comparison's runs came to, printed and as results to keep."""

from keras_acclip import noise
from keras_acclip.noise import plots

from . import comparison, tables


def report(runs, tune, baseline="adam", columns=comparison.COLUMNS, measures=None, highest=False):
    """Prints what the runs came to: all rates tried, the best rates' table, paired differences.

    Args:
        runs: Runs of several optimizers and seeds, of several rates each where `tune` is true.
        tune: Whether to choose each optimizer's best rate first.
        baseline: The optimizer that the others are compared with.
        columns: The table's, as `comparison.COLUMNS`.
        measures: Dict from a name in the runs' history to what to call it; of each the paired
            differences are shown, and the first decides on the rate. Defaults to the validation
            loss.
        highest: Whether the rate with the highest mean is the best, not the lowest.

    Returns:
        The runs at each optimizer's best rate, and what was printed as a dict.
    """
    results, measures = {}, measures or {"val_loss": "validation loss"}
    if tune:
        print(f"\nAll rates tried:\n{tables.table(runs, columns)}")
        results["tuning"] = comparison.summary(runs, columns)
        best = comparison.best_rates(runs, next(iter(measures)), highest)
        warn_of_edges(runs, best)
        runs = [run for run in runs if run["learning_rate"] == best[run["optimizer"]]]
    print(f"\n{tables.table(runs, columns)}\n")
    results |= {"summary": comparison.summary(runs, columns), "differences": []}
    for measure, label in measures.items():
        differences = comparison.paired_difference(runs, baseline, measure=measure)
        print(tables.sentences(differences, label))
        results["differences"] += [{"measure": measure} | row for row in differences]
    return runs, results | {"runs": runs}


def warn_of_edges(runs, best):
    """Names the optimizers whose best rate is the last of those tried. Returns their names."""
    edges = comparison.at_the_edge(runs, best)
    for name in edges:
        print(f"{name}: the best rate is the grid's last; --rates moves its middle")
    return edges


def report_noise(folder, path, title, steps):
    """Draws the noise that was measured along a run; prints what it suggests.

    Args:
        folder: The run's folder, with the samples in the folder `noise`.
        path: Where to save the figure.
        title: Its title.
        steps: Steps of the training that the advice is for.

    Returns:
        Dict of the advice and each step's verdict, or `None` if there are no samples.
    """
    paths = sorted((folder / "noise").glob("*.npz"))
    if not paths:
        print("\nNo gradient noise: the run was finished before it was to be measured")
        return None
    samples = [noise.NoiseSample.load(path) for path in paths]
    figure = plots.evolution(samples, [f"step {sample.step:,}" for sample in samples], title)
    plots.save(figure, path)
    advice = samples[-1].advice(steps=steps).text
    print(f"\nGradient noise at step {samples[-1].step:,}:\n{advice}")
    verdicts = {sample.step: sample.classify().label for sample in samples}
    return {"advice": advice, "verdicts": verdicts}
