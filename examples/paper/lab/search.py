"""The search of a study: each optimizer's rate and betas, one after the other, as hard for all."""

from . import comparison, plans

# Tried for every optimizer that has them.
BETAS = {"beta_1": (0.7, 0.8, 0.9, 0.95), "beta_2": (0.9, 0.95, 0.99, 0.999)}


def runs_asked_for(options, rates, grid, betas, runs_of, measure="val_loss", highest=False):
    """Makes the runs that a command line asks for. Returns them.

    Args:
        options: As `plans.plan` takes them, and so the next three.
        rates: Dict from each optimizer's name to its learning rate.
        grid: The factors that `--tune` multiplies a rate with.
        betas: Dict from some names to the pair of betas.
        runs_of: Function from a plan to its runs.
        measure: What decides: a name in the runs' history.
        highest: Whether the highest is the best, not the lowest.
    """
    if not plans.searches_betas(options):
        return runs_of(plans.plan(options, rates, grid, betas))
    seed = plans.SEARCH_SEED
    starts = [plans.start(name, seed, options, rates, betas) for name in options.optimizers]
    return search(starts, grid, runs_of, measure, highest)


def search(starts, grid, runs_of, measure="val_loss", highest=False):
    """Tries rates, then β₁, then β₂, then the neighbours of the best rate at the best betas.

    In each round all optimizers try as many, each around the best that it has found so far; what
    was tried is not tried again. A beta that a start does not have is not searched for.

    Args:
        starts: List of specs, one for each optimizer: the middle of its rates, its first betas and
            the seed to choose on.
        grid: The factors that a middle is multiplied with, evenly spaced.
        runs_of: Function from a plan to its runs.
        measure: What decides: a name in the runs' history.
        highest: Whether the highest is the best, not the lowest.

    Returns:
        All runs, as a list.
    """
    first = {spec.optimizer: spec for spec in starts}
    rounds = {
        "rates": lambda best: with_rates(best, plans.rates_around(best.rate, grid)),
        "beta_1": lambda best: with_betas(best, "beta_1"),
        "beta_2": lambda best: with_betas(best, "beta_2"),
        "rates, once more": lambda best: with_rates(
            best, neighbours(best.rate, first[best.optimizer].rate, grid)
        ),
    }
    best, runs = first, []
    for heading, trials in rounds.items():
        tried = {plans.spec_of(run) for run in runs}
        plan = [trial for spec in best.values() for trial in trials(spec) if trial not in tried]
        print(f"\nSearching {heading}: {len(plan)} trainings", flush=True)
        runs += runs_of(plan)
        found = comparison.best_specs(runs, measure, highest)
        best = {name: found[name]._replace(seed=spec.seed) for name, spec in first.items()}
    return runs


def with_rates(spec, rates):
    """A spec at other rates."""
    return [spec._replace(rate=rate) for rate in rates]


def with_betas(spec, name):
    """A spec with each of a beta's values to try; none where it does not have that beta."""
    if getattr(spec, name) is None:
        return []
    return [spec._replace(**{name: value}) for value in BETAS[name]]


def neighbours(rate, middle, grid):
    """The rates next to one of a grid, which goes on at both ends."""
    step = grid[1] / grid[0]
    ladder = plans.rates_around(middle, (grid[0] / step, *grid, grid[-1] * step))
    place = ladder.index(rate)
    return [ladder[place - 1], ladder[place + 1]]
