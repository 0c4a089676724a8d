"""Which runs to make: the optimizers, rates, betas and seeds that a command line asks for.

A run is told by its `Spec`.
"""

from typing import NamedTuple

from . import script

# What these take as β₁ is their momentum; they have no β₂.
MOMENTUM_ALONE = ("sgd", "gclip", "cclip")
BETAS = ("beta_1", "beta_2")
STUDY = "study"  # The scale whose betas are tuned, on a seed that then compares nothing.
SEARCH_SEED = 0  # Of that tuning; the study compares on seeds from 1 on.


class Spec(NamedTuple):
    """What tells a run from the others of its script.

    Attributes:
        optimizer: Its name.
        rate: Its learning rate, the peak of a schedule.
        seed: The run's seed.
        beta_1: β₁ or the momentum; where it is `None`, the optimizer's own holds.
        beta_2: β₂, the same.
    """

    optimizer: str
    rate: float | None = None
    seed: int | None = None
    beta_1: float | None = None
    beta_2: float | None = None

    @property
    def betas(self):
        """Dict of the betas that are given, by name."""
        named = {name: getattr(self, name) for name in BETAS}
        return {name: value for name, value in named.items() if value is not None}

    @property
    def rule(self):
        """The optimizer and its betas alone: what the runs of all rates and seeds share."""
        return self._replace(rate=None, seed=None)

    def momentum(self, default=0.9):
        """β₁ as the momentum of an optimizer, the default where it is not given."""
        return default if self.beta_1 is None else self.beta_1


# --- Options ---------------------------------------------------------------------------------


def add_arguments(parser, rates, default, grid):
    """Adds `--optimizers`, `--rates`, `--beta-1`, `--beta-2` and `--tune` to a command line.

    Args:
        parser: `script.parser`'s.
        rates: Dict from each optimizer's name to its learning rate.
        default: Names of the optimizers to compare where none are given.
        grid: The factors that `--tune` multiplies a rate with.
    """
    add = parser.add_argument
    add("--optimizers", type=script.names(rates), default=default, help=", ".join(rates))
    add("--rates", type=script.rates(rates), default={}, help="e.g. acclip=3e-3,adam=2e-3")
    add_betas(parser, rates, [name for name in rates if name in MOMENTUM_ALONE])
    help = f"try {len(grid)} rates for each, {grid[1] / grid[0]:.3g} times apart"
    add("--tune", action="store_true", help=help)


def add_betas(parser, names, without_beta_2):
    """Adds `--beta-1` and `--beta-2` to a command line.

    Args:
        parser: `script.parser`'s.
        names: Names of all optimizers.
        without_beta_2: Names of those that `--beta-2` is not for.
    """
    add = parser.add_argument
    help = "e.g. acclip=0.7,adam=0.7; of SGD, GClip and CClip it is the momentum"
    add("--beta-1", type=script.betas(names), default={}, help=help)
    help = "e.g. acclip=0.95,adam=0.95"
    add("--beta-2", type=script.betas(names, without_beta_2), default={}, help=help)


def as_options(specs):
    """The options that ask for the rates and betas of some specs, one for each optimizer."""
    fields = {"--rates": "rate", "--beta-1": "beta_1", "--beta-2": "beta_2"}
    options = []
    for option, field in fields.items():
        values = {spec.optimizer: getattr(spec, field) for spec in specs}
        given = [f"{name}={value:g}" for name, value in values.items() if value is not None]
        options += [option, ",".join(given)] if given else []
    return " ".join(options)


# --- Plans -----------------------------------------------------------------------------------


def start(name, seed, options, rates, betas=None):
    """The spec of an optimizer as the command line has it, or else the script's tables.

    Args:
        name: The optimizer's.
        seed: The run's seed.
        options: The parsed command line, of which `rates`, `beta_1` and `beta_2` count.
        rates: Dict from each optimizer's name to its learning rate.
        betas: Dict from some names to the pair of betas, `None` for one that it does not have.
    """
    beta_1, beta_2 = (betas or {}).get(name, (None, None))
    rate = (rates | options.rates)[name]
    return Spec(
        name, rate, seed, options.beta_1.get(name, beta_1), options.beta_2.get(name, beta_2)
    )


def plan(options, rates, grid, betas=None):
    """The specs that the command line asks for; those of a study's `--tune` are not among them.

    Args:
        options: The parsed command line, of which `optimizers`, `rates`, `beta_1`, `beta_2`,
            `tune`, `scale` and `seeds` count.
        rates: Dict from each optimizer's name to its learning rate.
        grid: The factors that `--tune` multiplies a rate with.
        betas: As `start` takes them.
    """
    factors = grid if options.tune else (1,)
    starts = [start(name, None, options, rates, betas) for name in options.optimizers]
    return [
        spec._replace(rate=rate, seed=seed)
        for spec in starts
        for rate in rates_around(spec.rate, factors)
        for seed in seeds(options)
    ]


def searches_betas(options):
    """Whether the command line asks for the search of `search.search`."""
    return options.tune and options.scale == STUDY


def seeds(options):
    """The seeds to compare on; none of them has chosen a study's rates and betas."""
    first = SEARCH_SEED + 1 if options.scale == STUDY else 0
    return range(first, first + options.seeds)


def seeds_in_words(options):
    """The seeds of the runs that are reported on, for a title."""
    if searches_betas(options):
        return f"seed {SEARCH_SEED}"
    compared = seeds(options)
    return f"seeds {compared[0]} to {compared[-1]}"


def first_untuned(options, rates):
    """The spec of the first optimizer's run at its untuned rate with seed 0."""
    return start(options.optimizers[0], 0, options, rates)


def rates_around(middle, grid):
    """The rates of a grid around a middle, with two digits."""
    return [middle if factor == 1 else float(f"{middle * factor:.2g}") for factor in grid]


# --- Runs ------------------------------------------------------------------------------------


def name_of(spec):
    """The name of a run, for its folder and to read."""
    betas = "".join(f"-{name.replace('_', '')}-{value:g}" for name, value in spec.betas.items())
    return f"{spec.optimizer}-{spec.rate:.6g}{betas}-{spec.seed}"


def described(spec):
    """A run in words."""
    betas = "".join(f", {name} {value:g}" for name, value in spec.betas.items())
    return f"{spec.optimizer}, learning rate {spec.rate:.3g}{betas}, seed {spec.seed}"


def run_of(spec, history):
    """A run as `comparison` takes it."""
    told = {"optimizer": spec.optimizer, "learning_rate": spec.rate, "seed": spec.seed}
    return told | spec.betas | {"history": history}


def spec_of(run):
    """The spec of a run."""
    optimizer, rate, seed = run["optimizer"], run["learning_rate"], run["seed"]
    return Spec(optimizer, rate, seed, run.get("beta_1"), run.get("beta_2"))
