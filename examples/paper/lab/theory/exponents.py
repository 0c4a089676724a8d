"""The theorems' exponents of the number of steps, and the values of α that are tried."""

import numpy as np

ALPHAS = np.array([1.2, 1.4, 1.6, 1.8, 2.0])


def bound_exponent(alpha):
    """Theorem 4's and 5's exponent of k."""
    return -2 * (alpha - 1) / alpha


def nonconvex_exponent(alpha):
    """Theorem 2's and 6's exponent of K."""
    return -(alpha - 1) / (3 * alpha - 2)
