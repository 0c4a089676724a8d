"""The laws of the norms of standard Gaussian and α-stable vectors."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

# So close to 2 an α-stable law differs from the Gaussian by less than a sample can show.
_GAUSSIAN_ALPHA = 1.9999


@functools.lru_cache(maxsize=8)
def norm_law(alpha: float, dimension: float) -> Any:
    """Returns the law of the norm of a standard isotropic α-stable vector.

    Args:
        alpha: Stability index; 2 is Gaussian.
        dimension: Dimension of the vectors, not a whole number in general.

    Returns:
        A distribution with SciPy's methods `logpdf`, `cdf`, `ppf` and `rvs`.
    """
    if alpha > _GAUSSIAN_ALPHA:
        if dimension > 1e8:
            return stats.norm(math.sqrt(dimension - 0.5), math.sqrt(0.5))
        return stats.chi(dimension)
    return StableNorm(alpha, dimension)


class StableNorm:
    """The norm √A·χ_d: A positive and stable with index α/2, χ_d a χ variable.

    The characteristic function of its logarithm is a ratio of gamma functions, since
    E A^s = Γ(1 − 2s/α)/Γ(1 − s) and E χ_d^s = 2^{s/2}·Γ((d + s)/2)/Γ(d/2); its density follows by a
    Fourier transform. Beyond the transform's accuracy the tails continue as the powers that they
    are: x^-α to the right and x^d to the left.
    """

    def __init__(self, alpha: float, dimension: float) -> None:
        self.alpha = alpha
        self.dimension = dimension
        spread = math.sqrt(
            math.pi**2 / 24 * (4 / alpha**2 - 1) + special.polygamma(1, dimension / 2) / 4
        )
        center = (
            np.euler_gamma * (1 / alpha - 0.5)
            + math.log(2) / 2
            + special.digamma(dimension / 2) / 2
        )
        length = 40 / min(alpha, dimension)
        points = 2 ** math.ceil(math.log2(100 * length / spread))
        fade = 30 / (math.pi / 2 * (1 / alpha - 0.5))
        band = min(fade, max(10 * math.sqrt(dimension), 40.0))
        t = 2 * math.pi / length * np.arange(min(points // 2, int(band * length / 6)) + 1)
        start = center - length / 2
        log_transform = (
            special.loggamma(1 - 1j * t / alpha)
            - special.loggamma(1 - 0.5j * t)
            + special.loggamma((dimension + 1j * t) / 2)
            - special.gammaln(dimension / 2)
            + 1j * t * (math.log(2) / 2 - start)
        )
        spectrum = np.zeros(points // 2 + 1, dtype=complex)
        spectrum[: len(t)] = np.exp(np.conj(log_transform))
        density = np.fft.irfft(spectrum, points) * points / length
        peak = density.argmax()
        reliable = density > 1e-8 * density[peak]
        last = peak + int(np.argmin(np.append(reliable[peak:], False)))
        first = peak + 1 - int(np.argmin(np.append(reliable[peak::-1], False)))
        grid = start + length / points * np.arange(points)
        self.logs = grid[first:last]
        self.log_densities = np.log(density[first:last])
        below = density[first] / dimension
        above = density[last - 1] / alpha
        masses = np.diff(self.logs) * (density[first + 1 : last] + density[first : last - 1]) / 2
        cumulative = below + np.concatenate([[0.0], np.cumsum(masses)])
        self.cumulative = cumulative / (cumulative[-1] + above)

    def logpdf(self, x: ArrayLike) -> np.ndarray:
        """Log-density at `x`."""
        y = np.log(x)
        inside = np.interp(y, self.logs, self.log_densities)
        right = np.maximum(y - self.logs[-1], 0)
        left = np.maximum(self.logs[0] - y, 0)
        return inside - self.alpha * right - self.dimension * left - y

    def cdf(self, x: ArrayLike) -> np.ndarray:
        """Probability of at most `x`."""
        y = np.log(x)
        right = np.maximum(y - self.logs[-1], 0)
        left = np.maximum(self.logs[0] - y, 0)
        inside = np.interp(y, self.logs, self.cumulative) * np.exp(-self.dimension * left)
        return 1 - (1 - inside) * np.exp(-self.alpha * right)

    def ppf(self, q: ArrayLike) -> np.ndarray:
        """What a share `q` lies below."""
        q = np.asarray(q)
        above = np.log((1 - self.cumulative[-1]) / (1 - np.maximum(q, self.cumulative[-1])))
        below = np.log(np.minimum(q, self.cumulative[0]) / self.cumulative[0])
        inside = np.interp(q, self.cumulative, self.logs)
        return np.exp(inside + above / self.alpha + below / self.dimension)

    def rvs(self, size: int | tuple[int, ...], random_state: np.random.Generator) -> np.ndarray:
        """Random norms."""
        scale = math.cos(math.pi * self.alpha / 4) ** (2 / self.alpha)
        factors: Any = stats.levy_stable.rvs(
            self.alpha / 2, 1, scale=scale, size=size, random_state=random_state
        )
        return np.sqrt(factors * random_state.chisquare(self.dimension, size))
