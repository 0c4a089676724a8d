"""How fast GClip, CClip and SGD converge under noise with an α-moment: Table 1, Theorems 2, 4, 8.

    python examples/convergence_rates.py
    python examples/convergence_rates.py --scale paper --output out/convergence_rates_paper

The claims (Sections 3 and 5, Table 1): noise with E‖g − ∇f‖^α finite, α in (1, 2], lets GClip
reach E f − f* = O(k^{−2(α−1)/α}) on strongly convex functions (Theorem 4) and E‖∇f‖ =
O(K^{−(α−1)/(3α−2)}) on smooth ones (Theorem 2); SGD's mean error is infinite below α = 2, whatever
its schedule (Remark 1); and CClip's bound has no factor of the dimension where GClip's has
d^{2/α−1}, at worst d (Theorem 8, Corollary 7). All are upper bounds: a slope below the theorem's
agrees with it.

The noise is symmetric Pareto, P(‖ξ‖ > x) = (s/x)^p, with p = α + `--excess`: at p = α its α-moment
would be infinite, and any fixed noise that has the moment has lighter tails than the worst case, a
little. So the theorem's exponent is that of the limit excess → 0. The price of a small excess is
the constant: (E‖ξ‖^α)^{1/α} is (p/(p − α))^{1/α} times s, and the jumps that make the error are
rare.

The instances are chosen to be near the bounds:

- Strongly convex: f(x) = x²/2 on [−1, 1], Theorem 4's schedules with G = 1 + σ and σ = 0.3, the
  averaged output. The column "expected" is the slope of E min(‖ξ‖, c_k)²/k over the same k, where
  c_k is the smaller of τ_k and (k + 1)/4, the noise that leads from 0 to the edge of the domain in
  one step: until k reaches (4G)^{α/(α−1)}, which is 20,000 for α = 1.2, it is the projection that
  bounds the jumps, and the slope is fitted from there on. At α = 2 the variance is finite, but
  E min(‖ξ‖, τ)² still grows at any τ within reach, so that the slope is above −1.
- Non-convex: f(x, y) = (1 + x²)^{−q/2}/q + y²/2 with q = 0.1, from (1, 0). Along x it goes down
  forever, ever more gently, so that gradient descent has ‖∇f‖ = T^{−(q+1)/(q+2)} after the time
  T = ηK: nearly T^{−1/2}, the slowest that a finite F₀ allows ("expected"). In y the noise alone
  sets ‖∇f‖. η and τ are Theorem 2's with τ's last term alone, `balanced_threshold`: the other
  terms, of constants as 48^{1/(α−1)}, set τ until K is what the table's last column says.

SGD runs on the same function without projection, 1/k being Theorem 4's rate. Its median error and
its mean are told apart: the mean over n seeds of an error with infinite mean grows as n^{2/p−1}.

Dimension: f(x) = ‖x‖²/2, α = 1.2, independent noise in each coordinate with E|g_i|^α = B_i^α at the
minimum and ‖B‖₂ = 1; G = ‖B‖_α. There is no projection: a ball on which E|g_i|^α ≤ B_i^α has radius
B_i at most, and then it is the ball that bounds GClip's steps until k is about d^{1/(α−1)}.

Measured by the first command (4000 seeds, k to 300,000 for Theorem 4; 500 seeds, K from 1054 to
31,623 for Theorem 2; bootstrap intervals of 95% over seeds; "matches": the theorem's exponent lies
in the interval, "below": all of it is steeper):

    α    Theorem 4: exponent, fitted slope         expected   Theorem 2: exponent, fitted  expected
    1.2  -0.333  -0.508 [-0.643, -0.355] below     -0.375     -0.125  -0.127 below         -0.131
    1.4  -0.571  -0.604 [-0.660, -0.548] matches   -0.606     -0.182  -0.185 below         -0.190
    1.6  -0.750  -0.772 [-0.818, -0.725] matches   -0.776     -0.214  -0.222 below         -0.224
    1.8  -0.889  -0.881 [-0.914, -0.848] matches   -0.891     -0.235  -0.248 below         -0.246
    2.0  -1.000  -0.943 [-0.966, -0.922] above     -0.956     -0.250  -0.264 below         -0.262

Theorem 4's error was never over 0.23% of what its proof allows. At α = 2 its slope is shallower
than the theorem's, for the reason above, not for a fault of the theorem. With k to 100,000 and the
fit from 1000 on, where the projection still bounds the jumps, α = 1.2 gave -0.231 [-0.287, -0.175].
The intervals of Theorem 2 are ±0.001: of its two error terms the deterministic one dominates. Its
literal constants, unlike the balanced ones, give their rate only from K = 5e6 (α = 2) to 2e11 (α =
1.2) on.

SGD (100,000 seeds, 1000 steps): with a constant rate neither its median nor its mean falls; with
1/√k and 1/k the median does, with 1/k exactly as GClip's (slopes -0.396, -0.591, -0.724, -0.813,
-0.876), but the mean has no value below α = 2: over 512 to 4096 seeds, rate 1/k, it grows as
n^0.52, n^0.35, n^0.22 for α = 1.2, 1.4, 1.6 (an infinite mean: 0.60, 0.38, 0.21). GClip's grows as
n^0.09, n^0.09, n^0.06 there, level in the figure. At α = 1.2 one seed of the 100,000 makes 92% of
SGD's mean and 0.7% of GClip's. At α = 1.8 these seeds hardly tell the two apart (0.13 against 0.05;
0.08 expected). So "does not converge" is right of the mean alone.

Dimension (200 seeds and more, 300 steps): CClip's error/‖B‖₂² is 0.0045 from d = 1 to 10,000, slope
0.000 [-0.004, +0.003]; GClip's rises from 0.0045 to 1.3, slope 0.621 [0.577, 0.659], 2/α − 1 being
0.667.
"""

import sys

import comparison
import matplotlib.pyplot as plt
import numpy as np
import rates
import tensorflow as tf
from keras import ops

from keras_acclip import rules, thresholds
from keras_acclip.noise import plots

ALPHAS = np.array([1.2, 1.4, 1.6, 1.8, 2.0])

SCALES = {
    "small": {
        "seeds": 4000,
        "steps": 300_000,
        "nonconvex_seeds": 500,
        "nonconvex_steps": 31_623,
        "sgd_seeds": 100_000,
        "sgd_steps": 1000,
        "dimension_seeds": 200,
        "dimension_steps": 300,
        "dimension": 10_000,
        "excess": 0.05,
    },
    "smoke": {
        "seeds": 200,
        "steps": 1000,
        "nonconvex_seeds": 200,
        "nonconvex_steps": 1000,
        "sgd_seeds": 2000,
        "sgd_steps": 100,
        "dimension_seeds": 200,
        "dimension_steps": 20,
        "dimension": 100,
        "excess": 0.05,
    },
    "paper": {
        "seeds": 20_000,
        "steps": 1_000_000,
        "nonconvex_seeds": 2000,
        "nonconvex_steps": 1_000_000,
        "sgd_seeds": 200_000,
        "sgd_steps": 10_000,
        "dimension_seeds": 1000,
        "dimension_steps": 1000,
        "dimension": 10_000,
        "excess": 0.05,
    },
}

SIGMA = 0.3  # (E‖ξ‖^α)^{1/α}, in units of the gradient.
RADIUS = 1.0  # Of the domain of the strongly convex function.
BOUND = SIGMA + RADIUS  # G: Minkowski's inequality for noise and gradient.
FLATNESS = 0.1  # q of the non-convex function.
START = 1.0  # Where it is started, in x.
GAP = (1 + START**2) ** (-FLATNESS / 2) / FLATNESS  # F₀; its smoothness L is 1.
DIMENSION_ALPHA = 1.2
CONSTANT_RATE, ROOT_RATE = 0.1, 0.5  # SGD's η and η·√k.
METHODS = ("SGD, constant", "SGD, 1/√k", "SGD, 1/k", "GClip, 1/k")


def noise_law(alphas, sigma, excess):
    """Tail index and scale of the Pareto noise whose α-moment is sigma^α, one for each α."""
    indices = alphas + excess
    return indices, rates.pareto_scale(indices, alphas, sigma)


def column(values):
    """One value for each α as a float64 column, which goes with arrays of shape `(α, seeds)`."""
    return tf.constant(np.asarray(values)[:, None], tf.float64)


def symmetric_noise(seed, k, shape, law):
    """Symmetric Pareto noise on the line, the same uniform numbers for every α."""
    u = rates.uniform(seed, k, shape)
    return tf.sign(u) * rates.pareto_radius(u, *map(column, law))


def schedules(gradient_moment, alphas):
    """Theorem 4's η_k, a scalar, and τ_k, a column, as a function of k."""
    made = [thresholds.strongly_convex_constants(gradient_moment, 1.0, a) for a in alphas]

    def at(k):
        taus = tf.stack([constants.threshold(k - 1) for constants in made])
        rate = made[0].learning_rate(k - 1)
        return tf.cast(rate, tf.float64), tf.cast(taus, tf.float64)[:, None]

    return at


def bound_exponent(alpha):
    """Theorem 4's exponent of k."""
    return -2 * (alpha - 1) / alpha


def nonconvex_exponent(alpha):
    """Theorem 2's exponent of K."""
    return -(alpha - 1) / (3 * alpha - 2)


# --- Strongly convex: Theorem 4 --------------------------------------------------------------


@rates.compiled
def projected_gclip(checkpoints, seed, seeds, excess):
    """Errors f(x̄_k) of projected GClip on x²/2, shape `(checkpoints, α, seeds)`."""
    law = noise_law(ALPHAS, SIGMA, excess)
    constants = schedules(BOUND, ALPHAS)

    def advance(k, x, average):
        rate, threshold = constants(k)
        average = rules.linear_average(average, x, tf.cast(k, tf.float64))
        g = x + symmetric_noise(seed, k, (seeds,), law)
        x = x - rate * rules.gclip_factor(tf.abs(g), threshold, ops) * g
        return x * rules.projection_factor(tf.abs(x), RADIUS, ops), average

    start = tf.fill((len(ALPHAS), seeds), tf.constant(RADIUS, tf.float64))
    return rates.record(advance, [start, start], checkpoints, lambda k, x, average: average**2 / 2)


def theorem_4_bound(steps, alpha, gradient_moment, strong_convexity=1.0):
    """The error that Theorem 4's proof allows at each of the steps.

    With the schedules of `strongly_convex_constants` the proof's recursion, multiplied by k, sums
    to K(K+1)/2·E(f(x̄) − f*) ≤ 3·G²/μ·Σ k^{2/α−1}: variance gives twice that sum, bias once.
    """
    sums = np.cumsum(np.arange(1.0, max(steps) + 1) ** (2 / alpha - 1))
    steps = np.asarray(steps)
    return 6 * gradient_moment**2 / strong_convexity / (steps * (steps + 1.0)) * sums[steps - 1]


def expected_error(steps, alpha, excess):
    """The error of projected GClip up to a constant: truncated variance over k (see above)."""
    (index,), (scale,) = noise_law(np.array([alpha]), SIGMA, excess)
    steps = np.asarray(steps, float)
    threshold = rules.power_threshold(steps, BOUND, alpha)
    cut = np.minimum(threshold, RADIUS * (steps + 1) / 4)
    return rates.truncated_second_moment(index, scale, cut) / steps


def fitted_from(alpha, steps):
    """The k from which the slope is fitted: the last two decades, past the projection's part.

    In `expected_error` the cut is τ_k = G·k^{1/α} from k = (4G/μR)^{α/(α−1)} on; where that is
    beyond the last decade, the fit begins there nevertheless.
    """
    clipped = (4 * BOUND / RADIUS) ** (alpha / (alpha - 1))
    return min(max(steps / 100, clipped), steps / 10)


def strongly_convex(options):
    """Theorem 4's rate: a fit for each α over the late k."""
    steps = rates.checkpoints(10, options.steps, per_decade=4)
    errors = projected_gclip(tf.constant(steps), 0, options.seeds, options.excess).numpy()
    fits = []
    for alpha, by_step in zip(ALPHAS, errors.swapaxes(0, 1), strict=True):
        first = fitted_from(alpha, options.steps)
        fitted = rates.fit(steps, by_step, first)
        late = steps >= first
        bound = bound_exponent(alpha)
        limits = theorem_4_bound(steps, alpha, BOUND)
        expected = rates.slope(steps[late], expected_error(steps[late], alpha, options.excess))
        fits.append(
            {"alpha": alpha, "bound": bound, "verdict": rates.verdict(fitted, bound)}
            | {
                "first": first,
                "expected": float(expected),
                "share": float(np.max(by_step.mean(-1) / limits)),
            }
            | fitted
        )
    return fits


# --- Non-convex: Theorem 2 -------------------------------------------------------------------


def nonconvex_gradient(x, y):
    """∇f of f(x, y) = (1 + x²)^{−q/2}/q + y²/2."""
    return -x * (1 + x * x) ** (-FLATNESS / 2 - 1), y


@rates.compiled
def mean_gradient_norm(steps, rate, threshold, seed, seeds, excess):
    """‖∇f(x_k)‖ of GClip, averaged over k = 0 … steps − 1; shape `(α, seeds)`."""
    law = [column(values) for values in noise_law(ALPHAS, SIGMA, excess)]

    def advance(k, x, y, total):
        gx, gy = nonconvex_gradient(x, y)
        total = total + tf.sqrt(gx * gx + gy * gy)
        u = rates.uniform(seed, k, (2, seeds))
        radius = rates.pareto_radius(u[0], *law)
        gx, gy = gx + radius * tf.cos(np.pi * u[1]), gy + radius * tf.sin(np.pi * u[1])
        factor = rate * rules.gclip_factor(tf.sqrt(gx * gx + gy * gy), threshold, ops)
        return x - factor * gx, y - factor * gy, total

    zero = tf.zeros((len(ALPHAS), seeds), tf.float64)
    only = tf.reshape(steps, (1,))
    total = rates.record(advance, [zero + START, zero, zero], only, lambda k, x, y, total: total)
    return total[0] / tf.cast(steps, tf.float64)


def balanced_constants(alpha, steps):
    """Theorem 2's η and τ where K is large enough for τ's last term to be the largest."""
    threshold = thresholds.balanced_threshold(1.0, SIGMA, alpha, steps, GAP)
    return min(1 / 4, (SIGMA / threshold) ** alpha), threshold


def steps_of_the_literal_constants(alpha):
    """The K from which `nonconvex_constants` are the balanced ones."""
    other = thresholds.nonconvex_constants(1.0, SIGMA, alpha, 1, GAP).threshold
    return GAP * other ** (3 * alpha - 2) / SIGMA ** (3 * alpha)


def nonconvex(options):
    """Theorem 2's rate: a fit over runs of several lengths K, each with its own constants."""
    horizons = rates.checkpoints(
        max(10, options.nonconvex_steps // 30), options.nonconvex_steps, per_decade=4
    )
    errors = []
    for number, steps in enumerate(horizons):
        constants = [balanced_constants(alpha, int(steps)) for alpha in ALPHAS]
        rate, threshold = map(column, zip(*constants, strict=True))
        run = (rate, threshold, tf.constant(number), options.nonconvex_seeds, options.excess)
        errors.append(mean_gradient_norm(tf.constant(steps), *run).numpy())
    fits = []
    for alpha, by_horizon in zip(ALPHAS, np.stack(errors, 1), strict=True):
        fitted = rates.fit(horizons, by_horizon)
        bound = nonconvex_exponent(alpha)
        expected = 2 * bound * (FLATNESS + 1) / (FLATNESS + 2)
        fits.append(
            {"alpha": alpha, "bound": bound, "verdict": rates.verdict(fitted, bound)}
            | {"expected": expected, "literal_from": steps_of_the_literal_constants(alpha)}
            | fitted
        )
    return fits


# --- SGD: Remark 1 ---------------------------------------------------------------------------


@rates.compiled
def last_iterates(checkpoints, seed, seeds, excess):
    """Errors f(x_k) on x²/2 without projection, shape `(checkpoints, METHODS, α, seeds)`."""
    law = noise_law(ALPHAS, SIGMA, excess)
    constants = schedules(BOUND, ALPHAS)

    def advance(k, x):
        g = x + symmetric_noise(seed, k, (seeds,), law)
        rate, threshold = constants(k)
        root = ROOT_RATE / tf.sqrt(tf.cast(k, tf.float64))
        step_sizes = tf.stack([tf.constant(CONSTANT_RATE, tf.float64), root, rate, rate])
        clipped = g[3] * rules.gclip_factor(tf.abs(g[3]), threshold, ops)
        return (x - step_sizes[:, None, None] * tf.stack([g[0], g[1], g[2], clipped]),)

    start = tf.fill((len(METHODS), len(ALPHAS), seeds), tf.constant(RADIUS, tf.float64))
    return rates.record(advance, [start], checkpoints, lambda k, x: x**2 / 2)


def mean_by_seeds(errors):
    """The mean over n seeds, for n = 1, 2, 4, …: the median over disjoint sets of n seeds.

    Returns:
        The pair of lists n and mean.
    """
    counts = 2 ** np.arange(int(np.log2(len(errors) / 16)) + 1)
    means = [
        np.median(errors[: len(errors) // n * n].reshape(-1, n).mean(1)) for n in counts.tolist()
    ]
    return counts.tolist(), [float(mean) for mean in means]


def sgd(options):
    """Remark 1: SGD's median and mean error over time, and its mean over more and more seeds."""
    steps = rates.checkpoints(10, options.sgd_steps, per_decade=4)
    errors = last_iterates(tf.constant(steps), 1, options.sgd_seeds, options.excess).numpy()
    runs = []
    for i, method in enumerate(METHODS):
        for j, alpha in enumerate(ALPHAS):
            median = np.median(errors[:, i, j], axis=-1)
            counts, means = mean_by_seeds(errors[-1, i, j])
            late = steps >= options.sgd_steps / 30
            many = np.array(counts) >= counts[-1] / 8
            growth = rates.slope(np.array(counts)[many], np.array(means)[many])
            runs.append(
                {"method": method, "alpha": alpha, "steps": steps.tolist()}
                | {"median": median.tolist(), "mean": errors[:, i, j].mean(-1).tolist()}
                | {"median_slope": float(rates.slope(steps[late], median[late]))}
                | {"counts": counts, "mean_by_seeds": means, "growth": float(growth)}
                | {"expected_growth": 2 / (alpha + options.excess) - 1}
                | {"largest_share": float(errors[-1, i, j].max() / errors[-1, i, j].sum())}
            )
    return runs


# --- Dimension: Theorem 8 and Corollary 7 ----------------------------------------------------


@rates.compiled
def both_clips(steps, seed, seeds, dimension, excess):
    """Errors f(x̄_K) of GClip and of CClip on ‖x‖²/2 with the same noise, shape `(2, seeds)`."""
    alphas = np.array([DIMENSION_ALPHA])
    coordinate_moment = dimension**-0.5
    moment = dimension ** (1 / DIMENSION_ALPHA) * coordinate_moment
    law = noise_law(alphas, coordinate_moment, excess)
    globally, by_coordinate = schedules(moment, alphas), schedules(coordinate_moment, alphas)

    def advance(k, x, average):
        average = rules.linear_average(average, x, tf.cast(k, tf.float64))
        g = x + symmetric_noise(seed, k, (seeds, dimension), law)
        rate, threshold = globally(k)
        norm = tf.norm(g[0], axis=-1, keepdims=True)
        clipped = [
            g[0] * rules.gclip_factor(norm, threshold, ops),
            rules.cclip(g[1], by_coordinate(k)[1], ops),
        ]
        return x - rate * tf.stack(clipped), average

    start = tf.fill((2, seeds, dimension), tf.constant(coordinate_moment, tf.float64))
    return rates.record(
        advance,
        [start, start],
        tf.reshape(steps, (1,)),
        lambda k, x, average: tf.reduce_sum(average**2, -1) / 2,
    )[0]


def dimension_free(options):
    """Errors of GClip and CClip for growing dimension; a block of seeds where d is small."""
    dimensions = rates.checkpoints(1, options.dimension, per_decade=1)
    errors = []
    for dimension in dimensions.tolist():
        block = round((options.dimension / dimension) ** 0.5)
        run = (2, block * options.dimension_seeds, dimension, options.excess)
        found = both_clips(tf.constant(options.dimension_steps), *run).numpy()
        errors.append(found.reshape(2, options.dimension_seeds, block).mean(-1))
    fits = []
    for method, by_dimension in zip(("GClip", "CClip"), np.stack(errors, 1), strict=True):
        fitted = rates.fit(dimensions, by_dimension)
        bound = 2 / DIMENSION_ALPHA - 1 if method == "GClip" else 0.0
        fits.append(
            {"method": method, "bound": bound, "verdict": rates.verdict(fitted, bound)} | fitted
        )
    return fits


# --- To read ---------------------------------------------------------------------------------


def tables(results):
    """The four tables as Markdown."""
    header = ["strongly convex, α", "theorem 4", "fitted [95%]", "", "expected", "k from"]
    rows = [[*header, "error/bound, most"]]
    for row in results["strongly_convex"]:
        cells = [row["bound"], rates.interval(row), row["verdict"], row["expected"]]
        rows.append(texts([row["alpha"], *cells, f"{row['first']:.0f}", row["share"]]))
    texts_of_all = [comparison.markdown(rows)]
    rows = [["non-convex, α", "theorem 2", "fitted [95%]", "", "expected", "literal τ from K"]]
    for row in results["nonconvex"]:
        cells = [row["bound"], rates.interval(row), row["verdict"], row["expected"]]
        rows.append([*texts([row["alpha"], *cells]), f"{row['literal_from']:.1e}"])
    texts_of_all.append(comparison.markdown(rows))
    header = ["method", "α", "median's slope in k", "mean's slope in seeds", "n^{2/p−1}"]
    rows = [[*header, "largest seed's share"]]
    for row in results["sgd"]:
        cells = [row["median_slope"], row["growth"], row["expected_growth"], row["largest_share"]]
        rows.append([row["method"], *texts([row["alpha"], *cells])])
    texts_of_all.append(comparison.markdown(rows))
    rows = [["dimension", "bound's exponent", "fitted [95%]", "", "error at d = 1", "at largest d"]]
    for row in results["dimension"]:
        cells = [row["bound"], rates.interval(row), row["verdict"], row["mean"][0], row["mean"][-1]]
        rows.append([row["method"], *texts(cells)])
    texts_of_all.append(comparison.markdown(rows))
    return "\n\n".join(texts_of_all)


def texts(cells):
    """Cells as texts, numbers with three digits."""
    return [cell if isinstance(cell, str) else f"{cell:.3g}" for cell in cells]


def draw(results, path):
    """Saves the six panels: Table 1's two columns, their slopes, SGD and dimension."""
    with plots.style():
        figure, panels = plt.subplots(2, 3, figsize=(16, 9), layout="constrained")
        draw_rates(panels[0, 0], results["strongly_convex"], "strongly convex (Theorem 4)")
        panels[0, 0].set(xlabel="step k", ylabel="E f(x̄) − f* (units of the loss)")
        draw_rates(panels[0, 1], results["nonconvex"], "non-convex (Theorem 2)")
        panels[0, 1].set(xlabel="steps K of the run", ylabel="E‖∇f‖ (units of the gradient)")
        draw_slopes(panels[0, 2], results)
        draw_sgd(panels[1, 0], results["sgd"])
        draw_growth(panels[1, 1], results["sgd"])
        draw_dimension(panels[1, 2], results["dimension"])
        figure.suptitle(
            "Rates under noise with an α-moment (Table 1)", x=0.01, ha="left", fontweight="bold"
        )
        plots.save(figure, path)
    plt.close(figure)


MARKERS = "os^Dv"


def draw_rates(axes, fits, title):
    """Errors against steps with the theorem's slope through the last point."""
    for marker, row in zip(MARKERS, fits, strict=True):
        steps, mean = np.array(row["steps"]), np.array(row["mean"])
        label = f"α = {row['alpha']}: {row['slope']:.3f}, theorem {row['bound']:.3f}"
        (line,) = axes.loglog(steps, mean, marker=marker, markersize=4, label=label)
        band = row["mean_low"], row["mean_high"]
        axes.fill_between(steps, *band, color=line.get_color(), alpha=0.15, linewidth=0)
        late = steps[steps >= row.get("first", 0)]
        theory = mean[-1] * (late / late[-1]) ** row["bound"]
        axes.loglog(late, theory, color="#8a8a8a", linestyle="-", linewidth=0.9)
    axes.set_title(f"GClip, {title}")
    axes.legend(title="fitted slope (grey: theorem's, where fitted)", loc="lower left")
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom=bottom * (bottom / top) ** 0.6)  # Room for the legend.


def draw_slopes(axes, results):
    """Fitted slope against α, with intervals, on the theorems' curves."""
    alphas = np.linspace(ALPHAS[0], ALPHAS[-1], 50)
    panels = (
        ("strongly_convex", bound_exponent, "strongly convex", "o"),
        ("nonconvex", nonconvex_exponent, "non-convex", "s"),
    )
    for name, exponent, label, marker in panels:
        (line,) = axes.plot(alphas, exponent(alphas), label=f"{label}, theorem")
        fits = results[name]
        rates.slope_bars(axes, ALPHAS, fits, fmt=marker, color=line.get_color())
        expected = [row["expected"] for row in fits]
        axes.plot(ALPHAS, expected, "_", color=line.get_color(), markersize=14, linestyle="none")
    axes.set(title="Slope against α", xlabel="α", ylabel="slope of log error on log steps")
    axes.plot([], [], "k_", markersize=14, linestyle="none", label="expected of this instance")
    axes.legend()


def draw_sgd(axes, runs):
    """Median and mean error of each method over time, for one α."""
    alpha = ALPHAS[1]
    for marker, method in zip(MARKERS, METHODS, strict=False):
        (row,) = (run for run in runs if (run["method"], run["alpha"]) == (method, alpha))
        (line,) = axes.loglog(
            row["steps"], row["mean"], marker=marker, markersize=4, label=f"{method}: mean"
        )
        style = {"marker": marker, "markersize": 4, "markerfacecolor": "white", "linewidth": 0.8}
        axes.loglog(
            *(row["steps"], row["median"]), color=line.get_color(), label="… median", **style
        )
    axes.set(title=f"SGD, α = {alpha}", xlabel="step k", ylabel="f(x_k) − f*")
    axes.set_ylim(top=30 * axes.get_ylim()[1])
    axes.legend(ncols=2, loc="upper right")


def draw_growth(axes, runs):
    """The mean error against the number of seeds it is taken over, rate 1/k."""
    for marker, alpha in zip(MARKERS[::2], ALPHAS[::2], strict=False):
        for method in METHODS[2:]:
            (row,) = (run for run in runs if (run["method"], run["alpha"]) == (method, alpha))
            fill = "white" if method.startswith("GClip") else None
            axes.loglog(
                *(row["counts"], row["mean_by_seeds"]),
                marker=marker,
                markersize=4,
                markerfacecolor=fill,
                label=f"{method}, α = {alpha}",
            )
    axes.set(
        title="An infinite mean grows with the seeds",
        xlabel="number of seeds",
        ylabel="mean of f(x_k) − f* over them, at the end",
    )
    axes.legend()


def draw_dimension(axes, fits):
    """Errors of GClip and CClip against the dimension."""
    for marker, row in zip(MARKERS, fits, strict=False):
        label = f"{row['method']}: slope {row['slope']:.3f}, bound {row['bound']:.3f}"
        (line,) = axes.loglog(row["steps"], row["mean"], marker=marker, label=label)
        band = row["mean_low"], row["mean_high"]
        axes.fill_between(row["steps"], *band, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set(
        title=f"Dimension, α = {DIMENSION_ALPHA} (Theorem 8, Corollary 7)",
        xlabel="dimension d",
        ylabel="(E f(x̄) − f*)/‖B‖₂²",
    )
    axes.legend()


def report(parts, options):
    """Computes what is missing, prints and saves it."""
    results = {
        "strongly_convex": parts("strongly_convex", strongly_convex, options),
        "nonconvex": parts("nonconvex", nonconvex, options),
        "sgd": parts("sgd", sgd, options),
        "dimension": parts("dimension", dimension_free, options),
    }
    print(tables(results))
    draw(results, options.output / "rates.png")
    parts.finish(results, ("tensorflow", "scipy", "numpy"))
    print(f"\nWritten under {options.output}: results.json, rates.png")


def main(arguments=None):
    """Runs the command line; returns the exit status."""
    return rates.run(__doc__, SCALES, "out/convergence_rates", report, arguments)


if __name__ == "__main__":
    sys.exit(main())
