"""Samples whose tail is known, and what is thought of them."""

import functools

import numpy as np
from scipy import stats

from keras_acclip.noise import tails


def pareto(rng, n, alpha):
    return 1 + rng.pareto(alpha, size=n)


def symmetric_stable(rng, size, alpha):
    return stats.levy_stable.rvs(alpha, 0, size=size, random_state=rng)


def isotropic_stable(rng, n, alpha, dimension):
    scale = np.cos(np.pi * alpha / 4) ** (2 / alpha)
    factors = stats.levy_stable.rvs(alpha / 2, 1, scale=scale, size=n, random_state=rng)
    return np.sqrt(factors) * np.linalg.norm(rng.normal(size=(n, dimension)), axis=1)


def independent_stable(rng, n, alpha, dimension):
    return np.linalg.norm(symmetric_stable(rng, (n, dimension), alpha), axis=1)


def gaussian(rng, n, dimension):
    return np.sqrt(rng.chisquare(dimension, size=n))


def sample_of(name, rng, n=500):
    """Samples by name: what a table of verdicts speaks of."""
    return {
        "gaussian d=100": lambda: gaussian(rng, n, 100),
        "gaussian d=10,000": lambda: gaussian(rng, n, 10_000),
        "gaussian, unequal": lambda: np.linalg.norm(
            rng.normal(size=(n, 300)) / np.arange(1, 301) ** 0.5, axis=1
        ),
        "half-normal": lambda: np.abs(rng.normal(size=n)),
        "uniform": lambda: rng.uniform(size=n),
        "exponential": lambda: rng.exponential(size=n),
        "lognormal 0.1": lambda: rng.lognormal(0, 0.1, size=n),
        "lognormal 1": lambda: rng.lognormal(0, 1, size=n),
        "constant and tiny": lambda: 1 + 1e-6 * rng.normal(size=n),
        "student 3": lambda: np.abs(rng.standard_t(3, size=n)),
        "small BERT, trained": lambda: np.abs(20 + 1.5 * rng.standard_t(5, size=n)),
        "stable 1.2": lambda: np.abs(symmetric_stable(rng, n, 1.2)),
        "stable 1.7": lambda: np.abs(symmetric_stable(rng, n, 1.7)),
        "stable 1.7, isotropic d=2": lambda: isotropic_stable(rng, n, 1.7, 2),
        "stable 1.7, isotropic d=100": lambda: isotropic_stable(rng, n, 1.7, 100),
        "stable 1.7, independent d=20": lambda: independent_stable(rng, n, 1.7, 20),
        "stable 1.2, independent d=20": lambda: independent_stable(rng, n, 1.2, 20),
        "pareto 1.2": lambda: pareto(rng, n, 1.2),
        "pareto 1.5": lambda: pareto(rng, n, 1.5),
        "pareto 1.8": lambda: pareto(rng, n, 1.8),
        "pareto 1.5, shifted": lambda: 10 + pareto(rng, n, 1.5),
        "pareto 3": lambda: pareto(rng, n, 3.0),
        "gamma 0.1": lambda: rng.gamma(0.1, size=n) + 1e-300,
        "two clusters": lambda: gaussian(rng, n, 100) * np.where(rng.uniform(size=n) < 0.05, 10, 1),
        "three scales": lambda: gaussian(rng, n, 100) * rng.choice([1, 10, 100], n),
        "falling": lambda: gaussian(rng, n, 100) / (1 + 49 * np.arange(n) / n),
        "pareto 1.5, cut": lambda: (1 - 0.99 * rng.uniform(size=n)) ** (-1 / 1.5),
        # Its bulk looks like a heavy tail, but it ends: so do the norms of a model that knows its
        # examples by heart.
        "pareto 0.5 up to 100": lambda: (1 - 0.9 * rng.uniform(size=n)) ** -2.0,
    }[name]()


@functools.cache
def label_of(name, seed):
    """The verdict on one sample of 500 norms."""
    return tails.classify(sample_of(name, np.random.default_rng(seed))).label


def share_called(name, label, trials):
    return [label_of(name, seed) for seed in range(trials)].count(label) / trials
