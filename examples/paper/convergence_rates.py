"""How fast GClip, CClip and SGD converge under noise with an α-moment: Table 1, Theorems 2, 4, 8.

    python examples/paper/convergence_rates.py
    python examples/paper/convergence_rates.py --scale paper --output out/convergence_rates_paper

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

What came out stands in docs/results/convergence_rates.md.
"""

import sys

from lab.theory import command

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


def tables(results):
    """The four tables as Markdown."""
    from lab.tables import markdown, texts
    from lab.theory import slopes

    header = ["strongly convex, α", "theorem 4", "fitted [95%]", "", "expected", "k from"]
    rows = [[*header, "error/bound, most"]]
    for row in results["strongly_convex"]:
        cells = [row["bound"], slopes.interval(row), row["verdict"], row["expected"]]
        rows.append(texts([row["alpha"], *cells, f"{row['first']:.0f}", row["share"]]))
    texts_of_all = [markdown(rows)]
    rows = [["non-convex, α", "theorem 2", "fitted [95%]", "", "expected", "literal τ from K"]]
    for row in results["nonconvex"]:
        cells = [row["bound"], slopes.interval(row), row["verdict"], row["expected"]]
        rows.append([*texts([row["alpha"], *cells]), f"{row['literal_from']:.1e}"])
    texts_of_all.append(markdown(rows))
    header = ["method", "α", "median's slope in k", "mean's slope in seeds", "n^{2/p−1}"]
    rows = [[*header, "largest seed's share"]]
    for row in results["sgd"]:
        cells = [row["median_slope"], row["growth"], row["expected_growth"], row["largest_share"]]
        rows.append([row["method"], *texts([row["alpha"], *cells])])
    texts_of_all.append(markdown(rows))
    rows = [["dimension", "bound's exponent", "fitted [95%]", "", "error at d = 1", "at largest d"]]
    for row in results["dimension"]:
        cells = [
            row["bound"],
            slopes.interval(row),
            row["verdict"],
            row["mean"][0],
            row["mean"][-1],
        ]
        rows.append([row["method"], *texts(cells)])
    texts_of_all.append(markdown(rows))
    return "\n\n".join(texts_of_all)


def report(work, options):
    """Computes what is missing, prints and saves it."""
    from lab.theory.dimension import dimension_free
    from lab.theory.nonconvex import nonconvex
    from lab.theory.plain_sgd import sgd
    from lab.theory.rate_figures import draw
    from lab.theory.strongly_convex import strongly_convex

    results = {
        "strongly_convex": work.part("strongly_convex", strongly_convex, options),
        "nonconvex": work.part("nonconvex", nonconvex, options),
        "sgd": work.part("sgd", sgd, options),
        "dimension": work.part("dimension", dimension_free, options),
    }
    print(tables(results))
    draw(results, options.output / "rates.png")
    work.write_results(results, ("tensorflow", "scipy", "numpy"))
    print(f"\nWritten under {options.output}: results.json, rates.png")


def main(arguments=None):
    """Runs the command line; returns the exit status."""
    return command.run(__doc__, SCALES, "out/convergence_rates", report, arguments)


if __name__ == "__main__":
    sys.exit(main())
