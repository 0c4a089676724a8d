"""What a comparison's runs came to, printed and as results to keep."""

from keras_acclip import noise
from keras_acclip.noise import plots

from . import comparison, plans, tables

MEASURES = {"val_loss": "validation loss"}


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
    results, measures = {}, measures or MEASURES
    if tune:
        print(f"\nAll rates tried:\n{tables.table(runs, columns)}")
        results["tuning"] = comparison.summary(runs, columns)
        best = comparison.best_specs(runs, next(iter(measures)), highest)
        warn_of_edges(runs, best)
        runs = runs_of(best, runs)
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


def report_asked_for(runs, options, baseline="adam", columns=comparison.COLUMNS, **measured):
    """Prints what the runs that a command line asked for came to, a comparison or a study's search.

    Args:
        runs: `search.runs_asked_for`'s.
        options: The parsed command line.
        baseline: As `report` takes it, like the others.
        columns: The table's.
        **measured: `measures` and `highest`.

    Returns:
        The runs at each optimizer's best, and what was printed as a dict.
    """
    if not plans.searches_betas(options):
        return report(runs, options.tune, baseline, columns, **measured)
    return report_search(runs, columns, **measured)


def report_search(runs, columns=comparison.COLUMNS, measures=None, highest=False):
    """Prints what a search of rates and betas tried and chose, and the options to compare with.

    Args:
        runs: `search.search`'s.
        columns: The table's, as `comparison.COLUMNS`.
        measures: As `report` takes them; the first decides.
        highest: Whether the highest is the best, not the lowest.

    Returns:
        The runs at each optimizer's best, and what was printed as a dict.
    """
    best = comparison.best_specs(runs, next(iter(measures or MEASURES)), highest)
    runs = sorted(runs, key=lambda run: list(best).index(run["optimizer"]))
    print(f"\nAll that was tried, seed {plans.SEARCH_SEED}:\n{tables.table(runs, columns)}")
    edges = {"rate": warn_of_edges(runs, best)}
    for field in plans.BETAS:
        edges[field] = comparison.at_the_edge(runs, best, field)
        for name in edges[field]:
            print(f"{name}: the best {field} is the last of those tried")
    chosen, options = runs_of(best, runs), plans.as_options(best.values())
    print(f"\nThe best:\n{tables.table(chosen, columns)}\n\nTo compare them:\n{options}")
    found = {"tuning": comparison.summary(runs, columns), "at_the_edge": edges}
    found |= {"best": comparison.summary(chosen, columns), "options": options}
    return chosen, found | {"runs": chosen}


def runs_of(specs, runs):
    """Those of the runs that are of one of some optimizers' specs, a dict as `best_specs`'s."""
    return [run for run in runs if plans.spec_of(run)._replace(seed=None) in specs.values()]


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
