"""Which runs to make: the optimizers, rates and seeds that a command line asks for.

A run is told by its *spec*: (optimizer, learning rate, seed).
"""

from . import script


def add_arguments(parser, rates, default, grid):
    """Adds `--optimizers`, `--rates` and `--tune` to a script's command line.

    Args:
        parser: `script.parser`'s.
        rates: Dict from each optimizer's name to its learning rate.
        default: Names of the optimizers to compare where none are given.
        grid: The factors that `--tune` multiplies a rate with.
    """
    add = parser.add_argument
    add("--optimizers", type=script.names(rates), default=default, help=", ".join(rates))
    add("--rates", type=script.rates(rates), default={}, help="e.g. acclip=3e-3,adam=2e-3")
    help = f"try {len(grid)} rates for each, {grid[1] / grid[0]:.3g} times apart"
    add("--tune", action="store_true", help=help)


def plan(options, rates, grid):
    """The specs that the command line asks for.

    Args:
        options: The parsed command line, of which `optimizers`, `rates`, `tune` and `seeds` count.
        rates: Dict from each optimizer's name to its learning rate.
        grid: The factors that `--tune` multiplies a rate with.
    """
    middle = rates | options.rates
    factors = grid if options.tune else (1,)
    return [
        (name, rate, seed)
        for name in options.optimizers
        for rate in rates_around(middle[name], factors)
        for seed in range(options.seeds)
    ]


def first_untuned(options, rates):
    """The spec of the first optimizer's run at its untuned rate with seed 0."""
    name = options.optimizers[0]
    return name, (rates | options.rates)[name], 0


def rates_around(middle, grid):
    """The rates of a grid around a middle, with two digits."""
    return [middle if factor == 1 else float(f"{middle * factor:.2g}") for factor in grid]


def name_of(spec):
    """The name of a run, for its folder and to read."""
    optimizer, rate, seed = spec
    return f"{optimizer}-{rate:.6g}-{seed}"


def run_of(spec, history):
    """A run as `comparison` takes it."""
    optimizer, rate, seed = spec
    return {"optimizer": optimizer, "learning_rate": rate, "seed": seed, "history": history}
