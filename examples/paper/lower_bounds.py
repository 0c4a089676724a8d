"""No method falls below the lower bounds: the hard instances of Theorems 5 and 6.

    python examples/paper/lower_bounds.py
    python examples/paper/lower_bounds.py --scale paper --output out/lower_bounds_paper

The claims (Section 3): whatever method takes K stochastic gradients, some problem leaves it an
error of Ω(K^{−2(α−1)/α}) if strongly convex (Theorem 5), ‖∇f‖ = Ω(K^{−(α−1)/(3α−2)}) if smooth
alone (Theorem 6). These are GClip's rates, so that it is optimal up to a constant. The theorems
hide the constants; the instances here are built so that the bound is a number.

Theorem 5. f±(x) = (x ∓ q)²/2 on [−1/2, 1/2], gradients g = x ∓ Z/(2p^{1/α}), Z Bernoulli of mean
p, q = p^{1−1/α}/2: unbiased, and (E|g|^α)^{1/α} ≤ |x| + 1/2 ≤ G = 1. If no Z in K is 1, of
probability (1 − p)^K, the two can't be told apart, and any output x has ((x − q)² + (x + q)²)/4 ≥
q²/2. So the error, averaged over both, is at least p^{2(α−1)/α}·(1 − p)^K/8, at its largest with
a = 2(α−1)/α and p = a/(a + K):

    error ≥ (1/8)·(a/(a + K))^a·(K/(a + K))^K = Θ(K^{−a}).

The method that answers 0 until it sees a Z and then knows q attains it: the constant is exact.

Theorem 6. The chain of Carmon et al. with the oracle of Arjevani et al. (2023), for an α-moment:

    F(v) = −Ψ(1)Φ(v_1) + Σ_{i=2…T} (Ψ(−v_{i−1})Φ(−v_i) − Ψ(v_{i−1})Φ(v_i)),
    Ψ(t) = exp(1 − 1/(2t − 1)²) for t > 1/2, else 0;  Φ(t) = √e·∫_{−∞}^t exp(−s²/2) ds.

∇F is 152-Lipschitz, F(0) − inf F ≤ 12T, and ‖∇F(v)‖ > 1 while |v_T| ≤ 1 (their Lemma 2). A
coordinate has a gradient only once the one before it is over 1/4 in size, and the oracle multiplies
this newest coordinate, which alone is behind the others, by Z/p. So K gradients bring a method that
starts from 0 and moves only coordinates that it has seen at most as many coordinates as there are
ones among K Bernoulli numbers. With f(x) = (Lλ²/152)·F(x/λ) and γ = Lλ/152, ‖∇f‖ ≥ γ until the
chain is through. The newest coordinate's gradient is at most e^{3/2}·γ, hence the constraints

    F₀ = 12·152·γ²·T/L,    σ^α = (e^{3/2}·γ)^α·(p^{1−α}·(1 − p)^α + 1 − p)

fix γ and p for each T, and every iterate, the best one included, has

    E‖∇f‖ ≥ γ·P(Binomial(K, p) < T).

The script takes the T at which this is largest. As T ∝ γ^{−2}, p ∝ γ^{α/(α−1)} and K ≈ T/p, it is
Θ(K^{−(α−1)/(3α−2)}). All methods here move only coordinates that they have seen; for others the
chain is rotated at random, which changes nothing for these.

Each method's rate and decay are tuned for each K on one half of the seeds and measured on the
other: projected SGD, GClip (in one dimension it is CClip), ACClip and Adam for Theorem 5; SGD,
GClip, CClip, ACClip and Adam for Theorem 6; and GClip with the theorems' own constants, untuned,
whose slope in K is fitted. A method counts as below the bound if its 95% interval is at some K.

What came out stands in docs/results/lower_bounds.md.
"""

import sys

from lab.theory import command

SCALES = {
    "small": {
        "seeds": 512,
        "shortest": 30,
        "longest": 3000,
        "chain_seeds": 32,
        "chain_shortest": 100,
        "chain_longest": 3000,
        "initial_gap": 50.0,
    },
    "smoke": {
        "seeds": 64,
        "shortest": 10,
        "longest": 100,
        "chain_seeds": 16,
        "chain_shortest": 20,
        "chain_longest": 60,
        "initial_gap": 50.0,
    },
    "paper": {
        "seeds": 2000,
        "shortest": 30,
        "longest": 30_000,
        "chain_seeds": 200,
        "chain_shortest": 100,
        "chain_longest": 30_000,
        "initial_gap": 50.0,
    },
}


def table(rows, exponent, own):
    """One theorem's table: slopes, and each method's error over the bound, the least over K.

    Args:
        rows: What `summary` returned, one for each α.
        exponent: The theorem's exponent of K as a function of α.
        own: The name of GClip with the theorem's constants.
    """
    from lab.tables import markdown, texts
    from lab.theory import slopes

    names = list(rows[0]["methods"])
    lines = [["α", "theorem", "bound's slope", "GClip's slope, tuned", own, *names]]
    for row in rows:
        ratios = [
            f"{min(method['ratio']):.2f}" + " below" * method["below_bound"]
            for method in row["methods"].values()
        ]
        exponents = [exponent(row["alpha"]), row["bound_slope"]]
        fitted = [slopes.interval(row["methods"][name]) for name in ("GClip", own)]
        lines.append([*texts([row["alpha"], *exponents]), *fitted, *ratios])
    return markdown(lines)


def report(work, options):
    """Computes what is missing, prints and saves it."""
    from lab.theory.bound_figures import draw
    from lab.theory.exponents import ALPHAS, bound_exponent, nonconvex_exponent
    from lab.theory.hard_chain import theorem_6
    from lab.theory.hard_pair import theorem_5

    results = {
        "theorem_5": work.part("theorem_5", theorem_5, options),
        "theorem_6": [
            work.part(f"theorem_6-{alpha}", theorem_6, options, alpha) for alpha in ALPHAS.tolist()
        ],
    }
    print("Theorem 5: error over bound, the least over K")
    print(table(results["theorem_5"], bound_exponent, "GClip, Theorem 4"))
    print("\nTheorem 6: average ‖∇f‖ over bound, the least over K")
    print(table(results["theorem_6"], nonconvex_exponent, "GClip, Theorem 2"))
    print("\nTheorem 6: the best iterate's ‖∇f‖ over bound, the least over K")
    best = [row | {"methods": row["least"]} for row in results["theorem_6"]]
    print(table(best, nonconvex_exponent, "GClip, Theorem 2"))
    draw(results, options.output / "bounds.png")
    work.write_results(results, ("tensorflow", "scipy", "numpy"))
    print(f"\nWritten under {options.output}: results.json, bounds.png")


def main(arguments=None):
    """Runs the command line; returns the exit status."""
    return command.run(__doc__, SCALES, "out/lower_bounds", report, arguments)


if __name__ == "__main__":
    sys.exit(main())
