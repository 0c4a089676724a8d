"""How close the advised threshold comes to the best of a grid, on problems with known noise.

    python benchmarks/clipping_advice.py
    python benchmarks/clipping_advice.py --steps 100 --seeds 2 --out /tmp/advice.json

Two models, linear regression in 20 dimensions and a network of 8 tanh units, are trained by GClip
from targets with Student's t or Gaussian noise, in batches of 8 and 64, with a rate that falls
linearly to 0. One threshold is that of `NoiseSample.advice` on 256 gradients at the start, the
others are quantiles of their norms; rates go from 4 down to 2^-12 by factors of 2, and for every
threshold, the advised one as well, the best is taken. The error is the distance of the predictions
from the truth's, over that at the start, as the geometric mean over the seeds. The results are
written as JSON; the defaults take about six minutes on one core.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_acclip._utils import files
from keras_acclip._utils.commands import Parser, positive, to_path
from keras_acclip.noise import NoiseSample

OUT = Path(__file__).parents[1] / "docs/results/clipping_advice/run.json"

LAWS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "t(1.2)": lambda r, shape: r.standard_t(1.2, shape),
    "t(1.5)": lambda r, shape: r.standard_t(1.5, shape),
    "t(3)": lambda r, shape: r.standard_t(3, shape),
    "Gaussian": lambda r, shape: r.standard_normal(shape),
}
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
RATES = 2.0 ** -np.arange(-2, 13)
DIMENSION, UNITS = 20, 8
_LARGEST = 1e6


@dataclass(frozen=True)
class Problem:
    """A model to train; parameters have shape `(settings, seeds, parameters)`.

    Attributes:
        start: Returns the truth and the first parameters, `(seeds, parameters)`.
        predict: Predictions, `(settings, seeds, batch)`, of parameters and inputs.
        gradient: The gradient of half the mean squared error.
    """

    start: Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]
    predict: Callable[[np.ndarray, np.ndarray], np.ndarray]
    gradient: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def linear() -> Problem:
    """Linear regression from zero."""

    def start(rng: np.random.Generator, seeds: int) -> tuple[np.ndarray, np.ndarray]:
        return rng.standard_normal((seeds, DIMENSION)), np.zeros((seeds, DIMENSION))

    def predict(p: np.ndarray, x: np.ndarray) -> np.ndarray:
        return np.einsum("sbd,ksd->ksb", x, p)

    def gradient(p: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.einsum("ksb,sbd->ksd", predict(p, x) - y, x) / x.shape[1]

    return Problem(start, predict, gradient)


def network() -> Problem:
    """A network with one hidden layer, learning from another of its kind."""
    matrix = DIMENSION * UNITS

    def parts(p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        weights = p[..., :matrix].reshape(*p.shape[:-1], DIMENSION, UNITS)
        return weights, p[..., matrix : matrix + UNITS], p[..., matrix + UNITS :]

    def start(rng: np.random.Generator, seeds: int) -> tuple[np.ndarray, np.ndarray]:
        def drawn(bias: float, out: float) -> np.ndarray:
            pieces = [
                rng.standard_normal((seeds, matrix)) / np.sqrt(DIMENSION),
                bias * rng.standard_normal((seeds, UNITS)),
                out * rng.standard_normal((seeds, UNITS)),
            ]
            return np.concatenate(pieces, -1)

        return drawn(0.5, 2.0), drawn(0.0, UNITS**-0.5)

    def hidden(p: np.ndarray, x: np.ndarray) -> np.ndarray:
        weights, bias, _ = parts(p)
        return np.tanh(np.einsum("sbd,ksdh->ksbh", x, weights) + bias[:, :, None])

    def predict(p: np.ndarray, x: np.ndarray) -> np.ndarray:
        return np.einsum("ksbh,ksh->ksb", hidden(p, x), parts(p)[2])

    def gradient(p: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        units, out = hidden(p, x), parts(p)[2]
        errors = (np.einsum("ksbh,ksh->ksb", units, out) - y) / x.shape[1]
        back = errors[..., None] * out[:, :, None] * (1 - units**2)
        weights = np.einsum("sbd,ksbh->ksdh", x, back)
        flat = weights.reshape(*weights.shape[:2], matrix)
        return np.concatenate(
            [flat, back.sum(2), np.einsum("ksb,ksbh->ksh", errors, units)], axis=-1
        )

    return Problem(start, predict, gradient)


PROBLEMS = {"linear": linear, "network": network}


def advised(gradients: np.ndarray, batch: int) -> tuple[float, str]:
    """Returns the threshold and the verdict of `advice` on gradients, `(batches, parameters)`."""
    mean = gradients.mean(0)
    sample = NoiseSample(
        norms=np.linalg.norm(gradients - mean, axis=1),
        gradient_norms=np.linalg.norm(gradients, axis=1),
        losses=np.ones(len(gradients)),
        batch_sizes=np.full(len(gradients), batch),
        mean_gradient_norm=float(np.linalg.norm(mean)),
    )
    advice = sample.advice()
    return advice.threshold, advice.label


def errors(
    problem: Problem, law: str, batch: int, *, steps: int, seeds: int
) -> tuple[np.ndarray, list[str]]:
    """Trains with every threshold and rate.

    Args:
        problem: The problem.
        law: The noise's, in `LAWS`.
        batch: Examples a batch.
        steps: Steps a training.
        seeds: How many trainings a setting.

    Returns:
        The error of each threshold (the quantiles, then the advised) and rate, and the verdicts.
    """
    rng = np.random.default_rng(0)
    truth, first = problem.start(rng, seeds)

    def draw() -> tuple[np.ndarray, np.ndarray]:
        x = rng.standard_normal((seeds, batch, DIMENSION))
        return x, problem.predict(truth[None], x)[0] + LAWS[law](rng, (seeds, batch))

    gradients = np.stack([problem.gradient(first[None], *draw())[0] for _ in range(256)])
    taus = np.quantile(np.linalg.norm(gradients, axis=-1), QUANTILES, axis=0)
    taus[-1] = np.inf
    advice = [advised(gradients[:, seed], batch) for seed in range(seeds)]
    taus = np.concatenate([taus, [[threshold for threshold, _ in advice]]])
    tau = np.repeat(taus, len(RATES), 0)[..., None]
    rate = np.tile(RATES, len(taus))[:, None, None]
    p = np.repeat(first[None], len(rate), 0)
    for k in range(steps):
        g = problem.gradient(p, *draw())
        norm = np.linalg.norm(g, axis=-1, keepdims=True)
        with np.errstate(all="ignore"):
            p = p - rate * (1 - k / steps) * np.minimum(1, tau / np.maximum(norm, 1e-30)) * g
        # A training that diverged stays where it is.
        p = np.where(np.abs(p) < _LARGEST, p, _LARGEST)
    x = np.random.default_rng(1).standard_normal((1, 2000, DIMENSION)).repeat(seeds, 0)
    goal = problem.predict(truth[None], x)
    left, begun = (np.mean((problem.predict(q, x) - goal) ** 2, -1) for q in (p, first[None]))
    found = np.exp(np.log(left / begun).mean(-1) / 2)
    return found.reshape(len(taus), len(RATES)), [label for _, label in advice]


def compared(name: str, law: str, batch: int, *, steps: int, seeds: int) -> dict[str, Any]:
    """Returns the row of one problem, noise and batch."""
    found, labels = errors(PROBLEMS[name](), law, batch, steps=steps, seeds=seeds)
    best, at = found.min(1), found.argmin(1)
    plain = len(QUANTILES) - 1
    row: dict[str, Any] = {"model": name, "noise": law, "batch": batch, "best": float(best.min())}
    row |= {f"over_best_{q}": float(b / best.min()) for q, b in zip(QUANTILES, best, strict=False)}
    row["advised_over_best"] = float(best[-1] / best.min())
    row["rate_over_plain"] = float(RATES[at[-1]] / RATES[at[plain]])
    row["verdicts"] = ", ".join(f"{labels.count(v)} {v}" for v in sorted(set(labels)))
    return row


def main(arguments: list[str] | None = None) -> int:
    """Trains everything and writes what it came to; returns the exit status."""
    parser = Parser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=positive, default=1500, help="steps a training")
    parser.add_argument("--seeds", type=positive, default=8, help="trainings a setting")
    parser.add_argument("--out", type=to_path, default=OUT, help="the JSON file to write")
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    start = time.perf_counter()
    for name in PROBLEMS:
        for law in LAWS:
            for batch in (8, 64):
                row = compared(name, law, batch, steps=options.steps, seeds=options.seeds)
                rows.append(row)
                print(
                    f"{name}, {law}, batch {batch}: advised {row['advised_over_best']:.2f} times "
                    f"the best error, unclipped {row['over_best_1.0']:.2f}",
                    flush=True,
                )
                files.write_atomically(options.out, json.dumps({"rows": rows}, indent=1).encode())
    print(f"{options.out}: {len(rows)} rows in {time.perf_counter() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
