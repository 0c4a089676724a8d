"""The table and the picture of moving_thresholds.py."""

import numpy as np

from ..figures import picture


def rows(results):
    """A line for each contestant of each problem, the header first: lists of texts.

    Args:
        results: dict from a problem to what `contest.contest` returned.
    """
    header = [
        "problem",
        "clipping",
        "rate",
        "tuned too",
        "tried",
        "error",
        "less the fixed's (95%)",
    ]
    lines = [[*header, "change by scale"]]
    for problem, result in results.items():
        differences = {row["contestant"]: row for row in result["differences"]}
        for run in result["runs"]:
            settings = run["settings"]
            lines.append(
                [
                    problem,
                    run["contestant"],
                    f"{settings['rate']:g}",
                    ", ".join(f"{k} {v:g}" for k, v in settings.items() if k != "rate") or "–",
                    str(run["tried"]),
                    f"{np.mean(run['errors']):.4f}",
                    _difference(differences.get(run["contestant"])),
                    _change(run),
                ]
            )
    return lines


def _difference(row):
    if row is None:
        return "–"
    return f"{row['mean']:+.4f} ({row['low']:+.4f} to {row['high']:+.4f})"


def largest_change(run):
    """The largest difference that the scale of the loss made, or `None` where it was not tried."""
    if "scaled" not in run:
        return None
    errors = np.array(run["errors"])
    return float(max(np.max(np.abs(np.array(e) - errors)) for e in run["scaled"].values()))


def _change(run):
    change = largest_change(run)
    return "–" if change is None else f"{change:.1e}"


def draw(results, path):
    """Draws the errors of all seeds, a panel a problem."""
    with picture(path, "Thresholds that move", 1, len(results), figsize=(14, 4)) as panels:
        for axes, (problem, result) in zip(np.ravel(panels), results.items(), strict=True):
            for i, run in enumerate(result["runs"]):
                errors = np.array(run["errors"])
                axes.plot(np.full(len(errors), i), errors, "o", alpha=0.4, color="C0")
                axes.plot([i - 0.3, i + 0.3], [errors.mean()] * 2, color="black")
            axes.set_xticks(
                range(len(result["runs"])),
                [run["contestant"] for run in result["runs"]],
                rotation=40,
                ha="right",
            )
            axes.set_title(problem)
            what = "log of the distance" if "regression" in problem else "held-out loss"
            axes.set_ylabel(what)
