"""How often the verdict on norms of known laws is what, and how often intervals hold the index.

    python benchmarks/tail_verdicts.py
    python benchmarks/tail_verdicts.py --trials 20 --sizes 256 --out /tmp/verdicts.json

For each law and size it draws samples, and counts the verdicts of `classify`. Of laws whose tail
index is known it counts how often the 95% intervals hold it: Hill's with the threshold chosen, and
that of the excesses of the far tail, which the verdict gives. NumPy's generator is seeded by the
trial's number, so that a longer run repeats a shorter one. The results are written as JSON after
each size; the defaults take about a quarter of an hour on one core.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from keras_acclip._utils import files
from keras_acclip._utils.commands import Parser, positive, to_path
from keras_acclip.noise import tails

Law = Callable[[np.random.Generator, int], Any]

LABELS = ("heavy-tailed", "undecided", "concentrated")
OUT = Path(__file__).parents[1] / "docs/results/tail_verdicts/run.json"


def chi(rng: np.random.Generator, n: int, dimension: int) -> np.ndarray:
    """Norms of Gaussian vectors."""
    return np.sqrt(rng.chisquare(dimension, size=n))


def isotropic_stable(rng: np.random.Generator, n: int, alpha: float, dimension: int) -> np.ndarray:
    """Norms of isotropic α-stable vectors."""
    scale = math.cos(math.pi * alpha / 4) ** (2 / alpha)
    factors: Any = stats.levy_stable.rvs(alpha / 2, 1, scale=scale, size=n, random_state=rng)
    return np.sqrt(factors) * chi(rng, n, dimension)


def stable(rng: np.random.Generator, n: int, alpha: float) -> np.ndarray:
    """Sizes of α-stable numbers."""
    values: Any = stats.levy_stable.rvs(alpha, 0, size=n, random_state=rng)
    return np.abs(values)


def clusters(rng: np.random.Generator, n: int, share: float, factor: float) -> np.ndarray:
    """Gaussian norms, a share of them larger by a factor."""
    return chi(rng, n, 100) * np.where(rng.uniform(size=n) < share, factor, 1.0)


# A law's true tail index (None: all moments, or bounded, or not fixed), and its samples.
LAWS: dict[str, tuple[float | None, Law]] = {
    "Pareto 1.2": (1.2, lambda r, n: 1 + r.pareto(1.2, n)),
    "Pareto 1.5": (1.5, lambda r, n: 1 + r.pareto(1.5, n)),
    "Pareto 1.5, shifted by 10": (1.5, lambda r, n: 11 + r.pareto(1.5, n)),
    "Lomax 1.5": (1.5, lambda r, n: r.pareto(1.5, n)),
    "Student t(1.5)": (1.5, lambda r, n: np.abs(r.standard_t(1.5, n))),
    "Student t(1.5), 10 dimensions": (
        1.5,
        lambda r, n: chi(r, n, 10) / np.sqrt(r.chisquare(1.5, n) / 1.5),
    ),
    "α-stable 1.5": (1.5, lambda r, n: stable(r, n, 1.5)),
    "α-stable 1.5, isotropic, 50 dimensions": (
        1.5,
        lambda r, n: isotropic_stable(r, n, 1.5, 50),
    ),
    "α-stable 1.2": (1.2, lambda r, n: stable(r, n, 1.2)),
    "log-gamma, index 1.5": (1.5, lambda r, n: np.exp(r.gamma(2, 1 / 1.5, n))),
    "Burr, index 1.5": (1.5, lambda r, n: stats.burr12.rvs(3, 0.5, size=n, random_state=r)),
    "Fréchet 1.5": (1.5, lambda r, n: stats.invweibull.rvs(1.5, size=n, random_state=r)),
    "Student t(3)": (3.0, lambda r, n: np.abs(r.standard_t(3, n))),
    "Pareto 3": (3.0, lambda r, n: 1 + r.pareto(3, n)),
    "Gaussian, 100 dimensions": (None, lambda r, n: chi(r, n, 100)),
    "Gaussian, 10,000 dimensions": (None, lambda r, n: chi(r, n, 10_000)),
    "exponential": (None, lambda r, n: r.exponential(size=n)),
    "5% of batches 10 times as large": (None, lambda r, n: clusters(r, n, 0.05, 10)),
    "10% of batches 30 times as large": (None, lambda r, n: clusters(r, n, 0.1, 30)),
    "three scales 1, 10, 100": (None, lambda r, n: chi(r, n, 100) * r.choice([1, 10, 100], n)),
    "three scales 1, 10, 100 of 90, 9, 1%": (
        None,
        lambda r, n: chi(r, n, 100) * r.choice([1, 10, 100], n, p=[0.9, 0.09, 0.01]),
    ),
    "falling 50-fold along the sample": (
        None,
        lambda r, n: chi(r, n, 100) / (1 + 49 * np.arange(n) / n),
    ),
    "Pareto 1.5 cut at its 99% quantile": (
        None,
        lambda r, n: (1 - 0.99 * r.uniform(size=n)) ** (-1 / 1.5),
    ),
    "lognormal, σ 1.5": (None, lambda r, n: r.lognormal(0, 1.5, n)),
    "lognormal, σ 2": (None, lambda r, n: r.lognormal(0, 2, n)),
    "Weibull ½": (None, lambda r, n: r.weibull(0.5, n)),
    "gamma 0.1": (None, lambda r, n: r.gamma(0.1, size=n) + 1e-300),
}


def tried(name: str, size: int, trials: int) -> dict[str, Any]:
    """Returns the shares of verdicts on one law at one size, and how often intervals hold.

    Args:
        name: The law's, in `LAWS`.
        size: Norms a sample.
        trials: How many samples.
    """
    index, law = LAWS[name]
    verdicts = [tails.classify(law(np.random.default_rng(seed), size)) for seed in range(trials)]
    labels = [verdict.label for verdict in verdicts]
    row: dict[str, Any] = {"law": name, "size": size, "trials": trials}
    row |= {label: labels.count(label) / trials for label in LABELS}
    row |= {"hill_covers": None, "covers": None}
    if index is not None:
        hills = [verdict.hill for verdict in verdicts if verdict.hill is not None]
        row["hill_covers"] = sum(hill.low <= index <= hill.high for hill in hills) / trials
        ends = [verdict.tail_index[1:] for verdict in verdicts]
        row["covers"] = sum(low <= index <= high for low, high in ends) / trials
    return row


def wide(rows: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Returns one row a law with the percentages of a key by size; None where it has none."""
    made: dict[str, dict[str, Any]] = {}
    for row in rows:
        value = row[key]
        percent = None if value is None else round(100 * value)
        made.setdefault(row["law"], {"law": row["law"]})[str(row["size"])] = percent
    return [
        row for row in made.values() if any(v is not None for k, v in row.items() if k != "law")
    ]


def main(arguments: list[str] | None = None) -> int:
    """Runs the trials and writes them; returns the exit status."""
    parser = Parser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--trials", type=positive, default=200, help="samples a law and size")
    parser.add_argument(
        "--sizes",
        type=positive,
        nargs="+",
        default=[100, 256, 500, 1000, 2000, 5000],
        help="norms a sample",
    )
    parser.add_argument("--out", type=to_path, default=OUT, help="the JSON file to write")
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    start = time.perf_counter()
    for size in options.sizes:
        for name in LAWS:
            row = tried(name, size, options.trials)
            rows.append(row)
            shares = ", ".join(f"{label} {row[label]:.0%}" for label in LABELS)
            print(f"{size:6,} norms, {name}: {shares}", flush=True)
        tables = {key: wide(rows, key) for key in (*LABELS, "hill_covers", "covers")}
        text = json.dumps({"rows": rows, "tables": tables}, indent=1)
        files.write_atomically(options.out, text.encode())
    print(f"{options.out}: {len(rows)} rows in {time.perf_counter() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
