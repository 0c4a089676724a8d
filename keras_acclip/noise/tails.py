"""How heavy the tail of a sample of norms is: estimators, references and a verdict.

Every function takes a plain one-dimensional sample of norms (a NumPy array or anything that
converts to one) and knows nothing of models or frameworks: NumPy and SciPy are all that it needs.

Example:
    >>> import numpy as np
    >>> from keras_acclip.noise import tails
    >>> norms = 1 + np.random.default_rng(0).pareto(1.2, size=500)
    >>> tails.classify(norms).label
    'heavy-tailed'
"""

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from keras_acclip._utils import arguments

try:
    from scipy import optimize, special, stats
except ImportError as error:
    raise ImportError(
        "keras_acclip.noise.tails needs SciPy: pip install 'keras-acclip[noise]'"
    ) from error

LEAST_FOR_MOMENTS = 4
LEAST_FOR_TAIL = 20
LEAST_FOR_EXCESSES = 50
LEAST_FOR_VERDICT = 100

_LARGEST = 1e150
_LEAST_K = 10
_EXHAUSTIVE_SCAN = 1000
_SCAN_POINTS = 300
_BOOTSTRAP_POINTS = 50
# Choosing k from the same data spreads the estimate more than a given k does: on Pareto samples of
# 30 to 3,000 norms the variance of log(alpha) is 1.1 to 1.35 times as large.
_CHOICE_INFLATION = 1.35
# The shape ξ that excesses must show beside Hill's index before a sample is called heavy-tailed.
# Less than the 1/2 of infinite variance, for ξ of 500 norms has a standard error of 0.1 to 0.2.
_HEAVY_SHAPE = 0.4
# α-stable samples of 300 or more with α up to 1.7 have a kurtosis above n/80 in 98% of cases.
_KURTOSIS_SHARE = 1 / 80

_LEAST_ALPHA = 0.5
# So close to 2 an α-stable law differs from the Gaussian by less than a sample can show.
_GAUSSIAN_ALPHA = 1.9999
_MOST_DIMENSIONS = 5e5
_LEAST_LOG_SPREAD = 1e-3


class Estimate(NamedTuple):
    """A number with its standard error.

    Attributes:
        value: The estimate.
        stderr: Its standard error, in the same unit.
    """

    value: float
    stderr: float


class Interval(NamedTuple):
    """A confidence interval.

    Attributes:
        low: Lower end.
        high: Upper end.
    """

    low: float
    high: float


@dataclass(frozen=True)
class TailEstimate:
    """Hill's estimate of a tail index.

    Attributes:
        alpha: Tail index: P(X > x) falls like x^-alpha. The variance is infinite below 2.
        stderr: Standard error of `alpha`; with a data-chosen `k`, the choice's spread included.
        low: Lower end of the confidence interval of `alpha`.
        high: Upper end of the confidence interval of `alpha`.
        k: How many of the largest norms the estimate rests on.
        threshold: The norm above which those `k` lie, in the sample's unit.
    """

    alpha: float
    stderr: float
    low: float
    high: float
    k: int
    threshold: float


@dataclass(frozen=True)
class HillPlot:
    """Hill's estimate against the number of order statistics, ready to draw.

    Attributes:
        k: Number of largest norms used, increasing; shape `(points,)`.
        alpha: Hill's estimate at each `k`.
        low: Lower end of its confidence interval at a given `k`.
        high: Upper end of its confidence interval at a given `k`.
        threshold: The norm above which the `k` largest lie, in the sample's unit.
    """

    k: np.ndarray
    alpha: np.ndarray
    low: np.ndarray
    high: np.ndarray
    threshold: np.ndarray


@dataclass(frozen=True)
class ExcessEstimate:
    """A generalized Pareto law fitted to what the largest norms exceed a threshold by.

    Attributes:
        shape: ξ, one over the tail index where positive. The variance is infinite from 1/2 on; an
            exponential tail has 0, a bounded one less.
        stderr: Standard error of `shape`; with a data-chosen `k`, the choice's spread included.
        low: Lower end of the confidence interval of `shape`.
        high: Upper end of the confidence interval of `shape`.
        scale: σ of the law, in the sample's unit.
        k: How many norms exceed the threshold.
        threshold: The threshold, in the sample's unit.
    """

    shape: float
    stderr: float
    low: float
    high: float
    scale: float
    k: int
    threshold: float


@dataclass(frozen=True)
class StableIndex:
    """The index of an α-stable law, read off the growth of sums.

    Attributes:
        alpha: Index in (0, 2]; 2 is Gaussian. An estimate beyond 2 is given as 2.
        stderr: Standard error of `alpha`.
        block: How many terms each sum has.
    """

    alpha: float
    stderr: float
    block: int


@dataclass(frozen=True)
class VarianceGrowth:
    """Empirical variance as a sample grows, in several random orders.

    Attributes:
        sizes: Sample sizes 2, 3, …, n; shape `(n - 1,)`.
        variances: Unbiased variance of the first `sizes[j]` norms in order i, in the sample's unit
            squared; shape `(orders, n - 1)`. All orders end at the same value.
    """

    sizes: np.ndarray
    variances: np.ndarray


@dataclass(frozen=True)
class Reference:
    """The law of the norms of Gaussian or α-stable vectors, scaled to a sample.

    Attributes:
        family: `"gaussian"` or `"stable"`.
        alpha: Stability index of the vectors; 2 for Gaussian ones.
        dimension: Effective dimension of the vectors, at least 1; not a whole number in general.
        scale: Factor on the norm of a vector of standard coordinates, in the sample's unit.
        log_likelihood: Log-likelihood of the sample, in nats.
        ks: Kolmogorov-Smirnov distance between sample and law.
        p_value: Probability of a distance as large if the norms follow a law of this family.
        sample_quantiles: The sorted sample; shape `(n,)`.
        reference_quantiles: The law's quantiles at (i − ½)/n; shape `(n,)`. With
            `sample_quantiles`, the data of a quantile-quantile plot.
    """

    family: str
    alpha: float
    dimension: float
    scale: float
    log_likelihood: float
    ks: float
    p_value: float
    sample_quantiles: np.ndarray
    reference_quantiles: np.ndarray

    def pdf(self, x):
        """Density at `x`, per unit of the sample; the shape of `x`."""
        return np.exp(self.logpdf(x))

    def logpdf(self, x):
        """Log-density at `x`; the shape of `x`."""
        return _law(self.alpha, self.dimension).logpdf(np.asarray(x) / self.scale) - math.log(
            self.scale
        )

    def cdf(self, x):
        """Probability of a norm of at most `x`; the shape of `x`."""
        return _law(self.alpha, self.dimension).cdf(np.asarray(x) / self.scale)

    def ppf(self, q):
        """Norm that a share `q` lies below, in the sample's unit; the shape of `q`."""
        return self.scale * _law(self.alpha, self.dimension).ppf(q)

    def rvs(self, size, seed=0):
        """Draws norms of random vectors of this law, for `size` of any shape.

        A Gaussian norm is `scale` times a χ variable; an α-stable one is that times √A, A a
        positive stable variable of index α/2 drawn with `scipy.stats.levy_stable`.
        """
        return self.scale * _law(self.alpha, self.dimension).rvs(
            size=size, random_state=np.random.default_rng(seed)
        )


@dataclass(frozen=True)
class LikelihoodRatio:
    """A test of one reference against a wider one on the same sample.

    Attributes:
        statistic: Twice the log-likelihood that the wider law gains, in nats.
        p_value: Probability of at least that gain if the narrower law holds.
    """

    statistic: float
    p_value: float


@dataclass(frozen=True)
class Verdict:
    """What a sample of norms says about its tail.

    Attributes:
        label: `"heavy-tailed"` (tail index below 2: infinite variance), `"concentrated"` (finite
            variance) or `"undecided"`.
        reason: The evidence in one sentence.
        size: How many norms it rests on.
        hill: Hill's estimate; None where the sample doesn't allow it, as for those below.
        excess: Generalized Pareto fit with a data-chosen threshold.
        far_excess: Generalized Pareto fit to the far tail alone.
        kurtosis: Excess kurtosis.
    """

    label: str
    reason: str
    size: int
    hill: TailEstimate | None = None
    excess: ExcessEstimate | None = None
    far_excess: ExcessEstimate | None = None
    kurtosis: float | None = None


def hill(sample, k=None, confidence=0.95):
    """Hill's estimator of the tail index of a sample of norms.

    Over the k largest values X_(1) ≥ … ≥ X_(k) and the next one, X_(k+1):
    `alpha = k / Σ log(X_(i) / X_(k+1))`. On a Pareto tail 2k·alpha_true/alpha follows a χ² law with
    2k degrees of freedom, which the interval is taken from.

    Without `k` the threshold X_(k+1) is chosen by the rule of Clauset, Shalizi and Newman: the one
    above which the fitted Pareto law is nearest to the sample by the Kolmogorov-Smirnov distance,
    with at least 10 norms above it; of more than 1,000 norms, 300 are tried, evenly in log k. The
    choice makes the estimate vary more than a given k does, so the interval is wider by √1.35,
    which is what that costs on Pareto samples.

    No interval covers the bias of a tail that isn't yet a power law at the threshold: for α-stable
    noise with α near 2, Hill's index of a few hundred norms lies well above α. `classify` allows
    for that.

    Args:
        sample: Norms, shape `(n,)`, finite and non-negative; at least 20.
        k: How many of the largest norms to use, 2 ≤ k < n. Default: chosen from the data.
        confidence: Level of the interval, between 0 and 1. Defaults to 0.95.

    Returns:
        A `TailEstimate`.

    Raises:
        ValueError: If the sample is too small, not one-dimensional or constant, or holds NaN,
            infinite or negative values; if `k` or `confidence` is out of range.

    Example:
        >>> norms = 1 + np.random.default_rng(0).pareto(1.5, size=100_000)
        >>> round(hill(norms).alpha, 1)
        1.5

    References:
        B. M. Hill, "A simple general approach to inference about the tail of a distribution",
        Annals of Statistics 3 (1975). A. Clauset, C. R. Shalizi, M. E. J. Newman, "Power-law
        distributions in empirical data", SIAM Review 51 (2009), section 3; their exponent is the
        density's, alpha + 1, and counts the threshold among the k.
    """
    norms = _varying(_sample(sample, LEAST_FOR_TAIL))
    confidence = _level(confidence)
    logs = _descending_logs(norms)
    if k is None:
        k = _choose_k(logs, _scan(len(logs)))
        if k is None:
            raise ValueError(f"Fewer than {_LEAST_K} norms exceed the next smaller, positive one.")
        effective = k / _CHOICE_INFLATION
    else:
        k = effective = _order_count(k, norms)
    alpha = _hill(logs, k)
    low, high = _hill_interval(alpha, effective, confidence)
    return TailEstimate(
        alpha=float(alpha),
        stderr=float(alpha / math.sqrt(effective)),
        low=float(low),
        high=float(high),
        k=int(k),
        threshold=float(np.sort(norms)[-k - 1]),
    )


def bootstrap_interval(sample, k=None, confidence=0.95, resamples=200, seed=0):
    """Bootstrap interval of Hill's tail index.

    Draws `resamples` samples of the same size with replacement and estimates the index of each;
    without `k` the threshold is chosen anew in each, among 50 values. Unlike the interval of
    `hill` it rests on no Pareto law, only on independent norms. With a given k of 20 a 95% interval
    covers about 90%; with 60 or more, or k chosen, about 95%.

    Args:
        sample: Norms, shape `(n,)`, finite and non-negative; at least 20.
        k: How many of the largest norms to use, 2 ≤ k < n. Default: chosen in each resample.
        confidence: Level of the interval, between 0 and 1. Defaults to 0.95.
        resamples: Number of resamples, at least 20. Defaults to 200.
        seed: Seed of the resampling. Defaults to 0.

    Returns:
        An `Interval(low, high)` of the tail index.

    Raises:
        ValueError: As `hill`; if `resamples` is below 20; if so few norms differ that most
            resamples have no tail to estimate.

    Example:
        >>> norms = 1 + np.random.default_rng(0).pareto(1.5, size=500)
        >>> low, high = bootstrap_interval(norms)

    References:
        Clauset, Shalizi and Newman (2009), section 3.3.
    """
    norms = _varying(_sample(sample, LEAST_FOR_TAIL))
    confidence = _level(confidence)
    if arguments.positive_integer("resamples", resamples) < 20:
        raise ValueError(f"Argument `resamples` must be at least 20. Received: {resamples}")
    if k is not None:
        k = _order_count(k, norms)
    generator = np.random.default_rng(seed)
    alphas = []
    for _ in range(resamples):
        logs = _descending_logs(generator.choice(norms, size=len(norms)))
        chosen = _choose_k(logs, _scan(len(logs), _BOOTSTRAP_POINTS)) if k is None else k
        if chosen is not None and chosen < len(logs) and logs[0] > logs[chosen]:
            alphas.append(_hill(logs, chosen))
    if len(alphas) < resamples / 2:
        raise ValueError("Too few of the norms differ for a bootstrap of their tail index.")
    low, high = np.quantile(alphas, _two_sided(confidence))
    return Interval(float(low), float(high))


def hill_plot(sample, confidence=0.95, points=200):
    """Hill's estimate at many numbers of order statistics.

    A power law shows as a level stretch, a lighter tail as a curve that rises towards small k.

    Args:
        sample: Norms, shape `(n,)`, finite and non-negative; at least 20.
        confidence: Level of the band, between 0 and 1. Defaults to 0.95.
        points: Most values of k, evenly in log k from 5 on. Defaults to 200.

    Returns:
        A `HillPlot`: arrays of one length, at most `points`.

    Raises:
        ValueError: As `hill`; if `points` is no positive whole number.

    Example:
        >>> curve = hill_plot([*range(1, 101)])
        >>> curve.k.shape == curve.alpha.shape
        True

    References:
        Hill (1975); H. Drees, L. de Haan, S. Resnick, "How to make a Hill plot", Annals of
        Statistics 28 (2000).
    """
    norms = _varying(_sample(sample, LEAST_FOR_TAIL))
    confidence = _level(confidence)
    arguments.positive_integer("points", points)
    logs = _descending_logs(norms)
    ks = np.unique(np.geomspace(5, max(len(logs) - 1, 5), points).round().astype(int))
    ks = ks[ks < len(logs)]
    ks = ks[logs[0] > logs[ks]]
    if len(ks) == 0:
        raise ValueError("Too few of the norms are positive and distinct for a Hill plot.")
    alphas = _hill(logs, ks)
    low, high = _hill_interval(alphas, ks, confidence)
    return HillPlot(ks, alphas, low, high, np.sort(norms)[::-1][ks])


def generalized_pareto(sample, k=None, confidence=0.95):
    """Fits a generalized Pareto law to what the largest norms exceed a threshold by.

    Hill's estimate changes when a constant is added to every norm; the shape ξ of the excesses
    doesn't, which matters for gradient noise, whose norms lie far from zero. Where ξ > 0 the tail
    index is 1/ξ, so that the variance is infinite for ξ ≥ 1/2.

    The fit is Zhang and Stephens's, which always exists and is close to maximum likelihood. Without
    `k` the threshold is the one with the smallest Kolmogorov-Smirnov distance between law and
    excesses, among 15 with from 40 to n − 1 norms above them. The standard error is (1 + ξ)/√k, and
    √1.35 times that where k was chosen. With a given k below 100 a 95% interval covers somewhat
    less: 92% at k = 20.

    Args:
        sample: Norms, shape `(n,)`, finite and non-negative; at least 50, or 20 with `k` given.
        k: How many of the largest norms to use, 10 ≤ k < n. Default: chosen from the data.
        confidence: Level of the interval, between 0 and 1. Defaults to 0.95.

    Returns:
        An `ExcessEstimate`.

    Raises:
        ValueError: As `hill`; if ties leave fewer than 10 norms above the threshold.

    Example:
        >>> norms = np.linalg.norm(np.random.default_rng(0).normal(size=(500, 100)), axis=1)
        >>> generalized_pareto(norms, k=60).high < 0.5  # finite variance
        True

    References:
        J. Zhang, M. A. Stephens, "A new and efficient estimation method for the generalized Pareto
        distribution", Technometrics 51 (2009). A. Vehtari and others, "Pareto smoothed importance
        sampling", JMLR 25 (2024), judges by the same ξ whether a variance is finite.
    """
    norms = _varying(_sample(sample, LEAST_FOR_EXCESSES if k is None else LEAST_FOR_TAIL))
    confidence = _level(confidence)
    ascending = np.sort(norms)
    if k is None:
        ks = np.unique(np.geomspace(40, len(norms) - 1, 15).round().astype(int))
        inflation = _CHOICE_INFLATION
    else:
        ks = [_order_count(k, norms, least=_LEAST_K)]
        inflation = 1.0
    fits = []
    for candidate in ks:
        threshold = ascending[-candidate - 1]
        excesses = ascending[ascending > threshold] - threshold
        if len(excesses) >= _LEAST_K:
            fits.append((*_fit_excesses(excesses), len(excesses), threshold))
    if not fits:
        raise ValueError(f"Ties leave fewer than {_LEAST_K} norms above the threshold.")
    _, shape, scale, count, threshold = min(fits)
    stderr = (1 + max(shape, -0.5)) * math.sqrt(inflation / count)
    margin = special.ndtri((1 + confidence) / 2) * stderr
    return ExcessEstimate(
        shape=float(shape),
        stderr=float(stderr),
        low=float(shape - margin),
        high=float(shape + margin),
        scale=float(scale),
        k=count,
        threshold=float(threshold),
    )


def stable_index(sample, block=None, orders=8, seed=0):
    """Estimates the index of α-stable noise from how fast its sums grow.

    A sum of m independent α-stable terms is m^{1/α} times as large as one term, so
    `1/alpha = (mean log|sums| − mean log|terms|) / log(block)`, with Euclidean norms for vectors.

    The identity needs terms that are symmetric about zero, which norms aren't: taken as they are,
    a sample of norms always gives about 1. So terms are differences of random pairs, whose law is
    symmetric whatever the sample's mean and skewness, with the same index. The estimate is averaged
    over several random pairings.

    It presumes exactly α-stable noise. Elsewhere it tells how sums of this length grow, not how the
    far tail falls, and can err either way: 500 norms of a Pareto law with index 1.5 give about 1.
    `classify` doesn't use it.

    Args:
        sample: Scalars, shape `(n,)`, or vectors, shape `(n, dimensions)`: finite, of any sign; at
            least 20. Noise vectors g − ∇f, coordinates of them, or norms.
        block: Terms a sum, from 2 to n/4. Default: √(n/2), rounded down.
        orders: Number of random pairings to average, at least 2. Defaults to 8.
        seed: Seed of the pairings. Defaults to 0.

    Returns:
        A `StableIndex`.

    Raises:
        ValueError: If the sample is too small, has more than two dimensions, holds NaN or infinite
            values, or repeats one value so often that pairs cancel; if `block` or `orders` is out
            of range.

    Example:
        >>> noise = np.random.default_rng(0).standard_cauchy(size=10_000)
        >>> round(stable_index(noise).alpha)
        1

    References:
        M. Mohammadi, A. Mohammadpour, H. Ogata, "On estimating the tail index and the spectral
        measure of multivariate α-stable distributions", Metrika 78 (2015), corollary 2.4;
        U. Şimşekli, L. Sagun, M. Gürbüzbalaban, "A tail-index analysis of stochastic gradient noise
        in deep neural networks", ICML 2019, section 4.
    """
    terms = _sample(sample, LEAST_FOR_TAIL, signed=True, dimensions=(1, 2))
    terms = terms.reshape(len(terms), -1)
    pairs = len(terms) // 2
    if block is None:
        block = math.isqrt(pairs)
    elif not 2 <= arguments.positive_integer("block", block) <= pairs // 2:
        raise ValueError(
            f"Argument `block` must be from 2 to {pairs // 2} for a sample of {len(terms)}. "
            f"Received: {block}"
        )
    orders = arguments.positive_integer("orders", orders)
    if orders < 2:
        raise ValueError(f"Argument `orders` must be at least 2. Received: {orders}")
    generator = np.random.default_rng(seed)
    inverses, variances = [], []
    for _ in range(orders):
        order = generator.permutation(len(terms))[: 2 * (pairs // block) * block]
        differences = (terms[order[::2]] - terms[order[1::2]]).reshape(-1, block, terms.shape[1])
        growth = _log_sizes(differences.sum(axis=1)) - _log_sizes(differences).mean(axis=1)
        growth /= math.log(block)
        inverses.append(growth.mean())
        variances.append(growth.var(ddof=1) / len(growth))
    # One pairing varies by what all share, the sample, and by the pairing, which averages out.
    pairing = np.var(inverses, ddof=1)
    variance = max(np.mean(variances) - pairing, 0.0) + pairing / orders
    alpha = min(2.0, 1 / max(float(np.mean(inverses)), 0.5))
    return StableIndex(alpha, float(alpha**2 * math.sqrt(variance)), block)


def variance_growth(sample, orders=8, seed=0):
    """Empirical variance of a sample as it grows, in several random orders.

    With a finite variance the curves settle; with an infinite one they keep jumping up.

    Args:
        sample: Norms, shape `(n,)`, finite and non-negative; at least 2.
        orders: Number of random orders, each a curve. Defaults to 8.
        seed: Seed of the orders. Defaults to 0.

    Returns:
        A `VarianceGrowth`.

    Raises:
        ValueError: If the sample is too small, not one-dimensional, or holds NaN, infinite or
            negative values; if `orders` is no positive whole number.

    Example:
        >>> growth = variance_growth([1.0, 2.0, 3.0, 4.0], orders=2)
        >>> growth.variances.shape
        (2, 3)

    References:
        Zhang et al. (2020), Figure 1 (d) and (h).
    """
    norms = _sample(sample, 2)
    generator = np.random.default_rng(seed)
    orders = arguments.positive_integer("orders", orders)
    largest = norms.max() or 1.0
    shuffled = np.stack([generator.permutation(norms) for _ in range(orders)]) / largest
    shuffled -= np.median(shuffled[0])
    counts = np.arange(1, len(norms) + 1)
    sums = shuffled.cumsum(axis=1)
    squares = (shuffled**2).cumsum(axis=1)
    variances = (squares - sums**2 / counts)[:, 1:] / (counts[1:] - 1)
    return VarianceGrowth(counts[1:], np.maximum(variances, 0) * largest**2)


def max_to_sum(sample, p):
    """Share of the sum of p-th powers that the largest norm alone holds.

    As the sample grows it falls to 0 if the p-th moment is finite, and only then.

    Args:
        sample: Norms, shape `(n,)`, finite and non-negative, not all zero; at least 1.
        p: Order of the moment, above 0.

    Returns:
        The ratio, from 1/n to 1.

    Raises:
        ValueError: If the sample is empty, not one-dimensional, all zero, or holds NaN, infinite
            or negative values; if `p` isn't above 0.

    Example:
        >>> max_to_sum([3.0, 4.0], p=2)
        0.64

    References:
        P. Embrechts, C. Klüppelberg, T. Mikosch, Modelling Extremal Events (1997), section 6.2.6.
    """
    norms = _sample(sample, 1)
    p = arguments.positive("p", p)
    if norms.max() == 0:
        raise ValueError("All norms are zero: they have no largest one.")
    return float(1 / np.sum((norms / norms.max()) ** p))


def alpha_moment(sample, alpha):
    """Empirical α-moment: the mean of the norms to the power α.

    The paper's σ of Assumption 1, E‖g − ∇f‖^α ≤ σ^α, is this to the power 1/α.

    Args:
        sample: Norms, shape `(n,)`, finite and non-negative; at least 1.
        alpha: Order α in (1, 2].

    Returns:
        The moment, in the sample's unit to the power α.

    Raises:
        ValueError: If the sample is empty, not one-dimensional, or holds NaN, infinite or negative
            values; if `alpha` is out of range.

    Example:
        >>> sigma = alpha_moment([1.0, 4.0], 1.5) ** (1 / 1.5)

    References:
        Zhang et al. (2020), Assumption 1.
    """
    norms = _sample(sample, 1)
    alpha = arguments.moment_order("alpha", alpha, open_low=True)
    largest = float(norms.max()) or 1.0
    return largest**alpha * float(np.mean((norms / largest) ** alpha))


def kurtosis(sample):
    """Excess kurtosis of a sample, 0 for a Gaussian one.

    The bias-corrected G₂; the standard error comes from the influence function, so it holds for
    samples that aren't Gaussian, as long as eight moments are finite. For heavier tails both grow
    with the sample and mean no more than that.

    Args:
        sample: Norms, shape `(n,)`, finite and non-negative, not constant; at least 4.

    Returns:
        An `Estimate(value, stderr)`.

    Raises:
        ValueError: If the sample is too small, not one-dimensional or constant, or holds NaN,
            infinite or negative values.

    Example:
        >>> round(kurtosis([1.0, 2.0, 3.0, 4.0]).value, 3)
        -1.2

    References:
        D. N. Joanes, C. A. Gill, "Comparing measures of sample skewness and kurtosis", The
        Statistician 47 (1998).
    """
    deviations = _standardized(sample)
    n = len(deviations)
    third, fourth = np.mean(deviations**3), np.mean(deviations**4)
    influence = deviations**4 - fourth - 4 * third * deviations - 2 * fourth * (deviations**2 - 1)
    value = (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * (fourth - 3) + 6)
    return Estimate(float(value), float(influence.std() / math.sqrt(n)))


def skewness(sample):
    """Skewness of a sample, 0 for a symmetric one.

    The bias-corrected G₁, with a standard error from the influence function, which holds as long
    as six moments are finite.

    Args:
        sample: Norms, shape `(n,)`, finite and non-negative, not constant; at least 4.

    Returns:
        An `Estimate(value, stderr)`.

    Raises:
        ValueError: As `kurtosis`.

    Example:
        >>> skewness([1.0, 2.0, 3.0, 4.0]).value
        0.0

    References:
        Joanes and Gill (1998).
    """
    deviations = _standardized(sample)
    n = len(deviations)
    third = np.mean(deviations**3)
    influence = deviations**3 - third - 3 * deviations - 1.5 * third * (deviations**2 - 1)
    value = math.sqrt(n * (n - 1)) / (n - 2) * third
    return Estimate(float(value), float(influence.std() / math.sqrt(n)))


def gaussian_reference(sample, dimension=None, seed=0):
    """Fits the norms of Gaussian vectors to a sample of norms.

    The norm of a d-dimensional vector of independent N(0, scale²) coordinates is `scale` times a χ
    variable with d degrees of freedom. Scale and d are those of maximum likelihood. Unless given,
    d is an effective dimension: noise whose coordinates differ in variance, as a gradient's do, has
    norms like those of fewer, equal ones.

    Args:
        sample: Norms, shape `(n,)`, finite and positive, not constant; at least 20.
        dimension: d, at least 1. Default: fitted.
        seed: Seed of the random half that `p_value` is computed with. Defaults to 0.

    Returns:
        A `Reference`. Its `p_value` allows for the fit: the law is fitted to a random half and then
        compared with the whole, which restores the Kolmogorov-Smirnov law (Durbin's device).

    Raises:
        ValueError: If the sample is too small, not one-dimensional or constant, or holds NaN,
            infinite, negative or zero values; if `dimension` is below 1.

    Example:
        >>> norms = np.linalg.norm(np.random.default_rng(0).normal(size=(500, 100)), axis=1)
        >>> gaussian_reference(norms).p_value > 0.01
        True

    References:
        Zhang et al. (2020), Figure 1 (c). M. A. Stephens, "On the half-sample method for
        goodness-of-fit", Journal of the Royal Statistical Society B 40 (1978).
    """
    norms = _positive(_varying(_sample(sample, LEAST_FOR_TAIL)))
    if dimension is not None:
        dimension = arguments.real("dimension", dimension, low=1)
    fit = functools.partial(_fit_gaussian, dimension=dimension)
    return _reference("gaussian", norms, fit, seed)


def stable_reference(sample, alpha=None, dimension=None, seed=0):
    """Fits the norms of isotropic α-stable vectors to a sample of norms.

    Such a vector is √A times a Gaussian one, A positive and stable with index α/2; in one dimension
    its norm is |X| of a symmetric α-stable X, and α = 2 is the Gaussian reference. Vectors of many
    independent α-stable coordinates have norms of the same law, at large d. α, d and the scale are
    those of maximum likelihood, with an exact density by Fourier inversion of the law of log-norms.

    Args:
        sample: Norms, shape `(n,)`, finite and positive; at least 20. The standard deviation of
            their logarithms must be at least 0.001 for the law to be resolved.
        alpha: Stability index in [0.5, 2]. Default: fitted.
        dimension: Effective dimension, from 1 to 500,000. Default: fitted.
        seed: Seed of the random half that `p_value` is computed with. Defaults to 0.

    Returns:
        A `Reference`, its `p_value` as in `gaussian_reference`.

    Raises:
        ValueError: If the sample is too small, not one-dimensional or varies too little, or holds
            NaN, infinite, negative or zero values; if `alpha` or `dimension` is out of range.

    Example:
        >>> norms = np.abs(np.random.default_rng(0).standard_cauchy(size=500))
        >>> round(stable_reference(norms, dimension=1).alpha)
        1

    References:
        Zhang et al. (2020), Figure 1 (g); G. Samorodnitsky, M. S. Taqqu, Stable Non-Gaussian Random
        Processes (1994), section 2.5 (sub-Gaussian vectors). p-value: Stephens (1978).
    """
    norms = _positive(_varying(_sample(sample, LEAST_FOR_TAIL)))
    if np.log(norms).std() < _LEAST_LOG_SPREAD:
        raise ValueError(
            f"The norms' logarithms have a standard deviation of {np.log(norms).std():.2g}; an "
            f"α-stable reference needs at least {_LEAST_LOG_SPREAD:g}."
        )
    if alpha is not None:
        alpha = arguments.real("alpha", alpha, low=_LEAST_ALPHA, high=2)
    if dimension is not None:
        dimension = arguments.real("dimension", dimension, low=1, high=_MOST_DIMENSIONS)
    fit = functools.partial(_fit_stable, alpha=alpha, dimension=dimension)
    return _reference("stable", norms, fit, seed)


def likelihood_ratio(narrow, wide):
    """Tests the Gaussian reference against the α-stable one, which contains it as α = 2.

    Args:
        narrow: The `Reference` held to be true unless the sample speaks against it: Gaussian.
        wide: The `Reference` of the wider family: stable, fitted to the same sample.

    Returns:
        A `LikelihoodRatio`. Its p-value is half the χ² law's with one degree of freedom, since
        α = 2 lies at the edge of the family. It errs on the large side: on Gaussian samples the
        gain is nearly always 0.

    Raises:
        ValueError: If the two don't belong to one sample.

    Example:
        >>> norms = np.abs(np.random.default_rng(0).standard_cauchy(size=500))
        >>> ratio = likelihood_ratio(gaussian_reference(norms), stable_reference(norms))
        >>> ratio.p_value < 0.001
        True

    References:
        S. G. Self, K.-Y. Liang, "Asymptotic properties of maximum likelihood estimators and
        likelihood ratio tests under nonstandard conditions", JASA 82 (1987), case 5.
    """
    if not np.array_equal(narrow.sample_quantiles, wide.sample_quantiles):
        raise ValueError("The two references are fitted to different samples.")
    statistic = 2 * (wide.log_likelihood - narrow.log_likelihood)
    if statistic <= 0:
        return LikelihoodRatio(float(statistic), 1.0)
    return LikelihoodRatio(float(statistic), float(0.5 * stats.chi2.sf(statistic, 1)))


def classify(sample):
    """Says whether a sample of norms is heavy-tailed, concentrated, or doesn't tell.

    Heavy-tailed means, as in the paper, a tail index below 2: infinite variance. It is said when
    the 95% interval of Hill's index lies below 2 and the shape ξ of the excesses is above 0.4, both
    over a data-chosen threshold and over the far tail alone (the largest 3√n norms, at most a
    fifth); or when the 95% interval of the former ξ lies above 1/2 and that of the latter doesn't
    lie below: a wide bulk with an end is no heavy tail.

    Concentrated means finite variance. It is said when Hill's interval lies above 2, the interval
    of ξ over the far tail alone lies below 1/2, and the
    excess kurtosis is below n/80, which 98% of α-stable samples with α ≤ 1.7 exceed. The last two
    guard against α-stable noise with α near 2, whose bulk looks Gaussian and hides its tail from
    Hill's estimator.

    Anything else is undecided. That is what to expect of laws near the border, such as α-stable
    ones with α from 1.5 to 2 or Student's with 3 degrees of freedom, until there are thousands of
    norms. Some laws with finite variance look as if they had none in samples of this size and are
    called heavy-tailed: lognormal with a standard deviation of the logarithm near 2 (nearly always,
    of 500 norms), stretched exponential with exponent 1/2 (one time in six).

    Args:
        sample: Norms, shape `(n,)`, finite and non-negative. With fewer than 100 norms, or where
            half of them, or of the largest, repeat others, the verdict is undecided.

    Returns:
        A `Verdict`.

    Raises:
        ValueError: If the sample is empty, not one-dimensional, or holds NaN, infinite or negative
            values.

    Example:
        >>> norms = np.linalg.norm(np.random.default_rng(0).normal(size=(500, 100)), axis=1)
        >>> classify(norms).label
        'concentrated'

    References:
        Zhang et al. (2020), section 2; Hill (1975); Zhang and Stephens (2009).
    """
    norms = _sample(sample, 1)
    size = len(norms)
    if size < LEAST_FOR_VERDICT:
        return Verdict(
            "undecided",
            f"{size} norms are too few to tell a tail by; at least {LEAST_FOR_VERDICT} are needed.",
            size,
        )
    if _is_constant(norms):
        return Verdict("undecided", f"All {size} norms are equal: there is no tail to see.", size)
    far_count = int(min(size / 5, 3 * math.sqrt(size)))
    for what, values in (("", norms), (" largest", np.sort(norms)[-far_count - 1 :])):
        distinct = len(np.unique(values))
        if distinct <= len(values) / 2:
            return Verdict(
                "undecided",
                f"Only {distinct} of the {len(values)}{what} norms are distinct: rounding or "
                "clipping hides the tail.",
                size,
            )
    estimate = hill(norms)
    excess = generalized_pareto(norms)
    far = generalized_pareto(norms, k=far_count)
    excess_kurtosis = kurtosis(norms).value
    label, reason = _judge(size, estimate, excess, far, excess_kurtosis)
    return Verdict(label, reason, size, estimate, excess, far, excess_kurtosis)


def _judge(size, estimate, excess, far, excess_kurtosis):
    evidence = (
        f"Hill's tail index of the {estimate.k} largest of {size} norms is {estimate.alpha:.3g} "
        f"(95% interval {estimate.low:.3g} to {estimate.high:.3g})"
    )
    if estimate.high < 2 and min(excess.shape, far.shape) > _HEAVY_SHAPE:
        return "heavy-tailed", (
            f"{evidence}, below 2: infinite variance; that of their excesses over a threshold "
            f"agrees ({1 / excess.shape:.3g}, of the {far.k} largest alone {1 / far.shape:.3g})."
        )
    if excess.low > 0.5 and far.high >= 0.5:
        return "heavy-tailed", (
            f"The tail index of the {excess.k} largest of {size} norms, by their excesses over a "
            f"threshold, is {1 / excess.shape:.3g} (95% interval {1 / excess.high:.3g} to "
            f"{1 / excess.low:.3g}), below 2: infinite variance."
        )
    far_words = f"{1 / far.high:.3g}" if far.high > 1e-3 else "1000"
    most = size * _KURTOSIS_SHARE
    doubts = []
    if excess.low > 0.5:
        doubts.append(f"the excesses of the {far.k} largest alone fall off faster than the bulk's")
    elif estimate.high < 2:
        doubts.append("their excesses over a threshold fall off faster than that")
    elif estimate.low <= 2:
        doubts.append("that leaves open on which side of 2 it lies")
    if far.high >= 0.5:
        doubts.append(f"the {far.k} largest alone allow an index as low as {far_words}")
    if excess_kurtosis >= most:
        doubts.append(
            f"the excess kurtosis of {excess_kurtosis:.3g} is as large as α-stable noise's "
            f"(over {most:.3g})"
        )
    if doubts:
        return "undecided", f"{evidence}, but {', and '.join(doubts)}."
    return "concentrated", (
        f"{evidence}, above 2: finite variance; the {far.k} largest alone put it at {far_words} or "
        f"more, and the excess kurtosis of {excess_kurtosis:.3g} is smaller than α-stable noise's "
        f"(over {most:.3g})."
    )


def _sample(sample, least, *, signed=False, dimensions=(1,)):
    if np.iscomplexobj(sample):
        raise TypeError("A sample must be an array of real numbers. Received complex ones.")
    try:
        values = np.asarray(sample, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"A sample must be an array of real numbers: {error}") from error
    if values.ndim not in dimensions:
        wanted = " or ".join(map(str, dimensions))
        raise ValueError(
            f"A sample must have {wanted} dimension(s). Received shape {values.shape}."
        )
    if len(values) < least:
        raise ValueError(f"A sample must hold at least {least} values. Received: {len(values)}")
    bad = ~np.isfinite(values)
    if bad.any():
        raise ValueError(
            f"{np.count_nonzero(bad)} of {values.size} values are NaN or infinite; the first at "
            f"index {np.argwhere(bad)[0].tolist()}. Leave them out, and say so."
        )
    if np.abs(values).max() > _LARGEST:
        raise ValueError(
            f"Values must be at most {_LARGEST:g}, so that their squares are finite. "
            f"Received: {np.abs(values).max():g}"
        )
    if not signed and values.min() < 0:
        raise ValueError(f"Norms can't be negative. Received: {values.min():g}")
    return values


def _is_constant(values):
    return np.ptp(values) <= 8 * np.finfo(np.float64).eps * np.abs(values).max()


def _varying(norms):
    if _is_constant(norms):
        raise ValueError(f"All {len(norms)} norms equal {norms[0]:g}: they have no spread.")
    return norms


def _positive(norms):
    if norms.min() == 0:
        raise ValueError("A reference needs positive norms; the sample holds a zero.")
    return norms


def _level(confidence):
    return arguments.real("confidence", confidence, low=0, high=1, open_low=True, open_high=True)


def _two_sided(confidence):
    return (1 - confidence) / 2, (1 + confidence) / 2


def _order_count(k, norms, least=2):
    k = arguments.positive_integer("k", k)
    most = min(len(norms) - 1, np.count_nonzero(norms) - 1)
    if not least <= k <= most:
        raise ValueError(
            f"Argument `k` must be from {least} to {most} for {len(norms)} norms. Received: {k}"
        )
    if np.sort(norms)[-k - 1] == norms.max():
        raise ValueError(f"The {k + 1} largest norms are equal: they have no tail index.")
    return k


def _descending_logs(norms):
    positive = norms[norms > 0]
    return np.log(np.sort(positive)[::-1] / positive.max(initial=0.0))


def _hill(logs, k):
    return k / (np.cumsum(logs)[np.subtract(k, 1)] - k * logs[k])


def _hill_interval(alpha, k, confidence):
    low, high = _two_sided(confidence)
    return (alpha * stats.chi2.ppf(q, 2 * np.asarray(k)) / (2 * np.asarray(k)) for q in (low, high))


def _scan(n, points=None):
    if points is None:
        if n <= _EXHAUSTIVE_SCAN:
            return np.arange(_LEAST_K, n)
        points = _SCAN_POINTS
    return np.unique(np.geomspace(_LEAST_K, max(n - 1, _LEAST_K), points).round().astype(int))


def _choose_k(logs, candidates):
    """Number of norms above the threshold of Clauset, Shalizi and Newman's rule."""
    nearest, best = math.inf, None
    for k in candidates:
        if k >= len(logs) or logs[k] == logs[0] or (k + 1 < len(logs) and logs[k] == logs[k + 1]):
            continue
        excesses = logs[: k + 1] - logs[k]
        fitted = -np.expm1(-(k + 1) / excesses.sum() * excesses)
        empirical = np.arange(k, -1, -1) / (k + 1)
        distance = np.abs(fitted - empirical).max()
        if distance < nearest:
            nearest, best = distance, int(k)
    return best


def _fit_excesses(excesses):
    """Kolmogorov-Smirnov distance, ξ and σ of Zhang and Stephens's fit to ascending excesses."""
    n = len(excesses)
    unit = excesses[-1]
    scaled = excesses / unit
    points = 30 + math.isqrt(n)
    quartile = scaled[int(n / 4 + 0.5) - 1]
    theta = 1 + (1 - np.sqrt(points / (np.arange(1, points + 1) - 0.5))) / (3 * quartile)
    theta[theta == 0] = 1e-12
    shapes = np.log1p(-theta[:, None] * scaled).mean(axis=1)
    log_likelihoods = n * (np.log(-theta / shapes) - shapes - 1)
    theta = special.softmax(log_likelihoods) @ theta
    logs = np.log1p(-theta * scaled)
    shape = logs.mean()
    law = -np.expm1(-logs / shape)
    steps = np.arange(n + 1) / n
    distance = max((law - steps[:-1]).max(), (steps[1:] - law).max())
    return distance, shape, -shape / theta * unit


def _log_sizes(vectors):
    sizes = np.linalg.norm(vectors, axis=-1)
    rounded = sizes == 0
    if rounded.mean() > 0.01:
        raise ValueError("Too many values of the sample are equal: their differences vanish.")
    return np.log(np.where(rounded, sizes[~rounded].min(), sizes))


def _standardized(sample):
    norms = _varying(_sample(sample, LEAST_FOR_MOMENTS))
    scaled = norms / norms.max()
    deviations = scaled - scaled.mean()
    return deviations / deviations.std()


def _reference(family, norms, fit, seed):
    alpha, dimension, scale = fit(norms)
    law = _law(alpha, dimension)
    half = np.random.default_rng(seed).choice(norms, size=len(norms) // 2, replace=False)
    half_alpha, half_dimension, half_scale = fit(half)
    p_value = stats.kstest(norms / half_scale, _law(half_alpha, half_dimension).cdf).pvalue
    return Reference(
        family=family,
        alpha=float(alpha),
        dimension=float(dimension),
        scale=float(scale),
        log_likelihood=float(_log_likelihood(norms, law, scale)),
        ks=float(stats.kstest(norms / scale, law.cdf).statistic),
        p_value=float(p_value),
        sample_quantiles=np.sort(norms),
        reference_quantiles=scale * law.ppf((np.arange(len(norms)) + 0.5) / len(norms)),
    )


def _log_likelihood(norms, law, scale):
    return np.sum(law.logpdf(norms / scale)) - len(norms) * math.log(scale)


def _fit_gaussian(norms, dimension=None):
    """Maximum likelihood for a scaled χ law: squares follow a gamma law with shape d/2."""
    mean = np.mean((norms / norms.max()) ** 2)
    if dimension is None:
        deviations = (norms / norms.max()) ** 2 / mean - 1
        gap = np.mean(deviations - np.log1p(deviations))

        def excess(log_dimension):
            return _log_minus_digamma(math.exp(log_dimension) / 2) - gap

        dimension = 1.0
        if excess(0.0) > 0:
            dimension = math.exp(optimize.brentq(excess, 0.0, 2 - math.log(gap)))
    return 2.0, dimension, norms.max() * math.sqrt(mean / dimension)


def _log_minus_digamma(x):
    if x > 1e4:
        return 1 / (2 * x) + 1 / (12 * x**2)
    return math.log(x) - special.digamma(x)


def _fit_stable(norms, alpha=None, dimension=None):
    """Maximum likelihood for norms of isotropic α-stable vectors: a grid, then Nelder-Mead."""
    median = np.median(norms)
    center = norms / median
    core = np.subtract(*np.quantile(np.log(center), [0.75, 0.25])) / 1.35
    dimensions = np.clip([0.5 / core**2, 1 / core**2, 4 / core**2], 1, _MOST_DIMENSIONS)
    starts = [
        (a, d, 1 / _law(a, d).ppf(0.5))
        for a in ([1.0, 1.4, 1.7, 1.9, 1.99] if alpha is None else [alpha])
        for d in (np.unique(dimensions) if dimension is None else [dimension])
    ]

    def loss(alpha, dimension, scale):
        return -_log_likelihood(center, _law(alpha, dimension), scale)

    best = min(starts, key=lambda start: loss(*start))
    bounds = ((_LEAST_ALPHA, 2.0), (0.0, math.log(_MOST_DIMENSIONS)), (None, None))
    free = [i for i, given in enumerate((alpha, dimension, None)) if given is None]
    point = np.array([best[0], math.log(best[1]), math.log(best[2])])

    def free_loss(values):
        point[free] = values
        return loss(point[0], math.exp(point[1]), math.exp(point[2]))

    point[free] = optimize.minimize(
        free_loss,
        point[free],
        method="Nelder-Mead",
        bounds=[bounds[i] for i in free],
        options={"xatol": 1e-3, "fatol": 1e-3},
    ).x
    return point[0], math.exp(point[1]), math.exp(point[2]) * median


@functools.lru_cache(maxsize=8)
def _law(alpha, dimension):
    """The law of the norm of a standard isotropic α-stable vector."""
    if alpha > _GAUSSIAN_ALPHA:
        if dimension > 1e8:
            return stats.norm(math.sqrt(dimension - 0.5), math.sqrt(0.5))
        return stats.chi(dimension)
    return _StableNorm(alpha, dimension)


class _StableNorm:
    """The norm √A·χ_d: A positive and stable with index α/2, χ_d a χ variable.

    The characteristic function of its logarithm is a ratio of gamma functions, since
    E A^s = Γ(1 − 2s/α)/Γ(1 − s) and E χ_d^s = 2^{s/2}·Γ((d + s)/2)/Γ(d/2); its density follows by a
    Fourier transform. Beyond the transform's accuracy the tails continue as the powers that they
    are: x^-α to the right and x^d to the left.
    """

    def __init__(self, alpha, dimension):
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

    def logpdf(self, x):
        y = np.log(x)
        inside = np.interp(y, self.logs, self.log_densities)
        right = np.maximum(y - self.logs[-1], 0)
        left = np.maximum(self.logs[0] - y, 0)
        return inside - self.alpha * right - self.dimension * left - y

    def cdf(self, x):
        y = np.log(x)
        right = np.maximum(y - self.logs[-1], 0)
        left = np.maximum(self.logs[0] - y, 0)
        inside = np.interp(y, self.logs, self.cumulative) * np.exp(-self.dimension * left)
        return 1 - (1 - inside) * np.exp(-self.alpha * right)

    def ppf(self, q):
        q = np.asarray(q)
        above = np.log((1 - self.cumulative[-1]) / (1 - np.maximum(q, self.cumulative[-1])))
        below = np.log(np.minimum(q, self.cumulative[0]) / self.cumulative[0])
        inside = np.interp(q, self.cumulative, self.logs)
        return np.exp(inside + above / self.alpha + below / self.dimension)

    def rvs(self, size, random_state):
        scale = math.cos(math.pi * self.alpha / 4) ** (2 / self.alpha)
        factors = stats.levy_stable.rvs(
            self.alpha / 2, 1, scale=scale, size=size, random_state=random_state
        )
        return np.sqrt(factors * random_state.chisquare(self.dimension, size))
